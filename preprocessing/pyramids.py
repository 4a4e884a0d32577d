"""Tiled pyramids: a raster at every power of two, as plain image files that a page can load.

Level 0 is the raster itself, each further level half as large, until one tile holds all of it. A
pixel of a level is the mean of the four it stands for, of an odd last row or column of the two or
one. Memory holds about two rows of tiles, whatever the raster's height.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

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
