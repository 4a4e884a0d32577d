"""Rasters to outputs: what is predicted, what is written, and what goes wrong."""

import errno
import io
import json
import os
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from geopandas.testing import assert_geodataframe_equal
from rasterio.enums import MaskFlags

from experiments import vectorise
from jointnet import raster_prediction
from jointnet.prediction import flipped, predict_image
from jointnet.raster_job import FOOTPRINTS, MASK, OVERLAY, PROBABILITIES, output_paths
from jointnet.raster_prediction import ProbabilitySpool, check_outputs, predict_raster
from jointnet.runs import load_run
from preprocessing import pictures, raster_writers, vector_writers
from preprocessing.errors import OutputError, RasterError, RunError
from preprocessing.output_files import publish_all
from preprocessing.rasters import read_label
from preprocessing.tiling import Window, cut
from tests.helpers import StandIn, blotches, make_run, stand_in_run, write_image

NORTH_UP = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)
SOUTH_UP = Affine(0.3, 0, 500_000, 0, 0.3, 5_000_000)
ROTATED = Affine(0.26, 0.15, 500_000, 0.15, -0.26, 5_000_000)


def probabilities_of(folder):
    with rasterio.open(folder / "a_probabilities.tif") as file:
        return file.read(1)


# What is predicted


@pytest.mark.parametrize("shape", [(100, 83), (33, 200), (32, 32), (20, 13), (5, 70), (1, 1)])
def test_equal_to_the_untiled_result_on_the_mirrored_image(tmp_path, shape):
    image = blotches(*shape)
    path = write_image(tmp_path / "a.tif", image)
    done = predict_raster(stand_in_run(), path, tmp_path, probabilities=True)
    around = cut(image, Window(-4, -4, shape[0] + 8, shape[1] + 8))
    untiled = StandIn().predict_on_batch(around[None])[0, 4:-4, 4:-4, 0]
    np.testing.assert_allclose(probabilities_of(tmp_path), untiled, atol=1e-6)
    mask = read_label(tmp_path / "a_output.tif")
    np.testing.assert_array_equal(mask, probabilities_of(tmp_path) >= 0.5)
    assert (done.pixels, done.valid_pixels, done.target_pixels) == (
        image[..., 0].size,
        image[..., 0].size,
        mask.sum(),
    )


def test_a_trained_network_as_in_memory(tmp_path):
    """The raster, read and written by windows, gives what the array gives."""
    run = load_run(make_run(tmp_path / "run"))
    image = blotches(70, 50)
    predict_raster(run, write_image(tmp_path / "a.tif", image), tmp_path, probabilities=True)
    expected = predict_image(run.model.predict_on_batch, image, None, 32, 8)
    np.testing.assert_array_equal(probabilities_of(tmp_path), expected)


def test_augmented_it_is_the_mean_of_the_eight(tmp_path):
    """The filter alone leans; the mean of its eight positions is that of an upright filter."""
    image = blotches(50, 60)
    path = write_image(tmp_path / "a.tif", image)
    predict_raster(stand_in_run(), path, tmp_path, probabilities=True, augment=True)
    expected = np.mean(
        [
            flipped(StandIn().predict_on_batch(flipped(wide, k)), k, back=True)[0, 4:-4, 4:-4, 0]
            for k in range(8)
            for wide in [cut(image, Window(-4, -4, 58, 68))[None]]
        ],
        axis=0,
    )
    np.testing.assert_allclose(probabilities_of(tmp_path), expected, atol=1e-6)


def finer(image, factor):
    return np.repeat(np.repeat(image, factor, 0), factor, 1)


def test_a_finer_image_is_seen_at_the_resolution_of_the_training(tmp_path):
    """Each pixel twice as fine: the network sees the same, the mask is on the finer grid."""
    image = blotches(60, 70)
    coarse = write_image(tmp_path / "a.tif", image)
    (tmp_path / "fine").mkdir()
    half = Affine(0.15, 0, 500_000, 0, -0.15, 5_000_000)
    fine = write_image(tmp_path / "fine" / "a.tif", finer(image, 2), transform=half)
    predict_raster(stand_in_run(), coarse, tmp_path / "1", probabilities=True)
    done = predict_raster(stand_in_run(), fine, tmp_path / "2", probabilities=True)
    assert "resampled" in done.notes[0]
    found = probabilities_of(tmp_path / "2")
    assert found.shape == (120, 140)
    expected = probabilities_of(tmp_path / "1")
    inside = np.s_[1:-1, 1:-1]
    # Linear between centres: the mean of four fine pixels is near the coarse one.
    means = found.reshape(60, 2, 70, 2).mean(axis=(1, 3))
    assert np.abs(means - expected)[inside].mean() < 0.06
    mask = read_label(done.outputs[0])
    np.testing.assert_array_equal(mask, found >= 0.5)
    with rasterio.open(done.outputs[0]) as file:
        assert file.transform.almost_equals(half)
    predict_raster(stand_in_run(), fine, tmp_path / "3", probabilities=True, gsd="native")
    assert np.abs(probabilities_of(tmp_path / "3") - found).max() > 0.1


