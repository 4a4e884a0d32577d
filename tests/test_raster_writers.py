"""Writers of masks, probabilities and error maps: what stands on disk, and failures to write."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rio_cogeo.cogeo import cog_validate

from preprocessing.errors import OutputError
from preprocessing.image_operations import ERROR_COLOURS, error_classes
from preprocessing.raster_access import RasterInfo, compression, gdal_quiet, raster_info
from preprocessing.raster_writers import (
    ErrorMapWriter,
    MaskWriter,
    ProbabilityWriter,
    write_raster,
)
from preprocessing.rasters import RasterReader, read_label
from preprocessing.tiling import Window, strips

NORTH_UP = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)
SOUTH_UP = Affine(0.3, 0, 500_000, 0, 0.3, 5_000_000)
ROTATED = Affine(0.26, 0.15, 500_000, 0.15, -0.26, 5_000_000)


def like(height, width, transform=NORTH_UP, crs="EPSG:32633", gcps=()):
    crs = CRS.from_string(crs) if crs else None
    georeferenced = crs is not None and transform != Affine.identity()
    return RasterInfo(height, width, 3, "uint8", crs, transform, None, georeferenced, gcps)


def write(path, pixels, writer=MaskWriter, info=None, **options):
    """Write a whole array in one window."""
    with writer(path, info or like(*pixels.shape), **options) as file:
        file.write(Window(0, 0, *pixels.shape), pixels)
    return path


def blobs(height, width, void=False):
    """A mask with structure at every scale, to be told apart in overviews."""
    row, column = np.mgrid[:height, :width]
    mask = ((row // 40 + column // 60) % 2).astype(np.uint8)
    if void:
        mask[: height // 4, : width // 4] = 255
    return mask


@pytest.mark.parametrize("void", [False, True])
def test_a_mask_comes_back(tmp_path, void):
    mask = blobs(300, 400, void)
    np.testing.assert_array_equal(read_label(write(tmp_path / "a.tif", mask)), mask)
    assert os.listdir(tmp_path) == ["a.tif"]


@settings(max_examples=20, deadline=None)
@given(
    mask=arrays(
        np.uint8, st.tuples(*[st.integers(1, 40)] * 2), elements=st.sampled_from([0, 1, 255])
    )
)
def test_read_label_is_the_inverse(tmp_path_factory, mask):
    path = tmp_path_factory.mktemp("masks") / "a.tif"
    np.testing.assert_array_equal(read_label(write(path, mask)), mask)


@pytest.mark.parametrize("fill", [0, 1, 255])
def test_masks_of_one_value(tmp_path, fill):
    mask = np.full((20, 30), fill, np.uint8)
    np.testing.assert_array_equal(read_label(write(tmp_path / "a.tif", mask)), mask)


def test_the_file_is_what_it_says(tmp_path):
    with rasterio.open(write(tmp_path / "a.tif", blobs(1100, 700))) as file:
        profile, pixels = file.profile, file.read(1)
        assert file.overviews(1) == [2, 4]
        assert file.mask_flag_enums == ([MaskFlags.all_valid],)
    assert set(np.unique(pixels)) == {0, 255} and pixels.dtype == np.uint8
    assert profile["tiled"] and profile["blockxsize"] == profile["blockysize"] == 512
    assert profile["compress"].upper() == compression()
    assert profile["crs"].to_epsg() == 32633 and profile["transform"] == NORTH_UP


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("size", [(1100, 700), (300, 400), (20, 30)])
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
def test_files_are_cloud_optimized(tmp_path, void, size, transform):
    info = like(*size, transform)
    mask = blobs(*size, void)
    probabilities = np.where(mask == 255, np.nan, mask * 0.75).astype(np.float32)
    for writer, pixels in ((MaskWriter, mask), (ProbabilityWriter, probabilities)):
        path = write(tmp_path / f"{writer.__name__}.tif", pixels, writer, info)
        valid, errors, warnings = cog_validate(path, strict=True)
        assert (valid, errors, warnings) == (True, [], [])


def test_void_is_an_internal_mask_and_0_beneath(tmp_path):
    mask = blobs(300, 400, void=True)
    path = write(tmp_path / "a.tif", mask)
    with rasterio.open(path) as file:
        assert file.nodata is None and file.mask_flag_enums == ([MaskFlags.per_dataset],)
        np.testing.assert_array_equal(file.dataset_mask() > 0, mask != 255)
        np.testing.assert_array_equal(file.read(1), (mask == 1) * 255)
    assert os.listdir(tmp_path) == ["a.tif"]


def test_overviews_have_masks_of_their_own(tmp_path):
    mask = blobs(1200, 1200, void=True)
    path = write(tmp_path / "a.tif", mask)
    with rasterio.open(path, overview_level=1) as file:
        assert file.shape == (300, 300)
        np.testing.assert_array_equal(file.dataset_mask() > 0, mask[::4, ::4] != 255)
        np.testing.assert_array_equal(file.read(1), (mask[::4, ::4] == 1) * 255)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None])
def test_the_full_affine_and_the_crs_stay(tmp_path, transform, crs):
    info = like(50, 60, transform, crs)
    for writer, dtype in ((MaskWriter, np.uint8), (ProbabilityWriter, np.float32)):
        path = write(tmp_path / f"{writer.__name__}.tif", np.zeros((50, 60), dtype), writer, info)
        written = raster_info(path)
        assert written.transform.almost_equals(transform, 1e-9)
        assert written.crs == info.crs and written.georeferenced == info.georeferenced


def test_without_georeferencing_none_is_invented(tmp_path):
    path = write(tmp_path / "a.tif", blobs(50, 60), info=like(50, 60, Affine.identity(), None))
    info = raster_info(path)
    assert info.crs is None and info.transform == Affine.identity() and not info.gcps


def test_ground_control_points_are_carried_on(tmp_path):
    points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in ((0, 0), (0, 60), (50, 0))]
    info = like(50, 60, Affine.identity(), "EPSG:4326", tuple(points))
    written = raster_info(write(tmp_path / "a.tif", blobs(50, 60), info=info))
    assert [(p.row, p.col, p.x, p.y) for p in written.gcps] == [
        (p.row, p.col, p.x, p.y) for p in points
    ]
    assert written.crs == info.crs and not written.georeferenced


def test_ground_control_points_without_a_crs_are_carried_on(tmp_path):
    points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in ((0, 0), (0, 60), (50, 0))]
    info = like(50, 60, Affine.identity(), None, tuple(points))
    written = raster_info(write(tmp_path / "a.tif", blobs(50, 60), info=info))
    assert len(written.gcps) == 3 and written.crs is None and written.gsd is None


def test_rational_polynomials_are_carried_on(tmp_path):
    one, line, sample = ("0 " * at + "1" + " 0" * (19 - at) for at in (0, 2, 1))
    tags = {"LINE_NUM_COEFF": line, "SAMP_NUM_COEFF": sample}
    tags |= {"LINE_DEN_COEFF": one, "SAMP_DEN_COEFF": one}
    tags |= {f"{name}_OFF": "25" for name in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")}
    tags |= {f"{name}_SCALE": "50" for name in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")}
    bare = like(50, 60, Affine.identity(), None)
    info = dataclasses.replace(bare, rpcs=tuple(tags.items()))
    written = raster_info(write(tmp_path / "a.tif", blobs(50, 60), info=info))
    assert tags.items() <= dict(written.rpcs).items()
    # In the file itself, which goes without what lies beside it.
    assert os.listdir(tmp_path) == ["a.tif"] and not bare.rpcs


@pytest.mark.parametrize("rows", [1, 7, 50, 300])
@pytest.mark.parametrize("void", [0, 123, 299])
def test_strips_of_any_height(tmp_path, rows, void):
    mask = blobs(300, 170)
    mask[void:, 20:90] = 255
    with MaskWriter(tmp_path / "a.tif", like(300, 170)) as file:
        for row in range(0, 300, rows):
            window = Window(row, 0, min(rows, 300 - row), 170)
            file.write(window, mask[window.slices])
    np.testing.assert_array_equal(read_label(tmp_path / "a.tif"), mask)


@pytest.mark.parametrize(
    "window", [Window(0, 0, 5, 10), Window(6, 0, 2, 10), Window(5, 0, 2, 9), Window(4, 0, 3, 10)]
)
def test_windows_other_than_the_next_rows_are_refused(tmp_path, window):
    refused = pytest.raises(ValueError, match="whole rows from row 5 on")
    with refused, MaskWriter(tmp_path / "a.tif", like(10, 10)) as file:
        file.write(Window(0, 0, 5, 10), np.zeros((5, 10), np.uint8))
        file.write(window, np.zeros((window.height, window.width), np.uint8))
    assert os.listdir(tmp_path) == []


def test_probabilities_come_back_with_void_as_nan(tmp_path):
    values = np.random.default_rng(0).random((600, 500), np.float32)
    values[:100, :80] = np.nan
    path = tmp_path / "p.tif"
    with ProbabilityWriter(path, like(600, 500)) as file:
        for window in strips(600, 500, 256):
            file.write(window, values[window.slices])
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), values)
        np.testing.assert_array_equal(file.dataset_mask() > 0, ~np.isnan(values))
        assert np.isnan(file.nodata) and file.dtypes == ("float32",) and file.overviews(1)
        assert file.profile["tiled"] and file.profile["compress"].upper() == compression()
    with rasterio.open(path, overview_level=0) as file:
        block = values[200:202, 200:202].mean()
        assert file.read(1)[100, 100] == pytest.approx(block, rel=1e-5)


@pytest.mark.parametrize(
    ("window", "mask"),
    [
        (Window(0, 0, 4, 10), np.full((4, 10), 2, np.uint8)),
        (Window(0, 0, 4, 10), np.full((4, 10), 254, np.uint8)),
        (Window(0, 0, 4, 10), np.zeros((4, 10), bool)),
        (Window(0, 0, 4, 10), np.zeros((4, 3), np.uint8)),
        (Window(8, 0, 4, 10), np.zeros((4, 10), np.uint8)),
    ],
)
def test_other_pixels_are_refused(tmp_path, window, mask):
    with pytest.raises(ValueError), MaskWriter(tmp_path / "a.tif", like(10, 10)) as file:
        file.write(window, mask)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [-0.1, 1.1, np.inf])
def test_other_probabilities_are_refused(tmp_path, value):
    with pytest.raises(ValueError):
        write(tmp_path / "a.tif", np.full((4, 4), value, np.float32), ProbabilityWriter)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("writer", [MaskWriter, ProbabilityWriter])
def test_pixels_never_written_are_noticed(tmp_path, writer):
    with pytest.raises(ValueError, match="row 7"), writer(tmp_path / "a.tif", like(10, 10)) as file:
        file.write(Window(0, 0, 7, 10), np.zeros((7, 10), writer.dtype))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_after_an_exception_everything_is_as_before(tmp_path, error):
    path = write(tmp_path / "a.tif", blobs(20, 20))
    before = path.read_bytes()
    # The caller's own error comes out, an OSError too.
    with pytest.raises(error), MaskWriter(path, like(20, 20), overwrite=True) as file:
        file.write(Window(0, 0, 10, 20), np.zeros((10, 20), np.uint8))
        raise error
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.tif"]


def test_an_existing_output_is_refused_up_front_or_replaced(tmp_path):
    path = write(tmp_path / "a.tif", blobs(20, 20))
    with pytest.raises(OutputError, match="--overwrite"):
        MaskWriter(path, like(20, 20))
    # A mask of the old file, left beside by another program, must not apply to the new one.
    (tmp_path / "a.tif.msk").write_bytes(b"")
    (tmp_path / "a.tif.aux.xml").write_bytes(b"")
    mask = np.ones((20, 20), np.uint8)
    write(path, mask, overwrite=True)
    np.testing.assert_array_equal(read_label(path), mask)
    assert os.listdir(tmp_path) == ["a.tif"]


def test_the_input_is_never_replaced(tmp_path):
    path = write(tmp_path / "a.tif", blobs(20, 20))
    with RasterReader(path, band_count=1) as reader:
        for same in (path, tmp_path / "b" / ".." / "a.tif"):
            (tmp_path / "b").mkdir(exist_ok=True)
            with pytest.raises(OutputError, match="input"):
                MaskWriter(same, reader, overwrite=True)


def test_a_reader_is_a_likeness(tmp_path):
    image = write(tmp_path / "a.tif", blobs(20, 30), info=like(20, 30, ROTATED))
    with RasterReader(image, band_count=1) as reader:
        written = raster_info(write(tmp_path / "b.tif", blobs(20, 30), info=reader))
    assert written.transform.almost_equals(ROTATED, 1e-9)


def test_folders_are_made_and_a_file_in_their_place_is_one_line(tmp_path):
    write(tmp_path / "new" / "folder" / "a.tif", blobs(20, 20))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written") as error:
        write(tmp_path / "file" / "a.tif", blobs(20, 20))
    assert "\n" not in str(error.value)


LIMITED = """
import resource, signal, sys
import numpy as np
from affine import Affine
from preprocessing.errors import OutputError
from preprocessing.raster_access import compression
from preprocessing.raster_writers import MaskWriter, ProbabilityWriter
from preprocessing.raster_access import RasterInfo
from preprocessing.tiling import Window

