"""The page of a report as text: its sections and tables, and that its data cannot end early."""

import json
import re

import numpy as np
import pytest

from jointnet.evaluation import SceneCounts, describe_evaluation
from jointnet.metrics import Counts
from jointnet.report_page import (
    ASSETS,
    COPIED,
    Origin,
    ReportScene,
    confusion_table,
    number,
    protocol_table,
    render,
    scene_table,
    summary_table,
    worst_first,
    write_page,
)
from preprocessing.pictures import ScenePictures

NAME = "</script><script>alert(1)"
RECORDS = [
    SceneCounts(name, "x", threshold, Counts(8, 1, 1 + extra, 90))
    for name, extra in ((NAME, 0), ("b", 3))
    for threshold in (0.5, 0.6)
]
PICTURES = ScenePictures(10, 10, 1, True, np.array([[0.1, 0.2]]))
SCENES = [ReportScene(n, f"scenes/{k}", 0.3, PICTURES) for k, n in enumerate((NAME, "b"), 1)]


def origin(threshold: float) -> Origin:
    facts = [("report: command", "report.py --data <data>")]
    return Origin("a run & more", "buildings", " held back", threshold, facts)


def test_a_page_has_its_sections_and_the_figures_of_its_threshold():
    text = render(describe_evaluation(RECORDS), SCENES, origin(0.6))
    for name in ("viewer", "places", "metrics", "curves", "scenes", "origin"):
        assert text.count(f'id="{name}"') == 1 and f'href="#{name}"' in text
    assert "2 scenes held back, 0.00 Mpx with truth; counts pooled at threshold 0.6" in text
    assert "<title>a run &amp; more</title>" in text
    assert "<code>report.py --data &lt;data&gt;</code>" in text
    assert not re.search(r"\$[a-z]", text)


def test_what_cannot_be_shown_is_a_sentence():
    text = render(describe_evaluation(RECORDS), SCENES, origin(0.5))
    assert text.count("<figure><h3>") == 1 and "Mask coverage" in text
    for words in ("need probabilities", "No history", "--also objects counts objects"):
        assert words in text
    text = render(CONTENT, THREE_SCENES, origin(0.5))
    assert "<figure><h3>" not in text and "No window has a valid pixel" in text


def test_a_name_cannot_end_the_data():
    text = render(describe_evaluation(RECORDS), SCENES, origin(0.5))
    assert "<script>alert" not in text
    data = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(data)["scenes"][0]["name"] == NAME


def test_what_the_page_needs_is_copied_and_git_is_told(tmp_path):
    write_page(tmp_path, describe_evaluation(RECORDS), SCENES, origin(0.5))
    for name in COPIED:
        copied = tmp_path / "assets" / name
        assert copied.read_bytes() == (ASSETS / name).read_bytes()
        if name.endswith(".js") and "openseadragon" not in name:
            assert "import " not in copied.read_text() and "fetch(" not in copied.read_text()
    assert (tmp_path / ".gitignore").read_text().splitlines()[-1] == "*"


def test_the_colours_of_the_page_are_those_of_the_tiles():
    from preprocessing.image_operations import ERROR_COLOURS, FALSE, FOUND, MISSED
    from preprocessing.pictures import MASK_COLOURS
    from preprocessing.tiling import VOID

    style = (ASSETS / "report.css").read_text()
    names = {
        "truth": MASK_COLOURS["truth"][1],
        "prediction": MASK_COLOURS["prediction"][1],
        "found": ERROR_COLOURS[FOUND],
        "missed": ERROR_COLOURS[MISSED],
        "false": ERROR_COLOURS[FALSE],
        "void": ERROR_COLOURS[VOID],
    }
    for name, colour in names.items():
        assert f"--{name}: #{bytes(colour).hex()};" in style


def test_the_library_is_the_one_whose_licence_lies_beside():
    library = (ASSETS / "openseadragon.min.js").read_text(encoding="utf-8")
    assert library.startswith("//! openseadragon 6.")
    licence = (ASSETS / "openseadragon.LICENSE.txt").read_text()
    assert "Redistribution and use in source and binary forms" in licence


@pytest.mark.parametrize("name", COPIED)
def test_assets_are_small(name):
    assert (ASSETS / name).stat().st_size < 400_000


THREE = [
    SceneCounts("good1", "good", 0.5, Counts(8, 1, 1, 90)),
    SceneCounts("bad1", "bad", 0.5, Counts(1, 5, 4, 90)),
    SceneCounts("void1", "void", 0.5, Counts()),
]
CONTENT = describe_evaluation(THREE)
NO_PICTURES = ScenePictures(10, 10, 1, False, np.zeros((0, 2)))
THREE_SCENES = [
    ReportScene(r.name, f"scenes/{n}", None, NO_PICTURES) for n, r in enumerate(THREE, 1)
]


def test_figures_have_three_decimals_or_a_dash():
    assert [number(0.49865), number(1), number(None), number(0.5, signed=True)] == [
        "0.499",
        "1.000",
        "–",
        "+0.500",
    ]


def test_the_worst_scene_comes_first_and_one_without_pixels_last():
    assert worst_first(CONTENT["scenes"]) == [1, 0, 2]
    table = scene_table(CONTENT["scenes"], THREE_SCENES)
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
