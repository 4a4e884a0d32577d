"""The options of the training commands, and how they become a run."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import click

from experiments import recipes
from experiments.options import Command, buffer_option, data_option, parse_validation, where_option
from jointnet.training_settings import PRECISIONS, Recipe, TrainingSettings
from preprocessing.errors import StoreError
from preprocessing.layouts import patch_note
from preprocessing.patch_store import PatchStore, open_store

if TYPE_CHECKING:
    from jointnet.distribution import Devices
    from jointnet.model import PixelNetwork

RESULTS = Path("results")
# What --set changes. The rest has options of its own, or belongs to the recipe with its data:
# sizes of crops, augmentation, shares of sources.
SETTABLE = (
    *("epochs", "steps_per_epoch", "micro_batch_size", "rematerialise", "early_stopping", "seed"),
    *("learning_rate", "schedule", "warmup_steps", "weight_decay", "weight_average", "loss"),
    *("target_weight", "focal_alpha", "cross_entropy_alpha", "threshold", "variant"),
)


def parse_run(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a path in place of a name."""
    if value is not None and (Path(value).name != value or not value):
        raise click.BadParameter(f"{value!r} is no plain name; runs lie directly in results/")
    return value


def parse_settings(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Turn texts such as ``"epochs=20"`` into settings."""
    return dict(_parse_setting(text) for text in values)


def _parse_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if name in ("batch_size", "precision"):
        raise click.UsageError(f"--set {name}: give --{name.replace('_', '-')}")
    if name not in SETTABLE:
        raise click.UsageError(f"--set {text}: no such setting; there are {', '.join(SETTABLE)}")
    if not equals:
        raise click.UsageError(f"--set {text}: has no value; write {name}=VALUE")
    hint = get_type_hints(TrainingSettings).get(name, str)
    kinds = get_args(hint) or (hint,)
    if value == "none" and NoneType in kinds:
        return name, None
    try:
        return name, kinds[0](value)
    except ValueError:
        wanted = "a whole number" if kinds[0] is int else "a number"
        raise click.UsageError(f"--set {text}: not {wanted}") from None


def _options(start: str) -> tuple[Callable, ...]:
    return (
        click.option(
            "--recipe",
            "name",
            type=click.Choice(list(recipes.RECIPES)),
            help="What to train.  [default: what --store holds, if it exists; else "
            "inria_buildings where Inria lies in the data folder, else sample]",
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
            "--from", "initial", type=click.Path(path_type=Path), metavar="RUN", help=start
        ),
        click.option("--resume", is_flag=True, help="Go on with a run that was interrupted."),
        click.option(
            "--validation", callback=parse_validation, help="Tiles held back: 1,2 or austin1,..."
        ),
        where_option,
        buffer_option,
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            help="Samples in a batch.  [default: the recipe's]",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            help="mixed_bfloat16 is faster and takes half of the memory; mixed_float16 is for "
            "GPUs without it.  [default: the recipe's]",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            callback=parse_settings,
            help="Change another setting of the recipe, such as epochs=20 or "
            "rematerialise=blocks; may be given several times.",
        ),
    )


def training_command(start: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a training command of a function; ``start`` is the help of ``--from``."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for option in reversed(_options(start)):
            function = option(function)
        return click.command(cls=Command, context_settings={"show_default": True})(function)

    return decorate


def choose_recipe(name: str | None, data: Path, labels: dict) -> Recipe:
    """Return the named recipe; without a name choose Inria's or ``sample``, and say which.

    ``labels`` are the arguments of ``recipes.polygons``.
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


def describe_polygons(store: PatchStore) -> list[str]:
    """Return a line on what became of the store's vector labels; [] without any."""
    counts = [s["polygons"] for s in store.manifest["scenes"] if s.get("polygons")]
    if not counts:
        return []
    of = {name: sum(count[name] for count in counts) for name in counts[0]}
    used = of["read"] - of["dropped"] - of["outside"]
    line = (
        f"vector labels of {len(counts)} scenes: {used} of {of['read']} polygons used "
        f"({of['partly']} partly outside the raster), {of['repaired']} repaired, "
        f"{of['dropped']} dropped, {of['outside']} outside"
    )
    return [line]


def run_folder(base: str, name: str | None, resume: bool) -> Path:
    """Return the named folder, else ``base`` with the first free number (to resume: the last)."""
    if name is not None:
        return RESULTS / name
    folder, number = RESULTS / base, 1
    while (following := RESULTS / (base if number == 1 else f"{base}-{number}")).exists():
        folder, number = following, number + 1
    return folder if resume else following


def default_store(recipe: Recipe, data: Path, *labels: object) -> Path:
    """Return the store folder for a way of cutting and labelling."""
    key = json.dumps([asdict(recipe.patches), recipe.validation, *labels])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return data / "patches" / f"{recipe.name}-{digest}"


def train_by_options(
    network: "type[PixelNetwork]",
    initial: Path | None,
    adapt: Callable[[Recipe], Recipe] = lambda recipe: recipe,
    suffix: str = "",
    *,
    name: str | None,
    data: Path,
    store: Path | None,
    run: str | None,
    resume: bool,
    validation: list[int | str] | float | None,
    where: str | None,
    buffer_m: float | None,
    settings: dict[str, Any],
    **overrides: int | str | None,
) -> None:
    """Choose the recipe, cut or open its patches, and train.

    ``initial`` is the run folder to begin with. ``adapt`` fits a recipe to the network, and
    ``suffix`` ends the names of its run folders. The rest are the commands' options: ``name`` is
    ``--recipe``, ``settings`` is ``--set``, ``overrides`` are settings with their own options.

    Raises:
        JointNetError: of every kind, see ``jointnet.recipe``.
        click.UsageError: options that do not go together.
    """
    from jointnet.recipe import check_folder, prepare_store, refuse_other_scenes, train_recipe
    from jointnet.runs import load_run

    if isinstance(validation, float):
        raise click.UsageError(
            f"--validation {validation}: name tiles, such as 1,2; shares are for prepare.py"
        )
    labels = {"where": where, "buffer_m": buffer_m}
    if name is None and store is not None and store.exists():
        recipe = recipes.stored_recipe(open_store(store))
    else:
        recipe = choose_recipe(name, data, labels)
    recipe = adapt(_change(recipe, settings, overrides, network, initial))
    devices = _choose_devices(recipe, store)
    recipe = replace(recipe, validation=validation, initial=initial)
    folder = run_folder(recipe.name + suffix, run, resume)
    check_folder(folder, resume)
    if initial is not None:
        # Fails before patches are cut for a run that cannot begin.
        load_run(initial)
    if store is not None and store.exists() and (validation, where, buffer_m) != (None, None, None):
        raise StoreError(
            f"{store} exists, its split and labels are fixed; leave --validation, --where and "
            "--buffer-m out, or name another store"
        )
    if devices.process:
        train_recipe(recipe, open_store(store), folder, resume, network, devices)
        return
    cut = store or default_store(recipe, data, where, buffer_m)
    patches = prepare_store(recipe, data, cut)
    if store is None:
        # With a named store, the data may be elsewhere.
        refuse_other_scenes(patches, recipe, data)
        if note := patch_note(recipe.scenes(data, recipe.validation)):
            click.echo(f"note: {note}")
    click.echo(
        f"{len(patches.train)} training and {len(patches.validation)} validation patches in "
        f"{cut}; the run is written to {folder}"
    )
    for line in describe_polygons(patches):
        click.echo(line)
    if line := devices.describe(recipe.training.samples_at_a_time):
        click.echo(line)
    train_recipe(recipe, patches, folder, resume, network, devices)


def _change(
    recipe: Recipe,
    settings: dict[str, Any],
    overrides: dict[str, Any],
    network: "type[PixelNetwork]",
    initial: Path | None,
) -> Recipe:
    changes = settings | {key: value for key, value in overrides.items() if value is not None}
    variant = changes.pop("variant", None)
    if variant is not None and initial is not None:
        raise click.UsageError(
            "--from takes the network of that run; leave it or --set variant out"
        )
    if variant is not None and variant not in network.VARIANTS:
        known = ", ".join(network.VARIANTS)
        raise click.UsageError(f"--set variant={variant}: no such variant; there are {known}")
    try:
        recipe = recipe.with_training(**changes)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return recipe if variant is None else replace(recipe, variant=variant)


def _choose_devices(recipe: Recipe, store: Path | None) -> "Devices":
    from jointnet.distribution import choose_devices, join_processes, joins_by_environment

    if joins_by_environment():
        if store is None or not store.exists():
            raise click.UsageError(
                "several processes train from a store that exists: cut it with prepare.py "
                "--output, and name it with --store"
            )
        join_processes()
    return choose_devices(recipe.training.samples_at_a_time)
