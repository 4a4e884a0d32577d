"""Objects against each other: matching, void, scores, boundaries and PoLiS, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.mask_outlines import polygonise
from preprocessing.objects import (
    ObjectCounts,
    average_precision,
    boundaries,
    count_objects,
    match,
    polis,
)
from preprocessing.raster_access import raster_info
from preprocessing.rasters import read_label
from tests.mask_files import describe


def mask_of(*rows: str) -> np.ndarray:
    """``#`` is target, ``?`` void."""
    return np.array([[{"#": 1, "?": 255}.get(c, 0) for c in row] for row in rows], np.uint8)


def test_a_scene_by_hand():
    truth = mask_of("##..##..##", "##..##..##", "..........", "####......")
    found = mask_of("##..#.....", "##..#...##", ".........#", "..##......")
    counts = count_objects(truth, found)
    # IoU 1, 2 of 4, 2 of 5 and 2 of 4.
    assert (counts.true_objects, counts.predicted_objects, counts.matched) == (4, 4, 3)
    assert (counts.true_pixels, counts.predicted_pixels) == (16, 11)
    measures = counts.metrics()
    assert measures["precision"] == measures["recall"] == measures["f1"] == 3 / 4
    assert measures["count_error"] == 0 and measures["area_error"] == -5 / 16
    assert measures["ap50"] is None and measures["polis_m"] is None


def test_corners_do_not_connect_and_a_ring_is_one_object():
    counts = count_objects(mask_of("#.", ".#"), mask_of("##", "##"))
    assert (counts.true_objects, counts.predicted_objects) == (2, 1)
    ring = mask_of("###", "#.#", "###")
    assert count_objects(ring, ring).metrics()["f1"] == 1


def test_of_two_equal_halves_one_is_matched_and_nothing_is_matched_twice():
    counts = count_objects(mask_of("####"), mask_of("##..") + mask_of("...#"))
    assert (counts.matched, counts.predicted_objects) == (1, 2)
    halves = np.array([[1, 1, 2, 2]], np.int32)
    whole = np.ones((1, 4), np.int32)
    areas, four = np.array([0, 2, 2]), np.array([0, 4])
    assert match(whole, halves, four, areas).tolist() == [[1, 1]]
    assert match(halves, whole, areas, four).tolist() == [[1, 1]]


def test_a_match_begins_at_an_iou_of_one_half():
    truth = mask_of("####......")
    assert count_objects(truth, mask_of("##........")).matched == 1
    assert count_objects(truth, mask_of(".#........")).matched == 0
    # 3 of 6 and 3 of 7.
    assert count_objects(truth, mask_of(".#####....")).matched == 1
    assert count_objects(truth, mask_of(".######...")).matched == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0))
def test_counts_agree_with_those_of_polygons(seed):
    random = np.random.default_rng(seed)
    truth = (random.random((14, 14)) < 0.45).astype(np.uint8)
    found = np.where(random.random((14, 14)) < 0.15, 1 - truth, truth).astype(np.uint8)
    ours, theirs = np.array(polygonise(truth)), np.array(polygonise(found))
    iou = shapely.area(shapely.intersection(ours[:, None], theirs[None]))
    iou /= shapely.area(ours)[:, None] + shapely.area(theirs)[None] - iou
    counts = count_objects(truth, found, found * 0.5)
    assert (counts.true_objects, counts.predicted_objects) == iou.shape
    # Above one half every row and column has at most one.
    assert (iou > 0.5 + 1e-9).sum() <= counts.matched <= (iou.max(axis=1) > 0.5 - 1e-9).sum()
    assert counts.hits.sum() == counts.matched
    assert counts.scores.tolist() == [0.5] * len(theirs)
    # The other way round.
    swapped = count_objects(found, truth)
    assert swapped.boundary_union == counts.boundary_union
    assert swapped.polis_px == pytest.approx(counts.polis_px) or swapped.matched != counts.matched


