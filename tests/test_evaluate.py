"""The evaluation command: finished masks against labels, and a run on what it held back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner, Result

from experiments import recipes
from experiments.evaluate import evaluate_masks, main
from jointnet.metrics import Counts
from jointnet.runs import write_json
from preprocessing.errors import DatasetError, LabelError
from preprocessing.raster_writers import MaskWriter
from preprocessing.rasters import raster_info
from preprocessing.tiling import Window
from tests.helpers import make_run, write_image
from tests.training_fixtures import trained

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], np.uint8)
COUNTS = Counts(3, 1, 1, 3)


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


def error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


# Masks


@pytest.mark.parametrize("suffix", ["", "_output"])
def test_masks_pair_with_labels_by_stem_with_and_without_our_suffix(tmp_path, suffix):
    found, labels = folders(tmp_path, "austin1", "austin12", "vienna2", suffix=suffix)
    records = evaluate_masks(found, labels)
    assert [(r.name, r.place, r.threshold) for r in records] == [
        ("austin1", "austin", None),
        ("austin12", "austin", None),
        ("vienna2", "vienna", None),
    ]
    assert all(record.counts == COUNTS for record in records)


def test_a_stem_that_is_no_tile_name_is_its_own_place(tmp_path):
    (record,) = evaluate_masks(*folders(tmp_path, "my_town"))
    assert (record.name, record.place) == ("my_town", "my_town")


def test_what_infer_writes_beside_its_masks_is_left_alone(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    write_image(found / "austin1_overlay.png.tif", np.full((9, 9, 3), 77, np.uint8))
    write_image(found / "austin1_probabilities.tif", np.full((2, 4, 1), 0.3, np.float32))
    (found / "austin1_footprints.geojson").touch()
    (record,) = evaluate_masks(found, labels)
    assert record.counts == COUNTS


@pytest.mark.parametrize(("ours", "theirs"), [(1, 255), (255, 1), (1, 1)])
def test_0_and_1_is_as_good_as_0_and_255(tmp_path, ours, theirs):
    write_label(tmp_path / "found" / "a1.tif", FOUND, ours)
    write_label(tmp_path / "labels" / "a1.tif", TRUTH, theirs)
    assert evaluate_masks(tmp_path / "found", tmp_path / "labels")[0].counts == COUNTS


def test_void_of_either_file_counts_nowhere(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    void = FOUND.copy()
    # A false alarm and a miss are void in the prediction, ...
    void[0, 1] = void[1, 2] = 255
    info = raster_info(labels / "austin1.tif")
    with MaskWriter(found / "austin1_output.tif", info, overwrite=True) as file:
        file.write(Window(0, 0, 2, 4), void)
    assert evaluate_masks(found, labels)[0].counts == Counts(3, 0, 0, 3)
    # ... and a hit in the label.
    truth = np.where([[False] * 3 + [True], [False] * 4], 7, TRUTH * 255).astype(np.uint8)
    write_image(labels / "austin1.tif", truth[..., None], nodata=7)
    assert evaluate_masks(found, labels)[0].counts == Counts(2, 0, 0, 3)


def test_tall_files_are_counted_to_their_last_row(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.evaluate.STRIP_ROWS", 16)
    truth = np.zeros((41, 5), np.uint8)
    truth[::2] = 1
    write_label(tmp_path / "found" / "a1.tif", 1 - truth)
    write_label(tmp_path / "labels" / "a1.tif", truth)
    counts = evaluate_masks(tmp_path / "found", tmp_path / "labels")[0].counts
    assert counts == Counts(0, 100, 105, 0)


def test_masks_without_partner_are_all_named(tmp_path):
    found, labels = folders(tmp_path, "austin1", "austin2", "vienna1")
    (found / "austin1_output.tif").unlink()
    (labels / "vienna1.tif").unlink()
    with pytest.raises(DatasetError) as caught:
        evaluate_masks(found, labels)
    assert "without label: vienna1" in str(caught.value)
    assert "without image: austin1" in str(caught.value)


def test_two_empty_folders_are_no_data_set(tmp_path):
    for name in ("found", "labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="no masks in .*found and no labels in .*labels"):
        evaluate_masks(tmp_path / "found", tmp_path / "labels")


def test_masks_of_another_size_are_refused(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    write_label(labels / "austin1.tif", TRUTH[:, :3])
    with pytest.raises(LabelError, match="has 4 x 2 pixels, its label .* 3 x 2;"):
        evaluate_masks(found, labels)


@pytest.mark.parametrize("folder", ["found", "labels"])
def test_other_values_are_refused(tmp_path, folder):
    found, labels = folders(tmp_path, "austin1")
    path = next((tmp_path / folder).iterdir())
    write_label(path, TRUTH, 77)
    with pytest.raises(LabelError, match=f"{path.name}: has the values 77"):
        evaluate_masks(found, labels)


# The command, on masks


def test_masks_are_tabled_and_written(tmp_path):
    found, labels = folders(tmp_path, "austin1", "vienna1")
    result = evaluate("--predictions", found, "--labels", labels)
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.stdout.splitlines()] == [
        "place",
        "austin",
        "vienna",
        "overall",
    ]
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
        (("--predictions", found, "--labels", labels), "they must have one size"),
        (("--predictions", found, "--labels", tmp_path / "none"), "is not a folder"),
        (("--predictions", tmp_path / "none", "--labels", labels), "is not a folder"),
        (("--predictions", found), "--predictions and --labels go together"),
        (("--labels", labels), "--predictions and --labels go together"),
        (("--predictions", found, "--labels", labels, "--threshold", "0.5"), "do not apply"),
        (("--predictions", found, "--labels", labels, "--model", found), "do not apply"),
        (("--threshold", "1.5"), "1.5"),
        (("--threshold", "nan"), "nan"),
        (("--nonsense",), "--nonsense"),
    ):
        assert expected in error(evaluate(*arguments))
    assert not list(tmp_path.rglob("evaluation.*"))


def test_help_says_what_is_measured():
    result = evaluate("--help")
    assert result.exit_code == 0
    assert "IoU" in result.stdout and "--predictions" in result.stdout


# The command, on a run


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
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


def test_other_thresholds_can_be_asked_for(run, tmp_path):
    options = ("--threshold", "0.3", "--threshold", "0.9", "--threshold", "0.3")
    result = evaluate("--model", run, "--data", trained().data, *options, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "evaluation.json").read_text())["summary"]
    assert [row["threshold"] for row in summary] == [0.3] * 3 + [0.9] * 3
    assert not (run / "evaluation.json").exists()


def test_what_is_wrong_with_a_run_is_one_line_and_nothing_is_written(run, tmp_path, monkeypatch):
    data = trained().data
    bare = make_run(tmp_path / "bare")
    assert "unknown recipe 'untrained'" in error(evaluate("--model", bare, "--data", data))
    assert "is not a run folder" in error(evaluate("--model", tmp_path, "--data", data))
    assert "no data set of the Inria layout" in error(
        evaluate("--model", run, "--data", tmp_path / "nowhere")
    )
    described = json.loads((run / "data.json").read_text())
    described["scenes"][0]["name"] = "elsewhere1"
    write_json(run / "data.json", described)
    message = error(evaluate("--model", run, "--data", data))
    assert "1 validation scene(s)" in message and "elsewhere1" in message
    (run / "data.json").unlink()
    assert "has no readable data.json" in error(evaluate("--model", run, "--data", data))
    assert not list(tmp_path.rglob("evaluation.*"))


def test_scenes_that_are_no_longer_those_held_back_are_refused(run, tmp_path):
    """Same names, other pixels: the figures would be those of another data set."""
    data = shutil.copytree(trained().data, tmp_path / "data")
    image = np.zeros((40, 25, 3), np.uint8)
    write_image(data / "images" / "ashby1.tif", image, transform=Affine(1, 0, 0, 0, -1, 0))
    assert "ashby1" in error(evaluate("--model", run, "--data", data))
