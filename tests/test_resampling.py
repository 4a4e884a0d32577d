"""Rasters at another resolution: values by hand, void kept apart, windows that fit together."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.rasters import RasterReader
from preprocessing.resampling import (
    ResampledReader,
    axis_weights,
    resample,
    resampled_strips,
    size_at,
)
from preprocessing.tiling import Window
from tests.helpers import write_image


def resampled(tmp_path, image, size, **profile):
    path = write_image(tmp_path / "a.tif", image, **profile)
    with ResampledReader(RasterReader(path, band_count=image.shape[2]), *size) as reader:
        return reader.read(Window(0, 0, *size))


def test_sizes_by_hand():
    assert size_at(1000, 600, (0.15, 0.15), 0.3) == (500, 300)
    assert size_at(10, 7, (0.6, 0.6), 0.3) == (20, 14)
    assert size_at(10, 7, (0.6, 0.15), 0.3) == (20, 4)
    assert size_at(3, 1, (0.01, 0.01), 0.3) == (1, 1)


def test_weights_by_hand():
    first, weights = axis_weights(0, 2, 3, 2)
    assert first == 0
    np.testing.assert_allclose(weights, [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    # Twice as many: centres lie at -1/4 (held at 0), 1/4, 3/4 and 5/4 (held at 1).
    first, weights = axis_weights(0, 4, 2, 4)
    np.testing.assert_allclose(weights, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_array_equal(axis_weights(2, 3, 9, 9)[1], np.eye(3))


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_a_part_of_an_axis_is_made_as_in_the_whole(length, new, data):
    first = data.draw(st.integers(0, new - 1))
    count = data.draw(st.integers(1, new - first))
    values = np.random.default_rng(length).random(length)
    start, weights = axis_weights(first, count, length, new)
    _, whole = axis_weights(0, new, length, new)
    assert 0 <= start and start + weights.shape[1] <= length
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    part = weights @ values[start : start + weights.shape[1]]
    np.testing.assert_allclose(
        part, (whole @ values[: whole.shape[1]])[first : first + count], rtol=1e-5
    )


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_means_keep_the_mean(length, factor):
    """Where pixels become larger by a whole factor, every old pixel counts alike."""
    values = np.random.default_rng(factor).random(length * factor)
    _, weights = axis_weights(0, length, length * factor, length)
    assert (weights @ values).mean() == pytest.approx(values.mean(), rel=1e-5)


def test_rows_and_columns_have_weights_of_their_own():
    values = np.arange(8.0).reshape(4, 2)
    rows, columns = axis_weights(0, 2, 4, 2)[1], axis_weights(0, 1, 2, 1)[1]
    np.testing.assert_allclose(resample(values, rows, columns), [[1.5], [5.5]])


def test_larger_pixels_are_means(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[:2, :2, 0] = [[10, 20], [30, 40]]
    found, valid = resampled(tmp_path, image, (2, 3))
    np.testing.assert_array_equal(found[..., 0], [[25, 0, 0], [0, 0, 0]])
    assert valid.all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("size", [(2, 2), (7, 9)])
def test_what_is_plain_stays_in_every_depth(tmp_path, dtype, size):
    found, valid = resampled(tmp_path, np.full((4, 5, 3), 77, dtype), size)
    assert found.dtype == dtype
    assert (found == 77).all()
    assert valid.all()


def test_void_takes_no_part(tmp_path):
    image = np.full((4, 4, 3), 100, np.uint8)
    image[0, 0] = 0
    image[2:, 2:] = 0
    found, valid = resampled(tmp_path, image, (2, 2), nodata=0)
    np.testing.assert_array_equal(valid, [[True, True], [True, False]])
    assert (found[valid] == 100).all()


@pytest.mark.parametrize("size", [(50, 37), (61, 45), (230, 171)])
def test_windows_give_what_the_whole_gives(tmp_path, size):
    image = np.random.default_rng(0).integers(0, 256, (100, 75, 3)).astype(np.uint8)
    path = write_image(tmp_path / "a.tif", image)
    with ResampledReader(RasterReader(path), *size) as reader:
        whole, _ = reader.read(Window(0, 0, *size))
        for window in (Window(7, 5, 20, 30), Window(size[0] - 9, size[1] - 11, 9, 11)):
            part, _ = reader.read(window)
            difference = np.abs(part.astype(int) - whole[window.slices].astype(int))
            # A rounding at the most.
            assert difference.max() <= 1, window


def test_there_and_back_lies_where_it_lay(tmp_path):
    """A smooth image, halved and doubled again, is the same but for what is finer than a pixel."""
    rows, columns = np.mgrid[:60, :80]
    wave = 128 + 100 * np.sin(rows / 9) * np.cos(columns / 11)
    image = np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)
    half, _ = resampled(tmp_path, image, (30, 40))
    again, _ = resampled(tmp_path, half, (60, 80))
    inside = np.s_[4:-4, 4:-4]
    assert np.abs(again[inside].astype(int) - image[inside]).max() <= 3


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 40), st.integers(1, 12), st.data())
def test_strips_give_what_the_whole_gives(height, width, new_height, new_width, data):
    random = np.random.default_rng(height)
    whole = random.random((height, width)).astype(np.float32)
    whole[random.random(whole.shape) < 0.2] = np.nan
    cuts = sorted({0, height, *data.draw(st.lists(st.integers(0, height), max_size=5))})
    strips = [(a, whole[a:b]) for a, b in itertools.pairwise(cuts)]
    size, wanted = (height, width), (new_height, new_width)
    at_once = list(resampled_strips([(0, whole)], size, wanted, rows=1000))
    piecewise = list(resampled_strips(strips, size, wanted, rows=data.draw(st.integers(1, 9))))
    assert [first for first, _ in at_once] == [0]
    assert at_once[0][1].shape == wanted
    joined = np.concatenate([strip for _, strip in piecewise])
    np.testing.assert_allclose(joined, at_once[0][1], rtol=1e-5)
    if wanted == size:
        np.testing.assert_array_equal(joined, whole)


def test_memory_grows_with_the_width_and_not_with_its_square():
    peaks = []
    for width in (2000, 8000):
        strips = [(0, np.zeros((64, width // 2), np.float32))]
        tracemalloc.start()
        for _ in resampled_strips(strips, (64, width // 2), (128, width), rows=64):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 6 * peaks[0]
