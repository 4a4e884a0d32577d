"""Pictures of rasters: a mask drawn on its raster, tiled pyramids, a scene of a report."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from preprocessing.image_operations import BACKGROUND, ERROR_COLOURS, error_classes, stretch
from preprocessing.output_files import replacing
from preprocessing.rasters import LabelReader, RasterReader
from preprocessing.tiling import VOID, Window

LONGEST_SIDE = 2000
# No roof, field or road has this colour. The tint is weak, so that the ground shows through it.
COLOUR = (255, 0, 200)
TINT = 0.2
VOID_GREY = 200
_STRIP_PIXELS = 1 << 21


def overlay(
    reader: RasterReader, mask: str | os.PathLike, longest_side: int = LONGEST_SIDE
) -> np.ndarray:
    """Draw a mask on its raster as ``(rows, columns, 3)`` uint8 of red, green and blue.

    Targets are tinted and outlined, void is light grey.
    The raster's first three chosen bands are shown, or the first in grey if there are fewer. Depths
    other than uint8 are stretched from the 2nd to the 98th percentile of the picture. A large
    raster is shrunk by a whole number: a pixel of the picture is the mean of the valid pixels that
    it stands for, and target where at least half of these are. Memory stays flat.

    Raises:
        RasterError: the raster or the mask is corrupt.
    """
    factor = -(-max(reader.height, reader.width) // longest_side)
    step = max(_STRIP_PIXELS // reader.width // factor, 1) * factor
    bands = 3 if len(reader.bands) >= 3 else 1
    # Other depths are tinted at the end: their stretch depends on the whole picture.
    draw = _tinted if reader.dtype == "uint8" else lambda colours, valid, targets: colours
    parts = []
    with LabelReader(mask) as labels:
        for row in range(0, reader.height, step):
            window = Window(row, 0, min(step, reader.height - row), reader.width)
            image, _ = reader.read(window)
            found = labels.read(window)
            planes = np.empty((window.height, window.width, bands + 2), np.float32)
            planes[..., :bands] = image[..., :bands]
            planes[..., bands] = 1
            planes[..., bands + 1] = found == 1
            planes[found == VOID] = 0
            sums = _cell_sums(planes, factor)
            pixels, hits = sums[..., bands], sums[..., bands + 1]
            valid, targets = pixels > 0, (pixels > 0) & (2 * hits >= pixels)
            colours = sums[..., :bands] / np.maximum(pixels, 1)[..., None]
            parts.append((draw(colours, valid, targets), valid, targets))
    picture, valid, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
    if reader.dtype != "uint8":
        picture = _tinted(stretch(picture, valid), valid, targets)
    picture[targets & ~_inside(targets)] = COLOUR
    return picture


def write_png(picture: np.ndarray, path: str | os.PathLike, overwrite: bool = False) -> None:
    """Write ``(rows, columns, 3)`` uint8 of red, green and blue as PNG, as ``replacing`` does.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    _, content = cv2.imencode(".png", picture[..., ::-1])
    with replacing(path, overwrite) as target:
        target.write_bytes(content.tobytes())


def _cell_sums(planes: np.ndarray, factor: int) -> np.ndarray:
    """Return sums over cells of ``factor`` x ``factor``; the last row and column may be smaller."""
    if factor == 1:
        return planes
    # Adding slices is several times faster than ``np.add.reduceat``.
    for axis in (0, 1):
        along = np.moveaxis(planes, axis, 0)
        sums = along[::factor].copy(order="K")
        for start in range(1, factor):
            part = along[start::factor]
            sums[: len(part)] += part
        planes = np.moveaxis(sums, 0, axis)
    return planes


def _tinted(colours: np.ndarray, valid: np.ndarray, targets: np.ndarray) -> np.ndarray:
    picture = np.broadcast_to(colours, (*valid.shape, 3)).copy()
    picture[~valid] = VOID_GREY
    picture[targets] = (1 - TINT) * picture[targets] + TINT * np.float32(COLOUR)
    return np.rint(picture).astype(np.uint8)


