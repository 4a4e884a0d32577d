"""How windows lie over a raster, in which bands they are predicted, and how they are blended.

Windows have the size that the network was trained on, because its group statistics span the
window. They lie on a grid that begins half an overlap before the raster, where the image is
mirrored; so border pixels have surroundings on all sides and the same weight as others.

A band is some consecutive rows of windows, predicted in one go, here or on another machine, now or
after an interruption. Where neighbouring bands share rows of pixels, each keeps sums and weights,
which are added when the bands are joined: the result does not depend on who predicted which.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np

from preprocessing.tiling import Window, cut, fill_void, starts

BAND_ROWS = 8
"""Rows of windows in a band, or more where windows overlap by most of their side."""


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


class Strip(NamedTuple):
    """Consecutive rows of one band.

    Attributes:
        first: row of the raster.
        values: ``(rows, width)`` float32: where ``weights`` is None probabilities, else their
            weighted sums over this band's windows; NaN where the image is void.
        weights: ``(rows, width)`` float32, sums of the weights; None where no other band has a
            part in these rows.
    """

    first: int
    values: np.ndarray
    weights: np.ndarray | None


class Band(NamedTuple):
    """Some consecutive rows of windows.

    Attributes:
        number: of the band, from 0.
        tops: first pixel row of each row of windows.
        first: first row of the raster that the windows show.
        own: first row that the band before shows nothing of.
        shared: first row that the next band shows too.
        last: behind the last row of the raster that the windows show.
    """

    number: int
    tops: tuple[int, ...]
    first: int
    own: int
    shared: int
    last: int

    def strips(self) -> list[tuple[int, int, bool]]:
        """First row, end and whether another band has a part in it, of the band's strips."""
        marks = {self.first, self.own, self.shared, self.last, *self.tops}
        rows = sorted(row for row in marks if self.first <= row <= self.last)
        return [(row, end, row < self.own or row >= self.shared) for row, end in pairwise(rows)]


def bands_of(grid: WindowGrid) -> list[Band]:
    """The bands of a raster, from top to bottom; only neighbours share rows."""
    tops = grid.starts(grid.height)
    stride = grid.window - grid.overlap
    rows = max(BAND_ROWS, -(-grid.window // stride) + 1)
    # The last band has what is left over as well: its last row of windows may lie closer.
    firsts = list(range(0, max(len(tops) - rows + 1, 1), rows))
    bands = []
    for number, (first, end) in enumerate(zip(firsts, [*firsts[1:], len(tops)], strict=True)):
        before = tops[first - 1] + grid.window if first else 0
        after = tops[end] if end < len(tops) else grid.height
        last = min(tops[end - 1] + grid.window, grid.height)
        bands.append(Band(number, tuple(tops[first:end]), max(tops[first], 0), before, after, last))
    return bands


def blend(
    grid: WindowGrid,
    band: Band,
    results: Iterable[tuple[Window, np.ndarray | None, np.ndarray]],
) -> Iterator[Strip]:
    """Weighted mean of the overlapping windows of a band, strip by strip.

    Only one row of windows is held in memory.

    Args:
        grid: the grid the windows come from.
        band: one of its bands.
        results: the band's windows row by row, each with its probabilities, or None where all is
            void, and its validity.

    Yields:
        The strips of ``band.strips``.
    """
    weights = grid.weights()
    columns = grid.starts(grid.width)
    left, span = columns[0], columns[-1] + grid.window - columns[0]
    total = np.zeros((2, grid.window, span), np.float32)
    imagery = np.zeros((grid.window, span), bool)
    remaining, strips = iter(results), iter(band.strips())
    top, strip = band.tops[0], next(strips)
    for following in (*band.tops[1:], band.last):
        for _ in columns:
            window, probabilities, valid = next(remaining)
            part = slice(window.column - left, window.column - left + grid.window)
            imagery[:, part] = valid
            if probabilities is not None:
                total[0, :, part] += weights * probabilities
                total[1, :, part] += weights
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


def join(bands: Iterable[Iterable[Strip]]) -> Iterator[tuple[int, np.ndarray]]:
    """Put the strips of all bands together; what two bands share is held in memory.

    Args:
        bands: the strips of each band, from the first band to the last.

    Yields:
        First row and ``(rows, width)`` float32 probabilities of consecutive strips that together
        are the raster; NaN where there is no imagery.
    """
    before: Strip | None = None
    for strips in bands:
        after = []
        for strip in strips:
            if strip.weights is None:
                yield strip.first, strip.values
            elif before is not None and strip.first < before.first + len(before.values):
                yield strip.first, _sum_of(before, strip)
            else:
                after.append(strip)
        before = _stacked(after) if after else None


def _sum_of(before: Strip, strip: Strip) -> np.ndarray:
    """Probabilities of a strip of which the band before has a part."""
    first = strip.first - before.first
    rows = slice(first, first + len(strip.values))
    return _mean(before.values[rows] + strip.values, before.weights[rows] + strip.weights)


def _stacked(strips: list[Strip]) -> Strip:
    return Strip(
        strips[0].first,
        np.concatenate([strip.values for strip in strips]),
        np.concatenate([strip.weights for strip in strips]),
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.divide(values, weights, out=np.full_like(values, np.nan), where=weights > 0)


SYMMETRIES = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))


def turned(batch: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """Windows mirrored (left to right), then turned by quarters, anticlockwise.

    Args:
        batch: ``(batch, size, size, channels)``, any dtype.
        turns: quarter turns.
        mirrored: whether to mirror.

    Returns:
        An array of the same shape and dtype.
    """
    return np.rot90(batch[:, :, ::-1] if mirrored else batch, turns, axes=(1, 2))


def turned_back(batch: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """The inverse of ``turned``."""
    back = np.rot90(batch, -turns, axes=(1, 2))
    return back[:, :, ::-1] if mirrored else back


def mean_over_symmetries(
    predict: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that gives the mean of ``predict`` over the eight symmetries of its windows.

    Args:
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``; called
            eight times, with batches of one shape.

    Returns:
        A function of the same form; its probabilities are float32.
    """

    def mean(batch: np.ndarray) -> np.ndarray:
        total = np.zeros((*batch.shape[:3], 1), np.float32)
        for symmetry in SYMMETRIES:
            seen = np.ascontiguousarray(turned(batch, *symmetry))
            total += turned_back(np.asarray(predict(seen), np.float32), *symmetry)
        return total / len(SYMMETRIES)

    return mean


_END = object()


def ahead(items: Iterator, depth: int = 2) -> Iterator:
    """Yield the items of an iterator, of which so many more are made meanwhile.

    One thread takes the items, in order, and ends when they do, or when this generator is
    closed. What is raised while they are made is raised here, after the items before it.

    Args:
        items: is used from that thread alone.
        depth: items that may wait, 1 or more.
    """
    waiting: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(kind: object, value: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(None, item):
                    return
        except BaseException as error:  # noqa: BLE001 (raised again where the items are taken)
            put(error, None)
        else:
            put(_END, None)

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind is _END:
                return
            if isinstance(kind, BaseException):
                raise kind
            yield item
    finally:
        stopped.set()
        maker.join()


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
