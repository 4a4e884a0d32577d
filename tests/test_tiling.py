"""Window geometry: covering, cutting, mirroring, and stitching back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.patches import validation_patches
from preprocessing.tiling import Window, cover, cut, cut_mask, fill_void, mirror, starts

sides = st.integers(1, 40)


@st.composite
def size_and_stride(draw):
    size = draw(st.integers(1, 12))
    return size, draw(st.integers(1, size))


def test_slices_and_clipping_by_hand():
    window = Window(-2, 3, 5, 4)
    assert window.clipped(10, 5) == Window(0, 3, 3, 2)
    assert window.clipped(10, 10) == Window(0, 3, 3, 4)
    assert Window(1, 2, 3, 4).slices == (slice(1, 4), slice(2, 6))
    inside = Window(1, 2, 3, 4)
    assert inside.clipped(4, 6) == inside


@pytest.mark.parametrize("window", [Window(-3, 0, 3, 3), Window(0, 5, 2, 2), Window(4, 0, 1, 1)])
def test_a_window_without_a_pixel_inside_is_refused(window):
    with pytest.raises(ValueError, match="no pixel in a raster of 4 x 5"):
        window.clipped(4, 5)


@pytest.mark.parametrize(
    ("length", "size", "stride", "expected"),
    [
        (10, 4, 4, [0, 4, 6]),
        (12, 4, 4, [0, 4, 8]),
        (9, 4, 4, [0, 4, 5]),
        (10, 4, 2, [0, 2, 4, 6]),
        (11, 4, 2, [0, 2, 4, 6, 7]),
        (4, 4, 1, [0]),
        (3, 4, 4, [0]),
        (5, 4, 4, [0, 1]),
    ],
)
def test_starts_by_hand(length, size, stride, expected):
    assert starts(length, size, stride) == expected


@pytest.mark.parametrize("arguments", [(0, 4, 4), (4, 0, 1), (4, 4, 0), (9, 4, 5)])
def test_impossible_coverings_are_refused(arguments):
    with pytest.raises(ValueError, match=f"length {arguments[0]}, size {arguments[1]}"):
        starts(*arguments)


@settings(deadline=None)
@given(sides, sides, size_and_stride())
def test_windows_cover_every_pixel_and_end_with_the_raster(height, width, size_stride):
    size, stride = size_stride
    windows = cover(height, width, size, stride)
    seen = np.zeros((height, width), int)
    for window in windows:
        assert (window.height, window.width) == (size, size)
        seen[window.clipped(height, width).slices] += 1
    assert seen.min() >= 1
    assert len(set(windows)) == len(windows)
    assert windows == sorted(windows)
    # Nothing outside but where the raster is smaller than a window.
    assert all(w.row >= 0 and w.row + size <= max(height, size) for w in windows)
    assert all(w.column >= 0 and w.column + size <= max(width, size) for w in windows)


def test_the_last_row_and_column_are_covered_without_a_stride_being_named():
    windows = cover(5, 7, 4)
    assert [(w.row, w.column) for w in windows] == [(0, 0), (0, 3), (1, 0), (1, 3)]
    assert cover(2, 3, 4) == [Window(0, 0, 4, 4)]


def test_mirror_by_hand():
    positions = np.arange(-5, 8)
    expected = [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    np.testing.assert_array_equal(mirror(positions, 4), expected)
    np.testing.assert_array_equal(mirror(np.array([-2, -1, 0, 1, 2, 3]), 3), [2, 1, 0, 1, 2, 1])
    np.testing.assert_array_equal(mirror(np.array([-3, 0, 9]), 1), [0, 0, 0])


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 30), st.integers(0, 30))
def test_mirror_is_the_reflection_of_numpy(length, before, after):
    axis = np.arange(length)
    expected = np.pad(axis, (before, after), mode="reflect")
    np.testing.assert_array_equal(mirror(np.arange(-before, length + after), length), expected)


def test_cut_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6]], np.int16)
    expected = [[5, 4, 5, 6, 5], [2, 1, 2, 3, 2], [5, 4, 5, 6, 5], [2, 1, 2, 3, 2]]
    np.testing.assert_array_equal(cut(image, Window(-1, -1, 4, 5)), expected)
    assert cut(image, Window(-1, -1, 4, 5)).dtype == np.int16
    bands = np.stack([image, 10 * image], axis=-1)
    np.testing.assert_array_equal(cut(bands, Window(1, 1, 1, 2)), [[[5, 50], [6, 60]]])


def test_cut_mask_by_hand():
    mask = np.array([[0, 1, 0], [1, 255, 1]], np.uint8)
    expected = [[255, 255, 255, 255], [255, 0, 1, 0], [255, 1, 255, 1]]
    patch = cut_mask(mask, Window(-1, -1, 3, 4))
    np.testing.assert_array_equal(patch, expected)
    assert patch.dtype == np.uint8


def test_cuts_are_copies():
    image, mask = np.zeros((3, 3, 1), np.uint8), np.zeros((3, 3), np.uint8)
    window = Window(0, 0, 2, 2)
    cut(image, window)[:] = 9
    cut_mask(mask, window)[:] = 9
    assert not image.any()
    assert not mask.any()


@settings(deadline=None)
@given(sides, sides, size_and_stride())
def test_cut_patches_stitch_back_to_the_image(height, width, size_stride):
    size, stride = size_stride
    image = np.arange(height * width, dtype=np.int32).reshape(height, width)
    stitched = np.full_like(image, -1)
    for window in cover(height, width, size, stride):
        inside = window.clipped(height, width)
        stitched[inside.slices] = cut(image, window)[: inside.height, : inside.width]
    np.testing.assert_array_equal(stitched, image)


@settings(deadline=None)
@given(sides, sides, st.integers(1, 12), st.integers(0, 3))
def test_validation_patches_hold_each_valid_pixel_once_and_stitch_to_the_mask(
    height, width, size, seed
):
    generator = np.random.default_rng(seed)
    mask = generator.choice(np.array([0, 1, 255], np.uint8), (height, width))
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    before = mask.copy()
    stitched, counted = np.full_like(mask, 255), np.zeros(mask.shape, int)
    for window, patch, patch_mask in validation_patches(image, mask, size):
        assert patch.shape == (size, size, 3)
        assert patch_mask.shape == (size, size)
        np.testing.assert_array_equal(patch, cut(image, window))
        inside = window.clipped(height, width)
        # Outside the scene there is imagery, mirrored, but nothing to learn or count.
        outside = np.ones((size, size), bool)
        outside[: inside.height, : inside.width] = False
        assert np.all(patch_mask[outside] == 255)
        part = patch_mask[: inside.height, : inside.width]
        stitched[inside.slices] = np.where(part == 255, stitched[inside.slices], part)
        counted[inside.slices] += part != 255
    np.testing.assert_array_equal(stitched, mask)
    np.testing.assert_array_equal(counted, mask != 255)
    np.testing.assert_array_equal(mask, before)


# Void as it is fed


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_void_becomes_the_mean_of_the_valid_pixels_band_by_band(dtype):
    image = np.array([[[0, 10], [255, 7]], [[3, 20], [1, 30]]], dtype)
    valid = np.array([[True, False], [True, True]])
    filled = fill_void(image, valid)
    assert filled.dtype == image.dtype
    # 0, 3, 1 and 10, 20, 30: 4 / 3, rounded where the dtype has no fractions, and 20.
    first = 4 / 3 if dtype == "float32" else 1
    np.testing.assert_allclose(filled[0, 1], [first, 20], rtol=1e-6)
    np.testing.assert_array_equal(filled[valid], image[valid])
    assert image[0, 1].tolist() == [255, 7]


@pytest.mark.parametrize("value", [True, False])
def test_nothing_is_filled_where_all_is_valid_or_nothing(value):
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(fill_void(image, np.full((2, 2), value)), image)
