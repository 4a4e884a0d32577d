"""Readers of rasters, labels and masks: bytes, void, bands, grey values, and errors of one line."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp as C
from rasterio.rpc import RPC

from preprocessing.errors import LabelError, RasterError
from preprocessing.raster_access import open_raster, raster_info
from preprocessing.rasters import (
    GreyMaskReader,
    LabelReader,
    RasterReader,
    Validity,
    choose_bands,
    named_bands,
    read_image,
    read_label,
)
from preprocessing.tiling import Window

UTM = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)
ONE = [1.0] + [0.0] * 19
RPCS = RPC(
    height_off=100,
    height_scale=100,
    lat_off=45.1,
    long_off=10.1,
    lat_scale=0.01,
    long_scale=0.01,
    line_off=50,
    samp_off=60,
    line_scale=50,
    samp_scale=60,
    line_den_coeff=ONE,
    samp_den_coeff=ONE,
    line_num_coeff=[0.0, 0.0, -1.0] + [0.0] * 17,
    samp_num_coeff=[0.0, 1.0] + [0.0] * 18,
)


def save(path, bands, mask=None, colours=None, **profile):
    """Write ``(bands, height, width)`` as a GeoTIFF, or what ``driver`` says."""
    bands = np.asarray(bands)
    profile = {"driver": "GTiff", "dtype": bands.dtype, **profile}
    count, height, width = bands.shape
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        file = rasterio.open(path, "w", count=count, height=height, width=width, **profile)
        with file:
            if colours:
                file.colorinterp = colours
            file.write(bands)
            if mask is not None:
                file.write_mask(np.asarray(mask, bool))
    return path


def ramp(bands=3, height=5, width=4, dtype=np.uint8):
    """Different values in every pixel and band, none of them 0."""
    return np.arange(1, bands * height * width + 1).reshape(bands, height, width).astype(dtype)


def one_line(error):
    return "\n" not in str(error.value)


# Bands


def test_bands_are_put_into_the_order_red_green_blue(tmp_path):
    bgr = ramp()
    colours = [C.blue, C.green, C.red]
    path = save(tmp_path / "a.tif", bgr, colours=colours, photometric="minisblack")
    with RasterReader(path) as reader:
        assert (reader.bands, reader.band_note) == ((3, 2, 1), "")
    image, _ = read_image(path)
    np.testing.assert_array_equal(image, np.moveaxis(bgr[::-1], 0, -1))


def test_unmarked_bands_are_taken_in_order_and_said(tmp_path):
    path = save(tmp_path / "a.tif", ramp(4), photometric="minisblack", alpha="no")
    with RasterReader(path) as reader:
        assert reader.bands == (1, 2, 3)
        assert "1 (gray), 2 (undefined), 3 (undefined)" in reader.band_note


def test_explicit_bands_may_repeat(tmp_path):
    path = save(tmp_path / "a.tif", ramp(1))
    image, valid = read_image(path, bands=[1, 1, 1])
    np.testing.assert_array_equal(image, np.repeat(ramp(1)[0][..., None], 3, axis=2))
    assert valid.all()


@pytest.mark.parametrize("driver", ["PNG", "JPEG", "VRT"])
def test_other_formats_are_read(tmp_path, driver):
    pixels = np.full((3, 16, 16), 130, np.uint8)
    path = tmp_path / f"a.{driver.lower()}"
    if driver == "VRT":
        save(tmp_path / "a.tif", pixels)
        rasterio.shutil.copy(tmp_path / "a.tif", path, driver="VRT")
    else:
        save(path, pixels, driver=driver)
    image, valid = read_image(path)
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - 130).max() <= 1 and valid.all()


# Validity


def test_alpha_is_validity_and_no_band(tmp_path):
    pixels = ramp(4)
    pixels[3] = 255
    pixels[3, 0, :2] = 0, 1
    path = save(tmp_path / "a.tif", pixels, photometric="RGB", alpha="yes")
    image, valid = read_image(path)
    assert image.shape == (5, 4, 3)
    assert np.argwhere(~valid).tolist() == [[0, 0]]


def test_nodata_in_every_band_is_void_and_in_one_band_a_colour(tmp_path):
    pixels = ramp()
    pixels[:, 0, 0] = 0
    pixels[1, 2, 2] = 0
    _, valid = read_image(save(tmp_path / "a.tif", pixels, nodata=0))
    assert np.argwhere(~valid).tolist() == [[0, 0]]


def test_internal_mask_is_validity(tmp_path):
    inside = np.ones((5, 4))
    inside[3, 1] = 0
    _, valid = read_image(save(tmp_path / "a.tif", ramp(), mask=inside))
    assert np.argwhere(~valid).tolist() == [[3, 1]]


def test_nan_is_never_valid(tmp_path):
    pixels = ramp(dtype=np.float32)
    pixels[2, 4, 3] = np.nan
    pixels[0, 1, 1] = np.inf
    _, valid = read_image(save(tmp_path / "a.tif", pixels))
    assert np.argwhere(~valid).tolist() == [[1, 1], [4, 3]]


def test_alpha_of_any_dtype_and_with_nodata_is_validity(tmp_path):
    pixels = ramp(4, dtype=np.int16)
    pixels[3] = 1
    pixels[3, 0, 0] = 0
    pixels[:3, 1, 1] = -1
    path = save(tmp_path / "a.tif", pixels, photometric="RGB", alpha="yes", nodata=-1)
    image, valid = read_image(path)
    assert image.shape == (5, 4, 3)
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1]]


def test_near_infrared_tagged_alpha_is_imagery_where_it_is_named(tmp_path):
    """The one way for training scenes too, which are read by this."""
    pixels = ramp(4)
    pixels[3, 2, 2] = 0
    pixels[:, 4, 3] = 255
    path = save(tmp_path / "a.tif", pixels, photometric="RGB", alpha="yes", nodata=255)
    image, valid = read_image(path, bands=[1, 2, 3, 4], band_count=4)
    np.testing.assert_array_equal(image, np.moveaxis(pixels, 0, -1))
    assert np.argwhere(~valid).tolist() == [[4, 3]]
    with RasterReader(path, [1, 2, 3, 4], 4) as reader:
        assert "Band 4 is tagged alpha and fed as imagery" in reader.band_note
    with pytest.raises(RasterError, match=r"3 bands beside alpha.*`--bands 1,2,3,4`"):
        read_image(path, band_count=4)
    _, valid = read_image(path)
    assert np.argwhere(~valid).tolist() == [[2, 2], [4, 3]]


def test_all_void_is_read(tmp_path):
    _, valid = read_image(save(tmp_path / "a.tif", np.zeros((3, 4, 4), np.uint8), nodata=0))
    assert not valid.any()


# Windows


def test_windows_are_parts_of_the_whole(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (3, 40, 50), np.uint8)
    path = save(tmp_path / "a.tif", pixels, nodata=0, tiled=True, blockxsize=16, blockysize=16)
    image, valid = read_image(path)
    np.testing.assert_array_equal(valid, pixels.any(axis=0))
    with RasterReader(path) as reader:
        for window in (Window(0, 0, 40, 50), Window(39, 49, 1, 1), Window(7, 13, 21, 30)):
            part, inside = reader.read(window)
            np.testing.assert_array_equal(part, image[window.slices])
            np.testing.assert_array_equal(inside, valid[window.slices])
            assert part.flags.c_contiguous


@pytest.mark.parametrize("window", [Window(-1, 0, 2, 2), Window(0, 3, 2, 2), Window(9, 9, 1, 1)])
def test_windows_outside_are_refused(tmp_path, window):
    with RasterReader(save(tmp_path / "a.tif", ramp())) as reader, pytest.raises(ValueError):
        reader.read(window)


# Place


def test_info_and_reader_agree(tmp_path):
    path = save(tmp_path / "a.tif", ramp(dtype=np.uint16), crs="EPSG:32633", transform=UTM)
    info = raster_info(path)
    assert (info.height, info.width, info.band_count, info.dtype) == (5, 4, 3, "uint16")
    assert info.crs.to_epsg() == 32633 and info.transform == UTM and info.georeferenced
    assert info.gsd == pytest.approx(0.3 / 0.9996, rel=1e-5)
    with RasterReader(path) as reader:
        assert reader.info == info
        assert (reader.height, reader.width, reader.dtype) == (5, 4, "uint16")
        assert (reader.crs, reader.transform, reader.gsd) == (info.crs, UTM, info.gsd)


def test_without_georeferencing_nothing_is_warned_of(tmp_path):
    path = save(tmp_path / "a.tif", ramp())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = raster_info(path)
        read_image(path)
    assert info.crs is None and info.gsd is None and not info.georeferenced
    assert info.transform == Affine.identity()


def test_a_crs_without_affine_and_an_affine_without_crs_have_no_gsd(tmp_path):
    only_crs = raster_info(save(tmp_path / "a.tif", ramp(), crs="EPSG:32633"))
    only_affine = raster_info(save(tmp_path / "b.tif", ramp(), transform=UTM))
    assert [i.georeferenced for i in (only_crs, only_affine)] == [False, False]
    assert [i.gsd for i in (only_crs, only_affine)] == [None, None]
    assert only_affine.transform == UTM


def test_ground_control_points_give_the_crs_and_the_ground_distance(tmp_path):
    points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in ((0, 0), (0, 4), (5, 0))]
    info = raster_info(save(tmp_path / "a.tif", ramp(), gcps=points, crs="EPSG:4326"))
    assert info.crs.to_epsg() == 4326 and not info.georeferenced
    # A degree at 47.5 degrees north: 75.3 km along the parallel, 111.2 km along the meridian.
    assert info.gsd == pytest.approx((75_300 * 111_200) ** 0.5, rel=2e-3)
    assert [(p.row, p.col, p.x, p.y) for p in info.gcps] == [
        (0, 0, 10, 50),
        (0, 4, 14, 50),
        (5, 0, 10, 45),
    ]


def test_two_points_or_points_in_a_line_give_no_place(tmp_path):
    for places in ([(0, 0), (5, 4)], [(0, 0), (2, 2), (4, 4), (5, 5)]):
        points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in places]
        info = raster_info(save(tmp_path / "a.tif", ramp(), gcps=points, crs="EPSG:4326"))
        assert info.gsd is None and len(info.gcps) == len(places)


def test_rational_polynomials_are_known_and_not_used(tmp_path):
    path = save(tmp_path / "a.tif", ramp(), rpcs=RPCS)
    info = raster_info(path)
    assert dict(info.rpcs)["LINE_OFF"] == "50" and info.gsd is None and not info.georeferenced
    placed = raster_info(save(tmp_path / "b.tif", ramp(), rpcs=RPCS, transform=UTM, crs=32633))
    assert placed.rpcs == () and placed.georeferenced


# Bad input


def test_what_is_no_raster_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.tif").write_text("no pixels\n" * 3)
    (tmp_path / "empty.tif").write_bytes(b"")
    cases = {"absent.tif": "no such file", ".": "folder", "text.tif": "not a raster"}
    for name, words in {**cases, "empty.tif": "not a raster"}.items():
        for read in (read_image, read_label, raster_info):
            with pytest.raises(RasterError, match=words) as error:
                read(tmp_path / name)
            assert one_line(error) and str(tmp_path / name) in str(error.value)


def test_complex_pixels_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", np.ones((3, 4, 4), np.complex64))
    with pytest.raises(RasterError, match="complex"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_truncated_files_are_refused_not_filled(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    driver = {"jpg": "JPEG", "png": "PNG", "tif": "GTiff"}[suffix]
    path = save(tmp_path / f"a.{suffix}", pixels, driver=driver)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(RasterError, match=r"a\.") as error:
        read_image(path)
    assert one_line(error)


def test_a_vrt_without_its_source_is_refused(tmp_path):
    save(tmp_path / "a.tif", ramp())
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(RasterError, match="cannot read the window of 5 x 4 pixels at row 0"):
        read_image(tmp_path / "a.vrt")


def test_a_damaged_tile_is_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    path = save(tmp_path / "a.tif", pixels, **options)
    content = bytearray(path.read_bytes())
    # Tiles follow each other in the file: this is in the last one, bottom right.
    content[-600:-300] = bytes(300)
    path.write_bytes(content)
    with RasterReader(path) as reader:
        image, _ = reader.read(Window(0, 0, 32, 64))
        np.testing.assert_array_equal(image, np.moveaxis(pixels, 0, -1)[:32])
    with pytest.raises(RasterError, match="window of 32 x 32 pixels at row 32, column 32"):
        read_image(path)


def test_gdal_prints_nothing(tmp_path):
    script = (
        "import sys\n"
        "from preprocessing.errors import JointNetError\n"
        "from preprocessing.rasters import read_image\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        read_image(path)\n"
        "    except JointNetError as error:\n"
        "        print(error)\n"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    paths = [tmp_path / "absent.tif", tmp_path]
    for suffix, driver in (("jpg", "JPEG"), ("png", "PNG"), ("tif", "GTiff")):
        paths.append(save(tmp_path / f"a.{suffix}", pixels, driver=driver))
        content = paths[-1].read_bytes()
        paths[-1].write_bytes(content[: len(content) // 2])
    paths.append(save(tmp_path / "shadow.tif", ramp(4), photometric="RGB", alpha="yes", nodata=0))
    command = [sys.executable, "-c", script, *map(str, paths)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 5


# Labels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("value", [1, 255])
def test_labels_are_0_and_1_or_0_and_255(tmp_path, dtype, value):
    target = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    mask = read_label(save(tmp_path / "a.tif", [(target * value).astype(dtype)]))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, target)


@pytest.mark.parametrize("fill", [0, 1, 255])
def test_labels_of_one_value(tmp_path, fill):
    mask = read_label(save(tmp_path / "a.tif", np.full((1, 3, 3), fill, np.uint8)))
    np.testing.assert_array_equal(mask, np.full((3, 3), min(fill, 1)))


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        ([0, 1, 255], "1, 255"),
        ([0, 2, 3], "2, 3"),
        ([0, 128, 255], "128, 255"),
        (np.arange(60), "1, 2, 3, 4, 5, 6, 7, 8, 9, ..."),
    ],
)
def test_other_values_are_refused_and_named(tmp_path, pixels, found):
    path = save(tmp_path / "a.tif", np.array([[pixels]], np.uint8))
    with pytest.raises(LabelError) as error:
        read_label(path)
    assert f"has the values {found} beside" in str(error.value) and one_line(error)


@pytest.mark.parametrize("value", [-1, 0.5, np.nan])
def test_odd_numbers_are_refused(tmp_path, value):
    with pytest.raises(LabelError, match="has the values"):
        read_label(save(tmp_path / "a.tif", np.array([[[0, 1, value]]], np.float32)))


def test_the_mixture_is_seen_over_windows(tmp_path):
    path = save(tmp_path / "a.tif", np.array([[[0, 1], [0, 255]]], np.uint8))
    with LabelReader(path) as reader:
        np.testing.assert_array_equal(reader.read(Window(0, 0, 1, 2)), [[0, 1]])
        with pytest.raises(LabelError, match="1, 255"):
            reader.read(Window(1, 0, 1, 2))


def test_void_is_where_the_dataset_mask_is_off(tmp_path):
    pixels = np.array([[[0, 1, 7], [1, 0, 1]]], np.uint8)
    expected = [[0, 1, 255], [1, 0, 1]]
    nodata = save(tmp_path / "a.tif", pixels, nodata=7)
    mask = save(tmp_path / "b.tif", pixels, mask=pixels[0] != 7)
    opaque = np.where(pixels == 7, 0, 255).astype(np.uint8)
    alpha = save(tmp_path / "c.tif", np.concatenate([pixels, opaque]), alpha="yes")
    for path in (nodata, mask, alpha):
        np.testing.assert_array_equal(read_label(path), expected, err_msg=path.name)


def test_alpha_of_any_dtype_is_void_in_labels(tmp_path):
    pixels = np.array([[[0, 1, 1]], [[9, 9, 0]]], np.int16)
    path = save(tmp_path / "a.tif", pixels, alpha="yes", photometric="minisblack")
    np.testing.assert_array_equal(read_label(path), [[0, 1, 255]])


def test_a_label_whose_only_band_is_tagged_alpha(tmp_path):
    path = save(tmp_path / "a.tif", np.array([[[0, 1, 1]]], np.uint8), colours=[C.alpha])
    np.testing.assert_array_equal(read_label(path), [[0, 1, 1]])


def test_void_may_be_255_where_targets_are_1(tmp_path):
    path = save(tmp_path / "a.tif", np.array([[[0, 1, 255]]], np.uint8), nodata=255)
    np.testing.assert_array_equal(read_label(path), [[0, 1, 255]])


def test_an_all_void_label(tmp_path):
    path = save(tmp_path / "a.tif", np.full((1, 2, 2), 9, np.uint8), nodata=9)
    np.testing.assert_array_equal(read_label(path), np.full((2, 2), 255))


def test_nodata_0_would_make_the_background_void(tmp_path):
    with pytest.raises(LabelError, match="unsetnodata"):
        read_label(save(tmp_path / "a.tif", np.array([[[0, 1]]], np.uint8), nodata=0))


def test_grey_saved_as_rgb_is_a_label_and_colours_are_none(tmp_path):
    grey = np.array([[[0, 255], [255, 0]]] * 3, np.uint8)
    np.testing.assert_array_equal(read_label(save(tmp_path / "a.tif", grey)), grey[0] // 255)
    grey[2, 0, 0] = 255
    with pytest.raises(LabelError, match="3 bands differ"):
        read_label(save(tmp_path / "b.tif", grey))


def test_one_colour_on_black_is_a_label_and_two_are_none(tmp_path):
    red = np.zeros((3, 2, 2), np.uint8)
    red[0] = [[0, 255], [255, 0]]
    np.testing.assert_array_equal(read_label(save(tmp_path / "a.tif", red)), red[0] // 255)
    red[:, 1, 1] = [0, 255, 0]
    path = save(tmp_path / "b.tif", red)
    with pytest.raises(LabelError, match="3 bands differ"):
        read_label(path)
    # Also where each window has one colour alone.
    with LabelReader(path) as reader:
        np.testing.assert_array_equal(reader.read(Window(0, 0, 1, 2)), [[0, 1]])
        with pytest.raises(LabelError, match="3 bands differ"):
            reader.read(Window(1, 1, 1, 1))


def test_a_jpeg_label_says_to_threshold_it(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (1, 32, 32), np.uint8) * 255
    for driver, options in (("JPEG", {}), ("GTiff", {"compress": "jpeg"})):
        path = save(tmp_path / f"a{driver}", noise, driver=driver, **options)
        with pytest.raises(LabelError, match="threshold"):
            read_label(path)


def test_labels_larger_than_a_strip(tmp_path):
    target = np.random.default_rng(0).integers(0, 2, (700, 9000), np.uint8)
    path = save(tmp_path / "a.tif", target[None] * np.uint8(255), compress="deflate")
    np.testing.assert_array_equal(read_label(path), target)


# Real files that break naive readers


def test_each_real_case_is_read_or_refused_in_one_line(real_data):
    read, refused = {}, {}
    for path in sorted((real_data / "geo_cases").glob("*.tif")):
        try:
            read[path.name] = read_image(path)
        except RasterError as error:
            assert "\n" not in str(error) and path.name in str(error)
            refused[path.name] = str(error)
    assert set(refused) == {
        "corrupt.tif",
        "riotiler_cog_gcps.tif",
        "riotiler_inverted_lat.tif",
        "rotated.tif",
    }
    assert "512 x 512 pixels at row 512, column 512" in refused["corrupt.tif"]
    assert not read["all-nodata.tif"][1].any()
    assert {name: image.shape[-1] for name, (image, _) in read.items()} == dict.fromkeys(read, 3)


def test_real_cases_of_one_band_read_by_name(real_data):
    for name in ("riotiler_cog_gcps.tif", "riotiler_inverted_lat.tif", "rotated.tif"):
        image, _ = read_image(real_data / "geo_cases" / name, bands=(1, 1, 1))
        assert image.shape[-1] == 3
    assert raster_info(real_data / "geo_cases" / "riotiler_cog_gcps.tif").gcps


def test_real_place(real_data):
    folder = real_data / "geo_cases"
    # 0.597 m of EPSG:3857 at 37.7 degrees north.
    assert raster_info(folder / "corrupt.tif").gsd == pytest.approx(0.597 * 0.7912, rel=2e-3)
    assert raster_info(folder / "riotiler_inverted_lat.tif").transform.e > 0
    rotated = raster_info(folder / "rotated.tif")
    assert rotated.transform.b != 0 and rotated.gsd is None
    with RasterReader(folder / "RGBA.uint16.tif") as reader:
        assert (reader.bands, reader.dtype) == ((3, 2, 1), "uint16")


def test_real_labels(real_data):
    mask = read_label(real_data / "full_tile_masks" / "austin29_gt.png")
    assert mask.shape == (5000, 5000) and set(np.unique(mask)) == {0, 1}
    with pytest.raises(LabelError, match="threshold"):
        read_label(real_data / "full_tile_masks" / "bellingham15_output.jpg")


RGB = (C.red, C.green, C.blue)


@pytest.mark.parametrize(
    ("kinds", "count", "bands", "said"),
    [
        (RGB, 3, (1, 2, 3), False),
        ((C.blue, C.green, C.red, C.undefined), 3, (3, 2, 1), False),
        ((C.alpha, *RGB), 3, (2, 3, 4), False),
        ((*RGB, C.undefined, C.alpha), 4, (1, 2, 3, 4), True),
        ((C.undefined, *RGB), 4, (2, 3, 4, 1), True),
        ((C.gray, C.undefined, C.undefined), 3, (1, 2, 3), True),
        ((C.gray, C.alpha, C.undefined, C.undefined), 3, (1, 3, 4), True),
        # A file that marks only some of the colours is taken in its own order.
        ((C.green, C.red, C.undefined), 3, (1, 2, 3), True),
        ((C.gray,), 1, (1,), True),
    ],
)
def test_colours_come_first_and_alpha_never(kinds, count, bands, said):
    chosen, note = choose_bands(kinds, count, "a.tif")
    assert chosen == bands
    assert bool(note) == said
    assert "\n" not in note


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ((C.gray,), ["has 1 band,", "takes 3", "--bands 1,1,1"]),
        (
            (C.alpha, C.gray),
            ["has 1 band beside alpha", "takes 3", "--bands 2,2,2"],
        ),
        (
            (C.gray, C.undefined),
            ["has 2 bands,", "takes 3", "use another raster"],
        ),
        ((*RGB[:2], C.alpha), ["has 2 bands beside alpha", "takes 3", "`--bands 1,2,3`"]),
        ((C.alpha,), ["has 0 bands beside alpha", "takes 3"]),
        ((C.palette,), ["palette", "takes 3", "-expand rgb"]),
    ],
)
def test_too_few_bands_say_how_many_and_what_works(kinds, words):
    with pytest.raises(RasterError) as error:
        choose_bands(kinds, 3, "a.tif")
    line = str(error.value)
    assert line.startswith("a.tif: ") and "\n" not in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("kinds", "count", "named"),
    [
        ((*RGB, C.alpha), 4, "1,2,3,4"),
        ((*RGB[::-1], C.alpha), 4, "3,2,1,4"),
        (
            (C.alpha, C.gray, C.undefined, C.undefined),
            4,
            "2,3,4,1",
        ),
        ((*RGB, C.alpha), 5, None),
        ((*RGB, C.undefined), 5, None),
    ],
)
def test_near_infrared_tagged_alpha_must_be_named(kinds, count, named):
    with pytest.raises(RasterError, match=f"takes {count}; ") as error:
        choose_bands(kinds, count, "a.tif")
    line = str(error.value)
    if named:
        assert f"`--bands {named}` takes the band tagged alpha too, if it is near infrared" in line
        assert named_bands(map(int, named.split(",")), len(kinds), count, "a.tif")
    else:
        assert line.endswith("use another raster")


def test_palette_indices_are_no_grey_values():
    with pytest.raises(RasterError, match="-expand gray"):
        choose_bands((C.palette,), 1, "a.tif")


def test_named_bands_are_taken_as_named():
    assert named_bands([4, 4, 1], 4, 3, "a.tif") == (4, 4, 1)


@pytest.mark.parametrize("bands", [(1, 2), (0, 1, 2), (1, 2, 5), (-1, 1, 2)])
def test_named_bands_must_be_there(bands):
    with pytest.raises(RasterError, match=r"^a\.tif: "):
        named_bands(bands, 4, 3, "a.tif")


# Validity

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "float32", "float64"]
WHOLE = Window(0, 0, 2, 3)


def write(path, pixels, alpha=None, mask=None, **profile):
    """Write ``(bands, 2, 3)``, the band ``alpha`` (from 1) tagged so, with an internal mask."""
    kinds = [*RGB, *[C.undefined] * len(pixels)][: len(pixels)]
    if alpha is not None:
        kinds[alpha - 1] = C.alpha
    return save(path, pixels, mask, kinds, photometric="MINISBLACK", **profile)


def valid(path, fed=(1, 2, 3)):
    with open_raster(path) as dataset:
        return Validity(dataset, fed).read(WHOLE).astype(int).tolist()


def five(bands, dtype="uint8"):
    return np.full((bands, 2, 3), 5, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bands", "alpha"), [(2, 2), (4, 4), (5, 4), (5, 5), (4, 1)])
def test_alpha_counts_in_every_dtype_and_place(tmp_path, dtype, bands, alpha):
    """GDAL's dataset mask knows it in two of four cases, and in uint8 and uint16 only."""
    pixels = five(bands, dtype)
    pixels[alpha - 1] = [[0, 1, 100], [100, 100, 0]]
    fed = [band for band in range(1, bands + 1) if band != alpha]
    assert valid(write(tmp_path / "a.tif", pixels, alpha), fed) == [[0, 1, 1], [1, 1, 0]]


