"""The options that the training commands share."""

from collections.abc import Callable
from pathlib import Path

import click

from experiments import recipes
from experiments.options import (
    Command,
    buffer_option,
    data_option,
    parse_part,
    parse_validation,
    where_option,
)
from jointnet.settings import PRECISIONS


def parse_run(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no plain folder name: runs lie directly in results/."""
    if value is not None and (Path(value).name != value or not value):
        raise click.BadParameter(f"{value!r} is no plain name; runs lie directly in results/")
    return value


def _parse_process(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int] | str | None:
    return value if value == "auto" else parse_part(context, option, value)


_OPTIONS = (
    click.option(
        "--recipe",
        "name",
        type=click.Choice(list(recipes.RECIPES)),
        help="What to train.  [default: what --store holds, if it exists; else inria_buildings "
        "where Inria lies in the data folder, else sample]",
    ),
    data_option,
    click.option(
        "--store",
        type=click.Path(path_type=Path),
        help="Patch store to train from; cut from the data where it does not exist.  "
        "[default: a folder in <data>/patches named after recipe and split]",
    ),
    click.option(
        "--run",
        callback=parse_run,
        help="Name of the run folder in results/.  [default: named after the recipe]",
    ),
    click.option(
        "--from",
        "initial",
        type=click.Path(path_type=Path),
        metavar="RUN",
        help="Begin with the network and weights of another run, such as results/open_buildings.",
    ),
    click.option("--resume", is_flag=True, help="Go on with a run that was interrupted."),
    click.option(
        "--validation", callback=parse_validation, help="Tiles held back: 1,2 or austin1,..."
    ),
    where_option,
    buffer_option,
    click.option("--epochs", type=click.IntRange(1), help="Another number of epochs."),
    click.option("--steps", type=click.IntRange(1), help="Another number of batches per epoch."),
    click.option("--batch-size", type=click.IntRange(1), help="Another batch size."),
    click.option(
        "--micro-batch-size",
        type=click.IntRange(1),
        help="Samples in memory at a time; the gradients of a batch are added up over its parts.",
    ),
    click.option(
        "--rematerialise",
        type=click.Choice(["concatenations", "blocks"]),
        help="What is computed again for the gradients, not held: less memory, more time.",
    ),
    click.option(
        "--store-on-device",
        is_flag=True,
        default=None,
        help="Hold the patches in the memory of the GPU; crop, turn and recolour them there.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Another precision; mixed_bfloat16 is faster and takes half of the memory, "
        "mixed_float16 is for GPUs without it.",
    ),
    click.option(
        "--early-stopping", type=click.IntRange(1), help="Stop after N epochs without gain."
    ),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Another seed."),
    click.option(
        "--devices",
        type=click.IntRange(1),
        metavar="N",
        help="Devices of this host that share each batch.  [default: all accelerators]",
    ),
    click.option(
        "--process",
        callback=_parse_process,
        metavar="K/N",
        help="Train together with other processes, as the K-th of N (JAX, --store on a disk that "
        "all see); auto where the cluster's scheduler says which.",
    ),
    click.option(
        "--coordinator", metavar="HOST:PORT", help="Where all reach process 1, with --process K/N."
    ),
)


def training_command(function: Callable[..., None]) -> click.Command:
    """Make a command of a function that gives the options on to ``train_by_options``.

    What the network has for options of its own stands under this decorator as ``click.option``.
    """
    for option in reversed(_OPTIONS):
        function = option(function)
    return click.command(cls=Command, context_settings={"show_default": True})(function)
