"""Rasters seen otherwise: at another resolution, on another grid, and with white areas as void."""

import itertools
import tracemalloc

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import calculate_default_transform

from jointnet.raster_prediction import predict_raster
from preprocessing.errors import RasterError
from preprocessing.raster_access import raster_info
from preprocessing.rasters import ProbabilityReader, RasterReader, read_label
from preprocessing.resampling import (
    SIDE,
    ResampledReader,
    WhiteIsVoid,
    aligned,
    resampled_strips,
    size_at,
    white_areas,
)
from preprocessing.tiling import Window
from tests.helpers import blotches, stand_in_run, write_image
from tests.mask_files import write, write_probabilities


def resampled(tmp_path, image, size, **profile):
    path = write_image(tmp_path / "a.tif", image, **profile)
    with ResampledReader(RasterReader(path, band_count=image.shape[2]), *size) as reader:
        return reader.read(Window(0, 0, *size))


def test_sizes_by_hand():
    assert size_at(1000, 600, (0.15, 0.15), 0.3) == (500, 300)
    assert size_at(10, 7, (0.6, 0.6), 0.3) == (20, 14)
    assert size_at(10, 7, (0.6, 0.15), 0.3) == (20, 4)
    assert size_at(3, 1, (0.01, 0.01), 0.3) == (1, 1)


class Held:
    """An array as a reader has it."""

    def __init__(self, image, valid=None):
        self.image, (self.height, self.width) = image, image.shape[:2]
        self.valid = np.ones(image.shape[:2], bool) if valid is None else valid

    def read(self, window):
        assert window.clipped(self.height, self.width) == window
        return self.image[window.slices], self.valid[window.slices]


def at_size(values, size):
    """Values of one band at another size, read as a whole."""
    image, valid = ResampledReader(Held(np.float32(values)[..., None]), *size).read(
        Window(0, 0, *size)
    )
    assert valid.all()
    return image[..., 0]


