"""Masks of any origin: what is thresholded, what is read as a label, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from preprocessing.errors import LabelError
from preprocessing.raster_access import gdal_quiet
from preprocessing.rasters import GreyMaskReader, read_label
from preprocessing.tiling import Window


def write(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """Write ``(height, width)`` or ``(height, width, bands)``, of a driver by its suffix."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, count = pixels.shape
    driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    profile |= {"driver": driver, "height": height, "width": width, "count": count}
    with gdal_quiet(), rasterio.open(path, "w", dtype=pixels.dtype, **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    return path


def read(path: Path) -> tuple[np.ndarray, str | None]:
    with GreyMaskReader(path) as reader:
        mask = reader.read(Window(0, 0, reader.height, reader.width))
        reader.check_whole()
        return mask, reader.note


MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


@pytest.mark.parametrize("target", [1, 255])
def test_a_label_is_read_as_a_label(tmp_path, target):
    path = write(tmp_path / "a.png", MASK * np.uint8(target))
    mask, note = read(path)
    np.testing.assert_array_equal(mask, read_label(path))
    np.testing.assert_array_equal(mask, MASK)
    assert note is None


def test_greys_are_target_from_128_on(tmp_path):
    greys = np.array([[0, 127, 128], [3, 250, 255]], np.uint8)
    mask, note = read(write(tmp_path / "a.png", greys))
    assert mask.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert note == "thresholded at 128 (grey values such as 3, 127, 128)"


def test_a_jpeg_is_the_mask_it_was_made_of(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 20:50] = 1
    path = write(tmp_path / "a.jpg", mask * np.uint8(255), quality=75)
    with pytest.raises(LabelError, match="JPEG alters values"):
        read_label(path)
    found, note = read(path)
    np.testing.assert_array_equal(found, mask)
    assert "thresholded at 128" in note


def test_a_one_in_a_jpeg_is_noise(tmp_path):
    path = write(tmp_path / "a.jpg", np.ones((16, 16), np.uint8), quality=100)
    assert not read(path)[0].any()


def test_grey_in_three_bands(tmp_path):
    greys = np.repeat(np.array([[0, 90, 200]], np.uint8)[..., None], 3, axis=2)
    assert read(write(tmp_path / "a.png", greys))[0].tolist() == [[0, 0, 1]]


def test_values_that_are_void_do_not_decide(tmp_path):
    pixels = np.array([[0, 1, 255]], np.uint8)
    mask, note = read(write(tmp_path / "a.tif", pixels, nodata=255))
    assert mask.tolist() == [[0, 1, 255]]
    assert note is None
    mask, note = read(write(tmp_path / "b.tif", np.array([[0, 77, 255]], np.uint8), nodata=77))
    assert mask.tolist() == [[0, 255, 1]]
    assert note is None


@pytest.mark.parametrize(
    ("values", "words"),
    [([0, 1, 2, 5], "greatest value is 5"), ([0, 1, 255], "if 255 is void")],
)
def test_classes_and_doubtful_void_are_refused(tmp_path, values, words):
    with pytest.raises(LabelError, match=words):
        read(write(tmp_path / "a.png", np.array([values], np.uint8)))


def test_deeper_greys_are_refused_as_of_a_label(tmp_path):
    with pytest.raises(LabelError, match="300"):
        read(write(tmp_path / "a.tif", np.array([[0, 300]], np.uint16)))


@pytest.mark.parametrize("value", [0, 255])
def test_all_of_one_kind(tmp_path, value):
    assert (
        read(write(tmp_path / "a.png", np.full((3, 4), value, np.uint8)))[0] == value / 255
    ).all()
