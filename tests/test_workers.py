"""Swaths predicted by several processes of this machine, or by those of a Dask cluster."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from dask import config
from distributed import KilledWorker, LocalCluster

from jointnet import workers
from jointnet.raster_job import PredictionOptions, RasterJob
from jointnet.raster_prediction import predict_raster, predict_rasters, predict_swaths
from jointnet.runs import load_run
from jointnet.workers import SECONDS_WITHOUT_WORKERS, Workers
from preprocessing.errors import JointNetError, OutputError, RasterError, RunError
from tests.helpers import blotches, make_run, stand_in_run, write_image
from tests.slow_workers import slow_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return slow_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def image(tmp_path):
    # Rows of windows lie 24 apart: eight swaths.
    return write_image(tmp_path / "a.tif", blotches(1600, 64))


@pytest.fixture(scope="module")
def pair():
    """Two processes, as ``--workers 2`` starts them, with the slow filter in place of a network."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KERAS_BACKEND", "numpy")
        patched.setenv("PYTHONPATH", str(ROOT))
        patched.setenv("OMP_NUM_THREADS", "17")
        with config.set({"distributed.worker.preload": ["tests.slow_workers"]}), Workers(2) as two:
            yield two._client


@pytest.fixture
def address(pair):
    pair.wait_for_workers(2)
    return pair.scheduler.address


def job(run, image, folder, **options):
    return RasterJob(run, image, folder, PredictionOptions(**options))


def equal(job, run, folder):
    """Whether the outputs of a job are those of a prediction in one process, byte by byte."""
    alone = predict_raster(run, job.image, folder, probabilities=job.options.probabilities)
    return all(
        ours.read_bytes() == theirs.read_bytes()
        for ours, theirs in zip(job.paths.values(), alone.outputs, strict=True)
    )


