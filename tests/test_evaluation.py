"""Metrics of many scenes: counts first, ratios last."""

import csv
import json

import numpy as np
import pytest

from jointnet.evaluation import (
    OVERALL,
    SceneCounts,
    evaluate_scenes,
    summarise,
    table,
    write_evaluation,
)
from jointnet.metrics import Counts
from preprocessing.errors import OutputError
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


# Writing


def test_json_and_csv_hold_the_same_and_json_every_scene(tmp_path):
    folder = tmp_path / "new" / "folder"
    rows = write_evaluation(folder, RECORDS)
    assert rows == summarise(RECORDS)
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["summary"] == rows
    places = [(scene["name"], scene["place"], scene["threshold"]) for scene in content["scenes"]]
    assert places == [("a1", "a", 0.5), ("b1", "b", 0.5), ("a2", "a", 0.5)]
    assert [s["iou"] for s in content["scenes"]] == [1 / 2, 0.0, 89 / 108]
    assert [s["true_negative"] for s in content["scenes"]] == [2, 4, 92]
    with (folder / "evaluation.csv").open(newline="") as file:
        table_rows = list(csv.DictReader(file))
    assert [row["place"] for row in table_rows] == ["a", "b", OVERALL]
    assert float(table_rows[2]["iou"]) == 90 / 114
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.csv", "evaluation.json"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "evaluation.csv").mkdir()
    with pytest.raises(OutputError):
        write_evaluation(tmp_path, RECORDS)
