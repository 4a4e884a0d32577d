"""One raster to predict: its key, and going on after an interruption."""

import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jointnet import band_workers, raster_job, raster_prediction
from jointnet.band_files import BandFiles
from jointnet.band_runs import predict_bands
from jointnet.band_workers import part_of, predict_with_workers
from jointnet.job_folders import job_of
from jointnet.raster_job import PredictionOptions, RasterJob
from jointnet.raster_prediction import finish, predict_raster, run_job
from jointnet.runs import load_run
from preprocessing.errors import OutputError, RasterError, RunError
from preprocessing.rasters import read_label
from tests.helpers import StandIn, blotches, make_run, write_image

ROOT = Path(__file__).resolve().parents[1]
# Rows of windows lie 24 apart: three bands.
SHAPE = (600, 40)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on disk, so that its jobs can be gone on with; fast, as its network is a filter."""
    found = load_run(make_run(tmp_path_factory.mktemp("run")))
    return replace(found, model=StandIn())


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
    claim.write_text(f"{platform.node()} {os.getpid()}")
    assert run_job(begun, part=(1, 2)) is None
    with pytest.raises(OutputError, match="another process is writing it"):
        run_job(begun)
    claim.write_text(f"{platform.node()} {dead.pid}")
    assert run_job(begun, part=(1, 2)) is not None


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


# Other processes


def test_shares_are_disjoint_and_whole():
    bands = [type("Band", (), {"number": number})() for number in range(10)]
    shares = [part_of(bands, part, 3) for part in (1, 2, 3)]
    assert [band.number for band in shares[1]] == [1, 4, 7]
    assert sorted(band.number for share in shares for band in share) == list(range(10))


def test_another_process_finds_the_job(image, tmp_path):
    loaded = load_run(make_run(tmp_path / "run"))
    begun = job(loaded, image, tmp_path / "out", bands=[3, 2, 1])
    begun.begin()
    found = job_of(begun.files.folder)
    assert (found.key, found.image.name) == (begun.key, "a.tif")
    np.testing.assert_equal([b.number for b in found.files.missing()], [0, 1, 2])
    make_run(tmp_path / "run", seed=5)
    with pytest.raises(RunError, match="have changed since"):
        job_of(begun.files.folder)
    with pytest.raises(RunError, match="holds no job"):
        job_of(tmp_path)


@pytest.mark.slow
def test_two_processes_give_the_pixels_of_one(image, tmp_path):
    loaded = load_run(make_run(tmp_path / "run"))
    alone = predict_raster(loaded, image, tmp_path / "alone", probabilities=True)
    shared = predict_raster(loaded, image, tmp_path / "out", probabilities=True, workers=2)
    for ours, theirs in zip(shared.outputs, alone.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name


@pytest.mark.slow
def test_what_all_processes_fail_with_is_said_in_one_line(tmp_path):
    loaded = load_run(make_run(tmp_path / "run"))
    path, _ = broken(tmp_path)
    with pytest.raises(RunError, match=r"b\.tif: corrupt") as caught:
        predict_raster(loaded, path, tmp_path / "out", workers=2)
    assert "\n" not in str(caught.value)


def test_a_process_that_dies_is_replaced(run, image, tmp_path, monkeypatch):
    """The first round's processes die, one of them after a band."""
    begun = job(run, image, tmp_path / "out")
    begun.begin()
    rounds = []

    def one_round(job, workers, bar):
        rounds.append(workers)
        job.predict(job.files.missing()[0])
        return "stopped with -9"

    monkeypatch.setattr(band_workers, "_round", one_round)
    predict_with_workers(begun, 2)
    assert rounds == [2, 2, 2]
    assert begun.files.missing() == []


def test_a_round_without_a_band_ends_it(run, image, tmp_path, monkeypatch):
    begun = job(run, image, tmp_path / "out")
    begun.begin()
    monkeypatch.setattr(band_workers, "_round", lambda *_: "out of memory")
    with pytest.raises(RunError, match="out of memory"):
        predict_with_workers(begun, 2)


def test_a_worker_says_what_is_wrong_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jointnet.band_workers", str(tmp_path), "1/2"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path} holds no job to go on with")


def test_formats_are_told_apart(run, image, tmp_path, monkeypatch):
    before = job(run, image, tmp_path).key
    monkeypatch.setattr(raster_job, "FORMAT", "another")
    assert job(run, image, tmp_path).key != before
