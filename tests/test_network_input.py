"""What a raster must be to be fed to a network, and what is said of it."""

import itertools
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from jointnet.network_input import NetworkInput, fed_steps
from preprocessing.errors import RasterError
from preprocessing.rasters import read_image
from tests.helpers import blotches, stand_in_run, write_image
from tests.range_server import RangeServer


def notes(path, named=None, **config):
    return NetworkInput(stand_in_run(**config), path, named).notes


def test_a_plain_image_has_no_notes(tmp_path):
    assert notes(write_image(tmp_path / "a.tif", blotches(20, 30))) == []


def test_bands_out_of_order_are_said(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(20, 30, 4), photometric="MINISBLACK")
    (note,) = notes(path)
    assert note.startswith("Bands taken: 1 (gray)") and "--bands" in note
    assert notes(path, [3, 2, 1]) == []


@pytest.mark.parametrize(
    ("metres", "what"),
    [
        (0.3, None),
        (0.24, None),
        (0.22, "resampled"),
        (0.37, None),
        (0.38, "resampled"),
        (1.1, "resampled"),
        (2, "worse"),
        (0.01, "worse"),
    ],
)
def test_a_ground_distance_far_from_that_of_the_training_is_said(tmp_path, metres, what):
    transform = Affine(metres, 0, 500_000, 0, -metres, 5_000_000)
    found = notes(write_image(tmp_path / "a.tif", blotches(20, 30), transform=transform))
    assert len(found) == (what is not None)
    if what:
        # UTM is off by up to 0.04 % there.
        assert re.fullmatch(rf"{metres:g}\d* m per pixel, .* at 0\.3 m: .*{what}.*\.", found[0])


@pytest.mark.parametrize(
    ("found", "given", "fed"),
    [
        (0.15, None, 0.15),
        (0.15, "native", None),
        (0.15, 0.3, None),
        (None, None, None),
        (None, 0.15, 0.15),
        (0.3, 0.6, 0.6),
        (1.3, None, None),
        (0.0185, None, None),
        (0.019, None, 0.019),
    ],
)
def test_what_is_resampled(found, given, fed):
    found, fed = (side and (side, side) for side in (found, fed))
    assert fed_steps(stand_in_run(), found, given) == fed
    assert fed_steps(stand_in_run(gsd=None), found, given) is None


@pytest.mark.parametrize(
    ("found", "given", "fed"),
    [
        # One axis is far, or both are near and far from each other.
        ((0.3, 0.15), None, True),
        ((0.15, 0.3), None, True),
        ((0.27, 0.36), None, True),
        ((0.28, 0.34), None, False),
        # Far enough that resampling would be of no use.
        ((0.3, 1.3), None, False),
        ((0.018, 0.3), None, False),
        # What the user says is that they are square.
        ((0.3, 0.15), 0.3, False),
        ((0.3, 0.15), "native", False),
    ],
)
def test_each_axis_counts(found, given, fed):
    assert fed_steps(stand_in_run(), found, given) == (found if fed else None)


@pytest.mark.parametrize(
    ("width", "height", "note"),
    [
        (0.15, 0.3, "Pixels of 0.15 m x 0.3 m (width x height), the model was trained at 0.3 m: "),
        (0.27, 0.36, "Pixels of 0.27 m x 0.36 m (width x height), the model was trained at "),
        (0.15, 0.16, "0.15 m per pixel, the model was trained at 0.3 m: resampled"),
        (0.28, 0.34, None),
    ],
)
def test_pixels_that_are_not_square_are_said(tmp_path, width, height, note):
    # On the equator of EPSG:3857 its metres are metres, all but the flattening's 0.7 %.
    transform = Affine(width, 0, 0, 0, -height, 0)
    path = write_image(tmp_path / "a.tif", blotches(20, 30), transform=transform, crs="EPSG:3857")
    found = notes(path)
    assert len(found) == (note is not None)
    assert note is None or (found[0].startswith(note) and "resampled to that" in found[0])
    assert NetworkInput(stand_in_run(), path, gsd="native").notes == [
        line.replace("resampled to that, and the mask back", "expect a worse result")
        for line in found
    ]


def test_the_command_for_a_remote_raster_names_it_as_gdal_does(tmp_path):
    write_image(tmp_path / "a.tif", deep(40, 50))
    with RangeServer(tmp_path) as server:
        line = refusal(f"{server.address}/a.tif")
    assert f"0 255 /vsicurl/{server.address}/a.tif a_uint8.tif`" in line


def test_what_the_user_says_of_the_ground_is_believed(tmp_path):
    placed = write_image(tmp_path / "a.tif", blotches(20, 30))
    bare = write_image(tmp_path / "b.tif", blotches(20, 30), crs=None, transform=Affine.identity())
    run = stand_in_run()
    assert NetworkInput(run, placed, gsd=0.3).notes == []
    assert NetworkInput(run, placed, gsd=0.15).notes[0].startswith("0.15 m per pixel")
    (note,) = NetworkInput(run, bare).notes
    assert note.endswith("the model expects 0.3 m per pixel, --gsd says what it has.")
    assert "expects" not in NetworkInput(run, bare, gsd=0.3).notes[0]
    assert "resampled" in NetworkInput(run, bare, gsd=0.15).notes[1]


