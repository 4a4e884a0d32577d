"""The files that a prediction leaves: their names, what must not be replaced, and their arrival."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from preprocessing.errors import OutputError
from preprocessing.output_files import refuse_existing
from preprocessing.raster_names import RasterName

MASK, OVERLAY = "_output.tif", "_overlay.png"
FOOTPRINTS, CENTRE_LINES = "_footprints.geojson", "_centre_lines.geojson"
PROBABILITIES = "_probabilities.tif"


def layer_of(target: str) -> str:
    """The kind of layer that a target gets: roads centre lines, anything else footprints."""
    return CENTRE_LINES if target == "roads" else FOOTPRINTS


def style_of(layer: str) -> str:
    """The kind of the QGIS style beside a layer, such as ``_footprints.qml``."""
    return layer.replace(".geojson", ".qml")


def output_paths(
    image: str | os.PathLike,
    folder: str | os.PathLike,
    probabilities: bool = False,
    target: str = "buildings",
) -> dict[str, Path]:
    """Where the outputs of an image go, by kind: ``<stem>_output.tif`` and so on."""
    layer = layer_of(target)
    kinds = [MASK, OVERLAY, layer, style_of(layer)]
    if probabilities:
        kinds.append(PROBABILITIES)
    return {kind: Path(folder) / f"{RasterName(image).stem}{kind}" for kind in kinds}


def check_outputs(
    images: Sequence[Path | RasterName],
    folder: str | os.PathLike,
    probabilities: bool = False,
    overwrite: bool = False,
    target: str = "buildings",
) -> None:
    """Refuse, before any work is done, outputs that must not or cannot be written.

    Raises:
        OutputError: outputs that exist while ``overwrite`` is off; images whose outputs would
            have the same names, or take the place of an image; ``folder`` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; --output names a folder")
    stems = Counter(image.stem for image in images)
    doubled = [str(image) for image in images if stems[image.stem] > 1]
    if doubled:
        raise OutputError(
            f"{', '.join(doubled[:4])}: images of one name would write the same outputs; "
            "predict them one by one, each with an --output of its own"
        )
    sources = {image.resolve() for image in images}
    for image in images:
        for path in output_paths(image, folder, probabilities, target).values():
            if path.resolve() in sources:
                raise OutputError(f"{path}: is an input image; name another folder by --output")
            refuse_existing(path, overwrite)
