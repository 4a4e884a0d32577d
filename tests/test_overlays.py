import cv2
import numpy as np
import pytest

from preprocessing.errors import OutputError
from preprocessing.pictures import COLOUR, TINT, VOID_GREY, overlay, write_png
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
