"""All thresholds from one histogram, against counting at every one of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from jointnet.metrics import Counts, count, threshold_mask
from jointnet.thresholds import BINS, ProbabilityHistogram, threshold_lines

TRUTH = np.array([[1, 1, 0, 0], [1, 0, 255, 0]], np.uint8)
VALUES = np.array([[0.9, 0.4, 0.7, 0.1], [0.2, 0.1, 0.9, np.nan]], np.float32)


def histogram(truth=TRUTH, values=VALUES) -> ProbabilityHistogram:
    made = ProbabilityHistogram()
    made.add(truth, values)
    return made


def test_a_curve_by_hand():
    made = histogram()
    assert made.pixels == 6
    curve = made.curve()
    at = {t: int(np.ceil(np.float32(t) * BINS)) for t in (0.05, 0.15, 0.3, 0.5, 0.8, 0.95)}
    found = {
        t: (int(curve["true_positive"][k]), int(curve["false_positive"][k])) for t, k in at.items()
    }
    assert found == {
        0.05: (3, 3),
        0.15: (3, 1),
        0.3: (2, 1),
        0.5: (1, 1),
        0.8: (1, 0),
        0.95: (0, 0),
    }
    assert curve["iou"][at[0.15]] == 3 / 4 and curve["iou"][at[0.8]] == 1 / 3
    assert curve["precision"][at[0.15]] == 3 / 4 and curve["recall"][at[0.3]] == 2 / 3
    assert curve["precision"][at[0.95]] == 0 and curve["recall"][at[0.95]] == 0
    # Of all thresholds above 0.1 and up to 0.2 the first bin's edge is the best's.
    best = made.best()
    assert best["iou"] == 3 / 4 and 0.1 < best["threshold"] <= 0.1 + 1 / BINS


@settings(max_examples=40, deadline=None)
@given(st.integers(0), st.integers(0, BINS), st.sampled_from([np.float32, np.float64]))
def test_a_bins_edge_gives_the_counts_of_comparing_every_pixel(seed, k, dtype):
    random = np.random.default_rng(seed)
    # Many values lie on edges, or one float beside them.
    edges = random.integers(0, BINS + 1, 300) / BINS
    values = np.r_[edges, k / BINS, random.random(100)].astype(dtype)
    values[::3] = np.clip(np.nextafter(values[::3], dtype(random.integers(-1, 3))), 0, 1)
    values[::50] = np.nan
    truth = random.choice([0, 1, 255], len(values), p=[0.6, 0.3, 0.1]).astype(np.uint8)
    curve = histogram(truth, values).curve()
    counts = count(truth, threshold_mask(values, k / BINS))
    assert curve["true_positive"][k] == counts.true_positive
    assert curve["false_positive"][k] == counts.false_positive
    for name in ("precision", "recall", "iou"):
        assert curve[name][k] == counts.metrics()[name]


def test_strips_add_up_and_memory_is_flat():
    random = np.random.default_rng(0)
    truth, values = random.integers(0, 2, (50, 40)), random.random((50, 40))
    whole, parts = histogram(truth, values), ProbabilityHistogram()
    for row in range(0, 50, 7):
        parts.add(truth[row : row + 7], values[row : row + 7])
    for one, other in zip(whole.curve().values(), parts.curve().values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.calibration() == parts.calibration()


def test_large_arrays_are_taken_in_chunks(monkeypatch):
    random = np.random.default_rng(1)
    truth, values = random.integers(0, 2, (50, 40)), random.random((50, 40))
    whole = histogram(truth, values).curve()
    monkeypatch.setattr("jointnet.thresholds._CHUNK", 90)
    np.testing.assert_array_equal(histogram(truth, values).curve()["iou"], whole["iou"])


def test_precision_and_recall_are_scikit_learns():
    random = np.random.default_rng(0)
    values = random.integers(0, BINS + 1, 500) / BINS
    truth = (random.random(500) < values).astype(np.uint8)
    precision, recall, thresholds = precision_recall_curve(truth, values)
    curve, at = histogram(truth, values).curve(), (thresholds * BINS).astype(int)
    np.testing.assert_allclose(curve["precision"][at], precision[:-1], rtol=1e-12)
    np.testing.assert_allclose(curve["recall"][at], recall[:-1], rtol=1e-12)


@pytest.mark.parametrize("wrong", [-0.01, 1.001, 255, np.inf])
def test_what_is_no_probability_is_refused(wrong):
    values = VALUES.copy()
    values[0, 0] = wrong
    with pytest.raises(ValueError, match="must lie in 0..1; got values from"):
        histogram(values=values)
    # Under void nobody looks.
    hidden = VALUES.copy()
    hidden[1, 2] = wrong
    assert histogram(values=hidden).pixels == 6


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        histogram(values=VALUES[:1])


@pytest.mark.parametrize("truth", [np.zeros((2, 4), np.uint8), np.full((2, 4), 255, np.uint8)])
def test_nothing_true_and_nothing_found_agree(truth):
    curve = histogram(truth, np.zeros((2, 4), np.float32)).curve()
    empty = (truth == 255).all()
    assert curve["iou"][1:].tolist() == [1.0] * BINS
    assert curve["iou"][0] == (1.0 if empty else 0.0)
    assert histogram(truth, VALUES).best()["iou"] == 1.0
    assert histogram(np.zeros((0, 4), np.uint8), np.zeros((0, 4))).pixels == 0


# Calibration


def test_the_calibration_error_by_hand():
    # In the bin of 0.75: three of four are target, which is what they say; in that of 0.25 all.
    values = np.array([0.75] * 4 + [0.25] * 2 + [1.0])
    truth = np.array([1, 1, 1, 0, 1, 1, 1])
    found = histogram(truth, values).calibration()
    assert [(b["from"], b["to"], b["pixels"]) for b in found["bins"]] == [
        (0.25, 0.3125, 2),
        (0.75, 0.8125, 4),
        (0.9375, 1.0, 1),
    ]
    assert [b["target_share"] for b in found["bins"]] == [1.0, 0.75, 1.0]
    means = [b["mean_probability"] for b in found["bins"]]
    assert means == pytest.approx([0.25, 0.75, 1.0], abs=2**-17)
    assert found["ece"] == pytest.approx(2 / 7 * 0.75, abs=2**-17)


def test_no_pixels_have_no_calibration_error():
    assert ProbabilityHistogram().calibration() == {"ece": 0.0, "bins": []}


def test_probabilities_that_come_true_are_calibrated():
    random = np.random.default_rng(0)
    values = random.random(400_000).astype(np.float32)
    truth = (random.random(400_000) < values).astype(np.uint8)
    found = histogram(truth, values).calibration()
    assert found["ece"] < 0.004 and len(found["bins"]) == 16
    assert histogram(truth, values**3).calibration()["ece"] > 0.1


# What is kept


def test_the_description_says_what_other_thresholds_cost():
    made = histogram()
    counts = count(TRUTH, threshold_mask(VALUES, 0.6))
    assert counts == Counts(1, 1, 2, 2)
    described = made.describe([(0.6, counts), (None, counts)])
    assert described["cost"][0] == {"threshold": 0.6, "iou": 1 / 4, "iou_lost": 0.5}
    assert len(described["curve"]) == 65
    assert described["curve"][0] == {"threshold": 0, "precision": 0.5, "recall": 1, "iou": 0.5}
    assert described["curve"][-1]["threshold"] == 1.0
    best, calibration = threshold_lines(described).splitlines()
    assert best.startswith("best threshold on these scenes: 0.100 (IoU 0.750, ")
    assert best.endswith("0.6 costs 0.500 (IoU 0.250); that of the masks costs 0.500 (IoU 0.250)")
    assert "over 16 bins" in calibration


def test_a_threshold_between_two_bins_costs_nothing_less_than_nothing():
    """Of two pixels in one bin, a threshold between them takes the right one."""
    values = np.array([0.5, 0.5 + 2**-20], np.float64)
    truth = np.array([0, 1], np.uint8)
    counts = count(truth, threshold_mask(values, 0.5 + 2**-21))
    described = histogram(truth, values).describe([(0.5 + 2**-21, counts)])
    assert described["best"]["iou"] == 0.5 and counts.metrics()["iou"] == 1
    assert described["cost"][0]["iou_lost"] == 0
