"""Sliding-window prediction: overlapping windows, blended, in flat memory.

How windows lie and are blended is in ``window_bands``; here they are read and predicted.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np

from jointnet.ahead import ahead
from jointnet.window_bands import Band, Strip, WindowGrid, bands_of, blend, join
from preprocessing.tiling import Window, cut, fill_void

Read = Callable[[Window], tuple[np.ndarray, np.ndarray]]
Predict = Callable[[np.ndarray], np.ndarray]


def batch_of(window: int) -> int:
    """Windows of so many pixels a side to predict at once.

    As many pixels as one window of 512: more is no faster on a CPU, and holds more memory (5 GB
    for four such windows at full width, 2 GB for one); and 16 at most, as the last batch is
    filled up.
    """
    return max(1, min(512**2 // window**2, 16))


def predict_windows(
    windows: Iterable[Window], read: Read, predict: Predict, batch_size: int
) -> Iterator[tuple[Window, np.ndarray | None, np.ndarray]]:
    """Probabilities of each window, in order; the next batch is read while one is predicted.

    The batch always has ``batch_size`` windows (the last is filled up), so that a network is
    compiled once and a pixel's value does not depend on where its window stands in the list.
    Void pixels are fed as the mean of the window's valid ones (``tiling.fill_void``).

    Args:
        windows: square windows of one size.
        read: image ``(height, width, bands)`` and validity ``(height, width)`` bool of a window,
            which may reach outside the raster. Called from one other thread.
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``.
        batch_size: windows predicted at once.

    Yields:
        The window, its ``(size, size)`` float32 probabilities, or None where all is void, and its
        validity ``(size, size)`` bool.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size}")

    def load() -> Iterator[tuple[list[tuple[Window, np.ndarray]], np.ndarray | None]]:
        loaded = ((window, *read(window)) for window in windows)
        while group := list(islice(loaded, batch_size)):
            images = [fill_void(image, valid) for _, image, valid in group if valid.any()]
            filled = images + images[-1:] * (batch_size - len(images))
            yield (
                [(window, valid) for window, _, valid in group],
                np.stack(filled) if images else None,
            )

    for group, images in ahead(load()):
        if images is not None:
            results = iter(np.asarray(predict(images), np.float32)[..., 0])
        for window, valid in group:
            yield window, next(results) if valid.any() else None, valid


def predict_strips(
    read: Read, grid: WindowGrid, predict: Predict, batch_size: int = 4
) -> Iterator[tuple[int, np.ndarray]]:
    """Probabilities of a raster as consecutive strips of rows; one row of windows in memory.

    Args:
        read: image and validity of a window inside the raster; called from one other thread.
        grid: windows over the raster.
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``.
        batch_size: windows predicted at once.

    Yields:
        First row and ``(rows, width)`` float32 probabilities; NaN where the image is void.
    """
    bands = bands_of(grid)
    return join(predict_band(read, grid, band, predict, batch_size) for band in bands)


def predict_band(
    read: Read, grid: WindowGrid, band: Band, predict: Predict, batch_size: int
) -> Iterator[Strip]:
    """Predict the windows of one band, whatever becomes of the others.

    Args:
        read: image and validity of a window inside the raster; called from one other thread.
        grid: windows over the raster.
        band: one of ``bands_of(grid)``.
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``.
        batch_size: windows predicted at once.

    Yields:
        The strips of ``band.strips``, for ``bands.join``.
    """

    def read_mirrored(window: Window) -> tuple[np.ndarray, np.ndarray]:
        inside = window.clipped(grid.height, grid.width)
        image, valid = read(inside)
        if inside == window:
            return image, valid
        moved = Window(window.row - inside.row, window.column - inside.column, *_size(window))
        return cut(image, moved), cut(valid, moved)

    columns = grid.starts(grid.width)
    windows = [
        Window(top, column, grid.window, grid.window) for top in band.tops for column in columns
    ]
    results = predict_windows(windows, read_mirrored, predict, batch_size)
    return blend(grid, band, results)


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
