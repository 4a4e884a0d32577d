"""Measure a trained network, or finished masks, against labels."""

from pathlib import Path

import click

from experiments.options import (
    Command,
    check_evaluation_options,
    evaluation_options,
    overwrite_option,
)
from experiments.recipes import scenes_of
from jointnet.evaluation import (
    evaluate_run,
    evaluation_notes,
    evaluation_text,
    refuse_tables,
    write_evaluation,
)
from jointnet.mask_evaluation import MaskMeasures, evaluate_masks
from jointnet.runs import load_run
from jointnet.thresholds import ProbabilityHistogram


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
    refuse_tables(folder, "evaluation", overwrite)
    histogram = ProbabilityHistogram()
    if predictions is not None:
        measures = MaskMeasures(relaxed_buffer, probabilities, histogram, objects, align)
        records = evaluate_masks(predictions, labels, where, buffer_m, measures=measures)
    else:
        chosen, run = tuple(sorted(set(thresholds))), load_run(model)
        scenes = scenes_of(run, data)
        records = evaluate_run(run, scenes, chosen, relaxed_buffer, augment, histogram, objects)
    for note in evaluation_notes(records):
        click.echo(note)
    click.echo(evaluation_text(write_evaluation(folder, records, histogram)))


if __name__ == "__main__":
    main()