name, limit = sys.argv[1], int(sys.argv[2])
info = RasterInfo(600, 600, 3, "uint8", None, Affine.identity(), None, False)
rng = np.random.default_rng(0)
mask = rng.integers(0, 2, (600, 600), np.uint8)
pixels = mask if name == "MaskWriter" else rng.random((600, 600), np.float32)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with globals()[name](sys.argv[3], info) as file:
        file.write(Window(0, 0, 600, 600), pixels)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
@pytest.mark.parametrize(
    ("writer", "limit"),
    [
        # In the working files; in a final file; in its overviews.
        ("MaskWriter", 40_000),
        ("ProbabilityWriter", 1_000_000),
        ("MaskWriter", 70_000),
        ("ProbabilityWriter", 1_440_000),
    ],
)
def test_no_room_leaves_one_line_and_no_file(tmp_path, writer, limit):
    command = [sys.executable, "-c", LIMITED, writer, str(limit), str(tmp_path / "a.tif")]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(f"{tmp_path / 'a.tif'}: cannot be written: ")
    assert os.listdir(tmp_path) == []


def test_a_disk_too_small_is_refused_before_the_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"needs up to 0\.3 MB free, the disk has 0\.1"):
        write(tmp_path / "a.tif", blobs(600, 600))
    assert os.listdir(tmp_path) == []


