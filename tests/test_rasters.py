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
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from preprocessing.errors import LabelError, RasterError
from preprocessing.raster_access import raster_info
from preprocessing.rasters import LabelReader, RasterReader, read_image, read_label
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
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
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
    path = save(tmp_path / "a.tif", np.array([[[0, 1, 1]]], np.uint8), colours=[ColorInterp.alpha])
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
