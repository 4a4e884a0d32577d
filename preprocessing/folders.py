"""Data sets that are two folders: images and label rasters of the same names, of any format."""

from pathlib import Path
from typing import Literal

from preprocessing.errors import DatasetError
from preprocessing.scenes import Scene, images_in, pair_by_stem


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
        white_border: whether exact white that is connected to an image's border is void.

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
