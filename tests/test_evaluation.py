"""Metrics of many scenes: counts first, ratios last."""

import numpy as np
import pytest

from jointnet.evaluation import (
    OVERALL,
    LabelledImage,
    SceneCounts,
    evaluate_scenes,
    summarise,
    table,
)
from jointnet.metrics import Counts, RelaxedCounts, count, threshold_mask
from tests.helpers import StandIn

# Two scenes of one place of very different sizes, and one of another place.
RECORDS = [
    SceneCounts("a1", "a", 0.5, Counts(1, 1, 0, 2)),
    SceneCounts("b1", "b", 0.5, Counts(0, 0, 4, 4)),
    SceneCounts("a2", "a", 0.5, Counts(89, 9, 10, 92)),
]


def test_counts_are_added_per_place_and_overall_and_divided_once():
    first, second, overall = summarise(RECORDS)
    assert (first["place"], second["place"], overall["place"]) == ("a", "b", OVERALL)
    assert first["iou"] == 90 / 110
    # The mean over the tiles, 0.66, is another number.
    assert first["iou"] != pytest.approx((1 / 2 + 89 / 108) / 2, abs=0.01)
    assert second["iou"] == 0.0
    assert overall["iou"] == 90 / 114
    assert overall["accuracy"] == (90 + 98) / 212
    assert overall["precision"] == 90 / 100
    assert overall["recall"] == 90 / 104
    assert overall["f1"] == 180 / 204
    counts = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert [overall[name] for name in counts] == [90, 10, 14, 98]
    assert [row["scenes"] for row in (first, second, overall)] == [2, 1, 3]
    assert [row["pixels"] for row in (first, second, overall)] == [204, 8, 212]


def test_thresholds_are_kept_apart():
    stricter = [SceneCounts(r.name, r.place, 0.6, Counts(1, 0, 0, 0)) for r in RECORDS]
    rows = summarise([*stricter, *RECORDS])
    assert [(row["threshold"], row["place"]) for row in rows] == [
        (threshold, place) for threshold in (0.5, 0.6) for place in ("a", "b", OVERALL)
    ]
    assert rows[:3] == summarise(RECORDS)
    assert rows[5]["iou"] == 1.0 and rows[5]["pixels"] == 3


def test_places_without_target_are_defined():
    (empty, _) = summarise([SceneCounts("a1", "a", None, Counts(0, 0, 0, 9))])
    assert (empty["iou"], empty["f1"], empty["precision"], empty["recall"]) == (1, 1, 1, 1)
    (void, _) = summarise([SceneCounts("a1", "a", None, Counts())])
    assert (void["pixels"], void["accuracy"], void["iou"]) == (0, 1.0, 1.0)


def test_the_table_has_a_row_each_with_three_decimals():
    rows = [*summarise(RECORDS), *summarise([SceneCounts("c", "c", None, Counts(1, 0, 0, 10**6))])]
    lines = table(rows).splitlines()
    assert lines[0].split() == [
        *("threshold", "place", "scenes", "pixels"),
        *("iou", "f1", "precision", "recall", "accuracy"),
    ]
    assert lines[3].split() == [
        *("0.5", "overall", "3", "212"),
        *("0.789", "0.882", "0.900", "0.865", "0.887"),
    ]
    assert lines[4].split()[:4] == ["-", "c", "1", "1,000,001"]
    assert len({len(line) for line in lines}) == 1


