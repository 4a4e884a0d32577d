"""Counts of objects: added first, divided last; average precision by hand."""

import numpy as np
import pytest

from preprocessing.objects import ObjectCounts, average_precision


def counts(matched, true, found, **others) -> ObjectCounts:
    return ObjectCounts(matched, true, found, **others)


def test_counts_are_added_before_they_are_divided():
    one = counts(1, 2, 1, true_pixels=10, predicted_pixels=5, polis_px=2.0, polis_m=1.0)
    other = counts(8, 8, 9, true_pixels=90, predicted_pixels=85, polis_px=7.0, boundary_px=3)
    both = (one + other).measures()
    assert both["precision"] == 9 / 10 and both["recall"] == 9 / 10 and both["f1"] == 18 / 20
    assert both["polis_px"] == 1.0 and both["polis_m"] is None
    assert both["count_error"] == 0 and both["area_error"] == -0.1
    assert both["boundary_px"] == 3


def test_metres_are_the_mean_of_pairs_that_have_them():
    one = counts(4, 4, 4, polis_px=4.0, polis_m=2.0, pairs_on_ground=4)
    measures = (one + counts(1, 1, 1, polis_px=6.0)).measures()
    assert measures["polis_px"] == 2.0 and measures["polis_m"] == 0.5


def test_scores_are_kept_where_all_have_them():
    one = counts(1, 1, 2, scores=np.array([0.9, 0.8]), hits=np.array([False, True]))
    other = counts(1, 1, 1, scores=np.array([0.95]), hits=np.array([True]))
    both = sum([one, other], ObjectCounts())
    assert both.scores.tolist() == [0.9, 0.8, 0.95] and both.hits.tolist() == [False, True, True]
    # Sorted: hit, miss, hit of two: precision 1 up to half, 2/3 beyond.
    assert both.measures()["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    unscored = counts(0, 0, 1, scores=None, hits=np.array([False]))
    assert (both + unscored).measures()["ap50"] is None


def test_boundaries_of_two_widths_are_not_added():
    with pytest.raises(ValueError, match=r"must have one width; got \[2, 3\]"):
        ObjectCounts(boundary_px=2) + ObjectCounts(boundary_px=3)


def test_average_precision_by_hand():
    scores, hits = np.array([0.7, 0.9, 0.8]), np.array([True, True, False])
    # Precision 1 at recalls up to 1/4, 2/3 up to 1/2, and nothing beyond.
    assert average_precision(scores, hits, 4) == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert average_precision(scores, np.ones(3, bool), 3) == 1.0
    assert average_precision(scores, np.zeros(3, bool), 3) == 0.0


def test_precision_is_the_best_of_what_comes_later():
    # 0/1, 1/2, 2/3, 3/4: at every recall up to 3/4 the last is the best.
    hits = np.array([False, True, True, True])
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, hits, 4) == pytest.approx(76 * 0.75 / 101)


def test_equal_scores_enter_together_whatever_their_order():
    hits = np.array([True, False, True, False])
    for order in ([0, 1, 2, 3], [1, 3, 0, 2]):
        assert average_precision(np.full(4, 0.5), hits[order], 2) == pytest.approx(0.5)


def test_recalls_are_compared_in_whole_numbers():
    # 29 of 100 are a recall of 0.29, which 0.29 * 100 in binary is not.
    assert average_precision(np.ones(29), np.ones(29, bool), 100) == pytest.approx(30 / 101)


def test_a_score_that_is_no_number_comes_last():
    scores, hits = np.array([np.nan, 0.1]), np.array([False, True])
    assert average_precision(scores, hits, 1) == 1.0


@pytest.mark.parametrize(("found", "actual", "wanted"), [(0, 0, 1), (0, 3, 0), (3, 0, 0)])
def test_nothing_on_a_side(found, actual, wanted):
    assert average_precision(np.ones(found), np.zeros(found, bool), actual) == wanted