@pytest.mark.slow
def test_two_processes_give_the_pixels_of_one(image, tmp_path):
    loaded = load_run(make_run(tmp_path / "run"))
    shared = job(loaded, image, tmp_path / "out", probabilities=True)
    assert predict_rasters([shared], workers=2) == []
    assert equal(shared, loaded, tmp_path / "alone")


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(run, image, tmp_path, pair, address):
    begun = job(run, image, tmp_path / "out", probabilities=True)
    before = sorted(pair.run(os.getpid).values())

    def kill_one_after_the_first_swath():
        deadline = time.monotonic() + 60
        while len(begun.files.missing()) == 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(before[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one_after_the_first_swath)
    killer.start()
    assert predict_rasters([begun], cluster=address) == []
    killer.join()
    assert equal(begun, run, tmp_path / "alone")
    pair.wait_for_workers(2)
    # Another has taken its place.
    assert len(set(before) & set(pair.run(os.getpid).values())) == 1


@pytest.mark.slow
def test_a_network_is_loaded_once_for_all_rasters(run, image, tmp_path, pair, address):
    other = write_image(tmp_path / "b.tif", blotches(1600, 64, seed=1))
    jobs = [job(run, path, tmp_path / "out") for path in (image, other)]
    said = []
    assert predict_rasters(jobs, cluster=address, say=said.append) == []
    assert [line.split(",")[0] for line in said] == [str(job.paths["_output.tif"]) for job in jobs]
    loaded = pair.run(lambda: sys.modules["jointnet.workers"]._run.cache_info().misses)
    assert list(loaded.values()) == [1, 1]


@pytest.mark.slow
def test_what_cannot_be_read_is_said_as_in_one_process(run, tmp_path, address):
    path = write_image(tmp_path / "b.tif", blotches(600, 40), compress="deflate", blockysize=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (line,) = predict_rasters([job(run, path, tmp_path / "out")], cluster=address)
    with pytest.raises(RasterError) as alone:
        predict_raster(run, path, tmp_path / "alone")
    assert line == str(alone.value) and "1 of 3 swaths are kept" in line


@pytest.mark.slow
def test_processes_get_their_share_unless_the_environment_says_otherwise(pair, address):
    cores = len(os.sched_getaffinity(0))
    found = pair.run(lambda: dict(os.environ))
    assert len(found) == 2
    for environment in found.values():
        assert environment["TF_NUM_INTRAOP_THREADS"] == str(max(1, cores // 2))
        assert environment["OMP_NUM_THREADS"] == "17"
        assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    # Ctrl-C is for the process that started them.
    assert all(pair.run(lambda: signal.getsignal(signal.SIGINT) == signal.SIG_IGN).values())
    # One swath at a time in each, however much memory it takes.
    for worker in pair.scheduler_info()["workers"].values():
        assert (worker["nthreads"], worker["memory_limit"]) == (1, 0)


def test_processes_leave_each_other_room(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    shares = workers._environment(2)
    assert shares["TF_NUM_INTRAOP_THREADS"] == shares["OMP_NUM_THREADS"] == "3"
    assert shares["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert shares["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert workers._environment(9)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers._environment(2)["OMP_NUM_THREADS"] == "32"


class StubClient:
    """A cluster that has done each task at once, with the error that a function of it gives."""

    status = "running"

    def __init__(self, error):
        self.error = error

    def submit(self, task, number, folder, pure):
        class Future:
            status = "error" if self.error(number) else "finished"

            def done(self):
                return True

            def cancelled(self):
                return False

            def exception(future):
                return self.error(number)

        return Future()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KilledWorker("a", None, 3), "worker processes died over one swath; was there memory"),
        (MemoryError("out of\nmemory"), "a swath was lost: out of memory"),
        (OutputError("a.tif: full"), "a.tif: full"),
    ],
)
def test_what_a_worker_fails_with_is_one_line(run, image, tmp_path, monkeypatch, error, words):
    begun = job(run, image, tmp_path / "out")
    swaths = begun.begin()

    client = StubClient(lambda number: error if number else None)
    monkeypatch.setattr(Workers, "_client", client)
    with pytest.raises(JointNetError, match=words) as caught:
        predict_swaths(begun, swaths, Workers(2))
    assert "\n" not in str(caught.value)


def test_swaths_that_only_the_workers_see_are_missed(run, image, tmp_path, monkeypatch):
    begun = job(run, image, tmp_path / "out")
    client = StubClient(lambda number: None)
    monkeypatch.setattr(Workers, "_client", client)
    with pytest.raises(RunError, match="a.tif: swaths were lost; do all .*; 8 of 8 swaths are m"):
        predict_swaths(begun, begun.begin(), Workers(2))


# Schedulers of others


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def scheduler(folder):
    """Address of a scheduler that nobody works for, and its process."""
    address = f"tcp://127.0.0.1:{free_port()}"
    words = ("--host", "127.0.0.1", "--port", address.rsplit(":")[-1], "--no-dashboard")
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield address, process
    finally:
        process.kill()
        process.wait()


def test_a_scheduler_without_workers_is_given_up(run, image, tmp_path, monkeypatch):
    assert SECONDS_WITHOUT_WORKERS == 60
    monkeypatch.setattr(workers, "SECONDS_WITHOUT_WORKERS", 0.1)
    begun = job(run, image, tmp_path / "out")
    begun.predict(begun.begin()[0])
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as nobody:
        address = nobody.scheduler_address
        (line,) = predict_rasters([begun], cluster=address)
    assert line == (
        f"{address}: no workers for 0.1 s; 7 of 8 swaths are missing, the same command goes on "
        "from the others"
    )


def test_a_scheduler_that_ends_on_the_way_is_one_line(image, tmp_path, monkeypatch):
    with scheduler(tmp_path) as (address, process):
        finished = workers._finished

        def once_it_has_ended(*words):
            process.kill()
            process.wait()
            yield from finished(*words)

        monkeypatch.setattr(workers, "_finished", once_it_has_ended)
        begun = job(stand_in_run(), image, tmp_path / "out")
        with Workers(1, address) as shared, pytest.raises(RunError) as caught:
            predict_swaths(begun, begun.begin(), shared)
    assert str(caught.value) == (
        f"{address}: the Dask scheduler no longer answers; 8 of 8 swaths are missing, the same "
        "command goes on from the others"
    )


def test_a_scheduler_that_does_not_answer_is_one_line(image, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_SECONDS_TO_CONNECT", 0.5)
    begun = job(stand_in_run(), image, tmp_path / "out")
    for address in (f"tcp://127.0.0.1:{free_port()}", "nonsense://x"):
        with (
            Workers(1, address) as shared,
            pytest.raises(RunError, match=f"{address}: no Dask scheduler answers there") as caught,
        ):
            predict_swaths(begun, begun.begin(), shared)
        assert "\n" not in str(caught.value)