@pytest.mark.parametrize(("metres", "said"), [(3.1, "3.1"), (120.1, "120"), (3e-4, "0.0003")])
def test_numbers_in_a_note_have_no_exponent(tmp_path, metres, said):
    transform = Affine(metres, 0, 500_000, 0, -metres, 5_000_000)
    (note,) = notes(write_image(tmp_path / "a.tif", blotches(8, 8), transform=transform))
    assert note.startswith(f"{said} m per pixel")


def test_a_model_that_knows_no_ground_distance_says_nothing_about_it(tmp_path):
    transform = Affine(3, 0, 500_000, 0, -3, 5_000_000)
    path = write_image(tmp_path / "a.tif", blotches(20, 30), transform=transform)
    assert notes(path, gsd=None) == []


SITE_GRID = 'LOCAL_CS["site grid",UNIT["metre",1]]'


@pytest.mark.parametrize(
    ("placed", "words"),
    [
        ({"crs": None}, "No CRS"),
        ({"transform": Affine.identity()}, "No affine"),
        ({"crs": SITE_GRID}, "CRS without a place"),
    ],
)
def test_no_place_on_the_ground_is_said(tmp_path, placed, words):
    (note,) = notes(write_image(tmp_path / "a.tif", blotches(20, 30), **placed))
    assert note.startswith(words)
    assert "pixel coordinates" in note and "0.3 m per pixel" in note


def placed_by(pixels, off=0.0):
    """Control points at (column, row), moved about by so many metres."""
    random = np.random.default_rng(0)
    transform = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)
    places = [np.array(transform @ pixel) + off * random.normal(size=2) for pixel in pixels]
    gcps = [GroundControlPoint(r, c, *place) for (c, r), place in zip(pixels, places, strict=True)]
    return {"gcps": gcps, "transform": None}


CORNERS = [(0, 0), (30, 0), (30, 20), (0, 20)]


@pytest.mark.parametrize(
    ("off", "words"), [(0.01, "less than a pixel"), (0.5, "pixels; `gdalwarp")]
)
def test_a_place_by_ground_control_points_is_said(tmp_path, off, words):
    grid = [*CORNERS, (15, 10), (15, 0), (15, 20), (0, 10), (30, 10)]
    path = write_image(tmp_path / "a.tif", blotches(20, 30), **placed_by(grid, off))
    note, *others = notes(path, gsd=None)
    assert note.startswith("Placed by an affine fitted to its 9 ground control points")
    assert words in note and not others


def test_ground_control_points_give_the_ground_distance(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(20, 30), **placed_by(CORNERS))
    assert [note.split(" ")[0] for note in notes(path)] == ["Placed"]
    (_, note) = notes(path, gsd=1.0)
    assert note.startswith("0.3 m per pixel, the model was trained at 1 m")


def test_ground_control_points_that_give_no_place_are_said(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(20, 30), **placed_by(CORNERS[:2]))
    (note,) = notes(path)
    assert note.startswith("2 ground control points that give no place") and "pixel coord" in note


def test_rational_polynomials_are_not_used(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(20, 30), crs=None, transform=None)
    one, line, sample = ("0 " * at + "1" + " 0" * (19 - at) for at in (0, 2, 1))
    tags = {"LINE_NUM_COEFF": line, "SAMP_NUM_COEFF": sample}
    tags |= {"LINE_DEN_COEFF": one, "SAMP_DEN_COEFF": one}
    tags |= {f"{name}_OFF": "5" for name in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")}
    tags |= {f"{name}_SCALE": "5" for name in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")}
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="RPC", **tags)
    (note,) = notes(path)
    assert note.startswith("Only RPCs, which are not used (`gdalwarp -rpc ")
    assert "pixel coordinates" in note


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_near_infrared_tagged_alpha_is_said(tmp_path, dtype):
    image = blotches(60, 70, 4).astype(dtype)
    path = write_image(tmp_path / "a.tif", image, photometric="RGB", ALPHA="YES")
    (note,) = notes(path, dtype=np.dtype(dtype).name)
    assert note.startswith("Band 4 is tagged alpha, so its zeros are void, but varies as imagery")
    assert "`gdal_edit.py -colorinterp_4 undefined FILE`" in note
    # What the command does.
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:3], ColorInterp.undefined]
    assert notes(path, dtype=np.dtype(dtype).name) == []
    assert notes(path, bands=4, dtype=np.dtype(dtype).name)[0].startswith("Bands taken: 1 (red)")


def test_near_infrared_tagged_alpha_is_fed_where_it_is_named(tmp_path):
    image = blotches(60, 70, 4)
    path = write_image(tmp_path / "a.tif", image, photometric="RGB", ALPHA="YES")
    (note,) = notes(path, [1, 2, 3, 4], bands=4)
    assert note.startswith("Band 4 is tagged alpha and fed as imagery")
    with pytest.raises(RasterError, match="3 bands beside alpha, the model takes 4; `--bands 1,2"):
        notes(path, bands=4)


