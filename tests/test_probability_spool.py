import numpy as np
import pytest

from jointnet.raster_prediction import ProbabilitySpool
from preprocessing.tiling import Window


def test_what_is_written_in_strips_is_read_in_windows(tmp_path):
    values = np.random.default_rng(0).random((23, 7)).astype(np.float32)
    values[3, 2:] = np.nan
    spool = ProbabilitySpool(tmp_path / "p", 7)
    for first in range(0, 23, 5):
        spool.write(values[first : first + 5])
    assert spool.path.stat().st_size == values.nbytes
    for window in (Window(0, 0, 23, 7), Window(4, 0, 9, 7), Window(22, 3, 1, 2)):
        read = spool.read(window)
        assert read.dtype == np.float64
        np.testing.assert_array_equal(read, values[window.slices])


def test_rows_that_are_not_there_are_an_error(tmp_path):
    spool = ProbabilitySpool(tmp_path / "p", 7)
    spool.write(np.zeros((3, 7), np.float32))
    with pytest.raises(OSError, match="ends before row 5"):
        spool.read(Window(2, 0, 3, 7))
