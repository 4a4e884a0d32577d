"""Sliding-window prediction: overlapping windows, blended, in flat memory.

Windows have the size that the network was trained on, because its group statistics span the
window. They lie on a grid that begins half an overlap before the raster, where the image is
mirrored; so border pixels have surroundings on all sides and the same weight as others.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from preprocessing.tiling import Window, cut, fill_void, starts

Read = Callable[[Window], tuple[np.ndarray, np.ndarray]]
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class WindowGrid:
    """The windows over one raster, and how they are blended.

    Attributes:
        height: rows of the raster.
        width: columns of the raster.
        window: side of a window in pixels.
        overlap: pixels that neighbours share, less than ``window``. The outer quarter of the
            overlap is discarded, where a network sees least around; over the rest the weights
            ramp so that those of two neighbours add up to 1.

    Raises:
        ValueError: an overlap that is negative or not less than the window.
    """

    height: int
    width: int
    window: int
    overlap: int

    def __post_init__(self):
        """Check the overlap."""
        if not 0 <= self.overlap < self.window:
            raise ValueError(
                f"overlap must be at least 0 and less than the window ({self.window}); "
                f"got {self.overlap}"
            )

    def starts(self, length: int) -> list[int]:
        """First pixels of the windows along an axis of ``length`` pixels."""
        margin = self.overlap // 2
        stride = self.window - self.overlap
        return [start - margin for start in starts(length + 2 * margin, self.window, stride)]

    def windows(self) -> list[Window]:
        """All windows, row by row; those at the border reach outside the raster."""
        return [
            Window(row, column, self.window, self.window)
            for row in self.starts(self.height)
            for column in self.starts(self.width)
        ]

    def weights(self) -> np.ndarray:
        """Weight of each pixel of a window, ``(window, window)`` float32 in 0..1."""
        position = np.arange(self.window)
        inside = np.minimum(position, self.window - 1 - position) + 0.5
        discarded = self.overlap // 4
        ramp = max(self.overlap - 2 * discarded, 1)
        along = np.clip((inside - discarded) / ramp, 0, 1) if self.overlap else np.ones(self.window)
        return (along[:, None] * along[None, :]).astype(np.float32)


def batch_of(window: int) -> int:
    """Windows of so many pixels a side to predict at once.

    As many pixels as one window of 512: more is no faster on a CPU, and holds more memory (5 GB
    for four such windows at full width, 2 GB for one); and 16 at most, as the last batch is
    filled up.
    """
    return max(1, min(512**2 // window**2, 16))


def predict_windows(
    windows: Iterable[Window], read: Read, predict: Predict, batch_size: int
) -> Iterator[tuple[Window, np.ndarray | None]]:
    """Probabilities of each window, in order.

    The batch always has ``batch_size`` windows (the last is filled up), so that a network is
    compiled once and a pixel's value does not depend on where its window stands in the list.
    Void pixels are fed as the mean of the window's valid ones (``tiling.fill_void``).

    Args:
        windows: square windows of one size.
        read: image ``(height, width, bands)`` and validity ``(height, width)`` bool of a window,
            which may reach outside the raster.
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``.
        batch_size: windows predicted at once.

    Yields:
        The window and its ``(size, size)`` float32 probabilities, or None where all is void.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
    loaded = ((window, *read(window)) for window in windows)
    while group := list(islice(loaded, batch_size)):
        images = [fill_void(image, valid) for _, image, valid in group if valid.any()]
        if images:
            filled = images + [images[-1]] * (batch_size - len(images))
            results = iter(np.asarray(predict(np.stack(filled)), np.float32)[..., 0])
        for window, _, valid in group:
            yield window, next(results) if valid.any() else None


def blend(
    grid: WindowGrid, results: Iterable[tuple[Window, np.ndarray | None]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Weighted mean of overlapping windows, strip by strip.

    Only one row of windows is held in memory.

    Args:
        grid: the grid the windows come from.
        results: windows in the grid's order, with their probabilities or None.

    Yields:
        First row and ``(rows, width)`` float32 probabilities of consecutive strips that together
        are the raster; NaN where no window had a result.
    """
    weights = grid.weights()
    tops = grid.starts(grid.height)
    left = grid.starts(grid.width)[0]
    span = grid.starts(grid.width)[-1] + grid.window - left
    total = np.zeros((2, grid.window, span), np.float32)
    remaining = iter(results)
    for top, following in zip(tops, [*tops[1:], tops[-1] + grid.window], strict=True):
        for _ in grid.starts(grid.width):
            window, probabilities = next(remaining)
            if probabilities is not None:
                columns = slice(window.column - left, window.column - left + grid.window)
                total[0, :, columns] += weights * probabilities
                total[1, :, columns] += weights
        finished = following - top
        first, last = max(top, 0), min(following, grid.height)
        if last > first:
            rows = slice(first - top, last - top)
            columns = slice(-left, -left + grid.width)
            values, weight = total[0, rows, columns], total[1, rows, columns]
            yield (
                first,
                np.divide(values, weight, out=np.full_like(values, np.nan), where=weight > 0),
            )
        total[:, : grid.window - finished] = total[:, finished:].copy()
        total[:, grid.window - finished :] = 0


def predict_strips(
    read: Read, grid: WindowGrid, predict: Predict, batch_size: int = 4
) -> Iterator[tuple[int, np.ndarray]]:
    """Probabilities of a raster as consecutive strips of rows.

    Args:
        read: image and validity of a window inside the raster.
        grid: windows over the raster.
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``.
        batch_size: windows predicted at once.

    Yields:
        First row and ``(rows, width)`` float32 probabilities; NaN where the image is void.
    """

    def read_mirrored(window: Window) -> tuple[np.ndarray, np.ndarray]:
        inside = window.clipped(grid.height, grid.width)
        image, valid = read(inside)
        if inside == window:
            return image, valid
        moved = Window(window.row - inside.row, window.column - inside.column, *_size(window))
        return cut(image, moved), cut(valid, moved)

    results = predict_windows(grid.windows(), read_mirrored, predict, batch_size)
    for first, strip in blend(grid, results):
        _, valid = read(Window(first, 0, *strip.shape))
        yield first, np.where(valid, strip, np.float32(np.nan))


def predict_image(
    predict: Predict,
    image: np.ndarray,
    valid: np.ndarray | None = None,
    window: int = 512,
    overlap: int = 128,
    batch_size: int | None = None,
) -> np.ndarray:
    """Probabilities of an image in memory.

    Args:
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``, such as
            ``model.predict_on_batch``.
        image: ``(height, width, bands)`` raw pixels.
        valid: ``(height, width)`` bool, False where there is no imagery; None for all valid.
        window: side of a window in pixels, that of the training patches.
        overlap: pixels that neighbouring windows share.
        batch_size: windows predicted at once; None for ``batch_of`` the window.

    Returns:
        ``(height, width)`` float32 probabilities in 0..1; NaN where void.
    """
    batch_size = batch_of(window) if batch_size is None else batch_size
    if valid is None:
        valid = np.ones(image.shape[:2], bool)
    grid = WindowGrid(*image.shape[:2], window, overlap)
    strips = predict_strips(
        lambda part: (image[part.slices], valid[part.slices]), grid, predict, batch_size
    )
    return np.concatenate([strip for _, strip in strips])


def _size(window: Window) -> tuple[int, int]:
    return window.height, window.width
