import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import vectorising
from preprocessing.errors import RasterError
from preprocessing.mask_outlines import polygonise
from preprocessing.raster_access import raster_info
from preprocessing.rasters import ProbabilityReader, check_grid
from preprocessing.tiling import Window, strips
from preprocessing.vectorising import holds_void, sums_at_points, sums_in_polygons
from tests.mask_files import UTM, write, write_probabilities


@pytest.fixture(autouse=True)
def _narrow_strips(monkeypatch):
    """Several strips to even the smallest raster."""
    monkeypatch.setattr(vectorising, "strips", lambda height, width: strips(height, width, 4))
    monkeypatch.setattr("preprocessing.tiling._STRIP_PIXELS", 40)


def reading(values):
    return lambda window: values[window.slices]


@settings(max_examples=60, deadline=None)
@given(
    mask=arrays(np.uint8, st.tuples(*[st.integers(1, 15)] * 2), elements=st.integers(0, 1)),
    seed=st.integers(0, 99),
)
def test_sums_in_outlines_are_those_of_their_pixels(mask, seed):
    values = np.random.default_rng(seed).random(mask.shape)
    values[values < 0.1] = np.nan
    polygons = np.array(polygonise(mask), object)
    sums, counts = sums_in_polygons(polygons, *mask.shape, reading(values))
    assert sums.sum() == pytest.approx(np.nansum(values[mask == 1]))
    assert counts.sum() == np.isfinite(values[mask == 1]).sum()
    columns, rows = np.meshgrid(np.arange(mask.shape[1]) + 0.5, np.arange(mask.shape[0]) + 0.5)
    for polygon, total, count in zip(polygons, sums, counts, strict=True):
        inside = shapely.contains_xy(polygon, columns, rows)
        assert total == pytest.approx(np.nansum(values[inside]))
        assert count == np.isfinite(values[inside]).sum()


def test_sums_at_points_by_hand():
    values = np.arange(200.0).reshape(20, 10)
    values[19, 9] = np.nan
    points = np.array([[9, 19], [0, 0], [5, 3], [0, 19]])
    sums, counts = sums_at_points(points, np.array([0, 0, 2, 2]), 3, 20, 10, reading(values))
    assert sums.tolist() == [0, 0, 35 + 190] and counts.tolist() == [1, 0, 2]


def test_nothing_sums_to_nothing():
    empty = np.zeros(0, object)
    values = np.ones((6, 6))
    assert [len(each) for each in sums_in_polygons(empty, 6, 6, reading(values))] == [0, 0]
    none = np.zeros((0, 2), int), np.zeros(0, int)
    assert [len(each) for each in sums_at_points(*none, 0, 6, 6, reading(values))] == [0, 0]


def test_void_is_found_in_the_polygon_and_in_those_around_it(tmp_path):
    mask = np.zeros((12, 12), np.uint8)
    mask[5, 5] = 255
    path = write(tmp_path / "a.tif", mask)
    boxes = [shapely.box(5, 5, 6, 6), shapely.box(0, 0, 4, 4), shapely.box(2, 2, 10, 10)]
    for order in ([0, 1, 2], [2, 1, 0]):
        found = holds_void(np.array(boxes, object)[order], path)
        assert found.tolist() == np.array([True, False, True])[order].tolist()
    assert holds_void(np.zeros(0, object), path).tolist() == []


def test_probabilities_are_read_with_void_as_nan(tmp_path):
    values = np.array([[0.25, np.nan], [1, 0]])
    path = write_probabilities(tmp_path / "p.tif", values)
    with ProbabilityReader(path, raster_info(path)) as reader:
        read = reader.read(Window(0, 0, 2, 2))
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, values)


def raw(path, pixels, **options):
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    with rasterio.open(path, "w", dtype=pixels.dtype, **profile, **options) as file:
        file.write(pixels)
    return path


def test_other_values_and_grids_are_refused(tmp_path):
    mask = raster_info(write(tmp_path / "mask.tif", np.zeros((4, 5), np.uint8)))
    same = {"crs": "EPSG:32633", "transform": UTM}
    percent = raw(tmp_path / "a.tif", np.full((1, 4, 5), 80, np.uint8), **same)
    with (
        ProbabilityReader(percent, mask) as reader,
        pytest.raises(RasterError, match="from 80 to 80; probabilities from 0 to 1"),
    ):
        reader.read(Window(0, 0, 4, 5))
    with pytest.raises(RasterError, match="3 bands"):
        check_grid(raw(tmp_path / "b.tif", np.zeros((3, 4, 5), np.float32), **same), mask)
    with pytest.raises(RasterError, match="4 x 4 pixels, the mask 5 x 4"):
        check_grid(raw(tmp_path / "c.tif", np.zeros((1, 4, 4), np.float32), **same), mask)
    moved = {"crs": "EPSG:32633", "transform": UTM @ UTM.translation(2, 0)}
    with pytest.raises(RasterError, match="than the mask: .* 1 m apart"):
        check_grid(raw(tmp_path / "d.tif", np.zeros((1, 4, 5), np.float32), **moved), mask)
    # Half a pixel is how differently two programs may say where the same grid lies.
    near = {"crs": "EPSG:32633", "transform": UTM @ UTM.translation(0.4, 0)}
    check_grid(raw(tmp_path / "e.tif", np.zeros((1, 4, 5), np.float32), **near), mask)
