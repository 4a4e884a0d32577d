import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from preprocessing.mask_outlines import outline_batches
from preprocessing.raster_access import gdal_quiet

masks = arrays(
    np.uint8, st.tuples(*[st.integers(1, 14)] * 2), elements=st.sampled_from([0, 1, 1, 255])
)
# A hole that spans strips, in it an island that touches its corner, and a hole in that.
NESTED = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0, 0, 1],
        [1, 0, 1, 1, 1, 0, 1],
        [1, 0, 1, 0, 1, 0, 1],
        [1, 0, 1, 1, 1, 0, 1],
        [1, 0, 0, 0, 0, 1, 1],
        [0, 1, 1, 1, 1, 1, 0],
    ],
    np.uint8,
)
COMB = np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 0, 1], [0, 0, 1, 1, 1]], np.uint8)


@pytest.fixture
def strips_of(monkeypatch):
    """Sets how many rows a strip has."""

    def rows(count, width):
        monkeypatch.setattr("preprocessing.tiling._STRIP_PIXELS", count * width)

    return rows


def batches_of(mask, **options):
    return list(outline_batches(lambda window: mask[window.slices], *mask.shape, **options))


def undivided(mask):
    """The outlines that GDAL gives of the whole mask, whatever vertex they begin with."""
    target = mask == 1
    with gdal_quiet():
        shapes = rasterio.features.shapes(target.astype(np.uint8), target, connectivity=4)
        rings = [shape["coordinates"] for shape, _ in shapes]
    return {shapely.normalize(shapely.Polygon(o, holes)).wkb for o, *holes in rings}


@settings(max_examples=150, deadline=None)
@given(
    mask=masks,
    rows=st.integers(1, 6),
    batch=st.integers(1, 5),
    corners=st.booleans(),
    enclosed=st.booleans(),
)
@example(NESTED, 1, 1, True, True)
@example(NESTED, 2, 1, False, False)
@example(COMB, 1, 1, False, True)
def test_strips_give_the_outlines_of_the_undivided_mask(mask, rows, batch, corners, enclosed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preprocessing.tiling._STRIP_PIXELS", rows * mask.shape[1])
        batches = batches_of(mask, batch=batch, corners=corners, enclosed=enclosed)
    polygons = [polygon for found in batches for polygon in found]
    assert len(polygons) == len({polygon.wkb for polygon in polygons})
    # To the last vertex.
    assert {polygon.wkb for polygon in polygons} == undivided(mask)
    assert all(polygon.is_valid for polygon in polygons)
    if not (corners or enclosed):
        assert all(len(found) == batch for found in batches[:-1])
        bottoms = [polygon.bounds[3] for polygon in polygons]
        assert bottoms == sorted(bottoms)


@settings(max_examples=100, deadline=None)
@given(mask=masks, rows=st.integers(1, 4))
@example(NESTED, 1)
def test_what_belongs_together_comes_in_one_batch(mask, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preprocessing.tiling._STRIP_PIXELS", rows * mask.shape[1])
        by_corners = batches_of(mask, batch=1, corners=True)
        enclosed = batches_of(mask, batch=1, enclosed=True)
    labels, _ = ndimage.label(mask == 1, np.ones((3, 3)))
    pieces = [{labels[own] for own in map(a_pixel, found)} for found in by_corners]
    assert sum(map(len, pieces)) == len(set().union(*pieces))
    number = {polygon.wkb: k for k, found in enumerate(enclosed) for polygon in found}
    polygons = [polygon for found in enclosed for polygon in found]
    for outer in polygons:
        filled = shapely.Polygon(outer.exterior)
        for inner in polygons:
            if filled.contains(inner):
                assert number[inner.wkb] == number[outer.wkb]


def a_pixel(polygon):
    """Row and column of a pixel of a polygon, the last of its first row."""
    top = polygon.bounds[1]
    inside = shapely.intersection(polygon, shapely.box(-1, top, 99, top + 1))
    return int(top), int(inside.bounds[2]) - 1


def test_the_order_does_not_depend_on_the_strips(strips_of):
    mask = np.random.default_rng(0).integers(0, 2, (60, 40), np.uint8)
    orders = []
    for rows in (1, 7, 60):
        strips_of(rows, 40)
        orders.append([polygon.wkb for found in batches_of(mask) for polygon in found])
    assert orders[0] == orders[1] == orders[2] and len(orders[0]) > 100


def test_a_shape_is_given_as_soon_as_it_is_complete(strips_of):
    """Of a house in the first rows nothing waits for the last."""
    strips_of(2, 10)
    mask = np.zeros((1000, 10), np.uint8)
    mask[1:5, 2:6] = mask[10:990, 8] = 1
    read = []

    def rows(window):
        read.append(window.row)
        return mask[window.slices]

    stream = outline_batches(rows, *mask.shape, batch=1)
    (house,) = next(stream)
    assert house.equals(shapely.box(2, 1, 6, 5)) and read[-1] <= 6
    ((long,),) = list(stream)
    assert shapely.get_num_coordinates(long) == 5 and long.equals(shapely.box(8, 10, 9, 990))


@pytest.mark.parametrize("fill", [0, 255])
def test_no_target_gives_no_batch(fill):
    assert batches_of(np.full((7, 5), fill, np.uint8)) == []
