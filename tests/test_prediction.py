"""Sliding-window prediction with small stand-ins for a network, whose untiled result is known."""

import itertools
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jointnet.prediction import (
    SWATH_ROWS,
    WindowGrid,
    ahead,
    blend,
    flipped,
    join,
    mean_over_symmetries,
    predict_image,
    predict_swath,
    predict_windows,
    swaths_of,
)
from preprocessing.tiling import Window, cut
from tests.helpers import predict_strips

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
    """Strips of a raster of one swath, all of it imagery."""
    (swath,) = swaths_of(grid)
    everywhere = [np.ones((grid.window, grid.window), bool)] * len(probabilities)
    return list(
        join([blend(grid, swath, zip(grid.windows(), probabilities, everywhere, strict=True))])
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


@st.composite
def grids(draw):
    window = draw(st.integers(1, 12))
    overlap = draw(st.integers(0, window - 1))
    return WindowGrid(draw(st.integers(1, 200)), draw(st.integers(1, 5)), window, overlap)


@settings(deadline=None)
@given(grids())
def test_swaths_hold_every_row_of_windows_once(grid):
    tops = [top for swath in swaths_of(grid) for top in swath.tops]
    assert tops == grid.starts(grid.height)


@settings(deadline=None)
@given(grids())
def test_strips_cover_the_raster_and_only_neighbours_share_rows(grid):
    swaths = swaths_of(grid)
    parts = np.zeros(grid.height, int)
    edges = np.zeros(grid.height, int)
    for swath in swaths:
        following = swath.first
        for first, end, edge in swath.strips():
            assert first == following < end
            parts[first:end] += 1
            edges[first:end] += edge
            following = end
        assert following == swath.last
    assert parts.min() == 1
    assert parts.max() <= 2
    np.testing.assert_array_equal(edges, np.where(parts == 2, 2, 0))


def test_swaths_by_hand():
    # Rows of windows start at -2, 6, ..., 190 and, moved back, at 192: 25 and one more.
    grid = WindowGrid(height=202, width=5, window=12, overlap=4)
    first, second, third = swaths_of(grid)
    assert [len(swath.tops) for swath in (first, second, third)] == [SWATH_ROWS, SWATH_ROWS, 10]
    assert first.tops[0] == -2
    assert (first.first, first.own, first.shared, first.last) == (0, 0, 62, 66)
    assert (second.first, second.own, second.shared, second.last) == (62, 66, 126, 130)
    assert third.tops[-2:] == (190, 192)
    assert (third.first, third.own, third.shared, third.last) == (126, 130, 202, 202)
    assert first.strips()[-1] == (62, 66, True)


@settings(deadline=None, max_examples=40)
@given(grids(), st.integers(0, 9))
def test_swaths_predicted_apart_and_in_any_order_give_the_same_pixels(grid, seed):
    random = np.random.default_rng(seed)
    image = random.random((grid.height, grid.width, 1)).astype(np.float32)
    valid = random.random((grid.height, grid.width)) < 0.7

    def read(window: Window):
        return image[window.slices], valid[window.slices]

    def network(batch):
        # Depends on the whole window, as group normalisation does.
        return batch * 0.5 + batch.mean(axis=(1, 2), keepdims=True) * 0.25

    at_once = np.concatenate([strip for _, strip in predict_strips(read, grid, network, 3)])
    swaths = swaths_of(grid)
    kept = {
        number: list(predict_swath(read, grid, swaths[number], network, 3))
        for number in random.permutation(len(swaths))
    }
    joined = list(join(kept[number] for number in range(len(swaths))))
    assert [first for first, _ in joined] == np.cumsum(
        [0, *(len(strip) for _, strip in joined[:-1])]
    ).tolist()
    np.testing.assert_array_equal(np.concatenate([strip for _, strip in joined]), at_once)
    np.testing.assert_array_equal(np.isnan(at_once), ~valid)


CORNER = np.arange(9).reshape(1, 3, 3, 1)


@pytest.mark.parametrize("k", range(8))
def test_flipping_back_is_the_inverse(k):
    batch = np.random.default_rng(0).random((2, 5, 5, 3))
    np.testing.assert_array_equal(flipped(flipped(batch, k), k, back=True), batch)


def test_all_eight_differ():
    assert len({flipped(CORNER, k).tobytes() for k in range(8)}) == 8


def test_two_symmetries_by_hand():
    np.testing.assert_array_equal(flipped(CORNER, 1)[0, ..., 0], [[2, 5, 8], [1, 4, 7], [0, 3, 6]])
    np.testing.assert_array_equal(flipped(CORNER, 4)[0, ..., 0], [[2, 1, 0], [5, 4, 3], [8, 7, 6]])


def test_a_network_of_single_pixels_is_left_alone():
    batch = np.random.default_rng(1).random((3, 4, 4, 2)).astype(np.float32)
    found = mean_over_symmetries(lambda images: images[..., :1])(batch)
    np.testing.assert_allclose(found, batch[..., :1], rtol=1e-6)


def test_a_network_that_leans_is_set_upright():
    """What is found a pixel to the right of where it is, is found evenly around it."""
    batch = np.zeros((1, 5, 5, 1), np.float32)
    batch[0, 2, 2] = 1
    found = mean_over_symmetries(lambda images: np.roll(images, 1, axis=2))(batch)[0, ..., 0]
    expected = np.zeros((5, 5))
    expected[[1, 3, 2, 2], [2, 2, 1, 3]] = 0.25
    np.testing.assert_allclose(found, expected)


def test_the_result_has_the_symmetry_of_its_input():
    random = np.random.default_rng(2)
    weights = random.random((6, 6, 1)).astype(np.float32)
    predict = mean_over_symmetries(lambda images: images[..., :1] * weights)
    batch = random.random((1, 6, 6, 1)).astype(np.float32)
    for k in range(8):
        np.testing.assert_allclose(
            predict(flipped(batch, k)), flipped(predict(batch), k), rtol=1e-5
        )


def test_items_come_in_their_order_from_one_other_thread():
    makers = set()

    def make():
        for number in range(50):
            makers.add(threading.get_ident())
            yield number

    assert list(ahead(make())) == list(range(50))
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_no_more_than_asked_for_are_made_in_advance():
    made = []

    def make():
        for number in range(20):
            made.append(number)
            yield number

    items = ahead(make(), depth=3)
    assert next(items) == 0
    time.sleep(0.3)
    # Three wait, and one is in hand; the first is taken.
    assert len(made) <= 5
    assert list(items) == list(range(1, 20))


def test_what_goes_wrong_is_raised_after_the_items_before_it():
    def make():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    items = ahead(make())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_the_thread_ends_when_nobody_takes_more():
    before = threading.active_count()
    items = ahead(iter(range(1000)))
    next(items)
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before


def test_an_iterator_without_items():
    assert list(ahead(iter(()))) == []
