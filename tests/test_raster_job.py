"""One raster to predict: its key, and going on after an interruption."""

import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from jointnet import raster_job, raster_prediction
from jointnet.raster_job import BandFiles, PredictionOptions, RasterJob
from jointnet.raster_prediction import finish, predict_raster, run_job
from jointnet.runs import load_run
from jointnet.workers import predict_bands
from preprocessing.errors import OutputError, RasterError
from preprocessing.rasters import read_label
from tests.helpers import blotches, make_run, stored_stand_in_run, write_image

ROOT = Path(__file__).resolve().parents[1]
# Rows of windows lie 24 apart: three bands.
SHAPE = (600, 40)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stored_stand_in_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "a.tif", blotches(*SHAPE))


def job(run, image, folder, **options):
    return RasterJob(run, image, folder, PredictionOptions(**options))


def broken(tmp_path):
    path = write_image(tmp_path / "b.tif", blotches(*SHAPE), compress="deflate", blockysize=16)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path, content


# The key


def test_the_key_is_that_of_network_options_and_input(run, image, tmp_path):
    first = job(run, image, tmp_path).key
    assert job(run, image, tmp_path / "elsewhere").key == first
    assert job(run, image, tmp_path, threshold=0.5).key == first
    assert job(run, image, tmp_path, batch_size=16).key == first
    others = [
        {"threshold": 0.6},
        {"bands": [3, 2, 1]},
        {"probabilities": True},
        {"batch_size": 3},
        {"augment": True},
    ]
    keys = {job(run, image, tmp_path, **options).key for options in others}
    assert len(keys | {first}) == len(others) + 1
    os.utime(image, ns=(1, 1))
    assert job(run, image, tmp_path).key != first


def test_the_key_is_that_of_the_weights(image, tmp_path):
    keys = {
        job(load_run(make_run(tmp_path / str(seed), seed=seed)), image, tmp_path).key
        for seed in (0, 1)
    }
    assert len(keys) == 2


def test_sources_of_a_vrt_count(run, tmp_path, image):
    vrt = tmp_path / "a.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">a.tif</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for n in (1, 2, 3)
    )
    height, width = SHAPE
    vrt.write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{bands}</VRTDataset>')
    before = job(run, vrt, tmp_path).key
    os.utime(image, ns=(1, 1))
    assert job(run, vrt, tmp_path).key != before


