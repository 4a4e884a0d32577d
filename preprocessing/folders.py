"""Data sets that are two folders: images, and labels of the same names, of any format.

Labels are rasters or vector files. Beside ``a.jpg`` with ``a.png``, names with an ending of
their own pair (``a_mask.png``, ``a_gt.tif``, ``a_sat.jpg``), also where images and masks lie in
one folder, and so do chips that are numbered (see ``preprocessing.spacenet``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from preprocessing.errors import DatasetError
from preprocessing.inria import STEM
from preprocessing.scenes import RASTER_SUFFIXES, Scene, images_in, pair_by_stem
from preprocessing.spacenet import are_chips, pair_chips

LABEL_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt")
IMAGE_ENDINGS = ("_sat", "_image", "_img")

Kind = Literal["raster", "polygons"]


def labelled_scenes(
    images: Path | str,
    labels: Path | str,
    source: str | None = None,
    gsd: float | None = None,
    kind: Kind | None = None,
) -> list[Scene]:
    """List the pairs of two folders as training scenes, sorted by name.

    ``preprocessing.splits.hold_back`` puts some of them on the validation side. Where a name
    reads ``<place><index>`` as in the Inria layout, place and index are taken from it; otherwise
    the name is the place and there is no index. Of numbered chips, images without a label are
    left out, as SpaceNet has some; everywhere else they are an error.

    Args:
        images: folder of images.
        labels: folder of label rasters, {0, 1} or {0, 255}, or (where it holds no raster) of
            vector files; or one vector file for all images, of which the suffix may be left out.
        source: name of the data set, None for none.
        gsd: ground metres per pixel, for rasters that do not say; None where unknown.
        kind: which of the two kinds of labels to look for; None for what is there.

    Raises:
        DatasetError: a folder that is not there or empty, or files that do not pair.
    """
    images, labels = Path(images), Path(labels)
    rasters = images_in(images)
    together = labels.is_dir() and images.resolve() == labels.resolve()
    if together:
        rasters = [path for path in rasters if not path.stem.endswith(LABEL_ENDINGS)]
    if not rasters:
        raise DatasetError(f"{images} holds no images")
    files, kind = _labels_in(labels, kind, together)
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
        for place, index in [_place(name)]
    ]


def folder_scenes(
    images: Path | str,
    labels: Path | str,
    split: Literal["train", "validation"],
    source: str,
    gsd: float | None = None,
    white_border: bool = False,
) -> list[Scene]:
    """List the pairs of two folders as scenes of one side of a split, sorted by name.

    ``a.jpg`` and ``a.png`` are a pair; formats may differ within a folder too.

    Args:
        images: folder of images.
        labels: folder of label rasters, {0, 1} or {0, 255}.
        split: the side on which all of them stand.
        source: name of the data set, also the scenes' place.
        gsd: ground metres per pixel, for rasters that do not say; None where unknown.
        white_border: whether white that is connected to an image's border is void, as in
            ``preprocessing.massachusetts``.

    Raises:
        DatasetError: a folder that is not there or is empty, or files that do not pair.
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


def _labels_in(labels: Path, kind: Kind | None, together: bool) -> tuple[list[Path] | Path, Kind]:
    """The label files of a folder, or the one vector file, and which kind they are."""
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
    """Name, image and label of each scene."""
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
    """Files by what they are called without an ending that all of them have in common."""
    for ending in endings:
        if all(path.stem.endswith(ending) and path.stem != ending for path in paths):
            return {path.with_stem(path.stem.removesuffix(ending)): path for path in paths}
    return {path: path for path in paths}


def _place(name: str) -> tuple[str, int | None]:
    match = STEM.fullmatch(name)
    return (match["place"], int(match["index"])) if match else (name, None)
