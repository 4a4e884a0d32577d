"""Masks on the pixels of another raster: moved, coarser, in another CRS, with their void."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import calculate_default_transform

from preprocessing.errors import RasterError
from preprocessing.raster_access import raster_info
from preprocessing.rasters import ProbabilityReader, read_label
from preprocessing.resampling import aligned
from preprocessing.tiling import Window
from tests.helpers import write_image
from tests.mask_files import write, write_probabilities

# Of write_image.
PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)
MASK = np.zeros((20, 24), np.uint8)
MASK[4:10, 5:12] = 1


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
