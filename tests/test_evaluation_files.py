"""What an evaluation leaves on disk, and what is printed of it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from jointnet.evaluation import (
    OVERALL,
    PROTOCOLS,
    SceneCounts,
    describe_evaluation,
    evaluation_text,
    summarise,
    table,
    write_evaluation,
)
from jointnet.metrics import Counts, PatchCounts
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.errors import OutputError
from preprocessing.objects import ObjectCounts
from tests.test_evaluation import RECORDS, RELAXED


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
        assert text[0] == table(content["summary"])
        assert len(text) == parts
    assert "best threshold" in text[2] and "0.6 costs 0.500" in text[2]
    assert "PoLiS" in text[3]


def test_an_aligned_prediction_is_said_in_its_scene():
    (record,) = full()[0][:1]
    content = describe_evaluation([replace(record, aligned="moved")])
    assert content["scenes"][0]["aligned"] == "moved"
    assert "aligned" not in describe_evaluation([record])["scenes"][0]
