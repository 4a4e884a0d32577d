"""Which bands of a raster a model is fed."""

from collections.abc import Sequence

from rasterio.enums import ColorInterp

from preprocessing.errors import RasterError

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def choose_bands(
    interpretations: Sequence[ColorInterp], band_count: int, name: str
) -> tuple[tuple[int, ...], str]:
    """The bands that a model of ``band_count`` bands is fed, by colour interpretation.

    Red, green and blue come first, in this order wherever they stand in the file, then the
    others in the file's order. Where they are not all marked, or fewer than three bands are
    wanted, the file's order counts. An alpha band is never taken.

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
        raise RasterError(f"{name}: has {found}, the model takes {band_count}; {remedy}")
    rgb = [interpretations.index(kind) + 1 for kind in _RGB if kind in interpretations]
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
