"""List the scenes of a data set in any layout, and hold some of them back for validation.

Images and labels, rasters or vector files, pair by name: ``a.jpg`` with ``a.png``, and also where
all names of a side have an ending (``a_mask.png``, ``a_gt.tif``, ``a_sat.jpg``) or are numbered
chips (see ``preprocessing.spacenet``). Both may lie in one folder.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from preprocessing.errors import DatasetError
from preprocessing.inria import GSD, STEM, inria_scenes, train_folder
from preprocessing.massachusetts import massachusetts_scenes
from preprocessing.scenes import RASTER_SUFFIXES, Scene, images_in, pair_by_stem, short_names
from preprocessing.spacenet import are_chips, pair_chips, spacenet_chips

LABEL_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt")
IMAGE_ENDINGS = ("_sat", "_image", "_img")

LAYOUTS = ("inria", "massachusetts", "spacenet")
# Without a split of one's own, one raster in so many is held back for validation.
HELD_BACK = 5
# Patches named by the row and column at which they were cut out of a tile.
_CUT = re.compile(r"(?P<tile>.*[^_])_[0-9]+_[0-9]+")

Kind = Literal["raster", "polygons"]
Validation = Collection[int | str] | float | None


def labelled_scenes(
    images: Path | str,
    labels: Path | str,
    source: str | None = None,
    gsd: float | None = None,
    kind: Kind | None = None,
) -> list[Scene]:
    """List the pairs of two folders as training scenes, sorted by name.

    ``hold_back`` puts some of them on the validation side. ``place_of`` takes place and index
    from a scene's name. Numbered chips without a label, as SpaceNet has some, are left out;
    everywhere else an image without label is an error. ``source`` and ``gsd`` are those of
    ``Scene``; ``labels_in`` takes ``labels`` and ``kind``.

    Raises:
        DatasetError: a folder that is missing or empty, or files that do not pair.
    """
    images, labels = Path(images), Path(labels)
    rasters = images_in(images)
    together = labels.is_dir() and images.resolve() == labels.resolve()
    if together:
        rasters = [path for path in rasters if not path.stem.endswith(LABEL_ENDINGS)]
    if not rasters:
        raise DatasetError(f"{images} holds no images")
    files, kind = labels_in(labels, kind, together)
    return [
        Scene(
            name=name,
            place=place,
            index=index,
            split="train",
            image=image,
            label=label,
            label_kind=kind,
            gsd=gsd,
            source=source,
        )
        for name, image, label in _pairs(rasters, files)
        for place, index in [place_of(name)]
    ]


def labels_in(
    labels: Path, kind: Kind | None = None, together: bool = False
) -> tuple[list[Path] | Path, Kind]:
    """Return the label files of a folder, or the one vector file, and which kind they are.

    Args:
        labels: folder of label rasters, {0, 1} or {0, 255}, or, where it holds none, of vector
            files; or one vector file for all images, of which the suffix may be left out.
        kind: the kind to look for; None for what is there.
        together: whether images lie in the same folder; labels then have one of
            ``LABEL_ENDINGS``.

    Raises:
        DatasetError: neither is there, or one raster was given in place of a folder.
    """
    if kind != "polygons" and labels.is_dir():
        rasters = images_in(labels)
        if together:
            rasters = [path for path in rasters if path.stem.endswith(LABEL_ENDINGS)]
        if rasters or kind == "raster":
            return rasters, "raster"
    if labels.is_file() and labels.suffix.lower() in RASTER_SUFFIXES:
        raise DatasetError(f"{labels} is one raster; give the folder of the label rasters")
    # Vector files need geopandas, label rasters do not.
    from preprocessing.vectors import VECTOR_SUFFIXES, vector_files

    files = vector_files(labels)
    if kind is None and not files:
        raise DatasetError(
            f"{labels} holds neither label rasters nor vector files ({', '.join(VECTOR_SUFFIXES)})"
        )
    return files, "polygons"


def _pairs(images: list[Path], labels: list[Path] | Path) -> list[tuple[str, Path, Path]]:
    """Return name, image and label of each scene."""
    if isinstance(labels, Path):
        return [(image.stem, image, labels) for image, _ in pair_by_stem(images, images)]
    equal = {path.stem for path in images} & {path.stem for path in labels}
    if labels and not equal and are_chips([*images, *labels]):
        pairs, _ = pair_chips(images, labels)
        return [(image.stem, image, label) for image, label in pairs]
    image_of, label_of = _plain(images, IMAGE_ENDINGS), _plain(labels, LABEL_ENDINGS)
    return [
        (image.stem, image_of[image], label_of[label])
        for image, label in pair_by_stem(image_of, label_of)
    ]


def _plain(paths: Sequence[Path], endings: tuple[str, ...]) -> dict[Path, Path]:
    """Return the files by their paths without an ending that all of them have in common."""
    for ending in endings:
        if all(path.stem.endswith(ending) and path.stem != ending for path in paths):
            return {path.with_stem(path.stem.removesuffix(ending)): path for path in paths}
    return {path: path for path in paths}


def place_of(name: str) -> tuple[str, int | None]:
    """Return place and index of a scene by its name: ``austin`` and 12 of ``austin12``.

    A name of another form is its own place, without an index.
    """
    match = STEM.fullmatch(name)
    return (match["place"], int(match["index"])) if match else (name, None)


def hold_back(scenes: Sequence[Scene], validation: Validation, folder: object) -> list[Scene]:
    """Put some scenes on the validation side and all others on the training side.

    Patches of one tile always stay together: ``austin1_7`` and ``austin1_8``, or by row and
    column ``town_0_512`` and ``town_512_0``. Where all scenes are patches, by row and column, of
    one tile, each counts as a tile, see ``patch_note``.

    Args:
        scenes: of one data set or several.
        validation: what is held back: names of scenes, tiles or places, and numbers, which stand
            for that index of every place and for names that are numbers (7 for ``007.tif``); or
            the share of the tiles, above 0 and below 1, taken at even distances in the order of
            their names. None for the first tile and every fifth after it.
        folder: where the scenes are from, for messages.

    Raises:
        DatasetError: a name that no scene has, a share out of range, or no scene left on a side.
    """
    cut = _by_row_and_column(scenes)
    # Patches of the only tile are tiles themselves.
    tile_of = cut if len(set(cut)) > 1 else _by_name(scenes)
    tiles = sorted(set(tile_of))
    if validation is None:
        chosen = set(tiles[::HELD_BACK])
    elif isinstance(validation, float):
        chosen = set(_spread(tiles, validation))
    else:
        chosen = _named(scenes, tile_of, validation, folder)
    held_back = [tile in chosen for tile in tile_of]
    if all(held_back) or not any(held_back):
        side = "training" if any(held_back) else "validation"
        raise DatasetError(
            f"no {side} scene among {len(scenes)} raster(s) in {folder}: two or more are needed, "
            "some of them, but not all, named for validation"
        )
    return [
        replace(scene, split="validation" if held else "train")
        for scene, held in zip(scenes, held_back, strict=True)
    ]


def patch_note(scenes: Sequence[Scene]) -> str | None:
    """Return a warning where all scenes are patches of one tile by their names, None elsewhere.

    ``hold_back`` then splits the tile and cannot keep patches apart that overlap.
    """
    tiles, cut = _by_name(scenes), _by_row_and_column(scenes)
    if tiles == cut or len(set(cut)) > 1:
        return None
    return (
        f"by their names ({scenes[0].name}, ...) all scenes are patches of {cut[0][1]}: if "
        "they overlap, the same ground is trained on and validated on; hold back patches that lie "
        "apart from the others by --validation"
    )


def _by_name(scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    """Return source and tile of each scene; a scene without a tile is one itself."""
    matches = [(scene, STEM.fullmatch(scene.name)) for scene in scenes]
    return [(s.source or "", match["tile"] if match else s.name) for s, match in matches]


def _by_row_and_column(scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    tiles = []
    for scene, (source, tile) in zip(scenes, _by_name(scenes), strict=True):
        match = _CUT.fullmatch(scene.name)
        tiles.append((source, match["tile"] if match and tile == scene.name else tile))
    return tiles


def _spread(tiles: list[tuple[str, str]], share: float) -> list[tuple[str, str]]:
    """Return this share of the tiles at even distances: at least one, and not all of several."""
    if not 0 < share < 1:
        raise DatasetError(
            f"validation is {share}; as a share it lies between 0 and 1, such as 0.2"
        )
    count = max(1, min(round(share * len(tiles)), len(tiles) - 1))
    return [tiles[number * len(tiles) // count] for number in range(count)]


def _named(
    scenes: Sequence[Scene],
    tile_of: list[tuple[str, str]],
    validation: Collection[int | str],
    folder: object,
) -> set[tuple[str, str]]:
    """Return the tiles that names and numbers stand for."""
    known: dict[int | str | None, set[tuple[str, str]]] = {}
    for scene, tile in zip(scenes, tile_of, strict=True):
        names = (scene.name, tile[1])
        # Where a name is a number, nothing tells it from an index.
        numbers = (int(name) for name in names if name.isdecimal())
        for item in (*names, scene.place, scene.index, *numbers):
            known.setdefault(item, set()).add(tile)
    unknown = [item for item in validation if isinstance(item, str) and item not in known]
    if unknown:
        raise DatasetError(f"validation names no raster of {folder}: {', '.join(unknown)}")
    return set().union(*(known.get(item, set()) for item in validation))


def folder_pairs(
    images: Sequence[Path], labels: Sequence[Path], validation: Validation, gsd: float | None
) -> tuple[list[Scene], int]:
    """List the scenes of pairs of folders, and count the images that nobody labelled.

    These are left out. Each of several pairs is a source of its own.
    """
    if len({folder.resolve() for folder in images}) < len(images):
        raise DatasetError(f"{images[0]} is named twice; give each folder of images once")
    names = short_names(images) if len(images) > 1 else [None]
    scenes, unlabelled = [], 0
    for image_folder, label_folder, name in zip(images, labels, names, strict=True):
        pairs = labelled_scenes(image_folder, label_folder, name, gsd)
        if image_folder.resolve() != label_folder.resolve():
            unlabelled += len(images_in(image_folder)) - len(pairs)
        scenes += pairs
    return hold_back(scenes, validation, ", ".join(map(str, images))), unlabelled


def layout_scenes(
    layout: str, data: Path, target: str, validation: Validation
) -> tuple[list[Scene], int]:
    """List the scenes of a data set in one of ``LAYOUTS``, and count images without label."""
    if layout == "massachusetts":
        held_back = validation or ["valid"]
        if held_back not in (["valid"], ["test"]):
            raise DatasetError(f"{layout} holds back valid or test; got --validation {held_back}")
        return massachusetts_scenes(data, held_back[0]), 0
    if layout == "spacenet":
        chips = spacenet_chips(data, target)
        return hold_back(chips.scenes, validation, data), len(chips.unlabelled)
    if isinstance(validation, float):
        folder = train_folder(data)
        scenes = labelled_scenes(folder / "images", folder / "gt", gsd=GSD, kind="raster")
        return hold_back(scenes, validation, folder), 0
    return inria_scenes(data, **({} if validation is None else {"validation": validation})), 0


def choose_features(
    scenes: Sequence[Scene], where: str | None, buffer_m: float | None
) -> list[Scene]:
    """Set which features of the scenes' polygon files count, and how far lines are widened.

    Raises:
        DatasetError: either is given and a label is a raster.
    """
    given = {"where": where, "buffer_m": buffer_m}
    changes = {name: value for name, value in given.items() if value is not None}
    for scene in scenes:
        if changes and scene.label_kind == "raster":
            raise DatasetError(
                f"{scene.label} is a raster; --where and --buffer-m are for vector files"
            )
    return [replace(scene, **changes) for scene in scenes]


def polygon_scenes(
    images: Path | str, polygons: Path | str, validation: Validation = None
) -> list[Scene]:
    """List the scenes of a folder of rasters with vector labels, sorted by name.

    See ``labelled_scenes`` for the folders and errors and ``hold_back`` for ``validation``.
    """
    return hold_back(labelled_scenes(images, polygons, kind="polygons"), validation, images)
