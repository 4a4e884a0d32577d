"""A raster seen otherwise: at another resolution, on another grid, or with white areas as void."""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio.shutil
from affine import Affine
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

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
"""Side in pixels of the smallest white square that counts as missing imagery; odd.

Smaller white areas are roofs and cars.
"""
# A resampled pixel is imagery where at least this share of what it covers is.
_LEAST_VALID = 0.5
# GDAL wants a CRS on both sides of a warp; with the same one only pixels are transformed.
_ANY_CRS = "EPSG:3857"


def white_areas(image: np.ndarray) -> np.ndarray:
    """Return where an image is white over areas in which a square of ``SIDE`` pixels fits.

    The image is ``(height, width, bands)`` uint8, the result ``(height, width)`` bool. What lies
    outside the image counts as white.
    """
    import cv2

    white = (image == 255).all(axis=2).astype(np.uint8)
    around = cv2.copyMakeBorder(white, *[SIDE] * 4, cv2.BORDER_CONSTANT, value=1)
    opened = cv2.morphologyEx(around, cv2.MORPH_OPEN, np.ones((SIDE, SIDE), np.uint8))
    return (opened[SIDE:-SIDE, SIDE:-SIDE] & white).astype(bool)


class _Wrapped(ClosedOnExit):
    """A reader that closes the reader that it is given."""

    def __init__(self, reader: "RasterReader | WhiteIsVoid", height: int, width: int) -> None:
        self._reader, self.height, self.width = reader, height, width

    def close(self) -> None:
        self._reader.close()


class WhiteIsVoid(_Wrapped):
    """A ``RasterReader`` whose white areas are void; it closes the reader that it is given.

    Raises:
        RasterError: a dtype other than uint8, in which no value is white for certain.
    """

    def __init__(self, reader: RasterReader) -> None:
        if reader.dtype != "uint8":
            reader.close()
            raise RasterError(
                f"{reader.path}: pixels are {reader.dtype}, white is known of uint8 only; "
                "`gdal_translate -a_nodata VALUE IN OUT` says what is void"
            )
        super().__init__(reader, reader.height, reader.width)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read one window, as ``RasterReader.read`` does.

        Whether a pixel is void does not depend on the window that it is read in.
        """
        height, width = window.height + 2 * SIDE, window.width + 2 * SIDE
        wide = Window(window.row - SIDE, window.column - SIDE, height, width)
        wide = wide.clipped(self.height, self.width)
        image, valid = self._reader.read(wide)
        top, left = window.row - wide.row, window.column - wide.column
        inside = np.s_[top : top + window.height, left : left + window.width]
        return image[inside], valid[inside] & ~white_areas(image)[inside]


def size_at(height: int, width: int, steps: tuple[float, float], wanted: float) -> tuple[int, int]:
    """Return the rows and columns, one at least, of a raster at another ground resolution.

    Its ``steps`` are metres of ground from a row to the next and from a column to the next; both
    become ``wanted``.
    """
    return max(1, round(height * steps[0] / wanted)), max(1, round(width * steps[1] / wanted))


class ResampledReader(_Wrapped):
    """A reader of a raster at another height and width; it closes the reader that it is given.

    Larger pixels are means of what they cover, smaller ones are interpolated bilinearly (GDAL's
    "average" and "bilinear"). Void takes no part in either.
    """

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read one window of the resampled raster, as ``RasterReader.read`` does.

        A pixel is imagery where at least half of what it covers is.
        """
        size = self._reader.height, self._reader.width
        source = _source(window, size, (self.height, self.width))
        image, valid = self._reader.read(source)
        scale = size[0] / self.height, size[1] / self.width
        means, share = _means(image, valid, source, window, scale)
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
    """Resample probabilities strip by strip; memory holds some strips.

    Strips are pairs of first row and ``(rows, width)`` float32, NaN where void. Those that come
    in are consecutive and together the raster of height and width ``size``; those yielded are of
    the raster of the ``wanted`` size over the same ground, and void where all that a pixel is made
    of is void.
    """
    remaining = iter(strips)
    held, top = np.empty((0, size[1]), np.float32), 0
    scale = size[0] / wanted[0], size[1] / wanted[1]
    for first in range(0, wanted[0], rows):
        window = Window(first, 0, min(rows, wanted[0] - first), wanted[1])
        source = _source(window, size, wanted)
        parts = [held[source.row - top :]]
        while sum(map(len, parts)) < source.height:
            parts.append(next(remaining)[1])
        held, top = np.concatenate(parts), source.row
        values = held[: source.height, :, None]
        means, share = _means(values, ~np.isnan(values[..., 0]), source, window, scale)
        yield first, np.where(share > 1e-6, means[..., 0], np.float32(np.nan))


def _source(window: Window, size: tuple[int, int], resampled: tuple[int, int]) -> Window:
    """Return the pixels of a raster that a window of the resampled one is made of."""
    spans = []
    for first, count, side, new in zip(
        (window.row, window.column), (window.height, window.width), size, resampled, strict=True
    ):
        # Bilinear interpolation reaches as far as two pixels of the coarser side.
        margin = 1 + math.ceil(max(side / new, 1))
        start = max(first * side // new - margin, 0)
        spans.append((start, min(-(-(first + count) * side // new) + margin, side) - start))
    (row, height), (column, width) = spans
    return Window(row, column, height, width)


def _means(
    image: np.ndarray, valid: np.ndarray, source: Window, window: Window, scale: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Resample the valid pixels of the window ``source`` to a window of the resampled raster.

    ``scale`` is how many rows and columns of the raster make one of the resampled raster.

    Returns:
        Means, float32 ``(height, width, bands)``, and the share that is valid of what each pixel
        is made of, float32 ``(height, width)``.
    """
    bands = np.moveaxis(np.where(valid[..., None], image, 0), -1, 0)
    layers = np.concatenate([bands, valid[None]]).astype(np.float32)
    made = np.zeros((len(layers), window.height, window.width), np.float32)
    with gdal_quiet():
        reproject(
            layers,
            made,
            src_transform=Affine.translation(source.column, source.row),
            dst_transform=Affine.scale(scale[1], scale[0])
            @ Affine.translation(window.column, window.row),
            src_crs=_ANY_CRS,
            dst_crs=_ANY_CRS,
            # Bilinear, where one side shrinks, GDAL's pixels depend on the window's shape.
            resampling=Resampling.average if max(scale) > 1 else Resampling.bilinear,
            tolerance=0,
        )
    share = made[-1]
    return np.moveaxis(made[:-1] / np.maximum(share, 1e-6), 0, -1), share


@contextmanager
def aligned(path: str | os.PathLike, onto: RasterInfo) -> Iterator[Path]:
    """Make a virtual raster (VRT) of a mask, or of probabilities, on the grid of another raster.

    Each pixel gets the value of the pixel that its centre lies in, to an eighth of a pixel; values
    are never mixed. What the source does not cover, and what is void in it, is void. Nothing is
    read before it is asked for, and the VRT is deleted when the block ends.

    Raises:
        RasterError: no such file, no raster, one of the two has no CRS or no affine, or there is
            no way from one CRS to the other.
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
