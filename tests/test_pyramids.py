"""Tiled pyramids: sizes, what the tiles hold, and that strips of any height give the same."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.pictures import PyramidWriter, halve, jpeg, level_sizes, png

RANDOM = np.random.default_rng(0)


def write(folder: Path, pixels: np.ndarray, rows: int, tile: int, encode=png) -> PyramidWriter:
    writer = PyramidWriter(folder, *pixels.shape[:2], encode, ".png", tile)
    for row in range(0, len(pixels), rows):
        writer.write(pixels[row : row + rows])
    return writer


def read(path: Path) -> np.ndarray:
    order = cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), order)


def stitched(folder: Path, level: int, height: int, width: int, tile: int) -> np.ndarray:
    whole = np.zeros((height, width, 4), np.uint8)
    for path in (folder / str(level)).iterdir():
        column, row = (int(number) * tile for number in path.stem.split("_"))
        part = read(path)
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
    return whole


def test_levels_halve_until_one_tile_holds_all():
    assert level_sizes(5000, 5000) == [(5000, 5000), (2500, 2500), (1250, 1250), (625, 625)] + [
        (313, 313)
    ]
    assert level_sizes(512, 512) == [(512, 512)]
    assert level_sizes(1, 1) == [(1, 1)]
    assert level_sizes(3, 1025) == [(3, 1025), (2, 513), (1, 257)]


def test_a_pixel_of_the_next_level_is_the_mean_of_four():
    pixels = np.array([[0, 4, 10], [8, 0, 30], [100, 200, 7]], np.uint8)[..., None]
    # The last row and column are taken twice.
    np.testing.assert_array_equal(halve(pixels)[..., 0], [[3, 20], [150, 7]])
    np.testing.assert_array_equal(halve(np.full((1, 1, 4), 9, np.uint8)), np.full((1, 1, 4), 9))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 45))
def test_tiles_give_the_raster_again_whatever_the_strips(tmp_path_factory, height, width, rows):
    folder = tmp_path_factory.mktemp("pyramid")
    pixels = RANDOM.integers(0, 256, (height, width, 4), np.uint8)
    pixels[..., 3] = 255
    writer = write(folder, pixels, rows, tile=8)
    expected = pixels
    for level, size in enumerate(level_sizes(height, width, 8)):
        np.testing.assert_array_equal(stitched(folder, level, *size, 8), expected)
        last, expected = expected, halve(expected)
    np.testing.assert_array_equal(writer.smallest, last)
    assert max(writer.smallest.shape[:2]) <= 8


def test_colours_of_what_is_partly_there_are_not_darkened(tmp_path):
    """A quarter of a red pixel is red, a quarter opaque."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 200, 40, 0, 255
    (tmp_path / "a.png").write_bytes(png(halve(pixels)))
    red, green, blue, alpha = read(tmp_path / "a.png")[0, 0].tolist()
    assert alpha == 64
    assert abs(red - 200) <= 2 and abs(green - 40) <= 2 and blue == 0


def test_jpeg_keeps_the_order_of_the_colours(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 0] = 220
    (tmp_path / "a.jpg").write_bytes(jpeg(pixels))
    blue, green, red = cv2.imread(str(tmp_path / "a.jpg"))[8, 8].tolist()
    assert red > 200 and green < 20 and blue < 20


def test_strips_that_do_not_fit_are_refused(tmp_path):
    writer = PyramidWriter(tmp_path, 10, 6, png, ".png", 8)
    with pytest.raises(ValueError, match="6 wide and 10 high"):
        writer.write(np.zeros((4, 7, 4), np.uint8))
    writer = PyramidWriter(tmp_path, 10, 6, png, ".png", 8)
    writer.write(np.zeros((8, 6, 4), np.uint8))
    assert writer.smallest is None
    with pytest.raises(ValueError, match="after 8 rows"):
        writer.write(np.zeros((3, 6, 4), np.uint8))
