"""Augmentation: exact symmetries, bounded colours, all from one generator."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.augmentation import Augmentation, dihedral, dihedral_inverse
from preprocessing.errors import LabelError, RasterError, TrainingError

PLAIN = Augmentation(dihedral=False, brightness=0, contrast=0, saturation=0)


class FixedShifts:
    """A generator that draws the given symmetry and the given shifts."""

    def __init__(self, symmetry: int = 0, **shifts: float) -> None:
        order = ("brightness", "contrast", "saturation", "hue", "gamma")
        self.symmetry = symmetry
        self.shifts = np.array([shifts.get(name, 0.0) for name in order])

    def integers(self, _: int) -> int:
        return self.symmetry

    def uniform(self, _low: float, _high: float, size: int) -> np.ndarray:
        assert size == len(self.shifts)
        return self.shifts


def only(**settings) -> Augmentation:
    return dataclasses.replace(PLAIN, **settings)


def recolour(image: np.ndarray, settings: Augmentation, **shifts: float) -> np.ndarray:
    mask = np.zeros(image.shape[:2], np.uint8)
    return settings.apply(image, mask, FixedShifts(**shifts))[0]


def patch(shape=(8, 8, 3), dtype=np.uint8, seed=0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.random(shape, np.float32)
    if dtype != np.float32:
        image = (image * np.iinfo(dtype).max).astype(dtype)
    return image, rng.choice(np.array([0, 1, 255], np.uint8), shape[:2])


def test_the_eight_symmetries_by_eye():
    square = np.array([[1, 2], [3, 4]])
    drawn = [dihedral(square, k).tolist() for k in range(8)]
    assert drawn == [
        [[1, 2], [3, 4]],
        [[2, 4], [1, 3]],
        [[4, 3], [2, 1]],
        [[3, 1], [4, 2]],
        [[2, 1], [4, 3]],
        [[4, 2], [3, 1]],
        [[3, 4], [1, 2]],
        [[1, 3], [2, 4]],
    ]
    assert len({str(one) for one in drawn}) == 8


@given(k=st.integers(0, 7), height=st.integers(0, 5), width=st.integers(0, 5), flat=st.booleans())
def test_every_symmetry_has_its_inverse(k, height, width, flat):
    shape = (height, width) if flat else (height, width, 3)
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(dihedral_inverse(dihedral(array, k), k), array)
    np.testing.assert_array_equal(dihedral(dihedral_inverse(array, k), k), array)


@pytest.mark.parametrize("k", [-1, 8])
def test_there_is_no_ninth_symmetry(k):
    for function in (dihedral, dihedral_inverse):
        with pytest.raises(ValueError, match="0 to 7"):
            function(np.zeros((2, 2)), k)


def test_image_and_mask_move_together():
    image, _ = patch()
    mask = image[..., 0].copy()
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        turned, turned_mask = only(dihedral=True).apply(image, mask, rng)
        np.testing.assert_array_equal(turned[..., 0], turned_mask)
        seen.add(turned.tobytes())
    assert len(seen) == 8


def test_a_patch_that_is_not_square_keeps_its_shape():
    image, mask = patch((4, 6, 3))
    seen = set()
    for k in range(8):
        turned, turned_mask = only(dihedral=True).apply(image, mask, FixedShifts(k))
        assert (turned.shape, turned_mask.shape) == ((4, 6, 3), (4, 6))
        seen.add(turned.tobytes())
    assert len(seen) == 4


def test_without_dihedral_nothing_moves():
    image, mask = patch()
    for k in range(8):
        moved, moved_mask = PLAIN.apply(image, mask, FixedShifts(k))
        np.testing.assert_array_equal(moved, image)
        np.testing.assert_array_equal(moved_mask, mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (8, 8, 3), (5, 9, 4), (200, 100, 8), (0, 4, 3), (4, 0, 3)]
)
def test_dtype_shape_and_mask_are_kept(dtype, shape):
    image, mask = patch(shape, dtype)
    before = image.copy(), mask.copy()
    settings = Augmentation(hue=0.1, gamma=0.3, value_range=(0, 1) if dtype == np.float32 else None)
    changed, changed_mask = settings.apply(image, mask, np.random.default_rng(3))
    assert (changed.shape, changed.dtype) == (image.shape, image.dtype)
    assert (changed_mask.shape, changed_mask.dtype) == (mask.shape, mask.dtype)
    assert changed.flags.c_contiguous
    assert changed_mask.flags.c_contiguous
    np.testing.assert_array_equal(np.bincount(changed_mask.ravel()), np.bincount(mask.ravel()))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "gamma"])
def test_each_colour_change_acts_and_leaves_the_mask(name):
    image, mask = patch()
    settings = only(**{name: 0.3})
    changed, same_mask = settings.apply(image, mask, FixedShifts(**{name: 0.9}))
    assert not np.array_equal(changed, image)
    np.testing.assert_array_equal(same_mask, mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_strength_zero_and_shift_zero_leave_pixels_equal(dtype):
    image, mask = patch((70, 70, 4), dtype)
    still = dataclasses.replace(PLAIN, value_range=(0, 1) if dtype == np.float32 else None)
    changed, _ = still.apply(image, mask, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, image)
    everything = dataclasses.replace(
        still, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, gamma=0.5
    )
    unmoved = recolour(image, everything)
    if dtype == np.float32:
        np.testing.assert_allclose(unmoved, image, atol=1e-6)
    else:
        np.testing.assert_array_equal(unmoved, image)


def test_brightness_by_hand():
    image = np.array([[[0, 100, 250]]], np.uint8)
    brighter = recolour(image, only(brightness=0.2), brightness=1.0)
    assert brighter.tolist() == [[[51, 151, 255]]]
    darker = recolour(image, only(brightness=0.2), brightness=-0.5)
    assert darker.tolist() == [[[0, 74, 224]]]


def test_contrast_stretches_all_bands_about_the_centre_of_the_range():
    image = np.array([[[20, 80, 100, 200]]], np.uint8)
    settings = only(contrast=0.5, value_range=(40, 160))
    assert recolour(image, settings, contrast=1.0).tolist() == [[[0, 70, 100, 250]]]
    assert recolour(image, settings, contrast=-1.0).tolist() == [[[60, 90, 100, 150]]]


def test_without_saturation_a_pixel_is_its_luma():
    image = np.array([[[200, 100, 50]]], np.uint8)
    grey = recolour(image, only(saturation=1.0), saturation=-1.0)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert grey.tolist() == [[[round(luma)] * 3]]
    vivid = recolour(image, only(saturation=1.0), saturation=0.25)
    by_hand = [round(luma + 1.25 * (value - luma)) for value in (200, 100, 50)]
    assert vivid.tolist() == [[by_hand]]


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_grey_pixels_and_further_bands_have_no_colour(name):
    image, _ = patch((8, 8, 5))
    image[..., 1:3] = image[..., :1]
    changed = recolour(image, only(**{name: 0.7}), **{name: 0.8})
    np.testing.assert_array_equal(changed, image)
    two_bands = image[..., 3:]
    np.testing.assert_array_equal(recolour(two_bands, only(**{name: 0.7}), **{name: 1}), two_bands)


def test_hue_keeps_luma_and_a_full_turn_is_none():
    image, _ = patch(dtype=np.float32)
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    settings = only(hue=1.0, value_range=(0, 1))
    turned = recolour(image, settings, hue=1 / 3)
    assert np.abs(turned - image).max() > 0.1
    np.testing.assert_allclose(turned @ luma, image @ luma, atol=1e-5)
    np.testing.assert_allclose(recolour(image, settings, hue=1.0), image, atol=1e-5)


def test_gamma_by_hand():
    image = np.array([[[0], [64], [255]]], np.uint8)
    darker = recolour(image, only(gamma=1.0), gamma=1.0)
    assert darker.ravel().tolist() == [0, round(64**2 / 255), 255]
    brighter = recolour(image, only(gamma=1.0), gamma=-1.0)
    assert brighter.ravel().tolist() == [0, round((64 * 255) ** 0.5), 255]


def test_gamma_is_the_same_for_all_dtypes_and_none_outside_the_range():
    levels = np.array([[[5], [10], [60], [110], [200]]])
    settings = only(gamma=0.5, value_range=(10, 110))
    results = [
        recolour(levels.astype(dtype), settings, gamma=0.7) for dtype in ("uint8", "uint16", "f4")
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], atol=0.5)
    assert results[0].ravel()[[0, 1, 3, 4]].tolist() == [5, 10, 110, 200]
    assert results[0].ravel()[2] < 60


def test_floats_are_not_clipped():
    image = np.array([[[0.1, 0.5, 1.0]]], np.float32)
    settings = only(brightness=0.5, value_range=(0, 1))
    np.testing.assert_allclose(
        recolour(image, settings, brightness=1.0), [[[0.6, 1.0, 1.5]]], atol=1e-6
    )
    np.testing.assert_allclose(
        recolour(image, settings, brightness=-1.0), [[[-0.4, 0.0, 0.5]]], atol=1e-6
    )


def test_a_value_range_scales_the_strengths_of_uint16():
    image = np.full((2, 2, 1), 1000, np.uint16)
    changed = recolour(image, only(brightness=0.1, value_range=(0, 2000)), brightness=1.0)
    assert changed.ravel().tolist() == [1200] * 4


def test_rows_are_changed_alike_whatever_the_size():
    image = np.tile(patch((1, 100, 3))[0], (300, 1, 1))
    changed = recolour(image, Augmentation(gamma=0.2), brightness=0.3, contrast=-0.4, gamma=0.5)
    np.testing.assert_array_equal(changed, np.broadcast_to(changed[:1], changed.shape))


def test_the_generator_decides_everything():
    image, mask = patch()
    settings = Augmentation()
    results = [settings.apply(image, mask, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert not np.array_equal(results[0][0], results[2][0])


def test_strengths_do_not_change_what_is_drawn_next():
    image, mask = patch()
    following = set()
    for settings in (PLAIN, Augmentation(), Augmentation(hue=0.1, gamma=0.2)):
        rng = np.random.default_rng(9)
        settings.apply(image, mask, rng)
        following.add(rng.random())
    assert len(following) == 1


def test_a_read_only_memory_map_will_do(tmp_path):
    image, mask = patch()
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    settings = Augmentation(gamma=0.1)
    direct, _ = settings.apply(image, mask, np.random.default_rng(4))
    through_map, _ = settings.apply(mapped, mask, np.random.default_rng(4))
    np.testing.assert_array_equal(direct, through_map)


def test_settings_survive_json():
    settings = Augmentation(brightness=0.1, hue=0.05, value_range=(0, 2047))
    text = json.dumps(dataclasses.asdict(settings))
    assert Augmentation(**json.loads(text)) == settings


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "gamma"])
@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_strengths_are_fractions(name, strength):
    with pytest.raises(TrainingError, match=f"{name} is {strength}"):
        Augmentation(**{name: strength})


@pytest.mark.parametrize("value_range", [(1, 1), (5, 0), (1, 2, 3)])
def test_a_range_goes_upwards(value_range):
    with pytest.raises(TrainingError, match="value_range"):
        Augmentation(value_range=value_range)


def test_what_does_not_fit_is_refused():
    image, mask = patch()
    rng = np.random.default_rng(0)
    with pytest.raises(LabelError, match="does not fit"):
        Augmentation().apply(image, mask[:4], rng)
    with pytest.raises(RasterError, match="value_range"):
        Augmentation().apply(image.astype(np.float32), mask, rng)
    with pytest.raises(RasterError, match="cannot augment int16"):
        Augmentation().apply(image.astype(np.int16), mask, rng)
