"""Counts of a band's values in flat memory, from which percentiles and moments are read.

A value is counted under its key, a whole number ordered as the values are: for integers their
distance from the smallest of the dtype, for float32 its bits, flipped so that they sort. Nothing
has to be known of the range in advance, and a few values of 1e38 cost the others no precision.
"""

import math
from collections.abc import Sequence

import numpy as np

from preprocessing.errors import RasterError

# Cells of 8 bytes; half of them at least are in use once the values differ enough.
CELLS = 1 << 20
# The first bits of a key, its lead, find the row of cells.
_LEAD_BITS = 16
_LEADS = 1 << _LEAD_BITS
_SIGN = np.uint32(1 << 31)


class BandHistogram:
    """Counts of the values of one band: exact for integers, adaptive for float32.

    Integers of 8 and 16 bits have a cell for each value. For float32, each lead that occurs
    (sign, exponent and 7 bits of the fraction) has a row of cells of equal width, as many as
    fit into ``CELLS``: the fewer leads, the finer. With up to 16 leads a cell is one number; a
    band of -400 to 8000 has cells of 2 ** -15 of a value, one of 290 to 310 holds each number
    apart; never are they wider than 2 ** -11 of a value. Counts are the same in whatever order
    and pieces the values come.

    Args:
        dtype: of the values.

    Raises:
        RasterError: a dtype other than integers of 8 and 16 bits and float32.
    """

    def __init__(self, dtype: np.dtype) -> None:
        """Start with no value."""
        self.dtype = np.dtype(dtype)
        if self.dtype != np.float32 and not (self.dtype.kind in "iu" and self.dtype.itemsize <= 2):
            raise RasterError(
                f"no histogram of {self.dtype}: give integers of 8 or 16 bits, or float32"
            )
        # Bits of a key behind its lead; of these the cells tell the first _depth apart.
        self._trail = max(8 * self.dtype.itemsize - _LEAD_BITS, 0)
        self._depth = self._trail
        self._leads = np.empty(0, np.int64)
        self._row_of = np.zeros(_LEADS, np.int64)
        self._counts = np.empty((0, 1 << self._depth), np.int64)

    @property
    def count(self) -> int:
        """Number of values so far."""
        return int(self._counts.sum())

    @property
    def cells(self) -> int:
        """Number of cells held, ``CELLS`` at most."""
        return self._counts.size

    def add(self, values: np.ndarray) -> None:
        """Count values: any shape, of the histogram's dtype, all finite; none is a case."""
        keys = self._keys(values.ravel())
        leads = keys >> self._trail
        self._make_room(np.flatnonzero(np.bincount(leads, minlength=_LEADS)))
        trails = keys & ((1 << self._trail) - 1)
        cells = (self._row_of[leads] << self._depth) | (trails >> (self._trail - self._depth))
        counted = np.bincount(cells, minlength=self._counts.size)
        self._counts += counted.reshape(self._counts.shape)

    def percentiles(self, shares: Sequence[float]) -> list[float]:
        """Percentiles of the values, as ``numpy.percentile`` defines them.

        Args:
            shares: in 0..100.

        Returns:
            One number each, exact for integers; for float32 off by less than the width of a
            cell. 0 where there is no value.
        """
        counts, firsts, lasts = self._cells()
        if not counts.size:
            return [0.0] * len(shares)
        ends = np.cumsum(counts)

        def in_order(position: int) -> float:
            cell = int(np.searchsorted(ends, position, side="right"))
            # The values of a cell are taken to lie evenly in it.
            inside = (position - (ends[cell] - counts[cell]) + 0.5) / counts[cell]
            return float(firsts[cell] + (lasts[cell] - firsts[cell]) * inside)

        found = []
        for share in shares:
            position = share / 100 * (int(ends[-1]) - 1)
            low, high = in_order(math.floor(position)), in_order(math.ceil(position))
            found.append(low + (high - low) * (position - math.floor(position)))
        return found

    def moments(self, limits: tuple[float, float] | None = None) -> tuple[float, float]:
        """Mean and standard deviation (of the population) of the values.

        Args:
            limits: (low, high) that the values are clipped to first; None to take all.

        Returns:
            Both, (0, 0) where there is no value. Without limits those of integers are divided
            once from exact sums.
        """
        counts, firsts, lasts = self._cells()
        if not counts.size:
            return 0.0, 0.0
        if self.dtype.kind != "f" and limits is None:
            # Python's integers, which have any size.
            counts, values, origin = counts.astype(object), firsts.astype(object), 0
        else:
            values = (firsts + lasts) / 2
            if limits is not None:
                values = np.clip(values, *limits)
            # Taken off, so that the spread of a band that hardly varies is no difference
            # between two large numbers.
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
        """Inverse of ``_keys``, as int64 or float64."""
        if self.dtype.kind != "f":
            return keys + np.iinfo(self.dtype).min
        bits = keys.astype(np.uint32)
        return np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float32).astype(np.float64)

    def _make_room(self, seen: np.ndarray) -> None:
        """Rows for the leads that are new, and coarser cells where they are too many."""
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
        """Of the cells that are not empty, ascending: counts, first and last value."""
        cells = np.flatnonzero(self._counts)
        width = 1 << (self._trail - self._depth)
        trails = (cells & ((1 << self._depth) - 1)) * width
        keys = (self._leads[cells >> self._depth] << self._trail) | trails
        counts = self._counts.ravel()[cells]
        return counts, self._values(keys), self._values(keys + width - 1)