@pytest.mark.parametrize("value", [0, 255])
def test_nothing_on_either_side_is_defined(value):
    nothing, all_true = np.full((4, 5), value, np.uint8), np.ones((4, 5), np.uint8)
    empty = count_objects(nothing, nothing, np.full((4, 5), np.nan)).metrics()
    for name in ("precision", "recall", "f1", "ap50", "boundary_iou"):
        assert empty[name] == 1, name
    assert (empty["count_error"], empty["area_error"], empty["polis_px"]) == (0, 0, None)
    if value == 0:
        missed = count_objects(all_true, nothing, np.zeros((4, 5))).metrics()
        assert (missed["recall"], missed["f1"], missed["ap50"], missed["boundary_iou"]) == (0,) * 4
        assert (missed["count_error"], missed["area_error"]) == (-1, -1)
        invented = count_objects(nothing, all_true, np.ones((4, 5))).metrics()
        assert (invented["precision"], invented["f1"], invented["ap50"]) == (0, 0, 0)
        assert (invented["count_error"], invented["area_error"]) == (None, None)


def test_arrays_without_pixels_have_no_objects():
    nothing = np.zeros((0, 5), np.uint8)
    assert count_objects(nothing, nothing).metrics()["f1"] == 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="of one shape; got"):
        count_objects(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


# Void


def test_an_object_mostly_under_void_of_the_other_mask_is_counted_nowhere():
    truth = mask_of("?????.....", "?????.....")
    found = mask_of("..####....", "..####....")
    counts = count_objects(truth, found)
    # Six of its eight pixels are void in the truth.
    assert (counts.predicted_objects, counts.predicted_pixels) == (0, 0)
    assert counts.metrics()["precision"] == 1
    # Half of it is not most of it.
    counts = count_objects(mask_of("????......", "????......"), found)
    assert (counts.predicted_objects, counts.predicted_pixels) == (1, 4)
    # The same of a true object where nothing was predicted.
    assert count_objects(found, truth).true_objects == 0


def test_pixels_under_void_count_in_no_iou():
    truth = mask_of("####......")
    found = mask_of(".###?????.")
    assert count_objects(truth, found).matched == 1
    # Two of the true object's four pixels are void: of the others one is found.
    counts = count_objects(truth, mask_of("??.#......"))
    assert (counts.matched, counts.true_pixels) == (1, 2)


def test_an_object_ends_where_its_own_mask_is_void():
    counts = count_objects(mask_of("##?##"), mask_of("#####"))
    assert (counts.true_objects, counts.predicted_objects) == (2, 1)


# Scores


def test_a_score_is_the_mean_probability_without_void():
    found = mask_of("##..#", "?#...")
    values = np.array([[0.6, 0.7, 0.1, 0.1, 0.9], [0.0, np.nan, 0.1, 0.1, 0.1]], np.float32)
    counts = count_objects(mask_of("##...", "##..."), found, values)
    assert counts.scores.tolist() == pytest.approx([0.65, 0.9])
    assert counts.hits.tolist() == [True, False]
    # The surer one is wrong.
    assert counts.metrics()["ap50"] == pytest.approx(0.5)


# Boundaries


def test_a_boundary_iou_by_hand():
    truth = np.zeros((9, 9), np.uint8)
    truth[2:7, 2:7] = 1
    assert boundaries(truth, truth, 1) == (16, 16)
    # Of two rings of 16 pixels, the four shared of their upper and of their lower side.
    assert boundaries(truth, np.roll(truth, 1, axis=1), 1) == (8, 24)
    # Three pixels deep there is no inside.
    assert boundaries(truth, np.roll(truth, 1, axis=1), 3) == (20, 30)
    assert boundaries(truth, np.zeros_like(truth), 1) == (0, 16)


def test_the_edge_of_the_raster_is_a_contour_and_void_is_none():
    whole = np.ones((5, 6), np.uint8)
    assert boundaries(whole, whole, 1) == (18, 18)
    void = whole.copy()
    void[:, 3:] = 255
    # Of three columns of five rows the left one, and the ends of the others.
    assert boundaries(void, void, 1) == (9, 9)
    # What is void in one mask counts in none.
    assert boundaries(whole, void, 1) == (9, 9)


# PoLiS


def test_polis_by_hand():
    square = shapely.box(0, 0, 2, 2)
    pairs = [
        (square, square),
        # Two corners of each are 1 from the other's outline, two lie on it.
        (square, shapely.box(1, 0, 3, 2)),
        # The outer corners are a diagonal away, the inner ones 1.
        (shapely.box(0, 0, 4, 4), shapely.box(1, 1, 3, 3)),
        # A triangle: (2, 2) is half a diagonal of the square from its hypotenuse.
        (square, shapely.Polygon([(0, 0), (2, 0), (0, 2)])),
    ]
    distances = polis(*(np.array(side, dtype=object) for side in zip(*pairs, strict=True)))
    wanted = [0, 0.5, 4 * np.sqrt(2) / 8 + 4 / 8, np.sqrt(2) / 8]
    assert distances.tolist() == pytest.approx(wanted)
    assert polis(np.zeros(0, object), np.zeros(0, object)).tolist() == []


def test_polis_of_matched_pairs_is_in_pixels_and_on_the_ground():
    truth, found = np.zeros((2, 40, 40), np.uint8)
    truth[2:6, 2:6] = found[2:6, 3:7] = 1
    truth[20:30, 20:30] = found[20:30, 20:30] = 1
    found[35, 35] = 1
    info = replace(describe((40, 40)), gsd=0.5)
    counts = count_objects(truth, found, info=info)
    assert (counts.matched, counts.pairs_on_ground) == (2, 2)
    # Half a metre a pixel, in a zone that is 0.04 % too small.
    assert counts.metrics()["polis_px"] == pytest.approx(0.25)
    assert counts.metrics()["polis_m"] == pytest.approx(0.125, rel=1e-3)
    assert count_objects(truth, found, info=describe((40, 40), crs=None)).pairs_on_ground == 0


def test_a_real_scene_shifted_by_a_pixel(real_data):
    path = real_data / "aerial_buildings" / "train" / "gt" / "zanzibar1.tif"
    truth, info = read_label(path), raster_info(path)
    same = count_objects(truth, truth, info=info).metrics()
    assert same["f1"] == same["boundary_iou"] == 1 and same["polis_m"] == 0
    moved = count_objects(truth, np.roll(truth, 1, axis=1), info=info).metrics()
    assert moved["f1"] > 0.95 and 0.2 < moved["boundary_iou"] < 0.8
    assert 0 < moved["polis_px"] < 1
    assert moved["polis_m"] == pytest.approx(info.gsd * moved["polis_px"], rel=1e-3)


@pytest.mark.slow
def test_a_tile_of_inria(real_data):
    truth = read_label(real_data / "full_tile_masks" / "austin29_gt.png")
    counts = count_objects(truth, np.roll(truth, 1, axis=(0, 1)))
    assert (counts.true_objects, counts.matched) == (2325, 2318)
    assert counts.metrics()["f1"] == 2 * 2318 / (2325 + 2341)


def counts(matched, true, found, **others) -> ObjectCounts:
    return ObjectCounts(matched, true, found, **others)


def test_counts_are_added_before_they_are_divided():
    one = counts(1, 2, 1, true_pixels=10, predicted_pixels=5, polis_px=2.0, polis_m=1.0)
    other = counts(8, 8, 9, true_pixels=90, predicted_pixels=85, polis_px=7.0, boundary_px=3)
    both = (one + other).metrics()
    assert both["precision"] == 9 / 10 and both["recall"] == 9 / 10 and both["f1"] == 18 / 20
    assert both["polis_px"] == 1.0 and both["polis_m"] is None
    assert both["count_error"] == 0 and both["area_error"] == -0.1
    assert both["boundary_px"] == 3


def test_metres_are_the_mean_of_pairs_that_have_them():
    one = counts(4, 4, 4, polis_px=4.0, polis_m=2.0, pairs_on_ground=4)
    measures = (one + counts(1, 1, 1, polis_px=6.0)).metrics()
    assert measures["polis_px"] == 2.0 and measures["polis_m"] == 0.5


def test_scores_are_kept_where_all_have_them():
    one = counts(1, 1, 2, scores=np.array([0.9, 0.8]), hits=np.array([False, True]))
    other = counts(1, 1, 1, scores=np.array([0.95]), hits=np.array([True]))
    both = sum([one, other], ObjectCounts())
    assert both.scores.tolist() == [0.9, 0.8, 0.95] and both.hits.tolist() == [False, True, True]
    # Sorted: hit, miss, hit of two: precision 1 up to half, 2/3 beyond.
    assert both.metrics()["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    unscored = counts(0, 0, 1, scores=None, hits=np.array([False]))
    assert (both + unscored).metrics()["ap50"] is None


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
