"""Rasters behind a server: the command predicts them as it does files, and survives its failing."""

import os
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from experiments import infer
from jointnet.raster_job import RasterJob
from jointnet.runs import load_run
from preprocessing import raster_access
from preprocessing.errors import RasterError
from preprocessing.raster_access import open_raster, read_window
from preprocessing.rasters import read_label
from preprocessing.tiling import Window
from tests.helpers import StandIn, blotches, make_run, write_image
from tests.range_server import RangeServer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on disk, whose jobs can be gone on with, with a fast network in its place."""
    return replace(load_run(make_run(tmp_path_factory.mktemp("run"))), model=StandIn())


@pytest.fixture
def served(tmp_path, monkeypatch, run):
    """A server of a folder with a tile in it; the working directory is another."""
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: run)
    (tmp_path / "served").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    # Rows of windows lie 24 apart: nine swaths.
    write_image(tmp_path / "served" / "tile.tif", blotches(1800, 60))
    with RangeServer(tmp_path / "served") as server:
        yield server


def call(*words):
    return CliRunner().invoke(infer.main, ["--image", *map(str, words)])


def test_the_pixels_of_an_address_are_those_of_the_file(served):
    assert call(served.folder / "tile.tif", "--output", "file").exit_code == 0
    for number, name in enumerate(
        (f"/vsicurl/{served.address}/tile.tif", f"{served.address}/tile.tif?se=1&sig=a/b.c")
    ):
        result = call(name, "--output", f"{number}")
        assert result.exit_code == 0 and result.stderr == "", result.output
        assert sorted(os.listdir(f"{number}")) == sorted(os.listdir("file"))
        for output in os.listdir("file"):
            if output != "tile_output.tif":
                assert_same(output, f"{number}")
        # The key among its tags is that of another job.
        ours, theirs = (read_label(f"{place}/tile_output.tif") for place in (number, "file"))
        assert (ours == theirs).all() and theirs.any()
        assert "done already" in call(name, "--output", f"{number}").stdout


def assert_same(name, folder):
    with open(f"file/{name}", "rb") as one, open(f"{folder}/{name}", "rb") as other:
        assert one.read() == other.read(), name


def test_a_list_of_addresses_of_which_one_is_not_there(served):
    with open("list.txt", "w") as file:
        file.write(f"{served.address}/tile.tif\n/vsicurl/{served.address}/none.tif\n")
    result = call("list.txt")
    assert result.exit_code == 2
    assert re.fullmatch(
        rf"error: /vsicurl/{served.address}/none\.tif: cannot be opened: .*404[^\n]*\n",
        result.stderr,
    )
    assert not os.path.exists("results")


def test_a_server_that_goes_on_the_way_keeps_what_is_finished(served, monkeypatch):
    """The other image is finished, and a later start goes on."""
    write_image(served.folder / "b.tif", blotches(40, 40))
    predict, predicted = RasterJob.predict, []

    def three_swaths(job, swath, *rest):
        if len(predicted) == 3:
            served.stop()
        predict(job, swath, *rest)
        predicted.append(swath.number)

    monkeypatch.setattr(RasterJob, "predict", three_swaths)
    name = f"/vsicurl/{served.address}/tile.tif"
    result = call(name, "--image", served.folder / "b.tif")
    served.start()
    assert result.exit_code == 2
    assert re.fullmatch(
        rf"error: {name}: cannot read the window of [^\n]* 3 of 9 swaths are kept: [^\n]*\n",
        result.stderr,
    )
    assert "b_output.tif" in result.stdout
    (kept,) = [entry for entry in os.listdir("results") if entry.startswith(".")]
    assert not any(entry.startswith("tile") for entry in os.listdir("results"))
    assert sum(entry.startswith("swath_") for entry in os.listdir(f"results/{kept}")) == 3
    monkeypatch.setattr(RasterJob, "predict", predict)
    again = []
    monkeypatch.setattr(
        RasterJob,
        "predict",
        lambda job, swath, *rest: (again.append(swath.number), predict(job, swath, *rest)),
    )
    result = call(name)
    assert result.exit_code == 0 and result.stdout.startswith("results/tile_output.tif, ")
    assert again == [3, 4, 5, 6, 7, 8]


def test_a_server_that_takes_the_question_and_never_answers_is_given_up(served, monkeypatch):
    assert raster_access._OPTIONS["GDAL_HTTP_LOW_SPEED_TIME"] == 60
    monkeypatch.setitem(raster_access._OPTIONS, "GDAL_HTTP_LOW_SPEED_TIME", 1)
    with open_raster(f"{served.address}/tile.tif") as dataset:
        served.freeze()
        with pytest.raises(RasterError, match=r"tile\.tif: cannot read the window of") as caught:
            read_window(dataset, Window(1799, 0, 1, 1), [1])
    assert "\n" not in str(caught.value)
