"""Readers of images, labels, masks and probabilities, window by window.

Here masks are converted from disk: there a label is {0, 1} or {0, 255}, and void is in the
dataset mask (nodata, alpha or internal mask). In memory a mask is uint8 with 0 background, 1
target, 255 void. ``raster_writers`` is the other half.

GDAL's datasets are not safe to share between threads: open one reader per thread.
"""

import itertools
import os
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from preprocessing.errors import LabelError, RasterError, listed
from preprocessing.ground import grid_difference
from preprocessing.image_names import RasterName
from preprocessing.raster_access import (
    ClosedOnExit,
    RasterInfo,
    describe,
    gdal_quiet,
    open_raster,
    raster_info,
    read_window,
)
from preprocessing.tiling import VOID, Window, strips

GREY_THRESHOLD = 128
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
# To tell alpha from imagery: places looked at along each side, and the pixels of one.
_PROBES, _PROBE = 8, 32


class _Reader(ClosedOnExit):
    def __init__(self, path: str | os.PathLike) -> None:
        self.path = RasterName(path)
        self._dataset = open_raster(path)
        self.info = describe(self._dataset)
        self.height, self.width = self.info.height, self.info.width

    def close(self) -> None:
        self._dataset.close()


class RasterReader(_Reader):
    """A reader of windows of the bands that a model takes; a context manager.

    Attributes: ``path``, ``height``, ``width``, ``bands`` (1-based, in the order fed),
    ``band_note`` (one sentence where the choice of bands is worth saying, else empty), ``validity``
    (a ``Validity``), ``dtype`` of these bands, ``info`` (``RasterInfo``), and of that ``crs``,
    ``transform``, ``gsd``, ``georeferenced`` and ``gcps``.

    Args:
        bands: 1-based, repetition is allowed; by default see ``choose_bands``. A band that is named
            is imagery: zeros in near infrared that is tagged alpha are then not void.

    Raises:
        RasterError: no such file, no raster, too few bands or bands that are not there.
    """

    def __init__(
        self, path: str | os.PathLike, bands: Sequence[int] | None = None, band_count: int = 3
    ) -> None:
        super().__init__(path)
        info, note = self.info, ""
        if bands is None:
            self.bands, note = choose_bands(self._dataset.colorinterp, band_count, str(path))
        else:
            self.bands = named_bands(bands, info.band_count, band_count, str(path))
        self.validity = Validity(self._dataset, self.bands)
        self.band_note = note or self.validity.note
        self.dtype = str(np.result_type(*(self._dataset.dtypes[b - 1] for b in self.bands)))
        self.crs, self.transform, self.gcps = info.crs, info.transform, info.gcps
        self.gsd, self.georeferenced = info.gsd, info.georeferenced

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read one window.

        A pixel is valid where mask, nodata and alpha say so (see ``Validity``) and all bands are
        finite. Void pixels of a float image are 0 in all bands, whatever the file has there.

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
    """Read a whole raster: image and validity, as ``RasterReader`` does."""
    with RasterReader(path, bands, band_count) as reader:
        return reader.read(Window(0, 0, reader.height, reader.width))


