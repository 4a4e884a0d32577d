"""A prediction that is killed again and again ends with the files of one that was not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import psutil
import pytest
from geopandas.testing import assert_geodataframe_equal

from jointnet.raster_job import MASK, features_ending
from tests.helpers import blotches, write_image

ROOT = Path(__file__).resolve().parents[1]
# The filter stands in for a network, so that starting takes a second.
SCRIPT = """
import sys
from pathlib import Path
from jointnet.raster_prediction import predict_raster
from tests.slow_workers import slow_run

run, image, output, target, workers = sys.argv[1:]
run = slow_run(Path(run), target=target)
predict_raster(run, image, output, probabilities=True, overwrite=True, workers=int(workers))
# It takes half a second to import.
assert workers != "1" or "distributed" not in sys.modules
"""


def start(run, image, output, target="buildings", workers=1):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "numpy"}
    environment["DASK_DISTRIBUTED__WORKER__PRELOAD"] = "tests.slow_workers"
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, (run, image, output, target, workers))],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def visible(folder):
    if not folder.is_dir():
        return {}
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """An image, a run, what is predicted of it in one go, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("whole")
    image = write_image(folder / "a.tif", blotches(1600, 64))
    began = time.monotonic()
    assert start(folder / "run", image, folder / "whole").wait() == 0
    return folder / "run", image, visible(folder / "whole"), time.monotonic() - began


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path, uninterrupted):
    run, image, whole, seconds = uninterrupted
    assert len(whole) == 5
    moments = random.Random(0)
    kept = []
    for _ in range(10):
        process = start(run, image, tmp_path / "out")
        time.sleep(moments.uniform(0.3, 1) * seconds)
        process.kill()
        process.wait()
        # What is there is complete.
        assert visible(tmp_path / "out").items() <= whole.items()
        kept.append(len(list((tmp_path / "out").glob(".a_*.swaths/swath_*.f32"))))
    # Some were killed on the way, with swaths to go on from.
    assert max(kept) > 0
    assert start(run, image, tmp_path / "out").wait() == 0
    assert visible(tmp_path / "out") == whole
    assert set(os.listdir(tmp_path / "out")) == set(whole)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["buildings", "roads"])
def test_killed_while_the_outputs_are_made(tmp_path, target):
    """The swaths are there; wherever the process ends then, the features are the same."""
    image = write_image(tmp_path / "a.tif", blotches(1600, 64))
    run = tmp_path / "run"
    assert start(run, image, tmp_path / "whole", target).wait() == 0
    name = features_ending(target)
    whole = geopandas.read_file(tmp_path / "whole" / f"a{name}")
    assert len(whole) > 10 and whole.mean_probability.between(0, 1).all()
    moments = random.Random(1)
    inside = 0
    for _ in range(4):
        out = tmp_path / "out"
        process = start(run, image, out, target)
        # The drafts come to be once all swaths are there.
        while process.poll() is None and not list(out.glob(".a_*.swaths/drafts-*")):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        inside += process.wait() != 0
        left = visible(out)
        assert not left or f"a{MASK}" not in left or len(left) == 5
        assert start(run, image, out, target).wait() == 0
        found = geopandas.read_file(out / f"a{name}")
        assert_geodataframe_equal(found, whole)
        assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "whole"))
        shutil.rmtree(out)
    assert inside > 0


@pytest.mark.slow
def test_two_processes_end_with_the_run_that_started_them_and_nothing_is_lost(
    tmp_path, uninterrupted
):
    run, image, whole, _ = uninterrupted
    out = tmp_path / "out"
    process = start(run, image, out, workers=2)
    while process.poll() is None and not list(out.glob(".a_*.swaths/swath_*.f32")):
        time.sleep(0.005)
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert len(started) >= 2 and not psutil.wait_procs(started, timeout=30)[1]
    assert len(list(out.glob(".a_*.swaths/swath_*.f32"))) > 0 and not visible(out)
    # The same command goes on, and another one beside it is refused.
    process = start(run, image, out)
    (job,) = out.glob(".a_*.swaths")
    while process.poll() is None and not any(
        file.path == str(job / "lock") for file in psutil.Process(process.pid).open_files()
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    assert start(run, image, out).wait() == 1
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert visible(out) == whole
    assert set(os.listdir(out)) == set(whole)
