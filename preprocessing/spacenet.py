"""Read the folder layouts of the SpaceNet data sets: numbered chips with GeoJSON labels.

Source: Van Etten, Lindenbaum and Bacastow 2018, "SpaceNet: A Remote Sensing Dataset and
Challenge Series", arXiv:1807.01232.

An area of interest (``AOI_2_Vegas``) is a folder with one folder of chips per product and one of
labels. Image and label of a chip share the chip's number, not their name::

    AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif
    AOI_2_Vegas_Train/geojson/buildings/buildings_AOI_2_Vegas_img1.geojson
    SN3_roads_train_AOI_3_Paris/PS-RGB/SN3_roads_train_AOI_3_Paris_PS-RGB_img1.tif
    SN3_roads_train_AOI_3_Paris/geojson_roads/SN3_roads_train_AOI_3_Paris_geojson_roads_img1.geojson

Chips are about 0.3 m and 406 to 1300 pixels a side, uint8 or uint16, of 3, 4 or 8 bands, in
EPSG:4326 or UTM. Buildings are polygons. Roads are centre lines, which SpaceNet's own masks widen
by 2 m to either side (Van Etten and Shermeyer 2017, "Creating Training Datasets for the SpaceNet
Road Detection and Routing Challenge"). Some chips of roads have no label file: nobody drew there,
so they are left out. A label file without features means background.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from preprocessing.errors import DatasetError, listed
from preprocessing.scenes import Scene, images_in

ROAD_HALF_WIDTH_M = 2.0
PRODUCTS = ("PS-RGB", "RGB-PanSharpen", "3band")
LABEL_FOLDERS = {
    "buildings": ("geojson_buildings", "geojson/buildings", "vectordata/geojson", "geojson"),
    "roads": ("geojson_roads", "geojson_roads_speed", "geojson/spacenetroads"),
}
_AREA = re.compile(r"AOI_(?P<number>[0-9]+)(?:_[A-Za-z]+(?=_))?")
# SpaceNet 6 numbers its tiles within the strips of the flight.
_CHIP = re.compile(r"(?:^|_)(?P<id>(?:[0-9]+_)*(?:img|chip|tile_?)(?P<number>[0-9]+))$")


class Chips(NamedTuple):
    """Labelled chips, and the images that nobody labelled."""

    scenes: list[Scene]
    unlabelled: list[Path]


def are_chips(paths: Iterable[Path]) -> bool:
    """Return whether the names of all files end in a chip's number."""
    return all(_CHIP.search(path.stem) for path in paths)


def pair_chips(
    images: Sequence[Path], labels: Sequence[Path]
) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Pair images of one product and their labels by area of interest and chip number.

    Returns:
        Image and label of each chip, sorted by the image's name, and the images without label.

    Raises:
        DatasetError: a name without a chip number, labels without image, or two files of one
            chip on a side; the files are named.
    """
    image_of, label_of = _by_chip(images), _by_chip(labels)
    strays = [label_of[chip].name for chip in sorted(label_of.keys() - image_of.keys(), key=str)]
    if strays:
        raise DatasetError(
            f"{len(strays)} label(s) without the image of their chip: {listed(strays)}; images and "
            "labels pair by area and chip, such as AOI_2 and img1"
        )
    pairs = [(image, label_of[chip]) for chip, image in image_of.items() if chip in label_of]
    unlabelled = [image for chip, image in image_of.items() if chip not in label_of]
    return sorted(pairs), sorted(unlabelled)


def spacenet_chips(
    root: Path | str, target: str, product: str | None = None, source: str | None = None
) -> Chips:
    """List the labelled chips of one or several areas of interest, all as training scenes.

    ``preprocessing.layouts.hold_back`` puts some of them on the validation side. A chip's name is
    the stem of its image, its place the area of interest (``AOI_2_Vegas``), its index the number
    of the chip.

    Args:
        root: the folder of an area, or one that holds such folders at any depth.
        target: ``"buildings"``, or ``"roads"``, whose lines are widened to ``ROAD_HALF_WIDTH_M``.
        product: folder of the images, such as ``PS-MS``; None for the one of ``PRODUCTS`` that
            is there.
        source: see ``Scene``.

    Raises:
        DatasetError: another target, no area with images and labels of the target, or chips that
            do not pair.
    """
    root = Path(root)
    if target not in LABEL_FOLDERS:
        raise DatasetError(f"SpaceNet has labels of {' and '.join(LABEL_FOLDERS)}, not {target!r}")
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder: give one that holds areas of SpaceNet")
    products = PRODUCTS if product is None else (product,)
    areas = sorted({path.parent for name in products for path in root.rglob(name) if path.is_dir()})
    scenes, unlabelled = [], []
    for area in areas:
        labels = _first(area, LABEL_FOLDERS[target])
        files = _geojson_in(labels) if labels else []
        if not files:
            continue
        pairs, without = pair_chips(images_in(_first(area, products)), files)
        scenes += [_scene(image, label, area, target, source) for image, label in pairs]
        unlabelled += without
    if not scenes:
        raise DatasetError(
            f"no labelled chips of SpaceNet in {root}: looked for folders of images named "
            f"{' or '.join(products)} beside folders of labels named "
            f"{' or '.join(LABEL_FOLDERS[target])}"
        )
    return Chips(scenes, unlabelled)


def _scene(image: Path, label: Path, area: Path, target: str, source: str | None) -> Scene:
    named = _AREA.search(image.stem)
    return Scene(
        name=image.stem,
        place=named[0] if named else area.name,
        index=int(_CHIP.search(image.stem)["number"]),
        split="train",
        image=image,
        label=label,
        label_kind="polygons",
        buffer_m=ROAD_HALF_WIDTH_M if target == "roads" else None,
        source=source,
    )


def _by_chip(paths: Sequence[Path]) -> dict[tuple[int | None, str], Path]:
    """Return the files by the number of their area, None where there is none, and their chip."""
    files: dict[tuple[int | None, str], Path] = {}
    for path in paths:
        chip, area = _CHIP.search(path.stem), _AREA.search(path.stem)
        if chip is None:
            raise DatasetError(f"{path}: its name ends in no chip number, such as img1")
        key = (int(area["number"]) if area else None, chip["id"])
        if key in files:
            raise DatasetError(f"{files[key]} and {path} are of one chip; keep one of them")
        files[key] = path
    return files


def _geojson_in(folder: Path) -> list[Path]:
    """Return the GeoJSON files by name, without hidden ones as macOS leaves beside every file."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".geojson" and not path.name.startswith(".")
    )


def _first(area: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these folders that exists."""
    return next((area / name for name in names if (area / name).is_dir()), None)
