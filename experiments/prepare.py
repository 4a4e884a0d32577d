"""Check a data set, cut it into a patch store, and describe the store."""

import contextlib
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
from experiments.training_command import describe_polygons
from preprocessing.augmentation import STRONG
from preprocessing.band_statistics import value_range
from preprocessing.errors import DatasetError, OutputError
from preprocessing.layouts import LAYOUTS, choose_features, folder_pairs, layout_scenes, patch_note
from preprocessing.output_files import folder_beside, replacing
from preprocessing.patch_store import SPLITS, PatchSet, PatchSettings, PatchStore, open_store
from preprocessing.scenes import Scene

PREVIEW = "augmentation.png"
# Options that a recipe sets itself.
_CUTTING = ("target", "patch_size", "bands", "gsd")


def describe_store(store: PatchStore) -> Iterator[str]:
    """Yield lines on what was cut."""
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
        for source in sources if len(sources) > 1 else ():
            of_it = [scene for scene in members if (scene.get("source") or "") == source]
            yield _row(f"  {source}", patches, of_it)
    limits = manifest.get("band_limits") or [None] * manifest["bands"]
    for number, (mean, std, limit) in enumerate(
        zip(manifest["band_mean"], manifest["band_std"], limits, strict=True), start=1
    ):
        clipped = "" if limit is None else f", clipped to {limit[0]:g} to {limit[1]:g}"
        yield f"band {number}: mean {mean:.4g}, standard deviation {std:.4g}{clipped}"
    yield from describe_polygons(store)


def _row(name: str, patches: PatchSet, scenes: list[dict]) -> str:
    names = {scene["name"] for scene in scenes}
    chosen = np.array([scene in names for scene in patches.scenes], bool)
    valid = patches.valid_shares[chosen] * patches.size**2
    # Validation patches hold each pixel once, and void beside it; training patches may overlap.
    pixels = patches.extents[chosen].prod(axis=1).sum()
    if scenes and scenes[0]["split"] == "validation":
        pixels = sum(scene["height"] * scene["width"] for scene in scenes)
    target = (valid * patches.target_shares[chosen]).sum() / max(valid.sum(), 1)
    return (
        f"{name:<12}{len(scenes):>7}{chosen.sum():>9}{patches.size:>6}"
        f"{valid.sum() / max(pixels, 1):>8.1%}{target:>8.1%}"
    )


def draw_preview(store: PatchStore) -> Path:
    """Draw strong augmentation of a patch with much of both classes; return the picture's path.

    The picture is part of the store; one that exists is kept. Raises OutputError if it cannot be
    written.
    """
    path = store.folder / PREVIEW
    if path.exists():
        return path
    from jointnet.figures import draw_augmentations

    patches = store.train
    both = np.minimum(patches.target_shares, 1 - patches.target_shares)
    number = int((patches.valid_shares * both).argmax())
    augmentation = replace(STRONG, value_range=value_range(store.manifest))
    height, width = patches.extents[number]
    image = np.asarray(patches.images[number, :height, :width])
    mask = np.asarray(patches.masks[number, :height, :width])
    with replacing(path) as target:
        draw_augmentations(image, mask, augmentation, target)
    return path


def cut_store(output: Path, scenes: Sequence[Scene], settings: PatchSettings) -> PatchStore:
    """Cut scenes into a patch store in the folder ``output``.

    Raises:
        DatasetError: no training pixel is target; and what ``patches.build_store`` raises.
        OutputError: the folder exists, or cannot be written.
    """
    from preprocessing.patches import build_store

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
    """Return what to cut, how, and how many images have no label."""
    images, labels, source = (options[key] for key in ("images", "labels", "source"))
    data, validation = options["data"], options["validation"]
    if source in recipes.RECIPES:
        fixed = [f"--{option.replace('_', '-')}" for option in _CUTTING if given(option)]
        if fixed:
            raise click.UsageError(f"--recipe {source} says itself what {', '.join(fixed)} would")
        if isinstance(validation, float) and source != "polygons":
            raise click.UsageError(
                f"--validation {validation}: --recipe {source} takes tiles, such as 1,2; shares "
                "are for --images, --layout and --recipe polygons"
            )
        features = {"where": where, "buffer_m": buffer_m} if source == "polygons" else {}
        recipe = recipes.RECIPES[source](**features)
        scenes = recipe.scenes(data, validation)
        return choose_features(scenes, where, buffer_m), recipe.patches, 0
    size, stride, window = options["patch_size"]
    bands = options["bands"]
    count = 3 if bands is None else len(bands)
    settings = PatchSettings(size, stride, window, count, options["target"], bands)
    if source is None:
        if len(images) != len(labels):
            raise click.UsageError("--images and --labels go together, as often as each other")
        if given("data"):
            raise click.UsageError("--data goes with --layout or --recipe")
        scenes, unlabelled = folder_pairs(images, labels, validation, options["gsd"])
    else:
        if given("gsd"):
            raise click.UsageError(f"--gsd goes with --images; --layout {source} says it itself")
        if source != "inria" and not given("target"):
            raise click.UsageError(
                f"--layout {source}: say by --target if it is buildings or roads"
            )
        scenes, unlabelled = layout_scenes(source, data, settings.target, validation)
    return choose_features(scenes, where, buffer_m), settings, unlabelled


