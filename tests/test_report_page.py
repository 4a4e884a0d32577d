"""The page of a report as text: its sections, and that its data cannot end early."""

import json
import re

import numpy as np
import pytest

from jointnet.evaluation import SceneCounts, describe_evaluation
from jointnet.metrics import Counts
from jointnet.report import Origin, ReportScene
from jointnet.report_page import ASSETS, COPIED, render, write_page
from preprocessing.pictures import ScenePictures

NAME = "</script><script>alert(1)"
RECORDS = [
    SceneCounts(name, "x", threshold, Counts(8, 1, 1 + extra, 90))
    for name, extra in ((NAME, 0), ("b", 3))
    for threshold in (0.5, 0.6)
]
LAYERS = ScenePictures(10, 10, 1, True, np.array([[0.1, 0.2]]))
SCENES = [ReportScene(n, f"scenes/{k}", 0.3, LAYERS) for k, n in enumerate((NAME, "b"), 1)]


def origin(threshold: float) -> Origin:
    facts = [("report: command", "report.py --data <data>")]
    return Origin("a run & more", "buildings", " held back", threshold, facts)


def test_a_page_has_its_sections_and_the_figures_of_its_threshold():
    text = render(describe_evaluation(RECORDS), SCENES, origin(0.6))
    for name in ("viewer", "places", "figures", "curves", "scenes", "origin"):
        assert text.count(f'id="{name}"') == 1 and f'href="#{name}"' in text
    assert "2 scenes held back, 0.00 Mpx with truth; counts pooled at threshold 0.6" in text
    assert "<title>a run &amp; more</title>" in text
    assert "<code>report.py --data &lt;data&gt;</code>" in text
    assert not re.search(r"\$[a-z]", text)


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