@pytest.mark.parametrize(
    ("count", "bands", "words"), [(1, None, "1 band"), (2, None, "2 bands"), (3, [1, 2], "2 bands")]
)
def test_fewer_bands_are_refused(tmp_path, count, bands, words):
    path = write_image(tmp_path / "a.tif", blotches(20, 30, count))
    with pytest.raises(RasterError, match=f"{words}.*the model takes 3"):
        notes(path, bands)


def test_a_model_of_other_bands_takes_them(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(20, 30, 5), photometric="MINISBLACK")
    (note,) = notes(path, bands=5)
    assert "Bands taken" in note


def refusal(path, named=None, **config):
    with pytest.raises(RasterError) as caught:
        notes(path, named, **config)
    line = str(caught.value)
    assert "\n" not in line
    return line


def deep(height, width, bands=3):
    """uint16 whose bands differ in range: 1000 to 2000, 2000 to 4000, 3000 to 6000."""
    ramp = np.linspace(1000, 2000, height * width).reshape(height, width, 1)
    return (ramp * np.arange(1, bands + 1)).astype(np.uint16)


def test_another_dtype_is_refused_with_the_range_of_each_band(tmp_path):
    line = refusal(write_image(tmp_path / "a b.tif", deep(40, 50)))
    assert "pixels are uint16, the model takes uint8" in line
    for band, (low, high) in {1: (1020, 1980), 2: (2040, 3960), 3: (3060, 5940)}.items():
        found = re.search(rf"-scale_{band} (\S+) (\S+) 0 255", line)
        assert [float(found[1]), float(found[2])] == pytest.approx([low, high], abs=3)
    assert "'" + str(tmp_path / "a b.tif") + "'" in line


def test_only_the_bands_fed_are_scaled_each_once(tmp_path):
    path = write_image(tmp_path / "a.tif", deep(40, 50, 4), photometric="MINISBLACK")
    assert re.findall(r"-scale_(\d)", refusal(path, [4, 2, 2])) == ["2", "4"]


def test_a_constant_band_has_a_range(tmp_path):
    line = refusal(write_image(tmp_path / "a.tif", np.full((9, 9, 3), 7, np.uint16)))
    assert "-scale_1 7 8 0 255" in line


def test_void_is_outside_the_range(tmp_path):
    image = deep(40, 50)
    image[:20] = 0
    line = refusal(write_image(tmp_path / "a.tif", image, nodata=0))
    assert float(re.search(r"-scale_1 (\S+)", line)[1]) > 1500


def test_nothing_to_scale_where_all_is_void(tmp_path):
    line = refusal(write_image(tmp_path / "a.tif", np.zeros((9, 9, 3), np.uint16), nodata=0))
    assert "gdal_translate -ot Byte /" in line


def test_a_model_of_another_dtype_gives_no_recipe_that_would_be_a_guess(tmp_path):
    line = refusal(write_image(tmp_path / "a.tif", blotches(9, 9)), dtype="uint16")
    assert "give the imagery in uint16" in line and "gdal_translate" not in line


@pytest.mark.skipif(shutil.which("gdal_translate") is None, reason="no gdal_translate here")
@pytest.mark.parametrize(
    ("void", "dtype"),
    [
        *itertools.product(
            ["nothing", "nodata", "mask", "alpha"], [np.uint16, np.int16, np.float32]
        ),
    ],
)
def test_the_command_named_works(tmp_path, void, dtype):
    """It makes a file that is taken, with the same validity, dark pixels included."""
    image = deep(40, 50).astype(dtype)
    image[0, :9] = 1
    options = {}
    if void == "nodata":
        options["nodata"] = -9999 if dtype is np.float32 else 0
        image[10:20] = options["nodata"]
    if void == "alpha":
        alpha = np.full((40, 50, 1), 65_535 if dtype is np.uint16 else 255, dtype)
        alpha[10:20] = 0
        image, options = np.concatenate([image, alpha], axis=2), {"ALPHA": "YES"}
    path = write_image(tmp_path / "a.tif", image, photometric="RGB", **options)
    if void == "mask":
        with rasterio.open(path, "r+") as file:
            file.write_mask((np.arange(40)[:, None] // 10 != 1) & np.ones((40, 50), bool))
    command = re.search("`(.*)`", refusal(path))[1]
    done = subprocess.run(shlex.split(command), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert notes(tmp_path / "a_uint8.tif") == []
    _, valid = read_image(path)
    after, still_valid = read_image(tmp_path / "a_uint8.tif")
    np.testing.assert_array_equal(valid, still_valid)
    assert valid.all() == (void == "nothing")
    # From edge to edge: the ramp keeps its order.
    assert after[valid].min() == 0 and after[valid].max() == 255
    assert (np.diff(after[valid][9:, 0].astype(int)) >= 0).all()
