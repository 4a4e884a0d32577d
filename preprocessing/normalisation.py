"""Mean and standard deviation of each band, gathered image by image.

They become the configuration of the model's scaling layer, so they have to be the same however
the images were cut up: sums of integers are kept as integers of any size and divided once.
"""

import math

import numpy as np

from preprocessing.errors import RasterError


class BandStatistics:
    """Running mean and standard deviation of each band over all valid pixels.

    Attributes:
        bands: number of bands.
        count: number of valid pixels so far.
    """

    def __init__(self, bands: int) -> None:
        """Start with no pixel for ``bands`` bands."""
        self.bands = bands
        self.count = 0
        self._dtype: np.dtype | None = None
        # Taken off every value before it is added up, so that the spread of a float band that
        # hardly varies is no difference between two large numbers.
        self._origin = [0.0] * bands
        self._sums: list[int | float] = [0] * bands
        self._squares: list[int | float] = [0] * bands

    def update(self, image: np.ndarray, valid: np.ndarray) -> None:
        """Add the valid pixels of an image, or of a stack of images.

        Args:
            image: (h, w, bands) or (n, h, w, bands), uint8, uint16 or float32, raw values.
                Integers are added exactly, float32 in float64.
            valid: (h, w) or (n, h, w) bool, False where there is no imagery (void).

        Raises:
            RasterError: another number of bands, another shape of ``valid``, another dtype than
                before, or values among the valid ones that are not finite.
        """
        if image.shape[-1] != self.bands or image.shape[:-1] != valid.shape:
            raise RasterError(
                f"statistics of {self.bands} bands cannot take an image of {image.shape} with "
                f"validity of {valid.shape}: give (h, w, {self.bands}) and (h, w)"
            )
        if image.ndim > 3:
            # One image at a time: a store of patches is larger than memory.
            for one, one_valid in zip(image, valid, strict=True):
                self.update(one, one_valid)
            return
        pixels = image[valid.astype(bool, copy=False)]
        if len(pixels) == 0:
            return
        is_float = pixels.dtype.kind == "f"
        if self._dtype is None:
            self._dtype = pixels.dtype
            if is_float:
                self._origin = pixels[0].tolist()
        if pixels.dtype != self._dtype:
            raise RasterError(
                f"statistics of {self._dtype} images cannot take one of {pixels.dtype}: "
                "convert the rasters to one dtype (gdal_translate -ot)"
            )
        if is_float:
            pixels = pixels - np.array(self._origin)
        exact = np.float64 if is_float else np.int64
        sums = np.einsum("nb->b", pixels, dtype=exact).tolist()
        squares = np.einsum("nb,nb->b", pixels, pixels, dtype=exact).tolist()
        if not all(map(math.isfinite, sums + squares)):
            raise RasterError(
                "valid pixels hold NaN or infinite values: mark them as nodata in the raster"
            )
        self.count += len(pixels)
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)]
        self._squares = [old + new for old, new in zip(self._squares, squares, strict=True)]

    @property
    def mean(self) -> list[float]:
        """Mean of each band in raw values; 0 where there was no valid pixel."""
        if self.count == 0:
            return [0.0] * self.bands
        return [
            origin + total / self.count
            for origin, total in zip(self._origin, self._sums, strict=True)
        ]

    @property
    def std(self) -> list[float]:
        """Standard deviation (of the population) of each band in raw values.

        1 where there was no valid pixel and where a band is constant: it is there to be divided
        by, and such a band then becomes 0 instead of NaN.
        """
        if self.count == 0:
            return [1.0] * self.bands
        # Whole numbers up to the last division: no cancellation between large sums.
        spreads = [
            max(0, self.count * squares - total * total)
            for total, squares in zip(self._sums, self._squares, strict=True)
        ]
        return [math.sqrt(spread / self.count**2) or 1.0 for spread in spreads]
