"""GDAL with errors of one line: open a raster, describe it, read a window of it.

``rasters`` and ``raster_writers`` stand on this.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from preprocessing.errors import RasterError, one_line
from preprocessing.ground import fit_control_points, ground_steps, mean_step
from preprocessing.image_names import RasterName
from preprocessing.tiling import Window

_OPTIONS = {
    # Without these two, a truncated JPEG or PNG is read without an error. What is missing is grey
    # or, in a PNG read in one piece, whatever was in memory.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}
# The environment may say otherwise.
_DEFAULTS = {
    # Bytes for blocks; GDAL's own default grows with the machine's memory.
    "GDAL_CACHEMAX": 256 << 20,
    # Seconds; without these GDAL waits forever for a server that has stopped answering.
    "GDAL_HTTP_CONNECTTIMEOUT": 30,
    "GDAL_HTTP_LOW_SPEED_TIME": 60,
}
_OPTIONS |= {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
# rasterio wraps most of GDAL's errors in its own, but lets some through as they are.
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)


@dataclass(frozen=True)
class RasterInfo:
    """Everything about a raster but its pixels.

    Attributes:
        band_count: bands in the file, alpha included.
        dtype: numpy's name of the pixel type, "uint8" for most imagery.
        crs: ``rasterio.crs.CRS``, that of the ground control points where the file has nothing
            else; None if unknown.
        transform: affine from (column, row) to the CRS; the identity where the file has none.
        gsd: ground metres per pixel at the centre, geodesic, by the affine or else by the ground
            control points; None if unknown.
        georeferenced: the file has a CRS and an affine of its own.
        gcps: ground control points (``rasterio.control.GroundControlPoint``) of a raster without
            an affine; its masks keep them, and ``ground.fit_control_points`` uses them.
        rpcs: rational polynomial coefficients, GDAL's names and values, of a raster with neither
            affine nor control points. Its masks keep them; nothing uses them, as that takes a
            terrain model.
        steps: metres of ground from a row to the next and from a column to the next; ``gsd`` is
            their geometric mean.
    """

    height: int
    width: int
    band_count: int
    dtype: str
    crs: Any
    transform: Affine
    gsd: float | None
    georeferenced: bool
    gcps: tuple = ()
    rpcs: tuple[tuple[str, str], ...] = ()
    steps: tuple[float, float] | None = None


class ClosedOnExit:
    """A context manager that gives itself and calls its ``close`` at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def gdal_quiet() -> Iterator[None]:
    """Run GDAL calls so that what goes wrong is raised, never printed.

    GDAL's messages go to rasterio's (silent) log instead of standard error. Warnings about missing
    georeferencing and shadowed alpha bands are dropped, as the readers handle both. Truncated
    files are errors. Unless the environment says otherwise, the cache of blocks is 256 MB, and GDAL
    gives up on a server that does not answer.
    """
    with warnings.catch_warnings(), rasterio.Env(**_OPTIONS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield


@cache
def compression() -> str:
    """Return the compression for outputs: "ZSTD" where GDAL has it, else "DEFLATE"."""
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8"}
    try:
        with gdal_quiet(), MemoryFile() as memory, memory.open(compress="ZSTD", **profile) as file:
            file.write(np.zeros((1, 16, 16), np.uint8))
        return "ZSTD"
    except GDAL_ERRORS:
        return "DEFLATE"


def reason(error: BaseException) -> str:
    """Return GDAL's own words for an error, on one line.

    rasterio often raises "Read failed. See previous exception"; the cause says more.
    """
    return one_line(error.__cause__ or error)


def open_raster(path: str | os.PathLike) -> rasterio.DatasetReader:
    """Open a raster of any format GDAL reads, by any name that ``RasterName`` takes.

    Raises:
        RasterError: no such file, a folder, or no raster.
    """
    try:
        with gdal_quiet():
            return rasterio.open(os.fspath(path))
    except (*GDAL_ERRORS, ValueError) as error:
        if RasterName(path).is_virtual:
            problem = f"cannot be opened: {reason(error)}"
        elif Path(path).is_dir():
            problem = "is a folder; name a raster file (GeoTIFF, JPEG, PNG, VRT, ...)"
        elif not Path(path).exists():
            problem = "no such file"
        else:
            problem = (
                f"not a raster that can be read (GeoTIFF, JPEG, PNG, VRT, ...): {reason(error)}"
            )
        raise RasterError(f"{path}: {problem}") from error


def describe(dataset: rasterio.DatasetReader) -> RasterInfo:
    """Return the ``RasterInfo`` of an open dataset.

    Raises:
        RasterError: no bands at all (a container of subdatasets), or complex pixels.
    """
    if dataset.count == 0:
        inside = f", for example {dataset.subdatasets[0]}" if dataset.subdatasets else ""
        raise RasterError(f"{dataset.name}: has no bands; name one of its subdatasets{inside}")
    if any("complex" in dtype for dtype in dataset.dtypes):
        raise RasterError(
            f"{dataset.name}: pixels are {dataset.dtypes[0]}; real numbers are needed, "
            "take the amplitude first"
        )
    with gdal_quiet():
        transform, (gcps, gcps_crs) = dataset.transform, dataset.gcps
        rpcs = dataset.tags(ns="RPC")
    crs, height, width = dataset.crs, dataset.height, dataset.width
    placed = transform != Affine.identity()
    only_gcps = bool(gcps) and not placed
    georeferenced = crs is not None and placed
    steps = None
    if georeferenced:
        steps = ground_steps(crs, transform, height, width)
    elif only_gcps and (fit := fit_control_points(gcps, gcps_crs, height, width)):
        steps = fit.steps
    return RasterInfo(
        height=height,
        width=width,
        band_count=dataset.count,
        dtype=str(np.result_type(*dataset.dtypes)),
        crs=gcps_crs if only_gcps else crs,
        transform=transform,
        gsd=steps and mean_step(steps),
        georeferenced=georeferenced,
        gcps=tuple(gcps) if only_gcps else (),
        rpcs=() if placed or gcps else tuple(rpcs.items()),
        steps=steps,
    )


def raster_info(path: str | os.PathLike) -> RasterInfo:
    """Describe a raster without reading its pixels; errors are those of ``open_raster``."""
    with open_raster(path) as dataset:
        return describe(dataset)


def raster_files(path: str | os.PathLike) -> list[str]:
    """Return the files that a raster's pixels and place come from, such as the sources of a VRT.

    The raster's own name comes first, the others are sorted. Overviews (``.ovr``) and ``.aux.xml``
    are left out: the former change no pixel, and all that counts of the latter is in ``RasterInfo``
    and ``rasters.Validity.marks``. Errors are those of ``open_raster``.
    """
    with open_raster(path) as dataset:
        own, beside = dataset.files[:1], dataset.files[1:]
    files = {name for name in beside if not name.lower().endswith((".aux.xml", ".ovr"))}
    # GDAL names the sources of a VRT, not those of a VRT within it.
    inner = {name for name in files if name.lower().endswith(".vrt")} - {os.fspath(path)}
    return own + sorted(files.union(*map(raster_files, inner)) - {*own})


def raster_tags(path: str | os.PathLike) -> dict[str, str]:
    """Return the tags of a raster's default domain; errors are those of ``open_raster``."""
    with open_raster(path) as dataset:
        return dataset.tags()


def read_window(
    dataset: rasterio.DatasetReader, window: Window, bands: list[int], masks: bool = False
) -> np.ndarray:
    """Read bands, or GDAL's masks of them (uint8, 0 is void), as ``(height, width, bands)``.

    Raises:
        RasterError: unreadable; the message names the first block of a file that cannot be read.
        ValueError: the window reaches outside the raster.
    """
    if window.clipped(dataset.height, dataset.width) != window:
        raise ValueError(f"{window} reaches outside {dataset.height} x {dataset.width} pixels")
    try:
        return _read(dataset, window, bands, masks)
    except GDAL_ERRORS as error:
        bad, cause = window, ""
        # A server that does not answer is not asked again.
        if not RasterName(dataset.name).url:
            bad = _first_bad_block(dataset, window, bands, masks) or window
            cause = "corrupt or truncated, "
        raise RasterError(
            f"{dataset.name}: {cause}cannot read the window of {bad.height} x "
            f"{bad.width} pixels at row {bad.row}, column {bad.column}: {reason(error)}"
        ) from error


def _read(
    dataset: rasterio.DatasetReader, window: Window, bands: list[int], masks: bool
) -> np.ndarray:
    with gdal_quiet():
        read = dataset.read_masks if masks else dataset.read
        return np.ascontiguousarray(np.moveaxis(read(bands, window=window.slices), 0, -1))


def _first_bad_block(
    dataset: rasterio.DatasetReader, window: Window, bands: list[int], masks: bool
) -> Window | None:
    """Return the first block within a window that cannot be read."""
    rows, columns = dataset.block_shapes[bands[0] - 1]
    bottom, right = window.row + window.height, window.column + window.width
    for row in range(window.row // rows * rows, bottom, rows):
        for column in range(window.column // columns * columns, right, columns):
            block = Window(row, column, rows, columns).clipped(dataset.height, dataset.width)
            try:
                _read(dataset, block, bands, masks)
            except GDAL_ERRORS:
                return block
    return None
