"""How bands of any depth are brought to one scale: statistics gathered image by image.

They become the configuration of the model's scaling layer, so they have to be the same however
the images were cut up. 8-bit bands are scaled by mean and standard deviation. Of other depths a
few pixels can lie far from all others (saturation, glints, fill values that no nodata declares),
so their values are clipped first: limits in the manner of the 2 % linear stretch, the common way
to show such imagery, and wider than it, since the bright end that a stretch saturates is where
many roofs are.
"""

import math

import numpy as np

from preprocessing.errors import RasterError
from preprocessing.histogram import BandHistogram

PERCENTILES = ("0", "0.1", "2", "50", "98", "99.9", "100")
"""Kept of each band, as keys of ``BandStatistics.percentiles``."""

FILL_VALUES = (-9999.0, -32767.0, -32768.0, -99999.0)
"""What rasters write where there is nothing, and do not always declare as nodata."""

LARGEST = 1e30
"""Of what a sensor measures; beyond are fill values such as -3.4e38 and 9.97e36."""

_PIXELS_AT_ONCE = 1 << 20


class BandStatistics:
    """Histograms of all bands over all valid pixels, and what follows from them.

    Attributes:
        bands: number of bands.
        count: number of valid pixels so far.
    """

    def __init__(self, bands: int) -> None:
        """Start with no pixel for ``bands`` bands."""
        self.bands = bands
        self.count = 0
        self._dtype: np.dtype | None = None
        self._histograms: list[BandHistogram] = []

    def update(self, image: np.ndarray, valid: np.ndarray) -> None:
        """Add the valid pixels of an image, or of a stack of images.

        Args:
            image: (h, w, bands) or (n, h, w, bands), integers of 8 or 16 bits or float32, raw
                values.
            valid: (h, w) or (n, h, w) bool, False where there is no imagery (void).

        Raises:
            RasterError: another number of bands, another shape of ``valid``, another dtype than
                before or than is named above, or values among the valid ones that are not finite.
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
        if not valid.any():
            return
        if self._dtype is None:
            self._histograms = [BandHistogram(image.dtype) for _ in range(self.bands)]
            self._dtype = image.dtype
        if image.dtype != self._dtype:
            raise RasterError(
                f"statistics of {self._dtype} images cannot take one of {image.dtype}: "
                "convert the rasters to one dtype (gdal_translate -ot)"
            )
        rows = max(1, _PIXELS_AT_ONCE // image.shape[1])
        for first in range(0, len(image), rows):
            pixels = image[first : first + rows][valid[first : first + rows].astype(bool)]
            if not np.isfinite(pixels).all():
                raise RasterError(
                    "valid pixels hold NaN or infinite values: mark them as nodata in the raster"
                )
            for histogram, values in zip(self._histograms, pixels.T, strict=True):
                histogram.add(values)
            self.count += len(pixels)

    @property
    def percentiles(self) -> dict[str, list[float]] | None:
        """``PERCENTILES`` of each band in raw values; None where there was no valid pixel."""
        if self.count == 0:
            return None
        shares = [float(share) for share in PERCENTILES]
        of_band = [histogram.percentiles(shares) for histogram in self._histograms]
        return {
            share: [found[number] for found in of_band] for number, share in enumerate(PERCENTILES)
        }

    @property
    def limits(self) -> list[list[float]] | None:
        """Low and high that each band is clipped to, in raw values; None where none is.

        The 2nd and 98th percentile, each moved outwards by their distance: six standard
        deviations to either side of values that are normally distributed. A band whose 2nd and
        98th percentile are one has those of 0.1 and 99.9 %, and where these are one as well, it
        is constant: both limits are its value, and it becomes 0 everywhere. Limits of integers
        are rounded outwards. 8-bit bands, and no valid pixel, have no limits.

        Raises:
            RasterError: the percentiles of a band are fill values, which no limits keep out.
        """
        percentiles = self.percentiles
        if percentiles is None or self._dtype == np.uint8:
            return None
        limits = []
        for band in range(self.bands):
            low, high = _core(percentiles, band)
            _refuse_fill(low, high, band)
            low, high = low - (high - low), high + (high - low)
            if self._dtype.kind != "f":
                low, high = float(math.floor(low)), float(math.ceil(high))
            limits.append([low, high])
        return limits

    @property
    def mean(self) -> list[float]:
        """Mean of each band, clipped to its limits, in raw values; 0 without a valid pixel."""
        return [mean for mean, _ in self._moments()]

    @property
    def std(self) -> list[float]:
        """Standard deviation (of the population) of each band, clipped, in raw values.

        1 where there was no valid pixel and where a band is constant: it is there to be divided
        by, and such a band then becomes 0 instead of NaN.
        """
        return [std or 1.0 for _, std in self._moments()]

    def _moments(self) -> list[tuple[float, float]]:
        if self.count == 0:
            return [(0.0, 0.0)] * self.bands
        limits = self.limits or [None] * self.bands
        return [one.moments(pair) for one, pair in zip(self._histograms, limits, strict=True)]


def value_range(manifest: dict) -> tuple[float, float] | None:
    """The range of values that the strengths of an augmentation refer to.

    2nd to 98th percentile, the median over the bands of each: a strength then means what it
    would on the 8-bit imagery that a 2 % stretch makes of the store's, for a typical band.

    Args:
        manifest: of a patch store.

    Returns:
        (low, high) in raw values with low below high; None for 8-bit imagery, whose range is that
        of its dtype, and for stores without percentiles.
    """
    percentiles = manifest.get("band_percentiles")
    if manifest["dtype"] == "uint8" or not percentiles:
        return None
    cores = [_core(percentiles, band) for band in range(manifest["bands"])]
    low, high = (float(limit) for limit in np.median(cores, axis=0))
    return (low, high) if low < high else (low, low + 1)


def _core(percentiles: dict[str, list[float]], band: int) -> tuple[float, float]:
    """Where most values of a band lie; one value twice where it is constant."""
    for low, high in (("2", "98"), ("0.1", "99.9")):
        if percentiles[low][band] < percentiles[high][band]:
            return percentiles[low][band], percentiles[high][band]
    return percentiles["50"][band], percentiles["50"][band]


def _refuse_fill(low: float, high: float, band: int) -> None:
    for value in (low, high):
        # The histogram knows a float to a part of its size.
        near = [fill for fill in FILL_VALUES if math.isclose(value, fill, rel_tol=1e-3)]
        if near or abs(value) > LARGEST:
            fill = f"{near[0]:g}" if near else f"about {value:.3g}"
            raise RasterError(
                f"band {band + 1}: 2 % or more of the valid pixels are {fill}, a fill value; "
                "`gdal_edit.py -a_nodata VALUE FILE` declares it in the rasters"
            )
