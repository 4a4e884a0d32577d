"""Define a scene, one raster with its label, and pair the images and labels of folders.

Pairs are made by stem (the file name without its last suffix), never by sorted order: one missing
file must not shift every label after it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from preprocessing.errors import DatasetError, listed

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt"})


@dataclass(frozen=True)
class Scene:
    """One raster with its label.

    Attributes:
        name: stem of the image file, unique within a data set.
        place: where it was taken; metrics are reported per place.
        index: number of the tile within its place; None where tiles have no number.
        split: its side of the split.
        image: the raster file.
        label: the file of the label, a raster of the image's size or polygons.
        label_kind: which of the two the label is.
        gsd: ground metres per pixel as the data set states it, for rasters without
            georeferencing; None where it states none.
        where: which features of a polygon file count, as an SQL condition; None for all.
        buffer_m: metres by which a polygon file's lines are widened to either side.
        white_border: whether exact white that is connected to the image's border is void, see
            ``preprocessing.massachusetts``.
        source: the data set it belongs to, where data sets have their own shares of a batch.
    """

    name: str
    place: str
    index: int | None
    split: Literal["train", "validation"]
    image: Path
    label: Path
    label_kind: Literal["raster", "polygons"]
    gsd: float | None = None
    where: str | None = None
    buffer_m: float | None = None
    white_border: bool = False
    source: str | None = None


def images_in(folder: Path | str) -> list[Path]:
    """List the raster files that lie directly in a folder, sorted by name.

    Suffixes count in upper or lower case. Hidden files (macOS leaves one beside every file) and
    GDAL's side files (``.aux.xml``, ``.ovr``, ``.msk``) are no images.

    Raises:
        DatasetError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: give one that holds rasters")
    rasters = (path for path in folder.iterdir() if path.suffix.lower() in RASTER_SUFFIXES)
    return sorted(path for path in rasters if not path.name.startswith(".") and path.is_file())


def pair_by_stem(images: Iterable[Path], labels: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pair every image with the label of the same stem, sorted by stem.

    ``a.tif`` and ``a.geojson`` are a pair. Two empty inputs give an empty list.

    Raises:
        DatasetError: images without label, labels without image, or several files of one stem
            on a side; one error names all of them.
    """
    images, labels = sorted(images), sorted(labels)
    image_of = {path.stem: path for path in images}
    label_of = {path.stem: path for path in labels}
    problems = {
        "image(s) without label": sorted(image_of.keys() - label_of.keys()),
        "label(s) without image": sorted(label_of.keys() - image_of.keys()),
        "image(s) that share a name": _sharing_a_stem(images),
        "label(s) that share a name": _sharing_a_stem(labels),
    }
    if any(problems.values()):
        raise DatasetError(
            "images and labels pair by file name without suffix, one of each; found "
            + "; ".join(f"{len(n)} {what}: {listed(n)}" for what, n in problems.items() if n)
        )
    return [(image_of[stem], label_of[stem]) for stem in sorted(image_of)]


def folder_scenes(
    images: Path | str,
    labels: Path | str,
    split: Literal["train", "validation"],
    source: str,
    gsd: float | None = None,
    white_border: bool = False,
) -> list[Scene]:
    """List the pairs of two folders of rasters as scenes of one side of a split, sorted by name.

    ``source`` is also the scenes' place; the other arguments are those of ``Scene``.

    Raises:
        DatasetError: a folder that is missing or empty, or files that do not pair.
    """
    pairs = pair_by_stem(images_in(images), images_in(labels))
    if not pairs:
        raise DatasetError(f"{images} holds no images")
    return [
        Scene(
            name=image.stem,
            place=source,
            index=None,
            split=split,
            image=image,
            label=label,
            label_kind="raster",
            gsd=gsd,
            white_border=white_border,
            source=source,
        )
        for image, label in pairs
    ]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of paths, as many as tell them apart; a path given again is numbered.

    ``x/masks``, ``y/masks`` and ``z`` have these names, and ``a/b``, given twice, ``b`` and
    ``b (2)``.
    """
    parts = [path.resolve().parts for path in paths]
    names = []
    for number, own in enumerate(parts):
        others = set(parts) - {own}
        length = next(n for n in range(1, len(own) + 1) if own[-n:] not in {o[-n:] for o in others})
        times = parts[: number + 1].count(own)
        names.append("/".join(own[-length:]) + (f" ({times})" if times > 1 else ""))
    return names


def _sharing_a_stem(paths: list[Path]) -> list[str]:
    times = Counter(path.stem for path in paths)
    return [path.name for path in paths if times[path.stem] > 1]
