"""Bands predicted by several processes of this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from jointnet import workers
from jointnet.raster_job import PredictionOptions, RasterJob
from jointnet.raster_prediction import predict_raster, run_job
from jointnet.runs import load_run
from jointnet.workers import part_of, predict_with_workers
from preprocessing.errors import RunError
from tests.helpers import blotches, make_run, stored_stand_in_run, write_image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stored_stand_in_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def image(tmp_path):
    # Rows of windows lie 24 apart: three bands.
    return write_image(tmp_path / "a.tif", blotches(600, 40))


def job(run, image, folder, **options):
    return RasterJob(run, image, folder, PredictionOptions(**options))


def broken(tmp_path):
    path = write_image(tmp_path / "b.tif", blotches(600, 40), compress="deflate", blockysize=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_shares_are_disjoint_and_whole():
    bands = [type("Band", (), {"number": number})() for number in range(10)]
    shares = [part_of(bands, part, 3) for part in (1, 2, 3)]
    assert [band.number for band in shares[1]] == [1, 4, 7]
    assert sorted(band.number for share in shares for band in share) == list(range(10))


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
    path = broken(tmp_path)
    with pytest.raises(RunError, match=r"b\.tif: corrupt") as caught:
        predict_raster(loaded, path, tmp_path / "out", workers=2)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced(image, tmp_path, monkeypatch):
    """Killed in the middle of its first band, it leaves both of its own to the next round."""
    loaded = load_run(make_run(tmp_path / "run"))
    alone = predict_raster(loaded, image, tmp_path / "alone", probabilities=True)
    begun = job(loaded, image, tmp_path / "out", probabilities=True)
    started, processes = workers._started, []

    @contextmanager
    def noted(job, number, workers, words):
        with started(job, number, workers, words) as process:
            processes.append(process)
            yield process

    def kill_the_first_in_its_first_band():
        deadline = time.monotonic() + 120
        while not list(begun.files.folder.glob("band_00000.f32-*")):
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)
        processes[0].kill()

    monkeypatch.setattr(workers, "_started", noted)
    killer = threading.Thread(target=kill_the_first_in_its_first_band)
    killer.start()
    done = run_job(begun, workers=2)
    killer.join()
    codes = [process.returncode for process in processes]
    assert codes == [-signal.SIGKILL, 0, 0, 0]
    for ours, theirs in zip(done.outputs, alone.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name


def test_a_round_without_a_band_ends_it(run, image, tmp_path, monkeypatch):
    begun = job(run, image, tmp_path / "out")
    begun.begin()
    monkeypatch.setattr(workers, "_round", lambda *_: "out of memory")
    with pytest.raises(RunError, match="out of memory"):
        predict_with_workers(begun, 2)


@pytest.mark.skipif(os.name == "nt", reason="no signals")
@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os.kill(os.getpid(), 9)", r"^a process stopped with code -9; was there memory"),
        ("sys.exit('error: no such band')", r"^no such band$"),
    ],
)
def test_what_a_process_printed_before_it_was_killed_is_no_reason(
    run, image, tmp_path, monkeypatch, end, words
):
    class Popen(subprocess.Popen):
        def __init__(self, _, **options):
            code = (
                f"import os, sys; print('I0000 some library', file=sys.stderr, flush=True); {end}"
            )
            super().__init__([sys.executable, "-S", "-c", code], **options)

    monkeypatch.setattr(workers.subprocess, "Popen", Popen)
    begun = job(run, image, tmp_path / "out")
    begun.begin()
    with pytest.raises(RunError, match=words):
        predict_with_workers(begun, 1)


def test_a_worker_says_what_is_wrong_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jointnet.workers", str(tmp_path), "1/2"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path} holds no job to go on with")


def test_processes_leave_each_other_room(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    shares = workers._shares(2)
    assert shares["TF_NUM_INTRAOP_THREADS"] == shares["OMP_NUM_THREADS"] == "3"
    assert shares["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert shares["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert set(workers._shares(1)) == {"TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"}
    assert workers._shares(9)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers._shares(2)["OMP_NUM_THREADS"] == "32"


def test_a_process_gets_its_share_unless_the_environment_says_otherwise(
    run, image, tmp_path, monkeypatch
):
    given = []

    class Popen(subprocess.Popen):
        def __init__(self, words, env, **options):
            given.append(env)
            super().__init__([sys.executable, "-S", "-c", ""], **options)

    monkeypatch.setattr(workers.subprocess, "Popen", Popen)
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    begun = job(run, image, tmp_path / "out")
    begun.begin()
    with pytest.raises(RunError, match="no process finished a band"):
        predict_with_workers(begun, 2)
    assert [env["OMP_NUM_THREADS"] for env in given] == ["17", "17"]
    assert [env["TF_FORCE_GPU_ALLOW_GROWTH"] for env in given] == ["true", "true"]
