"""Windows: which rectangles cover a raster, and how to cut them out of an array.

A window may reach outside the array that it is cut from. Pixels there are mirrored in an image
and void in a mask, never zero: zeros would teach a network that imagery ends in black.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VOID = 255
"""The value of a mask where there is no imagery; 0 is background, 1 target."""
_STRIP_PIXELS = 1 << 22


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels of a raster: rows ``row`` to ``row + height - 1``, columns alike.

    The first row or column is negative where the window begins above or left of the raster.
    """

    row: int
    column: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of a window inside its array; rasterio takes them too."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.column, self.column + self.width),
        )

    def clipped(self, height: int, width: int) -> "Window":
        """Return the part of the window inside a raster of ``height`` x ``width`` pixels.

        Raises:
            ValueError: no pixel of the window lies inside.
        """
        top, left = max(self.row, 0), max(self.column, 0)
        bottom = min(self.row + self.height, height)
        right = min(self.column + self.width, width)
        if top >= bottom or left >= right:
            raise ValueError(f"{self} has no pixel in a raster of {height} x {width}")
        return Window(top, left, bottom - top, right - left)


def starts(length: int, size: int, stride: int) -> list[int]:
    """Return the first pixels of windows of ``size`` that cover ``length`` pixels of one axis.

    Windows lie ``stride`` apart; the last one is moved back so that it ends with the axis. An axis
    shorter than the window has one window at 0.

    Raises:
        ValueError: a length, size or stride below 1, or a stride above the size (gaps).
    """
    if length < 1 or size < 1 or not 1 <= stride <= size:
        raise ValueError(
            f"length {length}, size {size}, stride {stride}: lengths must be positive and the "
            "stride between 1 and the size"
        )
    if length <= size:
        return [0]
    return [*range(0, length - size, stride), length - size]


def cover(height: int, width: int, size: int, stride: int | None = None) -> list[Window]:
    """Return windows of ``size`` x ``size`` that hold every pixel of a raster, row by row.

    They lie ``stride`` pixels apart, by default ``size``, so that only those at the far edges
    overlap. They reach outside only of a raster that is smaller than a window.
    """
    stride = size if stride is None else stride
    return [
        Window(row, column, size, size)
        for row in starts(height, size, stride)
        for column in starts(width, size, stride)
    ]


def mirror(indices: np.ndarray, length: int) -> np.ndarray:
    """Return indices reflected into 0 .. length - 1, edge pixels not repeated.

    ``mirror([-2, -1, 0, 1, 2, 3], 3)`` is ``[2, 1, 0, 1, 2, 1]``. Indices may be any distance off.
    """
    if length == 1:
        return np.zeros_like(indices)
    period = 2 * (length - 1)
    folded = np.abs(indices) % period
    return np.minimum(folded, period - folded)


def cut(array: np.ndarray, window: Window) -> np.ndarray:
    """Cut a window out of an image, mirrored where it reaches outside, by any distance.

    The array is ``(height, width)`` or ``(height, width, bands)`` of any dtype, the result a copy
    ``(window.height, window.width, ...)``.
    """
    rows = mirror(np.arange(window.row, window.row + window.height), array.shape[0])
    columns = mirror(np.arange(window.column, window.column + window.width), array.shape[1])
    return array[rows[:, None], columns[None, :]]


def cut_mask(mask: np.ndarray, window: Window) -> np.ndarray:
    """Cut a window out of a uint8 mask; it is void (255) where it reaches outside.

    Raises:
        ValueError: no pixel of the window lies inside.
    """
    patch = np.full((window.height, window.width), VOID, np.uint8)
    inside = window.clipped(*mask.shape)
    top, left = inside.row - window.row, inside.column - window.column
    patch[top : top + inside.height, left : left + inside.width] = mask[inside.slices]
    return patch


def fill_void(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return an image as a network is fed it: void pixels at the mean of the valid ones, per band.

    A network that normalises over the whole window sees every pixel of it. A black or white margin
    would shift its statistics and draw an edge where the imagery only ends.

    Args:
        image: ``(height, width, bands)``, any dtype; its void pixels may hold anything.
        valid: ``(height, width)`` bool. The image itself is returned if all or none of it is set.
    """
    if valid.all() or not valid.any():
        return image
    mean = image[valid].mean(axis=0, dtype=np.float64)
    if image.dtype.kind in "iu":
        mean = np.rint(mean)
    return np.where(valid[..., None], image, mean.astype(image.dtype))


def strips(height: int, width: int, rows: int = 512) -> Iterator[Window]:
    """Yield full-width windows from top to bottom, each of about four million pixels at most.

    They hold whole blocks of ``rows`` rows where that is not too much.
    """
    step = max(1, _STRIP_PIXELS // width)
    if step > rows:
        step -= step % rows
    for row in range(0, height, step):
        yield Window(row, 0, min(step, height - row), width)
