"""Writers of rasters: masks and probabilities that appear when complete, error maps, plain images.

``rasters`` is the other half of the conversion of masks: what is 0, 1 and 255 (void) in memory is
0 and 255 on disk, with an internal mask where there is void.
"""

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.enums import Resampling

from preprocessing.errors import OutputError
from preprocessing.image_operations import ERROR_COLOURS
from preprocessing.output_files import (
    SIDE_FILES,
    cannot_write,
    folder_beside,
    publish,
    refuse_existing,
    replacing,
    require_space,
)
from preprocessing.raster_access import (
    GDAL_ERRORS,
    ClosedOnExit,
    RasterInfo,
    compression,
    gdal_quiet,
    reason,
)
from preprocessing.rasters import RasterReader
from preprocessing.tiling import VOID, Window

BLOCK = 256
"""Side in pixels of the blocks of an error map; strips of whole blocks are compressed once."""


def write_raster(
    path: str | os.PathLike, pixels: np.ndarray, rows: int | None = None, **profile: Any
) -> Path:
    """Write a plain GeoTIFF, which replaces an older one once it is complete; return its path.

    Args:
        path: the file; missing folders are made.
        pixels: ``(height, width, bands)``, of a dtype that GeoTIFF knows.
        rows: rows of the raster, down which ``pixels`` are repeated; theirs by default.
        **profile: what else ``rasterio.open`` takes, such as ``crs``, ``transform``, ``compress``.

    Raises:
        OutputError: the file cannot be written.
    """
    height, width, count = pixels.shape
    rows = rows or height
    profile |= {"height": rows, "width": width, "count": count, "dtype": pixels.dtype}
    profile |= {"driver": "GTiff", "BIGTIFF": "IF_SAFER"}
    with (
        _writing(path),
        replacing(path, overwrite=True) as draft,
        rasterio.open(draft, "w", **profile) as file,
    ):
        for first in range(0, rows, height):
            strip = np.moveaxis(pixels[: rows - first], -1, 0)
            file.write(strip, window=Window(first, 0, strip.shape[1], width).slices)
    return Path(path)


