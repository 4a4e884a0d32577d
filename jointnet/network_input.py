"""Check a raster for a network, choose its bands, and resample it to the trained GSD."""

import math
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jointnet.runs import Run
from preprocessing.errors import RasterError
from preprocessing.image_names import RasterName
from preprocessing.tiling import Window, cut, strips

if TYPE_CHECKING:
    from preprocessing.rasters import RasterReader
    from preprocessing.resampling import ResampledReader, WhiteIsVoid

GSD_TOLERANCE = 0.25
NATIVE = "native"
# Pixels longer than wide, or wider than long, by more than this are resampled to square ones.
_SQUARE = 1.25
# Pixels beyond these factors of the trained size are fed as they are: windows of the smallest would
# be too large to read, and in the largest nothing can be found.
_RESAMPLED = (1 / 16, 4)
# About how many pixels to take percentiles from.
_SAMPLE = 1_000_000


class NetworkInput:
    """A raster that fits a network, and how it is read for it.

    The arguments beside run and image are those of ``raster_job.PredictionOptions``.

    Attributes:
        bands: 1-based bands to feed, as given, else as named in training; None to choose by
            colour interpretation.
        info: ``RasterInfo`` of the raster.
        marks: plain values: the bands read, and what says where they are void.
        notes: sentences for the user, without the raster's name: which bands were taken if that
            is not obvious, a band tagged alpha that looks like imagery, a GSD far from that of
            the training, a place from ground control points, no place on the ground.
        own_size: rows and columns of the raster.
        size: rows and columns that the network sees.

    Raises:
        RasterError: no such file, no raster, fewer bands than the network takes, or pixels of
            another dtype; they are never stretched silently, the message says how to convert them.
    """

    def __init__(
        self,
        run: Run,
        image: str | os.PathLike,
        bands: Sequence[int] | None = None,
        gsd: float | str | None = None,
        void_white: bool = False,
    ) -> None:
        self.image, self.bands = RasterName(image), bands or run.config.get("band_numbers")
        self._band_count, self._void_white = run.config["bands"], void_white
        with self.open() as reader:
            self.notes = _check(reader, run, gsd)
            self.info, self.marks = reader.info, [*reader.bands, *reader.validity.marks]
        if void_white:
            # Raises unless the raster is uint8, as other dtypes have no known white.
            self.imagery().close()
        self.own_size = self.size = (self.info.height, self.info.width)
        if (steps := fed_steps(run, self.info.steps, gsd)) is not None:
            from preprocessing.resampling import size_at

            self.size = size_at(*self.own_size, steps, run.config["gsd"])

    def open(self) -> "RasterReader":
        """Open the raster at its own size."""
        from preprocessing.rasters import RasterReader

        return RasterReader(self.image, self.bands, self._band_count)

    def imagery(self) -> "RasterReader | WhiteIsVoid":
        """Open the raster at its own size, with white areas as void where that was chosen."""
        if not self._void_white:
            return self.open()
        from preprocessing.resampling import WhiteIsVoid

        return WhiteIsVoid(self.open())

    def fed(self) -> "RasterReader | ResampledReader | WhiteIsVoid":
        """Open the raster at the size that the network sees."""
        if self.size == self.own_size:
            return self.imagery()
        from preprocessing.resampling import ResampledReader

        return ResampledReader(self.imagery(), *self.size)

    def on_own_grid(
        self, strips: Iterable[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Bring probabilities (strips as ``prediction.join`` yields) back to the raster's size."""
        if self.size == self.own_size:
            yield from strips
            return
        from preprocessing.resampling import resampled_strips

        with self.imagery() as reader:
            for first, strip in resampled_strips(strips, self.size, self.own_size):
                _, valid = reader.read(Window(first, 0, *strip.shape))
                # Valid pixels that were lost in resampling are background.
                yield first, np.where(valid, np.nan_to_num(strip), np.float32(np.nan))


def fed_steps(
    run: Run, found: tuple[float, float] | None, given: float | str | None = None
) -> tuple[float, float] | None:
    """Return the metres between rows and between columns if the raster is to be resampled.

    Each axis is resampled by itself: away from the equator pixels in degrees are higher than wide,
    and the network was trained on square ones.

    Args:
        run: the network.
        found: what the raster says (``RasterInfo.steps``); None where it does not.
        given: what the user says instead, for both axes; ``"native"`` to resample nothing.

    Returns:
        None to feed the raster as it is: the metres are unknown, both are within a quarter of the
        trained GSD and of each other, or one is below a 16th of it or above four times it.
    """
    trained, steps = run.config["gsd"], _said_steps(found, given)
    if trained is None or steps is None or given == NATIVE:
        return None
    least, most = _RESAMPLED
    within = all(least <= step / trained <= most for step in steps)
    return steps if within and _are_far(steps, trained) else None


def _said_steps(
    found: tuple[float, float] | None, given: float | str | None
) -> tuple[float, float] | None:
    """Take the user's word before the raster's."""
    return found if given in (None, NATIVE) else (given, given)


def _are_far(steps: tuple[float, float], trained: float) -> bool:
    differ = any(abs(step - trained) > GSD_TOLERANCE * trained for step in steps)
    return differ or not _are_square(steps)


def _are_square(steps: tuple[float, float]) -> bool:
    return max(steps) <= _SQUARE * min(steps)


def _check(reader: "RasterReader", run: Run, gsd: float | str | None) -> list[str]:
    """Refuse a raster of another dtype; return the notes on it."""
    from preprocessing.ground import fit_control_points

    if reader.dtype != run.config["dtype"]:
        raise RasterError(
            f"{reader.path}: pixels are {reader.dtype}, the model takes {run.config['dtype']}; "
            + _conversion(reader, run.config["dtype"])
        )
    fit = fit_control_points(reader.gcps, reader.crs, reader.height, reader.width)
    notes = [reader.band_note, _alpha_note(reader), fit.note if fit else ""]
    return [note for note in notes if note] + _ground_notes(reader, run, gsd)


def _alpha_note(reader: "RasterReader") -> str:
    """Ask whether a band tagged alpha is near infrared, if it varies as imagery does.

    This is only a note, as deciding by pixels would silently be wrong for some raster.
    """
    band = reader.validity.imagery_tagged_alpha()
    if band is None:
        return ""
    return (
        f"Band {band} is tagged alpha, so its zeros are void, but varies as imagery does: if it is "
        f"near infrared, `gdal_edit.py -colorinterp_{band} undefined FILE` takes the tag off."
    )


def _ground_notes(reader: "RasterReader", run: Run, given: float | str | None) -> list[str]:
    """Say what the raster's place on the ground, or the lack of one, means for the result."""
    notes, trained = [], run.config["gsd"]
    if reader.gsd is None:
        if reader.info.rpcs:
            lacking = (
                "Only RPCs, which are not used (`gdalwarp -rpc -t_srs EPSG:4326 IN OUT` applies "
                "them)"
            )
        elif reader.crs is None:
            lacking = "No CRS"
        elif reader.gcps:
            lacking = (
                f"{len(reader.gcps)} ground control point{'s'[: len(reader.gcps) != 1]} that give "
                "no place (three or more are needed, not in one line, that agree)"
            )
        elif not reader.georeferenced:
            lacking = "No affine that leads to the ground"
        else:
            lacking = "CRS without a place on Earth"
        unknown = f"; the model expects {trained:g} m per pixel" if trained and not given else ""
        unknown += ", --gsd says what it has" if unknown else ""
        notes.append(f"{lacking}: the vector layer will be in pixel coordinates{unknown}.")
    steps = _said_steps(reader.info.steps, given)
    if trained is not None and steps is not None and _are_far(steps, trained):
        fed = fed_steps(run, reader.info.steps, given) is not None
        what = "resampled to that, and the mask back" if fed else "expect a worse result"
        notes.append(f"{_pixel(steps)}, the model was trained at {trained:g} m: {what}.")
    return notes


def _pixel(steps: tuple[float, float]) -> str:
    """Say how large pixels are, by one number if they are about square."""
    if _are_square(steps):
        return f"{_plain(math.sqrt(steps[0] * steps[1]), 2)} m per pixel"
    height, width = (_plain(step, 2) for step in steps)
    return f"Pixels of {width} m x {height} m (width x height)"


def _plain(value: float, digits: int) -> str:
    """Format with so many significant digits, without the exponent that ``g`` may give."""
    return np.format_float_positional(value, digits, fractional=False, trim="-")


def _conversion(reader: "RasterReader", dtype: str) -> str:
    """Say how to make a raster of the dtype."""
    from preprocessing.raster_access import raster_files

    if dtype != "uint8":
        return f"give the imagery in {dtype}, in the units that the model was trained on"
    # GDAL's own commands take no URL.
    url = "://" in reader.path and not reader.path.startswith("/vsi")
    source = shlex.quote(raster_files(reader.path)[0] if url else str(reader.path))
    target = shlex.quote(f"{reader.path.stem}_uint8.tif")
    return f"`gdal_translate -ot Byte{_scaling(reader)} {source} {target}` makes such a file"


def _scaling(reader: "RasterReader") -> str:
    """Return options of gdal_translate that map 2 to 98 % of each band's values to 0..255."""
    step = max(1, reader.height * reader.width // _SAMPLE)
    kept, void = [], False
    for strip in strips(reader.height, reader.width):
        image, valid = reader.read(strip)
        kept.append(image[valid][::step])
        void |= not valid.all()
    values = np.concatenate(kept)
    if not len(values):
        return ""
    options = ""
    # A band may be fed more than once.
    for band, position in sorted({band: i for i, band in enumerate(reader.bands)}.items()):
        low, high = np.percentile(values[:, position], (2, 98))
        high = high if high > low else low + 1
        options += f" -scale_{band} {low:.6g} {high:.6g} 0 255"
    # All 256 values are in use, so validity goes into a mask, not nodata.
    return options + (" -mask mask -a_nodata none" if void else "")


def read_patch(
    run: Run,
    image: str | os.PathLike,
    corner: tuple[int, int] | None = None,
    gsd: float | str | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Read a patch of a raster as the network is fed it in prediction.

    ``corner`` is the column and row of the raster where the patch begins, moved back if the patch
    would reach outside; None for the patch in the middle.

    Returns:
        ``(window, window, bands)`` raw pixels, mirrored where the raster is smaller; validity
        ``(window, window)`` bool; and column and row of the first pixel in the raster.

    Raises:
        RasterError: the raster cannot be read or fed, the corner lies outside of it, or the patch
            is void.
    """
    side, given = run.config["window"], NetworkInput(run, image, gsd=gsd)
    own, fed = given.own_size, given.size
    if corner is None:
        first = [(length - side) // 2 for length in fed]
    else:
        if not (0 <= corner[0] < own[1] and 0 <= corner[1] < own[0]):
            raise RasterError(
                f"{image}: has no column {corner[0]} and row {corner[1]}; it has {own[1]} columns "
                f"and {own[0]} rows"
            )
        moves = zip(corner[::-1], fed, own, strict=True)
        first = [round(start * new / old) for start, new, old in moves]
    row, column = (
        max(min(start, length - side), 0) for start, length in zip(first, fed, strict=True)
    )
    with given.fed() as reader:
        pixels, valid = reader.read(Window(row, column, min(side, fed[0]), min(side, fed[1])))
    place = (round(column * own[1] / fed[1]), round(row * own[0] / fed[0]))
    if not valid.any():
        raise RasterError(
            f"{image}: the {side} x {side} pixels from column {place[0]}, row {place[1]} on are "
            "void; name others by --window COLUMN,ROW"
        )
    whole = Window(0, 0, side, side)
    return cut(pixels, whole), cut(valid, whole), place
