"""A real Dask scheduler with two worker processes, of which one is killed on the way."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from jointnet import band_cluster
from jointnet.band_cluster import SECONDS_WITHOUT_WORKERS, predict_on_cluster
from jointnet.raster_job import PredictionOptions, RasterJob
from jointnet.raster_prediction import predict_raster, run_job
from jointnet.runs import load_run
from preprocessing.errors import RunError
from tests.helpers import blotches, make_run, stand_in_run, write_image

pytest.importorskip("distributed")
ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def started(folder, name, *words):
    """A program of Dask, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{name}", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def cluster(tmp_path):
    """Address of a scheduler, and its two workers."""
    address = f"tcp://127.0.0.1:{free_port()}"
    quiet = ("--no-dashboard",)
    programs = [
        ("dask_scheduler", "--host", "127.0.0.1", "--port", address.rsplit(":")[-1], *quiet),
        *[("dask_worker", address, "--no-nanny", "--nthreads", "1", *quiet)] * 2,
    ]
    with ExitStack() as stack:
        processes = [stack.enter_context(started(tmp_path, *words)) for words in programs]
        yield address, processes[1:]


@pytest.fixture
def scheduler(tmp_path):
    """Address of a scheduler that nobody works for, and its process."""
    address = f"tcp://127.0.0.1:{free_port()}"
    words = ("--host", "127.0.0.1", "--port", address.rsplit(":")[-1], "--no-dashboard")
    with started(tmp_path, "dask_scheduler", *words) as process:
        yield address, process


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path, cluster):
    address, workers = cluster
    # Eight bands.
    image = write_image(tmp_path / "a.tif", blotches(1600, 64))
    run = load_run(make_run(tmp_path / "run"))
    job = RasterJob(run, image, tmp_path / "out", PredictionOptions(probabilities=True))

    def kill_one_after_the_first_band():
        deadline = time.monotonic() + 120
        while len(job.files.missing()) == len(job.files.bands) and time.monotonic() < deadline:
            time.sleep(0.01)
        workers[0].send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_one_after_the_first_band)
    killer.start()
    done = run_job(job, cluster=address)
    killer.join()
    alone = predict_raster(run, image, tmp_path / "alone", probabilities=True)
    for ours, theirs in zip(done.outputs, alone.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name
    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].poll() is None


@pytest.mark.slow
def test_a_band_that_fails_on_a_worker_is_one_line_here(tmp_path, cluster):
    address, _ = cluster
    image = write_image(tmp_path / "a.tif", blotches(600, 40), compress="deflate", blockysize=16)
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    run = load_run(make_run(tmp_path / "run"))
    job = RasterJob(run, image, tmp_path / "out", PredictionOptions())
    with pytest.raises(RunError, match=r"a\.tif: corrupt") as caught:
        run_job(job, cluster=address)
    assert "\n" not in str(caught.value)


def test_a_scheduler_without_workers_is_given_up(tmp_path, scheduler):
    address, _ = scheduler
    image = write_image(tmp_path / "a.tif", blotches(600, 40))
    job = RasterJob(stand_in_run(), image, tmp_path / "out", PredictionOptions())
    bands = job.begin()
    job.predict(bands[0])
    assert SECONDS_WITHOUT_WORKERS == 60
    with pytest.raises(RunError) as caught:
        predict_on_cluster(job, address, seconds_without_workers=0.1)
    assert str(caught.value) == (
        f"{address}: the Dask scheduler: no workers for 0.1 s; 2 of 3 bands are missing, the same "
        "command goes on from the others"
    )


def test_a_scheduler_that_ends_on_the_way_is_one_line(tmp_path, scheduler, monkeypatch):
    address, process = scheduler
    image = write_image(tmp_path / "a.tif", blotches(40, 40))
    job = RasterJob(stand_in_run(), image, tmp_path / "out", PredictionOptions())
    job.begin()

    finished = band_cluster._finished

    def once_it_has_ended(*words):
        process.kill()
        process.wait()
        yield from finished(*words)

    monkeypatch.setattr(band_cluster, "_finished", once_it_has_ended)
    with pytest.raises(RunError, match=f"{address}: .*; 1 of 1 bands are missing") as caught:
        predict_on_cluster(job, address)
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("jointnet.band_cluster._SECONDS_TO_CONNECT", 0.5)
    image = write_image(tmp_path / "a.tif", blotches(40, 40))
    job = RasterJob(stand_in_run(), image, tmp_path / "out", PredictionOptions())
    for address in (f"tcp://127.0.0.1:{free_port()}", "nonsense://x"):
        with pytest.raises(RunError, match=f"{address}: no Dask scheduler answers there") as caught:
            predict_on_cluster(job, address)
        assert "\n" not in str(caught.value)
