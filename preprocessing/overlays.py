"""Overlays: a raster with its mask drawn on it, small enough to look at."""

import os
from collections.abc import Iterator

import cv2
import numpy as np

from preprocessing.display import stretch
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
