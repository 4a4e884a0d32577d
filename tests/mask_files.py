"""Mask and probability files for the tests of what becomes of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import rasterio.features
from affine import Affine
from rasterio.crs import CRS

from preprocessing.ground import Placement, ground_steps, mean_step, placement
from preprocessing.raster_access import RasterInfo, raster_info
from preprocessing.raster_writers import MaskWriter, ProbabilityWriter
from preprocessing.tiling import Window
from preprocessing.vectorising import FeatureSettings, MaskFeatures, features_of

UTM = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 5_000_000)
ROTATED = Affine(0.4, 0.3, 500_000, 0.3, -0.4, 5_000_000)


def describe(shape, transform=UTM, crs="EPSG:32633", gcps=()) -> RasterInfo:
    """What a writer needs to know of the raster that a mask belongs to."""
    crs = CRS.from_string(crs) if crs else None
    return RasterInfo(*shape, 1, "uint8", crs, transform, None, crs is not None, gcps)


def write(path: Path, mask: np.ndarray, *place, **places) -> Path:
    """Write a mask of 0, 1 and 255 as ``infer.py`` does."""
    with MaskWriter(path, describe(mask.shape, *place, **places), overwrite=True) as file:
        file.write(Window(0, 0, *mask.shape), mask)
    return path


def write_probabilities(path: Path, values: np.ndarray, *place, **places) -> Path:
    """Write probabilities as ``infer.py --probabilities`` does."""
    with ProbabilityWriter(path, describe(values.shape, *place, **places)) as file:
        file.write(Window(0, 0, *values.shape), values.astype(np.float32))
    return path


def place_of(folder: Path, shape=(100, 100), *place, **places) -> Placement:
    """The placement of a raster of that shape and place."""
    path = write(folder / "place.tif", np.zeros(shape, np.uint8), *place, **places)
    return placement(raster_info(path))


def burn(polygons, shape, transform) -> np.ndarray:
    """Polygons back to a mask."""
    if not len(polygons):
        return np.zeros(shape, np.uint8)
    return rasterio.features.rasterize(polygons, shape, transform=transform, dtype=np.uint8)


def footprint_layer(mask, probabilities=None, **chosen) -> SimpleNamespace:
    """Footprints of a mask in one frame, with their geometry type and notes."""
    return _gathered(features_of("buildings", mask, probabilities, FeatureSettings(**chosen)))


def centre_line_layer(mask, probabilities=None, **chosen) -> SimpleNamespace:
    """Centre lines of a mask in one frame, with their geometry type and notes."""
    return _gathered(features_of("roads", mask, probabilities, FeatureSettings(**chosen)))


def _gathered(features: MaskFeatures) -> SimpleNamespace:
    frame = geopandas.GeoDataFrame(pd.concat(features, ignore_index=True), crs=features.place.crs)
    return SimpleNamespace(frame=frame, geometry_type=features.geometry_type, notes=features.notes)


def ground_sample_distance(crs: Any, transform: Affine, height: int, width: int) -> float | None:
    """Return ground metres per pixel at a raster's centre, as ``RasterInfo.gsd`` has them."""
    steps = ground_steps(crs, transform, height, width)
    return steps and mean_step(steps)
