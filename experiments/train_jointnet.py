"""Train JointNet by a recipe, and write a run folder under results/."""

import dataclasses
import hashlib
import json
from pathlib import Path

import click

from experiments import recipes, training_run
from experiments.options import Command, data_option
from jointnet.model import VARIANTS
from preprocessing.errors import StoreError
from preprocessing.patch_store import PatchStore

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


def run_folder(recipe: str, name: str | None, resume: bool) -> Path:
    """Folder of the run: as named, else the recipe's name with the first free number.

    With ``resume`` it is the latest that exists.
    """
    if name is not None:
        return RESULTS / name
    folder, number = RESULTS / recipe, 1
    while (following := RESULTS / (recipe if number == 1 else f"{recipe}-{number}")).exists():
        folder, number = following, number + 1
    return folder if resume else following


def default_store(recipe: recipes.Recipe, data: Path, *labels: object) -> Path:
    """A store folder of its own for each way to cut and label, so that none passes for another."""
    key = json.dumps([dataclasses.asdict(recipe.patches), recipe.validation, *labels])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return data / "patches" / f"{recipe.name}-{digest}"


def parse_run(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no plain folder name: runs lie directly in results/."""
    if value is not None and (Path(value).name != value or not value):
        raise click.BadParameter(f"{value!r} is no plain name; runs lie directly in results/")
    return value


def parse_validation(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> list[int | str] | None:
    """Split ``"1,2,austin7"`` into tile indices and names."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise click.BadParameter("give tile numbers or names, such as 1,2 or austin1,chicago3")
    return [int(part) if part.isdigit() else part for part in parts]


@click.command(cls=Command, context_settings={"show_default": True})
@click.option(
    "--recipe",
    "name",
    type=click.Choice(list(recipes.RECIPES)),
    help="What to train.  [default: inria_buildings where Inria lies in the data folder, "
    "else sample]",
)
@data_option
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Patch store to train from; cut from the data where it does not exist.  "
    "[default: a folder in <data>/patches named after recipe and split]",
)
@click.option(
    "--run",
    callback=parse_run,
    help="Name of the run folder in results/.  [default: the recipe's name]",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--validation", callback=parse_validation, help="Tiles held back: 1,2 or austin1,...")
@click.option("--where", help="Polygons that count, in SQL: \"building = 'yes'\".")
@click.option("--buffer-m", type=click.FloatRange(0, min_open=True), help="Half width of lines.")
@click.option("--variant", type=click.Choice(list(VARIANTS)), help="Another width or variant.")
@click.option("--epochs", type=click.IntRange(1), help="Another number of epochs.")
@click.option("--steps", type=click.IntRange(1), help="Another number of batches per epoch.")
@click.option("--batch-size", type=click.IntRange(1), help="Another batch size.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "mixed_bfloat16"]),
    help="Another precision; mixed_bfloat16 is faster and takes half of the memory.",
)
@click.option("--early-stopping", type=click.IntRange(1), help="Stop after N epochs without gain.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Another seed.")
def main(
    name: str | None,
    data: Path,
    store: Path | None,
    run: str | None,
    resume: bool,
    validation: list[int | str] | None,
    variant: str | None,
    where: str | None,
    buffer_m: float | None,
    steps: int | None,
    **overrides: int | str | None,
) -> None:
    """Train JointNet by a recipe, and write a run folder under results/.

    Without options it trains on Inria where data/AerialImageDataset is, and otherwise on
    generated scenes, in minutes. Recipes and what to expect of them: experiments/recipes.py.

    \b
    python experiments/train_jointnet.py
    python experiments/train_jointnet.py --recipe polygons --data my_town
    """  # noqa: D301 (click takes the control character itself)
    recipe = choose_recipe(name, data, {"where": where, "buffer_m": buffer_m})
    changes = {**overrides, "steps_per_epoch": steps}
    recipe = recipe.with_training(**{k: v for k, v in changes.items() if v is not None})
    if variant is not None:
        recipe = dataclasses.replace(recipe, variant=variant)
    recipe = dataclasses.replace(recipe, validation=validation)
    folder = run_folder(recipe.name, run, resume)
    training_run.check_folder(folder, resume)
    if store is not None and store.exists() and (validation, where, buffer_m) != (None, None, None):
        raise StoreError(
            f"{store} exists, its split and labels are fixed; leave --validation, --where and "
            "--buffer-m out, or name another store"
        )
    cut = store or default_store(recipe, data, where, buffer_m)
    patches = training_run.prepare_store(recipe, data, cut)
    if store is None:
        # A store that was named may be all there is, on a machine without the data.
        training_run.refuse_other_scenes(patches, recipe, data)
    click.echo(
        f"{len(patches.train)} training and {len(patches.validation)} validation patches in "
        f"{cut}; the run is written to {folder}"
    )
    for line in polygon_report(patches):
        click.echo(line)
    training_run.run(recipe, patches, folder, resume)


if __name__ == "__main__":
    main()
