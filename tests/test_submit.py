import re
import zipfile

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from experiments import infer, submit
from jointnet import raster_prediction
from preprocessing.errors import RasterError
from preprocessing.inria_submission import COMPRESSIONS
from preprocessing.rasters import read_label
from tests.helpers import blotches, make_run, stored_stand_in_run, write_image
from tests.mask_files import write

NAMES = ["a1.tif", "a2.tif"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with two test images in it."""
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "data" / "AerialImageDataset" / "test" / "images"
    images.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        write_image(images / name, blotches(90, 120, seed=seed))
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fast network that has a folder, so that its jobs can be gone on with."""
    return stored_stand_in_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def stand_in(run, monkeypatch):
    """The fast network, whatever --model names."""
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: run)


def call(*words, command=submit.main):
    return CliRunner().invoke(command, [str(word) for word in words])


def fails(*words):
    """What a call fails with, one line each problem; it changes nothing on disk."""

    def stamps():
        return {path: path.stat().st_mtime_ns for path in submit.Path().rglob("*")}

    before = stamps()
    result = call(*words)
    assert result.exit_code == 2 and result.stdout == "", result.output
    assert re.fullmatch("(error: [^\n]+\n)+", result.stderr)
    assert stamps() == before
    return result.stderr


def masks_of(archive):
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == NAMES
    return [read_label(f"/vsizip/{archive}/{name}") for name in NAMES]


def test_the_test_images_are_predicted_and_packed(folder, stand_in):
    result = call("--model", "run")
    assert result.exit_code == 0 and result.stderr == "", result.output
    *lines, last = result.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"results/run_submission/a{n}_output.tif" for n in (1, 2)
    ]
    packed = folder / "results" / "run_submission.zip"
    assert re.fullmatch(r"results/run_submission.zip: 2 masks, 0.0 MB, [\d.]+% buildings", last), (
        last
    )
    found = masks_of(packed)
    for name, mask in zip(NAMES, found, strict=True):
        own = read_label(folder / "results" / "run_submission" / name.replace(".", "_output."))
        assert np.array_equal(mask, own) and set(np.unique(mask)) == {0, 1}
    share = float(last.split(", ")[-1].split("%")[0])
    assert share == pytest.approx(100 * np.mean(found), abs=0.06)
    check = call("--check", packed)
    assert check.exit_code == 0 and check.stdout.endswith("buildings: as the contest asks\n")


def test_an_interrupted_submission_goes_on(folder, stand_in, monkeypatch):
    finish, finished = raster_prediction.finish, []

    def breaks_at_the_second(job, overwrite=False):
        if finished:
            raise KeyboardInterrupt
        finished.append(job.image.name)
        return finish(job, overwrite)

    monkeypatch.setattr(raster_prediction, "finish", breaks_at_the_second)
    assert call("--model", "run", "--output", "up.zip").exit_code == 130
    assert not (folder / "up.zip").exists() and finished == ["a1.tif"]
    assert len(list((folder / "up").glob(".a2_*.swaths"))) == 1
    monkeypatch.setattr(raster_prediction, "finish", finish)
    result = call("--model", "run", "--output", "up.zip")
    assert result.stdout.startswith("up: 1 of 2 masks are there\nup/a2_output.tif, ")
    assert call("--model", "run", "--output", "whole.zip").exit_code == 0
    assert (folder / "up.zip").read_bytes() == (folder / "whole.zip").read_bytes()


def test_what_infer_has_predicted_is_taken(folder, stand_in):
    words = ("--model", "run", "--threshold", 0.3)
    images = folder / "data" / "AerialImageDataset" / "test" / "images"
    done = call("--image", images, *words, "--output", "up", command=infer.main)
    assert done.exit_code == 0, done.output
    result = call(*words, "--output", "up.zip", "--compression", "ccittfax4")
    assert result.stdout.startswith("up: 2 of 2 masks are there\nup.zip: 2 masks")
    one = masks_of(folder / "up.zip")
    # Those of another threshold are not, and not replaced unasked.
    assert "exists already" in fails("--model", "run", "--output", "up.zip")
    (folder / "up.zip").unlink()
    result = call("--model", "run", "--output", "up.zip")
    assert result.exit_code == 2 and "a1_output.tif: exists already" in result.stderr
    assert call("--model", "run", "--output", "up.zip", "--overwrite").exit_code == 0
    assert not np.array_equal(one, masks_of(folder / "up.zip"))