def test_a_key_that_holds_no_place(run, tmp_path):
    """Two views of the same shared files, and of the same results."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    write_image(one / "a.tif", blotches(*SHAPE))
    shutil.copytree(one, other)
    (tmp_path / "results").mkdir()
    for place in (one, other):
        os.symlink(tmp_path / "results", place / "out")
    first, second = (job(run, place / "a.tif", place / "out") for place in (one, other))
    assert first.key == second.key and first.files.folder.name == second.files.folder.name
    assert run_job(first, part=(1, 2)) is None
    # What the first has written down of where things lie is of no use to the second.
    shutil.rmtree(one)
    done = run_job(second, part=(2, 2))
    assert sorted(os.listdir(tmp_path / "results")) == sorted(path.name for path in done.outputs)
    alone = predict_raster(run, other / "a.tif", tmp_path / "alone")
    for ours, theirs in zip(done.outputs, alone.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


# Pixels that are not square


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (3, 2)])
def test_pixels_that_are_not_square_are_fed_as_square_ones(run, tmp_path, rows, columns):
    """Each pixel cut into rows and columns: means of these are the pixel."""
    image = blotches(90, 70)
    square = job(run, write_image(tmp_path / "a.tif", image), tmp_path / "a")
    cut = np.repeat(np.repeat(image, rows, axis=0), columns, axis=1)
    transform = Affine(0.3 / columns, 0, 500_000, 0, -0.3 / rows, 5_000_000)
    path = write_image(tmp_path / "b.tif", cut, transform=transform)
    fed = job(run, path, tmp_path / "b")
    assert fed.size == square.size == (90, 70)
    for begun in (fed, square):
        predict_bands(begun, begun.begin())
    ours, theirs = (
        np.concatenate([strip for _, strip in begun.files.strips()]) for begun in (fed, square)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    run_job(fed)
    mask = read_label(fed.paths["_output.tif"])
    assert mask.shape == cut.shape[:2]
    expected = np.repeat(np.repeat(theirs > 0.5, rows, axis=0), columns, axis=1)
    assert (mask == expected).mean() > 0.97


def test_an_image_in_degrees_is_resampled_on_each_axis(run, tmp_path):
    # At 60 degrees, a pixel as high as 0.3 m is half as wide.
    step = 0.3 / 111_412
    transform = Affine(step, 0, 10, 0, -step, 60)
    path = write_image(tmp_path / "a.tif", blotches(60, 80), crs="EPSG:4326", transform=transform)
    assert job(run, path, tmp_path).size == (60, 40)
    assert job(run, path, tmp_path, gsd="native").size == (60, 80)
    assert job(run, path, tmp_path, gsd=0.15).size == (30, 40)


def test_a_real_image_in_degrees(run, real_data, tmp_path):
    (path,) = (real_data / "geo_cases").rglob("RGB-PanSharpen_img1447.tif")
    # 0.300 m high and 0.198 m wide.
    assert job(run, path, tmp_path).size == (651, 428)


# Going on


def test_a_second_start_predicts_only_what_is_missing(run, image, tmp_path, monkeypatch):
    whole = predict_raster(run, image, tmp_path / "whole", probabilities=True)
    begun = job(run, image, tmp_path / "out", probabilities=True)
    predict_bands(begun, begun.begin()[:2])
    read = []
    predict = RasterJob.predict
    monkeypatch.setattr(
        RasterJob, "predict", lambda self, band, *rest: (read.append(band), predict(self, band))
    )
    done = predict_raster(run, image, tmp_path / "out", probabilities=True)
    assert [band.number for band in read] == [2]
    for ours, theirs in zip(done.outputs, whole.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert sorted(os.listdir(tmp_path / "out")) == sorted(path.name for path in done.outputs)


def test_what_is_done_is_known_by_its_key(run, image, tmp_path):
    assert not job(run, image, tmp_path).is_done()
    predict_raster(run, image, tmp_path)
    assert job(run, image, tmp_path).is_done()
    assert not job(run, image, tmp_path, threshold=0.9).is_done()
    assert not job(run, image, tmp_path, probabilities=True).is_done()
    (tmp_path / "a_overlay.png").unlink()
    assert not job(run, image, tmp_path).is_done()


def test_a_block_that_cannot_be_read_fails_its_band_and_no_other(run, tmp_path):
    path, content = broken(tmp_path)
    with pytest.raises(RasterError) as caught:
        predict_raster(run, path, tmp_path / "out")
    line = str(caught.value)
    assert "cannot read the window of" in line
    assert (
        "rows 188 to 388, 380 to 600 are missing, 1 of 3 bands are kept: while the file stays"
        in line
    )
    assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == []
    # Repaired it is another input: nothing of the old is taken.
    path.write_bytes(content)
    predict_raster(run, path, tmp_path / "out")
    assert read_label(tmp_path / "out" / "b_output.tif").any()


def test_a_raster_that_changes_on_the_way_is_refused(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    bands = begun.begin()
    predict_bands(begun, bands[:1])
    os.utime(image, ns=(1, 1))
    read = []
    with pytest.raises(RasterError, match="changed while it was predicted; start again") as caught:
        begun.predict(bands[1], lambda: read.append(1))
    assert "kept" not in str(caught.value)
    # Nothing more was read, and nothing of it is of use to another start.
    assert read == []
    assert not begun.files.folder.exists()


def test_a_raster_that_changes_while_a_band_is_read_loses_the_band(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    bands = begun.begin()
    with pytest.raises(RasterError, match="changed while it was predicted"):
        begun.predict(bands[0], lambda: os.utime(image, ns=(1, 1)))
    assert not begun.files.folder.exists()


def test_outputs_that_a_killed_process_had_begun_to_put_in_place_are_replaced(
    run, image, tmp_path, monkeypatch
):
    whole = predict_raster(run, image, tmp_path / "whole")
    publish, arrived = raster_prediction.publish_all, []

    def killed(moves, *rest):
        # As after kill -9: no rollback, the bands stay.
        os.replace(*moves[0])
        arrived.append(moves[0][1])
        raise SystemExit

    monkeypatch.setattr(raster_prediction, "publish_all", killed)
    # Nor does a killed process take its word back.
    monkeypatch.setattr(BandFiles, "end_publishing", lambda self: None)
    with pytest.raises(SystemExit):
        predict_raster(run, image, tmp_path / "out")
    monkeypatch.setattr(raster_prediction, "publish_all", publish)
    assert arrived[0].exists() and arrived[0].name != "a_output.tif"
    assert not job(run, image, tmp_path / "out").is_done()
    done = predict_raster(run, image, tmp_path / "out")
    for ours, theirs in zip(done.outputs, whole.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_outputs_of_another_that_came_meanwhile_are_not_replaced_by_a_second_start(
    run, image, tmp_path, monkeypatch
):
    overlay = tmp_path / "out" / "a_overlay.png"
    finished = raster_prediction.publish_all

    def late(*words):
        overlay.write_text("of another")
        finished(*words)

    monkeypatch.setattr(raster_prediction, "publish_all", late)
    for _ in range(2):
        with pytest.raises(OutputError, match="a_overlay.png: exists already"):
            predict_raster(run, image, tmp_path / "out")
        assert overlay.read_text() == "of another"


def test_the_claim_of_a_dead_process_is_taken_over(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    predict_bands(begun, begun.begin())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    claim = begun.files.folder / "claimed"
    claim.write_text(f"{platform.node()} {os.getppid()}")
    assert run_job(begun, part=(1, 2)) is None
    with pytest.raises(OutputError, match="another process is writing it"):
        run_job(begun)
    claim.write_text(f"{platform.node()} {dead.pid}")
    assert run_job(begun, part=(1, 2)) is not None


def test_a_claim_of_this_process_number_counts_while_it_is_one_of_its_own(run, image, tmp_path):
    begun, other = (job(run, image, tmp_path / "out") for _ in range(2))
    predict_bands(begun, begun.begin())
    claim = begun.files.folder / "claimed"
    # As a container leaves it that is killed and starts again, with the same number.
    claim.write_text(f"{platform.node()} {os.getpid()}")
    assert begun.files.claim()
    assert not other.files.claim() and not begun.files.claim()
    begun.files.release()
    assert other.files.claim()
    other.files.remove()


def test_a_claim_that_a_loss_of_power_left_empty_holds_for_a_day(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    predict_bands(begun, begun.begin())
    claim = begun.files.folder / "claimed"
    claim.touch()
    assert not begun.files.claim()
    os.utime(claim, (0, 0))
    assert begun.files.claim()


def test_the_claim_of_another_machine_holds_for_a_day(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    predict_bands(begun, begun.begin())
    claim = begun.files.folder / "claimed"
    claim.write_text("elsewhere 1")
    assert run_job(begun, part=(1, 2)) is None
    os.utime(claim, (0, 0))
    assert run_job(begun, part=(1, 2)) is not None


def test_what_was_written_when_the_disk_filled_up_goes_with_its_reading_thread(
    run, image, tmp_path, monkeypatch
):
    begun = job(run, image, tmp_path / "out")
    (band, *_) = begun.begin()
    closed = []

    class Reader:
        def __init__(self, reader):
            self.reader = reader

        def __enter__(self):
            return self

        def __exit__(self, *error):
            closed.append(threading.active_count())
            self.reader.close()

        def read(self, window):
            time.sleep(0.02)
            return self.reader.read(window)

    monkeypatch.setattr(begun, "_fed", lambda: Reader(begun.reader()))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    before = threading.active_count()
    with pytest.raises(OutputError, match="No space left"):
        begun.predict(band)
    assert closed == [before]
    assert [p.name for p in begun.files.folder.iterdir()] == ["job.json"]


def test_a_raster_that_vanishes_on_the_way_is_refused(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    predict_bands(begun, begun.begin())
    image.unlink()
    with pytest.raises(RasterError, match="no such file"):
        finish(begun)
    assert not begun.paths["_output.tif"].exists()


def test_formats_are_told_apart(run, image, tmp_path, monkeypatch):
    before = job(run, image, tmp_path).key
    monkeypatch.setattr(raster_job, "FORMAT", "another")
    assert job(run, image, tmp_path).key != before
