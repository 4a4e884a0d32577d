"""Measure a trained network, or finished masks, against labels."""

from pathlib import Path

import click

from experiments.options import (
    PROBABILITY,
    Also,
    Command,
    check_evaluation_options,
    evaluation_options,
    overwrite_option,
)


@click.command(cls=Command)
@evaluation_options
@click.option(
    "--threshold",
    "thresholds",
    type=PROBABILITY,
    multiple=True,
    help="Probability from which a pixel counts as target; may be given several times.  "
    "[default: 0.5 and 0.6]",
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
    where: str | None,
    buffer_m: float | None,
    align: bool,
    augment: bool,
    also: Also,
    thresholds: tuple[float, ...],
    output: Path | None,
    overwrite: bool,
) -> None:
    """Measure a trained network on its validation scenes, or finished masks against labels.

    It prints accuracy, precision, recall, F1 and IoU of the target class from pixel counts added
    over all scenes, per place and overall. Void pixels count nowhere; where neither truth nor
    prediction has target, the ratios are 1; where only one of them has, IoU is 0. For roads, whose
    labels are often a few pixels off, it adds relaxed recall (completeness), relaxed precision
    (correctness) and quality. Then come IoU and accuracy by the three protocols that publications
    on Inria use and, where there are probabilities, the best threshold, what others cost, and
    calibration.

    \b
    python experiments/evaluate.py --data data
    python experiments/evaluate.py --predictions results --labels my_labels
    python experiments/evaluate.py --predictions results --labels lines.gpkg --buffer-m 4
    python experiments/evaluate.py --predictions results --labels my_labels --also objects --align
    """  # noqa: D301 (click takes the control character itself)
    from experiments.recipes import scenes_of
    from jointnet import evaluation
    from jointnet.mask_evaluation import MaskMeasures, evaluate_masks, probabilities_beside
    from jointnet.runs import load_run
    from jointnet.thresholds import ProbabilityHistogram

    check_evaluation_options(predictions, labels, where, buffer_m, align)
    folder, histogram = output or predictions or model, ProbabilityHistogram()
    evaluation.refuse_tables(folder, "evaluation", overwrite)
    if predictions is not None:
        beside, note = probabilities_beside(predictions)
        measures = MaskMeasures(also.relaxed_buffer, beside, histogram, also.objects, align)
        records = evaluate_masks(predictions, labels, where, buffer_m, measures)
        notes = [note] if note else []
    else:
        run, notes = load_run(model), []
        records = evaluation.evaluate_run(
            run,
            scenes_of(run, data),
            sorted(set(thresholds or evaluation.THRESHOLDS)),
            also.relaxed_buffer,
            augment,
            histogram,
            also.objects,
        )
    for line in [*notes, *evaluation.evaluation_notes(records)]:
        click.echo(line)
    content = evaluation.write_evaluation(folder, records, histogram)
    click.echo(evaluation.evaluation_text(content))


if __name__ == "__main__":
    main()
