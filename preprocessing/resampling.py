"""Rasters at another ground resolution, resampled window by window as they are read.

Means over areas where pixels become larger, linear interpolation where they become smaller, both
with exact weights: a pixel is the same whichever window it is read in. Void pixels take no part.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from preprocessing.raster_access import ClosedOnExit
from preprocessing.rasters import RasterReader
from preprocessing.tiling import Window
from preprocessing.white_void import WhiteIsVoid

# A pixel is imagery where at least this share of what it covers is.
_LEAST_VALID = 0.5
# Weights are a matrix, mostly of zeros; so many columns at once keep it small.
_COLUMNS = 512


def size_at(height: int, width: int, steps: tuple[float, float], wanted: float) -> tuple[int, int]:
    """Rows and columns of a raster at another ground resolution; one at least.

    Args:
        height: rows.
        width: columns.
        steps: metres of ground from a row to the next, and from a column to the next.
        wanted: those that both shall be.
    """
    rows, columns = (
        max(1, round(side * step / wanted))
        for side, step in zip((height, width), steps, strict=True)
    )
    return rows, columns


def axis_weights(first: int, count: int, length: int, new: int) -> tuple[int, np.ndarray]:
    """What pixels of a resampled axis are made of.

    Args:
        first: first pixel wanted, on the new axis.
        count: how many.
        length: pixels of the axis.
        new: pixels that it shall have over the same ground.

    Returns:
        The first pixel needed of the axis, and the weights ``(count, needed)`` float32 of those
        needed; each row sums to 1.
    """
    scale = length / new
    wanted = np.arange(first, first + count)
    if scale >= 1:
        low, high = wanted * scale, np.minimum((wanted + 1) * scale, length)
        start, end = int(low[0]), int(np.ceil(high[-1] - 1e-9))
        source = np.arange(start, end)
        shared = np.minimum(high[:, None], source + 1) - np.maximum(low[:, None], source)
        weights = np.clip(shared, 0, None)
    else:
        centre = np.clip((wanted + 0.5) * scale - 0.5, 0, length - 1)
        start, end = int(centre[0]), min(int(centre[-1]) + 2, length)
        weights = np.clip(1 - np.abs(centre[:, None] - np.arange(start, end)), 0, None)
    return start, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resample(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Weighted means over rows and columns.

    Args:
        values: ``(height, width)`` or ``(height, width, channels)``, numbers.
        rows: weights ``(new height, height)``.
        columns: weights ``(new width, width)``.

    Returns:
        float32 ``(new height, new width[, channels])``.
    """
    along = np.tensordot(rows, values.astype(np.float32), axes=(1, 0))
    return np.moveaxis(np.tensordot(columns, along, axes=(1, 1)), 0, 1)


class ResampledReader(ClosedOnExit):
    """A raster read at another size; otherwise as ``RasterReader``, which it closes.

    A context manager. Attributes: ``height`` and ``width``.

    Args:
        reader: the raster.
        height: rows that it shall have.
        width: columns that it shall have.
    """

    def __init__(self, reader: RasterReader | WhiteIsVoid, height: int, width: int) -> None:
        self._reader = reader
        self.height, self.width = height, width

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read one window of the resampled raster.

        Args:
            window: inside it.

        Returns:
            The image ``(height, width, bands)`` in the file's dtype, and where it is imagery,
            ``(height, width)`` bool: where at least half of what a pixel covers is.

        Raises:
            RasterError: the file is corrupt there.
        """
        row, rows = axis_weights(window.row, window.height, self._reader.height, self.height)
        column, columns = axis_weights(window.column, window.width, self._reader.width, self.width)
        source = Window(row, column, rows.shape[1], columns.shape[1])
        image, valid = self._reader.read(source)
        share = resample(valid, rows, columns)
        sums = resample(np.where(valid[..., None], image, 0), rows, columns)
        means = sums / np.maximum(share, 1e-6)[..., None]
        if image.dtype.kind in "iu":
            limits = np.iinfo(image.dtype)
            means = np.clip(np.rint(means), limits.min, limits.max)
        return means.astype(image.dtype), share >= _LEAST_VALID


def resampled_strips(
    strips: Iterable[tuple[int, np.ndarray]],
    size: tuple[int, int],
    wanted: tuple[int, int],
    rows: int = 256,
) -> Iterator[tuple[int, np.ndarray]]:
    """Probabilities at another size, strip by strip; some strips are held in memory.

    Args:
        strips: first row and ``(rows, width)`` float32, NaN where void, of consecutive strips that
            together are the raster.
        size: height and width of that raster.
        wanted: height and width over the same ground.
        rows: height of the strips that are yielded.

    Yields:
        First row and ``(rows, width)`` float32; NaN where all that a pixel is made of is void.
    """
    starts = range(0, wanted[1], _COLUMNS)
    columns = [axis_weights(c, min(_COLUMNS, wanted[1] - c), size[1], wanted[1]) for c in starts]
    remaining = iter(strips)
    held, top = np.empty((0, size[1]), np.float32), 0
    for first in range(0, wanted[0], rows):
        start, weights = axis_weights(first, min(rows, wanted[0] - first), size[0], wanted[0])
        parts = [held[start - top :]]
        while sum(map(len, parts)) < weights.shape[1]:
            parts.append(next(remaining)[1])
        held, top = np.concatenate(parts), start
        part = held[: weights.shape[1]]
        known = ~np.isnan(part)
        layers = np.stack([known, np.where(known, part, 0)], axis=2)
        made = [
            resample(layers[:, start : start + across.shape[1]], weights, across)
            for start, across in columns
        ]
        share, sums = np.moveaxis(np.concatenate(made, axis=1), 2, 0)
        yield first, np.divide(sums, share, out=np.full_like(sums, np.nan), where=share > 1e-6)
