"""White areas: which are missing imagery, and that windows agree on it."""

import numpy as np
import pytest

from jointnet.raster_prediction import predict_raster
from preprocessing.errors import RasterError
from preprocessing.rasters import RasterReader, read_label
from preprocessing.resampling import SIDE, WhiteIsVoid, white_areas
from preprocessing.tiling import Window
from tests.helpers import blotches, stand_in_run, write_image


def dark(height, width):
    return np.minimum(blotches(height, width), 250)


def test_large_areas_are_void_and_small_ones_are_not():
    image = dark(100, 200)
    image[10 : 10 + SIDE, 20 : 20 + SIDE] = 255
    image[60 : 60 + SIDE - 1, 100:180] = 255
    expected = np.zeros((100, 200), bool)
    expected[10 : 10 + SIDE, 20 : 20 + SIDE] = True
    np.testing.assert_array_equal(white_areas(image), expected)


def test_a_strip_along_the_border_is_void():
    image = dark(100, 90)
    image[:, -3:] = 255
    image[50, 40] = 255
    expected = np.zeros((100, 90), bool)
    expected[:, -3:] = True
    np.testing.assert_array_equal(white_areas(image), expected)


def test_one_band_that_is_not_white_is_imagery():
    image = np.full((80, 80, 3), 255, np.uint8)
    image[..., 2] = 254
    assert not white_areas(image).any()
    image[..., 2] = 255
    assert white_areas(image).all()


def test_windows_agree(tmp_path):
    image = dark(150, 170)
    image[:70, 90:] = 255
    image[40:90, 20:60] = 255
    path = write_image(tmp_path / "a.tif", image)
    whole = white_areas(image)
    with WhiteIsVoid(RasterReader(path)) as reader:
        for row in range(0, 150, 24):
            for column in range(0, 170, 37):
                window = Window(row, column, 24, 37).clipped(150, 170)
                pixels, valid = reader.read(window)
                np.testing.assert_array_equal(pixels, image[window.slices])
                np.testing.assert_array_equal(valid, ~whole[window.slices])


def test_no_value_of_other_depths_is_white_for_certain(tmp_path):
    path = write_image(tmp_path / "a.tif", dark(40, 40).astype(np.uint16))
    with pytest.raises(RasterError, match="white is known of uint8 only"):
        WhiteIsVoid(RasterReader(path))


@pytest.mark.parametrize("gsd", [None, 0.15])
def test_nothing_is_found_in_white(tmp_path, gsd):
    image = dark(120, 130)
    image[:, 60:] = 255
    path = write_image(tmp_path / "a.tif", image)
    plain = predict_raster(stand_in_run(), path, tmp_path / "1", gsd=gsd)
    assert (read_label(plain.outputs[0])[:, 64:] == 1).all()
    done = predict_raster(stand_in_run(), path, tmp_path / "2", gsd=gsd, void_white=True)
    mask = read_label(done.outputs[0])
    np.testing.assert_array_equal(mask == 255, np.arange(130)[None].repeat(120, 0) >= 60)
    assert (mask == 1).any()
