"""Intervals of differences: special cases, and against plain resampling and theory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jointnet.metrics import METRICS, Counts, Difference, _ratio, paired_difference

NUMBERS = st.integers(0, 5)
COUNTS = st.builds(Counts, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


def scenes(seed: int, number: int) -> list[Counts]:
    draws = np.random.default_rng(seed).integers(1, 100, (number, 4))
    return [Counts(*row) for row in draws.tolist()]


@pytest.mark.parametrize("metric", METRICS)
def test_equal_inputs_differ_by_nothing(metric):
    found = paired_difference(scenes(1, 9), scenes(1, 9), metric)
    assert found == Difference(0.0, 0.0, 0.0, 9)
    assert found.verdict == "not distinguishable"


def test_one_scene_has_no_interval():
    # IoU 6/10 and 8/10.
    found = paired_difference([Counts(6, 2, 2, 9)], [Counts(8, 1, 1, 9)])
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high, found.number) == (None, None, 1)
    assert found.verdict == "only one with pixels: no interval"


def test_no_scene_with_pixels():
    found = paired_difference([Counts()], [Counts()])
    assert (found.value, found.low, found.verdict) == (0, None, "none with pixels: no interval")
    assert paired_difference([], []).number == 0


def test_scenes_without_pixels_are_left_out():
    a, b = scenes(1, 7), scenes(2, 7)
    assert paired_difference([*a, Counts()], [*b, Counts()]) == paired_difference(a, b)


def test_two_scenes_have_three_outcomes():
    """Both scenes, or one of them twice: a quarter each, so the interval has these for ends."""
    a = [Counts(5, 5, 0, 0), Counts(8, 2, 0, 0)]
    b = [Counts(6, 4, 0, 0), Counts(8, 2, 0, 0)]
    found = paired_difference(a, b)
    assert found.value == pytest.approx(0.05)
    assert (found.low, found.high) == (pytest.approx(0.0), pytest.approx(0.1))


def test_the_other_way_round_it_is_the_other_sign():
    one = paired_difference(scenes(1, 8), scenes(2, 8))
    back = paired_difference(scenes(2, 8), scenes(1, 8))
    assert (back.value, back.low, back.high) == pytest.approx((-one.value, -one.high, -one.low))


@pytest.mark.parametrize("metric", METRICS)
def test_plain_resampling_gives_the_same_ends(metric):
    a, b, generator = scenes(3, 12), scenes(4, 12), np.random.default_rng(9)
    differences = []
    for _ in range(3000):
        drawn = generator.integers(0, 12, 12)
        pooled = [sum((side[i] for i in drawn), Counts()).metrics()[metric] for side in (a, b)]
        differences.append(pooled[1] - pooled[0])
    found = paired_difference(a, b, metric)
    ends = np.percentile(differences, [2.5, 97.5])
    assert [found.low, found.high] == pytest.approx(ends, abs=0.08 * np.ptp(ends))


def test_the_interval_of_a_mean_is_that_of_theory():
    """Accuracies of equal scenes pool to their mean: 1.96 standard errors to either side."""
    gains = np.random.default_rng(5).normal(20, 60, 400).astype(int).tolist()
    a = [Counts(500, 500, 0, 0)] * 400
    b = [Counts(500 + gain, 500 - gain, 0, 0) for gain in gains]
    found = paired_difference(a, b, "accuracy")
    half = 1.96 * np.std(gains) / 1000 / np.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


@pytest.mark.parametrize(("number", "verdict"), [(5, "too few to tell (6 needed)"), (6, "higher")])
def test_a_verdict_needs_six_scenes(number, verdict):
    a, b = [Counts(5, 5, 0, 0)] * number, [Counts(6, 4, 0, 0)] * number
    assert paired_difference(a, b).verdict == verdict
    assert paired_difference(b, a).verdict == verdict.replace("higher", "lower")


@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_ratios_of_many_are_the_metrics_of_each(counts):
    table = np.array([list(vars(one).values()) for one in counts])
    for metric in METRICS:
        assert _ratio(table, metric).tolist() == [one.metrics()[metric] for one in counts]


def test_many_scenes_are_drawn_in_pieces(monkeypatch):
    whole = paired_difference(scenes(1, 20), scenes(2, 20))
    monkeypatch.setattr("jointnet.metrics._CHUNK_ELEMENTS", 1000)
    assert paired_difference(scenes(1, 20), scenes(2, 20)) == whole


def test_other_scenes_and_metrics_are_refused():
    with pytest.raises(ValueError, match="2 and 3 scenes"):
        paired_difference(scenes(1, 2), scenes(1, 3))
    with pytest.raises(ValueError, match="'quality'"):
        paired_difference(scenes(1, 2), scenes(1, 2), "quality")
