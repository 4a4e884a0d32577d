"""The options of the commands that measure: a network on its scenes, or finished masks."""

from collections.abc import Callable
from pathlib import Path

import click

from experiments.options import (
    PROBABILITY,
    augment_option,
    buffer_option,
    data_option,
    given,
    model_option,
    where_option,
)
from jointnet.evaluation import THRESHOLDS

# Matching takes time in proportion; more than this is a slip of the keyboard.
LARGEST_BUFFER = 100

_OPTIONS = (
    model_option,
    data_option,
    click.option(
        "--predictions",
        type=click.Path(path_type=Path),
        help="Folder of finished masks, instead of a model; needs --labels.",
    ),
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="Folder of their labels: rasters, or vector files; or one vector file for all.",
    ),
    where_option,
    buffer_option,
    click.option(
        "--probabilities",
        type=click.Path(path_type=Path),
        help="Folder of the probabilities that --predictions were made of "
        "(<stem>_probabilities.tif, as infer.py --probabilities writes them): for all "
        "thresholds, calibration and AP50.",
    ),
    click.option(
        "--align",
        is_flag=True,
        help="Bring predictions of another size or place onto the pixels of their label rasters, "
        "by nearest neighbour; without, they are refused.",
    ),
    click.option(
        "--threshold",
        "thresholds",
        type=PROBABILITY,
        multiple=True,
        default=THRESHOLDS,
        show_default="0.5 and 0.6",
        help="Probability from which a pixel counts as target; may be given several times.",
    ),
    click.option(
        "--relaxed-buffer",
        type=click.IntRange(0, LARGEST_BUFFER),
        metavar="PX",
        help="Also measure completeness, correctness and quality, for which pixels match that are "
        "up to so many pixels apart.  [default: 3 for a model of roads]",
    ),
    augment_option,
    click.option(
        "--objects",
        is_flag=True,
        help="Also measure objects: precision, recall and F1 at IoU 0.5, AP50, boundary IoU, "
        "PoLiS, errors of count and area. Up to half a minute for 5000 x 5000 pixels and a "
        "threshold.",
    ),
)


def evaluation_options(command: Callable) -> Callable:
    """The options that say what is measured, by what, and how.

    The command gets ``model``, ``data``, ``predictions``, ``labels``, ``where``, ``buffer_m``,
    ``probabilities``, ``align``, ``thresholds``, ``relaxed_buffer``, ``augment`` and ``objects``.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_evaluation_options(
    predictions: Path | None,
    labels: Path | None,
    where: str | None,
    buffer_m: float | None,
    probabilities: Path | None,
    align: bool,
) -> None:
    """Refuse options of the running command that do not go together.

    Raises:
        click.UsageError: options for finished masks without these, or the other way round.
    """
    if (predictions is None) != (labels is None):
        raise click.UsageError("--predictions and --labels go together")
    if predictions is not None and any(map(given, ("model", "target", "thresholds", "augment"))):
        raise click.UsageError(
            "--predictions are finished masks: --model, --target, --threshold and --augment do not "
            "apply"
        )
    if predictions is None and (where, buffer_m) != (None, None):
        raise click.UsageError(
            "--where and --buffer-m are for --labels; a model's validation scenes are labelled "
            "as they were in training"
        )
    if predictions is None and (align or probabilities is not None):
        raise click.UsageError("--align and --probabilities are for --predictions")