def test_an_alpha_that_is_not_a_number_or_below_0(tmp_path):
    pixels = five(4, "float32")
    pixels[3, 0] = np.nan, -1, 0.25
    assert valid(write(tmp_path / "a.tif", pixels, 4)) == [[0, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("int16", -9999), ("float32", -9999)])
def test_void_is_what_nodata_or_alpha_says(tmp_path, dtype, nodata):
    pixels = five(4, dtype)
    # Colours without data under an opaque alpha; transparent colours; one band only; all four.
    pixels[:3, 0, 0] = nodata
    pixels[3, 0, 1] = 0
    pixels[1, 0, 2] = nodata
    pixels[:, 1, 0] = nodata
    path = write(tmp_path / "a.tif", pixels, 4, nodata=nodata)
    assert valid(path) == [[0, 0, 1], [0, 1, 1]]


def test_void_is_what_the_mask_or_alpha_says(tmp_path):
    pixels = five(4)
    pixels[3, 1, 1] = 0
    path = write(tmp_path / "a.tif", pixels, 4, mask=[[0, 1, 1], [1, 1, 1]])
    assert valid(path) == [[0, 1, 1], [1, 0, 1]]


def test_a_mask_stands_in_for_nodata(tmp_path):
    pixels = five(3)
    pixels[:, 0, 0] = 9
    path = write(tmp_path / "a.tif", pixels, nodata=9, mask=[[1, 1, 1], [1, 1, 0]])
    assert valid(path) == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [[1, 1, 1], [1, 1, 1]]),
        ({"nodata": 0}, [[1, 0, 1], [1, 1, 1]]),
        ({"mask": [[1, 1, 1], [1, 1, 0]]}, [[1, 1, 1], [1, 1, 0]]),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_a_band_that_is_fed_is_no_alpha(tmp_path, dtype, said, expected):
    """Near infrared is 0 over water, and with nodata 0 it is a fourth band that differs."""
    pixels = five(4, dtype)
    pixels[3, 0, 0] = 0
    pixels[:, 0, 1] = 0
    pixels[:3, 0, 2] = 0
    path = write(tmp_path / "a.tif", pixels, 4, **said)
    assert valid(path, [1, 2, 3, 4]) == expected
    with open_raster(path) as dataset:
        note = Validity(dataset, [1, 2, 3, 4]).note
        assert "Band 4 is tagged alpha and fed as imagery" in note and "\n" not in note
        assert ("all is valid" in note) == (not said)
        assert Validity(dataset, [1, 2, 3]).note == ""