def test_a_coarser_image_by_what_the_user_says(tmp_path):
    image = finer(blotches(20, 30), 4)[::2, ::2]
    path = write_image(tmp_path / "a.tif", image, crs=None, transform=Affine.identity())
    done = predict_raster(stand_in_run(), path, tmp_path, gsd=0.6, probabilities=True)
    assert probabilities_of(tmp_path).shape == (40, 60)
    assert any("0.6 m per pixel" in note for note in done.notes)


def test_void_of_a_resampled_image_is_void_to_the_pixel(tmp_path):
    image = blotches(90, 80)
    image[20:41, 10:33] = 0
    quarter = Affine(0.1, 0, 500_000, 0, -0.1, 5_000_000)
    path = write_image(tmp_path / "a.tif", image, transform=quarter, nodata=0)
    done = predict_raster(stand_in_run(), path, tmp_path)
    np.testing.assert_array_equal(read_label(done.outputs[0]) == 255, (image == 0).any(axis=2))


def test_threshold(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(40, 40))
    shares = []
    for threshold in (0, None, 0.9):
        done = predict_raster(
            stand_in_run(threshold=0.3),
            path,
            tmp_path / str(threshold),
            threshold=threshold,
            probabilities=True,
        )
        least = 0.3 if threshold is None else threshold
        found = probabilities_of(tmp_path / str(threshold)) >= least
        np.testing.assert_array_equal(read_label(done.outputs[0]), found)
        shares.append(done.target_share)
    assert 1 == shares[0] > shares[1] > shares[2] > 0


def test_bands_are_fed_as_named(tmp_path):
    image = np.zeros((40, 40, 4), np.uint8)
    image[..., 3] = 255
    path = write_image(tmp_path / "a.tif", image, photometric="MINISBLACK")
    assert predict_raster(stand_in_run(), path, tmp_path / "1").target_pixels == 0
    done = predict_raster(stand_in_run(), path, tmp_path / "2", bands=[4, 4, 4])
    assert done.target_share == 1


