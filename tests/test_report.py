"""The report command: the page's figures, what it says of its origin, and what is refused."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from experiments import evaluate, recipes, report
from experiments.report import main
from jointnet.evaluation import OVERALL
from preprocessing.errors import RasterError
from preprocessing.output_files import hash_file, write_json
from preprocessing.scenes import Scene
from tests.helpers import blotches, error, make_run, write_image

LAYERS = {"image", "truth", "prediction", "errors"}


def make(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def masks(folder: Path, *names: str, shape: tuple[int, int] = (30, 40)) -> tuple[Path, Path, Path]:
    """Predictions, labels and images of so many scenes, each a little worse than the last."""
    for kind in ("found", "labels", "images"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        truth = np.zeros((*shape, 1), np.uint8)
        truth[5:20, 5:25] = 255
        write_image(folder / "labels" / f"{name}.tif", truth)
        write_image(folder / "found" / f"{name}_output.tif", np.roll(truth, 2 * number, 1))
        write_image(folder / "images" / f"{name}.tif", blotches(*shape, seed=number))
    return folder / "found", folder / "labels", folder / "images"


class Page(HTMLParser):
    """What a page refers to, which tags are open, and its words."""

    EMPTY = frozenset(
        ["meta", "link", "img", "input", "line", "circle", "polyline", "rect", "path"]
    )

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.ids, self.open, self.words = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.open += [] if tag in self.EMPTY else [tag]

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def scenes_of(folder: Path) -> list[dict]:
    text = re.search(r'id="report-data">(.*?)</script>', page(folder), re.DOTALL)[1]
    return json.loads(text)["scenes"]


def check(folder: Path) -> None:
    """What holds of every report."""
    parsed = Page(page(folder))
    assert parsed.open == ["!doctype"] or parsed.open == []
    for link in parsed.links:
        if link.startswith("#"):
            assert link[1:] in parsed.ids or re.fullmatch(r"#scene-\d+", link)
        elif not link.startswith("data:"):
            assert (folder / link).is_file(), link
    text = page(folder)
    for word in ("http:", "https:", "//", str(Path.home()), os.getcwd(), str(folder.parent)):
        assert word not in text, word
    assert 'type="module"' not in text and "NaN" not in text
    assert "*" in (folder / ".gitignore").read_text().splitlines()
    for scene in scenes_of(folder):
        there = {path.name for path in (folder / scene["folder"]).iterdir() if path.is_dir()}
        assert there == (LAYERS if scene["imagery"] else LAYERS - {"image"})
        assert len(list((folder / scene["folder"] / "errors").iterdir())) == scene["levels"]


def test_figures_on_the_page_are_those_of_the_evaluation(tmp_path):
    found, labels, images = masks(tmp_path, "austin1", "austin2", "vienna1")
    out = tmp_path / "out"
    result = make(
        *("--predictions", found, "--labels", labels, "--images", images),
        *("--also", "objects", "--output", out),
    )
    assert result.exit_code == 0, result.output
    assert f"3 scenes in 0 s: open {out / 'index.html'}" in re.sub(r"\d+ s:", "0 s:", result.stdout)
    check(out)
    content = json.loads((out / "evaluation.json").read_text())
    words = " ".join(Page(page(out)).words)
    for row in (*content["summary"], *content["scenes"]):
        for name in ("iou", "f1", "precision", "recall"):
            assert f"{row[name]:.3f}" in words
    overall = content["summary"][-1]
    assert overall["place"] == OVERALL and f"{overall['true_positive']:,}" in words
    assert f"{content['objects'][-1]['boundary_iou']:.3f}" in words
    scenes = scenes_of(out)
    assert [scene["name"] for scene in scenes] == ["austin1", "austin2", "vienna1"]
    assert [scene["iou"] for scene in scenes] == [row["iou"] for row in content["scenes"]]
    assert scenes[0]["gsd"] == pytest.approx(0.3, rel=0.01) and scenes[0]["iou"] == 1
    # The worst is named first.
    assert re.search(r"Most wrong pixels: <a [^>]*>vienna1</a>", page(out))
    assert "need probabilities" in words and "not known" in words


def test_masks_alone_make_a_report_without_imagery(tmp_path):
    found, labels, _ = masks(tmp_path, "a")
    result = make("--predictions", found, "--labels", labels)
    assert result.exit_code == 0, result.output
    check(found / "report")
    assert scenes_of(found / "report")[0]["imagery"] is False


def test_names_are_escaped(tmp_path):
    name = "<i>&\"'<!--"
    found, labels, images = masks(tmp_path, name)
    arguments = ("--predictions", found, "--labels", labels, "--images", images)
    assert make(*arguments, "--output", tmp_path / "out").exit_code == 0
    assert scenes_of(tmp_path / "out")[0]["name"] == name
    text = page(tmp_path / "out")
    assert "<i>&" not in text and text.count("<!--") == 0
    assert name in Page(text).words


@pytest.mark.parametrize("truth", [0, 255])
@pytest.mark.parametrize("prediction", [0, 255])
def test_nothing_or_everything_is_a_scene_too(tmp_path, truth, prediction):
    for kind, value in (("found", prediction), ("labels", truth)):
        (tmp_path / kind).mkdir()
        write_image(tmp_path / kind / "a.tif", np.full((9, 9, 1), value, np.uint8))
    arguments = ("--predictions", tmp_path / "found", "--labels", tmp_path / "labels")
    assert make(*arguments, "--output", tmp_path / "out").exit_code == 0
    check(tmp_path / "out")
    assert scenes_of(tmp_path / "out")[0]["iou"] == float(truth == prediction)


def test_void_alone_is_said(tmp_path):
    found, labels, _ = masks(tmp_path, "a", "b")
    write_image(labels / "a.tif", np.full((30, 40, 1), 9, np.uint8), nodata=9)
    assert make("--predictions", found, "--labels", labels).exit_code == 0
    assert [scene["empty"] for scene in scenes_of(found / "report")] == [True, False]
    write_image(labels / "b.tif", np.full((30, 40, 1), 9, np.uint8), nodata=9)
    assert make("--predictions", found, "--labels", labels, "--overwrite").exit_code == 0
    check(found / "report")
    assert "Nothing is valid" in page(found / "report")


def test_an_older_report_is_replaced_only_when_told_and_nothing_else_ever(tmp_path):
    found, labels, _ = masks(tmp_path, "a")
    arguments = ("--predictions", found, "--labels", labels, "--output")
    out = tmp_path / "out"
    assert make(*arguments, out).exit_code == 0
    (out / "mine.txt").write_text("old")
    assert "--overwrite" in error(make(*arguments, out))
    assert make(*arguments, out, "--overwrite").exit_code == 0
    assert not (out / "mine.txt").exists()
    assert "holds other things" in error(make(*arguments, labels, "--overwrite"))
    assert list(labels.iterdir()) == [labels / "a.tif"]


def test_what_is_wrong_is_one_line_and_nothing_is_written(tmp_path, monkeypatch):
    found, labels, images = masks(tmp_path, "a", "b")
    write_image(images / "b.tif", blotches(30, 41))
    pair = ("--predictions", found, "--labels", labels)
    for arguments, expected in (
        ((*pair, "--images", images), "has 41 x 30 pixels, its mask 40 x 30"),
        ((*pair, "--images", found), "has no image of 2 mask(s): a, b"),
        ((*pair, "--images", tmp_path / "none"), "is not a folder"),
        (("--images", images), "--images is for --predictions"),
        (("--predictions", found), "--predictions and --labels go together"),
        ((*pair, "--output", images / "a.tif"), "is a file"),
    ):
        assert expected in error(make(*arguments))
    assert not list(tmp_path.rglob("index.html")) and not list(found.glob(".*"))

    def fail(*_: object) -> None:
        raise RasterError("stopped")

    monkeypatch.setattr(report, "write_page", fail)
    assert "stopped" in error(make(*pair))
    assert sorted(path.name for path in found.iterdir()) == ["a_output.tif", "b_output.tif"]


class Tiny:
    """A recipe of two scenes in the layout of ``masks``."""

    def scenes(self, data: Path, validation: object) -> list[Scene]:
        return [
            Scene(
                name=name,
                place=name[:-1],
                index=1,
                split="validation",
                image=data / "images" / f"{name}.tif",
                label=data / "labels" / f"{name}.tif",
                label_kind="raster",
            )
            for name in ("ashby1", "borth1")
        ]


@pytest.fixture
def run(tmp_path, monkeypatch, eager) -> Path:
    """A run folder as training leaves it, though its network is as it was initialised."""
    masks(tmp_path, "ashby1", "borth1")
    monkeypatch.setitem(recipes.RECIPES, "tiny", Tiny)
    folder = make_run(tmp_path / "run", recipe={"name": "tiny"})
    held_back = [
        {
            "name": scene.name,
            "split": scene.split,
            "image_sha256": hash_file(scene.image),
            "label_sha256": hash_file(scene.label),
        }
        for scene in Tiny().scenes(tmp_path, None)
    ]
    write_json(folder / "data.json", {"scenes": held_back, "manifest_sha256": "ab12"})
    write_json(folder / "metrics.json", {"best_epoch": {"epoch": 2}, "epochs": 2})
    (folder / "history.csv").write_text("epoch,loss,validation_iou\n1,0.9,0.1\n2,0.8,0.2\n")
    return folder


def test_a_run_gets_the_figures_of_evaluate_and_says_how_it_was_made(run):
    arguments = ("--model", run, "--data", run.parent)
    result = make(*arguments)
    assert result.exit_code == 0, result.output
    out = run / "report"
    check(out)
    done = CliRunner().invoke(evaluate.main, [*map(str, arguments), "--threshold", "0.5"])
    assert done.exit_code == 0, done.output
    content = json.loads((run / "evaluation.json").read_text())
    assert json.loads((out / "evaluation.json").read_text()) == content
    words = " ".join(Page(page(out)).words)
    # The run's own threshold is among those that were counted.
    (overall,) = [r for r in content["summary"] if (r["threshold"], r["place"]) == (0.5, OVERALL)]
    assert "2 scenes held back from training" in words
    assert "counts pooled at threshold 0.5" in words
    assert f"<dd>{overall['iou']:.3f}</dd>" in page(out)
    assert f"{content['thresholds']['calibration']['ece']:.3f}" in words
    for known in ("SHA-256", "kept: 2", "Training: loss", "Reliability", "manifest SHA-256 ab12"):
        assert known in words
    assert [scene["name"] for scene in scenes_of(out)] == ["ashby1", "borth1"]


def test_the_layers_show_the_threshold_of_the_run(run):
    config = json.loads((run / "config.json").read_text())
    write_json(run / "config.json", config | {"threshold": 0.0})
    assert make("--model", run, "--data", run.parent).exit_code == 0
    content = json.loads((run / "report" / "evaluation.json").read_text())
    assert {row["threshold"] for row in content["summary"]} == {0.0, 0.5}
    # From a probability of 0 on, all is target.
    assert all(scene["recall"] == 1 for scene in scenes_of(run / "report"))
    tile = run / "report" / "scenes" / "1" / "prediction" / "0" / "0_0.png"
    assert (cv2.imread(str(tile), cv2.IMREAD_UNCHANGED)[..., 3] == 255).all()
    assert "threshold 0." in page(run / "report")
