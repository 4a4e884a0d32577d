"""Maps of where two masks agree and differ, as small paletted GeoTIFFs.

Against a truth, *true* is target in both, *missed* only in the truth, *false* only in the mask.
Between two masks without a truth these are both, only the first, only the second.
"""

import os
from pathlib import Path

import numpy as np
import rasterio
import rasterio.windows
from rasterio.crs import CRS

from preprocessing.errors import OutputError
from preprocessing.raster_access import (
    GDAL_ERRORS,
    ClosedOnExit,
    RasterInfo,
    compression,
    gdal_quiet,
    reason,
)
from preprocessing.tiling import VOID, Window

# A bit for the truth, a bit for the mask.
BACKGROUND, MISSED, FALSE, TRUE = 0, 1, 2, 3
COLOURS = {
    BACKGROUND: (0, 0, 0),
    MISSED: (86, 180, 233),
    FALSE: (213, 94, 0),
    TRUE: (0, 158, 115),
    VOID: (128, 128, 128),
}
"""Red, green and blue of each value: black, blue, orange, green, and grey for void.

Of the palette of Okabe and Ito, which the colour-blind can tell apart.
"""
BLOCK = 256
"""Side of a map's blocks in pixels; strips of whole blocks are compressed once."""


def error_values(truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The map of one window.

    Args:
        truth: uint8 mask of 0, 1 and 255 (void), any shape.
        mask: the same of what is looked at.

    Returns:
        uint8 of that shape: 0 background in both, 1 missed, 2 false, 3 true, 255 void in either.
    """
    values = (truth == 1).view(np.uint8) + 2 * (mask == 1).view(np.uint8)
    values[(truth == VOID) | (mask == VOID)] = VOID
    return values


class ErrorMapWriter(ClosedOnExit):
    """Writes a map, window by window: one band of uint8 with a palette, where a raster lies.

    A context manager. The file is written in place: give a path in a folder that is thrown away
    where something fails (``output_files.folder_beside``).

    Args:
        path: the GeoTIFF.
        like: size and place, by affine, by ground control points, or by neither.

    Raises:
        OutputError: it cannot be written, on opening, writing or closing.
    """

    def __init__(self, path: str | os.PathLike, like: RasterInfo) -> None:
        """Begin the file."""
        self.path = Path(path)
        place = {"crs": like.crs, "transform": like.transform}
        if like.gcps:
            # With points, rasterio takes a CRS that says nothing, but not None.
            place = {"crs": like.crs or CRS(), "gcps": list(like.gcps)}
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "photometric": "PALETTE"}
        profile |= {"height": like.height, "width": like.width, "compress": compression()}
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
        try:
            with gdal_quiet():
                self._file = rasterio.open(self.path, "w", BIGTIFF="IF_SAFER", **profile, **place)
                self._file.write_colormap(1, COLOURS)
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def write(self, window: Window, values: np.ndarray) -> None:
        """Write one window.

        Args:
            window: inside the raster; windows from top to bottom cost least.
            values: ``(height, width)`` uint8, of ``error_values``.

        Raises:
            OutputError: disk full.
        """
        area = rasterio.windows.Window(window.column, window.row, window.width, window.height)
        try:
            with gdal_quiet():
                self._file.write(values, 1, window=area)
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Complete the file."""
        try:
            with gdal_quiet():
                self._file.close()
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> OutputError:
        words = getattr(error, "strerror", None) or reason(error)
        return OutputError(f"{self.path}: cannot be written: {words}")
