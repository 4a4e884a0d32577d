"""Bands of windows: what they cover, and that they can be predicted apart and joined."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jointnet.prediction import BAND_ROWS, WindowGrid, bands_of, join, predict_band, predict_strips
from preprocessing.tiling import Window


@st.composite
def grids(draw):
    window = draw(st.integers(1, 12))
    overlap = draw(st.integers(0, window - 1))
    return WindowGrid(draw(st.integers(1, 200)), draw(st.integers(1, 5)), window, overlap)


@settings(deadline=None)
@given(grids())
def test_bands_hold_every_row_of_windows_once(grid):
    tops = [top for band in bands_of(grid) for top in band.tops]
    assert tops == grid.starts(grid.height)


@settings(deadline=None)
@given(grids())
def test_strips_cover_the_raster_and_only_neighbours_share_rows(grid):
    bands = bands_of(grid)
    parts = np.zeros(grid.height, int)
    edges = np.zeros(grid.height, int)
    for band in bands:
        following = band.first
        for first, end, edge in band.strips():
            assert first == following < end
            parts[first:end] += 1
            edges[first:end] += edge
            following = end
        assert following == band.last
    assert parts.min() == 1
    assert parts.max() <= 2
    np.testing.assert_array_equal(edges, np.where(parts == 2, 2, 0))


def test_bands_by_hand():
    # Rows of windows start at -2, 6, ..., 190 and, moved back, at 192: 25 and one more.
    grid = WindowGrid(height=202, width=5, window=12, overlap=4)
    first, second, third = bands_of(grid)
    assert [len(band.tops) for band in (first, second, third)] == [BAND_ROWS, BAND_ROWS, 10]
    assert first.tops[0] == -2
    assert (first.first, first.own, first.shared, first.last) == (0, 0, 62, 66)
    assert (second.first, second.own, second.shared, second.last) == (62, 66, 126, 130)
    assert third.tops[-2:] == (190, 192)
    assert (third.first, third.own, third.shared, third.last) == (126, 130, 202, 202)
    assert first.strips()[-1] == (62, 66, True)


@settings(deadline=None, max_examples=40)
@given(grids(), st.integers(0, 9))
def test_bands_predicted_apart_and_in_any_order_give_the_same_pixels(grid, seed):
    random = np.random.default_rng(seed)
    image = random.random((grid.height, grid.width, 1)).astype(np.float32)
    valid = random.random((grid.height, grid.width)) < 0.7

    def read(window: Window):
        return image[window.slices], valid[window.slices]

    def network(batch):
        # Depends on the whole window, as group normalisation does.
        return batch * 0.5 + batch.mean(axis=(1, 2), keepdims=True) * 0.25

    at_once = np.concatenate([strip for _, strip in predict_strips(read, grid, network, 3)])
    bands = bands_of(grid)
    kept = {
        number: list(predict_band(read, grid, bands[number], network, 3))
        for number in random.permutation(len(bands))
    }
    joined = list(join(kept[number] for number in range(len(bands))))
    assert [first for first, _ in joined] == np.cumsum(
        [0, *(len(strip) for _, strip in joined[:-1])]
    ).tolist()
    np.testing.assert_array_equal(np.concatenate([strip for _, strip in joined]), at_once)
    np.testing.assert_array_equal(np.isnan(at_once), ~valid)
