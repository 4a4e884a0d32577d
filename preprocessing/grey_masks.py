"""Masks of any origin, for comparing: as labels are read, and grey ones thresholded.

A label is refused where it holds other values than 0 and 1, or 0 and 255 (``LabelReader``): to
train on a guess would be wrong. A mask that is only to be compared may be a JPEG, or a picture that
a viewer has smoothed, whose one sensible reading is the middle between 0 and 255.
"""

import os

import numpy as np

from preprocessing.errors import LabelError
from preprocessing.raster_access import read_window
from preprocessing.rasters import LabelReader
from preprocessing.tiling import VOID, Window, strips

GREY_THRESHOLD = 128


class GreyMaskReader(LabelReader):
    """A mask opened for reading windows; see ``LabelReader``, which it is but for grey values.

    A mask of uint8 that holds values above 1 where it is not void is target from 128 on, in every
    band. Opening it looks for such a value, and stops at the first strip that has one. A JPEG is
    always thresholded: a 1 in it is noise.

    Args:
        path: anything GDAL reads.

    Raises:
        RasterError: no such file, no raster, or corrupt.
        LabelError: the file declares 0 as nodata.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Open the mask and find out whether it is thresholded."""
        super().__init__(path)
        self._greys: set[int] = set()
        try:
            self._thresholded = self._has_greys()
        except BaseException:
            self.close()
            raise

    @property
    def note(self) -> str | None:
        """What was done where values read so far were grey; None where 0 and 255 were all."""
        if not self._greys:
            return None
        greys = ", ".join(map(str, sorted(self._greys)[:3]))
        return f"thresholded at {GREY_THRESHOLD} (grey values such as {greys})"

    def check_whole(self) -> None:
        """Refuse, after the last window, what is no mask by all of its values together.

        JPEG alters values, so nothing is refused of one.

        Raises:
            LabelError: grey values of which none reaches the threshold, as classes numbered from
                0 have; or 1 and 255 beside 0, of which one may be void.
        """
        if not self._greys or self._is_jpeg():
            return
        if VOID in self._seen and self._greys == {1}:
            self._check(np.array([1, VOID], np.uint8))
        if VOID not in self._seen:
            raise LabelError(
                f"{self.path}: its greatest value is {max(self._greys)}, a mask has 0 and 1, 0 and "
                f"255, or greys on both sides of {GREY_THRESHOLD}; of classes, `gdal_calc.py -A IN "
                "--outfile OUT.tif --calc 'A==1'` makes a mask"
            )

    def _has_greys(self) -> bool:
        """Whether a value above 1 stands where the mask is not void, or 1 may be noise."""
        if any(dtype != "uint8" for dtype in self._dataset.dtypes):
            return False
        if self._is_jpeg():
            return True
        for strip in strips(self.height, self.width):
            bands = read_window(self._dataset, strip, self._bands)
            if bands.max() > 1 and bands[self._validity.read(strip)].max(initial=0) > 1:
                return True
        return False

    def _read_bands(self, window: Window) -> np.ndarray:
        bands = super()._read_bands(window)
        if not self._thresholded:
            return bands
        grey = (bands != 0) & (bands != VOID)
        if grey.any():
            grey &= self._validity.read(window)[..., np.newaxis]
            self._greys.update(np.flatnonzero(np.bincount(bands[grey], minlength=1)).tolist())
        return np.where(bands >= GREY_THRESHOLD, np.uint8(VOID), np.uint8(0))
