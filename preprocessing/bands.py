"""What the bands of a raster are for: those a model is fed, those that say where it is void."""

import itertools
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from preprocessing.errors import RasterError
from preprocessing.raster_access import gdal_quiet, read_window
from preprocessing.tiling import Window

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
# Places looked at along each side, and the pixels of one, to tell alpha from imagery.
_PROBES, _PROBE = 8, 32


def choose_bands(
    interpretations: Sequence[ColorInterp], band_count: int, name: str
) -> tuple[tuple[int, ...], str]:
    """The bands that a model of ``band_count`` bands is fed, by colour interpretation.

    Red, green and blue come first, in this order wherever they stand in the file, then the
    others in the file's order. Where they are not all marked, or fewer than three bands are
    wanted, the file's order counts. An alpha band is never taken: near infrared that is tagged
    so, as some writers tag any fourth band, looks like it, and must be named.

    Args:
        interpretations: of the file's bands, in the file's order.
        band_count: bands needed, at least 1.
        name: the file, for the message.

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
        repeat = ",".join([str(colours[0])] * band_count) if len(colours) == 1 else ""
        remedy = f"`--bands {repeat}` repeats the one there is" if repeat else "use another raster"
        if not repeat and len(colours) + 1 == band_count <= len(interpretations):
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
    """Explicit bands, checked against the file and the model.

    Args:
        bands: 1-based, repetition allowed.
        available: bands in the file.
        band_count: bands needed.
        name: the file, for the message.

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

    A pixel is valid where everything that the file says of validity agrees:

    - a mask, internal or beside the file, is set;
    - without one, at least one band differs from its nodata (each band has its own; black in one
      band only is a colour, not a gap). As GDAL has it, a mask stands in for nodata;
    - every band tagged alpha, of whatever dtype and wherever it stands, is above or below 0.

    GDAL's dataset mask would do for files with one of these; it knows alpha only as the second
    of two or fourth of four bands of uint8 or uint16, and forgets it where there is nodata.

    A band that is tagged alpha and yet fed is imagery (near infrared, most often). It then says
    nothing of validity, and counts among the bands that nodata is looked for in.

    Attributes:
        alpha: bands, from 1, whose zeros are void.
        note: one sentence where a band tagged alpha is fed, else ''.

    Args:
        dataset: an open raster.
        fed: bands, from 1, that are taken as imagery.
    """

    def __init__(self, dataset: rasterio.DatasetReader, fed: Sequence[int]) -> None:
        """Look at the tags; no pixel is read."""
        self._dataset = dataset
        with gdal_quiet():
            kinds, flags = dataset.colorinterp, dataset.mask_flag_enums
        tagged = [band for band, kind in enumerate(kinds, 1) if kind == ColorInterp.alpha]
        self.alpha = [band for band in tagged if band not in fed]
        masked = [band for band in dataset.indexes if band not in self.alpha]
        # Bands without a mask of GDAL's: a pixel of theirs never is nodata.
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
        """What is looked at: alpha bands, bands with a mask or nodata, and all nodata values."""
        return [*self.alpha, None, *self._masked, None, *self._dataset.nodatavals]

    def read(self, window: Window) -> np.ndarray:
        """Where there is imagery, ``(height, width)`` bool.

        Raises:
            RasterError: the file is corrupt there; the message names the block.
            ValueError: the window reaches outside the raster.
        """
        valid = np.ones((window.height, window.width), bool)
        if self._masked:
            valid = read_window(self._dataset, window, self._masked, masks=True).any(axis=-1)
        for band in self.alpha:
            alpha = read_window(self._dataset, window, [band])[..., 0]
            # Not a number is no opacity.
            valid &= (alpha != 0) & ~np.isnan(alpha)
        return valid

    def imagery_tagged_alpha(self) -> int | None:
        """A band read as alpha that varies as imagery does, seen in 64 places of the raster.

        Near infrared, most likely: an alpha is opaque over most of what it does not hide. A
        guess, worth a remark; no pixel is read otherwise for it.

        Returns:
            The band, from 1; None where there is none, as far as seen.

        Raises:
            RasterError: the file is corrupt there.
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
