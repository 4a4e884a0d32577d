"""The evaluation command: finished masks against labels, and a run on what it held back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner, Result

from experiments import recipes
from experiments.evaluate import main
from jointnet.evaluation import PROTOCOLS, evaluate_run
from jointnet.runs import load_run
from preprocessing.errors import RunError
from preprocessing.output_files import hash_file, write_json
from preprocessing.patches import load_pair
from tests.helpers import error, stand_in_run, write_image
from tests.training_fixtures import trained

pytestmark = pytest.mark.usefixtures("plain_graphs")

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], np.uint8)


def write_label(path: Path, mask: np.ndarray, scale: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, (mask * scale)[..., None])


def folders(tmp_path: Path, *names: str, suffix: str = "_output") -> tuple[Path, Path]:
    """Predictions and labels of so many scenes, all with the same pixels."""
    for name in names:
        write_label(tmp_path / "found" / f"{name}{suffix}.tif", FOUND)
        write_label(tmp_path / "labels" / f"{name}.tif", TRUTH)
    return tmp_path / "found", tmp_path / "labels"


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# The command, on masks


def test_masks_are_tabled_and_written(tmp_path):
    found, labels = folders(tmp_path, "austin1", "vienna1")
    result = evaluate("--predictions", found, "--labels", labels)
    assert result.exit_code == 0, result.output
    pooled, protocols = (part.splitlines() for part in result.stdout.split("\n\n"))
    assert [line.split()[1] for line in pooled] == ["place", "austin", "vienna", "overall"]
    for line, words in zip(protocols[1:], PROTOCOLS.values(), strict=True):
        assert words in line and line.split()[-2:] == ["0.600", "0.750"]
    assert "0.600" in result.stdout and "0.750" in result.stdout
    summary = json.loads((found / "evaluation.json").read_text())["summary"]
    assert [row["iou"] for row in summary] == [3 / 5] * 3
    assert summary[2]["pixels"] == 16 and summary[2]["true_positive"] == 6
    assert (found / "evaluation.csv").read_text().startswith("threshold,place,scenes,pixels,")


def test_an_evaluation_is_replaced_only_when_told(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    arguments = ("--predictions", found, "--labels", labels, "--output", tmp_path / "out")
    assert evaluate(*arguments).exit_code == 0
    before = (tmp_path / "out" / "evaluation.json").read_text()
    write_label(found / "austin1_output.tif", TRUTH)
    assert "evaluation.json" in error(evaluate(*arguments))
    (tmp_path / "out" / "evaluation.json").unlink()
    assert "evaluation.csv" in error(evaluate(*arguments))
    assert evaluate(*arguments, "--overwrite").exit_code == 0
    after = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert after != json.loads(before) and after["summary"][0]["iou"] == 1.0


def test_what_is_wrong_with_masks_is_one_line_and_nothing_is_written(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    write_label(labels / "austin1.tif", TRUTH[:, :3])
    for arguments, expected in (
        (("--predictions", found, "--labels", labels), "they must lie on one grid"),
        (("--predictions", found, "--labels", tmp_path / "none"), "no such folder or file"),
        (("--predictions", tmp_path / "none", "--labels", labels), "is not a folder"),
        (("--predictions", found), "--predictions and --labels go together"),
        (("--labels", labels), "--predictions and --labels go together"),
        (("--predictions", found, "--labels", labels, "--threshold", "0.5"), "do not apply"),
        (("--predictions", found, "--labels", labels, "--model", found), "do not apply"),
        (("--predictions", found, "--labels", labels, "--target", "roads"), "do not apply"),
        (("--model", "roads", "--target", "buildings"), "give --model once"),
        (("--predictions", found, "--labels", labels, "--augment"), "do not apply"),
        (("--align",), "--align is for --predictions"),
        (("--objects",), "No such option '--objects'; give --also objects instead"),
        (("--where", "a = 1"), "--where and --buffer-m are for --labels"),
        (("--buffer-m", "3"), "--where and --buffer-m are for --labels"),
        (("--predictions", found, "--labels", labels, "--buffer-m", "3"), "holds label rasters"),
        (("--predictions", found, "--labels", labels, "--buffer-m", "0"), "0.0"),
        (("--also", "relaxed:-1"), "'relaxed:-1' is none of objects, relaxed and relaxed:PX"),
        (("--also", "relaxed:101"), "relaxed:101"),
        (("--also", "objects,relaxed:1.5"), "relaxed:1.5"),
        (("--also", "objects:3"), "objects:3"),
        (("--also", ""), "''"),
        (("--threshold", "1.5"), "1.5"),
        (("--threshold", "nan"), "nan"),
        (("--nonsense",), "--nonsense"),
    ):
        assert expected in error(evaluate(*arguments))
    assert not list(tmp_path.rglob("evaluation.*"))


def test_masks_get_relaxed_measures_when_asked(tmp_path):
    found, labels = folders(tmp_path, "austin1", "vienna1")
    arguments = ("--predictions", found, "--labels", labels, "--also", "relaxed:1")
    result = evaluate(*arguments)
    assert result.exit_code == 0, result.output
    *rows, note = result.stdout.split("\n\n")[0].splitlines()
    assert rows[0].split()[-3:] == ["completeness", "correctness", "quality"]
    assert rows[-1].split()[-3:] == ["1.000", "1.000", "1.000"]
    assert note.endswith("within 1 px")
    content = json.loads((found / "evaluation.json").read_text())
    assert content["summary"][2]["true_total"] == 8
    assert content["summary"][2]["relaxed_buffer_px"] == 1
    assert content["scenes"][0]["predicted_total"] == 4


def test_masks_are_measured_against_polygons_and_what_became_of_them_is_said(tmp_path):
    found, _ = folders(tmp_path, "austin1", "vienna1")
    # The columns 2 and 3, and what lies outside; in the CRS of write_image.
    shapes = [shapely.box(500_000 + 0.3 * x, 4_999_999, 500_001.2 + 0.3 * x, 5e6) for x in (2, 99)]
    town = tmp_path / "town.gpkg"
    frame = geopandas.GeoDataFrame({"kind": ["house", "road"]}, geometry=shapes, crs="EPSG:32633")
    frame.to_file(town)
    arguments = ("--predictions", found, "--labels", town)
    result = evaluate(*arguments)
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if "polygons" in line] == [
        f"{name}: 1 of 2 polygons used (1 partly outside the raster), 0 repaired, 0 dropped, "
        "1 outside"
        for name in ("austin1", "vienna1")
    ]
    content = json.loads((found / "evaluation.json").read_text())
    assert [scene["iou"] for scene in content["scenes"]] == [3 / 5] * 2
    assert content["scenes"][0]["polygons"]["outside"] == 1
    result = evaluate(*arguments, "--where", "kind = 'house'", "--overwrite")
    assert "austin1: 1 of 1 polygons used" in result.stdout
    # A town without barns: all that was found is false.
    result = evaluate(*arguments, "--where", "kind = 'barn'", "--overwrite")
    assert "austin1: 0 of 0 polygons used" in result.stdout
    assert json.loads((found / "evaluation.json").read_text())["summary"][2]["precision"] == 0
    # Nor is there a road on these tiles, though the file has one elsewhere.
    result = evaluate(*arguments, "--where", "kind = 'road'", "--overwrite")
    assert "austin1: 0 of 1 polygons used" in result.stdout
    assert "the filter" in error(evaluate(*arguments, "--where", "colour = 'red'", "--overwrite"))


def test_objects_probabilities_and_alignment_reach_table_and_files(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    # The prediction has a row more than the label.
    write_label(found / "austin1_output.tif", np.vstack([FOUND, 1 - FOUND[:1]]))
    values = np.vstack([FOUND, 1 - FOUND[:1]]).astype(np.float32) * 0.8
    write_image(found / "austin1_probabilities.tif", values[..., None])
    arguments = ("--predictions", found, "--labels", labels, "--also", "objects")
    message = error(evaluate(*arguments))
    assert "has 4 x 3 pixels" in message and "--align" in message
    result = evaluate(*arguments, "--align")
    assert result.exit_code == 0, result.output
    parts = result.stdout.split("\n\n")
    assert parts[0].startswith("austin1: aligned by nearest neighbour (4 x 3 pixels with")
    assert "that of the masks costs 0.000 (IoU 0.600)" in parts[2]
    assert parts[3].splitlines()[2].split()[:7] == ["-", "overall", "1", "1"] + ["1.000"] * 3
    content = json.loads((found / "evaluation.json").read_text())
    assert content["summary"][0]["iou"] == content["thresholds"]["best"]["iou"] == 3 / 5
    assert content["objects"][0]["ap50"] == 1 and content["objects"][0]["polis_m"] > 0
    assert content["scenes"][0]["aligned"].endswith("0.0% is void")
    assert {row["protocol"] for row in content["protocols"]} == set(PROTOCOLS)


def test_probabilities_are_used_where_every_mask_has_them_beside_it(tmp_path):
    found, labels = folders(tmp_path, "austin1", "austin2", suffix="")
    arguments = ("--predictions", found, "--labels", labels, "--overwrite")
    for number, note in ((1, "note: 1 of 2 masks have no probabilities beside them"), (2, None)):
        values = FOUND.astype(np.float32)[..., None] * 0.8
        write_image(found / f"austin{number}_probabilities.tif", values)
        result = evaluate(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(note or "threshold")
        assert ("calibration" in result.stdout) == (note is None)


def test_help_says_what_is_measured_in_twelve_options():
    result = evaluate("--help")
    assert result.exit_code == 0
    options = [line for line in result.stdout.splitlines() if line.startswith("  --")]
    assert len(options) == 12 + len(["--help"])
    assert "IoU" in result.stdout and "--predictions" in result.stdout


# The command, on a run


@pytest.fixture
def run(tmp_path, monkeypatch, eager) -> Path:
    """A copy of a finished run, whose recipe the command knows."""
    done = trained()
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda: done.recipe)
    return shutil.copytree(done.folder, tmp_path / "run")


def test_a_run_gets_the_very_figures_that_training_measured(run):
    result = evaluate("--model", run, "--data", trained().data)
    assert result.exit_code == 0, result.output
    measured = json.loads((run / "metrics.json").read_text())["scenes"]
    assert json.loads((run / "evaluation.json").read_text())["summary"] == measured
    assert [(row["threshold"], row["place"]) for row in measured] == [
        (threshold, place) for threshold in (0.5, 0.6) for place in ("ashby", "borth", "overall")
    ]
    # 40 x 25 and 12 x 20 pixels, each once.
    assert [row["pixels"] for row in measured[:3]] == [1000, 240, 1240]


def test_a_run_gets_all_thresholds_and_objects_where_asked(run):
    result = evaluate("--model", run, "--data", trained().data, "--also", "objects")
    assert result.exit_code == 0, result.output
    content = json.loads((run / "evaluation.json").read_text())
    overall = [row for row in content["summary"] if row["place"] == "overall"]
    thresholds = content["thresholds"]
    assert [(cost["threshold"], cost["iou"]) for cost in thresholds["cost"]] == [
        (row["threshold"], row["iou"]) for row in overall
    ]
    assert all(cost["iou_lost"] >= 0 for cost in thresholds["cost"])
    # The curve's point at one half is what was counted there.
    (half,) = [point for point in thresholds["curve"] if point["threshold"] == 0.5]
    assert half["iou"] == overall[0]["iou"] and half["recall"] == overall[0]["recall"]
    assert sum(b["pixels"] for b in thresholds["calibration"]["bins"]) == overall[0]["pixels"]
    assert 0 <= thresholds["calibration"]["ece"] <= 1
    assert "best threshold on these scenes" in result.stdout
    objects = [row for row in content["objects"] if row["place"] == "overall"]
    assert [row["threshold"] for row in objects] == [0.5, 0.6]
    assert objects[0]["true_objects"] > 0 and objects[0]["ap50"] is not None


def test_other_thresholds_can_be_asked_for(run, tmp_path):
    options = ("--threshold", "0.3", "--threshold", "0.9", "--threshold", "0.3")
    result = evaluate("--model", run, "--data", trained().data, *options, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "evaluation.json").read_text())["summary"]
    assert [row["threshold"] for row in summary] == [0.3] * 3 + [0.9] * 3
    assert not (run / "evaluation.json").exists()


def change_config(run: Path, **changes: object) -> None:
    config = json.loads((run / "config.json").read_text())
    write_json(run / "config.json", config | changes)


def test_a_run_of_roads_gets_relaxed_measures_within_3_px(run):
    change_config(run, target="roads")
    result = evaluate("--model", run, "--data", trained().data)
    assert result.exit_code == 0, result.output
    assert result.stdout.split("\n\n")[0].endswith("within 3 px")
    measured = json.loads((run / "metrics.json").read_text())["scenes"]
    summary = json.loads((run / "evaluation.json").read_text())["summary"]
    for row, strict in zip(summary, measured, strict=True):
        assert list(row.items())[: len(strict)] == list(strict.items())
        assert row["relaxed_buffer_px"] == 3
        assert row["true_total"] == row["true_positive"] + row["false_negative"]
        assert row["completeness"] >= row["recall"] and row["correctness"] >= row["precision"]


def test_real_road_tiles_are_one_place_without_their_white_margin(tmp_path, real_data):
    held_back = [s for s in recipes.open_roads().scenes(real_data, None) if s.split != "train"]
    tile = held_back[-1]
    scene = {"name": tile.name, "split": "validation", "white_border": True}
    hashes = {f"{k}_sha256": hash_file(getattr(tile, k)) for k in ("image", "label")}
    write_json(tmp_path / "data.json", {"scenes": [scene | hashes]})
    config = {"target": "roads", "recipe": {"name": "open_roads"}, "window": 256, "overlap": 64}
    run = replace(stand_in_run(**config), folder=tmp_path)
    (record,) = evaluate_run(run, recipes.scenes_of(run, real_data), (0.5,))
    assert (record.name, record.place) == (tile.name, "massachusetts_roads")
    _, label, valid, _ = load_pair(tile, 3)
    assert 0.2 < 1 - record.counts.pixels / label.size < 0.8
    assert record.counts.pixels == valid.sum()
    assert record.relaxed.true_total == (label[valid] == 1).sum() > 0
    assert record.relaxed_buffer_px == 3
    metrics = record.metrics()
    assert metrics["completeness"] > metrics["recall"] > 0
    assert metrics["correctness"] > metrics["precision"] > 0


def test_a_buffer_of_0_gives_the_strict_measures_again(run):
    result = evaluate("--model", run, "--data", trained().data, "--also", "relaxed:0")
    assert result.exit_code == 0, result.output
    assert result.stdout.split("\n\n")[0].endswith("within 0 px")
    for row in json.loads((run / "evaluation.json").read_text())["summary"]:
        strict = [row[name] for name in ("recall", "precision", "iou")]
        relaxed = [row[name] for name in ("completeness", "correctness", "quality")]
        assert relaxed == pytest.approx(strict)


def test_a_white_border_is_void_where_it_was_in_training_and_its_roads_still_match(run, tmp_path):
    """All of ashby1 but its last columns is white, and the label all road."""
    data = shutil.copytree(trained().data, tmp_path / "data")
    image = np.full((40, 25, 3), 255, np.uint8)
    image[:, -8:] = np.random.default_rng(0).integers(0, 200, (40, 8, 3))
    files = {"image": data / "images" / "ashby1.tif", "label": data / "gt" / "ashby1.tif"}
    write_image(files["image"], image)
    write_image(files["label"], np.where(image[..., :1] == 255, 255, 0).astype(np.uint8))
    described = json.loads((run / "data.json").read_text())
    (scene,) = [scene for scene in described["scenes"] if scene["name"] == "ashby1"]
    scene |= {f"{kind}_sha256": hash_file(path) for kind, path in files.items()}
    loaded, metrics = load_run(run), {}
    for white_border in (None, False, True):
        scene.pop("white_border", None)
        if white_border is not None:
            scene["white_border"] = white_border
        write_json(run / "data.json", described)
        records = evaluate_run(loaded, recipes.scenes_of(loaded, data), (0.0,), 3)
        (metrics[white_border],) = [r.metrics() for r in records if r.name == "ashby1"]
    # All pixels are target from a probability of 0; an older run does not say what is void.
    assert metrics[None] == metrics[False]
    assert metrics[False]["true_positive"] == 40 * 17 and metrics[False]["recall"] == 1
    assert metrics[False]["predicted_total"] == 40 * 25
    assert metrics[True]["true_positive"] == metrics[True]["true_total"] == 0
    assert metrics[True]["predicted_total"] == 40 * 8
    assert metrics[True]["predicted_right"] == 40 * 3


def test_bands_that_were_named_in_training_are_read(run, monkeypatch):
    read = []
    spy = "preprocessing.patches.load_pair"
    monkeypatch.setattr(spy, lambda *a: read.append(a[1:]) or load_pair(*a))
    loaded = load_run(run)
    scenes, recipe = recipes.scenes_of(loaded, trained().data), loaded.config["recipe"]
    for numbers in (None, [3, 2, 1]):
        named = {"recipe": recipe | {"patches": {"band_numbers": numbers}}}
        evaluate_run(replace(loaded, config=loaded.config | named), scenes, (0.5,))
    assert read == [(3, None)] * 2 + [(3, [3, 2, 1])] * 2


def test_what_is_wrong_with_a_run_is_said_and_nothing_is_written(run, tmp_path):
    data, loaded = trained().data, load_run(run)
    assert "is not a run folder" in error(evaluate("--model", tmp_path, "--data", data))
    message = error(evaluate("--model", run, "--data", tmp_path / "nowhere"))
    assert "no data set of the Inria layout" in message
    assert not list(tmp_path.rglob("evaluation.*"))
    for name, words in (("untrained", "unknown recipe 'untrained'"), ("store", "a patch store")):
        other = replace(loaded, config=loaded.config | {"recipe": {"name": name}})
        with pytest.raises(RunError, match=words):
            recipes.scenes_of(other, data)
    described = json.loads((run / "data.json").read_text())
    described["scenes"][0]["name"] = "elsewhere1"
    write_json(run / "data.json", described)
    with pytest.raises(RunError, match=r"1 validation scene\(s\) .* elsewhere1"):
        recipes.scenes_of(loaded, data)
    (run / "data.json").unlink()
    with pytest.raises(RunError, match="has no readable data.json"):
        recipes.scenes_of(loaded, data)


def test_scenes_that_are_no_longer_those_held_back_are_refused(run, tmp_path):
    """Same names, other pixels: the figures would be those of another data set."""
    data = shutil.copytree(trained().data, tmp_path / "data")
    image = np.zeros((40, 25, 3), np.uint8)
    write_image(data / "images" / "ashby1.tif", image, transform=Affine(1, 0, 0, 0, -1, 0))
    with pytest.raises(RunError, match="ashby1.tif is not the image that"):
        recipes.scenes_of(load_run(run), data)
