"""Lay windows over a raster, predict them, and blend them.

Windows have the size that the network was trained on, as its group statistics span the window.
The grid begins half an overlap before the raster, where the image is mirrored, so pixels at the
border have surroundings on all sides and weigh as much as others.

A swath is a few consecutive rows of windows, predicted by one process. Neighbouring swaths share
rows of pixels: there each keeps weighted sums and weights, which are added when the swaths are
joined, so the result does not depend on which process predicted which swath.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from preprocessing.image_operations import symmetry
from preprocessing.tiling import Window, cut, fill_void, starts

SWATH_ROWS = 8
"""Rows of windows in a swath; more where windows overlap by most of their side."""

Read = Callable[[Window], tuple[np.ndarray, np.ndarray]]
"""Image ``(height, width, bands)`` and validity ``(height, width)`` bool of a window."""
Predict = Callable[[np.ndarray], np.ndarray]
"""``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)`` probabilities."""


@dataclass(frozen=True)
class WindowGrid:
    """The windows over a raster of ``height`` x ``width`` pixels, and how they are blended.

    ``window`` is their side and ``overlap`` what neighbours share, in pixels. The outer quarter of
    the overlap, where a network sees least context, is discarded; over the rest the weights ramp
    so that those of two neighbours add up to 1.

    Raises:
        ValueError: the overlap is negative or not less than the window.
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
        """Return the first pixels of the windows along an axis of ``length`` pixels."""
        margin = self.overlap // 2
        stride = self.window - self.overlap
        return [start - margin for start in starts(length + 2 * margin, self.window, stride)]

    def windows(self, tops: Iterable[int] | None = None) -> list[Window]:
        """Return the windows row by row; those at the border reach outside the raster.

        ``tops`` are the first pixel rows of the rows of windows wanted; None for all.
        """
        return [
            Window(row, column, self.window, self.window)
            for row in (self.starts(self.height) if tops is None else tops)
            for column in self.starts(self.width)
        ]

    def weights(self) -> np.ndarray:
        """Return the weight of each pixel of a window, ``(window, window)`` float32 in 0..1."""
        position = np.arange(self.window)
        inside = np.minimum(position, self.window - 1 - position) + 0.5
        discarded = self.overlap // 4
        ramp = max(self.overlap - 2 * discarded, 1)
        along = np.clip((inside - discarded) / ramp, 0, 1) if self.overlap else np.ones(self.window)
        return (along[:, None] * along[None, :]).astype(np.float32)


class Strip(NamedTuple):
    """Consecutive rows of one swath, from row ``first`` of the raster.

    ``weights`` are sums, ``(rows, width)`` float32; None where no other swath shows these rows.
    ``values`` are ``(rows, width)`` float32, NaN where void: probabilities without weights, else
    weighted sums of them.
    """

    first: int
    values: np.ndarray
    weights: np.ndarray | None


class Swath(NamedTuple):
    """A few consecutive rows of windows, which begin at the pixel rows ``tops``.

    They show the rows ``first`` to ``last`` (exclusive) of the raster: up to ``own`` the swath
    before shows them too, from ``shared`` on the next one. ``number`` counts from 0.
    """

    number: int
    tops: tuple[int, ...]
    first: int
    own: int
    shared: int
    last: int

    def strips(self) -> list[tuple[int, int, bool]]:
        """Return first row and end of each strip, and whether another swath shows it too."""
        marks = {self.first, self.own, self.shared, self.last, *self.tops}
        rows = sorted(row for row in marks if self.first <= row <= self.last)
        return [(row, end, row < self.own or row >= self.shared) for row, end in pairwise(rows)]