def test_the_table_makes_room_for_long_places():
    record = SceneCounts("x", "san_francisco_bay", None, Counts(1, 1, 1, 1))
    lines = table(summarise([record])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "san_francisco_bay" in lines[1]


# Relaxed measures

RELAXED = [
    SceneCounts("a1", "a", 0.5, Counts(1, 1, 0, 2), RelaxedCounts(1, 1, 2, 2), 3),
    SceneCounts("b1", "b", 0.5, Counts(0, 0, 4, 4), RelaxedCounts(0, 4, 0, 0), 3),
    SceneCounts("a2", "a", 0.5, Counts(89, 9, 10, 92), RelaxedCounts(50, 99, 23, 98), 3),
]


def test_relaxed_counts_are_added_and_divided_once_like_the_others():
    first, second, overall = summarise(RELAXED)
    assert first["completeness"] == 51 / 100 and first["correctness"] == 25 / 100
    assert first["quality"] == pytest.approx(51 * 25 / (51 * 100 + 25 * 100 - 51 * 25))
    assert second["completeness"] == second["correctness"] == second["quality"] == 0
    assert overall["completeness"] == 51 / 104 and overall["correctness"] == 25 / 100
    names = ("true_found", "true_total", "predicted_right", "predicted_total")
    assert [overall[name] for name in names] == [51, 104, 25, 100]
    assert overall["relaxed_buffer_px"] == 3


def test_relaxed_columns_come_after_the_others_and_only_where_they_were_counted():
    strict, relaxed = summarise(RECORDS), summarise(RELAXED)
    for one, other in zip(strict, relaxed, strict=True):
        assert list(one.items()) == list(other.items())[: len(one)]
    assert list(relaxed[0])[len(strict[0]) :] == [
        *("relaxed_buffer_px", "completeness", "correctness", "quality"),
        *("true_found", "true_total", "predicted_right", "predicted_total"),
    ]


def test_the_table_shows_relaxed_measures_and_says_their_buffer():
    *lines, note = table(summarise(RELAXED)).splitlines()
    assert lines[0].split()[-3:] == ["completeness", "correctness", "quality"]
    assert lines[3].split()[-4:] == ["0.887", "0.490", "0.250", "0.198"]
    assert len({len(line) for line in lines}) == 1
    assert note == "completeness, correctness and quality: within 3 px"


def test_counts_of_different_buffers_are_not_added():
    other = SceneCounts("c1", "c", 0.5, Counts(), RelaxedCounts(), 5)
    for records in ([*RELAXED, other], [*RELAXED, *RECORDS]):
        with pytest.raises(ValueError, match="must have one relaxed buffer; got"):
            summarise(records)


# Predicting


def scenes():
    """A scene whose left half is bright, with void; and one that is all void."""
    image = np.zeros((20, 24, 3), np.uint8)
    image[:, :12] = 255
    mask = (image[..., 0] > 0).astype(np.uint8)
    mask[:5] = 0
    mask[15:] = 255
    yield "a1", "a", image, mask
    yield "b1", "b", image, np.full((20, 24), 255, np.uint8)


def test_scenes_are_predicted_and_counted_without_their_void():
    records = evaluate_scenes(StandIn().predict_on_batch, scenes(), 16, 4, (0.5, 0.9))
    assert [(r.name, r.place, r.threshold) for r in records] == [
        ("a1", "a", 0.5),
        ("a1", "a", 0.9),
        ("b1", "b", 0.5),
        ("b1", "b", 0.9),
    ]
    # Ten rows of twelve are found, five rows of twelve falsely; the rest is background.
    assert records[0].counts == Counts(120, 60, 0, 180)
    assert records[2].counts == Counts()


def test_a_higher_threshold_finds_less():
    image = np.full((16, 16, 3), 130, np.uint8)
    whole = [("a", "a", image, np.ones((16, 16), np.uint8))]
    found = evaluate_scenes(StandIn().predict_on_batch, whole, 16, 4, (0.1, 0.999))
    assert found[0].counts.true_positive > found[1].counts.true_positive
    assert found[0].counts.pixels == found[1].counts.pixels == 256


def test_all_void_has_no_relaxed_counts_either():
    records = evaluate_scenes(StandIn().predict_on_batch, scenes(), 16, 4, (0.5,), 3)
    assert [record.relaxed_buffer_px for record in records] == [3, 3]
    assert records[1].relaxed == RelaxedCounts()
    # The label ends with row 14; what is predicted below it is void, too.
    strict = evaluate_scenes(StandIn().predict_on_batch, scenes(), 16, 4, (0.5,))
    assert [record.counts for record in records] == [record.counts for record in strict]
    # Three of the five rows above the target lie within 3 px of it.
    assert records[0].relaxed == RelaxedCounts(120, 120, 156, 180)


def test_what_the_label_draws_without_imagery_matches_but_does_not_count():
    """A bright road beside the border of the imagery; the label draws it 3 px further on."""
    image, label = np.full((16, 24, 3), 20, np.uint8), np.zeros((16, 24), np.uint8)
    image[:, 9:12], label[:, 12:15] = 255, 1
    valid = np.broadcast_to(np.arange(24) < 12, (16, 24))
    predict = StandIn().predict_on_batch
    apart = evaluate_scenes(
        predict, [LabelledImage("a", "a", image, label, valid)], 16, 4, (0.5,), 3
    )
    mask = np.where(valid, label, 255).astype(np.uint8)
    merged = evaluate_scenes(predict, [("a", "a", image, mask)], 16, 4, (0.5,), 3)
    assert apart[0].counts == merged[0].counts == Counts(0, 48, 0, 144)
    assert apart[0].relaxed == RelaxedCounts(0, 0, 48, 48)
    assert merged[0].relaxed == RelaxedCounts(0, 0, 0, 48)


def test_the_void_of_a_label_is_predicted_where_there_is_imagery():
    """A prediction there finds a road beside it, as one in a finished mask does."""
    image, label = np.full((16, 24, 3), 20, np.uint8), np.zeros((16, 24), np.uint8)
    image[:, 12:15], label[:, 10] = 255, 1
    label[:, 11:] = 255
    scene = LabelledImage("a", "a", image, label, np.ones((16, 24), bool))
    (record,) = evaluate_scenes(StandIn().predict_on_batch, [scene], 16, 4, (0.5,), 3)
    assert record.counts == Counts(0, 0, 16, 160)
    assert record.relaxed == RelaxedCounts(16, 16, 0, 0)


def test_who_watches_sees_every_scene_once_with_what_was_counted():
    seen = []
    predict = StandIn().predict_on_batch
    records = evaluate_scenes(predict, scenes(), 16, 4, (0.5, 0.9), watch=lambda *a: seen.append(a))
    assert [scene.name for scene, _ in seen] == ["a1", "b1"]
    for number, (scene, probabilities) in enumerate(seen):
        for record, threshold in zip(records[2 * number :], (0.5, 0.9), strict=False):
            assert record.counts == count(scene.label, threshold_mask(probabilities, threshold))
