"""The layers of one scene of a report: image, truth, prediction and errors as tiled pyramids.

Masks are pictures with transparency, to be laid over the image. A pixel of a smaller level shows
how much of the ground it stands for has each colour: thin roads fade, they neither break nor grow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from experiments.figures import FALSELY_FOUND, FOUND, MISSED
from preprocessing.pyramids import PyramidWriter, jpeg, png
from preprocessing.tiling import VOID

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
            ``pyramids.TILE`` rows.

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
    thumb = _shrunk(_tinted(grey, masks["errors"]), _THUMB)
    (folder / "thumb.jpg").write_bytes(jpeg(thumb))
    under = plain if image is None else image
    panels = [] if image is None else [_shrunk(image, _PANEL)]
    for name, mask in masks.items():
        panels.append(_shrunk(_tinted(grey if name == "errors" else under, mask), _PANEL))
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    (folder / "sheet.jpg").write_bytes(jpeg(np.concatenate(parts, axis=1)))


def _tinted(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
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
