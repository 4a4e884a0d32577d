"""Maps of where two masks agree and differ, as small paletted GeoTIFFs.

Against a truth, *true* is target in both, *missed* only in the truth, *false* only in the mask.
Between two masks without a truth these are both, only the first, only the second.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import rasterio
import rasterio.shutil
import rasterio.windows
from rasterio.crs import CRS
from rasterio.enums import Resampling

from preprocessing.errors import OutputError
from preprocessing.image_operations import ERROR_COLOURS
from preprocessing.output_files import folder_beside, publish, refuse_existing, require_space
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

_BLOCK = 256
"""Side of a map's blocks in pixels; strips of whole blocks are compressed once."""


class ErrorMapWriter(ClosedOnExit):
    """Writes a map, window by window: one band of uint8 with a palette, where a raster lies.

    A context manager. The file is written in place: give a path in a folder that is thrown away
    where something fails (``output_files.folder_beside``).

    Args:
        path: the GeoTIFF.
        like: size and place, by affine, by ground control points, or by neither.

    Raises:
        OutputError: it cannot be written, on opening, writing or closing.
    """

    def __init__(self, path: str | os.PathLike, like: RasterInfo) -> None:
        """Begin the file."""
        self.path = Path(path)
        place = {"crs": like.crs, "transform": like.transform}
        if like.gcps:
            # With points, rasterio takes a CRS that says nothing, but not None.
            place = {"crs": like.crs or CRS(), "gcps": list(like.gcps)}
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "photometric": "PALETTE"}
        profile |= {"height": like.height, "width": like.width, "compress": compression()}
        profile |= {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK}
        try:
            with gdal_quiet():
                self._file = rasterio.open(self.path, "w", BIGTIFF="IF_SAFER", **profile, **place)
                self._file.write_colormap(1, ERROR_COLOURS)
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def write(self, window: Window, values: np.ndarray) -> None:
        """Write one window.

        Args:
            window: inside the raster; windows from top to bottom cost least.
            values: ``(height, width)`` uint8, of ``image_operations.error_classes``.

        Raises:
            OutputError: disk full.
        """
        area = rasterio.windows.Window(window.column, window.row, window.width, window.height)
        try:
            with gdal_quiet():
                self._file.write(values, 1, window=area)
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Complete the file."""
        try:
            with gdal_quiet():
                self._file.close()
        except GDAL_ERRORS as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> OutputError:
        words = getattr(error, "strerror", None) or reason(error)
        return OutputError(f"{self.path}: cannot be written: {words}")


_SIDECARS = (".aux.xml", ".msk", ".ovr")


class _Writer(ABC):
    """What the two writers share; see the module's docstring.

    A subclass says which dtype its pixels have, which value no caller can write (it marks
    pixels that were never written), how large the final file can get as a share of the pixels,
    the GeoTIFF options, how overviews are made, and how pixels are checked and put on disk.
    """

    dtype: ClassVar[type]
    unwritten: ClassVar[float]
    final_share: ClassVar[float]
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
        self._placement = {"crs": like.crs, "transform": like.transform}
        if like.gcps:
            # With points, rasterio takes a CRS that says nothing, but not None.
            self._placement = {"crs": like.crs or CRS(), "gcps": list(like.gcps)}
        self._rpcs = dict(getattr(like, "info", like).rpcs)
        self._block = 512 if max(self.height, self.width) > 1024 else 256

    def __enter__(self) -> Self:
        with self._writing(), ExitStack() as stack:
            self._folder = stack.enter_context(folder_beside(self.path))
            size = self.height * self.width * np.dtype(self.dtype).itemsize
            require_space(self._folder, int(size * (1 + self.final_share)) + (1 << 16))
            self._pixels = stack.enter_context(open(self._folder / "pixels", "w+b"))
            for strip in self._strips():
                empty = np.full((strip.height, strip.width), self.unwritten, self.dtype)
                self._pixels.write(empty.tobytes())
            self._pixels.flush()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is None:
                with self._writing():
                    self._finish()

    def write(self, window: Window, pixels: np.ndarray) -> None:
        if window.clipped(self.height, self.width) != window:
            raise ValueError(f"{window} reaches outside {self.height} x {self.width} pixels")
        if pixels.shape != (window.height, window.width) or pixels.dtype != self.dtype:
            raise ValueError(
                f"{pixels.dtype} pixels of shape {pixels.shape} for {window}: "
                f"{np.dtype(self.dtype).name} of its height and width are needed"
            )
        self._check(pixels)
        # Full-width windows lie in one piece in the file, others row by row.
        pieces = [pixels] if window.width == self.width else pixels
        with self._writing():
            for offset, piece in enumerate(pieces):
                first = (window.row + offset) * self.width + window.column
                self._pixels.seek(first * pixels.itemsize)
                self._pixels.write(piece.tobytes())

    @abstractmethod
    def _check(self, pixels: np.ndarray) -> None:
        """Raise a ValueError for pixels of other values than the writer takes."""

    @abstractmethod
    def _encode(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels as they stand on disk and, if any are void and say so by a mask, validity."""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Failures to write, in one line."""
        try:
            yield
        except GDAL_ERRORS as error:
            words = getattr(error, "strerror", None) or reason(error)
            raise OutputError(f"{self.path}: cannot be written: {words}") from error

    def _strips(self) -> Iterator[Window]:
        """Rows of blocks, from top to bottom."""
        for row in range(0, self.height, self._block):
            yield Window(row, 0, min(self._block, self.height - row), self.width)

    def _read(self, strip: Window) -> np.ndarray:
        """Pixels of one strip, as the callers wrote them."""
        size = np.dtype(self.dtype).itemsize
        self._pixels.seek(strip.row * self.width * size)
        content = self._pixels.read(strip.height * self.width * size)
        pixels = np.frombuffer(content, self.dtype).reshape(strip.height, self.width)
        if (pixels == self.unwritten).any():
            row = strip.row + int((pixels == self.unwritten).any(axis=1).argmax())
            raise ValueError(f"{self.path}: pixels of row {row} were never written")
        return pixels

    def _finish(self) -> None:
        """From working file to final file."""
        plain, final = self._folder / "plain.tif", self._folder / self.path.name
        masked = any(self._encode(self._read(strip))[1] is not None for strip in self._strips())
        with gdal_quiet(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            self._copy(plain, masked)
            self._lay_out(plain, final)
            try:
                self._compare(final, masked)
            except GDAL_ERRORS as error:
                raise OSError(f"reading it back failed (disk full?): {reason(error)}") from None
        publish(final, self.path, self._overwrite)
        # Statistics, masks and overviews that belonged to the file replaced.
        for suffix in _SIDECARS:
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _copy(self, plain: Path, masked: bool) -> None:
        """Write a GeoTIFF that holds everything, without overviews."""
        profile = {
            "driver": "GTiff",
            "height": self.height,
            "width": self.width,
            "count": 1,
            "dtype": self.dtype,
            "tiled": True,
            "blockxsize": self._block,
            "blockysize": self._block,
            "compress": compression(),
            "BIGTIFF": "IF_SAFER",
            **self._placement,
            **self.options,
        }
        with rasterio.open(plain, "w", **profile) as file:
            if self._rpcs:
                file.update_tags(ns="RPC", **self._rpcs)
            file.update_tags(**self._tags)
            for strip in self._strips():
                pixels, valid = self._encode(self._read(strip))
                area = rasterio.windows.Window(0, strip.row, strip.width, strip.height)
                file.write(pixels, 1, window=area)
                if masked:
                    file.write_mask(np.ones(pixels.shape, bool) if valid is None else valid, area)

    def _lay_out(self, plain: Path, final: Path) -> None:
        """Make a Cloud Optimized GeoTIFF of it, with overviews of pixels and mask."""
        options = {"BLOCKSIZE": self._block, "OVERVIEW_RESAMPLING": self.resampling.name}
        options |= {"COMPRESS": compression(), "BIGTIFF": "IF_SAFER", "PREDICTOR": self.predictor}
        rasterio.shutil.copy(plain, final, driver="COG", **options)
        plain.unlink()

    def _compare(self, final: Path, masked: bool) -> None:
        """Read the file back, all of it; of overviews it counts only that they can be read."""
        with rasterio.open(final) as file:
            levels = len(file.overviews(1))
            for strip in self._strips():
                area = rasterio.windows.Window(0, strip.row, strip.width, strip.height)
                pixels, valid = self._encode(self._read(strip))
                same = np.array_equal(file.read(1, window=area), pixels, equal_nan=True)
                if masked:
                    found = file.dataset_mask(window=area) > 0
                    same &= found.all() if valid is None else np.array_equal(found, valid)
                if not same:
                    raise OSError(f"pixels differ from row {strip.row} on")
        for level in range(levels):
            with rasterio.open(final, overview_level=level) as file:
                for _, area in file.block_windows(1):
                    file.read(1, window=area)


class MaskWriter(_Writer):
    """Writes a mask, window by window, as a GeoTIFF that appears only when it is complete.

    A context manager. On disk: a Cloud Optimized GeoTIFF, one band of uint8, 0 background and 255
    target, CRS and full affine of the raster it belongs to (rotated and south-up ones too), or its
    ground control points, or its RPCs. Where there is void, and only then, the file has an
    internal mask, and the pixel value under it is 0. ``read_label`` is the inverse.

    Args:
        path: the file to write; missing folders are made.
        like: the raster that the mask belongs to.
        overwrite: replace an existing file once the new one is complete.
        tags: names and values kept in the file.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, it is the raster itself, or it
            cannot be written (no right to, disk full), on entering, writing or leaving.
        ValueError: on leaving, pixels that no window has written.
    """

    dtype = np.uint8
    # Neither 0, 1 nor 255.
    unwritten = 2
    # One bit in eight for noise, as much for the mask, both twice, a third more for overviews.
    final_share = 0.6
    options: ClassVar = {}
    predictor = "NO"
    # Buildings thinner than a pixel of the overview would come and go with "nearest".
    resampling = Resampling.mode

    def write(self, window: Window, mask: np.ndarray) -> None:
        """Write one window; windows may come in any order, and the last one written stays.

        Args:
            window: inside the raster.
            mask: ``(height, width)`` uint8 of 0 background, 1 target, 255 void.

        Raises:
            OutputError: disk full.
            ValueError: another shape, dtype or value, or a window that reaches outside.
        """
        super().write(window, mask)

    def _check(self, pixels: np.ndarray) -> None:
        others = pixels[(pixels > 1) & (pixels != VOID)]
        if others.size:
            raise ValueError(f"mask value {others[0]}: 0 is background, 1 target, 255 void")

    def _encode(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        void = pixels == VOID
        target = np.where(pixels == 1, np.uint8(255), np.uint8(0))
        return target, ~void if void.any() else None


class ProbabilityWriter(_Writer):
    """Writes probabilities, window by window, as a GeoTIFF; see ``MaskWriter``.

    On disk: one band of float32, 0 to 1, NaN (declared as nodata) where there is void. Overviews
    are averages of what is not void.
    """

    dtype = np.float32
    unwritten = -1.0
    # Noise that does not compress, twice, and a third of it for overviews.
    final_share = 2.4
    options: ClassVar = {"nodata": float("nan")}
    predictor = "FLOATING_POINT"
    resampling = Resampling.average

    def write(self, window: Window, probabilities: np.ndarray) -> None:
        """Write one window; windows may come in any order, and the last one written stays.

        Args:
            window: inside the raster.
            probabilities: ``(height, width)`` float32, 0 to 1, NaN where there is void.

        Raises:
            OutputError: disk full.
            ValueError: another shape, dtype or value, or a window that reaches outside.
        """
        super().write(window, probabilities)

    def _check(self, pixels: np.ndarray) -> None:
        if ((pixels < 0) | (pixels > 1)).any():
            raise ValueError("probabilities outside 0 to 1; NaN is void")

    def _encode(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        return pixels, None
