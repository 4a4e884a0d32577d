"""What is drawn for a patch, and which settings a change may have."""

import numpy as np
import pytest

from preprocessing.augmentation import CHANGES, Change, Draws, checked
from preprocessing.errors import TrainingError


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
    assert checked("blur", given) is given


def test_a_dict_becomes_a_change():
    assert checked("blur", {"strength": 0.5, "probability": 0.1}) == Change(0.5, 0.1)
    assert checked("blur", {"strength": 0.5}) == Change(0.5, 1.0)


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
        checked("blur", given)
    assert "\n" not in str(refused.value)
