"""Reports: the page's metrics, its scenes, what it says of its origin, and what is refused."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from experiments import evaluate, recipes
from experiments.report import main
from jointnet import report
from jointnet.evaluation import OVERALL, LabelledImage
from jointnet.mask_evaluation import mask_scenes
from jointnet.report import (
    SceneWriter,
    images_of,
    mask_origin,
    mask_strips,
    predicted_strips,
    read_history,
    run_origin,
)
from jointnet.runs import WEIGHTS, Run
from preprocessing.errors import DatasetError, RasterError
from preprocessing.output_files import hash_file, write_json
from preprocessing.pictures import TILE
from preprocessing.raster_access import raster_info
from preprocessing.scenes import Scene
from tests.helpers import CONFIG, blotches, error, make_run, write_image

PICTURES = {"image", "truth", "prediction", "errors"}


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
        assert there == (PICTURES if scene["imagery"] else PICTURES - {"image"})
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


def test_probabilities_beside_the_masks_give_curves(tmp_path):
    found, labels, _ = masks(tmp_path, "a", "b")
    for name in "ab":
        probable = np.full((30, 40, 1), 0.25, np.float32)
        probable[5:20, 5:25] = 0.75
        write_image(found / f"{name}_probabilities.tif", probable)
    assert make("--predictions", found, "--labels", labels).exit_code == 0
    check(found / "report")
    text = page(found / "report")
    assert "Over the threshold" in text and "Reliability" in text
    assert "need probabilities" not in text and "finished masks" in text


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
    assert "All is void" in page(found / "report")


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


def test_the_pictures_show_the_threshold_of_the_run(run):
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


def joined(strips) -> list[np.ndarray | None]:
    parts = list(zip(*strips(), strict=True))
    return [None if part[0] is None else np.concatenate(part) for part in parts]


@pytest.fixture
def folders(tmp_path):
    shape = (TILE + 9, 20)
    random = np.random.default_rng(0)
    for kind in ("found", "labels"):
        (tmp_path / kind).mkdir()
        mask = random.integers(0, 2, (*shape, 1), np.uint8) * 255
        write_image(tmp_path / kind / "a1.tif", mask)
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a1.tif", blotches(*shape))
    return tmp_path


def test_files_come_in_strips_as_they_are(folders):
    (scene,) = mask_scenes(folders / "found", folders / "labels")
    image = folders / "images" / "a1.tif"
    strips = mask_strips(scene, False, image)
    assert [len(truth) for _, truth, _ in strips()] == [TILE, 9]
    pixels, truth, prediction = joined(strips)
    np.testing.assert_array_equal(pixels, blotches(TILE + 9, 20))
    assert set(np.unique(truth)) == set(np.unique(prediction)) == {0, 1}
    assert (truth != prediction).any()
    assert joined(mask_strips(scene, False, None))[0] is None


def test_deep_imagery_is_stretched_by_the_whole_scene(folders):
    deep = np.zeros((TILE + 9, 20, 4), np.uint16)
    deep[:TILE], deep[TILE:] = 1000, 3000
    write_image(folders / "images" / "a1.tif", deep)
    (scene,) = mask_scenes(folders / "found", folders / "labels")
    image, _, _ = joined(mask_strips(scene, False, folders / "images" / "a1.tif"))
    assert image.shape == (TILE + 9, 20, 3) and image.dtype == np.uint8
    # One strip alone would be stretched to the same grey as the other.
    assert image[:TILE].max() < image[TILE:].min()


def test_a_prediction_is_cut_at_the_threshold_and_void_where_there_is_none():
    probabilities = np.array([[0.2, 0.5, 0.9, np.nan]], np.float32)
    label = np.array([[1, 0, 1, 255]], np.uint8)
    scene = LabelledImage("a", "a", np.full((1, 4, 1), 7, np.uint8), label)
    image, truth, prediction = joined(predicted_strips(scene, probabilities, 0.5))
    np.testing.assert_array_equal(prediction, [[0, 1, 1, 255]])
    np.testing.assert_array_equal(truth, label)
    np.testing.assert_array_equal(image, np.full((1, 4, 3), 7))


def test_scenes_keep_their_order_and_an_error_is_passed_on(folders, tmp_path):
    (scene,) = mask_scenes(folders / "found", folders / "labels")
    info = raster_info(scene.image)
    with SceneWriter(tmp_path / "out") as writer:
        for number in range(6):
            writer.add(f"s{number}", info, mask_strips(scene, False, None))
        scenes = writer.finish()
    assert [one.name for one in scenes] == [f"s{number}" for number in range(6)]
    assert [one.folder for one in scenes] == [f"scenes/{number}" for number in range(1, 7)]

    def broken():
        raise DatasetError("no")
        yield

    with pytest.raises(DatasetError, match="no"), SceneWriter(tmp_path / "two") as writer:
        writer.add("a", info, broken)
        writer.finish()


def test_images_belong_by_stem(folders):
    scenes = mask_scenes(folders / "found", folders / "labels")
    assert images_of(scenes, None) == {}
    assert images_of(scenes, folders / "images") == {"a1": folders / "images" / "a1.tif"}
    (folders / "images" / "a1.tif").rename(folders / "images" / "a2.tif")
    with pytest.raises(DatasetError, match="no image of 1 mask"):
        images_of(scenes, folders / "images")


def run_folder(folder: Path, **files: object) -> Run:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / WEIGHTS).write_bytes(b"weights")
    config = CONFIG | {"network": {"class": "JointNet"}, "parameters": 1234567}
    return Run(folder, None, config)


def test_a_run_says_all_that_it_wrote_down(tmp_path):
    scenes = [
        {"name": "a1", "split": "validation"},
        {"name": "a2", "split": "train"},
        {"name": "b2", "split": "train"},
    ]
    run = run_folder(
        tmp_path,
        data={
            "scenes": scenes,
            "manifest_sha256": "ab12",
            "patches": {"train": 9, "validation": 2},
        },
        metrics={"best_epoch": {"epoch": 3}, "epochs": 5},
        environment={
            "command": "train_jointnet.py --recipe x",
            "python": "3.11",
            "commit": "c0ffee",
        },
    )
    origin = run_origin(run, ["a1"], augment=True)
    facts = dict(origin.facts)
    assert facts["network"].startswith("JointNet, 1,234,567 parameters, 3 bands of uint8")
    assert facts["weights"] == f"SHA-256 {hash_file(tmp_path / WEIGHTS)}"
    assert facts["trained on"] == "2: a2, b2" and facts["scenes"] == "1: a1"
    assert facts["patches"] == "9 to train, 2 to validate" and "ab12" in facts["patch store"]
    assert facts["weights kept"].startswith("epoch 3 of 5,") and origin.best_epoch == 3
    assert facts["training: command"] == "train_jointnet.py --recipe x"
    assert facts["training: commit"] == "c0ffee"
    assert "eight flips" in facts["prediction"] and "threshold 0.5" in facts["prediction"]
    assert str(tmp_path) not in " ".join(facts.values())


def test_what_a_run_did_not_write_down_is_left_out(tmp_path):
    (tmp_path / "metrics.json").write_text("[1, 2")
    facts = dict(run_origin(run_folder(tmp_path), ["a1"], augment=False).facts)
    assert facts["training: machine"] == "not written down"
    assert not {"weights kept", "trained on", "patch store", "training: command"} & facts.keys()
    assert "report: software" in facts


def test_masks_say_their_folders_by_their_last_names(tmp_path):
    names = [f"s{number}" for number in range(45)]
    origin = mask_origin(tmp_path / "found", tmp_path / "labels", names, ["s1: aligned"])
    facts = dict(origin.facts)
    assert origin.title == "found against labels" and origin.threshold is None
    assert facts["masks"] == "folder found" and facts["note"] == "s1: aligned"
    assert facts["scenes"].startswith("45: s0, ") and facts["scenes"].endswith(", s39, ...")
    assert str(tmp_path) not in " ".join([origin.title, *facts.values()])


def test_a_history_is_read_as_numbers(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,note\n1,0.5,x\n2,,y\n,3,z\n")
    assert read_history(path) == [{"epoch": 1, "loss": 0.5}, {"epoch": 2}]
    assert read_history(tmp_path / "none.csv") == []
