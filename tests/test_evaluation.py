"""Metrics of many scenes: counts first, ratios last."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from jointnet.evaluation import (
    OVERALL,
    PROTOCOLS,
    LabelledImage,
    SceneCounts,
    describe_evaluation,
    evaluate_scenes,
    evaluation_text,
    object_rows,
    object_text,
    protocol_rows,
    protocol_text,
    summarise,
    summary_text,
    text_table,
    write_evaluation,
)
from jointnet.metrics import Counts, PatchCounts, RelaxedCounts, count, threshold_mask
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.errors import OutputError
from preprocessing.objects import ObjectCounts
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
    lines = summary_text(rows).splitlines()
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
    lines = summary_text(summarise([record])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "san_francisco_bay" in lines[1]


def test_words_to_the_left_and_numbers_to_the_right():
    rows = [["a", "x"], ["long", 0.5], ["b", None], ["c", 1000]]
    assert text_table(rows) == "a         x\nlong  0.500\nb         -\nc     1,000"


def test_columns_that_do_not_fit_go_on_below_with_their_words():
    rows = [["", "one", "two"], ["a", "1", "2"]]
    assert text_table(rows, width=7) == "   one\na    1\n\n   two\na    2"
    # One that never fits stands alone.
    assert text_table(rows, width=1) == text_table(rows, width=7)


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
    *lines, note = summary_text(summarise(RELAXED)).splitlines()
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


def test_json_and_csv_hold_the_same_and_json_every_scene(tmp_path):
    folder = tmp_path / "new" / "folder"
    written = write_evaluation(folder, RECORDS)
    content = json.loads((folder / "evaluation.json").read_text())
    assert content == written == describe_evaluation(RECORDS)
    assert content["summary"] == summarise(RECORDS)
    places = [(scene["name"], scene["place"], scene["threshold"]) for scene in content["scenes"]]
    assert places == [("a1", "a", 0.5), ("b1", "b", 0.5), ("a2", "a", 0.5)]
    assert [s["iou"] for s in content["scenes"]] == [1 / 2, 0.0, 89 / 108]
    assert [s["true_negative"] for s in content["scenes"]] == [2, 4, 92]
    with (folder / "evaluation.csv").open(newline="") as file:
        table_rows = list(csv.DictReader(file))
    assert [(row["protocol"], row["place"]) for row in table_rows] == [
        (protocol, place) for protocol in PROTOCOLS for place in ("a", "b", OVERALL)
    ]
    assert float(table_rows[2]["iou"]) == 90 / 114 and table_rows[2]["true_positive"] == "90"
    assert float(table_rows[5]["iou"]) == pytest.approx((1 / 2 + 0 + 89 / 108) / 3)
    assert (table_rows[5]["units"], table_rows[5]["true_positive"]) == ("3", "")
    # Of these records no patches were cut.
    assert (table_rows[8]["units"], table_rows[8]["iou"]) == ("0", "")
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.csv", "evaluation.json"]


def test_relaxed_measures_and_polygons_are_written(tmp_path):
    polygons = {"read": 4, "repaired": 0, "dropped": 1, "outside": 0, "partly": 2}
    records = [*RELAXED[:2], replace(RELAXED[2], polygons=polygons)]
    write_evaluation(tmp_path, records)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["summary"] == summarise(RELAXED)
    assert [scene["correctness"] for scene in content["scenes"]] == [1, 0, 23 / 98]
    assert [scene.get("polygons") for scene in content["scenes"]] == [None, None, polygons]
    assert "polygons" not in content["scenes"][0]
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        assert float(list(csv.DictReader(file))[2]["completeness"]) == 51 / 104


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "evaluation.csv").mkdir()
    with pytest.raises(OutputError):
        write_evaluation(tmp_path, RECORDS)


def full() -> tuple[list[SceneCounts], ProbabilityHistogram]:
    """Records with everything in them, at two thresholds, and probabilities."""
    patches, objects = PatchCounts(1, 2, Counts(3, 1, 0, 0)), ObjectCounts(1, 1, 2, boundary_px=3)
    records = [
        SceneCounts("a1", "a", t, Counts(1, 1, 0, 2), patches=patches, objects=objects)
        for t in (0.5, 0.6)
    ]
    histogram = ProbabilityHistogram()
    histogram.add(np.array([1, 0, 0, 0]), np.array([0.9, 0.7, 0.1, 0.2]))
    return records, histogram


def test_everything_that_was_counted_is_described(tmp_path):
    records, histogram = full()
    content = write_evaluation(tmp_path, records, histogram)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == content
    assert list(content) == [
        *("summary", "protocol_names", "protocols", "objects", "thresholds", "scenes")
    ]
    assert content["protocol_names"] == PROTOCOLS
    # Both thresholds have the false one of 0.7.
    assert [c["iou_lost"] for c in content["thresholds"]["cost"]] == [0.5, 0.5]
    assert content["objects"][1]["f1"] == 2 / 3
    scene = content["scenes"][0]
    assert scene["patches"]["kept"] == 1 and scene["patches"]["true_positive"] == 3
    assert scene["objects"]["precision"] == 1 / 2


def test_the_text_begins_with_the_pooled_table_and_has_no_more_than_there_is():
    records, histogram = full()
    for content, parts in (
        (describe_evaluation(RECORDS), 2),
        (describe_evaluation(records[:1]), 3),
        (describe_evaluation(records, histogram), 4),
    ):
        text = evaluation_text(content).split("\n\n")
        assert text[0] == summary_text(content["summary"])
        assert len(text) == parts
    assert "best threshold" in text[2] and "0.6 costs 0.500" in text[2]
    assert "PoLiS" in text[3]


def test_an_aligned_prediction_is_said_in_its_scene():
    (record,) = full()[0][:1]
    content = describe_evaluation([replace(record, aligned="moved")])
    assert content["scenes"][0]["aligned"] == "moved"
    assert "aligned" not in describe_evaluation([record])["scenes"][0]


def record(name, place, threshold, *counts, **others) -> SceneCounts:
    hits = np.arange(counts[2]) < counts[0]
    objects = ObjectCounts(*counts, boundary_px=3, hits=hits, **others)
    return SceneCounts(name, place, threshold, Counts(), objects=objects)


OBJECT_RECORDS = [
    record("a1", "a", 0.5, 1, 2, 4, scores=np.linspace(0.9, 0.6, 4), polis_px=0.5),
    record("b1", "b", 0.5, 0, 2, 0),
    record("a1", "a", 0.6, 1, 2, 1, scores=np.array([0.9]), polis_px=0.5),
    record("b1", "b", 0.6, 0, 2, 0),
]


def test_rows_hold_places_and_overall_of_every_threshold():
    rows = object_rows(OBJECT_RECORDS)
    assert [(row["threshold"], row["place"], row["scenes"]) for row in rows] == [
        *((0.5, "a", 1), (0.5, "b", 1), (0.5, "overall", 2)),
        *((0.6, "a", 1), (0.6, "b", 1), (0.6, "overall", 2)),
    ]
    assert [row["precision"] for row in rows[:3]] == [1 / 4, 0, 1 / 4]
    assert rows[2]["recall"] == 1 / 4 and rows[2]["f1"] == 2 / 8
    assert rows[5]["precision"] == 1 and rows[5]["count_error"] == -3 / 4


def test_the_table_says_what_objects_and_boundaries_are():
    lines = object_text(object_rows(OBJECT_RECORDS)).splitlines()
    assert len(lines) == 8 and len({len(line) for line in lines[:-1]}) == 1
    assert lines[1].split()[:7] == ["0.5", "a", "2", "4", "0.250", "0.500", "0.333"]
    # No pair to take PoLiS of, no raster on the ground, all missed.
    assert lines[2].split()[-4:] == ["-", "-", "-1.000", "+0.000"]
    assert "IoU of 0.5" in lines[-1] and "boundaries 3 px wide" in lines[-1]


# A dense scene, a nearly empty one and one of another city without any building.
PROTOCOL_RECORDS = [
    SceneCounts("a1", "a", None, Counts(80, 10, 10, 0), patches=PatchCounts(2, 4, Counts(3, 1, 0))),
    SceneCounts("a2", "a", None, Counts(1, 1, 2, 96), patches=PatchCounts(0, 4, Counts())),
    SceneCounts("b1", "b", None, Counts(0, 0, 0, 100), patches=PatchCounts(0, 4, Counts())),
]


def row_of(rows, protocol, place=OVERALL) -> dict:
    (row,) = [row for row in rows if (row["protocol"], row["place"]) == (protocol, place)]
    return row


def test_every_protocol_has_its_own_figure_by_hand():
    rows = protocol_rows(PROTOCOL_RECORDS)
    assert row_of(rows, "pooled")["iou"] == 81 / 104
    assert row_of(rows, "pooled")["accuracy"] == 277 / 300
    assert row_of(rows, "mean")["iou"] == pytest.approx((0.8 + 0.25 + 1) / 3)
    assert row_of(rows, "mean")["accuracy"] == pytest.approx((0.8 + 0.97 + 1) / 3)
    assert row_of(rows, "patches")["iou"] == 3 / 4
    assert [row_of(rows, p)["units"] for p in PROTOCOLS] == [3, 3, 2]
    assert row_of(rows, "mean", "a")["iou"] == pytest.approx((0.8 + 0.25) / 2)
    assert row_of(rows, "pooled", "b")["iou"] == 1.0


def test_the_pooled_rows_are_those_of_the_summary():
    pooled = [row for row in protocol_rows(PROTOCOL_RECORDS) if row["protocol"] == "pooled"]
    for row, summary in zip(pooled, summarise(PROTOCOL_RECORDS), strict=True):
        assert all(row[name] == summary[name] for name in ("place", "iou", "f1", "accuracy"))


def test_nothing_that_enters_is_no_figure():
    rows = protocol_rows([*PROTOCOL_RECORDS[2:], SceneCounts("c1", "c", None, Counts())])
    assert row_of(rows, "patches")["iou"] is None and row_of(rows, "patches")["units"] == 0
    for protocol in PROTOCOLS:
        assert row_of(rows, protocol, "c")["iou"] is None
    # A scene that is all void is no scene that was predicted right.
    assert row_of(rows, "mean")["units"] == 1
    lines = protocol_text(rows).splitlines()
    assert lines[3].split()[-2:] == ["-", "-"]


def test_the_table_names_every_protocol_per_threshold():
    records = [
        SceneCounts(r.name, r.place, 0.6, r.counts, patches=r.patches) for r in PROTOCOL_RECORDS
    ]
    lines = protocol_text(protocol_rows([*records, *PROTOCOL_RECORDS])).splitlines()
    assert len(lines) == 7 and len({len(line) for line in lines}) == 1
    for line, words in zip(lines[4:], PROTOCOLS.values(), strict=True):
        assert line.split()[0] == "0.6" and words in line
    assert lines[4].split()[-4:] == ["3", "scenes", "0.779", "0.923"]
    assert lines[6].split()[-4:] == ["2", "patches", "0.750", "0.750"]


@pytest.mark.parametrize("seed", range(3))
def test_pooled_is_what_scikit_learn_says_of_all_pixels_together(seed):
    random = np.random.default_rng(seed)
    pairs = [
        random.choice([0, 1, 255], (2, *random.integers(1, 60, 2)), p=[0.8, 0.15, 0.05])
        for _ in range(5)
    ]
    # One city without buildings.
    pairs.append(np.zeros((2, 20, 20), np.int64))
    records = [
        SceneCounts(f"s{n}", f"city{n % 2}", None, count(*pair.astype(np.uint8)))
        for n, pair in enumerate(pairs)
    ]
    rows = protocol_rows(records)
    for place, members in ((OVERALL, pairs), ("city0", pairs[::2]), ("city1", pairs[1::2])):
        truth, found = (np.concatenate([pair[side].ravel() for pair in members]) for side in (0, 1))
        valid = (truth != 255) & (found != 255)
        row = row_of(rows, "pooled", place)
        assert row["iou"] == jaccard_score(truth[valid], found[valid])
        assert row["accuracy"] == accuracy_score(truth[valid], found[valid])
