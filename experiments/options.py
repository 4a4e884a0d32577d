"""What all commands share: options defined once, and errors as one line with exit code 2."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from jointnet.evaluation import THRESHOLDS
from preprocessing.errors import Interrupted, JointNetError

RESULTS = Path(__file__).resolve().parents[1] / "results"
SHIPPED = {"buildings": RESULTS / "open_buildings", "roads": RESULTS / "open_roads"}


class OneLineErrors(click.Command):
    """Say every error in one line on standard error, and exit with code 2."""

    def main(self, *args: Any, **kwargs: Any) -> None:
        """Run the command and exit: 0 done, 2 wrong input or machine, 128 + n stopped by signal n.

        That is 130 after Ctrl-C, 143 after SIGTERM.
        """
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.Abort:
            sys.exit(130)
        except Interrupted as stopped:
            click.echo(str(stopped), err=True)
            sys.exit(128 + stopped.signal)
        except click.ClickException as error:
            _fail(error.format_message())
        except JointNetError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.filename or 'file system'}: {error.strerror or error}")
        sys.exit(code if isinstance(code, int) else 0)


class Command(OneLineErrors):
    """A script of this folder."""


def _fail(message: str) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)


class Probability(click.FloatRange):
    """A number from 0 to 1; unlike its base it refuses ``nan``, which no comparison does."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Turn text into the number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no probability; give a number from 0 to 1", param, ctx)
        return number


PROBABILITY = Probability(0, 1)


def given(name: str) -> bool:
    """Whether the user gave the parameter of the running command, rather than its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def parse_bands(
    context: click.Context, option: click.Parameter, value: str | None
) -> list[int] | None:
    """Turn ``"4,3,2"`` into numbers.

    Raises:
        click.BadParameter: something else than numbers from 1 with commas between them.
    """
    parts = value.split(",") if value is not None else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} are no band numbers from 1; write them as in 4,3,2")
    return [int(part) for part in parts] or None


def parse_part(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Turn ``"3/8"`` into numbers.

    Raises:
        click.BadParameter: not the form K/N with K from 1 to N.
    """
    if value is None:
        return None
    part, _, parts = value.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise click.BadParameter(f"{value!r} is no part; write 3/8 for the third of eight")
    return int(part), int(parts)


def parse_gsd(
    context: click.Context, option: click.Parameter, value: str | None
) -> float | str | None:
    """Turn ``"0.3"`` into metres; ``"native"`` stays.

    Raises:
        click.BadParameter: neither that word nor a number above 0.
    """
    if value is None or value == "native":
        return value
    try:
        metres = float(value)
    except ValueError:
        metres = math.nan
    if not 0 < metres < math.inf:
        raise click.BadParameter(f"{value!r} is neither metres per pixel nor 'native'")
    return metres


def parse_validation(
    context: click.Context, option: click.Parameter, value: str | None
) -> list[int | str] | float | None:
    """Turn ``"1,2,austin7"`` into indices and names, and ``"0.2"`` into a share.

    Raises:
        click.BadParameter: nothing between the commas.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]*\.[0-9]+", value.strip()):
        return float(value)
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise click.BadParameter("give tile numbers or names, such as 1,2 or austin1,chicago3")
    return [int(part) if part.isdecimal() else part for part in parts]


def _choose_target(context: click.Context, option: click.Parameter, value: str) -> None:
    context.meta["target"] = value


def _choose_model(context: click.Context, option: click.Parameter, value: Path | None) -> Path:
    if value is not None and given("target"):
        raise click.UsageError(
            "--target chooses among the weights that come with the project; leave it or --model out"
        )
    return value or SHIPPED[context.meta["target"]]


# Eager: the choice of the model needs it.
_target_option = click.option(
    "--target",
    type=click.Choice(list(SHIPPED)),
    default="buildings",
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_choose_target,
    help="What to look for with the weights that come with the project.",
)
_model_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    callback=_choose_model,
    help="Run folder of a trained network, such as results/<run>.  [default: the weights that "
    "come with the project, by --target]",
)


def model_option(command: Callable) -> Callable:
    """Options ``--target`` and ``--model``; the command gets ``model``, a run folder."""
    return _target_option(_model_option(command))


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder of the data sets; Inria lies in AerialImageDataset under it.",
)
threshold_option = click.option(
    "--threshold",
    type=PROBABILITY,
    default=None,
    show_default="that of the model, 0.6",
    help="Probability from which a pixel counts as target.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace outputs that exist already."
)
where_option = click.option(
    "--where", help="Features of vector labels that count, in SQL: \"building = 'yes'\"."
)
buffer_option = click.option(
    "--buffer-m",
    type=click.FloatRange(0, min_open=True),
    help="Half width, in metres, of vector labels that are lines.",
)
augment_option = click.option(
    "--augment",
    is_flag=True,
    help="Mean over the eight flips and rotations of every window: eight times the time.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the bands of an image; each takes the memory of one.",
)


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
