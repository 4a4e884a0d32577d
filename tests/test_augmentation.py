"""Augmentation: image and mask together, each change as often and as strong as it is set."""

import dataclasses
import json
import pickle
import sys

import numpy as np
import pytest

from preprocessing.augmentation import (
    CHANGES,
    COLOURS,
    FILTERS,
    MOVES,
    PIXELS,
    STRONG,
    Augmentation,
    Change,
    Draws,
)
from preprocessing.errors import LabelError, RasterError, TrainingError
from preprocessing.image_operations import affine_matrix, warp

OFF = Augmentation(dihedral=False, brightness=0, contrast=0, saturation=0)
# As results/open_buildings/config.json has it.
SHIPPED = {
    "dihedral": True,
    "brightness": 0.15,
    "contrast": 0.3,
    "saturation": 0.4,
    "hue": 0.04,
    "gamma": 0.3,
    "value_range": None,
}
every_change = pytest.mark.parametrize("name", CHANGES)


def only(**settings) -> Augmentation:
    return dataclasses.replace(OFF, **settings)


def patch(shape=(48, 48, 3), dtype=np.uint8, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of all colours, neither black nor white, and a mask of all three values."""
    rng = np.random.default_rng(seed)
    image = 0.1 + 0.8 * rng.random(shape, np.float32)
    if dtype != np.float32:
        image = (image * np.iinfo(dtype).max).astype(dtype)
    return image, rng.choice(np.array([0, 1, 255], np.uint8), shape[:2])


def range_of(dtype) -> tuple[float, float] | None:
    return (0, 1) if dtype == np.float32 else None


def extreme(name: str, shift: float = 1.0) -> Draws:
    return Draws(shifts={name: shift}, shear_direction=0.1, emboss_direction=0.1, seed=5)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return np.abs(first.astype(np.float64) - second).mean()


def test_image_and_mask_are_flipped_together():
    image, _ = patch((8, 8, 3))
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
        turned, turned_mask = only(dihedral=True).apply_drawn(image, mask, Draws(k))
        assert (turned.shape, turned_mask.shape) == ((4, 6, 3), (4, 6))
        seen.add(turned.tobytes())
    assert len(seen) == 4


def test_without_dihedral_nothing_moves():
    image, mask = patch()
    for k in range(8):
        moved, moved_mask = OFF.apply_drawn(image, mask, Draws(k))
        np.testing.assert_array_equal(moved, image)
        np.testing.assert_array_equal(moved_mask, mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize(
    "shape",
    [(8, 8, 1), (48, 48, 3), (5, 9, 4), (1, 1, 2), (1, 7, 3), (100, 50, 8), (0, 4, 3), (4, 0, 3)],
)
def test_dtype_and_shape_are_kept_with_everything_on(dtype, shape):
    image, mask = patch(shape, dtype)
    before = image.copy(), mask.copy()
    settings = dataclasses.replace(
        STRONG,
        value_range=range_of(dtype),
        **{name: change.strength for name, change in STRONG.changes.items()},
    )
    assert tuple(settings.changes) == CHANGES
    for seed in range(5):
        changed, changed_mask = settings.apply(image, mask, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (image.shape, image.dtype)
        assert (changed_mask.shape, changed_mask.dtype) == (mask.shape, mask.dtype)
        assert changed.flags.c_contiguous and changed_mask.flags.c_contiguous
        assert set(np.unique(changed_mask)) <= {0, 1, 255}
        assert np.isfinite(changed).all()
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_an_all_void_patch_stays_void():
    image, mask = patch()
    mask[:] = 255
    for seed in range(20):
        _, changed = STRONG.apply(image, mask, np.random.default_rng(seed))
        assert (changed == 255).all()


@every_change
def test_each_change_acts_at_both_ends_and_does_nothing_in_the_middle(name):
    image, mask = patch()
    settings = only(**{name: 0.3})
    for shift in (-0.9, 0.9):
        changed, _ = settings.apply_drawn(image, mask, extreme(name, shift))
        assert not np.array_equal(changed, image)
    same, same_mask = settings.apply_drawn(image, mask, extreme(name, 0.0))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(same_mask, mask)


@pytest.mark.parametrize("name", [name for name in CHANGES if name not in MOVES])
def test_what_only_changes_pixels_leaves_the_mask(name):
    image, mask = patch()
    _, same_mask = only(**{name: 1.0}).apply_drawn(image, mask, extreme(name, 0.9))
    np.testing.assert_array_equal(same_mask, mask)


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_pixels_moves_the_mask_and_makes_void(name):
    image, mask = patch()
    mask[:] = 1
    _, moved = only(**{name: 0.2}).apply_drawn(image, mask, extreme(name, -0.9))
    assert set(np.unique(moved)) == {1, 255}
    assert (moved[16:32, 16:32] == 1).all()


# A larger fraction of a turn is no larger difference; nor is a larger scale of noise.
@pytest.mark.parametrize("name", [name for name in CHANGES if name not in (*MOVES, "hue")])
def test_strength_scales_the_effect(name):
    image, mask = patch(dtype=np.float32)
    settings = {"value_range": (0, 1)}
    effects = [
        difference(
            only(**{name: strength}, **settings).apply_drawn(image, mask, extreme(name))[0], image
        )
        for strength in (0.05, 0.2, 0.6)
    ]
    assert effects[0] < effects[1] < effects[2]


@every_change
def test_a_change_is_made_as_often_as_its_probability_says(name):
    image, mask = patch((12, 12, 3), dtype=np.float32)
    counts = {}
    for probability in (0.0, 0.3, 1.0):
        settings = only(**{name: Change(0.9, probability)}, value_range=(0, 1))
        made = [
            settings.apply(image, mask, np.random.default_rng(seed))[0].tobytes() != image.tobytes()
            for seed in range(200)
        ]
        counts[probability] = sum(made)
    assert counts[0.0] == 0
    # A narrow enough blur, and a small enough share of 144 pixels, changes nothing.
    assert counts[1.0] >= {"blur": 175, "coarse_dropout": 150}.get(name, 194)
    assert counts[0.3] == pytest.approx(0.3 * counts[1.0], abs=20)


def test_rotation_scale_and_shear_are_one_map():
    image, mask = patch((30, 40, 3))
    settings = only(rotation=0.5, scale=0.25, shear=0.2)
    draws = Draws(shifts={"rotation": 0.3, "scale": -0.4, "shear": 0.9}, shear_direction=0.2)
    matrix = affine_matrix((30, 40), 0.5 * 0.3, 1.25**-0.4, 0.2 * 0.9, 0.2)
    for found, expected in zip(
        settings.apply_drawn(image, mask, draws), warp(image, mask, matrix), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_quarter_turn_is_exact_and_comes_before_the_flip():
    image, mask = patch()
    quarter = only(dihedral=True, rotation=0.25)
    turned, turned_mask = quarter.apply_drawn(image, mask, Draws(4, {"rotation": 1.0}))
    np.testing.assert_array_equal(turned, np.rot90(image)[:, ::-1])
    np.testing.assert_array_equal(turned_mask, np.rot90(mask)[:, ::-1])


def test_colours_by_hand():
    image = np.array([[[100, 100, 100, 100], [200, 100, 50, 7]]], np.uint8)
    mask = np.zeros((1, 2), np.uint8)

    def of(shift: float, value_range=None, **settings: float) -> list:
        augmentation = only(**settings, value_range=value_range)
        draws = Draws(shifts=dict.fromkeys(settings, shift))
        return augmentation.apply_drawn(image, mask, draws)[0][0].tolist()

    assert of(0.5, brightness=0.2) == [[126] * 4, [226, 126, 76, 32]]
    assert of(-0.5, contrast=0.2, value_range=(0, 200)) == [[100] * 4, [190, 100, 55, 16]]
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    for sign in (-1, 1):
        half = [round(luma + 0.5 * (value - luma)) for value in (200, 100, 50)]
        assert of(0.5 * sign, grayscale=1) == [[100] * 4, [*half, 7]]
    assert of(-0.5, saturation=1) == of(0.5, grayscale=1)
    assert of(0.25, hue=1)[0] == [100] * 4 and of(0.25, hue=1)[1][3] == 7
    assert of(1, gamma=1)[0] == [round(100**2 / 255)] * 4
    assert of(-1, gamma=1)[0] == [round((100 * 255) ** 0.5)] * 4


def test_saturation_and_grayscale_multiply():
    image, mask = patch(dtype=np.float32)
    settings = only(saturation=1, grayscale=1, value_range=(0, 1))
    draws = Draws(shifts={"saturation": 1.0, "grayscale": -0.5})
    np.testing.assert_array_equal(settings.apply_drawn(image, mask, draws)[0], image)


@pytest.mark.parametrize("value_range", [None, (1000, 3000)])
def test_noise_and_losses_refer_to_the_value_range(value_range):
    low, high = value_range or (0, 65535)
    image = np.full((64, 64, 2), (low + high) / 2, np.uint16)
    mask = np.zeros((64, 64), np.uint8)

    def of(name: str, strength: float) -> np.ndarray:
        settings = only(**{name: strength}, value_range=value_range)
        return settings.apply_drawn(image, mask, extreme(name))[0]

    assert of("gaussian_noise", 0.1).std() == pytest.approx(0.1 * (high - low), rel=0.05)
    assert set(np.unique(of("salt_and_pepper", 0.5))) == {low, image[0, 0, 0], high}
    for name in ("dropout", "coarse_dropout"):
        assert set(np.unique(of(name, 0.5))) == {low, image[0, 0, 0]}
    darker = only(frequency_noise=1.0, value_range=value_range)
    darker = darker.apply_drawn(image, mask, extreme("frequency_noise", -1.0))[0]
    assert darker.min() > low and darker.max() <= image[0, 0, 0]


def test_the_generator_decides_everything():
    image, mask = patch()
    for settings in (Augmentation(), STRONG):
        results = [settings.apply(image, mask, np.random.default_rng(s)) for s in (5, 5, 6)]
        np.testing.assert_array_equal(results[0][0], results[1][0])
        np.testing.assert_array_equal(results[0][1], results[1][1])
        assert not np.array_equal(results[0][0], results[2][0])


def test_settings_do_not_change_what_is_drawn_next():
    image, mask = patch()
    following = set()
    for settings in (OFF, Augmentation(), only(dropout=Change(0.5, 0.5)), STRONG):
        rng = np.random.default_rng(9)
        settings.apply(image, mask, rng)
        following.add(rng.random())
    assert len(following) == 1


@pytest.mark.parametrize("name", ["gaussian_noise", "dropout", "coarse_dropout", "salt_and_pepper"])
def test_one_changes_strength_does_not_shift_anothers_pixels(name):
    """The same pixels are lost, whatever is done to them before."""
    image, mask = patch()
    for seed in range(5):
        alone, _ = only(**{name: 0.3}).apply(image, mask, np.random.default_rng(seed))
        others = {other: 1e-9 for other in PIXELS if other != name}
        among, _ = only(**{name: 0.3}, **others).apply(image, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(alone, among)


def test_the_settings_of_earlier_runs_draw_what_they_drew():
    """Values stored before there were more changes than flips and the five colours."""
    image = (np.arange(6 * 6 * 3) * 37 % 256).astype(np.uint8).reshape(6, 6, 3)
    mask = (np.arange(36) % 7 == 0).astype(np.uint8).reshape(6, 6)
    stored = [
        ([[22, 36, 46], [92, 113, 125], [134, 34, 68]], [0, 0, 0, 0, 0, 1], 10469),
        ([[0, 32, 80], [168, 190, 228], [65, 90, 133]], [1, 0, 0, 0, 0, 0], 13612),
        ([[27, 90, 134], [221, 250, 0], [89, 146, 188]], [0, 0, 0, 0, 0, 1], 14130),
    ]
    for seed, (pixels, labels, total) in enumerate(stored):
        rng = np.random.default_rng([0, 0, seed])
        changed, changed_mask = Augmentation(**SHIPPED).apply(image, mask, rng)
        # Processors may round the sum of three products differently.
        np.testing.assert_allclose(changed[0, :3].astype(int), pixels, atol=1)
        assert changed.sum(dtype=int) == pytest.approx(total, abs=10)
        assert changed_mask[0].tolist() == labels


def test_a_run_of_earlier_settings_can_be_resumed():
    """Resuming compares what is stated, not None: changes that were unknown then are None."""
    settings = dataclasses.asdict(Augmentation(**SHIPPED))
    stated = {name: value for name, value in settings.items() if value is not None}
    assert stated == {name: value for name, value in SHIPPED.items() if value is not None}


def test_a_read_only_memory_map_will_do(tmp_path):
    image, mask = patch((60, 60, 3))
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "mask.npy", mask)
    mapped, mapped_mask = (
        np.load(tmp_path / f"{name}.npy", mmap_mode="r")[3:51, 5:53] for name in ("image", "mask")
    )
    for seed in range(10):
        direct, through_map = (
            STRONG.apply(*pair, np.random.default_rng(seed))
            for pair in ((image[3:51, 5:53].copy(), mask[3:51, 5:53].copy()), (mapped, mapped_mask))
        )
        np.testing.assert_array_equal(direct[0], through_map[0])
        np.testing.assert_array_equal(direct[1], through_map[1])


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(),
        Augmentation(**SHIPPED),
        Augmentation(brightness=Change(0.1, 0.5), hue=0.05, value_range=(0, 2047)),
        STRONG,
    ],
)
def test_settings_survive_json_and_pickle(settings):
    text = json.dumps(dataclasses.asdict(settings))
    again = Augmentation(**json.loads(text))
    assert again == settings
    assert again.changes == settings.changes
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_what_is_on_has_strength_and_probability():
    settings = only(blur=0.5, hue=Change(0.1, 0.2), gamma=Change(0.5, 0), dropout=Change(0, 1))
    assert settings.changes == {"hue": Change(0.1, 0.2), "blur": Change(0.5, 1.0)}
    assert tuple(Augmentation().changes) == ("brightness", "contrast", "saturation")
    assert tuple(STRONG.changes) == CHANGES


def test_changes_and_fields_name_the_same():
    names = {field.name for field in dataclasses.fields(Augmentation)}
    assert names == {*CHANGES, "dihedral", "value_range"}
    assert len(CHANGES) == len(names) - 2


@every_change
def test_strengths_and_probabilities_are_fractions(name):
    for given in (-0.1, 1.5, float("nan"), "much", Change(1.5), Change(0.5, 2)):
        with pytest.raises(TrainingError, match=name):
            Augmentation(**{name: given})


@pytest.mark.parametrize("value_range", [(1, 1), (5, 0), (1, 2, 3)])
def test_a_range_goes_upwards(value_range):
    with pytest.raises(TrainingError, match="value_range"):
        Augmentation(value_range=value_range)


def test_what_does_not_fit_is_refused():
    image, mask = patch()
    rng = np.random.default_rng(0)
    with pytest.raises(LabelError, match="does not fit"):
        Augmentation().apply(image, mask[:4], rng)
    with pytest.raises(LabelError, match="give uint8"):
        only(rotation=0.1).apply(image, mask == 1, rng)
    with pytest.raises(RasterError, match="cannot augment int32"):
        Augmentation().apply(image.astype(np.int32), mask, rng)


@pytest.mark.parametrize("name", CHANGES)
def test_floats_need_a_range_where_it_counts(name):
    image, mask = patch(dtype=np.float32)
    # At the first patch, not at the first that happens to be changed.
    settings = only(**{name: Change(0.5, 1e-9)})
    if name in (*MOVES, *FILTERS):
        settings.apply(image, mask, np.random.default_rng(0))
    else:
        with pytest.raises(RasterError, match="value_range"):
            settings.apply(image, mask, np.random.default_rng(0))


def test_without_opencv_the_rest_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    image, mask = patch()
    numpy_only = only(dihedral=True, **dict.fromkeys((*COLOURS, "grayscale", *PIXELS), 0.1))
    changed, _ = numpy_only.apply(image, mask, np.random.default_rng(0))
    assert not np.array_equal(changed, image)
    for name in (*MOVES, *FILTERS):
        settings = only(**{name: Change(0.5, 1e-9)})
        with pytest.raises(TrainingError, match=f"{name} needs OpenCV") as refused:
            settings.apply(image, mask, np.random.default_rng(0))
        assert "\n" not in str(refused.value)


def test_everything_is_drawn_in_its_range():
    symmetries = set()
    for seed in range(200):
        draws = Draws.from_generator(np.random.default_rng(seed))
        symmetries.add(draws.symmetry)
        assert tuple(draws.shifts) == tuple(draws.chances) == CHANGES
        assert all(-1 <= shift < 1 for shift in draws.shifts.values())
        assert all(0 <= chance < 1 for chance in draws.chances.values())
        assert 0 <= draws.shear_direction < 1 and 0 <= draws.emboss_direction < 1
    assert symmetries == set(range(8))


def test_no_two_changes_share_a_draw():
    draws = [Draws.from_generator(np.random.default_rng(seed)) for seed in range(500)]
    drawn = np.array(
        [
            [*d.shifts.values(), *d.chances.values(), d.shear_direction, d.emboss_direction]
            for d in draws
        ]
    )
    correlation = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert np.abs(correlation).max() < 0.25


def test_symmetry_and_colours_come_first():
    rng = np.random.default_rng(4)
    symmetry, shifts = int(rng.integers(8)), rng.uniform(-1, 1, size=5)
    draws = Draws.from_generator(np.random.default_rng(4))
    assert draws.symmetry == symmetry
    colours = ("brightness", "contrast", "saturation", "hue", "gamma")
    assert [draws.shifts[name] for name in colours] == shifts.tolist()


def test_pixels_are_drawn_apart():
    draws = Draws.from_generator(np.random.default_rng(0))
    first, again, other = (
        draws.pixel_generator(name).random(4).tolist()
        for name in ("dropout", "dropout", "salt_and_pepper")
    )
    assert first == again
    assert first != other
    assert first != Draws(seed=draws.seed + 1).pixel_generator("dropout").random(4).tolist()


@pytest.mark.parametrize("given", [None, 0, 0.0, 1, 0.3, np.float32(0.5), Change(0.2, 0.1)])
def test_settings_stay_what_they_are(given):
    assert Augmentation(blur=given).blur is given


def test_a_dict_becomes_a_change():
    assert Augmentation(blur={"strength": 0.5, "probability": 0.1}).blur == Change(0.5, 0.1)
    assert Augmentation(blur={"strength": 0.5}).blur == Change(0.5, 1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (-0.1, "blur is -0.1: give a fraction from 0 to 1"),
        (1.5, "blur is 1.5"),
        (float("nan"), "blur is nan"),
        (True, "blur is True"),
        ("0.5", "blur is '0.5'"),
        ([0.5, 0.1], "blur is"),
        (Change(2, 0.5), "blur is 2"),
        (Change(0.5, -1), "probability of augmentation blur is -1"),
        (Change(0.5, None), "probability of augmentation blur is None"),
        ({"strength": 0.5, "chance": 1}, "give strength and probability"),
        ({"probability": 1}, "give strength and probability"),
    ],
)
def test_what_is_no_setting_is_refused_in_one_line(given, message):
    with pytest.raises(TrainingError, match=message) as refused:
        Augmentation(blur=given)
    assert "\n" not in str(refused.value)
