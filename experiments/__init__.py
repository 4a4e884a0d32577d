"""Recipes and the thin commands over them."""
