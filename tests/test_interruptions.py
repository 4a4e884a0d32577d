"""A prediction that is killed again and again ends with the files of one that was not."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jointnet.runs import WEIGHTS
from tests.helpers import blotches, write_image

ROOT = Path(__file__).resolve().parents[1]
# The filter stands in for a network, so that starting takes a second.
SCRIPT = """
import sys, time
from pathlib import Path
from jointnet.raster_prediction import predict_raster
from jointnet.runs import Run
from tests.helpers import CONFIG, StandIn

class Slow(StandIn):
    def predict_on_batch(self, images):
        time.sleep(0.03)
        return super().predict_on_batch(images)

run, image, output = sys.argv[1:]
predict_raster(Run(Path(run), Slow(), CONFIG), image, output, probabilities=True, overwrite=True)
"""


def start(*words):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "numpy"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, words)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def visible(folder):
    if not folder.is_dir():
        return {}
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path):
    image = write_image(tmp_path / "a.tif", blotches(1600, 64))
    run = tmp_path / "run"
    run.mkdir()
    (run / WEIGHTS).write_bytes(b"these")
    began = time.monotonic()
    assert start(run, image, tmp_path / "whole").wait() == 0
    seconds = time.monotonic() - began
    whole = visible(tmp_path / "whole")
    assert len(whole) == 4
    moments = random.Random(0)
    kept = []
    for _ in range(10):
        process = start(run, image, tmp_path / "out")
        time.sleep(moments.uniform(0.3, 1) * seconds)
        process.kill()
        process.wait()
        # What is there is complete.
        assert visible(tmp_path / "out").items() <= whole.items()
        kept.append(len(list((tmp_path / "out").glob(".a_*.bands/band_*.f32"))))
    # Some were killed on the way, with bands to go on from.
    assert max(kept) > 0
    assert start(run, image, tmp_path / "out").wait() == 0
    assert visible(tmp_path / "out") == whole
    assert set(os.listdir(tmp_path / "out")) == set(whole)
