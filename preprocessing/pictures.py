"""Overlays: a raster with its mask drawn on it, small enough to look at."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jointnet.figures import FALSELY_FOUND, FOUND, MISSED
from preprocessing.image_operations import stretch
from preprocessing.output_files import replacing
from preprocessing.rasters import LabelReader, RasterReader
from preprocessing.tiling import VOID, Window

LONGEST_SIDE = 2000
# No roof, field or road has this colour; the tint lets what is under it show.
COLOUR = (255, 0, 200)
TINT = 0.2
VOID_GREY = 200
_STRIP_PIXELS = 1 << 21


def overlay(
    reader: RasterReader, mask: str | os.PathLike, longest_side: int = LONGEST_SIDE
) -> np.ndarray:
    """Draw a mask's targets, tinted and outlined, on the raster they were found in.

    A larger raster is shrunk by a whole number: a pixel of the picture is the mean of the valid
    pixels it stands for, and target where at least half of these are. Memory stays flat.

    Args:
        reader: the raster, open. The first three of its chosen bands are shown, of fewer the
            first in grey. Other depths than uint8 are stretched to 2 to 98 % of this picture.
        mask: the mask of the raster, as ``MaskWriter`` writes it.
        longest_side: the picture has at most so many pixels a side.

    Returns:
        ``(rows, columns, 3)`` uint8 of red, green and blue; light grey where there is void.

    Raises:
        RasterError: the raster or the mask is corrupt.
    """
    factor = -(-max(reader.height, reader.width) // longest_side)
    bands = 3 if len(reader.bands) >= 3 else 1
    # Only of uint8 it is known what to draw before all has been seen.
    draw = _tinted if reader.dtype == "uint8" else lambda colours, valid, targets: colours
    parts = []
    with LabelReader(mask) as labels:
        for window in _strips(reader.height, reader.width, factor):
            image, _ = reader.read(window)
            found = labels.read(window)
            layers = np.empty((window.height, window.width, bands + 2), np.float32)
            layers[..., :bands] = image[..., :bands]
            layers[..., bands] = 1
            layers[..., bands + 1] = found == 1
            layers[found == VOID] = 0
            sums = _cell_sums(layers, factor)
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
    """Write a picture as PNG, which appears only when it is complete.

    Args:
        picture: ``(rows, columns, 3)`` uint8 of red, green and blue.
        path: the file to write; missing folders are made.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    _, content = cv2.imencode(".png", picture[..., ::-1])
    with replacing(path, overwrite) as target:
        target.write_bytes(content.tobytes())


