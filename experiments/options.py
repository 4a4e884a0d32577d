"""What all commands share: options defined once, and errors as one line with exit code 2."""

import math
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

from preprocessing.errors import Interrupted, JointNetError, one_line

PROJECT_RESULTS = Path(__file__).resolve().parents[1] / "results"
"""The runs that come with the project."""
SHIPPED = {
    "buildings": PROJECT_RESULTS / "open_buildings",
    "roads": PROJECT_RESULTS / "open_roads",
}
# What does now what options of earlier versions did.
_REPLACED = {
    "--epochs": "--set epochs=N",
    "--steps": "--set steps_per_epoch=N",
    "--micro-batch-size": "--set micro_batch_size=N",
    "--rematerialise": "--set rematerialise=WHAT",
    "--early-stopping": "--set early_stopping=N",
    "--seed": "--set seed=N",
    "--variant": "--set variant=NAME",
    "--backbone": "--set variant=NAME",
    "--weights": "--from",
    "--devices": "CUDA_VISIBLE_DEVICES",
    "--process": "KERAS_DISTRIBUTION_PROCESS_ID",
    "--coordinator": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "--part": "--workers or --dask",
    "--objects": "--also objects",
    "--relaxed-buffer": "--also relaxed:PX",
    "--check": "--layout inria",
    "--stride": "--patch-size SIZE,STRIDE",
    "--window": "--patch-size SIZE,STRIDE,WINDOW",
}


class Command(click.Command):
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
        except click.NoSuchOption as error:
            replaced = _REPLACED.get(error.option_name)
            hint = f"; give {replaced} instead" if replaced else "."
            _fail(error.format_message().rstrip(".") + hint)
        except click.ClickException as error:
            _fail(error.format_message())
        except JointNetError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.filename or 'file system'}: {error.strerror or error}")
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    click.echo(f"error: {one_line(message)}", err=True)
    sys.exit(2)


class Probability(click.FloatRange):
    """A number from 0 to 1; ``nan``, which passes every comparison, is refused."""

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
    """Return whether the user gave a parameter of the running command, rather than its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def parse_bands(
    context: click.Context, option: click.Parameter, value: str | None
) -> list[int] | None:
    """Turn ``"4,3,2"`` into numbers."""
    parts = value.split(",") if value is not None else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} are no band numbers from 1; write them as in 4,3,2")
    return [int(part) for part in parts] or None


def parse_gsd(
    context: click.Context, option: click.Parameter, value: str | None
) -> float | str | None:
    """Turn ``"0.3"`` into metres; ``"native"`` stays."""
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
    """Turn ``"1,2,austin7"`` into indices and names, and ``"0.2"`` into a share."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]*\.[0-9]+", value.strip()):
        return float(value)
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise click.BadParameter("give tile numbers or names, such as 1,2 or austin1,chicago3")
    return [int(part) if part.isdecimal() else part for part in parts]


def parse_model(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Path:
    """Turn ``buildings`` or ``roads`` into the shipped run folder; another value is a path."""
    if len(values) > 1:
        raise click.BadParameter(f"got {', '.join(values)}; give --model once")
    word = values[0] if values else "buildings"
    return SHIPPED.get(word, Path(word))


model_option = click.option(
    "--model",
    "--target",
    "model",
    # Several are refused, where click would take the last in silence.
    multiple=True,
    metavar="MODEL",
    callback=parse_model,
    help="The network: buildings or roads for the weights that come with the project, or a run "
    "folder such as results/my_run.  [default: buildings]",
)
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


def sharing_options(command: Callable) -> Callable:
    """Add ``--workers`` and ``--dask``; the command gets ``workers`` and ``cluster``."""

    @click.option(
        "--workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Processes of this machine that share each image; each takes the memory of one.",
    )
    @click.option(
        "--dask",
        "cluster",
        metavar="ADDRESS",
        help="Scheduler of a Dask cluster that predicts in place of this process, such as "
        "tcp://node1:8786; its workers see the same files.",
    )
    @wraps(command)
    def checked(*args: Any, cluster: str | None, **others: Any) -> Any:
        if cluster is not None and given("workers"):
            raise click.UsageError("--workers and --dask: give one of them")
        return command(*args, cluster=cluster, **others)

    return checked


# Matching takes time in proportion; more than this is a slip of the keyboard.
LARGEST_BUFFER = 100


class Also(NamedTuple):
    """What is measured beside pixels: objects, and matches within a buffer in pixels."""

    objects: bool = False
    relaxed_buffer: int | None = None


def parse_also(context: click.Context, option: click.Parameter, value: str | None) -> Also:
    """Turn ``"objects,relaxed:5"`` into ``Also``; ``"relaxed"`` alone means 3 pixels."""
    also = Also()
    for word in value.split(",") if value is not None else []:
        name, colon, pixels = word.strip().partition(":")
        pixels = pixels if colon else "3"
        if (name, colon) == ("objects", ""):
            also = also._replace(objects=True)
        elif name == "relaxed" and pixels.isdecimal() and int(pixels) <= LARGEST_BUFFER:
            also = also._replace(relaxed_buffer=int(pixels))
        else:
            raise click.BadParameter(
                f"{word!r} is none of objects, relaxed and relaxed:PX, PX from 0 to "
                f"{LARGEST_BUFFER}"
            )
    return also


_EVALUATION_OPTIONS = (
    model_option,
    data_option,
    click.option(
        "--predictions",
        type=click.Path(path_type=Path),
        help="Folder of finished masks, in place of a model; needs --labels. Probabilities beside "
        "them (<stem>_probabilities.tif) are used.",
    ),
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="Folder of their labels, rasters or vector files; or one vector file for all.",
    ),
    where_option,
    buffer_option,
    click.option(
        "--align",
        is_flag=True,
        help="Bring predictions of another size or place onto their labels' pixels, by nearest "
        "neighbour; without, they are refused.",
    ),
    augment_option,
    click.option(
        "--also",
        metavar="WORDS",
        callback=parse_also,
        help="Measure more: objects (precision, recall, F1, AP50, boundary IoU, PoLiS), relaxed "
        "(completeness, correctness, quality within 3 pixels; relaxed:5 within 5); with a comma "
        "both.  [default: relaxed for a model of roads]",
    ),
)


def evaluation_options(command: Callable) -> Callable:
    """Add the options that say what is measured, by what, and how.

    The command gets ``model``, ``data``, ``predictions``, ``labels``, ``where``, ``buffer_m``,
    ``align``, ``augment`` and ``also``.
    """
    for option in reversed(_EVALUATION_OPTIONS):
        command = option(command)
    return command


def check_evaluation_options(
    predictions: Path | None,
    labels: Path | None,
    where: str | None,
    buffer_m: float | None,
    align: bool,
) -> None:
    """Refuse options for finished masks without these, and the other way round."""
    if (predictions is None) != (labels is None):
        raise click.UsageError("--predictions and --labels go together")
    if predictions is not None and any(map(given, ("model", "thresholds", "augment"))):
        raise click.UsageError(
            "--predictions are finished masks: --model, --threshold and --augment do not apply"
        )
    if predictions is None and (where, buffer_m) != (None, None):
        raise click.UsageError(
            "--where and --buffer-m are for --labels; a model's validation scenes are labelled "
            "as they were in training"
        )
    if predictions is None and align:
        raise click.UsageError("--align is for --predictions")
