"""The control's command: a run folder like JointNet's, by the same recipes, used the same way."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from experiments import recipes, train_jointnet, train_resnet
from jointnet import JointNet, ResNetUNet
from jointnet import recipe as recipe_module
from jointnet.checkpoints import Checkpoints
from jointnet.distribution import Devices
from jointnet.prediction import predict_image
from jointnet.raster_prediction import predict_raster
from jointnet.runs import WEIGHTS, load_run
from preprocessing.errors import RunError
from preprocessing.patch_store import PatchSettings
from preprocessing.rasters import read_image
from tests import shallow_resnet
from tests.helpers import error
from tests.training_fixtures import tiny_recipe, tiny_store, trained

pytestmark = pytest.mark.usefixtures("plain_graphs")

# Windows that the encoder can halve five times.
PATCHES = PatchSettings(patch_size=32, stride=32, validation_size=32)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(train_resnet.main, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(**training) -> recipes.Recipe:
    settings = {"crop_size": 32, "epochs": 2, "steps_per_epoch": 1} | training
    return replace(tiny_recipe(**settings), patches=PATCHES)


def options_of(command) -> dict[str, dict]:
    described = {p.name: p.to_info_dict() for p in command.params}
    return {name: {k: v for k, v in p.items() if k != "help"} for name, p in described.items()}


def test_the_options_are_those_of_jointnet():
    ours, theirs = options_of(train_resnet.main), options_of(train_jointnet.main)
    assert ours == theirs and len(ours) == 12


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe", "sample", "--set", "variant=resnet18"], "there are ResNet50, ResNet101"),
        (["--recipe", "sample", "--set", "variant=jointnet_half"], "no such variant"),
        (["--recipe", "sample", "--from", "missing.h5"], "missing.h5 is not a run folder"),
        (
            ["--recipe", "sample", "--from", "run", "--set", "variant=ResNet101"],
            "--from takes the network of that run",
        ),
        (["--recipe", "sample", "--resume"], "results/sample_resnet holds no run to go on with"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_made(here, arguments, expected):
    assert expected in error(call(*arguments))
    assert list(here.iterdir()) == []


def test_weights_that_cannot_be_downloaded_are_refused_before_patches_are_cut(here, monkeypatch):
    def download(*arguments: str, **options: str) -> str:
        raise Exception("URL fetch failure")  # noqa: TRY002 (as Keras does)

    monkeypatch.setattr("keras.src.applications.resnet.file_utils.get_file", download)
    message = error(call("--recipe", "sample", "--from", "imagenet"))
    assert "weights of ResNet50 cannot be downloaded (URL fetch failure); give the path" in message
    assert list(here.iterdir()) == []


def test_options_reach_the_recipe_and_the_network(here, monkeypatch):
    opened, called = trained().store, []
    monkeypatch.setattr(recipe_module, "train_recipe", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(recipe_module, "prepare_store", lambda *arguments: opened)
    monkeypatch.setattr(recipe_module, "refuse_other_scenes", lambda *arguments: None)
    (here / "w.h5").touch()
    result = call(
        *("--recipe", "sample", "--set", "variant=ResNet101V2", "--from", "w.h5"),
        *("--set", "epochs=3", "--precision", "float32"),
    )
    assert result.exit_code == 0, result.output
    (found, store, folder, resume, network, devices) = called[0]
    sample = recipes.sample()
    assert (store, folder, resume) == (opened, Path("results/sample_resnet"), False)
    assert network is ResNetUNet and devices == Devices()
    assert (found.variant, found.network) == ("ResNet101V2", {"weights": "w.h5"})
    assert found.training == replace(sample.training, epochs=3, precision="float32")
    assert found.patches == sample.patches
    assert call("--recipe", "sample").exit_code == 0
    assert (called[1][0].variant, called[1][0].network) == ("ResNet50", {"weights": None})


@pytest.mark.parametrize("sizes", [{"crop_size": 16}, {"crop_size": 48}])
def test_crops_that_cannot_be_halved_five_times_are_refused(tmp_path, sizes):
    with pytest.raises(RunError, match="crop_size must be a multiple of 32 for ResNetUNet"):
        recipe_module.train_recipe(
            recipe(**sizes), trained().store, tmp_path / "run", network=ResNetUNet
        )
    other = replace(recipe(), patches=replace(PATCHES, validation_size=16))
    with pytest.raises(RunError, match="validation_size must be a multiple of 32"):
        recipe_module.train_recipe(other, trained().store, tmp_path / "run", network=ResNetUNet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variant", "arguments", "message"),
    [
        ("jointnet", {}, "ResNetUNet cannot be built: unknown backbone 'jointnet'"),
        ("ResNet50", {"weights": "gone.h5"}, "gone.h5 is none"),
    ],
)
def test_a_network_that_cannot_be_built_is_one_error(tmp_path, variant, arguments, message):
    wrong = replace(recipe(), variant=variant, network=arguments)
    with pytest.raises(RunError, match=message):
        recipe_module.train_recipe(wrong, trained().store, tmp_path / "run", network=ResNetUNet)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_one_network_is_not_resumed_with_the_other(tmp_path):
    """The same recipe, so that nothing but the network differs."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "data.json"):
        (folder / name).write_bytes((trained().folder / name).read_bytes())
    resnet = replace(recipe(), variant="ResNet50", network={"decoder_filters": (8, 8, 8, 8, 8)})
    with pytest.raises(RunError, match="was begun with another network, overlap, parameters"):
        recipe_module.train_recipe(resnet, trained().store, folder, resume=True, network=ResNetUNet)


