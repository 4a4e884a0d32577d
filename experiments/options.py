"""What all commands share: options defined once, and errors as one line with exit code 2."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from preprocessing.errors import Interrupted, JointNetError

RESULTS = Path(__file__).resolve().parents[1] / "results"
SHIPPED = {"buildings": RESULTS / "open_buildings", "roads": RESULTS / "open_roads"}


class Command(click.Command):
    """A command whose every error is one line on standard error, and exit code 2."""

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
