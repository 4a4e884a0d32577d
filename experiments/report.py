"""Make a page that shows scenes, errors and figures of an evaluation, and opens from disk."""

import time
from pathlib import Path

import click
import numpy as np

from experiments.options import (
    Also,
    Command,
    check_evaluation_options,
    evaluation_options,
    overwrite_option,
)
from experiments.recipes import scenes_of
from jointnet.evaluation import (
    LabelledImage,
    SceneCounts,
    describe_evaluation,
    evaluate_run,
    evaluation_notes,
)
from jointnet.mask_evaluation import (
    MaskMeasures,
    evaluate_masks,
    mask_scenes,
    probabilities_beside,
)
from jointnet.report import (
    Origin,
    SceneWriter,
    images_of,
    mask_origin,
    mask_strips,
    predicted_strips,
    run_origin,
)
from jointnet.report_page import PAGE, SCRIPT, write_page
from jointnet.runs import Run, load_run
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.output_files import refuse_existing_folder, replacing_folder, write_json
from preprocessing.raster_access import raster_info

FOLDER = "report"


def report_run(
    run: Run,
    data: Path,
    folder: Path,
    thresholds: tuple[float, ...],
    relaxed_buffer: int | None = None,
    augment: bool = False,
    objects: bool = False,
    overwrite: bool = False,
) -> dict:
    """Predict the validation scenes of a run, measure them and make a report.

    Args:
        run: the trained network.
        data: folder of the data sets it was trained on.
        folder: of the report.
        thresholds: as in ``evaluate_run``. The layers show that of the run, or the greatest.
        relaxed_buffer: as in ``evaluate_run``.
        augment: as in ``evaluate_run``.
        objects: as in ``evaluate_run``.
        overwrite: replace an older report.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        JointNetError: of the kind that says what is wrong.
    """
    thresholds = tuple(sorted(set(thresholds)))
    own = run.config["threshold"]
    shown = own if own in thresholds else thresholds[-1]
    histogram = ProbabilityHistogram()
    with replacing_folder(folder, overwrite, SCRIPT) as made, SceneWriter(made) as writer:

        def watch(scene: LabelledImage, probabilities: np.ndarray) -> None:
            writer.add(scene.name, scene.info, predicted_strips(scene, probabilities, shown))

        records = evaluate_run(
            run,
            scenes_of(run, data),
            thresholds,
            relaxed_buffer,
            augment,
            histogram,
            objects,
            watch,
        )
        names = list(dict.fromkeys(record.name for record in records))
        origin = run_origin(run, shown, names, augment)
        return _complete(made, writer, records, histogram, origin)


def report_masks(
    predictions: Path,
    labels: Path,
    folder: Path,
    images: Path | None = None,
    where: str | None = None,
    buffer_m: float | None = None,
    measures: MaskMeasures | None = None,
    overwrite: bool = False,
) -> dict:
    """Measure finished masks and make a report.

    Args:
        predictions: as in ``mask_evaluation.evaluate_masks``.
        labels: as in ``mask_evaluation.evaluate_masks``.
        folder: of the report.
        images: folder of the images that the masks were made of; None for no imagery.
        where: as in ``mask_evaluation.evaluate_masks``.
        buffer_m: as in ``mask_evaluation.evaluate_masks``.
        measures: as in ``mask_evaluation.evaluate_masks``.
        overwrite: replace an older report.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        JointNetError: of the kind that says what is wrong.
    """
    measures = measures or MaskMeasures(histogram=ProbabilityHistogram())
    scenes = mask_scenes(predictions, labels, where, buffer_m)
    shown = images_of(scenes, images)
    with replacing_folder(folder, overwrite, SCRIPT) as made, SceneWriter(made) as writer:
        records = evaluate_masks(predictions, labels, where, buffer_m, measures=measures)
        for scene, record in zip(scenes, records, strict=True):
            # An aligned mask lies on the pixels of its label.
            grid = scene.label if record.aligned else scene.image
            strips = mask_strips(scene, measures.align, shown.get(scene.name))
            writer.add(scene.name, raster_info(grid), strips)
        origin = mask_origin(
            predictions, labels, [scene.name for scene in scenes], evaluation_notes(records)
        )
        return _complete(made, writer, records, measures.histogram, origin)


def _complete(
    folder: Path,
    writer: SceneWriter,
    records: list[SceneCounts],
    histogram: ProbabilityHistogram | None,
    origin: Origin,
) -> dict:
    """Write the page and the figures on it; what they hold."""
    content = describe_evaluation(records, histogram)
    write_page(folder, content, writer.finish(), origin)
    write_json(folder / "evaluation.json", content)
    return content


@click.command(cls=Command)
@evaluation_options
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images that --predictions were made of, to be shown beneath them.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the report.  [default: report in the run folder, or in that of the "
    "predictions]",
)
@overwrite_option
def main(
    model: Path,
    data: Path,
    predictions: Path | None,
    labels: Path | None,
    where: str | None,
    buffer_m: float | None,
    align: bool,
    augment: bool,
    also: Also,
    images: Path | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Make a page of a network's validation scenes, or of finished masks, that opens from disk.

    It has the figures that evaluate.py prints, curves, the confusion matrix and how much the masks
    cover; and every scene to pan and zoom, with a swipe between image, truth, prediction and
    errors. Open index.html in a browser: it needs neither server nor network.

    \b
    python experiments/report.py --data data
    python experiments/report.py --predictions results --labels my_labels --images my_images
    """  # noqa: D301 (click takes the control character itself)
    check_evaluation_options(predictions, labels, where, buffer_m, align)
    if predictions is None and images is not None:
        raise click.UsageError("--images is for --predictions; a model is shown on its own scenes")
    folder = output or (predictions or model) / FOLDER
    refuse_existing_folder(folder, overwrite, SCRIPT)
    began = time.monotonic()
    if predictions is not None:
        histogram = ProbabilityHistogram()
        beside, note = probabilities_beside(predictions)
        if note:
            click.echo(note)
        measures = MaskMeasures(also.relaxed_buffer, beside, histogram, also.objects, align)
        content = report_masks(
            predictions, labels, folder, images, where, buffer_m, measures, overwrite
        )
    else:
        run = load_run(model)
        thresholds = (0.5, run.config["threshold"])
        content = report_run(
            run, data, folder, thresholds, also.relaxed_buffer, augment, also.objects, overwrite
        )
    scenes = len({row["name"] for row in content["scenes"]})
    click.echo(f"{scenes} scenes in {time.monotonic() - began:.0f} s: open {folder / PAGE}")


if __name__ == "__main__":
    main()
