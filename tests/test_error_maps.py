"""Maps of true, missed and false pixels: their values, palette and place."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint

from preprocessing.errors import OutputError
from preprocessing.image_operations import ERROR_COLOURS, error_classes
from preprocessing.raster_access import RasterInfo, gdal_quiet
from preprocessing.raster_writers import ErrorMapWriter
from preprocessing.tiling import Window

TRUTH = np.array([[0, 1, 0, 1, 255, 0]], np.uint8)
MASK = np.array([[0, 0, 1, 1, 1, 255]], np.uint8)
VALUES = [[0, 1, 2, 3, 255, 255]]


def info(height: int, width: int, **place: object) -> RasterInfo:
    place = {"crs": None, "transform": Affine.identity(), "georeferenced": False} | place
    return RasterInfo(height, width, 1, "uint8", gsd=None, **place)


def test_values_by_hand():
    assert error_classes(TRUTH, MASK).tolist() == VALUES


def test_a_map_is_read_back_with_its_colours_and_place(tmp_path):
    place = {
        "crs": rasterio.crs.CRS.from_epsg(32633),
        "transform": Affine(0.3, 0.1, 5e5, 0.1, -0.3, 5e6),
    }
    values = np.random.default_rng(1).choice([0, 1, 2, 3, 255], (600, 300)).astype(np.uint8)
    with ErrorMapWriter(tmp_path / "a.tif", info(600, 300, **place)) as writer:
        for row in range(0, 600, 256):
            rows = min(256, 600 - row)
            writer.write(Window(row, 0, rows, 300), values[row : row + rows])
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), values)
        assert (file.crs, file.transform, file.nodata) == (*place.values(), None)
        palette = file.colormap(1)
    assert {value: palette[value][:3] for value in ERROR_COLOURS} == ERROR_COLOURS


def test_ground_control_points_stay(tmp_path):
    points = (GroundControlPoint(0, 0, 5, 6), GroundControlPoint(1, 0, 5, 7))
    with ErrorMapWriter(tmp_path / "a.tif", info(1, 6, gcps=points)) as writer:
        writer.write(Window(0, 0, 1, 6), error_classes(TRUTH, MASK))
    with gdal_quiet(), rasterio.open(tmp_path / "a.tif") as file:
        assert [(p.x, p.y) for p in file.gcps[0]] == [(5, 6), (5, 7)]
        assert file.read(1).tolist() == VALUES


def test_no_place_to_write_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        ErrorMapWriter(tmp_path / "none" / "a.tif", info(1, 6))