def test_a_file_that_reads_back_otherwise_is_not_kept(tmp_path, monkeypatch):
    lay_out = MaskWriter._lay_out

    def spoilt(self, working, final):
        lay_out(self, working, final)
        spoil(final)

    monkeypatch.setattr(MaskWriter, "_lay_out", spoilt)
    with pytest.raises(OutputError, match="reading it back failed"):
        write(tmp_path / "a.tif", blobs(100, 100))
    assert os.listdir(tmp_path) == []


def spoil(path):
    """Change one pixel."""
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        pixels = file.read(1)
        pixels[3, 4] ^= 255
        file.write(pixels, 1)


TRUTH = np.array([[0, 1, 0, 1, 255, 0]], np.uint8)
MASK = np.array([[0, 0, 1, 1, 1, 255]], np.uint8)
VALUES = [[0, 1, 2, 3, 255, 255]]


def test_a_plain_raster_may_be_repeated_downwards(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 999, (7, 5, 2), np.uint16)
    place = {"crs": CRS.from_epsg(32633), "transform": ROTATED}
    path = write_raster(tmp_path / "new" / "a.tif", pixels, **place, compress="deflate")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), pixels.transpose(2, 0, 1))
        assert (file.crs, file.transform, file.dtypes[0]) == (*place.values(), "uint16")
    with gdal_quiet(), rasterio.open(write_raster(path, pixels, rows=17)) as file:
        repeated = np.concatenate([pixels] * 3)[:17]
        np.testing.assert_array_equal(file.read(), repeated.transpose(2, 0, 1))
    with pytest.raises(OutputError, match="cannot be written"):
        write_raster(path / "b.tif", pixels)


