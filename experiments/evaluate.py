"""Measure a trained network, or finished masks, against labels."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from experiments.options import (
    Command,
    check_evaluation_options,
    evaluation_options,
    overwrite_option,
)
from experiments.recipes import RECIPES, STORED
from jointnet.evaluation import (
    THRESHOLDS,
    LabelledImage,
    SceneCounts,
    Watch,
    evaluate_scenes,
    evaluation_text,
    write_evaluation,
)
from jointnet.mask_evaluation import MaskMeasures, evaluate_masks
from jointnet.metrics import BUFFER_PX
from jointnet.prediction import mean_over_symmetries
from jointnet.runs import Run, load_run
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.errors import RunError
from preprocessing.output_files import hash_file, refuse_existing
from preprocessing.scenes import Scene

# Of the targets that are measured with one where the user names none.
RELAXED_BUFFERS = {"roads": BUFFER_PX}


def validation_scenes(run: Run, data: Path) -> list[Scene]:
    """The scenes that were held back when the run was trained, found in the data folder.

    Raises:
        RunError: the run says no data, its recipe is unknown, or a scene is missing or another.
        DatasetError: the data folder has not the layout that the recipe reads.
    """
    name = run.config["recipe"]["name"]
    if name == STORED:
        raise RunError(
            f"{run.folder} was trained on a patch store, which does not say where its scenes lie "
            "now; predict them with infer.py and compare with --predictions and --labels"
        )
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
        replace(
            scenes[name],
            where=scene.get("where"),
            buffer_m=scene.get("buffer_m"),
            white_border=scene.get("white_border", False),
        )
        for name, scene in held_back.items()
    ]


def evaluate_run(
    run: Run,
    data: Path,
    thresholds: tuple[float, ...] = THRESHOLDS,
    relaxed_buffer: int | None = None,
    augment: bool = False,
    histogram: ProbabilityHistogram | None = None,
    objects: bool = False,
    watch: Watch | None = None,
) -> list[SceneCounts]:
    """Predict the validation scenes of a run and count.

    Args:
        run: the trained network.
        data: folder of the data sets it was trained on.
        thresholds: probabilities from which a pixel is target.
        relaxed_buffer: pixels within which the relaxed measures match (``jointnet.metrics``);
            None for 3 where the target is roads, and no relaxed measures elsewhere.
        augment: take the mean over the eight flips and rotations of every window.
        histogram: gets the probabilities, for the figures of all thresholds.
        objects: count objects too.
        watch: called once a scene, see ``jointnet.evaluation.evaluate_scenes``.

    Raises:
        JointNetError: of the kind that says what is wrong.
    """
    from preprocessing.patches import load_pair
    from preprocessing.raster_access import raster_info

    def load(scenes: list[Scene]) -> Iterator[LabelledImage]:
        for scene in scenes:
            image, label, valid, _ = load_pair(scene, run.config["bands"], numbers)
            info = raster_info(scene.image)
            yield LabelledImage(scene.name, scene.place, image, label, valid, info)

    # Named in training where the files' own order or marks were not to be trusted.
    numbers = run.config["recipe"].get("patches", {}).get("band_numbers")
    if relaxed_buffer is None:
        relaxed_buffer = RELAXED_BUFFERS.get(run.config["target"])
    predict = run.model.predict_on_batch
    return evaluate_scenes(
        mean_over_symmetries(predict) if augment else predict,
        load(validation_scenes(run, data)),
        window=run.config["window"],
        overlap=run.config["overlap"],
        thresholds=thresholds,
        relaxed_buffer_px=relaxed_buffer,
        histogram=histogram,
        objects=objects,
        watch=watch,
    )


def notes(records: list[SceneCounts]) -> Iterator[str]:
    """What became of the polygons of each label, and which predictions were aligned."""
    from preprocessing.polygons import PolygonCounts

    for record in records:
        if record.polygons is not None:
            yield f"{record.name}: {PolygonCounts(**record.polygons)}"
        if record.aligned is not None:
            yield f"{record.name}: {record.aligned}"


@click.command(cls=Command)
@evaluation_options
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
    where: str | None,
    buffer_m: float | None,
    probabilities: Path | None,
    align: bool,
    thresholds: tuple[float, ...],
    relaxed_buffer: int | None,
    augment: bool,
    objects: bool,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Measure a trained network on its validation scenes, or finished masks against labels.

    Accuracy, precision, recall, F1 and IoU of the target class from pixel counts added over all
    scenes, per place and overall. Void pixels count nowhere; where neither truth nor prediction
    has target, the ratios are 1; where only one of them has, IoU is 0. For roads, whose labels
    are often a few pixels off, also the relaxed recall (completeness), relaxed precision
    (correctness) and quality. Then IoU and accuracy by the three protocols that publications on
    Inria use and, of a model, the best threshold, what others cost, and calibration.

    \b
    python experiments/evaluate.py --data data
    python experiments/evaluate.py --predictions results --labels my_labels
    python experiments/evaluate.py --predictions results --labels lines.gpkg --buffer-m 4
    python experiments/evaluate.py --predictions results --labels my_labels --objects --align
    """  # noqa: D301 (click takes the control character itself)
    check_evaluation_options(predictions, labels, where, buffer_m, probabilities, align)
    folder = output or predictions or model
    for name in ("evaluation.json", "evaluation.csv"):
        refuse_existing(folder / name, overwrite)
    histogram = ProbabilityHistogram()
    if predictions is not None:
        measures = MaskMeasures(relaxed_buffer, probabilities, histogram, objects, align)
        records = evaluate_masks(predictions, labels, where, buffer_m, measures=measures)
    else:
        chosen, run = tuple(sorted(set(thresholds))), load_run(model)
        records = evaluate_run(run, data, chosen, relaxed_buffer, augment, histogram, objects)
    for note in notes(records):
        click.echo(note)
    content = write_evaluation(folder, records, histogram if histogram.pixels else None)
    click.echo(evaluation_text(content))


if __name__ == "__main__":
    main()
