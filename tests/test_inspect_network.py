import functools
import re
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner

from experiments import inspect_network
from experiments.inspect_network import FIGURES
from experiments.options import SHIPPED
from jointnet import figures, runs
from jointnet.inspection import default_layer, grad_cam, observe
from jointnet.network_input import read_patch
from jointnet.runs import load_run
from preprocessing.errors import RasterError
from tests.helpers import blotches, make_run, stand_in_run, write_image

SIDE = 32


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), window=SIDE)


load_once = functools.cache(load_run)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with an image in it; networks are built once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "load_run", load_once)
    write_image(tmp_path / "a.tif", blotches(70, 90))
    return tmp_path


def call(*words):
    return CliRunner().invoke(inspect_network.main, [str(word) for word in words])


def fails(*words):
    """The one line that a call fails with; it leaves nothing on disk."""
    before = sorted(inspect_network.Path().rglob("*"))
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert re.fullmatch("error: [^\n]+\n", result.stderr)
    assert sorted(inspect_network.Path().rglob("*")) == before
    return result.stderr


# The patch


def test_a_patch_is_the_middle_or_where_it_is_said(folder):
    image, run = blotches(70, 90), stand_in_run()
    for corner, (column, row) in {
        None: (29, 19),
        (3, 5): (3, 5),
        (0, 0): (0, 0),
        # Moved back, as windows of a prediction are.
        (89, 69): (58, 38),
    }.items():
        pixels, valid, place = read_patch(run, "a.tif", corner)
        assert place == (column, row) and valid.all()
        assert np.array_equal(pixels, image[row : row + SIDE, column : column + SIDE])


def test_a_small_raster_is_mirrored(folder):
    image = blotches(20, 50)
    write_image(folder / "b.tif", image)
    pixels, valid, place = read_patch(stand_in_run(), "b.tif", (10, 15))
    assert place == (10, 0) and valid.shape == (SIDE, SIDE) and valid.all()
    assert np.array_equal(pixels[:20], image[:, 10:42])
    assert np.array_equal(pixels[20:], image[7:19, 10:42][::-1])


def test_another_resolution_is_resampled_and_the_corner_counts_in_the_raster(folder):
    image = np.kron(blotches(40, 50), np.ones((2, 2, 1), np.uint8))
    fine = Affine(0.15, 0, 500_000, 0, -0.15, 5_000_000)
    write_image(folder / "b.tif", image, transform=fine)
    pixels, valid, place = read_patch(stand_in_run(), "b.tif", (20, 8))
    assert place == (20, 8) and valid.all()
    assert np.array_equal(pixels, blotches(40, 50)[4 : 4 + SIDE, 10 : 10 + SIDE])
    native, _, place = read_patch(stand_in_run(), "b.tif", (20, 8), "native")
    assert place == (20, 8)
    assert np.array_equal(native, image[8 : 8 + SIDE, 20 : 20 + SIDE])


def test_a_patch_that_is_void_or_outside_is_refused(folder):
    image = blotches(70, 90)
    image[:, :40] = 0
    write_image(folder / "b.tif", image, nodata=0)
    words = "the 32 x 32 pixels from column 4, row 8 on are void; name others by --window"
    with pytest.raises(RasterError, match=words):
        read_patch(stand_in_run(), "b.tif", (4, 8))
    _, valid, _ = read_patch(stand_in_run(), "b.tif", (20, 8))
    assert np.array_equal(valid.any(axis=0), np.arange(SIDE) >= 20)
    with pytest.raises(RasterError, match="no column 90 and row 3; it has 90 columns and 70 rows"):
        read_patch(stand_in_run(), "b.tif", (90, 3))


# The command


