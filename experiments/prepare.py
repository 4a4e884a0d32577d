"""A patch store for the screen: what was cut, and what augmentation does to it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

import click
import numpy as np

from experiments import recipes
from experiments.options import (
    Command,
    buffer_option,
    data_option,
    given,
    parse_bands,
    parse_validation,
    where_option,
)
from jointnet.figures import draw_augmentations
from preprocessing.augmentation import STRONG
from preprocessing.band_statistics import value_range
from preprocessing.errors import DatasetError, OutputError
from preprocessing.layouts import LAYOUTS, choose_features, folder_pairs, layout_scenes, patch_note
from preprocessing.output_files import folder_beside, replacing
from preprocessing.patch_store import SPLITS, PatchSet, PatchSettings, PatchStore, open_store
from preprocessing.patches import build_store
from preprocessing.polygons import PolygonCounts
from preprocessing.scene_checks import check_inria, check_report
from preprocessing.scenes import Scene


def describe(store: PatchStore) -> Iterator[str]:
    """What was cut, as lines for a screen."""
    manifest, settings = store.manifest, store.settings
    gsd = "of unknown size" if manifest["gsd"] is None else f"of {manifest['gsd']:.3g} m"
    yield (
        f"{store.folder}: {len(manifest['scenes'])} scenes, {manifest['bands']} bands of "
        f"{manifest['dtype']}, pixels {gsd}, target {settings.target}"
    )
    yield f"{'':<12}{'scenes':>7}{'patches':>9}{'size':>6}{'valid':>8}{'target':>8}"
    for split, patches in zip(SPLITS, (store.train, store.validation), strict=True):
        members = [scene for scene in manifest["scenes"] if scene["split"] == split]
        yield _row(split, patches, members)
        sources = sorted({scene.get("source") or "" for scene in members})
        for source in sources[1:] and sources:
            yield _row(f"  {source}", patches, members, source)
    limits = manifest.get("band_limits") or [None] * manifest["bands"]
    for number, (mean, std, limit) in enumerate(
        zip(manifest["band_mean"], manifest["band_std"], limits, strict=True), start=1
    ):
        clipped = "" if limit is None else f", clipped to {limit[0]:g} to {limit[1]:g}"
        yield f"band {number}: mean {mean:.4g}, standard deviation {std:.4g}{clipped}"
    counts = [scene["polygons"] for scene in manifest["scenes"] if scene.get("polygons")]
    if counts:
        total = PolygonCounts(**{name: sum(c[name] for c in counts) for name in counts[0]})
        yield f"vector labels of {len(counts)} scenes: {total}"


def draw_preview(store: PatchStore, path: Path, seed: int = 0) -> None:
    """Draw what strong augmentation does to the training patch that shows most of both classes.

    Args:
        store: an open store.
        path: the picture to write as PNG; replaced where it exists.
        seed: of everything random.

    Raises:
        OutputError: it cannot be written.
    """
    patches = store.train
    both = np.minimum(patches.target_shares, 1 - patches.target_shares)
    number = int((patches.valid_shares * both).argmax())
    augmentation = replace(STRONG, value_range=value_range(store.manifest))
    height, width = patches.extents[number]
    image = np.asarray(patches.images[number, :height, :width])
    mask = np.asarray(patches.masks[number, :height, :width])
    with replacing(path, overwrite=True) as target:
        draw_augmentations(image, mask, augmentation, target, seed)


def _row(name: str, patches: PatchSet, scenes: list[dict], source: str | None = None) -> str:
    """Figures of one split, or of one source in it."""
    if source is not None:
        scenes = [scene for scene in scenes if (scene.get("source") or "") == source]
    names = {scene["name"] for scene in scenes}
    chosen = np.array([scene in names for scene in patches.scenes], bool)
    valid = patches.valid_shares[chosen] * patches.size**2
    # Training patches may overlap; validation patches hold each pixel once, elsewhere void.
    pixels = patches.extents[chosen].prod(axis=1).sum()
    if scenes and scenes[0]["split"] == "validation":
        pixels = sum(scene["height"] * scene["width"] for scene in scenes)
    target = (valid * patches.target_shares[chosen]).sum() / max(valid.sum(), 1)
    return (
        f"{name:<12}{len(scenes):>7}{chosen.sum():>9}{patches.size:>6}"
        f"{valid.sum() / max(pixels, 1):>8.1%}{target:>8.1%}"
    )


PATCHES = recipes.open_buildings().patches
# Options that say how to cut, which a recipe says itself.
_CUTTING = ("target", "patch_size", "stride", "window", "bands", "gsd")


def prepare(output: Path, scenes: Sequence[Scene], settings: PatchSettings) -> PatchStore:
    """Cut scenes into a patch store that shows some target.

    Args:
        output: where the store comes to lie; must not exist.
        scenes: training and validation scenes.
        settings: how to cut.

    Raises:
        DatasetError: no training pixel is target; and what ``patches.build_store`` raises.
        OutputError: the folder exists, or cannot be written.
    """
    if output.exists():
        raise OutputError(f"{output} exists; delete it or name another folder")
    with folder_beside(output) as beside:
        store = build_store(beside / output.name, scenes, settings)
        if not store.train.target_shares.any():
            raise DatasetError(
                f"no pixel of the training scenes is {settings.target}: there is nothing to learn; "
                "are these the right labels (and --where the right filter)?"
            )
        store.folder.rename(output)
    return open_store(output)


def _scenes_and_settings(
    options: dict, where: str | None, buffer_m: float | None
) -> tuple[list[Scene], PatchSettings, int]:
    """What the command shall cut and how, and how many images nobody labelled."""
    images, labels, layout, name = (options[k] for k in ("images", "labels", "layout", "recipe"))
    data, validation = options["data"], options["validation"]
    if name is not None:
        fixed = [f"--{option.replace('_', '-')}" for option in _CUTTING if given(option)]
        if fixed:
            raise click.UsageError(f"--recipe {name} says itself what {', '.join(fixed)} would")
        if isinstance(validation, float) and name != "polygons":
            raise click.UsageError(
                f"--validation {validation}: --recipe {name} takes tiles, such as 1,2; shares are "
                "for --images, --layout and --recipe polygons"
            )
        features = {"where": where, "buffer_m": buffer_m} if name == "polygons" else {}
        recipe = recipes.RECIPES[name](**features)
        scenes = recipe.scenes(data, validation)
        return choose_features(scenes, where, buffer_m), recipe.patches, 0
    settings = _settings(options)
    if layout is None:
        if len(images) != len(labels):
            raise click.UsageError("--images and --labels go together, as often as each other")
        if given("data"):
            raise click.UsageError("--data goes with --layout, --recipe or --check")
        scenes, unlabelled = folder_pairs(images, labels, validation, options["gsd"])
    else:
        if given("gsd"):
            raise click.UsageError(f"--gsd goes with --images; --layout {layout} says it itself")
        if layout != "inria" and not given("target"):
            raise click.UsageError(
                f"--layout {layout}: say by --target if it is buildings or roads"
            )
        scenes, unlabelled = layout_scenes(layout, data, settings.target, validation)
    return choose_features(scenes, where, buffer_m), settings, unlabelled


def _settings(options: dict) -> PatchSettings:
    """How to cut, where no recipe says it."""
    size, stride, window = (options[k] for k in ("patch_size", "stride", "window"))
    if max(window, stride or 1) > size:
        raise click.UsageError(
            f"--window {window} and --stride {stride} are at most --patch-size, {size}"
        )
    if window % 8:
        raise click.UsageError(f"--window {window} is no multiple of 8, as the network needs")
    bands = options["bands"]
    return PatchSettings(
        patch_size=size,
        stride=stride or 2 * size // 3,
        validation_size=window,
        bands=PATCHES.bands if bands is None else len(bands),
        target=options["target"],
        band_numbers=bands,
    )


def _training_command(store: PatchStore, recipe: str | None) -> str:
    """How to train on a store: by the recipe it was cut by, where that takes such a store."""
    named = recipe is not None and recipes.RECIPES[recipe]().patches == store.settings
    option = f"--recipe {recipe} " if named else ""
    return f"python experiments/train_jointnet.py {option}--store {quote(str(store.folder))}"


def _check(data: Path) -> int:
    """Check a folder in the Inria layout; 2 where something is wrong with it."""
    check = check_inria(data)
    for line in (*check_report(check), *(f"note: {note}" for note in check.notes)):
        click.echo(line)
    for problem in check.problems:
        click.echo(f"problem: {problem}", err=True)
    return 2 if check.problems else 0


_PATH = click.Path(path_type=Path)


@click.command(cls=Command, context_settings={"show_default": True})
@click.option(
    "--images",
    multiple=True,
    type=_PATH,
    metavar="FOLDER",
    help="Folder of images; goes with --labels. Both may be given several times: several data "
    "sets in one store.",
)
@click.option(
    "--labels",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="Folder of their label rasters or vector files, or one vector file for all.",
)
@click.option("--layout", type=click.Choice(LAYOUTS), help="Layout of --data, a known data set.")
@click.option("--recipe", type=click.Choice(list(recipes.RECIPES)), help="Cut as a recipe does.")
@data_option
@click.option(
    "--output",
    type=_PATH,
    metavar="STORE",
    help="Patch store to write; one that exists is described, where nothing to cut is named.",
)
@click.option(
    "--validation",
    callback=parse_validation,
    help="Held back: names or numbers of tiles, or their share, such as 0.2; valid or test of "
    "Massachusetts.  [default: the data set's own split, else every fifth]",
)
@where_option
@buffer_option
@click.option("--target", default="buildings", help="What the labels show: buildings, roads, ...")
@click.option("--patch-size", type=click.IntRange(16), default=PATCHES.patch_size, help="Pixels.")
@click.option(
    "--stride",
    type=click.IntRange(1),
    show_default="two thirds of the patch size",
    help="Pixels from patch to patch.",
)
@click.option(
    "--window",
    type=click.IntRange(16),
    default=PATCHES.validation_size,
    help="Side of what the network is fed, at most the patch size.",
)
@click.option(
    "--bands",
    callback=parse_bands,
    metavar="N,N,N",
    show_default="red, green and blue as the file marks them, else its first bands",
    help="Bands to take, counted from 1.",
)
@click.option(
    "--gsd",
    type=click.FloatRange(0, min_open=True),
    help="Ground metres per pixel of --images that do not say.",
)
@click.option("--check", is_flag=True, help="Check --data in the Inria layout, and cut nothing.")
@click.option(
    "--preview",
    type=_PATH,
    metavar="PNG",
    help="Draw what augmentation does to a patch of the store.",
)
def main(
    output: Path | None,
    where: str | None,
    buffer_m: float | None,
    check: bool,
    preview: Path | None,
    **options: object,
) -> int | None:
    """Cut images and labels into a patch store, to be trained on without them.

    \b
    python experiments/prepare.py --images tiles --labels masks --output store
    python experiments/prepare.py --images tiles --labels roads.gpkg --buffer-m 3 --target roads \\
        --output store
    python experiments/prepare.py --layout spacenet --data AOI_2_Vegas_Train --target buildings \\
        --output store
    python experiments/prepare.py --output store --preview augmented.png
    python experiments/prepare.py --check --data data
    """  # noqa: D301 (click takes the control character itself)
    if check:
        others = {name for name in click.get_current_context().params if given(name)}
        if others - {"check", "data"}:
            raise click.UsageError("--check reads --data and goes with no other option")
        return _check(options["data"])
    sources = [options["images"] or options["labels"], options["layout"], options["recipe"]]
    named = sum(map(bool, sources))
    if output is None or named > 1:
        raise click.UsageError(
            "give --output, and one of --images with --labels, --layout and --recipe; or --check"
        )
    if named:
        scenes, settings, unlabelled = _scenes_and_settings(options, where, buffer_m)
        store = prepare(output, scenes, settings)
        if unlabelled:
            click.echo(f"{unlabelled} images without a label were left out")
        if note := patch_note(scenes):
            click.echo(f"note: {note}")
    else:
        store = open_store(output)
    for line in describe(store):
        click.echo(line)
    if preview is not None:
        draw_preview(store, preview)
        click.echo(f"augmentation of one patch: {preview}")
    click.echo(f"train on it: {_training_command(store, options['recipe'])}")
    return None


if __name__ == "__main__":
    main()
