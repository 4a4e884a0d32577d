"""Gather statistics that bring bands of any depth to one scale, from histograms in flat memory.

A histogram counts a value under its key, an integer that sorts as the values do: for integers the
distance from the smallest of the dtype, for float32 the bits, flipped. The range need not be known
in advance, and a few values of 1e38 cost the others no precision.
"""

import math
from collections.abc import Sequence

import numpy as np

from preprocessing.errors import RasterError

# Cells of 8 bytes; at least half are in use once the values differ enough.
CELLS = 1 << 20
# The first bits of a key, its lead, select the row of cells.
_LEAD_BITS = 16
_LEADS = 1 << _LEAD_BITS
_SIGN = np.uint32(1 << 31)

# Keys of ``BandStatistics.percentiles``.
PERCENTILES = ("0", "0.1", "2", "50", "98", "99.9", "100")
# Common values for "no data", which rasters do not always declare as nodata.
FILL_VALUES = (-9999.0, -32767.0, -32768.0, -99999.0)
# No sensor measures more; larger values are fill values such as -3.4e38 and 9.97e36.
LARGEST = 1e30
_PIXELS_AT_ONCE = 1 << 20


class BandHistogram:
    """Counts of the values of one band: exact for integers, adaptive for float32.

    Integers of 8 and 16 bits have a cell for each value. For float32, each lead that occurs
    (sign, exponent and 7 bits of the fraction) has a row of cells of equal width, as many as fit
    into ``CELLS``. Up to 16 leads have a cell for each number, a band of -400 to 8000 has cells of
    2 ** -15 of a value, and no cell is wider than 2 ** -11 of a value. The order and the pieces in
    which values come do not change the counts.

    Raises:
        RasterError: a dtype other than integers of 8 and 16 bits and float32.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype != np.float32 and not (self.dtype.kind in "iu" and self.dtype.itemsize <= 2):
            raise RasterError(
                f"no histogram of {self.dtype}: give integers of 8 or 16 bits, or float32"
            )
        # The bits of a key after its lead; cells tell the first _depth of them apart.
        self._trail = max(8 * self.dtype.itemsize - _LEAD_BITS, 0)
        self._depth = self._trail
        self._leads = np.empty(0, np.int64)
        self._row_of = np.zeros(_LEADS, np.int64)
        self._counts = np.empty((0, 1 << self._depth), np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count values: any shape, also empty, of the histogram's dtype, all finite."""
        keys = self._keys(values.ravel())
        leads = keys >> self._trail
        self._make_room(np.flatnonzero(np.bincount(leads, minlength=_LEADS)))
        trails = keys & ((1 << self._trail) - 1)
        cells = (self._row_of[leads] << self._depth) | (trails >> (self._trail - self._depth))
        counted = np.bincount(cells, minlength=self._counts.size)
        self._counts += counted.reshape(self._counts.shape)

    def percentiles(self, shares: Sequence[float]) -> list[float]:
        """Return percentiles (shares in 0..100) as defined by ``numpy.percentile``; 0 if empty.

        They are exact for integers; for float32 the error is less than the width of a cell.
        """
        counts, firsts, lasts = self._cells()
        if not counts.size:
            return [0.0] * len(shares)
        ends = np.cumsum(counts)

        def in_order(position: int) -> float:
            cell = int(np.searchsorted(ends, position, side="right"))
            # The values of a cell are assumed to lie evenly in it.
            inside = (position - (ends[cell] - counts[cell]) + 0.5) / counts[cell]
            return float(firsts[cell] + (lasts[cell] - firsts[cell]) * inside)

        found = []
        for share in shares:
            position = share / 100 * (int(ends[-1]) - 1)
            low, high = in_order(math.floor(position)), in_order(math.ceil(position))
            found.append(low + (high - low) * (position - math.floor(position)))
        return found

    def moments(self, limits: tuple[float, float] | None = None) -> tuple[float, float]:
        """Return mean and population standard deviation of the values clipped to (low, high).

        They are (0, 0) if empty, and come from exact sums for integers without limits.
        """
        counts, firsts, lasts = self._cells()
        if not counts.size:
            return 0.0, 0.0
        if self.dtype.kind != "f" and limits is None:
            # Python's integers do not overflow.
            counts, values, origin = counts.astype(object), firsts.astype(object), 0
        else:
            values = (firsts + lasts) / 2
            if limits is not None:
                values = np.clip(values, *limits)
            # Avoids subtracting two large numbers to get the spread of a band that hardly varies.
            origin = float(values[len(values) // 2])
            values = values - origin
        count, total = counts.sum(), (counts * values).sum()
        spread = count * (counts * values * values).sum() - total * total
        return float(origin + total / count), math.sqrt(max(0, spread) / count**2)

    def _keys(self, values: np.ndarray) -> np.ndarray:
        if self.dtype.kind != "f":
            return values.astype(np.int64) - np.iinfo(self.dtype).min
        bits = np.ascontiguousarray(values).view(np.uint32)
        return np.where(bits & _SIGN, ~bits, bits | _SIGN).astype(np.int64)

    def _values(self, keys: np.ndarray) -> np.ndarray:
        """Return the values of keys, as int64 or float64."""
        if self.dtype.kind != "f":
            return keys + np.iinfo(self.dtype).min
        bits = keys.astype(np.uint32)
        return np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float32).astype(np.float64)

    def _make_room(self, seen: np.ndarray) -> None:
        """Add rows for new leads, and merge cells if there are too many."""
        leads = np.union1d(self._leads, seen)
        if len(leads) == len(self._leads):
            return
        depth = min(self._trail, (CELLS // len(leads)).bit_length() - 1)
        counts = np.zeros((len(leads), 1 << depth), np.int64)
        merged = self._counts.reshape(len(self._leads), 1 << depth, 1 << (self._depth - depth))
        counts[np.searchsorted(leads, self._leads)] = merged.sum(axis=2)
        self._row_of[leads] = np.arange(len(leads))
        self._leads, self._depth, self._counts = leads, depth, counts

    def _cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return counts, first and last values of the non-empty cells, ascending."""
        cells = np.flatnonzero(self._counts)
        width = 1 << (self._trail - self._depth)
        trails = (cells & ((1 << self._depth) - 1)) * width
        keys = (self._leads[cells >> self._depth] << self._trail) | trails
        counts = self._counts.ravel()[cells]
        return counts, self._values(keys), self._values(keys + width - 1)


class BandStatistics:
    """Statistics of all bands over ``count`` valid pixels."""

    def __init__(self, bands: int) -> None:
        self.bands = bands
        self.count = 0
        self._dtype: np.dtype | None = None
        self._histograms: list[BandHistogram] = []

    def update(self, image: np.ndarray, valid: np.ndarray) -> None:
        """Add the pixels of an image, (h, w, bands) raw values, where ``valid``, (h, w) bool.

        Raises:
            RasterError: the number of bands or the shape of ``valid`` is wrong, the dtype is not
                one of ``BandHistogram`` or not that of earlier images, or a valid value is not
                finite.
        """
        if image.shape[-1] != self.bands or image.shape[:-1] != valid.shape:
            raise RasterError(
                f"statistics of {self.bands} bands cannot take an image of {image.shape} with "
                f"validity of {valid.shape}: give (h, w, {self.bands}) and (h, w)"
            )
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
        """The ``PERCENTILES`` of each band in raw values; None without a valid pixel."""
        if self.count == 0:
            return None
        shares = [float(share) for share in PERCENTILES]
        of_band = [histogram.percentiles(shares) for histogram in self._histograms]
        of_share = zip(*of_band, strict=True)
        return {share: list(found) for share, found in zip(PERCENTILES, of_share, strict=True)}

    @property
    def limits(self) -> list[list[float]] | None:
        """Low and high to clip each band to, in raw values; None for 8 bits or no valid pixel.

        They are the 2nd and 98th percentile, each moved outwards by their distance (six standard
        deviations of normally distributed values), and rounded outwards for integers. If the two
        are equal, the percentiles 0.1 and 99.9 take their place; if these are equal too, the band
        counts as constant: both limits are its value, and it becomes 0 everywhere.

        Raises:
            RasterError: the percentiles of a band are fill values, which limits cannot exclude.
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
        """The mean of each band, clipped to its limits; 0 without a valid pixel."""
        return [mean for mean, _ in self._moments()]

    @property
    def std(self) -> list[float]:
        """The population standard deviation of each band, clipped to its limits.

        1 for constant bands and without a valid pixel: divided by it, a band is 0 instead of NaN.
        """
        return [std or 1.0 for _, std in self._moments()]

    def _moments(self) -> list[tuple[float, float]]:
        if self.count == 0:
            return [(0.0, 0.0)] * self.bands
        limits = self.limits or [None] * self.bands
        return [one.moments(pair) for one, pair in zip(self._histograms, limits, strict=True)]


def value_range(manifest: dict) -> tuple[float, float] | None:
    """Return the (low, high) raw values that augmentation strengths refer to for a patch store.

    They are the medians over the bands of the 2nd and the 98th percentile, so for a typical band a
    strength means the same as on 8-bit imagery made by a 2 % stretch. None for 8-bit imagery, for
    which the range of the dtype counts, and for stores without percentiles.
    """
    percentiles = manifest.get("band_percentiles")
    if manifest["dtype"] == "uint8" or not percentiles:
        return None
    cores = [_core(percentiles, band) for band in range(manifest["bands"])]
    low, high = (float(limit) for limit in np.median(cores, axis=0))
    return (low, high) if low < high else (low, low + 1)


def _core(percentiles: dict[str, list[float]], band: int) -> tuple[float, float]:
    """Return the range of most values of a band; its value twice if it is constant."""
    for low, high in (("2", "98"), ("0.1", "99.9")):
        if percentiles[low][band] < percentiles[high][band]:
            return percentiles[low][band], percentiles[high][band]
    return percentiles["50"][band], percentiles["50"][band]


def _refuse_fill(low: float, high: float, band: int) -> None:
    for value in (low, high):
        # The histogram knows floats only approximately.
        near = [fill for fill in FILL_VALUES if math.isclose(value, fill, rel_tol=1e-3)]
        if near or abs(value) > LARGEST:
            fill = f"{near[0]:g}" if near else f"about {value:.3g}"
            raise RasterError(
                f"band {band + 1}: 2 % or more of the valid pixels are {fill}, a fill value; "
                "`gdal_edit.py -a_nodata VALUE FILE` declares it in the rasters"
            )