def parse_patch_size(
    context: click.Context, option: click.Parameter, value: str
) -> tuple[int, int, int]:
    """Turn ``"384,256,256"`` into patch, stride (else two thirds) and window (else 256)."""
    words = value.split(",")
    if len(words) > 3 or not all(word.strip().isdecimal() for word in words):
        raise click.BadParameter(f"{value!r} is no size; write PIXELS, or as in 384,256,256")
    size, *others = map(int, words)
    stride, window = (*others, *(2 * size // 3, 256)[len(others) :])
    if size < 16 or stride < 1:
        raise click.BadParameter(f"a patch of {size}, a stride of {stride}: at least 16 and 1")
    if max(stride, window) > size:
        raise click.BadParameter(
            f"a stride of {stride} and a window of {window} are to be at most the patch, {size}"
        )
    if window < 16 or window % 8:
        raise click.BadParameter(
            f"a window of {window} is no multiple of 8 from 16 on, as the network needs"
        )
    return size, stride, window


def _check(scenes: Sequence[Scene], settings: PatchSettings) -> None:
    from preprocessing.scene_checks import check_scenes

    infos = check_scenes(scenes, settings)
    for split in SPLITS:
        members = [info for info, s in zip(infos, scenes, strict=True) if s.split == split]
        pixels = sum(info.height * info.width for info in members)
        click.echo(f"{split:<12}{len(members):>7} scenes{pixels / 1e6:>10.1f} million pixels")
    click.echo(f"pixels are {infos[0].dtype}; nothing was cut: --output STORE does it")


def _check_inria(data: Path) -> int:
    """Check a folder in the Inria layout, and return the exit code."""
    from preprocessing.scene_checks import check_inria, check_report

    check = check_inria(data)
    for line in (*check_report(check), *(f"note: {note}" for note in check.notes)):
        click.echo(line)
    for problem in check.problems:
        click.echo(f"problem: {problem}", err=True)
    return 2 if check.problems else 0


def _describe(store: PatchStore, recipe: str | None) -> None:
    for line in describe_store(store):
        click.echo(line)
    # The preview is left out on a disk that cannot be written.
    with contextlib.suppress(OutputError):
        click.echo(f"augmentation of one patch: {draw_preview(store)}")
    # Name the recipe that it was cut by, if the store fits it.
    named = recipe in recipes.RECIPES and recipes.RECIPES[recipe]().patches == store.settings
    option = f"--recipe {recipe} " if named else ""
    click.echo(
        f"train on it: python experiments/train_jointnet.py {option}--store "
        f"{quote(str(store.folder))}"
    )


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
@click.option(
    "--layout",
    "--recipe",
    "source",
    type=click.Choice([*LAYOUTS, *recipes.RECIPES]),
    metavar="NAME",
    help=f"A data set in --data: {', '.join(LAYOUTS)}; or a recipe, which also says how to cut: "
    f"{', '.join(recipes.RECIPES)}.",
)
@data_option
@click.option(
    "--output",
    type=_PATH,
    metavar="STORE",
    help="Patch store to write; one that exists is described. Without it nothing is cut and the "
    "data are only checked.",
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
@click.option(
    "--patch-size",
    default="384,256,256",
    callback=parse_patch_size,
    metavar="PIXELS[,STRIDE[,WINDOW]]",
    help="Side of a patch, pixels from patch to patch, and side of what the network is fed; of "
    "one number two thirds and 256.",
)
@click.option(
    "--bands",
    callback=parse_bands,
    metavar="N,N,N",
    show_default="red, green, blue as marked, else the first",
    help="Bands to use, counted from 1.",
)
@click.option(
    "--gsd",
    type=click.FloatRange(0, min_open=True),
    help="Ground metres per pixel of --images that do not say.",
)
def main(
    output: Path | None, where: str | None, buffer_m: float | None, **options: object
) -> int | None:
    """Check images and labels, or cut them into a patch store, to be trained on without them.

    \b
    python experiments/prepare.py --layout inria --data data
    python experiments/prepare.py --images tiles --labels masks --output store
    python experiments/prepare.py --images tiles --labels roads.gpkg --buffer-m 3 --target roads \\
        --output store
    python experiments/prepare.py --layout spacenet --data AOI_2_Vegas_Train --target buildings \\
        --output store
    """  # noqa: D301 (click takes the control character itself)
    source = options["source"]
    named = bool(options["images"] or options["labels"]) + (source is not None)
    if named > 1 or (output is None and not named):
        raise click.UsageError(
            "give --images with --labels, --layout or --recipe; or --output alone, a store that "
            "exists"
        )
    if not named:
        _describe(open_store(output), None)
        return None
    if output is None and source == "inria":
        return _check_inria(options["data"])
    scenes, settings, unlabelled = _scenes_and_settings(options, where, buffer_m)
    store = None if output is None else cut_store(output, scenes, settings)
    if unlabelled:
        click.echo(f"{unlabelled} images without a label were left out")
    if note := patch_note(scenes):
        click.echo(f"note: {note}")
    if store is None:
        _check(scenes, settings)
    else:
        _describe(store, source)
    return None


if __name__ == "__main__":
    main()
