"""The probabilities of a raster in a working file: written from the top, read by rows."""

from pathlib import Path

import numpy as np

from preprocessing.tiling import Window


class ProbabilitySpool:
    """Rows of float32 in a file without a format, four bytes a pixel.

    Features are complete in another order than rows are, and a long one needs rows of long ago:
    the file has them without the memory, and without the time that a GeoTIFF takes.

    Args:
        path: the file; it comes to be with the first rows.
        width: columns of the raster.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width

    def write(self, rows: np.ndarray) -> None:
        """Append rows, ``(n, width)`` float32.

        Raises:
            OSError: disk full.
        """
        with open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(rows, np.float32).data)

    def read(self, window: Window) -> np.ndarray:
        """A window of rows that were written, float64 ``(height, width)``.

        Raises:
            OSError: the file is gone, or ends before the window does.
        """
        offset = window.row * self.width * np.dtype(np.float32).itemsize
        count = window.height * self.width
        values = np.fromfile(self.path, np.float32, count, offset=offset)
        if len(values) < count:
            raise OSError(f"{self.path} ends before row {window.row + window.height}")
        columns = slice(window.column, window.column + window.width)
        return values.reshape(window.height, self.width)[:, columns].astype(np.float64)
