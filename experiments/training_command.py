"""The options that the training commands share."""

import dataclasses
import hashlib
import json
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
from experiments.recipes import stored_recipe
from jointnet.distribution import Devices, choose_devices, join, joins_by_environment
from jointnet.model import JointNet
from jointnet.recipe import check_folder, prepare_store, refuse_other_scenes, train_recipe
from jointnet.resnet import ResNetUNet
from jointnet.runs import load_run
from jointnet.training_settings import PRECISIONS
from preprocessing.errors import StoreError
from preprocessing.layouts import patch_note
from preprocessing.patch_store import PatchStore, open_store


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


RESULTS = Path("results")


def choose_recipe(name: str | None, data: Path, labels: dict) -> recipes.Recipe:
    """The named recipe; without a name Inria where it lies, else generated scenes.

    Says which of the two it is in one line. ``labels`` are the arguments of ``polygons``.
    """
    if name == "polygons":
        return recipes.polygons(**labels)
    if any(value is not None for value in labels.values()):
        raise click.UsageError("--where and --buffer-m belong to --recipe polygons")
    if name is not None:
        return recipes.RECIPES[name]()
    images = data / "AerialImageDataset" / "train" / "images"
    if images.is_dir():
        click.echo(
            f"Training on Inria in {images} (recipe inria_buildings): meant for a GPU, days on a "
            "CPU; --recipe sample takes minutes."
        )
        return recipes.inria_buildings()
    click.echo(
        f"No Inria in {images}: training on generated sample scenes instead "
        "(recipe sample); README.md says how to get Inria."
    )
    return recipes.sample()


def polygon_report(store: PatchStore) -> list[str]:
    """One line on what became of the polygons of a store's scenes; none without polygons."""
    counts = [s["polygons"] for s in store.manifest["scenes"] if s.get("polygons")]
    if not counts:
        return []
    totals = {name: sum(count[name] for count in counts) for name in counts[0]}
    named = ", ".join(f"{number} {name}" for name, number in totals.items())
    return [f"polygons of {len(counts)} scenes: {named}"]


def run_folder(base: str, name: str | None, resume: bool) -> Path:
    """Folder of the run: as named, else ``base`` with the first free number.

    With ``resume`` it is the latest that exists.
    """
    if name is not None:
        return RESULTS / name
    folder, number = RESULTS / base, 1
    while (following := RESULTS / (base if number == 1 else f"{base}-{number}")).exists():
        folder, number = following, number + 1
    return folder if resume else following


def default_store(recipe: recipes.Recipe, data: Path, *labels: object) -> Path:
    """A store folder of its own for each way to cut and label, so that none passes for another."""
    key = json.dumps([dataclasses.asdict(recipe.patches), recipe.validation, *labels])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return data / "patches" / f"{recipe.name}-{digest}"


def train_by_options(
    network: type[JointNet] | type[ResNetUNet],
    adapt: Callable[[recipes.Recipe], recipes.Recipe],
    suffix: str = "",
    *,
    name: str | None,
    data: Path,
    store: Path | None,
    run: str | None,
    initial: Path | None,
    resume: bool,
    validation: list[int | str] | float | None,
    where: str | None,
    buffer_m: float | None,
    steps: int | None,
    devices: int | None,
    process: tuple[int, int] | str | None,
    coordinator: str | None,
    **overrides: int | str | None,
) -> None:
    """Choose the recipe, cut or open its patches, and train.

    Args:
        network: class of the network.
        adapt: what the network's own options do to the recipe.
        suffix: what the names of the network's run folders have after the recipe's.
        name: name of the recipe, None to choose one by the store or the data.
        data: folder of the data sets.
        store: patch store, None for one in the data folder.
        run: name of the run folder, None for one after the recipe.
        initial: run folder to begin with, None for the recipe's network.
        resume: go on with a run.
        validation: what is held back, None for the recipe's split.
        where: see ``recipes.polygons``.
        buffer_m: see ``recipes.polygons``.
        steps: batches per epoch, None for the recipe's.
        devices: number of devices, None for all.
        process: number of this process and of all, or ``"auto"``; None for one alone.
        coordinator: where the first of them is reached.
        overrides: training settings that differ from the recipe's, None for those that do not.

    Raises:
        JointNetError: of every kind, see ``recipe``.
        click.UsageError: options that do not go together.
    """
    if isinstance(validation, float):
        raise click.UsageError(
            f"--validation {validation}: name tiles, such as 1,2; shares are for prepare.py"
        )
    labels = {"where": where, "buffer_m": buffer_m}
    if name is None and store is not None and store.exists():
        recipe = stored_recipe(open_store(store))
    else:
        recipe = choose_recipe(name, data, labels)
    changes = {**overrides, "steps_per_epoch": steps}
    try:
        recipe = recipe.with_training(**{k: v for k, v in changes.items() if v is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = _choose_devices(recipe, store, devices, process, coordinator)
    recipe = dataclasses.replace(adapt(recipe), validation=validation, initial=initial)
    folder = run_folder(recipe.name + suffix, run, resume)
    check_folder(folder, resume)
    if initial is not None:
        # Before patches are cut for a run that cannot begin.
        load_run(initial)
    if store is not None and store.exists() and (validation, where, buffer_m) != (None, None, None):
        raise StoreError(
            f"{store} exists, its split and labels are fixed; leave --validation, --where and "
            "--buffer-m out, or name another store"
        )
    if chosen.process:
        train_recipe(recipe, open_store(store), folder, resume, network, chosen)
        return
    cut = store or default_store(recipe, data, where, buffer_m)
    patches = prepare_store(recipe, data, cut)
    if store is None:
        # A store that was named may be all there is, on a machine without the data.
        refuse_other_scenes(patches, recipe, data)
        if note := patch_note(recipe.scenes(data, recipe.validation)):
            click.echo(f"note: {note}")
    click.echo(
        f"{len(patches.train)} training and {len(patches.validation)} validation patches in "
        f"{cut}; the run is written to {folder}"
    )
    for line in polygon_report(patches):
        click.echo(line)
    if line := chosen.line(recipe.training.samples_at_a_time):
        click.echo(line)
    train_recipe(recipe, patches, folder, resume, network, chosen)


def _choose_devices(
    recipe: recipes.Recipe,
    store: Path | None,
    devices: int | None,
    process: tuple[int, int] | str | None,
    coordinator: str | None,
) -> Devices:
    """What the options say, joined with the other processes."""
    if (coordinator is None) != (process is None or process == "auto"):
        raise click.UsageError("--process K/N and --coordinator HOST:PORT go together")
    if process is not None or joins_by_environment():
        if devices is not None:
            raise click.UsageError(
                "--devices is for one process: of several, all devices of each take part"
            )
        if store is None or not store.exists():
            raise click.UsageError(
                "several processes train from a store that exists: cut it with prepare.py "
                "--output, and name it with --store"
            )
        join(None if process == "auto" else process, coordinator)
    return choose_devices(recipe.training.samples_at_a_time, devices)
