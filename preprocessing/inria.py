"""Read the folder layout of the Inria Aerial Image Labeling data set.

Source: Maggiori, Tarabalka, Charpiat and Alliez 2017, "Can Semantic Labeling Methods
Generalize to Any City? The Inria Aerial Image Labeling Benchmark".

``AerialImageDataset/{train,test}/images/<place><index>.tif`` with the labels of ``train`` in
``gt``: 5000 x 5000 pixels of 0.3 m, three bands of uint8, labels 0 / 255; 36 tiles of each of
five cities for training, and of five other cities, without labels, for the test. Other places and
tile sizes in the same layout are read too, and so are patches that were cut out of tiles:
``austin1_7`` is patch 7 of tile austin1.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from preprocessing.errors import DatasetError, listed
from preprocessing.scenes import Scene, images_in, pair_by_stem

OFFICIAL_VALIDATION = (1, 2, 3, 4, 5)
GSD = 0.3
CITIES = ("austin", "chicago", "kitsap", "tyrol-w", "vienna")
TEST_CITIES = ("bellingham", "bloomington", "innsbruck", "sfo", "tyrol-e")
TILES_PER_CITY = 36
TILE_SIZE = 5000
# A place ends in neither a digit (that is the index) nor "_" (that announces a patch).
STEM = re.compile(r"(?P<tile>(?P<place>.*[^0-9_])(?P<index>[0-9]+))(?:_(?P<patch>[0-9]+))?")


class TileName(NamedTuple):
    """The parts of a file's stem: ``austin1_7`` is tile austin1, place austin, 1 and 7."""

    tile: str
    place: str
    index: int
    patch: int | None


def parse_stem(stem: str) -> TileName:
    """Read tile, place, index and patch from a file's stem.

    Parent folders do not count: they may have the name of another city.

    Raises:
        DatasetError: the stem has no place or no index.
    """
    match = STEM.fullmatch(stem)
    if match is None:
        raise DatasetError(
            f"{stem!r} is no tile name: expected <place><index>, such as 'austin1', "
            "or <place><index>_<patch>, such as 'austin1_7'"
        )
    tile, place, index, patch = match.groups()
    return TileName(tile, place, int(index), patch and int(patch))


def inria_scenes(
    root: Path | str,
    validation: Collection[int | str] = OFFICIAL_VALIDATION,
    gsd: float | None = GSD,
) -> list[Scene]:
    """List the labelled scenes of a data set in the Inria layout, sorted by name.

    Args:
        root: as in ``train_folder``.
        validation: what is held back: tile indices, which count for every place (the default is
            the official 1 to 5; a place may lack some), and names of tiles such as ``chicago1`` or
            of places. All patches of a tile stand on the same side.
        gsd: ground metres per pixel that the data set states.

    Raises:
        DatasetError: not the layout; images and labels that do not pair; a stem that is no tile
            name; a name in ``validation`` that no tile or place has; no scene left on a side.
    """
    folder = train_folder(root)
    pairs = pair_by_stem(images_in(folder / "images"), images_in(folder / "gt"))
    names = [parse_stem(image.stem) for image, _ in pairs]
    held_back = [any(item in validation for item in (n.index, n.tile, n.place)) for n in names]
    _check_validation(validation, names, held_back, folder)
    return [
        Scene(
            name=image.stem,
            place=name.place,
            index=name.index,
            split="validation" if held else "train",
            image=image,
            label=label,
            label_kind="raster",
            gsd=gsd,
        )
        for name, held, (image, label) in zip(names, held_back, pairs, strict=True)
    ]


def test_images(root: Path | str) -> list[Path]:
    """List the images in ``test/images`` of ``root`` or of its ``AerialImageDataset``, by name.

    Raises:
        DatasetError: there is no such folder, or no image in it.
    """
    root = Path(root)
    candidates = [root / "test" / "images", root / "AerialImageDataset" / "test" / "images"]
    for folder in candidates:
        if folder.is_dir() and (images := images_in(folder)):
            return images
    raise DatasetError(
        f"no test images of the Inria layout under {root}: looked in "
        + " and ".join(str(folder) for folder in candidates)
    )


def train_folder(root: Path | str) -> Path:
    """Find the folder of ``images`` and ``gt``: root, root/train, root/AerialImageDataset/train.

    Raises:
        DatasetError: there is none.
    """
    root = Path(root)
    candidates = [root, root / "train", root / "AerialImageDataset" / "train"]
    for folder in candidates:
        if (folder / "images").is_dir() and (folder / "gt").is_dir():
            return folder
    raise DatasetError(
        f"no data set of the Inria layout under {root}: looked for the folders images and gt in "
        + ", ".join(str(folder) for folder in candidates)
    )


def _check_validation(
    validation: Collection[int | str], names: list[TileName], held_back: list[bool], folder: Path
) -> None:
    """Refuse a split with unknown names or without scenes on one side."""
    some = listed(sorted({name.tile for name in names}))
    known = {word for name in names for word in (name.tile, name.place)}
    unknown = [item for item in validation if isinstance(item, str) and item not in known]
    if unknown:
        raise DatasetError(
            f"validation names no tile of {folder}: {', '.join(unknown)}; its tiles are {some}"
        )
    if all(held_back) or not any(held_back):
        side = "training" if any(held_back) else "validation"
        raise DatasetError(
            f"no {side} scene among {len(names)} in {folder} with validation "
            f"{tuple(validation)}: give indices or names of some of its tiles ({some or 'none'})"
        )
