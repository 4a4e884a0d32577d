"""Sliding-window prediction with small stand-ins for a network, whose untiled result is known."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jointnet.prediction import (
    WindowGrid,
    bands_of,
    blend,
    join,
    predict_image,
    predict_strips,
    predict_windows,
)
from preprocessing.tiling import Window, cut

KERNEL = np.random.default_rng(1).normal(size=(3, 3, 2)).astype(np.float32)


def convolve(images: np.ndarray) -> np.ndarray:
    """3x3 convolution of ``(batch, height, width, 2)`` inside: two rows and columns fewer."""
    height, width = images.shape[1] - 2, images.shape[2] - 2
    return sum(
        (images[:, i : i + height, j : j + width] * KERNEL[i, j]).sum(-1, keepdims=True)
        for i, j in itertools.product(range(3), repeat=2)
    ).astype(np.float32)


def local_network(batch: np.ndarray) -> np.ndarray:
    """3x3 convolution, zeros around each window, as a network pads."""
    return convolve(np.pad(batch.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0))))


def untiled(image: np.ndarray) -> np.ndarray:
    """The same convolution of the whole image, mirrored around."""
    height, width = image.shape[:2]
    around = cut(image.astype(np.float32), Window(-1, -1, height + 2, width + 2))
    return convolve(around[None])[0, ..., 0]


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 2)).astype(np.float32)


@st.composite
def window_and_overlap(draw, least: int = 0):
    window = draw(st.integers(least + 1, 16))
    return window, draw(st.integers(least, window - 1))


# An overlap of four pixels is the least of which the outer ones, padded with zeros, are discarded.
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), window_and_overlap(least=4), st.integers(1, 5))
def test_a_local_network_gives_what_it_gives_untiled(height, width, window_overlap, batch_size):
    image = random_image(height, width)
    tiled = predict_image(local_network, image, None, *window_overlap, batch_size=batch_size)
    assert tiled.shape == (height, width)
    assert tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, untiled(image), atol=1e-5)


# Below 1e-30 a probability times a weight may leave the numbers that float32 holds in full.
probabilities_in_float32 = st.just(0.0) | st.floats(2.0**-100, 1, width=32)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), window_and_overlap(), probabilities_in_float32)
def test_a_constant_network_gives_a_constant(height, width, window_overlap, value):
    def network(batch: np.ndarray) -> np.ndarray:
        return np.full((*batch.shape[:3], 1), value, np.float32)

    probabilities = predict_image(network, random_image(height, width), None, *window_overlap)
    np.testing.assert_allclose(probabilities, np.full((height, width), value), rtol=1e-6)


@settings(deadline=None)
@given(st.integers(2, 40).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w // 2))))
def test_weights_of_neighbours_sum_to_one_over_the_overlap(window_overlap):
    window, overlap = window_overlap
    weights = WindowGrid(100, 100, window, overlap).weights()
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, weights.T)
    # Where two windows meet, and in the corner where four do.
    stride = window - overlap
    total = np.zeros((window + stride, window + stride))
    for row, column in itertools.product((0, stride), repeat=2):
        total[row : row + window, column : column + window] += weights
    inner = slice(overlap, window + stride - overlap)
    np.testing.assert_allclose(total[inner, inner], 1, atol=1e-6)


def test_weights_by_hand():
    # Overlap 8: two pixels discarded, then a ramp over the four in the middle.
    weights = WindowGrid(100, 100, 16, 8).weights()
    along = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    np.testing.assert_allclose(weights[8], along + along[::-1])
    np.testing.assert_array_equal(WindowGrid(9, 9, 4, 0).weights(), np.ones((4, 4)))


def test_the_grid_by_hand():
    grid = WindowGrid(height=10, width=3, window=8, overlap=4)
    # From two before the raster to two behind it: 14 rows, 7 columns.
    assert grid.starts(10) == [-2, 2, 4]
    assert grid.starts(3) == [-2]
    assert grid.windows() == [Window(row, -2, 8, 8) for row in (-2, 2, 4)]


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_an_overlap_that_leaves_no_window_is_refused(overlap):
    with pytest.raises(ValueError, match=f"less than the window .8.; got {overlap}"):
        WindowGrid(10, 10, 8, overlap)


def test_a_batch_without_windows_is_refused():
    with pytest.raises(ValueError, match="batch_size must be 1 or more; got 0"):
        predict_image(local_network, random_image(4, 4), window=4, overlap=0, batch_size=0)


class Recorder:
    """A network that remembers the batches it was given."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(batch)
        return local_network(batch)


def test_the_result_does_not_depend_on_the_size_of_the_batch():
    image = random_image(30, 21)
    results = []
    for batch_size in (1, 2, 7, 50):
        network = Recorder()
        results.append(predict_image(network, image, None, 12, 4, batch_size))
        # Every batch has one shape, so that a network is compiled once.
        assert {batch.shape for batch in network.batches} == {(batch_size, 12, 12, 2)}
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_windows_without_a_valid_pixel_are_not_predicted():
    image, valid = random_image(16, 32), np.zeros((16, 32), bool)
    valid[5, 3] = True
    network = Recorder()
    probabilities = predict_image(network, image, valid, window=8, overlap=0, batch_size=1)
    assert len(network.batches) == 1
    np.testing.assert_array_equal(network.batches[0][0], np.tile(image[5, 3], (8, 8, 1)))
    np.testing.assert_array_equal(np.argwhere(~np.isnan(probabilities)), [[5, 3]])


