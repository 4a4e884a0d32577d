"""What a prediction depends on, in short: the network's weights and the raster's files."""

import os
import uuid
from pathlib import Path

from jointnet.runs import WEIGHTS, Run
from preprocessing.patch_store import hash_file


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
            stat = os.stat(name)
        except OSError:
            # Not a file of this machine: members of archives, addresses.
            found.append([str(name), None, None])
        else:
            found.append([os.path.realpath(name), stat.st_size, stat.st_mtime_ns])
    return found


def weights_of(run: Run) -> str:
    """Hash of a run's weights; one of its own for a network that was never written."""
    path = run.folder / WEIGHTS
    return hash_file(path) if path.is_file() else uuid.uuid4().hex