def test_what_is_not_finite_is_refused(tmp_path):
    run = stand_in_run()
    run.model.predict_on_batch = lambda images: np.full((*images.shape[:3], 1), np.nan)
    path = write_image(tmp_path / "a.tif", blotches(40, 40))
    with pytest.raises(RunError, match="not finite"):
        predict_raster(run, path, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_a_weighted_mean_above_one_by_rounding_is_one(tmp_path):
    run = stand_in_run(overlap=20)
    run.model.predict_on_batch = lambda images: np.ones((*images.shape[:3], 1), np.float32)
    path = write_image(tmp_path / "a.tif", blotches(90, 90))
    predict_raster(run, path, tmp_path, probabilities=True)
    assert (probabilities_of(tmp_path) <= 1).all()


# What is written


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_files_lie_where_the_image_lies(tmp_path, transform):
    image = blotches(300, 400)
    path = write_image(tmp_path / "a.tif", image, transform=transform)
    done = predict_raster(stand_in_run(), path, tmp_path / "out", probabilities=True)
    assert sorted(os.listdir(tmp_path / "out")) == [
        "a_footprints.geojson",
        "a_footprints.qml",
        "a_output.tif",
        "a_overlay.png",
        "a_probabilities.tif",
    ]
    assert sorted(done.outputs) == sorted((tmp_path / "out").iterdir())
    for name, dtype in (("a_output.tif", "uint8"), ("a_probabilities.tif", "float32")):
        with rasterio.open(tmp_path / "out" / name) as file:
            assert (file.height, file.width, file.count) == (300, 400, 1)
            assert file.crs.to_epsg() == 32633 and file.transform.almost_equals(transform, 1e-9)
            assert file.dtypes == (dtype,)
            assert file.profile["tiled"] and file.profile["compress"] in ("zstd", "deflate")
            assert file.overviews(1) == [2]
            if dtype == "uint8":
                assert file.mask_flag_enums == ([MaskFlags.all_valid],) and file.nodata is None
                assert set(np.unique(file.read(1))) == {0, 255}
    # The area of a pixel is the determinant of the affine, but for UTM's scale.
    content = json.loads((tmp_path / "out" / "a_footprints.geojson").read_text())
    frame = geopandas.read_file(tmp_path / "out" / "a_footprints.geojson")
    area = done.target_pixels * abs(transform.determinant)
    assert frame.crs.to_epsg() == 4326 and len(content["features"]) == done.features > 10
    assert frame.area_m2.sum() == pytest.approx(area, rel=2e-3)
    assert frame.total_bounds == pytest.approx([15, 45.15, 15, 45.15], abs=0.01)
    assert cv2.imread(str(tmp_path / "out" / "a_overlay.png")).shape == (300, 400, 3)


@pytest.mark.parametrize("target", ["buildings", "roads"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_layer_is_the_one_that_vectorise_makes(tmp_path, target, probabilities):
    image = blotches(120, 90)
    image[40:60, 20:50] = 0
    path = write_image(tmp_path / "a.tif", image, nodata=0, photometric="RGB")
    run = stand_in_run(target=target)
    done = predict_raster(run, path, tmp_path / "out", probabilities=probabilities)
    mask, _, layer, style, *others = done.outputs
    if not probabilities:
        predict_raster(run, path, tmp_path / "other", probabilities=True)
        others = [tmp_path / "other" / "a_probabilities.tif"]
    (written,) = others
    made = tmp_path / "made.geojson"
    words = [mask, "--probabilities", written, "--target", target, "--output", made]
    assert CliRunner().invoke(vectorise.main, list(map(str, words))).exit_code == 0
    frame = geopandas.read_file(layer)
    assert_geodataframe_equal(frame, geopandas.read_file(made))
    assert style.read_text() == made.with_suffix(".qml").read_text()
    kind = "footprints" if target == "buildings" else "centre_lines"
    assert (layer.name, style) == (f"a_{kind}.geojson", layer.with_suffix(".qml"))
    size, unit = ("area_m2", "m2") if target == "buildings" else ("length_m", "m")
    assert list(frame.columns) == ["id", size, "mean_probability", "geometry"]
    assert frame.mean_probability.between(0, 1).all() and len(frame) == done.features > 5
    assert done.total == pytest.approx(frame[size].sum()) and done.unit == unit


@pytest.mark.parametrize("void", ["nodata", "alpha", "mask"])
def test_void_is_masked_and_nowhere_a_target(tmp_path, void):
    image = blotches(90, 80)
    valid = np.ones((90, 80), bool)
    valid[20:70, 10:40] = False
    image[~valid] = 255
    options = {"nodata": 255} if void == "nodata" else {}
    if void == "alpha":
        image, options = np.dstack([image, valid.astype(np.uint8) * 255]), {"ALPHA": "YES"}
    path = write_image(tmp_path / "a.tif", image, photometric="RGB", **options)
    if void == "mask":
        with rasterio.open(path, "r+") as file:
            file.write_mask(valid)
    done = predict_raster(stand_in_run(), path, tmp_path, probabilities=True)
    with rasterio.open(tmp_path / "a_output.tif") as file:
        assert file.mask_flag_enums == ([MaskFlags.per_dataset],)
        np.testing.assert_array_equal(file.dataset_mask() > 0, valid)
        assert not file.read(1)[~valid].any()
        targets = int((file.read(1) == 255).sum())
    np.testing.assert_array_equal(np.isfinite(probabilities_of(tmp_path)), valid)
    assert (done.valid_pixels, done.target_pixels) == (valid.sum(), targets)
    frame = geopandas.read_file(tmp_path / "a_footprints.geojson")
    assert frame.area_m2.sum() == pytest.approx(targets * 0.09, rel=2e-3)


def test_all_void_gives_empty_outputs(tmp_path):
    path = write_image(tmp_path / "a.tif", np.zeros((40, 50, 3), np.uint8), nodata=0)
    done = predict_raster(stand_in_run(), path, tmp_path, probabilities=True)
    assert (done.valid_pixels, done.features, done.target_share) == (0, 0, 0)
    assert (read_label(tmp_path / "a_output.tif") == 255).all()
    assert len(geopandas.read_file(tmp_path / "a_footprints.geojson")) == 0
    assert np.isnan(probabilities_of(tmp_path)).all()


def test_without_a_crs_footprints_are_in_pixels(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(40, 50), crs=None, transform=Affine.identity())
    done = predict_raster(stand_in_run(), path, tmp_path)
    assert "pixel coordinates" in done.notes[0]
    content = json.loads((tmp_path / "a_footprints.geojson").read_text())
    areas = [feature["properties"]["area_px"] for feature in content["features"]]
    assert sum(areas) == done.target_pixels > 0


@pytest.mark.parametrize("driver", ["JPEG", "PNG"])
def test_pictures_are_rasters_too(tmp_path, driver):
    path = write_image(tmp_path / "a.tif", blotches(40, 50))
    picture = cv2.imread(str(path))
    name = f"a.{driver.lower()}"
    cv2.imwrite(str(tmp_path / name), picture)
    assert predict_raster(stand_in_run(), tmp_path / name, tmp_path).target_pixels > 0


@pytest.mark.parametrize("terminal", [False, True])
def test_the_bar_is_for_terminals(tmp_path, monkeypatch, terminal):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", screen)
    path = write_image(tmp_path / "a.tif", blotches(40, 50))
    predict_raster(stand_in_run(), path, tmp_path, progress=True)
    assert ("a.tif:" in screen.getvalue()) == terminal
    written = screen.getvalue()
    predict_raster(stand_in_run(), path, tmp_path, overwrite=True)
    assert screen.getvalue() == written


def test_one_row_of_windows_in_memory_at_most(tmp_path, monkeypatch):
    """The mask is written strip by strip, from the top, each no taller than a window."""
    written = []
    write = raster_writers.MaskWriter.write

    def spy(self, window, mask):
        written.append(window)
        write(self, window, mask)

    monkeypatch.setattr(raster_writers.MaskWriter, "write", spy)
    predict_raster(stand_in_run(), write_image(tmp_path / "a.tif", blotches(200, 20)), tmp_path)
    assert all(window.height <= 32 and window.width == 20 for window in written)
    ends = [0, *(window.row + window.height for window in written)]
    assert [window.row for window in written] == ends[:-1] and ends[-1] == 200


# What goes wrong


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(*_, **__):
    raise KeyboardInterrupt


PLACES = {
    "space": (raster_writers, "require_space"),
    "mask": (raster_writers.MaskWriter, "write"),
    "probabilities": (raster_writers.ProbabilityWriter, "write"),
    "layer": (vector_writers, "write_layers"),
    "picture": (pictures, "write_png"),
    "overlay": (pictures, "overlay"),
    "arrival": (raster_prediction, "publish_all"),
}


@pytest.mark.parametrize("failure", [full, interrupted])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("older", [False, True])
def test_on_failure_nothing_is_left_and_nothing_lost(tmp_path, monkeypatch, place, failure, older):
    path = write_image(tmp_path / "a.tif", blotches(40, 40))
    out = tmp_path / "out"
    out.mkdir()
    if older:
        (out / "a_output.tif").write_text("old")
    monkeypatch.setattr(*PLACES[place], failure)
    expected = KeyboardInterrupt if failure is interrupted else OutputError
    with pytest.raises(expected) as caught:
        predict_raster(stand_in_run(), path, out, probabilities=True, overwrite=True)
    if failure is full:
        assert "No space left on device" in str(caught.value)
        assert str(out / "a_") in str(caught.value) and "/." not in str(caught.value)
    assert {path.name: path.read_text() for path in out.iterdir()} == (
        {"a_output.tif": "old"} if older else {}
    )


def test_no_right_to_write(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = write_image(tmp_path / "a.tif", blotches(40, 40))
    monkeypatch.setattr("tempfile.mkdtemp", denied)
    with pytest.raises(OutputError, match="out/a_output.tif: cannot be written: Permission denied"):
        predict_raster(stand_in_run(), path, tmp_path / "out")


def test_corrupt_halfway(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(600, 40), compress="deflate", blockysize=16)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(RasterError, match="window of .* at row"):
        predict_raster(stand_in_run(), path, tmp_path / "out")
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_existing_outputs(tmp_path):
    path = write_image(tmp_path / "a.tif", blotches(40, 40))
    first = predict_raster(stand_in_run(), path, tmp_path)
    before = first.outputs[0].read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        predict_raster(stand_in_run(), path, tmp_path, threshold=0)
    assert first.outputs[0].read_bytes() == before
    (tmp_path / "a_output.tif.aux.xml").touch()
    again = predict_raster(stand_in_run(), path, tmp_path, threshold=0, overwrite=True)
    assert again.outputs == first.outputs and first.outputs[0].read_bytes() != before
    assert not (tmp_path / "a_output.tif.aux.xml").exists()


def test_names_begin_with_the_stem():
    assert output_paths("a/b.c.tif", "out") == {
        MASK: Path("out/b.c_output.tif"),
        OVERLAY: Path("out/b.c_overlay.png"),
        FOOTPRINTS: Path("out/b.c_footprints.geojson"),
        "_footprints.qml": Path("out/b.c_footprints.qml"),
    }
    assert [str(path) for path in output_paths("b.tif", "out", target="roads").values()] == [
        "out/b_output.tif",
        "out/b_overlay.png",
        "out/b_centre_lines.geojson",
        "out/b_centre_lines.qml",
    ]
    assert output_paths("b.tif", "out", True)[PROBABILITIES] == Path("out/b_probabilities.tif")


def test_what_is_free_passes(tmp_path):
    check_outputs([Path("a.tif"), Path("b.tif")], tmp_path / "not" / "there")


@pytest.mark.parametrize("kind", [MASK, OVERLAY, FOOTPRINTS, "_footprints.qml", PROBABILITIES])
def test_each_existing_output_is_refused(tmp_path, kind):
    (tmp_path / f"b{kind}").touch()
    images = [Path("a.tif"), Path("b.tif")]
    with pytest.raises(OutputError, match=f"b{kind}.*--overwrite"):
        check_outputs(images, tmp_path, probabilities=True)
    check_outputs(images, tmp_path, probabilities=True, overwrite=True)


def test_an_output_that_is_not_asked_for_is_in_no_way(tmp_path):
    (tmp_path / f"a{PROBABILITIES}").touch()
    check_outputs([Path("a.tif")], tmp_path)


def test_images_of_one_stem_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"x/a\.tif, y/a\.jpg.*--output"):
        check_outputs([Path("x/a.tif"), Path("b.tif"), Path("y/a.jpg")], tmp_path, overwrite=True)


def test_an_image_is_never_overwritten_by_the_outputs_of_another(tmp_path):
    images = [tmp_path / "a.tif", tmp_path / "a_output.tif"]
    with pytest.raises(OutputError, match="input image"):
        check_outputs(images, tmp_path, overwrite=True)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="--output names a folder"):
        check_outputs([Path("a.tif")], tmp_path / "out")


@pytest.fixture
def moves(tmp_path):
    """Two finished files, the places they go to, and an empty folder."""
    for folder in ("finished", "places", "aside"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / "finished" / name).write_text(f"new {name}")
    return [(tmp_path / "finished" / name, tmp_path / "places" / name) for name in ("a", "b")]


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_arrive(tmp_path, moves):
    publish_all(moves, tmp_path / "aside")
    assert contents(tmp_path / "places") == {"a": "new a", "b": "new b"}


def test_older_files_go_with_their_side_files(tmp_path, moves):
    for name in ("a", "a.aux.xml", "b", "b.ovr", "c.ovr"):
        (tmp_path / "places" / name).write_text("old")
    publish_all(moves, tmp_path / "aside", overwrite=True)
    assert contents(tmp_path / "places") == {"a": "new a", "b": "new b", "c.ovr": "old"}


def test_what_came_to_be_in_the_meantime_stays(tmp_path, moves):
    (tmp_path / "places" / "b").write_text("old")
    with pytest.raises(OutputError, match="exists"):
        publish_all(moves, tmp_path / "aside")
    assert contents(tmp_path / "places") == {"b": "old"}


@pytest.mark.parametrize("failure", [OSError("disk"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [{}, {"a": "old", "a.msk": "old", "b": "old"}])
@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
def test_all_or_none(tmp_path, moves, monkeypatch, failure, old, failing):
    """Whichever rename fails, the places are as they were."""
    for name, text in old.items():
        (tmp_path / "places" / name).write_text(text)
    replace, calls = os.replace, []
    renames = len(moves) + len(old)

    def fails(source, path):
        calls.append(path)
        if len(calls) == min(failing, renames):
            raise failure
        replace(source, path)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(type(failure)):
        publish_all(moves, tmp_path / "aside", overwrite=True)
    assert contents(tmp_path / "places") == old


def test_what_is_written_in_strips_is_read_in_windows(tmp_path):
    values = np.random.default_rng(0).random((23, 7)).astype(np.float32)
    values[3, 2:] = np.nan
    spool = ProbabilitySpool(tmp_path / "p", 7)
    for first in range(0, 23, 5):
        spool.write(values[first : first + 5])
    assert spool.path.stat().st_size == values.nbytes
    for window in (Window(0, 0, 23, 7), Window(4, 0, 9, 7), Window(22, 3, 1, 2)):
        read = spool.read(window)
        assert read.dtype == np.float64
        np.testing.assert_array_equal(read, values[window.slices])


def test_rows_that_are_not_there_are_an_error(tmp_path):
    spool = ProbabilitySpool(tmp_path / "p", 7)
    spool.write(np.zeros((3, 7), np.float32))
    with pytest.raises(OSError, match="ends before row 5"):
        spool.read(Window(2, 0, 3, 7))
