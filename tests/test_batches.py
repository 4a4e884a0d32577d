"""Batches: a pure function of seed, epoch and index, drawn inside the scenes."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import keras
import numpy as np
import pytest

from jointnet.batches import TrainingBatches
from preprocessing.augmentation import Augmentation
from tests.training_fixtures import patch_set

NONE = Augmentation(dihedral=False, brightness=0, contrast=0, saturation=0)
FLIPS = replace(NONE, dihedral=True)


def numbered(patches: int = 10, size: int = 12):
    """Patches whose pixels say patch, row and column; target where row and column add up even."""
    number, row, column = np.indices((patches, size, size))
    images = np.stack([number, row, column], axis=-1).astype(np.uint8)
    return patch_set(images, ((row + column) % 2 == 0).astype(np.uint8))


def batches(patches=None, **changes) -> TrainingBatches:
    patches = numbered() if patches is None else patches
    arguments = {"epoch": 0, "seed": 0, "batch_size": 4, "crop_size": 8, "augmentation": NONE}
    return TrainingBatches(patches, **arguments | changes)


def content(source: TrainingBatches, order=None) -> list[tuple[np.ndarray, np.ndarray]]:
    order = range(len(source)) if order is None else order
    return [source[index] for index in order]


def same(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b)
        for pair, twin in zip(one, other, strict=True)
        for a, b in zip(pair, twin, strict=True)
    )


def patch_numbers(source: TrainingBatches) -> list[int]:
    """Patch of each sample, read from its pixels."""
    return [int(image[0, 0, 0]) for images, _ in content(source) for image in images]


# Pure


def test_a_batch_depends_on_nothing_but_seed_epoch_and_index():
    settings = {"augmentation": Augmentation(), "epoch": 3, "seed": 7, "steps": 6}
    expected = content(batches(**settings))
    assert same(content(batches(**settings)), expected)
    again = batches(**settings)
    backwards = content(again, [5, 4, 3, 2, 1, 0])
    assert same(backwards[::-1], expected)
    # Twice from one object, and after its end-of-epoch hook, which Keras calls at will.
    again.on_epoch_end()
    assert same(content(again), expected)


def test_global_random_state_has_no_say():
    expected = content(batches(augmentation=Augmentation()))
    keras.utils.set_random_seed(5)
    assert same(content(batches(augmentation=Augmentation())), expected)


def test_threads_see_the_same_batches():
    source = batches(augmentation=Augmentation(), steps=12)
    with ThreadPoolExecutor(4) as pool:
        assert same(list(pool.map(source.__getitem__, range(12))), content(source))


@pytest.mark.parametrize("workers", [1, 3])
def test_keras_walks_through_them_in_order_with_any_number_of_workers(workers):
    source = batches(steps=7, workers=workers)
    echo = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1.0)])
    seen = echo.predict(source, verbose=0)
    np.testing.assert_array_equal(seen, np.concatenate([x for x, _ in content(source)]))


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}])
def test_another_epoch_or_seed_gives_other_batches(other):
    assert not same(content(batches(**other)), content(batches()))
    # Not only other patches: the crops begin elsewhere, too.
    corners = [
        [
            tuple(image[0, 0, 1:])
            for images, _ in content(batches(steps=5, **changes))
            for image in images
        ]
        for changes in ({}, other)
    ]
    assert corners[0] != corners[1]


def test_epochs_are_not_shifted_copies_of_each_other():
    """Seed 0 in epoch 1 is not seed 1 in epoch 0."""
    assert not same(content(batches(seed=0, epoch=1)), content(batches(seed=1, epoch=0)))


# Which patches


def test_one_pass_holds_every_patch_once():
    source = batches(numbered(12))
    assert len(source) == 3
    assert sorted(patch_numbers(source)) == list(range(12))
    assert patch_numbers(source) != list(range(12))


def test_a_remainder_that_fills_no_batch_waits_for_another_epoch():
    source = batches(numbered(10))
    assert len(source) == 2
    assert len(set(patch_numbers(source))) == 8
    left_out = [
        set(range(10)) - set(patch_numbers(batches(numbered(10), epoch=epoch)))
        for epoch in range(8)
    ]
    assert len(set(map(frozenset, left_out))) > 1


def test_fewer_patches_than_a_batch_are_drawn_again():
    source = batches(numbered(3), batch_size=8)
    assert len(source) == 1
    assert set(Counter(patch_numbers(source)).values()) <= {2, 3}


def test_more_steps_than_a_pass_start_over_in_another_order():
    source = batches(numbered(8), steps=6)
    numbers = patch_numbers(source)
    passes = [numbers[first : first + 8] for first in (0, 8, 16)]
    assert all(sorted(one) == list(range(8)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_names_say_scene_and_patch_of_the_very_batch():
    source = batches(numbered(10), steps=5)
    for index in range(5):
        numbers = [int(image[0, 0, 0]) for image in source[index][0]]
        assert source.names(index) == [f"scene{n} (patch {n})" for n in numbers]
    assert re.fullmatch(r"scene\d \(patch \d\)", source.names(0)[0])


def weighted(shares: list[float], target_weight: float, steps: int = 500) -> np.ndarray:
    patches = replace(numbered(len(shares)), target_shares=np.array(shares))
    source = batches(patches, steps=steps, target_weight=target_weight)
    drawn = source._order
    return np.bincount(drawn, minlength=len(shares)) / len(drawn)


def test_target_weight_draws_in_proportion_to_the_target():
    np.testing.assert_allclose(weighted([0.1, 0.3, 0, 0], 1.0), [0.25, 0.75, 0, 0], atol=0.04)
    half = weighted([0.1, 0.3, 0, 0], 0.5)
    np.testing.assert_allclose(half, [0.25, 0.5, 0.125, 0.125], atol=0.04)
    even = weighted([0.1, 0.3, 0, 0], 0.0)
    np.testing.assert_allclose(even, 0.25, atol=1e-9)


def test_where_no_patch_shows_target_all_are_drawn_alike():
    np.testing.assert_allclose(weighted([0, 0, 0, 0], 1.0), 0.25, atol=0.04)


def test_weighted_draws_are_pure_as_well():
    settings = {"target_weight": 0.5, "steps": 6}
    assert same(content(batches(**settings)), content(batches(**settings)))
    assert not same(content(batches(**settings)), content(batches(**settings, epoch=1)))


# Crops


def test_shapes_and_dtypes():
    images, masks = batches()[0]
    assert images.shape == (4, 8, 8, 3) and images.dtype == np.uint8
    assert masks.shape == (4, 8, 8, 1) and masks.dtype == np.uint8


def test_a_crop_is_a_window_of_its_patch_with_its_mask():
    for images, masks in content(batches(steps=10)):
        for image, mask in zip(images.astype(int), masks, strict=True):
            number, row, column = image[0, 0]
            assert 0 <= row <= 4 and 0 <= column <= 4
            expected = np.indices((8, 8)).transpose(1, 2, 0) + (row, column)
            np.testing.assert_array_equal(image[..., 1:], expected)
            assert (image[..., 0] == number).all()
            np.testing.assert_array_equal(mask[..., 0], image[..., 1:].sum(-1) % 2 == 0)


def test_flips_and_rotations_move_image_and_mask_together():
    seen = set()
    for images, masks in content(batches(steps=20, augmentation=FLIPS)):
        for image, mask in zip(images.astype(int), masks, strict=True):
            np.testing.assert_array_equal(mask[..., 0], image[..., 1:].sum(-1) % 2 == 0)
            steps = image[0, 1, 1:] - image[0, 0, 1:], image[1, 0, 1:] - image[0, 0, 1:]
            seen.add(tuple(map(tuple, steps)))
    assert len(seen) == 8


def test_crops_begin_at_every_place_of_a_patch():
    patches = numbered(4, size=10)
    corners = {
        tuple(image[0, 0, 1:])
        for images, _ in content(batches(patches, steps=50))
        for image in images
    }
    assert corners == {(row, column) for row in range(3) for column in range(3)}


def test_crops_stay_in_the_scene_where_it_is_smaller_than_the_patch():
    patches = replace(numbered(2), extents=np.array([[9, 12], [5, 8]]))
    corners = {0: set(), 1: set()}
    for images, _ in content(batches(patches, steps=50)):
        for image in images:
            number, *corner = image[0, 0]
            corners[int(number)].add(tuple(map(int, corner)))
    assert corners[0] == {(row, column) for row in range(2) for column in range(5)}
    # Smaller than the crop: the rest of it is what the patch has beside the scene.
    assert corners[1] == {(0, 0)}


def test_a_crop_of_the_whole_patch_is_the_patch():
    patches = numbered()
    source = batches(patches, crop_size=12)
    for image in source[0][0]:
        np.testing.assert_array_equal(image, patches.images[image[0, 0, 0]])


# Errors


def test_a_crop_larger_than_the_patches_is_refused():
    with pytest.raises(ValueError, match=r"crop_size 13 is larger than the patches .* \(12\)"):
        batches(crop_size=13)


def half_void():
    """Ten patches, the even ones without a valid pixel."""
    patches = numbered()
    masks = patches.masks.copy()
    masks[::2] = 255
    return patch_set(patches.images, masks)


@pytest.mark.parametrize("target_weight", [0.0, 0.5])
def test_patches_without_a_valid_pixel_are_never_drawn(target_weight):
    source = batches(half_void(), steps=30, target_weight=target_weight)
    assert set(patch_numbers(source)) == {1, 3, 5, 7, 9}
    assert all(name.split("scene")[1][0] in "13579" for i in range(30) for name in source.names(i))
    # One pass holds five of them, one batch of four.
    assert len(batches(half_void())) == 1


def test_where_none_is_void_the_draws_are_those_of_the_generator():
    expected = np.random.default_rng([0, 0]).permutation(10)[:8].tolist()
    assert patch_numbers(batches()) == expected


def test_patches_that_are_all_void_are_refused():
    void = patch_set(np.zeros((2, 12, 12, 3), np.uint8), np.full((2, 12, 12), 255, np.uint8))
    with pytest.raises(ValueError, match="no training patches with valid pixels"):
        batches(void)


def test_no_patches_are_refused():
    nothing = patch_set(np.zeros((0, 12, 12, 3), np.uint8), np.zeros((0, 12, 12), np.uint8))
    with pytest.raises(ValueError, match="no training patches"):
        batches(nothing)


def test_a_batch_beyond_the_last_is_refused():
    with pytest.raises(IndexError):
        batches()[2]


# Sources with shares of their own


def two_sources(first: int = 2, second: int = 8):
    """Ten patches, the first ones from ``a``, the others from ``b``."""
    return replace(numbered(first + second), sources=("a",) * first + ("b",) * second)


@pytest.mark.parametrize("target_weight", [0.0, 0.5])
def test_every_batch_holds_each_sources_share(target_weight):
    shares = {"a": 0.75, "b": 0.25}
    drawn = batches(
        two_sources(), steps=6, source_shares=shares, crop_size=12, target_weight=target_weight
    )
    for images, _ in content(drawn):
        # Patches 0 and 1 are those of a.
        assert (images[:, 0, 0, 0] < 2).sum() == 3


def test_shares_that_are_no_whole_samples_hold_over_the_epoch():
    drawn = batches(two_sources(), steps=10, source_shares={"a": 0.3, "b": 0.7})
    per_batch = [int((images[:, 0, 0, 0] < 2).sum()) for images, _ in content(drawn)]
    assert sum(per_batch) == 12
    assert set(per_batch) <= {1, 2}


def test_within_a_source_patches_come_in_turn():
    drawn = batches(two_sources(), steps=4, source_shares={"a": 0.5, "b": 0.5})
    assert Counter(patch_numbers(drawn)) == {0: 4, 1: 4} | dict.fromkeys(range(2, 10), 1)


def test_batches_by_source_are_as_pure_as_others():
    settings = {"steps": 5, "source_shares": {"a": 0.4, "b": 0.6}, "epoch": 2}
    assert same(
        content(batches(two_sources(), **settings)), content(batches(two_sources(), **settings))
    )
    other = batches(two_sources(), **settings | {"epoch": 3})
    assert patch_numbers(other) != patch_numbers(batches(two_sources(), **settings))


@pytest.mark.parametrize("target_weight", [0.0, 0.5])
def test_a_source_may_have_no_share(target_weight):
    shares = {"a": 1.0, "b": 0.0}
    drawn = batches(two_sources(), steps=3, source_shares=shares, target_weight=target_weight)
    sources = np.array(drawn.patches.sources)[drawn._order]
    assert set(sources) == {"a"}


@pytest.mark.parametrize(
    "shares", [{"a": 1.0}, {"a": 0.5, "b": 0.4}, {"a": 0.5, "c": 0.5}], ids=str
)
def test_shares_that_do_not_fit_the_sources_are_refused(shares):
    with pytest.raises(ValueError, match="source_shares must sum to 1 over the sources .* a, b"):
        batches(two_sources(), source_shares=shares)


# Micro-batches


@pytest.mark.parametrize("shares", [None, {"a": 0.5, "b": 0.5}])
def test_micro_batches_are_the_batches_cut_up(shares):
    patches = replace(numbered(), sources=("a", "b") * 5)
    settings = {"augmentation": Augmentation(), "steps": 3, "source_shares": shares}
    whole = batches(patches, **settings)
    parts = batches(patches, micro_batch_size=2, **settings)
    assert (len(whole), len(parts), parts.steps) == (3, 6, 3)
    joined = [
        tuple(np.concatenate(halves) for halves in zip(parts[2 * i], parts[2 * i + 1], strict=True))
        for i in range(3)
    ]
    assert same(joined, content(whole))
    assert parts.names(2) + parts.names(3) == whole.names(1)
