"""The raster readers: scenes and labels of any format GDAL reads, window by window.

They own one half of the conversion of masks: on disk labels are {0, 1} or {0, 255} and void
lives in the dataset mask (nodata, alpha or internal mask); in memory a mask is uint8 with 0
background, 1 target, 255 void. ``raster_writers`` is the other half.

A reader is not safe to share between threads (GDAL datasets are not): open one per thread.
"""

import os
from collections.abc import Sequence

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from preprocessing.bands import Validity, choose_bands, named_bands
from preprocessing.errors import LabelError
from preprocessing.raster_access import (
    ClosedOnExit,
    RasterInfo,
    describe,
    gdal_quiet,
    open_raster,
    raster_files,
    raster_info,
    raster_tags,
    read_window,
)
from preprocessing.raster_names import RasterName
from preprocessing.tiling import VOID, Window, strips

__all__ = [
    "LabelReader",
    "RasterInfo",
    "RasterReader",
    "raster_files",
    "raster_info",
    "raster_tags",
    "read_image",
    "read_label",
]


class RasterReader(ClosedOnExit):
    """A raster opened for reading windows of the bands that a model takes.

    A context manager. Attributes: ``path``, ``height``, ``width``, ``bands`` (1-based, in the
    order fed), ``band_note`` (one sentence where the choice of bands is worth saying, else ''),
    ``validity`` (what says where there is imagery), ``dtype``, ``crs``, ``transform``, ``gsd``,
    ``georeferenced``, ``gcps``, and ``info``, the ``RasterInfo`` that holds the last six.

    Args:
        path: anything GDAL reads.
        bands: explicit 1-based bands; repetition is allowed. A band that is named is imagery,
            near infrared that is tagged alpha too: its zeros are then no void.
        band_count: bands needed.

    Raises:
        RasterError: no such file, no raster, too few bands or bands that are not there.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        bands: Sequence[int] | None = None,
        band_count: int = 3,
    ) -> None:
        """Open the raster and choose its bands."""
        self.path = RasterName(path)
        self._dataset = open_raster(path)
        try:
            self.info = info = describe(self._dataset)
            if bands is not None:
                self.bands = named_bands(bands, info.band_count, band_count, str(path))
                self.validity = Validity(self._dataset, self.bands)
                self.band_note = self.validity.note
            else:
                kinds = self._dataset.colorinterp
                self.bands, self.band_note = choose_bands(kinds, band_count, str(path))
                self.validity = Validity(self._dataset, self.bands)
        except BaseException:
            self._dataset.close()
            raise
        self.height, self.width = info.height, info.width
        self.dtype = str(np.result_type(*(self._dataset.dtypes[b - 1] for b in self.bands)))
        self.crs, self.transform, self.gcps = info.crs, info.transform, info.gcps
        self.gsd, self.georeferenced = info.gsd, info.georeferenced

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._dataset.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read one window.

        A pixel is valid where mask, nodata and alpha say so (see ``bands.Validity``). NaN and
        infinity are never valid. Void pixels of a float image are 0 in all bands, whatever the
        file has there.

        Args:
            window: inside the raster.

        Returns:
            The image ``(height, width, bands)`` in the file's dtype, and where it is imagery,
            ``(height, width)`` bool.

        Raises:
            RasterError: the file is corrupt there; the message names the block.
            ValueError: the window reaches outside the raster.
        """
        image = read_window(self._dataset, window, list(self.bands))
        valid = self.validity.read(window)
        if np.issubdtype(image.dtype, np.floating):
            valid &= np.isfinite(image).all(axis=-1)
            # NaN, or a nodata of -3.4e38, would run through all sums of a network.
            image[~valid] = 0
        return image, valid


