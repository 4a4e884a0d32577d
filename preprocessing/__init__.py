"""Scenes, polygons and rasters to patches, and masks back to polygons; never imports Keras."""
