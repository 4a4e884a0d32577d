import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner

from experiments import infer
from jointnet import raster_prediction
from jointnet.raster_job import outputs_of
from preprocessing.errors import OutputError
from preprocessing.image_names import find_images
from preprocessing.rasters import RasterReader, read_image, read_label
from tests.helpers import blotches, make_run, stand_in_run, write_image

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = ["a_footprints.geojson", "a_footprints.qml", "a_output.tif", "a_overlay.png"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with an image in it."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.tif", blotches(40, 50))
    return tmp_path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), window=128, overlap=16)


@pytest.fixture
def stand_in(monkeypatch):
    """The stand-in network, whatever --model names."""
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: stand_in_run())


def call(*words):
    return CliRunner().invoke(infer.main, [str(word) for word in words])


def fails(*words):
    """The one line that a call fails with; it changes nothing on disk."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert re.fullmatch("error: [^\n]+\n", result.stderr)
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    assert after == before
    return result.stderr


def written(folder):
    return sorted(path.name for path in folder.iterdir())


# What is written and said


def test_an_image_needs_no_further_option(folder, stand_in):
    write_image(folder / "a.tif", blotches(90, 120, seed=1))
    result = call("--image", "a.tif")
    assert result.exit_code == 0 and result.stderr == ""
    assert written(folder / "results") == OUTPUTS
    pattern = (
        r"results/a_output\.tif, a_overlay\.png, a_footprints\.geojson, a_footprints\.qml: "
        r"(\d+) footprints, ([\d.]+)% buildings, [\d.]+ s, [\d.]+ Mpx/s\n"
    )
    found = re.fullmatch(pattern, result.stdout)
    features = json.loads((folder / "results" / "a_footprints.geojson").read_text())["features"]
    assert int(found[1]) == len(features) > 1
    share = (read_label(folder / "results" / "a_output.tif") == 1).mean()
    assert float(found[2]) == pytest.approx(100 * share, abs=0.06)


def test_options_act(folder, stand_in):
    words = (
        "--threshold",
        0,
        "--bands",
        "3,2,1",
        "--output",
        "x/y",
        "--probabilities",
        "--augment",
    )
    assert "100.0% buildings" in call("--image", "a.tif", *words).stdout
    assert "a_probabilities.tif" in written(folder / "x" / "y")
    assert call("--image", "a.tif", *words).exit_code == 2
    assert call("--image", "a.tif", *words, "--overwrite").exit_code == 0


def test_several_images(folder, stand_in):
    write_image(folder / "b.tif", blotches(20, 20), crs=None, transform=Affine.identity())
    write_image(folder / "c.tif", np.zeros((20, 20, 3), np.uint8), nodata=0)
    # As a shell hands on --image *.tif.
    result = call("--image", "a.tif", "b.tif", "c.tif")
    assert result.exit_code == 0 and len(written(folder / "results")) == 12
    note, *lines = result.stdout.splitlines()
    assert note.startswith("b.tif: No CRS: the vector layer will be in pixel coordinates")
    assert [line.split(",")[0] for line in lines] == [
        f"results/{name}_output.tif" for name in "abc"
    ]
    assert "0 footprints, all void: outputs empty" in lines[2]


def test_what_is_done_is_not_done_again(folder, run_folder):
    words = ("--image", "a.tif", "--model", run_folder)
    assert call(*words).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("results").iterdir()}
    result = call(*words)
    assert result.exit_code == 0
    assert result.stdout == "results/a_output.tif: done already; --overwrite does it again\n"
    assert before == {path: path.stat().st_mtime_ns for path in Path("results").iterdir()}
    assert "exists already; --overwrite" in fails(*words, "--threshold", 0.9)
    assert "footprint" in call(*words, "--overwrite").stdout


def test_the_ground_resolution_may_be_given(folder, stand_in):
    assert "0.15 m per pixel, the model" in call("--image", "a.tif", "--gsd", "0.15").stdout
    words = ("--image", "a.tif", "--overwrite", "--gsd")
    assert "m per pixel" not in call(*words, "native").stdout


def test_white_may_be_void(folder, stand_in):
    write_image(folder / "b.tif", np.full((40, 50, 3), 255, np.uint8))
    assert "1 footprint" in call("--image", "b.tif").stdout
    assert "all void" in call("--image", "b.tif", "--void-white", "--overwrite").stdout


def test_one_way_to_share_at_a_time(folder, stand_in):
    line = fails("--image", "a.tif", "--workers", 1, "--dask", "tcp://127.0.0.1:1")
    assert "--workers and --dask: give one of them" in line


def test_an_unreachable_scheduler_is_one_line(folder, run_folder, monkeypatch):
    monkeypatch.setattr("jointnet.workers._SECONDS_TO_CONNECT", 0.5)
    words = ("--model", run_folder, "--dask", "tcp://127.0.0.1:1")
    assert "tcp://127.0.0.1:1: no Dask scheduler answers there" in fails("--image", "a.tif", *words)


def test_a_list_is_predicted(folder, stand_in):
    write_image(folder / "b.tif", blotches(20, 20))
    (folder / "list.txt").write_text("b.tif\na.tif\n")
    result = call("--image", "list.txt")
    assert result.exit_code == 0 and len(written(folder / "results")) == 8
    (folder / "list.txt").write_text("b.tif\n# \nc.tif\n")
    assert "list.txt, line 3: c.tif: no such image" in fails("--image", "list.txt", "--overwrite")


def test_members_of_an_archive(folder, stand_in):
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.write("a.tif", "in/b.tif")
    assert call("--image", "a.tif").exit_code == 0
    for name in (f"/vsizip/{folder}/z.zip/in/b.tif", f"zip://{folder}/z.zip!in/b.tif"):
        result = call("--image", name, "--overwrite")
        assert result.exit_code == 0 and "b_output.tif" in result.stdout
        one, other = (read_label(f"results/{stem}_output.tif") for stem in "ab")
        np.testing.assert_array_equal(one, other)
    line = fails("--image", f"/vsizip/{folder}/z.zip/in/c.tif")
    assert f"/vsizip/{folder}/z.zip/in/c.tif: cannot be opened: " in line


def test_one_footprint_is_singular(folder, stand_in):
    assert ": 1 footprint, " in call("--image", "a.tif", "--threshold", 0).stdout


def test_roads_become_centre_lines(folder, monkeypatch):
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: stand_in_run(target="roads"))
    placed = call("--image", "a.tif")
    found = r"results/a_output\.tif, a_overlay\.png, a_centre_lines\.geojson, a_centre_lines\.qml: "
    assert re.match(found + r"\d+ centre lines?, 0\.\d km, [\d.]+% roads, ", placed.stdout)
    options = {"crs": None, "transform": Affine.identity()}
    write_image(folder / "b.tif", blotches(40, 50), **options)
    assert re.search(r": \d+ centre lines?, \d+ px, ", call("--image", "b.tif").stdout)
    assert "done already" not in call("--image", "a.tif", "--overwrite").stdout


def test_one_that_fails_on_the_way_does_not_stop_the_others(folder, stand_in, monkeypatch):
    write_image(folder / "b.tif", blotches(20, 20))
    finish = raster_prediction.finish

    def fails_on_a(job, overwrite):
        if job.image.name == "a.tif":
            raise OutputError("a.tif: the\ndisk is gone")
        return finish(job, overwrite)

    monkeypatch.setattr(raster_prediction, "finish", fails_on_a)
    result = call("--image", "a.tif", "--image", "b.tif")
    assert result.exit_code == 2
    assert result.stderr == "error: a.tif: the disk is gone\n"
    assert "b_output.tif" in result.stdout and len(written(folder / "results")) == 4


def test_an_interrupt_leaves_nothing(folder, monkeypatch):
    run = stand_in_run()

    def interrupted(images):
        raise KeyboardInterrupt

    run.model.predict_on_batch = interrupted
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: run)
    result = call("--image", "a.tif")
    assert result.exit_code == 130 and written(folder / "results") == []


def test_help_shows_how():
    text = call("--help").stdout
    for word in ("python experiments/infer.py --image bellingham15.tif", "--bands", "_overlay.png"):
        assert word in text
    # The table of outputs and the examples keep their lines.
    assert re.search(r"\n +<image>_overlay\.png +the image", text)
    assert len(re.findall(r"\n +python experiments/infer\.py --image", text)) == 4


def test_outputs_beside_the_images_are_no_images(folder, stand_in):
    assert call("--image", folder, "--output", folder, "--probabilities").exit_code == 0
    (folder / "b_overlay.png").touch()
    assert find_images(["."], folder, outputs_of) == ["a.tif", "b_overlay.png"]


# Bad input: one line, exit code 2, nothing written


def test_missing_images(folder, stand_in):
    assert "b.tif: no such image, neither here nor in data/Aerial" in fails("--image", "b.tif")
    assert "x/b.tif: no such image;" in fails("--image", "x/b.tif")
    assert "no such image" in fails("--image", "a.tif", "--image", "b*.tif")
    (folder / "empty").mkdir()
    assert "empty: folder without images" in fails("--image", "empty")
    assert "--image" in fails()


def test_not_a_raster(folder, stand_in):
    (folder / "b.tif").write_text("no pixels here")
    assert "b.tif: not a raster" in fails("--image", "a.tif", "--image", "b.tif")


@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_truncated(folder, stand_in, kept):
    path = write_image(folder / "b.tif", blotches(600, 40), compress="deflate", blockysize=16)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    line = fails("--image", "b.tif")
    assert "b.tif: " in line and ("window" in line or "not a raster" in line)


def test_bands(folder, stand_in):
    write_image(folder / "b.tif", blotches(20, 20, 1))
    assert "b.tif: has 1 band, the model takes 3" in fails("--image", "b.tif")
    assert "2 bands named" in fails("--image", "a.tif", "--bands", "1,2")
    assert "1 to 3" in fails("--image", "a.tif", "--bands", "1,2,4")
    for words in ("", "a,b,c", "0,1,2", "1;2;3", "-1,2,3", "1,,2"):
        assert "write them as in 4,3,2" in fails("--image", "a.tif", f"--bands={words}")


def test_another_dtype_is_never_stretched(folder, stand_in):
    write_image(folder / "b.tif", blotches(20, 20).astype(np.uint16) * 8)
    line = fails("--image", "a.tif", "--image", "b.tif")
    assert "pixels are uint16, the model takes uint8; `gdal_translate -ot Byte -scale_1 " in line


def test_outputs_in_the_way(folder, stand_in):
    (folder / "results").mkdir()
    (folder / "results" / "a_overlay.png").touch()
    write_image(folder / "b.tif", blotches(20, 20))
    line = fails("--image", "b.tif", "--image", "a.tif")
    assert "results/a_overlay.png: exists already; --overwrite" in line
    assert call("--image", "a.tif", "--overwrite").exit_code == 0
    assert "--output names a folder" in fails("--image", "a.tif", "--output", "b.tif")
    (folder / "x").mkdir()
    shutil.copy("a.tif", "x")
    assert "a.tif, x/a.tif" in fails("--image", "a.tif", "--image", "x", "--overwrite")


def test_no_room_and_no_right(folder, stand_in, monkeypatch):
    assert "x/a_output.tif: cannot be written: " in fails("--image", "a.tif", "--output", "a.tif/x")
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    assert "results/a_output.tif: cannot be written: " in fails("--image", "a.tif")


def test_models_that_are_none(folder):
    assert "nowhere is not a run folder" in fails("--image", "a.tif", "--model", "nowhere")
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    (folder / "run" / "weights.weights.h5").touch()
    assert "run cannot be loaded" in fails("--image", "a.tif", "--model", "run")


def test_options_that_are_none(folder, stand_in):
    for words in ("0", "-1", "nan", "inf", "x"):
        assert "neither metres per pixel nor 'native'" in fails("--image", "a.tif", "--gsd", words)
    assert "--threshold" in fails("--image", "a.tif", "--threshold", "2")
    assert "--treshold" in fails("--image", "a.tif", "--treshold", "0.5")


# The real thing


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(tmp_path, run_folder):
    """From another folder, with the image where Inria's test images lie, and one that is broken."""
    images = tmp_path / "data" / "AerialImageDataset" / "test" / "images"
    images.mkdir(parents=True)
    write_image(images / "bellingham15.tif", blotches(150, 140))
    broken = write_image(images / "sfo1.tif", blotches(900, 40), compress="deflate", blockysize=16)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size * 2 // 3])
    words = ["--image", "sfo1.tif", "--image", "bellingham15.tif", "--model", str(run_folder)]
    # JAX, once imported by another test, leaves a log level of its own in the environment.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "infer.py"), *words],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch("error: [^\n]*sfo1.tif: corrupt[^\n]* window of [^\n]*\n", done.stderr)
    assert re.fullmatch("results/bellingham15_output.tif, .* Mpx/s\n", done.stdout)
    assert written(tmp_path / "results") == [
        "bellingham15_footprints.geojson",
        "bellingham15_footprints.qml",
        "bellingham15_output.tif",
        "bellingham15_overlay.png",
    ]