@pytest.mark.slow
def test_a_run_is_interrupted_resumed_and_predicts_a_raster(here, monkeypatch, eager):
    """By the command, all the way; what resumes has the statistics that were saved."""
    shallow_resnet.add(monkeypatch)
    store = tiny_store(here, PATCHES)
    monkeypatch.setitem(recipes.RECIPES, "sample", recipe)
    arguments = ["--recipe", "sample", "--store", store.folder, "--run", "control"]
    arguments += ["--set", f"variant={shallow_resnet.NAME}"]
    save, saved = Checkpoints.save, []

    def save_and_end(self, model, state):
        save(self, model, state)
        saved.append(model.get_weights())
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_end)
    assert call(*arguments).exit_code == 130
    monkeypatch.setattr(Checkpoints, "save", save)
    restore, restored = Checkpoints.restore, []

    def restore_and_look(self, model):
        state = restore(self, model)
        restored.append(model.get_weights())
        return state

    monkeypatch.setattr(Checkpoints, "restore", restore_and_look)
    result = call(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    for one, other in zip(saved[0], restored[0], strict=True):
        np.testing.assert_array_equal(one, other)

    folder = Path("results/control")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    described = config["network"]
    assert described["class"] == "ResNetUNet"
    assert described["arguments"]["backbone"] == config["recipe"]["variant"] == shallow_resnet.NAME
    assert described["arguments"]["initial_weights"] is None
    assert described["arguments"]["band_offset"] == store.manifest["band_mean"]
    assert (config["window"], config["overlap"]) == (32, 8)
    written = {path.name for path in folder.iterdir()}
    assert written == {path.name for path in trained().folder.iterdir()} and WEIGHTS in written
    assert "--model results/control" in result.stdout.splitlines()[-1]

    run = load_run(folder)
    assert isinstance(run.model, ResNetUNet) and not isinstance(run.model, JointNet)
    image = here / "data" / "images" / "ashby1.tif"
    done = predict_raster(run, image, here / "out", probabilities=True)
    assert done.pixels == 40 * 25
    with rasterio.open(here / "out" / "ashby1_probabilities.tif") as file:
        probabilities = file.read(1)
    pixels, _ = read_image(image)
    expected = predict_image(run.model.predict_on_batch, pixels, None, 32, 8)
    np.testing.assert_array_equal(probabilities, expected)
    assert np.isfinite(probabilities).all() and probabilities.shape == (40, 25)
