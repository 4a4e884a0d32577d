"""Folders of bands, found by another process, and by later predictions."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest

from jointnet.raster_job import PredictionOptions, RasterJob
from jointnet.runs import load_run
from jointnet.workers import job_of, leftovers, predict_bands
from preprocessing.errors import RunError
from tests.helpers import StandIn, blotches, make_run, stored_stand_in_run, write_image


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stored_stand_in_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def image(tmp_path):
    # Rows of windows lie 24 apart: three bands.
    return write_image(tmp_path / "a.tif", blotches(600, 40))


def job(run, image, folder, **options):
    return RasterJob(run, image, folder, PredictionOptions(**options))


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


# Leftovers


def begun(run, image, folder, **options):
    """A job of which one band is predicted."""
    found = job(run, image, folder, **options)
    predict_bands(found, found.begin()[:1])
    return found


def test_bands_of_other_options_can_be_gone_on_with(run, image, tmp_path):
    options = {"threshold": 0.25, "bands": [3, 2, 1]}
    first = begun(run, image, tmp_path / "out", **options)
    second = begun(run, image, tmp_path / "out")
    (found,) = leftovers(second)
    assert (found.folder, found.run) == (first.files.folder, run.folder)
    assert PredictionOptions(**found.options) == PredictionOptions(**options)
    assert found.size == sum(path.stat().st_size for path in first.files.folder.iterdir())
    (found,) = leftovers(first)
    assert found.folder == second.files.folder
    # Nothing is deleted.
    assert len(first.files.missing()) == len(second.files.missing()) == 2


def test_bands_of_another_network_can_be_gone_on_with(run, image, tmp_path):
    other = replace(load_run(make_run(tmp_path / "run", seed=3)), model=StandIn())
    first = begun(other, image, tmp_path / "out")
    (found,) = leftovers(job(run, image, tmp_path / "out"))
    assert found.run == tmp_path / "run" and found.options == json.loads(
        json.dumps(asdict(first.options))
    )
    make_run(tmp_path / "run", seed=4)
    (found,) = leftovers(job(run, image, tmp_path / "out"))
    assert found.options is None


def test_bands_of_an_image_that_has_changed_are_of_no_use(run, image, tmp_path):
    first = begun(run, image, tmp_path / "out")
    os.utime(image, ns=(1, 1))
    (found,) = leftovers(job(run, image, tmp_path / "out"))
    assert (found.folder, found.options) == (first.files.folder, None)
    (first.files.folder / "job.json").write_text("{")
    assert leftovers(job(run, image, tmp_path / "out"))[0].options is None


def test_what_is_of_other_images_is_not_named(run, image, tmp_path):
    out = tmp_path / "out"
    assert leftovers(job(run, image, out)) == []
    for name in ("b", "a_0123456789ab", "a" * 90 + "1"):
        begun(run, write_image(tmp_path / f"{name}.tif", blotches(600, 40)), out)
    (out / ".a_0123456789ab").mkdir()
    (out / ".a_0123456789ab.bands.zip").touch()
    assert leftovers(job(run, image, out)) == []
    long = write_image(tmp_path / ("a" * 90 + "2.tif"), blotches(600, 40))
    assert leftovers(job(run, long, out)) == []
    np.testing.assert_equal(len(list(out.glob(".*.bands"))), 3)
