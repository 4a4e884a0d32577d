"""Measure a trained network, or finished masks, against labels."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from experiments.options import (
    PROBABILITY,
    Command,
    data_option,
    given,
    model_option,
    overwrite_option,
)
from experiments.recipes import RECIPES
from jointnet.evaluation import (
    THRESHOLDS,
    SceneCounts,
    evaluate_scenes,
    table,
    write_evaluation,
)
from jointnet.metrics import Counts, count
from jointnet.runs import Run, load_run
from preprocessing.errors import DatasetError, JointNetError, LabelError, RunError
from preprocessing.inria import parse_stem
from preprocessing.outputs import refuse_existing
from preprocessing.patch_store import hash_file
from preprocessing.scenes import Scene, images_in, pair_by_stem
from preprocessing.tiling import Window

STRIP_ROWS = 1024


def validation_scenes(run: Run, data: Path) -> list[Scene]:
    """The scenes that were held back when the run was trained, found in the data folder.

    Raises:
        RunError: the run says no data, its recipe is unknown, or a scene is missing or another.
        DatasetError: the data folder has not the layout that the recipe reads.
    """
    name = run.config["recipe"]["name"]
    if name not in RECIPES:
        raise RunError(f"{run.folder} was trained by an unknown recipe {name!r}")
    try:
        described = json.loads((run.folder / "data.json").read_text(encoding="utf-8"))
        held_back = {s["name"]: s for s in described["scenes"] if s["split"] == "validation"}
    except (OSError, ValueError, KeyError):
        raise RunError(
            f"{run.folder} has no readable data.json, which says what was held back"
        ) from None
    validation = run.config["recipe"].get("validation")
    scenes = {scene.name: scene for scene in RECIPES[name]().scenes(data, validation)}
    missing = sorted(set(held_back) - set(scenes))
    if missing:
        raise RunError(
            f"{len(missing)} validation scene(s) of {run.folder} are not in {data}, such as "
            f"{missing[0]}; give the folder it was trained on by --data"
        )
    for name, scene in held_back.items():
        for path, kind in ((scenes[name].image, "image"), (scenes[name].label, "label")):
            if hash_file(path) != scene[f"{kind}_sha256"]:
                raise RunError(f"{path} is not the {kind} that {run.folder} held back under {name}")
    return [
        replace(scenes[name], where=scene.get("where"), buffer_m=scene.get("buffer_m"))
        for name, scene in held_back.items()
    ]


def evaluate_run(
    run: Run, data: Path, thresholds: tuple[float, ...] = THRESHOLDS
) -> list[SceneCounts]:
    """Predict the validation scenes of a run and count.

    Args:
        run: the trained network.
        data: folder of the data sets it was trained on.
        thresholds: probabilities from which a pixel is target.

    Raises:
        JointNetError: of the kind that says what is wrong.
    """
    from preprocessing.patches import load_scene

    def load(scenes: list[Scene]) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
        for scene in scenes:
            image, mask, _ = load_scene(scene, run.config["bands"])
            yield scene.name, scene.place, image, mask

    return evaluate_scenes(
        run.model.predict_on_batch,
        load(validation_scenes(run, data)),
        window=run.config["window"],
        overlap=run.config["overlap"],
        thresholds=thresholds,
    )


def evaluate_masks(predictions: Path, labels: Path) -> list[SceneCounts]:
    """Count finished masks against labels, paired by stem.

    Where the folder holds files named ``<stem>_output``, as ``infer.py`` names its masks, those
    are taken and the pictures beside them are not. The place is read from the stem (``austin``
    of ``austin12``) or is the stem itself.

    Args:
        predictions: folder of masks of {0, 1} or {0, 255}; void where their dataset mask is 0.
        labels: folder of labels of the same sizes.

    Raises:
        DatasetError: images without partner.
        LabelError: other values, or sizes that differ.
    """
    masks = images_in(predictions)
    ours = {path.with_stem(path.stem.removesuffix("_output")): path for path in masks}
    ours = {plain: path for plain, path in ours.items() if plain != path} or ours
    pairs = pair_by_stem(list(ours), images_in(labels))
    if not pairs:
        raise DatasetError(f"no masks in {predictions} and no labels in {labels}")
    return [
        SceneCounts(truth.stem, _place(truth.stem), None, _count_files(truth, ours[plain]))
        for plain, truth in pairs
    ]


def _place(stem: str) -> str:
    try:
        return parse_stem(stem).place
    except JointNetError:
        return stem


def _count_files(truth: Path, prediction: Path) -> Counts:
    """Counts of one pair, read in strips of rows."""
    from preprocessing.rasters import LabelReader

    with LabelReader(truth) as labels, LabelReader(prediction) as masks:
        size, other = (labels.height, labels.width), (masks.height, masks.width)
        if size != other:
            raise LabelError(
                f"{prediction} has {other[1]} x {other[0]} pixels, its label {truth} "
                f"{size[1]} x {size[0]}; they must have one size"
            )
        counts = Counts()
        for row in range(0, size[0], STRIP_ROWS):
            strip = Window(row, 0, min(STRIP_ROWS, size[0] - row), size[1])
            counts += count(labels.read(strip), masks.read(strip))
    return counts


@click.command(cls=Command)
@model_option
@data_option
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Folder of finished masks, instead of a model; needs --labels.",
)
@click.option("--labels", type=click.Path(path_type=Path), help="Folder of their labels.")
@click.option(
    "--threshold",
    "thresholds",
    type=PROBABILITY,
    multiple=True,
    default=THRESHOLDS,
    show_default="0.5 and 0.6",
    help="Probability from which a pixel counts as target; may be given several times.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for evaluation.json and evaluation.csv.  [default: the run folder, or that of "
    "the predictions]",
)
@overwrite_option
def main(
    model: Path,
    data: Path,
    predictions: Path | None,
    labels: Path | None,
    thresholds: tuple[float, ...],
    output: Path | None,
    overwrite: bool,
) -> None:
    """Measure a trained network on its validation scenes, or finished masks against labels.

    Accuracy, precision, recall, F1 and IoU of the target class from pixel counts added over all
    scenes, per place and overall. Void pixels count nowhere; where neither truth nor prediction
    has target, the ratios are 1.

    \b
    python experiments/evaluate.py --data data
    python experiments/evaluate.py --predictions results --labels my_labels
    """  # noqa: D301 (click takes the control character itself)
    if (predictions is None) != (labels is None):
        raise click.UsageError("--predictions and --labels go together")
    if predictions is not None and (given("model") or given("thresholds")):
        raise click.UsageError(
            "--predictions are finished masks: --model and --threshold do not apply"
        )
    folder = output or predictions or model
    for name in ("evaluation.json", "evaluation.csv"):
        refuse_existing(folder / name, overwrite)
    if predictions is not None:
        records = evaluate_masks(predictions, labels)
    else:
        records = evaluate_run(load_run(model), data, tuple(sorted(set(thresholds))))
    click.echo(table(write_evaluation(folder, records)))


if __name__ == "__main__":
    main()