def _strips(height: int, width: int, factor: int) -> Iterator[Window]:
    """Full-width windows from top to bottom whose heights are multiples of ``factor``."""
    step = max(_STRIP_PIXELS // width // factor, 1) * factor
    for row in range(0, height, step):
        yield Window(row, 0, min(step, height - row), width)


def _cell_sums(layers: np.ndarray, factor: int) -> np.ndarray:
    """Sums over cells of ``factor`` x ``factor``; those at the far edges may be smaller."""
    if factor == 1:
        return layers
    # Slices added to each other: several times faster than ``np.add.reduceat``.
    for axis in (0, 1):
        along = np.moveaxis(layers, axis, 0)
        sums = along[::factor].copy(order="K")
        for start in range(1, factor):
            part = along[start::factor]
            sums[: len(part)] += part
        layers = np.moveaxis(sums, 0, axis)
    return layers


def _tinted(colours: np.ndarray, valid: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The picture without outlines: targets tinted, void grey."""
    picture = np.broadcast_to(colours, (*valid.shape, 3)).copy()
    picture[~valid] = VOID_GREY
    picture[targets] = (1 - TINT) * picture[targets] + TINT * np.float32(COLOUR)
    return np.rint(picture).astype(np.uint8)


def _inside(targets: np.ndarray) -> np.ndarray:
    """Targets with targets on all four sides."""
    around = cv2.copyMakeBorder(targets.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return cv2.erode(around, cross)[1:-1, 1:-1].astype(bool)


TILE = 512
JPEG_QUALITY = 85


def level_sizes(height: int, width: int, tile: int = TILE) -> list[tuple[int, int]]:
    """Rows and columns of every level, the raster's own first.

    Args:
        height: rows of the raster, at least 1.
        width: its columns, at least 1.
        tile: side of a tile in pixels.
    """
    sizes = [(height, width)]
    while max(sizes[-1]) > tile:
        rows, columns = sizes[-1]
        sizes.append((-(-rows // 2), -(-columns // 2)))
    return sizes


def halve(pixels: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, rounded; an odd last row or column is taken twice.

    Args:
        pixels: ``(height, width, channels)`` uint8.

    Returns:
        uint8 of half the height and width, rounded up.
    """
    height, width, channels = pixels.shape
    even = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = (even.shape[1] // 2, even.shape[0] // 2)
    small = cv2.resize(even, size, interpolation=cv2.INTER_AREA)
    return small.reshape(size[1], size[0], channels)


def jpeg(pixels: np.ndarray) -> bytes:
    """``(height, width, 3)`` uint8 of red, green and blue as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", pixels[..., ::-1], options)[1].tobytes()


def png(pixels: np.ndarray) -> bytes:
    """Premultiplied ``(height, width, 4)`` uint8 of red, green, blue and opacity as PNG.

    The file is not premultiplied, as PNG wants it.
    """
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
    """Writes the levels of one raster while it comes in, from top to bottom.

    Tiles lie at ``<folder>/<level>/<column>_<row><suffix>``, levels counted as
    ``level_sizes`` lists them, columns and rows in tiles.

    Args:
        folder: where the levels come to lie.
        height: rows of the raster.
        width: its columns.
        encode: makes a file of ``(rows, columns, channels)`` uint8.
        suffix: of the files' names.
        tile: side of a tile, an even number of pixels.

    Attributes:
        smallest: the last level, ``(rows, columns, channels)``; None until all rows came.
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

    def write(self, strip: np.ndarray) -> None:
        """Take the next rows.

        Args:
            strip: ``(rows, width, channels)`` uint8, any number of rows.

        Raises:
            ValueError: another width, or more rows than the raster has.
            OSError: a tile cannot be written.
        """
        self._add(0, strip)

    def _add(self, level: int, strip: np.ndarray) -> None:
        """Take rows of a level, and write the tiles that are complete with them."""
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
            self._write_row(level, (written + row) // self.tile, pixels[row : row + self.tile])
        if level + 1 < len(self.sizes):
            self._add(level + 1, halve(pixels[:whole]))
        else:
            self.smallest = pixels

    def _write_row(self, level: int, number: int, pixels: np.ndarray) -> None:
        """Write one row of tiles."""
        for column in range(0, pixels.shape[1], self.tile):
            name = f"{column // self.tile}_{number}{self.suffix}"
            content = self.encode(np.ascontiguousarray(pixels[:, column : column + self.tile]))
            (self.folder / str(level) / name).write_bytes(content)


# Further colours of Okabe and Ito 2008, for masks that are not compared.
TRUTH, PREDICTION, NO_DATA = (240, 228, 66), (204, 121, 167), (128, 128, 128)
COLOURS = {
    "truth": {1: TRUTH, VOID: NO_DATA},
    "prediction": {1: PREDICTION, VOID: NO_DATA},
    "errors": {1: FOUND, 2: MISSED, 3: FALSELY_FOUND, VOID: NO_DATA},
}
"""Per layer the colour of each value of its mask; what has none is transparent."""

COVERAGE_WINDOW = 256
_THUMB, _PANEL, _GAP = 320, 300, 8
# Under masks where there is no image, and how much of it they hide.
_DARK, _TINT = 30, 0.72

Strip = tuple[np.ndarray | None, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SceneLayers:
    """What was written of one scene.

    Attributes:
        height: rows.
        width: columns.
        levels: of each pyramid.
        imagery: whether there is an image layer.
        coverage: per window of ``COVERAGE_WINDOW`` pixels that has any valid pixel the shares of
            these that are target in truth and prediction, ``(windows, 2)`` float64.
    """

    height: int
    width: int
    levels: int
    imagery: bool
    coverage: np.ndarray


def error_classes(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """What a prediction is at each pixel.

    Args:
        truth: ``(height, width)`` uint8 of 0, 1 and 255.
        prediction: the same.

    Returns:
        uint8: 0 rightly nothing, 1 found, 2 missed, 3 falsely found, 255 void in either.
    """
    classes = np.array([[0, 3], [2, 1]], np.uint8)[truth & 1, prediction & 1]
    classes[(truth == VOID) | (prediction == VOID)] = VOID
    return classes


def write_layers(folder: Path, height: int, width: int, strips: Iterable[Strip]) -> SceneLayers:
    """Write the pyramids of a scene, and two small pictures of it.

    ``<folder>/image/<level>/<column>_<row>.jpg``, and ``truth``, ``prediction`` and ``errors`` as
    PNG; ``thumb.jpg``, the errors over the image in grey; and ``sheet.jpg``, all layers side by
    side. Memory stays flat.

    Args:
        folder: of the scene.
        height: rows of the scene.
        width: its columns.
        strips: image ``(rows, width, 3)`` uint8 or, of all strips, None; truth and prediction
            ``(rows, width)`` uint8 of 0, 1 and 255. From top to bottom, all but the last of
            ``TILE`` rows.

    Raises:
        OSError: a file cannot be written.
        ValueError: strips that do not make up the scene.
    """
    writers = {name: PyramidWriter(folder / name, height, width, png, ".png") for name in COLOURS}
    palettes = {name: _palette(colours) for name, colours in COLOURS.items()}
    image_writer, coverage = None, []
    for image, truth, prediction in strips:
        classes = error_classes(truth, prediction)
        for name, mask in (("truth", truth), ("prediction", prediction), ("errors", classes)):
            writers[name].write(palettes[name][mask])
        if image is not None:
            image_writer = image_writer or PyramidWriter(folder / "image", height, width, jpeg)
            image_writer.write(image)
        coverage.append(window_shares(truth, prediction))
    small = {name: writer.smallest for name, writer in writers.items()}
    _write_pictures(folder, image_writer and image_writer.smallest, small)
    return SceneLayers(
        height=height,
        width=width,
        levels=len(writers["truth"].sizes),
        imagery=image_writer is not None,
        coverage=np.concatenate(coverage),
    )


def window_shares(
    truth: np.ndarray, prediction: np.ndarray, side: int = COVERAGE_WINDOW
) -> np.ndarray:
    """Shares of target in windows, those at the far edges smaller, of their valid pixels.

    Args:
        truth: ``(height, width)`` uint8 of 0, 1 and 255.
        prediction: the same.
        side: of a window.

    Returns:
        ``(windows, 2)`` float64, truth and prediction; windows without valid pixels left out.
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
    """``(256, 4)`` uint8 of red, green, blue and opacity by the value of a mask."""
    palette = np.zeros((256, 4), np.uint8)
    for value, colour in colours.items():
        palette[value] = (*colour, 255)
    return palette


def _write_pictures(folder: Path, image: np.ndarray | None, masks: dict[str, np.ndarray]) -> None:
    """Write ``thumb.jpg`` and ``sheet.jpg`` of the smallest levels."""
    plain = np.full((*masks["truth"].shape[:2], 3), _DARK, np.uint8)
    grey = plain if image is None else np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    thumb = _shrunk(_with_errors(grey, masks["errors"]), _THUMB)
    (folder / "thumb.jpg").write_bytes(jpeg(thumb))
    under = plain if image is None else image
    panels = [] if image is None else [_shrunk(image, _PANEL)]
    for name, mask in masks.items():
        panels.append(_shrunk(_with_errors(grey if name == "errors" else under, mask), _PANEL))
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    (folder / "sheet.jpg").write_bytes(jpeg(np.concatenate(parts, axis=1)))


def _with_errors(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture under a premultiplied mask."""
    mask = mask.astype(np.float32) * _TINT
    return (picture * (1 - mask[..., 3:] / 255) + mask[..., :3]).astype(np.uint8)


def _shrunk(picture: np.ndarray, longest: int) -> np.ndarray:
    """A picture of at most so many pixels a side."""
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = [max(1, round(side * factor)) for side in (picture.shape[1], picture.shape[0])]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