def test_values_by_hand():
    assert error_classes(TRUTH, MASK).tolist() == VALUES


def test_a_map_is_read_back_with_its_colours_and_place(tmp_path):
    values = np.random.default_rng(1).choice([0, 1, 2, 3, 255], (600, 300)).astype(np.uint8)
    with ErrorMapWriter(tmp_path / "a.tif", like(600, 300, ROTATED)) as writer:
        for row in range(0, 600, 256):
            rows = min(256, 600 - row)
            writer.write(Window(row, 0, rows, 300), values[row : row + rows])
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), values)
        assert (file.crs, file.transform, file.nodata) == (CRS.from_epsg(32633), ROTATED, None)
        palette = file.colormap(1)
    assert {value: palette[value][:3] for value in ERROR_COLOURS} == ERROR_COLOURS


def test_ground_control_points_stay(tmp_path):
    points = (GroundControlPoint(0, 0, 5, 6), GroundControlPoint(1, 0, 5, 7))
    with ErrorMapWriter(tmp_path / "a.tif", like(1, 6, Affine.identity(), None, points)) as writer:
        writer.write(Window(0, 0, 1, 6), error_classes(TRUTH, MASK))
    with gdal_quiet(), rasterio.open(tmp_path / "a.tif") as file:
        assert [(p.x, p.y) for p in file.gcps[0]] == [(5, 6), (5, 7)]
        assert file.read(1).tolist() == VALUES


def test_no_place_to_write_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        ErrorMapWriter(tmp_path / "none" / "a.tif", like(1, 6))
