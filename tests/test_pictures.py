"""Overlays, tiled pyramids, and a report's pictures of a scene."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.errors import OutputError
from preprocessing.image_operations import ERROR_COLOURS, FALSE, FOUND, MISSED
from preprocessing.pictures import (
    COLOUR,
    COVERAGE_WINDOW,
    MASK_COLOURS,
    NO_DATA,
    TILE,
    TINT,
    VOID_GREY,
    PyramidWriter,
    halve,
    jpeg,
    level_sizes,
    overlay,
    png,
    window_shares,
    write_png,
    write_scene_pictures,
)
from preprocessing.raster_writers import MaskWriter
from preprocessing.rasters import RasterReader
from preprocessing.tiling import Window
from tests.helpers import write_image


def draw(folder, image, mask, **options):
    """The overlay of arrays, by way of files."""
    with RasterReader(write_image(folder / "a.tif", image), band_count=image.shape[2]) as reader:
        with MaskWriter(folder / "m.tif", reader, overwrite=True) as file:
            file.write(Window(0, 0, *mask.shape), mask)
        return overlay(reader, folder / "m.tif", **options)


def test_image_outline_and_tint(tmp_path):
    image = np.full((6, 7, 3), (100, 50, 200), np.uint8)
    mask = np.zeros((6, 7), np.uint8)
    mask[1:4, 1:4] = 1
    picture = draw(tmp_path, image, mask)
    assert picture.shape == (6, 7, 3) and picture.dtype == np.uint8
    outline = mask.astype(bool)
    outline[2, 2] = False
    assert (picture[outline] == COLOUR).all()
    tinted = (1 - TINT) * np.array((100, 50, 200)) + TINT * np.array(COLOUR)
    np.testing.assert_allclose(picture[2, 2], tinted, atol=0.5)
    assert (picture[mask == 0] == (100, 50, 200)).all()


def test_a_target_at_the_border_is_outlined_there(tmp_path):
    picture = draw(tmp_path, np.zeros((5, 5, 3), np.uint8), np.ones((5, 5), np.uint8))
    assert (picture == COLOUR).all(axis=2).sum() == 16


def test_void_is_grey_and_outside_every_mean(tmp_path):
    image = np.full((4, 4, 3), 80, np.uint8)
    image[:, 1] = 255
    mask = np.zeros((4, 4), np.uint8)
    mask[:, 1] = 255
    mask[:2, :2] = 255
    picture = draw(tmp_path, image, mask, longest_side=2)
    assert (picture[0, 0] == VOID_GREY).all()
    assert (picture[1, 0] == 80).all() and (picture[:, 1] == 80).all()


@pytest.mark.parametrize(("height", "width"), [(7, 10), (10, 7), (1, 10), (10, 10), (3, 3)])
def test_shrunk_by_a_whole_number_nothing_dropped(tmp_path, height, width):
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    picture = draw(tmp_path, image, np.zeros((height, width), np.uint8), longest_side=4)
    factor = -(-max(height, width) // 4)
    assert picture.shape == (-(-height // factor), -(-width // factor), 3)
    for row, column in np.ndindex(picture.shape[:2]):
        cell = image[factor * row :, factor * column :][:factor, :factor]
        np.testing.assert_allclose(picture[row, column], cell.mean(axis=(0, 1)), atol=0.51)


def test_shrunk_target_where_half_is(tmp_path):
    mask = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], np.uint8)
    picture = draw(tmp_path, np.zeros((2, 4, 3), np.uint8), mask, longest_side=2)
    assert (picture[0] == [COLOUR, (0, 0, 0)]).all()


def test_strips_make_no_difference(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (50, 40, 3), np.uint8)
    mask = (image[..., 0] > 128).astype(np.uint8)
    at_once = draw(tmp_path, image, mask, longest_side=20)
    monkeypatch.setattr("preprocessing.pictures._STRIP_PIXELS", 200)
    np.testing.assert_array_equal(draw(tmp_path, image, mask, longest_side=20), at_once)


@pytest.mark.parametrize(("bands", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (4, [0, 1, 2])])
def test_bands_shown(tmp_path, bands, shown):
    image = np.full((3, 3, bands), np.arange(10, 10 + bands), np.uint8)
    picture = draw(tmp_path, image, np.zeros((3, 3), np.uint8))
    assert (picture - 10 == shown).all()


def test_other_depths_are_stretched(tmp_path):
    image = np.linspace(500, 3000, 300).reshape(10, 10, 3).astype(np.uint16)
    picture = draw(tmp_path, image, np.zeros((10, 10), np.uint8))
    assert picture.min() == 0 and picture.max() == 255 and 120 < picture.mean() < 135


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_all_void(tmp_path, dtype):
    picture = draw(tmp_path, np.zeros((4, 4, 3), dtype), np.full((4, 4), 255, np.uint8))
    assert (picture == VOID_GREY).all()


def test_not_a_number_under_void_goes_nowhere(tmp_path):
    image = np.full((4, 4, 3), np.nan, np.float32)
    image[:, 2:] = np.arange(24).reshape(4, 2, 3)
    mask = np.zeros((4, 4), np.uint8)
    mask[:, :2] = 255
    picture = draw(tmp_path, image, mask, longest_side=4)
    assert (picture[:, :2] == VOID_GREY).all() and picture[:, 2:].max() == 255


def test_png_is_red_green_blue(tmp_path):
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0] = 10, 20, 30
    write_png(picture, tmp_path / "a.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[0, 0], (30, 20, 10))
    with pytest.raises(OutputError, match="--overwrite"):
        write_png(picture, tmp_path / "a.png")


RANDOM = np.random.default_rng(0)


def write_pyramid(
    folder: Path, pixels: np.ndarray, rows: int, tile: int, encode=png
) -> PyramidWriter:
    writer = PyramidWriter(folder, *pixels.shape[:2], encode, ".png", tile)
    for row in range(0, len(pixels), rows):
        writer.write(pixels[row : row + rows])
    return writer


def read_rgba(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def stitched(folder: Path, level: int, height: int, width: int, tile: int) -> np.ndarray:
    whole = np.zeros((height, width, 4), np.uint8)
    for path in (folder / str(level)).iterdir():
        column, row = (int(number) * tile for number in path.stem.split("_"))
        part = read_rgba(path)
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
    writer = write_pyramid(folder, pixels, rows, tile=8)
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
    red, green, blue, alpha = read_rgba(tmp_path / "a.png")[0, 0].tolist()
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


TRUTH = np.array([[0, 0, 1, 1, 255, 1]], np.uint8)
FOUND_MASK = np.array([[0, 1, 0, 1, 1, 255]], np.uint8)


def strips_of(image, truth, prediction):
    for row in range(0, len(truth), TILE):
        rows = slice(row, row + TILE)
        yield (None if image is None else image[rows]), truth[rows], prediction[rows]


def test_tiles_show_each_pixel_as_what_it_is(tmp_path):
    write_scene_pictures(tmp_path, 1, 6, strips_of(None, TRUTH, FOUND_MASK))
    clear = (0, 0, 0, 0)
    solid = [(*ERROR_COLOURS[value], 255) for value in (FALSE, MISSED, FOUND, 255)]
    errors = read_rgba(tmp_path / "errors" / "0" / "0_0.png")[0]
    expected = [clear, *solid, solid[-1]]
    assert [tuple(pixel) for pixel in errors.tolist()] == expected
    truth = read_rgba(tmp_path / "truth" / "0" / "0_0.png")[0]
    assert tuple(truth[2]) == (*MASK_COLOURS["truth"][1], 255)
    assert tuple(truth[0]) == clear and tuple(truth[4]) == (*NO_DATA, 255)


def test_all_four_pictures_of_a_scene_have_the_same_levels(tmp_path):
    random = np.random.default_rng(0)
    shape = (TILE + 40, 2 * TILE + 1)
    truth, prediction = random.integers(0, 2, (2, *shape), np.uint8)
    image = random.integers(0, 256, (*shape, 3), np.uint8)
    pictures = write_scene_pictures(tmp_path, *shape, strips_of(image, truth, prediction))
    assert pictures.imagery and pictures.levels == 3
    names = {
        name: sorted(str(p.relative_to(tmp_path / name).with_suffix("")) for p in files)
        for name in ("image", "truth", "prediction", "errors")
        for files in [(tmp_path / name).rglob("*_*")]
    }
    assert len(names["image"]) == 6 + 2 + 1
    assert names["image"] == names["truth"] == names["prediction"] == names["errors"]
    assert (tmp_path / "thumb.jpg").is_file() and (tmp_path / "sheet.jpg").is_file()
    found = np.vstack(
        [
            np.hstack([read_rgba(tmp_path / f"prediction/0/{c}_{r}.png")[..., 3] for c in range(3)])
            for r in range(2)
        ]
    )
    np.testing.assert_array_equal(found == 255, prediction == 1)


def test_coverage_is_of_the_valid_pixels_of_a_window():
    truth, prediction = np.zeros((2, 2, 8), np.uint8)
    truth[:, :2], truth[:, 4:] = 1, 255
    truth[0, 4], prediction[0] = 0, 1
    # Of the windows of 2 x 4 pixels, the second has one that is valid.
    np.testing.assert_array_equal(window_shares(truth, prediction, 4), [[0.5, 0.5], [0, 1]])


def test_void_alone_has_no_coverage_and_is_drawn_as_such(tmp_path):
    void = np.full((5, 7), 255, np.uint8)
    pictures = write_scene_pictures(tmp_path, 5, 7, strips_of(None, void, np.zeros_like(void)))
    assert pictures.coverage.shape == (0, 2) and not pictures.imagery
    errors = read_rgba(tmp_path / "errors" / "0" / "0_0.png")
    assert (errors == (*NO_DATA, 255)).all()


def test_empty_truth_and_prediction_are_transparent(tmp_path):
    nothing = np.zeros((COVERAGE_WINDOW + 1, 9), np.uint8)
    pictures = write_scene_pictures(tmp_path, *nothing.shape, strips_of(None, nothing, nothing))
    np.testing.assert_array_equal(pictures.coverage, np.zeros((2, 2)))
    assert not read_rgba(tmp_path / "errors" / "0" / "0_0.png")[..., 3].any()