def test_masks_of_other_tools_are_packed(folder):
    masks = [np.random.default_rng(n).integers(0, 2, (90, 120)).astype(np.uint8) for n in (1, 2)]
    (folder / "mine").mkdir()
    write(folder / "mine" / "a1_output.tif", masks[0])
    with rasterio.open(write(folder / "x.tif", masks[1])) as file:
        rasterio.shutil.copy(file, folder / "mine" / "a2.png", driver="PNG")
    write(folder / "mine" / "b7.tif", masks[1])
    write_image(folder / "mine" / "a1_overlay.png", blotches(90, 120))
    result = call("--masks", "mine")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("mine: 1 other raster left out\nresults/mine_submission.zip: 2")
    assert np.array_equal(masks_of(folder / "results" / "mine_submission.zip"), masks)
    write(folder / "mine" / "a1.tif", masks[0])
    assert "another mask of a1" in fails("--masks", "mine", "--output", "x.zip")


def test_a_part_of_the_official_tiles_is_packed_with_a_warning_and_not_passed(folder):
    (folder / "mine").mkdir()
    write_image(
        folder / "data" / "AerialImageDataset" / "test" / "images" / "sfo3.tif", blotches(40, 50)
    )
    for name in NAMES:
        (folder / "data" / "AerialImageDataset" / "test" / "images" / name).unlink()
    write(folder / "mine" / "sfo3.tif", np.ones((40, 50), np.uint8))
    result = call("--masks", "mine", "--output", "up.zip")
    assert result.exit_code == 0 and "up.zip: 1 mask, 0.0 MB, 100.0% buildings" in result.stdout
    warnings = result.stderr.splitlines()
    assert warnings[0] == (
        "warning: the contest wants all tiles; bellingham: none of its 36 masks is there"
    )
    assert len(warnings) == 5 and "sfo: 35 of 36 masks missing: sfo1.tif" in warnings[3]
    errors = fails("--check", "up.zip").splitlines()
    assert len(errors) == 5 and errors[0].startswith("error: up.zip: bellingham: none of its 36")
    # Without images, tiles are as large as the official ones.
    (folder / "data").rename("elsewhere")
    assert "sfo3.tif: has 50 x 40 pixels, its image 5000 x 5000" in fails("--check", "up.zip")
    assert "5000 x 5000" in fails("--masks", "mine", "--output", "other.zip")


def test_bad_input_is_one_line(folder, tmp_path_factory):
    roads = make_run(tmp_path_factory.mktemp("run"), target="roads")
    assert "finds roads; the contest is about buildings" in fails("--model", roads)
    assert "not a run folder" in fails("--model", "none")
    assert "no test images" in fails("--data", "none")
    assert "no test images" in fails("--data", "none", "--check", "up.zip")
    assert "none.zip: is no zip file" in fails("--check", "none.zip")
    assert "is not a folder" in fails("--masks", "none")
    (folder / "empty").mkdir()
    assert "empty: holds no masks of test images, such as a1, a2" in fails("--masks", "empty")
    assert "ends in .zip" in fails("--masks", "empty", "--output", "up.tif")
    assert "--threshold, --workers would do nothing beside --masks" in fails(
        "--masks", "empty", "--threshold", 0.5, "--workers", 2
    )
    assert "--output, --masks would do nothing beside --check" in fails(
        "--check", "up.zip", "--masks", "empty", "--output", "a.zip"
    )


def test_where_an_image_fails_the_others_are_predicted_and_nothing_is_packed(
    folder, stand_in, monkeypatch
):
    finish = raster_prediction.finish

    def fails_at_the_first(job, overwrite):
        if job.image.stem == "a1":
            raise RasterError("a1.tif: corrupt")
        return finish(job, overwrite)

    monkeypatch.setattr(raster_prediction, "finish", fails_at_the_first)
    result = call("--model", "run", "--output", "up.zip")
    assert result.exit_code == 2 and result.stderr == "error: a1.tif: corrupt\n"
    assert (folder / "up" / "a2_output.tif").exists() and not (folder / "up.zip").exists()


def test_the_command_offers_every_compression():
    (option,) = (one for one in submit.main.params if one.name == "compression")
    assert list(option.type.choices) == list(COMPRESSIONS)