def test_pictures_are_drawn_beside_the_run_and_not_replaced_unasked(folder, run_folder):
    result = call("--image", "a.tif", "--model", run_folder)
    assert result.exit_code == 0, result.output
    place = run_folder / "inspection"
    assert result.stdout.startswith(
        f"{place}/filters.png, feature_maps.png, grad_cam.png: bridge, "
    )
    assert "8 channels, for the logits of " in result.stdout
    assert sorted(path.name for path in place.iterdir()) == sorted(FIGURES)
    for name in FIGURES:
        assert np.ptp(matplotlib.image.imread(place / name)[..., :3]) > 0.5
    assert "exists already; --overwrite" in fails("--image", "a.tif", "--model", run_folder)
    before = (place / "grad_cam.png").read_bytes()
    words = ("--overwrite", "--layer", "decoder_1/normalization_2", "--window", "0,0")
    result = call("--image", "a.tif", "--model", run_folder, *words, "--pixels", "all")
    assert result.stdout.endswith(
        "decoder_1/normalization_2, 8 channels, for the logits of all pixels\n"
    )
    assert (place / "grad_cam.png").read_bytes() != before


@pytest.mark.parametrize(
    ("threshold", "explained"), [(1, "all pixels"), (0, "the 1,024 pixels found")]
)
def test_where_nothing_is_found_all_pixels_are_explained(
    folder, run_folder, monkeypatch, threshold, explained
):
    for name in ("draw_filters", "draw_feature_maps"):
        monkeypatch.setattr(figures, name, lambda _, title, path, *__: path.touch())
    monkeypatch.setattr(figures, "draw_grad_cam", lambda *words: words[-1].touch())
    run = load_once(run_folder)
    run = replace(run, config=run.config | {"threshold": threshold})
    monkeypatch.setattr(runs, "load_run", lambda folder: run)
    result = call("--image", "a.tif", "--output", "x")
    assert result.stdout.endswith(f"for the logits of {explained}\n")


def test_layers_are_listed(run_folder):
    lines = call("--list-layers", "--model", run_folder).stdout.splitlines()
    assert lines[:3] == ["scaling  3", "encoder_1  32", "encoder_1/convolution_1  8"]
    assert lines[-1] == "logits  1"


def test_bad_input_is_one_line(folder, run_folder):
    model = ("--model", run_folder, "--output", "x")
    layers = "no layer 'x'; there are scaling, encoder_1..3, encoder_1..3/convolution_1..6, "
    assert layers in fails("--image", "a.tif", "--layer", "x", *model)
    assert "--image names what to look at" in fails(*model)
    assert "no such file" in fails("--image", "none.tif", *model)
    assert "not a run folder" in fails("--image", "a.tif", "--model", "none")
    for window in ("5", "a,b", "-1,5", "1,2,3"):
        assert "write them as in 1024,512" in fails(
            "--image", "a.tif", f"--window={window}", *model
        )
    assert "no column 900 and row 0" in fails("--image", "a.tif", "--window", "900,0", *model)
    write_image(folder / "void.tif", np.zeros((40, 40, 3), np.uint8), nodata=0)
    assert "are void; name others by --window" in fails("--image", "void.tif", *model)
    write_image(folder / "deep.tif", blotches(40, 40).astype(np.uint16))
    assert "pixels are uint16, the model takes uint8" in fails("--image", "deep.tif", *model)


def test_the_shipped_weights_are_explained_on_a_real_patch(real_data):
    run = load_run(SHIPPED["buildings"])
    # A quarter of the pixels that the network was trained on takes a quarter of the time.
    run = replace(run, config=run.config | {"window": 256})
    image = real_data / "aerial_buildings" / "train" / "images" / "barnarp1.tif"
    patch, valid, _ = read_patch(run, image)
    layer = default_layer(run.model)
    seen = observe(run.model, patch, layer)
    found = seen.probabilities >= run.config["threshold"]
    cam = grad_cam(run.model, patch, layer, found)
    side = run.config["window"]
    assert cam.heat.shape == (side, side) == patch.shape[:2] and valid.all()
    assert np.isfinite(cam.heat).all() and cam.heat.min() >= 0 and cam.heat.max() == 1
    # What speaks for a building lies on what is found, rather than beside it.
    assert 0.01 < found.mean() < 0.5
    assert cam.heat[found].mean() > 2 * cam.heat[~found].mean()
