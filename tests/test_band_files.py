"""Bands on disk: what was saved comes back, and what is damaged or foreign is refused."""

import json
import os

import numpy as np
import pytest

from jointnet import raster_job
from jointnet.prediction import WindowGrid, predict_band, predict_strips
from jointnet.raster_job import BandFiles
from preprocessing.errors import OutputError, RunError
from preprocessing.tiling import Window

GRID = WindowGrid(height=150, width=7, window=12, overlap=4)
IMAGE = np.random.default_rng(0).random((150, 7, 1)).astype(np.float32)
VALID = np.random.default_rng(1).random((150, 7)) < 0.8


def read(window: Window):
    return IMAGE[window.slices], VALID[window.slices]


def network(batch):
    return batch * 0.5 + batch.mean(axis=(1, 2), keepdims=True) * 0.25


def saved(folder, numbers=None):
    files = BandFiles(folder, GRID)
    files.begin({"key": 1})
    for band in files.bands:
        if numbers is None or band.number in numbers:
            files.save(band, predict_band(read, GRID, band, network, 2))
    return files


def test_bands_come_back_as_they_were_predicted(tmp_path):
    files = saved(tmp_path / "bands")
    found = np.concatenate([strip for _, strip in files.strips()])
    expected = np.concatenate([strip for _, strip in predict_strips(read, GRID, network, 2)])
    np.testing.assert_array_equal(found, expected)
    assert files.missing() == []


def test_what_is_missing_is_known_to_another_process(tmp_path):
    assert len(saved(tmp_path / "bands", {1}).bands) == 2
    again = BandFiles(tmp_path / "bands", GRID)
    again.begin({"key": 1})
    assert [band.number for band in again.missing()] == [0]


def test_bands_of_another_job_are_refused(tmp_path):
    saved(tmp_path / "bands")
    with pytest.raises(RunError, match="bands of another prediction"):
        BandFiles(tmp_path / "bands", GRID).begin({"key": 2})
    assert json.loads((tmp_path / "bands" / "job.json").read_text()) == {"key": 1}


def test_a_band_that_fails_leaves_nothing(tmp_path):
    files = saved(tmp_path / "bands", {0})

    def half(band):
        yield next(iter(predict_band(read, GRID, band, network, 2)))
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="bands: cannot be written: No space left"):
        files.save(files.bands[1], half(files.bands[1]))
    assert sorted(os.listdir(tmp_path / "bands")) == ["band_00000.f32", "job.json"]


def test_a_band_that_was_cut_off_is_refused(tmp_path):
    files = saved(tmp_path / "bands")
    path = tmp_path / "bands" / "band_00001.f32"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(OutputError, match="band_00001.f32 has .* bytes, not .*; delete it"):
        list(files.strips())


def test_a_missing_band_is_refused(tmp_path):
    with pytest.raises(OutputError, match="band_00001.f32: cannot be read: No such file"):
        list(saved(tmp_path / "bands", {0}).strips())


def test_no_room_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 10})())
    with pytest.raises(OSError, match="needs up to"):
        BandFiles(tmp_path / "bands", GRID).begin({"key": 1})


def test_an_empty_folder_goes_and_a_finished_band_stays(tmp_path):
    files = saved(tmp_path / "bands", set())
    files.remove_if_empty()
    assert not (tmp_path / "bands").exists()
    files = saved(tmp_path / "bands", {0})
    files.remove_if_empty()
    assert (tmp_path / "bands" / "band_00000.f32").exists()
    files.remove()
    assert not (tmp_path / "bands").exists()


def test_a_folder_in_which_another_process_is_at_work_stays(tmp_path):
    files, other = saved(tmp_path / "bands", set()), BandFiles(tmp_path / "bands", GRID)

    def interrupted(band):
        yield from predict_band(read, GRID, band, network, 2)
        other.remove_if_empty()

    files.save(files.bands[0], interrupted(files.bands[0]))
    assert [band.number for band in files.missing()] == [1]


def test_a_claim_on_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    files = saved(tmp_path / "bands")

    def full():
        raise OSError(28, "full")

    with monkeypatch.context() as patched:
        patched.setattr(raster_job.platform, "node", full)
        with pytest.raises(OutputError, match="bands: cannot be written: full"):
            files.claim()
    assert not files.claim_file.exists() and files.claim()
    files.remove()
    # Whoever removes the bands has made the outputs.
    assert not files.claim()