def test_an_all_void_image_is_not_predicted_and_all_void():
    network = Recorder()
    valid = np.zeros((20, 20), bool)
    probabilities = predict_image(network, random_image(20, 20), valid, window=8, overlap=4)
    assert network.batches == []
    assert probabilities.shape == (20, 20)
    assert np.isnan(probabilities).all()


@pytest.mark.parametrize("void", [0, 255])
def test_what_void_pixels_hold_is_not_seen(void):
    """A margin of any colour is fed as the mean of what the window shows beside it."""
    image = np.full((2, 2, 3), void, np.uint8)
    image[0] = [[10, 20, 30], [20, 40, 61]]
    valid = np.array([[True, True], [False, False]])
    fed = []

    def network(images: np.ndarray) -> np.ndarray:
        fed.append(images)
        return np.full((*images.shape[:3], 1), 0.5, np.float32)

    found = predict_image(network, image, valid, window=2, overlap=0, batch_size=1)
    expected = [[[10, 20, 30], [20, 40, 61]], [[15, 30, 46], [15, 30, 46]]]
    np.testing.assert_array_equal(fed, [[expected]])
    np.testing.assert_array_equal(found, [[0.5, 0.5], [np.nan, np.nan]])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 25), st.integers(1, 25), window_and_overlap(least=4), st.integers(0, 9))
def test_void_is_not_a_number_and_valid_pixels_are_as_without_it(height, width, sizes, seed):
    image = random_image(height, width)
    valid = np.random.default_rng(seed).random((height, width)) < 0.1
    probabilities = predict_image(lambda batch: batch[..., :1], image, valid, *sizes)
    np.testing.assert_array_equal(np.isnan(probabilities), ~valid)
    np.testing.assert_allclose(probabilities[valid], image[valid][:, 0], atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 9), window_and_overlap())
def test_strips_are_consecutive_and_only_the_raster_is_read(height, width, window_overlap):
    image = random_image(height, width)
    grid = WindowGrid(height, width, *window_overlap)

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        assert window == window.clipped(height, width)
        part = image[window.slices]
        return part, np.ones(part.shape[:2], bool)

    following = 0
    for first, strip in predict_strips(read, grid, local_network):
        assert first == following
        assert strip.shape[1] == width
        assert 1 <= len(strip) <= grid.window
        following += len(strip)
    assert following == height


def test_windows_come_back_in_their_order_with_none_where_all_is_void():
    windows = [Window(0, column, 2, 2) for column in (0, 2, 4, 6, 8)]

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        full = np.full((2, 2, 1), window.column, np.float32)
        return full, np.full((2, 2), window.column in (2, 6, 8))

    results = list(predict_windows(windows, read, lambda batch: batch + 0.5, batch_size=2))
    assert [window for window, _, _ in results] == windows
    values = [None if p is None else float(p.mean()) for _, p, _ in results]
    assert values == [None, 2.5, None, 6.5, 8.5]


def blended(grid: WindowGrid, probabilities: list) -> list:
    """Strips of a raster of one band, all of it imagery."""
    (band,) = bands_of(grid)
    everywhere = [np.ones((grid.window, grid.window), bool)] * len(probabilities)
    return list(
        join([blend(grid, band, zip(grid.windows(), probabilities, everywhere, strict=True))])
    )


def test_blending_by_hand():
    # Two windows of four rows that share two: half an overlap of one row before the raster.
    grid = WindowGrid(height=4, width=2, window=4, overlap=2)
    assert [(w.row, w.column) for w in grid.windows()] == [(-1, -1), (1, -1)]
    first, second = blended(grid, [np.full((4, 4), 1.0), np.full((4, 4), 5.0)])
    # Rows 1 and 2 of the raster are shared: weights 3/4 and 1/4, then 1/4 and 3/4.
    assert (first[0], second[0]) == (0, 1)
    np.testing.assert_allclose(first[1], np.full((1, 2), 1.0))
    np.testing.assert_allclose(second[1], np.repeat([[2.0], [4.0], [5.0]], 2, axis=1))


def test_a_missing_neighbour_leaves_the_other_at_full_weight():
    grid = WindowGrid(height=4, width=2, window=4, overlap=2)
    rows = np.concatenate([strip for _, strip in blended(grid, [None, np.full((4, 4), 5.0)])])
    np.testing.assert_array_equal(rows[:, 0], [np.nan, 5, 5, 5])


def peak_memory(height: int) -> int:
    """Bytes held at most while a generated raster 128 pixels wide is predicted."""
    grid = WindowGrid(height, 128, window=64, overlap=16)

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        shape = (window.height, window.width)
        return np.ones((*shape, 1), np.uint8), np.ones(shape, bool)

    def network(batch: np.ndarray) -> np.ndarray:
        return batch.astype(np.float32)

    tracemalloc.start()
    try:
        rows = sum(len(strip) for _, strip in predict_strips(read, grid, network))
        return tracemalloc.get_traced_memory()[1] if rows == height else -1
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_raster():
    low, tall = peak_memory(512), peak_memory(16384)
    assert low > 0
    # The tall raster's float32 map alone would take 8 MB.
    assert tall < 1.5 * low
    assert tall < 1_500_000