def test_pixels_by_hand():
    np.testing.assert_allclose(at_size([[3, 6, 9]], (1, 2)), [[4, 8]])
    # Twice as many: centres lie at -1/4 (held at 0), 1/4, 3/4 and 5/4 (held at 1).
    np.testing.assert_allclose(at_size([[0], [1]], (4, 1)), [[0], [0.25], [0.75], [1]])
    np.testing.assert_array_equal(at_size(np.eye(9), (9, 9)), np.eye(9))
    np.testing.assert_allclose(at_size(np.arange(8).reshape(4, 2), (2, 1)), [[1.5], [5.5]])


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 60), st.integers(1, 9), st.data())
def test_a_window_is_made_as_in_the_whole(height, width, new_height, new_width, data):
    image = np.random.default_rng(height).random((height, width, 1)).astype(np.float32)
    valid = np.random.default_rng(width).random((height, width)) < 0.8
    reader = ResampledReader(Held(image, valid), new_height, new_width)
    row, column = (
        data.draw(st.integers(0, new_height - 1)),
        data.draw(st.integers(0, new_width - 1)),
    )
    sides = (
        data.draw(st.integers(1, new_height - row)),
        data.draw(st.integers(1, new_width - column)),
    )
    window = Window(row, column, *sides)
    found, imagery = reader.read(window)
    whole, everywhere = reader.read(Window(0, 0, new_height, new_width))
    np.testing.assert_allclose(found, whole[window.slices], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(imagery, everywhere[window.slices])


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_means_keep_the_mean(length, factor):
    """Where pixels become larger by a whole factor, every old pixel counts alike."""
    values = np.random.default_rng(factor).random((length * factor, 1))
    assert at_size(values, (length, 1)).mean() == pytest.approx(values.mean(), rel=1e-5)


def test_one_axis_up_and_the_other_down_is_smoother_than_each_axis_by_itself():
    """GDAL resamples both axes alike; doing one after the other would differ by so much."""
    image = blotches(60, 80).astype(np.float32)[..., :1].mean(axis=2)
    apart = at_size(at_size(image, (40, 80)), (40, 100))
    together = at_size(image, (40, 100))
    assert 0 < np.abs(together - apart).mean() < 2
    assert together.mean() == pytest.approx(apart.mean(), rel=0.01)


def test_larger_pixels_are_means(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[:2, :2, 0] = [[10, 20], [30, 40]]
    found, valid = resampled(tmp_path, image, (2, 3))
    np.testing.assert_array_equal(found[..., 0], [[25, 0, 0], [0, 0, 0]])
    assert valid.all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("size", [(2, 2), (7, 9)])
def test_what_is_plain_stays_in_every_depth(tmp_path, dtype, size):
    found, valid = resampled(tmp_path, np.full((4, 5, 3), 77, dtype), size)
    assert found.dtype == dtype
    assert (found == 77).all()
    assert valid.all()


def test_void_takes_no_part(tmp_path):
    image = np.full((4, 4, 3), 100, np.uint8)
    image[0, 0] = 0
    image[2:, 2:] = 0
    found, valid = resampled(tmp_path, image, (2, 2), nodata=0)
    np.testing.assert_array_equal(valid, [[True, True], [True, False]])
    assert (found[valid] == 100).all()


@pytest.mark.parametrize("size", [(50, 37), (61, 45), (230, 171)])
def test_windows_give_what_the_whole_gives(tmp_path, size):
    image = np.random.default_rng(0).integers(0, 256, (100, 75, 3)).astype(np.uint8)
    path = write_image(tmp_path / "a.tif", image)
    with ResampledReader(RasterReader(path), *size) as reader:
        whole, _ = reader.read(Window(0, 0, *size))
        for window in (Window(7, 5, 20, 30), Window(size[0] - 9, size[1] - 11, 9, 11)):
            part, _ = reader.read(window)
            difference = np.abs(part.astype(int) - whole[window.slices].astype(int))
            # A rounding at the most.
            assert difference.max() <= 1, window


def test_there_and_back_lies_where_it_lay(tmp_path):
    """A smooth image, halved and doubled again, is the same but for what is finer than a pixel."""
    rows, columns = np.mgrid[:60, :80]
    wave = 128 + 100 * np.sin(rows / 9) * np.cos(columns / 11)
    image = np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)
    half, _ = resampled(tmp_path, image, (30, 40))
    again, _ = resampled(tmp_path, half, (60, 80))
    inside = np.s_[4:-4, 4:-4]
    assert np.abs(again[inside].astype(int) - image[inside]).max() <= 3


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 40), st.integers(1, 12), st.data())
def test_strips_give_what_the_whole_gives(height, width, new_height, new_width, data):
    random = np.random.default_rng(height)
    whole = random.random((height, width)).astype(np.float32)
    whole[random.random(whole.shape) < 0.2] = np.nan
    cuts = sorted({0, height, *data.draw(st.lists(st.integers(0, height), max_size=5))})
    strips = [(a, whole[a:b]) for a, b in itertools.pairwise(cuts)]
    size, wanted = (height, width), (new_height, new_width)
    at_once = list(resampled_strips([(0, whole)], size, wanted, rows=1000))
    piecewise = list(resampled_strips(strips, size, wanted, rows=data.draw(st.integers(1, 9))))
    assert [first for first, _ in at_once] == [0]
    assert at_once[0][1].shape == wanted
    joined = np.concatenate([strip for _, strip in piecewise])
    np.testing.assert_allclose(joined, at_once[0][1], rtol=1e-5)
    if wanted == size:
        np.testing.assert_array_equal(joined, whole)


