"""What a prediction depends on, in short: the network's weights and the raster's files."""

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from jointnet.runs import WEIGHTS, Run
from preprocessing.patch_store import hash_file

if TYPE_CHECKING:
    from preprocessing.rasters import RasterInfo


def precision_of(run: Run) -> str:
    """Name of the dtype policy that the network computes in."""
    return getattr(getattr(run.model, "dtype_policy", None), "name", "float32")


def files_of(image: Path) -> list:
    """Name, size and time of change of all files of a raster, without reading their pixels.

    Raises:
        RasterError: no such file, or no raster.
    """
    from preprocessing.rasters import raster_files

    found = []
    for name in raster_files(image):
        try:
            path = _on_disk(name)
            stat = os.stat(path)
        except OSError:
            # Not a file of this machine.
            found.append([str(name), None, None])
        else:
            found.append([os.path.realpath(path), stat.st_size, stat.st_mtime_ns])
    return found


def _on_disk(name: str) -> str:
    """The file itself, or the archive that holds it."""
    if not name.startswith("/vsi"):
        return name
    parts = name.split("/")[2:]
    paths = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
    absolute = ([path, "/" + path.lstrip("/")] for path in paths)
    return next((path for pair in absolute for path in pair if os.path.isfile(path)), name)


def raster_of(info: "RasterInfo", marks: list, image: Path) -> list:
    """What a raster is beside its files, plain values.

    Args:
        info: of the raster.
        marks: numbers of the bands that are fed, and what says where they are void.
        image: the raster; of a subdataset the whole name counts.
    """
    name = "" if image.is_file() else str(image)
    crs = info.crs.to_wkt() if info.crs else None
    points = [[p.row, p.col, p.x, p.y] for p in info.gcps]
    return [name, info.band_count, info.dtype, crs, list(info.transform), points, *map(str, marks)]


def weights_of(run: Run) -> str:
    """Hash of a run's weights; one of its own for a network that was never written."""
    path = run.folder / WEIGHTS
    return hash_file(path) if path.is_file() else uuid.uuid4().hex
