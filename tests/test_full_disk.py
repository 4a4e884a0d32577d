"""A disk that is really full: one line, nothing half-written, and what was predicted stays."""

import subprocess

import numpy as np
import pytest

from jointnet.raster_prediction import predict_raster
from jointnet.runs import WEIGHTS, Run
from preprocessing.errors import OutputError
from tests.helpers import CONFIG, StandIn, write_image


def mount(folder, size, *options):
    words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", folder]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A disk of 1.25 MB, and a function that makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = mount(folder, "1280k")
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no disk can be mounted here")
    yield folder, lambda size: mount(folder, size, "remount")
    subprocess.run(["umount", folder], check=True)


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Filling(StandIn):
    """Someone else fills the disk while this predicts."""

    def __init__(self, path, size, after):
        self.path, self.size, self.after = path, size, after

    def predict_on_batch(self, images):
        self.after -= 1
        if self.after == 0:
            self.path.write_bytes(bytes(self.size))
        return super().predict_on_batch(images)


# Noise, so that the outputs are as large as they can be. The two swaths of probabilities take
# 640 kB: the second size ends between them, the first while the outputs are written.
@pytest.mark.parametrize("filled", [0, 800_000])
def test_a_full_disk_and_a_larger_one(tmp_path, disk, filled):
    folder, grow = disk
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    image = write_image(tmp_path / "a.tif", noise)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / WEIGHTS).write_bytes(b"these")
    run = Run(tmp_path / "run", StandIn(), CONFIG)
    predict_raster(run, image, tmp_path / "whole", probabilities=True)

    other = folder / "other"
    filling = Run(run.folder, Filling(other, filled, after=1), CONFIG)
    with pytest.raises(OutputError, match="No space left|disk|cannot be written") as told:
        predict_raster(filling, image, folder, probabilities=True)
    assert "\n" not in str(told.value)
    # Nothing but what was there, and the swaths to go on from.
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"other"}
    kept = list(folder.glob(".a_*.swaths/swath_*.f32"))
    assert kept
    assert (len(kept) < 2) == (filled > 0)

    assert grow("16m")
    predict_raster(run, image, folder, probabilities=True)
    other.unlink()
    assert read(folder) == read(tmp_path / "whole")