def vrt(path, pixels, nodata):
    """A VRT, in which each band has a nodata of its own, of whatever range."""
    write(path.with_suffix(".tif"), pixels)
    kind = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}
    bands = "".join(
        f'<VRTRasterBand dataType="{kind[str(pixels.dtype)]}" band="{band}">'
        + ("" if value is None else f"<NoDataValue>{value}</NoDataValue>")
        + f'<SimpleSource><SourceFilename relativeToVRT="1">{path.stem}.tif</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, value in enumerate(nodata, 1)
    )
    path.write_text(f'<VRTDataset rasterXSize="3" rasterYSize="2">{bands}</VRTDataset>')
    return path


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    ("dtype", "nodata", "void", "one_band"),
    [
        ("uint8", (0, 255, 7), (0, 255, 7), (0, 9, 9)),
        ("uint16", (65_535,) * 3, (65_535,) * 3, (65_535, 0, 0)),
        ("int16", (-9999,) * 3, (-9999,) * 3, (1, -9999, 1)),
        ("float32", ("nan",) * 3, (np.nan,) * 3, (1, 1, np.nan)),
        ("float32", (repr(LOWEST),) * 3, (LOWEST,) * 3, (1, 1, LOWEST)),
        ("float32", ("nan", -9999, 0), (np.nan, -9999, 0), (1, -9999, 1)),
    ],
)
def test_every_band_has_its_own_nodata(tmp_path, dtype, nodata, void, one_band):
    pixels = five(3, dtype)
    pixels[:, 0, 0], pixels[:, 0, 1] = void, one_band
    assert valid(vrt(tmp_path / "a.vrt", pixels, nodata)) == [[0, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("nodata", [-9999, 300, "nan", 1e30])
def test_a_nodata_that_no_pixel_can_have_hides_none(tmp_path, nodata):
    pixels = five(3)
    pixels[:, 0] = 0, 255, 44
    assert valid(vrt(tmp_path / "a.vrt", pixels, [nodata] * 3)) == [[1, 1, 1], [1, 1, 1]]


def test_a_band_without_nodata_always_differs(tmp_path):
    path = vrt(tmp_path / "a.vrt", five(3), [5, 5, None])
    assert valid(path) == [[1, 1, 1], [1, 1, 1]]


def test_bands_that_are_not_fed_are_asked_too(tmp_path):
    pixels = five(4)
    pixels[:3, 0, 0] = pixels[:, 0, 1] = 0
    assert valid(write(tmp_path / "a.tif", pixels, nodata=0)) == [[1, 0, 1], [1, 1, 1]]


def test_near_infrared_tagged_alpha_is_told_from_alpha(tmp_path):
    random = np.random.default_rng(0)
    infrared = random.integers(0, 256, (200, 300), np.uint8)
    opaque = np.full((200, 300), 255, np.uint8)
    opaque[:90] = 0
    # JPEG leaves noise at an alpha's edges.
    noisy = opaque.copy()
    noisy[85:95] = random.integers(1, 256, (10, 300))
    colours = random.integers(1, 256, (3, 200, 300), np.uint8)
    for band, found in ((infrared, 4), (opaque, None), (noisy, None), (opaque * 0, None)):
        path = write(tmp_path / "a.tif", np.concatenate([colours, band[None]]), 4)
        with open_raster(path) as dataset:
            assert Validity(dataset, [1, 2, 3]).imagery_tagged_alpha() == found
            assert Validity(dataset, [1, 2, 3, 4]).imagery_tagged_alpha() is None


def write_grey(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """Write ``(height, width)`` or ``(height, width, bands)``, of a driver by its suffix."""
    driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    return save(path, np.moveaxis(np.atleast_3d(pixels), -1, 0), driver=driver, **profile)


def read(path: Path) -> tuple[np.ndarray, str | None]:
    with GreyMaskReader(path) as reader:
        mask = reader.read(Window(0, 0, reader.height, reader.width))
        reader.check_whole()
        return mask, reader.note


MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


@pytest.mark.parametrize("target", [1, 255])
def test_a_label_is_read_as_a_label(tmp_path, target):
    path = write_grey(tmp_path / "a.png", MASK * np.uint8(target))
    mask, note = read(path)
    np.testing.assert_array_equal(mask, read_label(path))
    np.testing.assert_array_equal(mask, MASK)
    assert note is None


def test_greys_are_target_from_128_on(tmp_path):
    greys = np.array([[0, 127, 128], [3, 250, 255]], np.uint8)
    mask, note = read(write_grey(tmp_path / "a.png", greys))
    assert mask.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert note == "thresholded at 128 (grey values such as 3, 127, 128)"


def test_a_jpeg_is_the_mask_it_was_made_of(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 20:50] = 1
    path = write_grey(tmp_path / "a.jpg", mask * np.uint8(255), quality=75)
    with pytest.raises(LabelError, match="JPEG alters values"):
        read_label(path)
    found, note = read(path)
    np.testing.assert_array_equal(found, mask)
    assert "thresholded at 128" in note


def test_a_one_in_a_jpeg_is_noise(tmp_path):
    path = write_grey(tmp_path / "a.jpg", np.ones((16, 16), np.uint8), quality=100)
    assert not read(path)[0].any()


def test_grey_in_three_bands(tmp_path):
    greys = np.repeat(np.array([[0, 90, 200]], np.uint8)[..., None], 3, axis=2)
    assert read(write_grey(tmp_path / "a.png", greys))[0].tolist() == [[0, 0, 1]]


def test_values_that_are_void_do_not_decide(tmp_path):
    pixels = np.array([[0, 1, 255]], np.uint8)
    mask, note = read(write_grey(tmp_path / "a.tif", pixels, nodata=255))
    assert mask.tolist() == [[0, 1, 255]]
    assert note is None
    mask, note = read(write_grey(tmp_path / "b.tif", np.array([[0, 77, 255]], np.uint8), nodata=77))
    assert mask.tolist() == [[0, 255, 1]]
    assert note is None


@pytest.mark.parametrize(
    ("values", "words"),
    [([0, 1, 2, 5], "greatest value is 5"), ([0, 1, 255], "if 255 is void")],
)
def test_classes_and_doubtful_void_are_refused(tmp_path, values, words):
    with pytest.raises(LabelError, match=words):
        read(write_grey(tmp_path / "a.png", np.array([values], np.uint8)))


def test_deeper_greys_are_refused_as_of_a_label(tmp_path):
    with pytest.raises(LabelError, match="300"):
        read(write_grey(tmp_path / "a.tif", np.array([[0, 300]], np.uint16)))


@pytest.mark.parametrize("value", [0, 255])
def test_all_of_one_kind(tmp_path, value):
    assert (
        read(write_grey(tmp_path / "a.png", np.full((3, 4), value, np.uint8)))[0] == value / 255
    ).all()