def _inside(targets: np.ndarray) -> np.ndarray:
    """Return the targets that have targets on all four sides."""
    around = cv2.copyMakeBorder(targets.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return cv2.erode(around, cross)[1:-1, 1:-1].astype(bool)


TILE = 512
JPEG_QUALITY = 85


def level_sizes(height: int, width: int, tile: int = TILE) -> list[tuple[int, int]]:
    """Return rows and columns of every level, the full size first, until one tile holds all."""
    sizes = [(height, width)]
    while max(sizes[-1]) > tile:
        rows, columns = sizes[-1]
        sizes.append((-(-rows // 2), -(-columns // 2)))
    return sizes


def halve(pixels: np.ndarray) -> np.ndarray:
    """Return means of 2 x 2 pixels, rounded; an odd last row or column counts twice.

    Pixels are ``(height, width, channels)`` uint8; half the height and width are rounded up.
    """
    height, width, channels = pixels.shape
    even = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = (even.shape[1] // 2, even.shape[0] // 2)
    small = cv2.resize(even, size, interpolation=cv2.INTER_AREA)
    return small.reshape(size[1], size[0], channels)


def jpeg(pixels: np.ndarray) -> bytes:
    """Encode ``(height, width, 3)`` uint8 of red, green and blue as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", pixels[..., ::-1], options)[1].tobytes()


def png(pixels: np.ndarray) -> bytes:
    """Encode premultiplied ``(height, width, 4)`` uint8 as PNG, which is not premultiplied."""
    alpha = pixels[..., 3]
    partly = (alpha > 0) & (alpha < 255)
    straight = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
    if partly.any():
        colours = straight[partly].astype(np.float32)
        colours[:, :3] *= 255 / colours[:, 3:]
        straight[partly] = np.minimum(colours + 0.5, 255).astype(np.uint8)
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3]
    return cv2.imencode(".png", straight, options)[1].tobytes()


class PyramidWriter:
    """Writes a raster's tiles at every level as the rows come in, from top to bottom.

    Tiles lie at ``<folder>/<level>/<column>_<row><suffix>``: levels as ``level_sizes`` lists
    them, columns and rows counted in tiles.

    Args:
        encode: makes a file of ``(rows, columns, channels)`` uint8.
        tile: side of a tile, an even number of pixels.

    Attributes:
        smallest: the last level, ``(rows, columns, channels)``; None before the last row.
    """

    def __init__(
        self,
        folder: Path,
        height: int,
        width: int,
        encode: Callable[[np.ndarray], bytes] = jpeg,
        suffix: str = ".jpg",
        tile: int = TILE,
    ) -> None:
        self.folder, self.encode, self.suffix, self.tile = folder, encode, suffix, tile
        self.sizes = level_sizes(height, width, tile)
        self.smallest: np.ndarray | None = None
        self._waiting: list[list[np.ndarray]] = [[] for _ in self.sizes]
        self._written = [0] * len(self.sizes)
        for level in range(len(self.sizes)):
            (folder / str(level)).mkdir(parents=True, exist_ok=True)

    def write(self, strip: np.ndarray, level: int = 0) -> None:
        """Take the next rows: ``(rows, width, channels)`` uint8, any number of them.

        The levels below the full size make themselves.

        Raises:
            ValueError: another width, or more rows than the raster has.
            OSError: a tile cannot be written.
        """
        height, width = self.sizes[level]
        waiting = self._waiting[level]
        waiting.append(strip)
        rows = sum(map(len, waiting))
        written = self._written[level]
        if strip.shape[1] != width or written + rows > height:
            raise ValueError(
                f"strips must be {width} wide and {height} high in all; got one of {strip.shape} "
                f"after {written + rows - len(strip)} rows"
            )
        if rows < self.tile and written + rows < height:
            return
        pixels = np.concatenate(waiting) if waiting[1:] else strip
        last = written + rows == height
        whole = rows if last else rows - rows % self.tile
        self._waiting[level] = [] if last else [pixels[whole:]]
        self._written[level] += whole
        for row in range(0, whole, self.tile):
            for column in range(0, width, self.tile):
                tile = pixels[row : row + self.tile, column : column + self.tile]
                name = f"{column // self.tile}_{(written + row) // self.tile}{self.suffix}"
                content = self.encode(np.ascontiguousarray(tile))
                (self.folder / str(level) / name).write_bytes(content)
        if level + 1 < len(self.sizes):
            self.write(halve(pixels[:whole]), level + 1)
        else:
            self.smallest = pixels


# Further colours of Okabe and Ito (2008), for masks that are not compared.
TRUTH, PREDICTION, NO_DATA = (240, 228, 66), (204, 121, 167), ERROR_COLOURS[VOID]
MASK_COLOURS = {
    "truth": {1: TRUTH, VOID: NO_DATA},
    "prediction": {1: PREDICTION, VOID: NO_DATA},
    "errors": {value: c for value, c in ERROR_COLOURS.items() if value != BACKGROUND},
}
"""For each picture of masks the colour of each value; other values are transparent."""

COVERAGE_WINDOW = 256
_THUMB, _PANEL, _GAP = 320, 300, 8
# Brightness beneath masks where there is no image, and the opacity of masks.
_DARK, _OPACITY = 30, 0.72

Strip = tuple[np.ndarray | None, np.ndarray, np.ndarray]
"""Image ``(rows, width, 3)`` uint8 or None, truth and prediction ``(rows, width)`` uint8."""


@dataclass(frozen=True)
class ScenePictures:
    """What was written of one scene.

    Attributes:
        levels: of each pyramid.
        imagery: whether there is an image beneath the masks.
        coverage: shares of target in truth and prediction, ``(windows, 2)`` float64, see
            ``window_shares``.
    """

    height: int
    width: int
    levels: int
    imagery: bool
    coverage: np.ndarray


def write_scene_pictures(
    folder: Path, height: int, width: int, strips: Iterable[Strip]
) -> ScenePictures:
    """Write the pyramids of a scene, and two small pictures of it.

    These are ``<folder>/image/<level>/<column>_<row>.jpg``; ``truth``, ``prediction`` and
    ``errors`` as PNG; ``thumb.jpg``, the errors over the image in grey; and ``sheet.jpg``, all of
    them side by side. Memory stays flat. Strips come from top to bottom, each but the last of
    ``TILE`` rows; all have an image or none.

    Raises:
        OSError: a file cannot be written.
        ValueError: the strips do not make up the scene.
    """
    writers = {
        name: PyramidWriter(folder / name, height, width, png, ".png") for name in MASK_COLOURS
    }
    palettes = {name: _palette(colours) for name, colours in MASK_COLOURS.items()}
    image_writer, coverage = None, []
    for image, truth, prediction in strips:
        masks = (truth, prediction, error_classes(truth, prediction))
        for name, mask in zip(MASK_COLOURS, masks, strict=True):
            writers[name].write(palettes[name][mask])
        if image is not None:
            image_writer = image_writer or PyramidWriter(folder / "image", height, width, jpeg)
            image_writer.write(image)
        coverage.append(window_shares(truth, prediction))
    small = {name: writer.smallest for name, writer in writers.items()}
    _write_small_pictures(folder, image_writer and image_writer.smallest, small)
    return ScenePictures(
        height=height,
        width=width,
        levels=len(writers["truth"].sizes),
        imagery=image_writer is not None,
        coverage=np.concatenate(coverage),
    )


def window_shares(
    truth: np.ndarray, prediction: np.ndarray, side: int = COVERAGE_WINDOW
) -> np.ndarray:
    """Return the shares of target among the valid pixels of each window of two masks.

    Windows are ``side`` pixels wide and high; the last ones of rows and columns may be smaller.

    Returns:
        ``(windows, 2)`` float64 of truth and prediction, without windows that are all void.
    """
    valid = (truth != VOID) & (prediction != VOID)
    sums = []
    for mask in (valid, valid & (truth == 1), valid & (prediction == 1)):
        rows = np.add.reduceat(mask, np.arange(0, mask.shape[0], side), axis=0, dtype=np.int64)
        columns = np.arange(0, mask.shape[1], side)
        sums.append(np.add.reduceat(rows, columns, axis=1).ravel())
    pixels, true, predicted = sums
    some = pixels > 0
    return np.stack([true[some], predicted[some]], axis=1) / pixels[some, None]


def _palette(colours: dict[int, tuple[int, int, int]]) -> np.ndarray:
    """Return ``(256, 4)`` uint8 of red, green, blue and opacity for each value of a mask."""
    palette = np.zeros((256, 4), np.uint8)
    for value, colour in colours.items():
        palette[value] = (*colour, 255)
    return palette


def _write_small_pictures(
    folder: Path, image: np.ndarray | None, masks: dict[str, np.ndarray]
) -> None:
    """Write ``thumb.jpg`` and ``sheet.jpg`` of the smallest levels."""
    plain = np.full((*masks["truth"].shape[:2], 3), _DARK, np.uint8)
    grey = plain if image is None else np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    thumb = _shrunk(_beneath(grey, masks["errors"]), _THUMB)
    (folder / "thumb.jpg").write_bytes(jpeg(thumb))
    under = plain if image is None else image
    panels = [] if image is None else [_shrunk(image, _PANEL)]
    for name, mask in masks.items():
        panels.append(_shrunk(_beneath(grey if name == "errors" else under, mask), _PANEL))
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    (folder / "sheet.jpg").write_bytes(jpeg(np.concatenate(parts, axis=1)))


def _beneath(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a picture with a premultiplied mask over it."""
    mask = mask.astype(np.float32) * _OPACITY
    return (picture * (1 - mask[..., 3:] / 255) + mask[..., :3]).astype(np.uint8)


def _shrunk(picture: np.ndarray, longest: int) -> np.ndarray:
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = [max(1, round(side * factor)) for side in (picture.shape[1], picture.shape[0])]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