def test_memory_grows_with_the_width_and_not_with_its_square():
    peaks = []
    for width in (2000, 8000):
        strips = [(0, np.zeros((64, width // 2), np.float32))]
        tracemalloc.start()
        for _ in resampled_strips(strips, (64, width // 2), (128, width), rows=64):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 6 * peaks[0]


# Of write_image.
PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)
MASK = np.pad(np.ones((6, 7), np.uint8), ((4, 10), (5, 12)))


def grid(tmp_path, shape, transform, crs="EPSG:32633"):
    """What is to be aligned with."""
    path = tmp_path / "onto.tif"
    write_image(path, np.zeros((*shape, 1), np.uint8), transform=transform, crs=crs)
    return raster_info(path)


def read(path, info) -> np.ndarray:
    with aligned(path, info) as virtual:
        mask = read_label(virtual)
    assert not virtual.exists()
    return mask


def test_its_own_grid_changes_nothing(tmp_path):
    path = write_image(tmp_path / "a.tif", MASK[..., None] * 255)
    np.testing.assert_array_equal(read(path, raster_info(path)), MASK)


def test_a_moved_window_is_cut_out_and_what_lies_outside_is_void(tmp_path):
    path = write_image(tmp_path / "a.tif", MASK[..., None] * 255)
    info = grid(tmp_path, (22, 30), PLACE * Affine.translation(-2, 3))
    wanted = np.full((22, 30), 255, np.uint8)
    wanted[:17, 2:26] = MASK[3:]
    np.testing.assert_array_equal(read(path, info), wanted)


def test_void_stays_void_however_the_file_says_it(tmp_path):
    void = MASK.copy()
    void[5, 6] = void[0, 0] = 255
    marked = np.where(void == 255, 7, void).astype(np.uint8)
    files = [
        write(tmp_path / "mask.tif", void, PLACE),
        write_image(tmp_path / "nodata.tif", marked[..., None], nodata=7),
    ]
    opaque = np.where(void == 255, 0, 255).astype(np.uint8)
    for count in (1, 3):
        bands = np.stack([MASK * 255] * count + [opaque], axis=-1)
        files.append(write_image(tmp_path / f"alpha{count}.tif", bands, ALPHA="YES"))
    info = grid(tmp_path, (20, 30), PLACE)
    for path in files:
        found = read(path, info)
        np.testing.assert_array_equal(found[:, :24], void)
        assert (found[:, 24:] == 255).all()


def test_twice_the_resolution_repeats_pixels_and_mixes_none(tmp_path):
    path = write_image(tmp_path / "a.tif", MASK[..., None])
    info = grid(tmp_path, (40, 48), PLACE * Affine.scale(0.5))
    np.testing.assert_array_equal(read(path, info), np.kron(MASK, np.ones((2, 2), np.uint8)))


def test_another_crs_is_reprojected(tmp_path):
    path = write_image(tmp_path / "a.tif", MASK[..., None])
    other = CRS.from_epsg(32632)
    transform, width, height = calculate_default_transform(
        "EPSG:32633", other, 24, 20, 500_000, 5_000_000 - 6, 500_007.2, 5_000_000
    )
    info = grid(tmp_path, (height, width), transform, other)
    found = read(path, info)
    # The zones are turned against each other by four degrees, about.
    assert 0.9 < (found == 1).sum() * info.gsd**2 / (42 * 0.09) < 1.1
    assert (found == 255).any() and set(np.unique(found)) == {0, 1, 255}


def test_probabilities_stay_probabilities(tmp_path):
    values = np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24)
    values[3, 3] = np.nan
    ours = write_probabilities(tmp_path / "p.tif", values, PLACE)
    plain = write_image(tmp_path / "plain.tif", np.nan_to_num(values)[..., None])
    info = grid(tmp_path, (20, 22), PLACE * Affine.translation(4, 0))
    for path, void in ((ours, 2 * 20), (plain, 2 * 20)):
        with aligned(path, info) as virtual, ProbabilityReader(virtual, info) as reader:
            found = reader.read(Window(0, 0, 20, 22))
        np.testing.assert_array_equal(found[:, :20], values[:, 4:])
        assert np.isnan(found).sum() == void


def test_rasters_without_a_place_cannot_be_aligned(tmp_path):
    nowhere = {"crs": None, "transform": Affine.identity()}
    lost = write_image(tmp_path / "lost.tif", MASK[..., None], **nowhere)
    placed = write_image(tmp_path / "placed.tif", MASK[..., None])
    for path, onto in ((lost, placed), (placed, lost)):
        refused = pytest.raises(RasterError, match="cannot be aligned, as it or what")
        with refused, aligned(path, raster_info(onto)):
            pass
    missing = pytest.raises(RasterError, match="no such file")
    with missing, aligned(tmp_path / "none.tif", raster_info(placed)):
        pass


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