def swaths_of(grid: WindowGrid) -> list[Swath]:
    """Return the swaths of a raster, from top to bottom; only neighbours share rows."""
    tops = grid.starts(grid.height)
    stride = grid.window - grid.overlap
    rows = max(SWATH_ROWS, -(-grid.window // stride) + 1)
    # The last swath takes the remainder too: its last row of windows may lie closer.
    firsts = list(range(0, max(len(tops) - rows + 1, 1), rows))
    swaths = []
    for number, (first, end) in enumerate(zip(firsts, [*firsts[1:], len(tops)], strict=True)):
        own = tops[first - 1] + grid.window if first else 0
        shared = tops[end] if end < len(tops) else grid.height
        last = min(tops[end - 1] + grid.window, grid.height)
        swaths.append(Swath(number, tuple(tops[first:end]), max(tops[first], 0), own, shared, last))
    return swaths


def blend(
    grid: WindowGrid,
    swath: Swath,
    results: Iterable[tuple[Window, np.ndarray | None, np.ndarray]],
) -> Iterator[Strip]:
    """Yield the strips of a swath: windows averaged by weight, with one row of them in memory.

    ``results`` are the swath's windows row by row, as ``predict_windows`` yields them.
    """
    weights = grid.weights()
    columns = grid.starts(grid.width)
    left, span = columns[0], columns[-1] + grid.window - columns[0]
    total = np.zeros((2, grid.window, span), np.float32)
    imagery = np.zeros((grid.window, span), bool)
    remaining, strips = iter(results), iter(swath.strips())
    top, strip = swath.tops[0], next(strips)
    for following in (*swath.tops[1:], swath.last):
        for _ in columns:
            window, probabilities, valid = next(remaining)
            covered = slice(window.column - left, window.column - left + grid.window)
            imagery[:, covered] = valid
            if probabilities is not None:
                total[0, :, covered] += weights * probabilities
                total[1, :, covered] += weights
        while strip is not None and strip[1] <= following:
            first, end, edge = strip
            rows, inside = slice(first - top, end - top), slice(-left, -left + grid.width)
            values, weight = total[0, rows, inside].copy(), total[1, rows, inside].copy()
            values[~imagery[rows, inside]] = np.nan
            yield (
                Strip(first, values, weight) if edge else Strip(first, _mean(values, weight), None)
            )
            strip = next(strips, None)
        moved = following - top
        for array in (total, imagery[None]):
            array[:, : grid.window - moved] = array[:, moved:].copy()
            array[:, grid.window - moved :] = 0
        top = following


def join(swaths: Iterable[Iterable[Strip]]) -> Iterator[tuple[int, np.ndarray]]:
    """Join the strips of all swaths, given from top to bottom; only shared rows are held in memory.

    Yields first row and ``(rows, width)`` float32 probabilities, NaN where void, of consecutive
    strips that together make up the raster.
    """
    before: Strip | None = None
    for strips in swaths:
        after = []
        for strip in strips:
            if strip.weights is None:
                yield strip.first, strip.values
            elif before is not None and strip.first < before.first + len(before.values):
                first = strip.first - before.first
                rows = slice(first, first + len(strip.values))
                values = before.values[rows] + strip.values
                yield strip.first, _mean(values, before.weights[rows] + strip.weights)
            else:
                after.append(strip)
        before = None
        if after:
            arrays = zip(*(strip[1:] for strip in after), strict=True)
            before = Strip(after[0].first, *map(np.concatenate, arrays))


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.divide(values, weights, out=np.full_like(values, np.nan), where=weights > 0)


# The order is part of the result: another one changes the last bits of the mean.
_SYMMETRIES = (0, 1, 2, 3, 4, 7, 6, 5)


def flipped(batch: np.ndarray, k: int, back: bool = False) -> np.ndarray:
    """Return a view of windows flipped or rotated by ``image_operations.symmetry``, or undo it.

    The batch is ``(batch, size, size, channels)`` of any dtype, k 0 to 7; ``back`` inverts.
    """
    # Mirror images (4 to 7) are their own inverse.
    k = -k % 4 if back and k < 4 else k
    return np.moveaxis(symmetry(np.moveaxis(batch, 0, -1), k), -1, 0)


def mean_over_symmetries(predict: Predict) -> Predict:
    """Return a function that averages ``predict``, in float32, over the windows' 8 symmetries."""

    def mean(batch: np.ndarray) -> np.ndarray:
        total = np.zeros((*batch.shape[:3], 1), np.float32)
        for k in _SYMMETRIES:
            seen = np.ascontiguousarray(flipped(batch, k))
            total += flipped(np.asarray(predict(seen), np.float32), k, back=True)
        return total / len(_SYMMETRIES)

    return mean


_END = object()


def ahead(items: Iterator, depth: int = 2) -> Iterator:
    """Yield the items of an iterator while one thread makes the next ``depth`` of them.

    An error in the iterator is raised after the items before it. Closing the generator ends the
    thread.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, _END) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, items, _END))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)


def batch_of(window: int) -> int:
    """Return how many windows of so many pixels a side to predict at once.

    Together they have the pixels of one window of 512: more is no faster on a CPU and takes more
    memory (four such windows 5 GB, one 2). At most 16, as the last batch is filled up.
    """
    return max(1, min(512**2 // window**2, 16))


def predict_windows(
    windows: Iterable[Window], read: Read, predict: Predict, batch_size: int
) -> Iterator[tuple[Window, np.ndarray | None, np.ndarray]]:
    """Predict windows in order, reading the next batch while one is predicted.

    Every batch has ``batch_size`` windows (the last is filled up), so a network is compiled once
    and a pixel's value does not depend on the window's place in the list. Void pixels are fed as
    the mean of the window's valid ones (``tiling.fill_void``). ``read``, called from one other
    thread, must take windows that reach outside the raster.

    Yields:
        The window (all are squares of one size), its ``(size, size)`` float32 probabilities, or
        None where all is void, and its validity ``(size, size)`` bool.

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


def predict_swath(
    read: Read, grid: WindowGrid, swath: Swath, predict: Predict, batch_size: int
) -> Iterator[Strip]:
    """Predict one swath of the grid, and yield its strips for ``join``.

    ``read`` gets windows inside the raster only; it is called from one other thread.
    """

    def read_mirrored(window: Window) -> tuple[np.ndarray, np.ndarray]:
        inside = window.clipped(grid.height, grid.width)
        image, valid = read(inside)
        if inside == window:
            return image, valid
        row, column = window.row - inside.row, window.column - inside.column
        moved = Window(row, column, window.height, window.width)
        return cut(image, moved), cut(valid, moved)

    windows = grid.windows(swath.tops)
    return blend(grid, swath, predict_windows(windows, read_mirrored, predict, batch_size))


def predict_image(
    predict: Predict,
    image: np.ndarray,
    valid: np.ndarray | None = None,
    window: int = 512,
    overlap: int = 128,
    batch_size: int | None = None,
) -> np.ndarray:
    """Predict an image in memory.

    Args:
        predict: the network, such as ``model.predict_on_batch``.
        image: ``(height, width, bands)`` raw pixels.
        valid: ``(height, width)`` bool, False where void; None for all valid.
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

    def read(where: Window) -> tuple[np.ndarray, np.ndarray]:
        return image[where.slices], valid[where.slices]

    swaths = (predict_swath(read, grid, swath, predict, batch_size) for swath in swaths_of(grid))
    return np.concatenate([strip for _, strip in join(swaths)])