def read_image(
    path: str | os.PathLike, bands: Sequence[int] | None = None, band_count: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Read a whole raster; see ``RasterReader``.

    Returns:
        The image ``(height, width, bands)`` in the file's dtype, and where it is imagery,
        ``(height, width)`` bool. All void is a case: ``valid`` is then False everywhere.

    Raises:
        RasterError: no such file, no raster, too few bands, or corrupt.
    """
    with RasterReader(path, bands, band_count) as reader:
        return reader.read(Window(0, 0, reader.height, reader.width))


class LabelReader(ClosedOnExit):
    """A label raster opened for reading windows of its mask; flat memory for any size.

    A context manager. Attributes: ``path``, ``height``, ``width``, ``info`` (``RasterInfo``) and
    ``target_under_void``: whether a window read so far has targets on disk where it is void, so
    that the pixels alone do not say what the mask is.

    On disk a label is {0, 1} or {0, 255}, nonzero = target. Void is where nodata, alpha or a mask
    says so (see ``bands.Validity``), whatever value stands there. Bands beside alpha must agree
    everywhere, as they do in a grey picture saved as RGB, or the target has one colour on black,
    as the red buildings of Massachusetts maps: both have one reading, while picking a band of a
    map of many colours would be a guess.

    Args:
        path: anything GDAL reads.

    Raises:
        RasterError: no such file, no raster.
        LabelError: the file declares 0 as nodata, which would turn its background into void.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Open the label."""
        self.path = RasterName(path)
        self.target_under_void = False
        self._seen: set[int] = set()
        self._colour: np.ndarray | None = None
        self._dataset = open_raster(path)
        try:
            self.info = describe(self._dataset)
            kinds = enumerate(self._dataset.colorinterp, start=1)
            # Alpha alone is a band like any other.
            self._bands = [band for band, kind in kinds if kind != ColorInterp.alpha] or [1]
            self._validity = Validity(self._dataset, self._bands)
            self._refuse_nodata_zero()
        except BaseException:
            self._dataset.close()
            raise
        self.height, self.width = self.info.height, self.info.width

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._dataset.close()

    def read(self, window: Window) -> np.ndarray:
        """Read the mask of one window.

        Args:
            window: inside the raster.

        Returns:
            ``(height, width)`` uint8: 0 background, 1 target, 255 void.

        Raises:
            LabelError: values other than {0, 1} or {0, 255} where the label is not void, over
                all windows read so far; or bands that differ.
            RasterError: the file is corrupt there.
            ValueError: the window reaches outside the raster.
        """
        bands = self._read_bands(window)
        valid = self._validity.read(window)
        values = self._one_band(bands, valid)
        self._check(values[valid])
        mask = (values != 0).astype(np.uint8)
        self.target_under_void |= bool(mask[~valid].any())
        mask[~valid] = VOID
        return mask

    def _read_bands(self, window: Window) -> np.ndarray:
        """Values of one window as a label has them; a subclass may make them of others."""
        return read_window(self._dataset, window, self._bands)

    def _one_band(self, bands: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """The values of bands that agree, or of those that are not black throughout."""
        values = bands.max(axis=-1)
        marked = bands[valid & (bands != 0).any(axis=-1)]
        if bands.shape[-1] > 1 and len(marked):
            self._colour = marked[0] > 0 if self._colour is None else self._colour
            if (marked != np.where(self._colour, marked.max(axis=1, keepdims=True), 0)).any():
                raise LabelError(
                    f"{self.path}: its {len(self._bands)} bands differ, a label has one; "
                    "`gdal_translate -b 1 IN OUT` keeps the first"
                )
        return values

    def _refuse_nodata_zero(self) -> None:
        """Nodata 0 is what gdal_rasterize writes by habit; it would leave only targets valid."""
        with gdal_quiet():
            from_nodata = MaskFlags.nodata in self._dataset.mask_flag_enums[self._bands[0] - 1]
        if from_nodata and self._dataset.nodata == 0:
            raise LabelError(
                f"{self.path}: declares 0 as nodata, so its background would be void; "
                "`gdal_edit.py -unsetnodata FILE` takes the declaration off"
            )

    def _is_jpeg(self) -> bool:
        """Whether the file is a JPEG or, as a TIFF may be, compressed as one."""
        compression = self._dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
        return self._dataset.driver == "JPEG" or "JPEG" in compression

    def _check(self, values: np.ndarray) -> None:
        """Refuse values of valid pixels that a label does not hold."""
        values = values[values != 0]
        ones, full = values == 1, values == VOID
        self._seen |= {1} if ones.any() else set()
        self._seen |= {VOID} if full.any() else set()
        others = np.unique(values[~ones & ~full])
        if not others.size and self._seen != {1, VOID}:
            return
        found = sorted({*self._seen, *others[:8].tolist()})
        names = ", ".join(f"{value:g}" for value in found) + (", ..." if others.size > 8 else "")
        if not others.size:
            remedy = "if 255 is void, `gdal_translate -a_nodata 255 IN OUT` says so"
        elif self._is_jpeg():
            remedy = (
                "JPEG alters values, so threshold it: "
                "`gdal_calc.py -A IN --outfile OUT.tif --calc '255*(A>127)'`"
            )
        else:
            remedy = "void belongs into nodata, alpha or a mask"
        raise LabelError(
            f"{self.path}: has the values {names} beside background 0, a label has 0 and 1 or "
            f"0 and 255; {remedy}"
        )


def read_label(path: str | os.PathLike) -> np.ndarray:
    """Read a whole label; see ``LabelReader``. Beside the mask, memory stays flat.

    Returns:
        ``(height, width)`` uint8: 0 background, 1 target, 255 void. All void and all background
        are cases.

    Raises:
        RasterError: no such file, no raster, or corrupt.
        LabelError: values other than {0, 1} or {0, 255}, bands that differ, nodata 0.
    """
    with LabelReader(path) as reader:
        mask = np.empty((reader.height, reader.width), np.uint8)
        for window in strips(reader.height, reader.width):
            mask[window.slices] = reader.read(window)
        return mask
