"""What all commands share: options defined once, and errors as one line with exit code 2."""

import math
import sys
from pathlib import Path
from typing import Any

import click

from preprocessing.errors import JointNetError

DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "results" / "open_buildings"


class Command(click.Command):
    """A command whose every error is one line on standard error, and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> None:
        """Run the command and exit: 0 done, 2 wrong input or machine, 130 interrupted."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.Abort:
            sys.exit(130)
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


model_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=DEFAULT_MODEL,
    show_default="the weights that come with the project",
    help="Run folder of a trained network, such as results/<run>.",
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
