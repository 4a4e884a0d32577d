"""Make a page that shows the scenes, errors and metrics of an evaluation, and opens from disk."""

import time
from pathlib import Path

import click

from experiments.options import (
    Also,
    Command,
    check_evaluation_options,
    evaluation_options,
    overwrite_option,
)


@click.command(cls=Command)
@evaluation_options
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images that --predictions were made of, shown beneath them.",
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

    It has the metrics that evaluate.py prints, curves, the confusion matrix and how much the masks
    cover; and every scene to pan and zoom, with a swipe between image, truth, prediction and
    errors. Open index.html in a browser: it needs neither server nor network.

    \b
    python experiments/report.py --data data
    python experiments/report.py --predictions results --labels my_labels --images my_images
    """  # noqa: D301 (click takes the control character itself)
    from experiments.recipes import scenes_of
    from jointnet.mask_evaluation import MaskMeasures, probabilities_beside
    from jointnet.report import report_masks, report_run
    from jointnet.report_page import PAGE, SCRIPT
    from jointnet.runs import load_run
    from jointnet.thresholds import ProbabilityHistogram
    from preprocessing.output_files import refuse_existing_folder

    check_evaluation_options(predictions, labels, where, buffer_m, align)
    if predictions is None and images is not None:
        raise click.UsageError("--images is for --predictions; a model is shown on its own scenes")
    folder = output or (predictions or model) / "report"
    refuse_existing_folder(folder, overwrite, SCRIPT)
    began = time.monotonic()
    if predictions is not None:
        beside, note = probabilities_beside(predictions)
        if note:
            click.echo(note)
        measures = MaskMeasures(
            also.relaxed_buffer, beside, ProbabilityHistogram(), also.objects, align
        )
        content = report_masks(
            predictions, labels, folder, images, where, buffer_m, measures, overwrite
        )
    else:
        run = load_run(model)
        scenes, buffer = scenes_of(run, data), also.relaxed_buffer
        content = report_run(run, scenes, folder, buffer, augment, also.objects, overwrite)
    number = len({row["name"] for row in content["scenes"]})
    click.echo(f"{number} scenes in {time.monotonic() - began:.0f} s: open {folder / PAGE}")


if __name__ == "__main__":
    main()
