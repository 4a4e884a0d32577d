"""White areas that stand for missing imagery, in rasters that do not say so otherwise."""

import numpy as np

from preprocessing.errors import RasterError
from preprocessing.raster_access import ClosedOnExit
from preprocessing.rasters import RasterReader
from preprocessing.tiling import Window

SIDE = 31
"""Pixels a side of the smallest white square that is missing imagery, and no roof or car; odd."""


def white_areas(image: np.ndarray) -> np.ndarray:
    """Where an image is white over areas in which a square of ``SIDE`` pixels fits.

    Args:
        image: ``(height, width, bands)`` uint8.

    Returns:
        ``(height, width)`` bool. What lies outside of the image counts as white.
    """
    import cv2

    white = (image == 255).all(axis=2).astype(np.uint8)
    around = cv2.copyMakeBorder(white, *[SIDE] * 4, cv2.BORDER_CONSTANT, value=1)
    opened = cv2.morphologyEx(around, cv2.MORPH_OPEN, np.ones((SIDE, SIDE), np.uint8))
    return (opened[SIDE:-SIDE, SIDE:-SIDE] & white).astype(bool)


class WhiteIsVoid(ClosedOnExit):
    """A raster of which white areas are void; otherwise as ``RasterReader``, which it closes.

    A context manager. Attributes: ``height`` and ``width``.

    Args:
        reader: the raster.

    Raises:
        RasterError: pixels of another dtype than uint8, of which no value is white for certain.
    """

    def __init__(self, reader: RasterReader) -> None:
        if reader.dtype != "uint8":
            reader.close()
            raise RasterError(
                f"{reader.path}: pixels are {reader.dtype}, white is known of uint8 only; "
                "`gdal_translate -a_nodata VALUE IN OUT` says what is void"
            )
        self._reader = reader
        self.height, self.width = reader.height, reader.width

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read one window; a pixel is void or not whichever window it is read in.

        Args:
            window: inside the raster.

        Returns:
            As ``RasterReader.read``.

        Raises:
            RasterError: the file is corrupt there.
        """
        height, width = window.height + 2 * SIDE, window.width + 2 * SIDE
        wide = Window(window.row - SIDE, window.column - SIDE, height, width)
        wide = wide.clipped(self.height, self.width)
        image, valid = self._reader.read(wide)
        top, left = window.row - wide.row, window.column - wide.column
        inside = np.s_[top : top + window.height, left : left + window.width]
        return image[inside], valid[inside] & ~white_areas(image)[inside]
