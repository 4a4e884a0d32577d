import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from preprocessing.ground import placement
from preprocessing.mask_outlines import joined_at_corners, polygonise
from preprocessing.raster_access import raster_info
from preprocessing.vectorising import fill_holes
from tests.mask_files import UTM, burn, write

SQUARE = UTM.identity()


def filled(folder, mask, largest_m2):
    path = write(folder / "mask.tif", mask)
    outlines = np.array(polygonise(path), object)
    return fill_holes(outlines, placement(raster_info(path)), largest_m2, path)


def test_small_holes_are_filled_and_large_ones_stay(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:18, 2:28] = 1
    mask[4:6, 4:6] = 0  # 1 m2
    mask[8:14, 10:20] = 0  # 15 m2
    (polygon,) = filled(tmp_path, mask, 2)
    assert polygon.is_valid and [shapely.Polygon(r).area for r in polygon.interiors] == [60]
    (polygon,) = filled(tmp_path, mask, 16)
    assert polygon.equals(shapely.box(2, 2, 28, 18))
    (polygon,) = filled(tmp_path, mask, 0.5)
    assert len(polygon.interiors) == 2


def test_what_lies_in_a_filled_hole_becomes_part_of_it(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[2:18, 2:18] = 1
    mask[5:15, 5:15] = 0
    mask[9:11, 9:11] = 1
    mask[19, 19] = 1
    large = filled(tmp_path, mask, 30)
    assert len(large) == 2
    expected = mask.copy()
    expected[2:18, 2:18] = 1
    np.testing.assert_array_equal(burn(large, mask.shape, SQUARE), expected)
    assert len(filled(tmp_path, mask, 10)) == 3


def test_void_is_not_filled_nor_what_is_around_it(tmp_path):
    mask = np.ones((30, 30), np.uint8)
    mask[3:6, 3:6] = 0
    mask[10:28, 10:28] = 0
    mask[13:25, 13:25] = 1
    mask[16:20, 16:20] = 0
    mask[17, 17] = 255
    polygons = filled(tmp_path, mask, 1000)
    assert len(polygons) == 2
    expected = (mask == 1).astype(np.uint8)
    expected[3:6, 3:6] = 1
    np.testing.assert_array_equal(burn(polygons, mask.shape, SQUARE), expected)


def test_no_outlines_are_a_case(tmp_path):
    assert len(filled(tmp_path, np.zeros((5, 5), np.uint8), 10)) == 0
    assert joined_at_corners(np.zeros(0, object)).tolist() == []


@settings(max_examples=60, deadline=None)
@given(mask=arrays(np.uint8, st.tuples(*[st.integers(1, 14)] * 2), elements=st.integers(0, 1)))
def test_filling_every_hole_leaves_valid_outlines_of_the_mask_without_holes(mask, tmp_path_factory):
    polygons = filled(tmp_path_factory.mktemp("m"), mask, 1e9)
    assert shapely.is_valid(polygons).all()
    # Background that is connected by edges alone, as outlines see it.
    background, _ = ndimage.label(np.pad(mask, 1) == 0, np.ones((3, 3)))
    expected = (background != background[0, 0])[1:-1, 1:-1]
    burnt = burn(polygons, mask.shape, SQUARE)
    # A background pixel that only corners join to the outside may be a hole of one outline.
    assert (burnt[expected] == 1).all() and (burnt >= mask).all()
    assert all(len(polygon.interiors) == 0 for polygon in polygons)


@settings(max_examples=60, deadline=None)
@given(mask=arrays(np.uint8, st.tuples(*[st.integers(1, 14)] * 2), elements=st.integers(0, 1)))
def test_groups_are_the_pieces_connected_by_corners_too(mask):
    outlines = np.array(polygonise(mask), object)
    groups = joined_at_corners(outlines)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    assert len(set(groups.tolist())) == count
    for group in range(count):
        burnt = burn(outlines[groups == group], mask.shape, SQUARE)
        np.testing.assert_array_equal(burnt > 0, labels == labels[burnt > 0][0])


def test_groups_are_numbered_as_they_appear():
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]], np.uint8)
    outlines = np.array(polygonise(mask), object)
    groups = joined_at_corners(outlines)
    assert groups.max() == 2
    _, first = np.unique(groups, return_index=True)
    assert first.tolist() == sorted(first.tolist())
