"""Counts and what is divided from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jointnet.metrics import Counts, check_masks, count, threshold_mask

masks = arrays(np.uint8, 30, elements=st.sampled_from([0, 1, 255]))


def test_counts_by_hand():
    truth = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 255, 255]], np.uint8)
    prediction = np.array([[1, 1, 0, 1, 0], [0, 0, 255, 1, 255]], np.uint8)
    counts = count(truth, prediction)
    assert counts == Counts(true_positive=2, false_positive=1, false_negative=1, true_negative=3)
    assert counts.pixels == 7
    assert counts.metrics() == {
        "accuracy": 5 / 7,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 4 / 6,
        "iou": 2 / 4,
    }


@settings(deadline=None)
@given(masks, masks)
def test_metrics_are_those_of_the_sets_of_pixels(truth, prediction):
    valid = {i for i in range(30) if truth[i] != 255 and prediction[i] != 255}
    actual = {i for i in valid if truth[i] == 1}
    positive = {i for i in valid if prediction[i] == 1}
    metrics = count(truth, prediction).metrics()
    assert all(0 <= value <= 1 for value in metrics.values())
    if actual and positive:
        both = len(actual & positive)
        assert metrics["iou"] == both / len(actual | positive)
        assert metrics["precision"] == both / len(positive)
        assert metrics["recall"] == both / len(actual)
        f1 = 2 * both / (len(actual) + len(positive))
        assert metrics["f1"] == pytest.approx(f1)
        # Dice and IoU are two forms of one measure.
        assert metrics["iou"] == pytest.approx(f1 / (2 - f1))
    if valid:
        assert metrics["accuracy"] == pytest.approx(1 - len(actual ^ positive) / len(valid))


@settings(deadline=None)
@given(masks, masks, st.integers(0, 30))
def test_counts_of_parts_add_up_to_those_of_the_whole(truth, prediction, at):
    parts = count(truth[:at], prediction[:at]) + count(truth[at:], prediction[at:])
    assert parts == count(truth, prediction)
    assert sum([parts], Counts()) == parts


@settings(deadline=None)
@given(masks, masks)
def test_truth_and_prediction_exchange_precision_and_recall(truth, prediction):
    one, other = (count(*pair).metrics() for pair in ((truth, prediction), (prediction, truth)))
    assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])
    assert (one["iou"], one["f1"]) == (other["iou"], other["f1"])


def test_pooled_counts_are_not_the_mean_over_tiles():
    pooled = (Counts(true_positive=1) + Counts(90, 10, 0, 0)).metrics()["iou"]
    assert pooled == 91 / 101
    assert pooled != (1 + 0.9) / 2


def test_counts_stay_exact_integers_beyond_two_to_the_53():
    huge = Counts(true_positive=2**53) + Counts(true_positive=1)
    assert huge.true_positive == 2**53 + 1
    assert type(count(np.ones(3, np.uint8), np.ones(3, np.uint8)).true_positive) is int


@pytest.mark.parametrize(
    ("counts", "accuracy", "others"),
    [
        # Neither truth nor prediction has target: they agree.
        (Counts(), 1, 1),
        (Counts(true_negative=5), 1, 1),
        # One of them has.
        (Counts(false_positive=2, true_negative=2), 0.5, 0),
        (Counts(false_negative=2, true_negative=2), 0.5, 0),
        (Counts(true_positive=3), 1, 1),
    ],
)
def test_empty_classes_are_defined(counts, accuracy, others):
    metrics = counts.metrics()
    assert metrics.pop("accuracy") == accuracy
    assert set(metrics.values()) == {others}


def test_all_void_counts_nothing():
    void = np.full((2, 3), 255, np.uint8)
    assert count(void, np.ones((2, 3), np.uint8)) == Counts()
    assert count(np.ones((2, 3), np.uint8), void) == Counts()


def test_boolean_masks_count_as_well():
    truth, prediction = np.array([True, True, False]), np.array([True, False, False])
    assert count(truth, prediction) == Counts(1, 0, 1, 1)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"one shape; got \(2, 3\) and \(3, 2\)"),
        (np.array([0, 2]), np.array([0, 1]), "truth must hold 0, 1 and 255 only; got 2"),
        (np.array([0, 0]), np.array([0, 2]), "prediction must hold 0, 1 and 255 only; got 2"),
        (np.array([0, 1]), np.array([0.7, 1]), "prediction must hold .*; got 0.7"),
    ],
)
def test_what_cannot_be_counted_is_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        count(truth, prediction)


def test_any_number_of_masks_is_checked_by_name():
    mask = np.array([[0, 1, 255]], np.uint8)
    check_masks()
    check_masks(one=mask)
    check_masks(one=mask, two=mask > 0, three=mask.astype(float))
    with pytest.raises(ValueError, match=r"one shape; got \(1, 3\), \(1, 3\) and \(3, 1\)"):
        check_masks(one=mask, two=mask, three=mask.T)
    with pytest.raises(ValueError, match="two must hold 0, 1 and 255 only; got 7"):
        check_masks(one=mask, two=mask // 2 + 7)
    with pytest.raises(ValueError, match="one must hold .* got nan"):
        check_masks(one=mask * np.nan)


def test_threshold_by_hand():
    probabilities = np.array([[0, 0.5, 0.6], [0.61, 1, np.nan]], np.float32)
    mask = threshold_mask(probabilities, 0.6)
    np.testing.assert_array_equal(mask, [[0, 0, 1], [1, 1, 255]])
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(threshold_mask(probabilities, 0), [[1, 1, 1], [1, 1, 255]])


def test_a_thresholded_map_counts_its_void_nowhere():
    probabilities = np.array([0.9, 0.1, np.nan, np.nan], np.float32)
    truth = np.array([1, 1, 1, 0], np.uint8)
    assert count(truth, threshold_mask(probabilities, 0.5)) == Counts(1, 0, 1, 0)
