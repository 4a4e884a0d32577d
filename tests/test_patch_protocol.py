"""Patches of Inria's filtered validation: the grid, mirrored pixels, the filter, strips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jointnet.metrics import Counts, PatchCounts, PatchGrid, count, weights
from preprocessing.rasters import read_label


def by_hand(truth, prediction, patch, share) -> PatchCounts:
    """As BuildFormer's script does it: pad by the mirror image, cut, keep, add up."""
    pads = []
    for length in truth.shape:
        padding = -length % patch if length > patch else 0
        pads.append((padding // 2, padding - padding // 2))
    truth, prediction = (np.pad(mask, pads, mode="reflect") for mask in (truth, prediction))
    kept, patches, counts = 0, 0, Counts()
    for row in range(0, truth.shape[0], patch):
        for column in range(0, truth.shape[1], patch):
            part = slice(row, row + patch), slice(column, column + patch)
            valid = (truth[part] != 255) & (prediction[part] != 255)
            patches += bool(valid.any())
            if valid.any() and (truth[part][valid] == 1).mean() > share:
                kept += 1
                counts += count(truth[part], prediction[part])
    return PatchCounts(kept, patches, counts)


def test_a_tile_of_inria_gets_ten_patches_a_side_with_60_pixels_mirrored():
    counted = weights(5000)
    assert counted.shape == (10, 5000)
    assert counted.sum(axis=1).tolist() == [512] * 10
    # The edge itself is not mirrored; the pixel beside it counts twice.
    assert counted[0, :62].tolist() == [1] + [2] * 60 + [1]
    assert counted[9, -62:].tolist() == [1] + [2] * 60 + [1]
    assert counted[0].nonzero()[0][-1] == 451
    assert counted[4].nonzero()[0].tolist() == list(range(4 * 512 - 60, 5 * 512 - 60))


@pytest.mark.parametrize("length", [1, 300, 512])
def test_what_is_not_larger_than_a_patch_is_one_patch_as_it_is(length):
    assert weights(length).tolist() == [[1] * length]


def test_whole_patches_are_not_mirrored():
    assert weights(4, 2).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_an_odd_padding_is_longer_at_the_end():
    # abc de[d]: at the end alone, where one pixel is needed ...
    assert weights(5, 3).tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 2, 1]]
    # ... and of three pixels one stands before, two behind: [b]abc de[dc].
    assert weights(5, 4).tolist() == [[1, 2, 1, 0, 0], [0, 0, 1, 2, 1]]


def test_the_filter_keeps_patches_with_more_than_the_share():
    truth = np.zeros((20, 40), np.uint8)
    truth[0] = truth[1, 20] = 1
    grid = PatchGrid(20, 40, 20)
    grid.add(0, truth, np.zeros_like(truth))
    # 20 of 400 pixels are 5 % exactly, 21 are more.
    assert grid.counts() == PatchCounts(1, 2, Counts(0, 0, 21, 379))
    assert grid.counts(0.0) == PatchCounts(2, 2, Counts(0, 0, 41, 759))
    assert grid.counts(0.9) == PatchCounts(0, 2, Counts())


def test_the_share_is_one_of_valid_pixels_and_void_patches_are_none():
    truth = np.full((10, 20), 255, np.uint8)
    truth[:2, :10] = 0
    truth[0, :2] = 1
    grid = PatchGrid(10, 20, 10)
    grid.add(0, truth, np.ones_like(truth))
    assert grid.counts() == PatchCounts(1, 1, Counts(2, 18, 0, 0))
    empty = PatchGrid(10, 20, 10)
    empty.add(0, np.full((10, 20), 255, np.uint8), truth)
    assert empty.counts() == PatchCounts()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(2, 9), st.integers(1, 30), st.integers(0)
)
def test_strips_give_what_padding_and_cutting_gives(height, width, patch, rows, seed):
    random = np.random.default_rng(seed)
    truth, prediction = random.choice([0, 1, 255], (2, height, width), p=[0.7, 0.2, 0.1]).astype(
        np.uint8
    )
    grid = PatchGrid(height, width, patch)
    for row in range(0, height, rows):
        grid.add(row, truth[row : row + rows], prediction[row : row + rows])
    assert grid.counts(0.2) == by_hand(truth, prediction, patch, 0.2)


def test_a_real_tile(real_data):
    truth = read_label(real_data / "full_tile_masks" / "austin29_gt.png")
    found = np.roll(truth, 1, axis=(0, 1))
    grid = PatchGrid(5000, 5000)
    for row in range(0, 5000, 1024):
        grid.add(row, truth[row : row + 1024], found[row : row + 1024])
    assert grid.counts() == by_hand(truth, found, 512, 0.05)
    assert (grid.counts().kept, grid.counts().patches) == (86, 100)


def test_counts_are_added():
    one = PatchCounts(1, 2, Counts(1, 2, 3, 4))
    assert one + one == PatchCounts(2, 4, Counts(2, 4, 6, 8))
