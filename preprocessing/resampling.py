"""White areas that stand for missing imagery, in rasters that do not say so otherwise."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio.shutil
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from preprocessing.errors import RasterError
from preprocessing.raster_access import (
    GDAL_ERRORS,
    ClosedOnExit,
    RasterInfo,
    gdal_quiet,
    open_raster,
    reason,
)
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


@contextmanager
def aligned(path: str | os.PathLike, onto: RasterInfo) -> Iterator[Path]:
    """A virtual raster of a mask, or of probabilities, on the grid of another raster.

    Each pixel gets the value of the pixel that its centre lies in, to an eighth of a pixel; values
    are never mixed. What the source does not cover, and what is void in it, is void. No pixel is
    read before it is asked for.

    Args:
        path: a raster that has a CRS and an affine.
        onto: the other raster, which has both too.

    Yields:
        Path of a VRT file, gone when the block ends.

    Raises:
        RasterError: no such file, no raster, one of the two has no place on the ground, or there
            is no way from one CRS to the other.
    """
    with open_raster(path) as source, tempfile.TemporaryDirectory() as folder, gdal_quiet():
        if source.crs is None or source.transform.is_identity or not onto.georeferenced:
            raise RasterError(
                f"{path}: cannot be aligned, as it or what it is to be aligned with has no CRS or "
                "no affine; give rasters of one size"
            )
        grid = {"crs": onto.crs, "transform": onto.transform}
        grid |= {"height": onto.height, "width": onto.width, "resampling": Resampling.nearest}
        # What is void is said by nodata, which goes with the band, by NaN, or by an alpha band.
        if not {MaskFlags.nodata, MaskFlags.alpha} & {*source.mask_flag_enums[0]}:
            real = source.dtypes[0].startswith("float")
            grid |= {"nodata": float("nan")} if real else {"add_alpha": True}
        target = Path(folder) / f"{Path(path).stem}.vrt"
        try:
            with WarpedVRT(source, **grid) as warped:
                rasterio.shutil.copy(warped, target, driver="VRT")
        except GDAL_ERRORS as error:
            raise RasterError(f"{path}: cannot be aligned: {reason(error)}") from error
        yield target
