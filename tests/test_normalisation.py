"""Band statistics: exact, whatever the order and the cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing.errors import RasterError
from preprocessing.normalisation import BandStatistics


def statistics(image: np.ndarray, valid: np.ndarray | None = None) -> BandStatistics:
    result = BandStatistics(image.shape[-1])
    result.update(image, np.ones(image.shape[:-1], bool) if valid is None else valid)
    return result


def test_four_pixels_by_hand():
    image = np.array([[[0, 10], [2, 10]], [[4, 30], [6, 30]]], np.uint8)
    result = statistics(image)
    assert result.count == 4
    assert result.mean == [3.0, 20.0]
    assert result.std == [5**0.5, 10.0]


def test_void_pixels_do_not_count():
    image = np.array([[[1], [3], [255]]], np.uint8)
    result = statistics(image, np.array([[True, True, False]]))
    assert (result.count, result.mean, result.std) == (2, [2.0], [1.0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_same_as_numpy(dtype):
    rng = np.random.default_rng(1)
    image = (rng.random((40, 30, 3)) * 250).astype(dtype)
    valid = rng.random((40, 30)) < 0.7
    result = statistics(image, valid)
    pixels = image[valid].astype(np.float64)
    np.testing.assert_allclose(result.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.std, pixels.std(axis=0), rtol=1e-12)


@given(
    image=arrays(np.uint16, (6, 4, 2)),
    valid=arrays(bool, (6, 4)),
    cut=st.integers(0, 6),
)
def test_integers_give_equal_figures_however_they_are_cut(image, valid, cut):
    whole = statistics(image, valid)
    parts = BandStatistics(2)
    parts.update(image[cut:], valid[cut:])
    parts.update(image[:cut], valid[:cut])
    assert (parts.count, parts.mean, parts.std) == (whole.count, whole.mean, whole.std)


def test_a_stack_is_its_images():
    rng = np.random.default_rng(2)
    stack = rng.integers(0, 256, (5, 8, 8, 3), np.uint8)
    valid = rng.random((5, 8, 8)) < 0.5
    assert (
        statistics(stack, valid).std
        == statistics(stack.reshape(40, 8, 3), valid.reshape(40, 8)).std
    )


def test_sums_beyond_what_a_float_holds_stay_exact():
    image = np.full((2000, 1500, 1), 65535, np.uint16)
    image[::2] = 65534
    result = BandStatistics(1)
    for _ in range(2):
        result.update(image, np.ones((2000, 1500), bool))
    assert (result.mean, result.std) == ([65534.5], [0.5])


def test_a_small_spread_on_a_large_float_is_kept():
    image = np.array([[[100000.0], [100000.5]]], np.float32)
    result = statistics(image)
    assert result.mean == [100000.25]
    assert result.std == [0.25]


@pytest.mark.parametrize("value", [np.uint8(7), np.float32(0.1), np.float32(1e6)])
def test_a_constant_band_has_deviation_one(value):
    result = statistics(np.full((9, 11, 2), value))
    assert result.std == [1.0, 1.0]
    assert result.mean == [float(value)] * 2


def test_without_valid_pixels_scaling_would_change_nothing():
    for result in (
        BandStatistics(2),
        statistics(np.ones((3, 3, 2), np.uint8), np.zeros((3, 3), bool)),
        statistics(np.ones((0, 3, 2), np.float32)),
    ):
        assert (result.count, result.mean, result.std) == (0, [0.0, 0.0], [1.0, 1.0])


def test_what_lies_in_void_may_be_nan_but_valid_pixels_may_not():
    image = np.array([[[1.0], [np.nan]]], np.float32)
    assert statistics(image, np.array([[True, False]])).mean == [1.0]
    with pytest.raises(RasterError, match="NaN or infinite"):
        statistics(image)


def test_other_shapes_and_dtypes_are_refused():
    result = statistics(np.ones((2, 2, 3), np.uint8))
    with pytest.raises(RasterError, match="3 bands cannot take"):
        result.update(np.ones((2, 2, 4), np.uint8), np.ones((2, 2), bool))
    with pytest.raises(RasterError, match=r"validity of \(2, 3\)"):
        result.update(np.ones((2, 2, 3), np.uint8), np.ones((2, 3), bool))
    with pytest.raises(RasterError, match="uint8 images cannot take one of uint16"):
        result.update(np.ones((2, 2, 3), np.uint16), np.ones((2, 2), bool))
    assert result.count == 4