class _Writer(ABC):
    """What the writers of masks and of probabilities share.

    Rows go into a working GeoTIFF, of which a Cloud Optimized GeoTIFF is made at the end. That is
    read back and compared with check sums of what was written before it gets its name.
    ``files_share`` is how large both may become together as a share of the pixels.
    """

    dtype: ClassVar[type]
    files_share: ClassVar[float]
    options: ClassVar[dict[str, Any]]
    predictor: ClassVar[str]
    resampling: ClassVar[Resampling]

    def __init__(
        self,
        path: str | os.PathLike,
        like: RasterReader | RasterInfo,
        overwrite: bool = False,
        tags: dict[str, str] | None = None,
    ) -> None:
        self.path, self._overwrite, self._tags = Path(path), overwrite, tags or {}
        self.height, self.width = like.height, like.width
        refuse_existing(self.path, overwrite)
        source = getattr(like, "path", None)
        if source is not None and self.path.exists() and self.path.samefile(source):
            raise OutputError(f"{self.path}: is the input image; name another output")
        self._block = 512 if max(self.height, self.width) > 1024 else 256
        self._profile = _profile(like, self.dtype, self._block) | self.options
        self._rpcs = dict(getattr(like, "info", like).rpcs)
        # Of each window, its rows and a check sum of its pixels.
        self._written: list[tuple[Window, int]] = []
        self._masked = False

    def __enter__(self) -> Self:
        with _writing(self.path), ExitStack() as stack:
            self._folder = stack.enter_context(folder_beside(self.path))
            size = self.height * self.width * np.dtype(self.dtype).itemsize
            require_space(self._folder, int(size * self.files_share) + (1 << 16))
            self._file = rasterio.open(self._folder / "working.tif", "w", **self._profile)
            if self._rpcs:
                self._file.update_tags(ns="RPC", **self._rpcs)
            self._file.update_tags(**self._tags)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._stack:
            if error is None:
                with _writing(self.path):
                    self._finish()
            else:
                with suppress(*GDAL_ERRORS), gdal_quiet():
                    self._file.close()

    def write(self, window: Window, pixels: np.ndarray) -> None:
        """Write the next rows.

        Args:
            window: as wide as the raster, below the window before it.
            pixels: ``(height, width)`` of a mask, uint8 of 0 background, 1 target, 255 void; or of
                probabilities, float32, 0 to 1, NaN where there is void.

        Raises:
            OutputError: disk full.
            ValueError: another shape, dtype or value, or not the next rows.
        """
        row = self._next_row
        if window != Window(row, 0, min(window.height, self.height - row), self.width):
            raise ValueError(f"{window}: whole rows from row {row} on are needed")
        if pixels.shape != (window.height, window.width) or pixels.dtype != self.dtype:
            raise ValueError(
                f"{pixels.dtype} pixels of shape {pixels.shape} for {window}: "
                f"{np.dtype(self.dtype).name} of its height and width are needed"
            )
        pixels, valid = self._encode(pixels)
        with _writing(self.path):
            self._file.write(pixels, 1, window=window.slices)
            if valid is not None and not self._masked and not valid.all():
                self._masked = True
                for above, _ in self._written:
                    self._file.write_mask(np.ones((above.height, above.width), bool), above.slices)
            if self._masked:
                self._file.write_mask(valid, window.slices)
        self._written.append((window, _check_sum(pixels, valid)))

    @abstractmethod
    def _encode(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return pixels as they stand on disk and, where a mask says it, which are valid.

        Raises:
            ValueError: a value that the writer does not take.
        """

    @property
    def _next_row(self) -> int:
        return self._written[-1][0].row + self._written[-1][0].height if self._written else 0

    def _finish(self) -> None:
        """Make the final file of the working file."""
        if self._next_row < self.height:
            raise ValueError(f"{self.path}: pixels of row {self._next_row} were never written")
        self._file.close()
        final = self._folder / self.path.name
        self._lay_out(self._folder / "working.tif", final)
        try:
            self._compare(final)
        except GDAL_ERRORS as error:
            raise OSError(f"reading it back failed (disk full?): {reason(error)}") from None
        publish(final, self.path, self._overwrite)
        # Statistics, masks and overviews that belonged to the file replaced.
        for suffix in SIDE_FILES:
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _lay_out(self, working: Path, final: Path) -> None:
        options = {"BLOCKSIZE": self._block, "OVERVIEW_RESAMPLING": self.resampling.name}
        options |= {"COMPRESS": compression(), "BIGTIFF": "IF_SAFER", "PREDICTOR": self.predictor}
        rasterio.shutil.copy(working, final, driver="COG", **options)
        working.unlink()

    def _compare(self, final: Path) -> None:
        """Read the whole file back; of overviews it counts only that they can be read."""
        with rasterio.open(final) as file:
            levels = len(file.overviews(1))
            for window, written in self._written:
                pixels, valid = file.read(1, window=window.slices), None
                if "nodata" not in self.options:
                    valid = file.dataset_mask(window=window.slices) > 0
                if _check_sum(pixels, valid) != written:
                    raise OSError(f"pixels differ from row {window.row} on")
        for level in range(levels):
            with rasterio.open(final, overview_level=level) as file:
                for _, area in file.block_windows(1):
                    file.read(1, window=area)


class MaskWriter(_Writer):
    """Writes a mask from top to bottom, as a GeoTIFF that appears only when it is complete.

    A context manager. On disk: a Cloud Optimized GeoTIFF, one band of uint8, 0 background and 255
    target, CRS and full affine of the raster it belongs to (rotated and south-up ones too), or its
    ground control points, or its RPCs. Where there is void, and only then, the file has an
    internal mask, and the pixel value under it is 0. ``read_label`` is the inverse. Missing folders
    are made, ``overwrite`` replaces an existing file, and ``tags`` are kept in the file.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, it is the raster itself, or it
            cannot be written (no right to, disk full), on entering, writing or leaving.
        ValueError: on leaving, rows that no window has written.
    """

    dtype = np.uint8
    # One bit in eight for noise, as much for the mask, both twice, a third more for overviews.
    files_share = 0.6
    options: ClassVar = {}
    predictor = "NO"
    # Buildings thinner than a pixel of the overview would come and go with "nearest".
    resampling = Resampling.mode

    def _encode(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        others = pixels[(pixels > 1) & (pixels != VOID)]
        if others.size:
            raise ValueError(f"mask value {others[0]}: 0 is background, 1 target, 255 void")
        return np.where(pixels == 1, np.uint8(255), np.uint8(0)), pixels != VOID


class ProbabilityWriter(_Writer):
    """Writes probabilities from top to bottom, as a GeoTIFF; see ``MaskWriter``.

    On disk: one band of float32, 0 to 1, NaN (declared as nodata) where there is void. Overviews
    are averages of what is not void.
    """

    dtype = np.float32
    # Noise that does not compress, twice, and a third of it for overviews.
    files_share = 2.4
    options: ClassVar = {"nodata": float("nan")}
    predictor = "FLOATING_POINT"
    resampling = Resampling.average

    def _encode(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        if ((pixels < 0) | (pixels > 1)).any():
            raise ValueError("probabilities outside 0 to 1; NaN is void")
        return pixels, None


class ErrorMapWriter(ClosedOnExit):
    """Writes a GeoTIFF of where two masks agree and differ: one band of uint8 with a palette.

    A context manager. The file is written in place: give a path in a folder that is thrown away
    where something fails (``output_files.folder_beside``). ``like`` gives size and place.

    Raises:
        OutputError: it cannot be written, on opening, writing or closing.
    """

    def __init__(self, path: str | os.PathLike, like: RasterInfo) -> None:
        self.path = Path(path)
        with _writing(self.path):
            profile = _profile(like, np.uint8, BLOCK)
            self._file = rasterio.open(self.path, "w", photometric="PALETTE", **profile)
            self._file.write_colormap(1, ERROR_COLOURS)

    def write(self, window: Window, values: np.ndarray) -> None:
        """Write one window of ``image_operations.error_classes``, uint8; best from top to bottom.

        Raises:
            OutputError: disk full.
        """
        with _writing(self.path):
            self._file.write(values, 1, window=window.slices)

    def close(self) -> None:
        """Complete the file."""
        with _writing(self.path):
            self._file.close()


def _profile(like: RasterReader | RasterInfo, dtype: type, block: int) -> dict[str, Any]:
    """Return what ``rasterio.open`` takes for a tiled GeoTIFF of one band where a raster lies."""
    place = {"crs": like.crs, "transform": like.transform}
    if like.gcps:
        # With points, rasterio takes a CRS that says nothing, but not None.
        place = {"crs": like.crs or CRS(), "gcps": list(like.gcps)}
    shape = {"height": like.height, "width": like.width, "count": 1, "dtype": dtype}
    tiles = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": compression()}
    return {"driver": "GTiff", "BIGTIFF": "IF_SAFER", **shape, **tiles, **place}


def _check_sum(pixels: np.ndarray, valid: np.ndarray | None) -> int:
    """Return one number for pixels and validity."""
    sum_ = zlib.crc32(np.ascontiguousarray(pixels))
    return sum_ if valid is None else zlib.crc32(np.ascontiguousarray(valid), sum_)


@contextmanager
def _writing(path: str | os.PathLike) -> Iterator[None]:
    """Write with masks inside of the file; a failure is raised as an error of one line."""
    try:
        with gdal_quiet(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            yield
    except GDAL_ERRORS as error:
        raise cannot_write(path, error) from error
