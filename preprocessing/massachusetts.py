"""Read the folder layout of the Massachusetts roads and buildings data sets, and find their void.

Source: Mnih 2013, "Machine Learning for Aerial Image Labeling" (PhD thesis, University of
Toronto), chapter 6.

``{train,valid,test}/{sat,map}``: 1500 x 1500 pixels of 1 m, three bands of uint8, labels
0 / 255. The official split of the roads is 1108, 14 and 49 tiles, of the buildings 137, 4 and
10. Many road images are white where the mosaic of photographs ends, while the map still shows
roads there. These pixels are void: exact white that is connected to the border. Specks of 250 to
254 in the margins, up to 0.2 % of a tile, stay imagery: a rule for them would void bright ground
too.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from preprocessing.errors import DatasetError
from preprocessing.scenes import Scene, folder_scenes

GSD = 1.0
SPLITS = ("train", "valid", "test")


def massachusetts_scenes(
    root: Path | str, held_back: Literal["valid", "test"] = "valid"
) -> list[Scene]:
    """List the scenes of a data set in the Massachusetts layout, training first.

    ``root`` holds ``train`` and ``valid`` (and ``test``), each with ``sat`` and ``map``. The
    scenes' name is the stem of the file, their place the name of ``root``. The split that is not
    asked for is not read.

    Raises:
        DatasetError: not the layout, no tile on a side, images and labels that do not pair, or
            one tile on both sides.
    """
    root = Path(root)
    if held_back not in SPLITS[1:]:
        raise DatasetError(f"{held_back!r} cannot be held back: give valid or test")
    train = _tiles(root, "train", "train")
    validation = _tiles(root, held_back, "validation")
    shared = {scene.name for scene in train} & {scene.name for scene in validation}
    if shared:
        raise DatasetError(f"{root}: {min(shared)} lies in train and in {held_back}")
    return [*train, *validation]


def white_border(image: np.ndarray) -> np.ndarray:
    """Find exact white that is connected, by the sides of pixels, to the image's border.

    White roofs and cars inside the image are imagery. White is the highest value of an integer
    dtype; of a float dtype it is 255, as in the data sets themselves, or 1 where no value is above
    1. The image, ``(height, width, bands)``, may be empty; the result is ``(height, width)`` bool.
    """
    import cv2

    if image.dtype.kind in "iu":
        brightest = np.iinfo(image.dtype).max
    else:
        brightest = 255 if (image > 1).any() else 1
    white = (image == brightest).all(axis=-1)
    if not white.any():
        return white
    count, regions = cv2.connectedComponents(white.astype(np.uint8), connectivity=4)
    reached = np.zeros(count, bool)
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        reached[edge] = True
    # Region 0 is all that is not white.
    reached[0] = False
    return reached[regions]


def _tiles(root: Path, folder: str, split: Literal["train", "validation"]) -> list[Scene]:
    sat, maps = root / folder / "sat", root / folder / "map"
    for needed in (sat, maps):
        if not needed.is_dir():
            raise DatasetError(
                f"no data set of the Massachusetts layout in {root}: it has no folder "
                f"{needed.relative_to(root)}; expected train and valid (or test), each with sat "
                "and map"
            )
    return folder_scenes(sat, maps, split, root.name, GSD, white_border=True)
