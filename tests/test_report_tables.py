"""The tables of a report: which rows stand where, and what a cell says."""

import numpy as np

from jointnet.evaluation import SceneCounts, describe_evaluation
from jointnet.metrics import Counts
from jointnet.report import ReportScene
from jointnet.report_page import (
    confusion_table,
    number,
    protocol_table,
    scene_table,
    summary_table,
    worst_first,
)
from preprocessing.pictures import ScenePictures

RECORDS = [
    SceneCounts("good1", "good", 0.5, Counts(8, 1, 1, 90)),
    SceneCounts("bad1", "bad", 0.5, Counts(1, 5, 4, 90)),
    SceneCounts("void1", "void", 0.5, Counts()),
]
CONTENT = describe_evaluation(RECORDS)
LAYERS = ScenePictures(10, 10, 1, False, np.zeros((0, 2)))
SCENES = [ReportScene(r.name, f"scenes/{n}", None, LAYERS) for n, r in enumerate(RECORDS, 1)]


def test_figures_have_three_decimals_or_a_dash():
    assert [number(0.49865), number(1), number(None), number(0.5, signed=True)] == [
        "0.499",
        "1.000",
        "–",
        "+0.500",
    ]


def test_the_worst_scene_comes_first_and_one_without_pixels_last():
    assert worst_first(CONTENT["scenes"]) == [1, 0, 2]
    table = scene_table(CONTENT["scenes"], SCENES)
    assert table.index("bad1") < table.index("good1") < table.index("void1")
    assert 'href="#scene-2">bad1' in table


def test_the_summary_has_the_places_and_all():
    table = summary_table(CONTENT["summary"])
    assert table.count("<tr") == 1 + 1 + 4
    assert "threshold 0.5" in table and "completeness" not in table
    pooled = 9 / (9 + 6 + 5)
    assert f">{pooled:.3f}<" in table


def test_the_confusion_matrix_adds_up():
    table = confusion_table(CONTENT["summary"][-1])
    for words in ("<b>9</b>", "<b>6</b>", "<b>5</b>", "<b>180</b>", "14 px", "186 px"):
        assert words in table
    assert "4.5% of all, 64.3% of the row" in table


def test_protocols_without_patches_show_a_dash():
    table = protocol_table(CONTENT["protocols"], CONTENT["protocol_names"])
    assert "0 patches" in table and "–" in table