REFUSED = {
    "RGBA.uint16.tif": "pixels are uint16",
    "all-nodata.tif": "pixels are uint16",
    "corrupt.tif": "cannot read the window of",
    "riotiler_cog_gcps.tif": "has 1 band",
    "riotiler_inverted_lat.tif": "has 1 band",
    "rotated.tif": "has 1 band",
}


def test_real_rasters(real_data, tmp_path, monkeypatch):
    """Each of them gives a result that lies where it lies, or its one line."""
    # Not an untrained network: it finds tens of thousands of specks.
    monkeypatch.setattr(
        "jointnet.runs.load_run", lambda folder: stand_in_run(window=256, overlap=32)
    )
    monkeypatch.chdir(tmp_path)
    paths = sorted((real_data / "geo_cases").rglob("*.tif"))
    assert {path.name for path in paths} > set(REFUSED)
    for path in paths:
        if path.name in REFUSED:
            assert REFUSED[path.name] in fails("--image", path)
            continue
        result = call("--image", path)
        assert result.exit_code == 0 and result.stderr == "", path
        output = f"results/{path.stem}_output.tif"
        with RasterReader(path) as image, RasterReader(output, band_count=1) as mask:
            assert mask.info.crs == image.crs and mask.info.transform == image.transform
        np.testing.assert_array_equal(read_label(output) != 255, read_image(path)[1])


@pytest.mark.parametrize(
    ("name", "bands", "words"),
    [
        ("rotated.tif", "1,1,1", "results/rotated_output.tif"),
        ("riotiler_cog_gcps.tif", "1,1,1", "pixels are uint16"),
    ],
)
def test_real_rasters_of_one_band(real_data, stand_in, tmp_path, monkeypatch, name, bands, words):
    monkeypatch.chdir(tmp_path)
    result = call("--image", real_data / "geo_cases" / name, "--bands", bands)
    assert words in result.output and result.exit_code == (0 if "results" in words else 2)