class LabelReader(_Reader):
    """A reader of windows of a label's mask; a context manager.

    Attributes: ``path``, ``height``, ``width``, ``info`` (``RasterInfo``) and
    ``target_under_void``: whether a window read so far has targets on disk where it is void, so
    that the pixels alone do not say what the mask is.

    On disk a label is {0, 1} or {0, 255}, nonzero = target. Void is where nodata, alpha or a mask
    says so (see ``Validity``), whatever value stands there. Bands beside alpha must agree
    everywhere, as in a grey picture saved as RGB, or the target has one colour on black, as the
    red buildings of Massachusetts maps. To pick a band of a map of many colours would be a guess.

    Raises:
        RasterError: no such file, no raster.
        LabelError: the file declares 0 as nodata, which would turn its background into void.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self.target_under_void = False
        self._seen: set[int] = set()
        self._colour: np.ndarray | None = None
        kinds = enumerate(self._dataset.colorinterp, start=1)
        # Alpha alone is a band like any other.
        self._bands = [band for band, kind in kinds if kind != ColorInterp.alpha] or [1]
        self._validity = Validity(self._dataset, self._bands)
        self._refuse_nodata_zero()

    def read(self, window: Window) -> np.ndarray:
        """Read one window: ``(height, width)`` uint8 of 0 background, 1 target, 255 void.

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
        """Read values as a label has them; a subclass may make them of others."""
        return read_window(self._dataset, window, self._bands)

    def _one_band(self, bands: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Return the values of bands that agree, or of those that are not black throughout."""
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
        """Refuse nodata 0, which gdal_rasterize likes to write: only targets would be valid."""
        with gdal_quiet():
            from_nodata = MaskFlags.nodata in self._dataset.mask_flag_enums[self._bands[0] - 1]
        if from_nodata and self._dataset.nodata == 0:
            raise LabelError(
                f"{self.path}: declares 0 as nodata, so its background would be void; "
                "`gdal_edit.py -unsetnodata FILE` takes the declaration off"
            )

    def _is_jpeg(self) -> bool:
        """Return whether the file is a JPEG or, as a TIFF may be, compressed as one."""
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
        found = [f"{value:g}" for value in sorted({*self._seen, *others[:10].tolist()})]
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
            f"{self.path}: has the values {listed(found, 9)} beside background 0, "
            f"a label has 0 and 1 or 0 and 255; {remedy}"
        )


def read_label(path: str | os.PathLike) -> np.ndarray:
    """Read a whole label: ``(height, width)`` uint8 of 0 background, 1 target, 255 void.

    Errors are those of ``LabelReader`` and its ``read``.
    """
    with LabelReader(path) as reader:
        mask = np.empty((reader.height, reader.width), np.uint8)
        for window in strips(reader.height, reader.width):
            mask[window.slices] = reader.read(window)
        return mask


def choose_bands(
    interpretations: Sequence[ColorInterp], band_count: int, name: str
) -> tuple[tuple[int, ...], str]:
    """Choose the bands that a model of ``band_count`` bands is fed, by colour interpretation.

    Red, green and blue come first, in this order wherever they stand in the file, then the
    others in the file's order. Where they are not all marked, or fewer than three bands are
    wanted, the file's order counts. An alpha band is never taken. Some writers tag any fourth band
    as alpha, near infrared too: that must be named. Errors name the file by ``name``.

    Returns:
        1-based bands and one sentence about the choice, empty where it is plain red, green and
        blue.

    Raises:
        RasterError: too few bands, or colour indices of a palette in place of a colour.
    """
    colours = [i + 1 for i, kind in enumerate(interpretations) if kind != ColorInterp.alpha]
    rgb = [interpretations.index(kind) + 1 for kind in _RGB if kind in interpretations]
    if ColorInterp.palette in interpretations:
        expand = "gray" if band_count == 1 else "rgb"
        raise RasterError(
            f"{name}: 1 band of palette indices, and the model takes {band_count}; "
            f"`gdal_translate -expand {expand} IN OUT` makes colours of them"
        )
    if len(colours) < band_count:
        alpha = " beside alpha" if len(colours) < len(interpretations) else ""
        found = f"{len(colours)} band{'s'[: len(colours) != 1]}{alpha}"
        remedy = "use another raster"
        if len(colours) == 1:
            repeated = ",".join([str(colours[0])] * band_count)
            remedy = f"`--bands {repeated}` repeats the one there is"
        elif len(colours) + 1 == band_count <= len(interpretations):
            named = rgb if len(rgb) == len(colours) else colours
            named = [*named, interpretations.index(ColorInterp.alpha) + 1]
            remedy = (
                f"`--bands {','.join(map(str, named))}` takes the band tagged alpha too, if it is "
                "near infrared or other imagery"
            )
        raise RasterError(f"{name}: has {found}, the model takes {band_count}; {remedy}")
    if band_count >= 3 and len(rgb) == 3:
        chosen = (rgb + [band for band in colours if band not in rgb])[:band_count]
        if band_count == 3:
            return tuple(chosen), ""
    else:
        chosen = colours[:band_count]
    kinds = ", ".join(f"{band} ({interpretations[band - 1].name})" for band in chosen)
    return tuple(chosen), f"Bands taken: {kinds}; --bands chooses others."


def named_bands(
    bands: Sequence[int], available: int, band_count: int, name: str
) -> tuple[int, ...]:
    """Check that the user names as many bands as the model takes, of the ``available`` ones.

    Raises:
        RasterError: another number of bands than needed, or one that is not there.
    """
    bands = tuple(int(band) for band in bands)
    if len(bands) != band_count:
        raise RasterError(f"{name}: {len(bands)} bands named {bands}, the model takes {band_count}")
    if not all(1 <= band <= available for band in bands):
        raise RasterError(f"{name}: bands {bands} named, the file has 1 to {available}")
    return bands


class Validity:
    """Where a raster has imagery.

    A pixel is valid where all of these that the file has agree:

    - the mask, internal or beside the file, is set;
    - without a mask, at least one band differs from its nodata (each band has its own; black in
      one band only is a colour, not a gap);
    - every band tagged alpha, of any dtype and in any place, differs from 0.

    GDAL's dataset mask does for files that have one of these. It knows alpha only as the second of
    two or fourth of four bands of uint8 or uint16, and forgets it where there is nodata.

    A band that is tagged alpha and yet fed is imagery (near infrared, most often). It then says
    nothing about validity, and its nodata counts as that of other bands.

    Attributes:
        alpha: bands, from 1, whose zeros are void.
        note: one sentence where a band tagged alpha is fed, else empty.
    """

    def __init__(self, dataset: rasterio.DatasetReader, fed: Sequence[int]) -> None:
        self._dataset = dataset
        with gdal_quiet():
            kinds, flags = dataset.colorinterp, dataset.mask_flag_enums
        tagged = [band for band, kind in enumerate(kinds, 1) if kind == ColorInterp.alpha]
        self.alpha = [band for band in tagged if band not in fed]
        masked = [band for band in dataset.indexes if band not in self.alpha]
        # A band without a mask is valid everywhere, so that no pixel is void.
        if any({MaskFlags.all_valid, MaskFlags.alpha} & set(flags[band - 1]) for band in masked):
            masked = []
        if masked and MaskFlags.per_dataset in flags[masked[0] - 1]:
            masked = masked[:1]
        self._masked = masked
        self.note = ""
        if imagery := sorted(set(tagged) & set(fed)):
            says = "its nodata or mask" if masked or self.alpha else "nothing, so all is valid"
            self.note = (
                f"Band {', '.join(map(str, imagery))} is tagged alpha and fed as imagery: what is "
                f"void is said by {says}."
            )

    @property
    def marks(self) -> list[int | float | None]:
        """Alpha bands, bands with a mask or nodata, and all nodata values."""
        return [*self.alpha, None, *self._masked, None, *self._dataset.nodatavals]

    def read(self, window: Window) -> np.ndarray:
        """Return where there is imagery, ``(height, width)`` bool; errors as ``read_window``."""
        valid = np.ones((window.height, window.width), bool)
        if self._masked:
            valid = read_window(self._dataset, window, self._masked, masks=True).any(axis=-1)
        for band in self.alpha:
            alpha = read_window(self._dataset, window, [band])[..., 0]
            valid &= (alpha != 0) & ~np.isnan(alpha)
        return valid

    def imagery_tagged_alpha(self) -> int | None:
        """Return a band, from 1, that is read as alpha and seems to be imagery; None if none does.

        An alpha is opaque over most of what it does not hide; near infrared varies. 64 places of
        the raster are looked at; one that cannot be read raises a ``RasterError``.
        """
        size = (self._dataset.height, self._dataset.width)
        rows, columns = (
            sorted({int(at) for at in np.linspace(0, max(length - _PROBE, 0), _PROBES)})
            for length in size
        )
        for band in self.alpha:
            found = []
            for row, column in itertools.product(rows, columns):
                window = Window(row, column, _PROBE, _PROBE).clipped(*size)
                probe = read_window(self._dataset, window, [band])
                found.append(probe[probe > 0])
            opacity = np.concatenate(found)
            if opacity.size and (opacity >= 0.9 * opacity.max()).mean() < 0.5:
                return band
        return None


class GreyMaskReader(LabelReader):
    """A ``LabelReader`` that also takes grey values.

    A mask of uint8 with values above 1 where it is not void is target from 128 on, in every band.
    Opening it looks for such a value, strip by strip, and finds a corrupt file. A JPEG is always
    thresholded: a 1 in it is noise.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._greys: set[int] = set()
        self._thresholded = self._has_greys()

    @property
    def note(self) -> str | None:
        """What was done with grey values read so far; None where there were only 0 and 255."""
        if not self._greys:
            return None
        greys = ", ".join(map(str, sorted(self._greys)[:3]))
        return f"thresholded at {GREY_THRESHOLD} (grey values such as {greys})"

    def check_whole(self) -> None:
        """Check, after the last window, that all values together are those of a mask.

        A JPEG, which alters values, is never refused.

        Raises:
            LabelError: grey values that all lie below the threshold, as classes numbered from 0
                do; or 1 and 255 beside 0, of which one may be void.
        """
        if not self._greys or self._is_jpeg():
            return
        if VOID in self._seen and self._greys == {1}:
            self._check(np.array([1, VOID], np.uint8))
        if VOID not in self._seen:
            raise LabelError(
                f"{self.path}: its greatest value is {max(self._greys)}, a mask has 0 and 1, 0 and "
                f"255, or greys on both sides of {GREY_THRESHOLD}; of classes, `gdal_calc.py -A IN "
                "--outfile OUT.tif --calc 'A==1'` makes a mask"
            )

    def _has_greys(self) -> bool:
        """Return whether valid values are above 1, or 1 may be noise."""
        if any(dtype != "uint8" for dtype in self._dataset.dtypes):
            return False
        if self._is_jpeg():
            return True
        for strip in strips(self.height, self.width):
            bands = read_window(self._dataset, strip, self._bands)
            if bands.max() > 1 and bands[self._validity.read(strip)].max(initial=0) > 1:
                return True
        return False

    def _read_bands(self, window: Window) -> np.ndarray:
        bands = super()._read_bands(window)
        if not self._thresholded:
            return bands
        grey = (bands != 0) & (bands != VOID)
        if grey.any():
            grey &= self._validity.read(window)[..., np.newaxis]
            self._greys.update(np.flatnonzero(np.bincount(bands[grey], minlength=1)).tolist())
        return np.where(bands >= GREY_THRESHOLD, np.uint8(VOID), np.uint8(0))


class ProbabilityReader(ClosedOnExit):
    """A reader of windows of probabilities on the grid of a mask; a context manager.

    The raster has one band of 0 to 1, void where it is NaN or nodata.

    Raises:
        RasterError: no such file, no raster, several bands, or another grid than the mask's.
    """

    def __init__(self, path: str | os.PathLike, mask: RasterInfo) -> None:
        info = raster_info(path)
        if info.band_count != 1:
            raise RasterError(f"{path}: has {info.band_count} bands; probabilities have one")
        if difference := grid_difference(info, mask, "the mask"):
            raise RasterError(f"{path}: {difference}; probabilities of the same grid are needed")
        self.path = path
        self._reader = RasterReader(path, [1], 1)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def read(self, window: Window) -> np.ndarray:
        """Read one window: float64 ``(height, width)``, NaN where there is void.

        Raises:
            RasterError: corrupt, or values that are no probabilities.
        """
        image, valid = self._reader.read(window)
        values = np.where(valid, image[..., 0].astype(np.float64), np.nan)
        if ((values < 0) | (values > 1)).any():
            raise RasterError(
                f"{self.path}: has values from {np.nanmin(values):g} to {np.nanmax(values):g}; "
                "probabilities from 0 to 1 are needed, as infer.py --probabilities writes them"
            )
        return values
