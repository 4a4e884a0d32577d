"""A recipe, from scenes to a finished run folder: what is written, resumed and refused."""

import json
import shlex
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest

from jointnet import recipe as recipe_module
from jointnet.metrics import threshold_mask
from jointnet.prediction import predict_image
from jointnet.recipe import prepare_store, refuse_other_scenes, train_recipe
from jointnet.resnet import ResNetUNet
from jointnet.runs import WEIGHTS, load_run
from preprocessing.errors import RunError, StoreError
from preprocessing.output_files import hash_file
from preprocessing.patch_store import PatchStore, open_store, stored_scenes
from tests.training_fixtures import (
    NETWORK,
    PATCHES,
    ROOT,
    squares,
    tiny_recipe,
    tiny_store,
    trained,
    write_inria,
)

pytestmark = pytest.mark.usefixtures("plain_graphs")


@pytest.fixture
def copy(tmp_path, eager) -> Path:
    """A copy of a finished run."""
    return shutil.copytree(trained().folder, tmp_path / "copy")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


# The run folder


def test_a_run_folder_holds_what_is_promised():
    folder = trained().folder
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "environment.json",
        "data.json",
        "history.csv",
        "metrics.json",
        "curves.png",
        "pictures",
        "checkpoints",
        "events",
        WEIGHTS,
    }


def test_the_configuration_says_what_use_and_repetition_depend_on():
    done = trained()
    config = read(done.folder / "config.json")
    arguments = config["network"]["arguments"]
    assert config["network"]["class"] == "JointNet"
    assert arguments["growth_rates"] == list(NETWORK["growth_rates"])
    assert arguments["band_offset"] == done.store.manifest["band_mean"]
    assert arguments["band_scale"] == done.store.manifest["band_std"]
    assert config["parameters"] == done.run.model.count_params()
    expected = {"bands": 3, "dtype": "uint8", "target": "buildings", "threshold": 0.6}
    assert expected.items() <= config.items()
    assert config["gsd"] == pytest.approx(0.3, rel=1e-3)
    assert (config["window"], config["overlap"]) == (16, 4)
    assert config["recipe"]["name"] == "tiny"
    assert config["recipe"]["training"]["epochs"] == 2
    assert config["recipe"]["patches"]["patch_size"] == 32


def test_the_data_say_which_scenes_stood_where_and_of_what_pixels():
    done = trained()
    data = read(done.folder / "data.json")
    assert data["manifest_sha256"] == done.store.sha256
    assert data["patches"] == {"train": 5, "validation": 8}
    assert [(s["name"], s["split"]) for s in data["scenes"]] == [
        ("ashby1", "validation"),
        ("ashby2", "train"),
        ("borth1", "validation"),
        ("borth2", "train"),
    ]
    for scene, described in zip(data["scenes"], done.store.manifest["scenes"], strict=True):
        assert scene["image_sha256"] == described["image"]["sha256"]
        assert scene["label_sha256"] == described["label"]["sha256"]
    # No path: the folder is read on other machines, and put into git.
    for name in ("data.json", "config.json", "metrics.json"):
        assert str(done.data) not in (done.folder / name).read_text()


def test_the_metrics_are_those_of_the_weights_as_written_on_whole_scenes(eager):
    done = trained()
    metrics = read(done.folder / "metrics.json")
    history = read(done.folder / "checkpoints" / "state.json")["history"]
    assert metrics["epochs"] == 2 and metrics["best_epoch"] in history
    assert metrics["best_epoch"]["validation_iou"] == max(r["validation_iou"] for r in history)
    overall = [row for row in metrics["scenes"] if row["place"] == "overall"]
    assert [row["threshold"] for row in overall] == [0.5, 0.6]
    found = wanted = both = 0
    for scene in stored_scenes(done.store):
        probabilities = predict_image(
            done.run.model.predict_on_batch, scene.image, window=16, overlap=4
        )
        mask = threshold_mask(probabilities, 0.6)
        found, wanted = found + (mask == 1).sum(), wanted + (scene.mask == 1).sum()
        both += ((mask == 1) & (scene.mask == 1)).sum()
    assert overall[1]["true_positive"] == both
    assert overall[1]["false_positive"] == found - both
    assert overall[1]["false_negative"] == wanted - both


def test_the_weights_are_those_of_the_best_epoch_in_half_precision():
    done = trained()
    with (
        h5py.File(done.folder / WEIGHTS) as ours,
        h5py.File(done.folder / "checkpoints" / "best.weights.h5") as best,
    ):
        names = []
        ours.visititems(
            lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None
        )
        assert len(names) == len(done.run.model.weights)
        for name in names:
            assert np.array_equal(ours[name][...], best[name][...].astype(np.float16))


def test_pictures_and_curves_are_there():
    folder = trained().folder
    for path in (folder / "curves.png", folder / "pictures" / "ashby1.png"):
        assert matplotlib.image.imread(path).shape[0] > 200


def test_it_ends_with_the_picture_and_the_line_that_predicts_with_it():
    done = trained()
    lines = done.printed.strip().splitlines()
    assert lines[-2] == f"picture of ashby1: {done.folder / 'pictures' / 'ashby1.png'}"
    *command, flag, model, option, image = shlex.split(lines[-1].split(": ", 1)[1])
    assert command == ["python", "experiments/infer.py"]
    assert (flag, option) == ("--model", "--image")
    assert Path(model) == done.folder and " " in model
    assert Path(image) == done.data / "images" / "ashby1.tif"
    assert load_run(Path(model)).config == done.run.config
    # Above them the table, whose last line is all scenes at 0.6.
    assert lines[-3].split()[:4] == ["0.6", "overall", "2", "1,240"]


def test_the_run_is_what_its_folder_loads(eager):
    done = trained()
    assert done.run.config == read(done.folder / "config.json")
    image = squares(16, 16)[0][None]
    again = load_run(done.folder).model.predict_on_batch(image)
    np.testing.assert_array_equal(again, done.run.model.predict_on_batch(image))


# Resuming


def refusal(folder: Path, resume: bool, recipe=None, store=None) -> str:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(RunError) as caught:
        train_recipe(recipe or trained().recipe, store or trained().store, folder, resume)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_training(monkeypatch, called: list) -> None:
    """Let a run be trained by nobody; what it was to be trained by is added to the list."""
    monkeypatch.setattr(recipe_module, "train", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(recipe_module, "save_weights", lambda *arguments: None)
    monkeypatch.setattr(recipe_module, "_judge", lambda *arguments: None)


def test_a_run_is_not_overwritten(copy):
    assert "holds a run already; go on with --resume" in refusal(copy, resume=False)


def test_there_must_be_a_run_to_resume(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no run to go on with" in refusal(tmp_path / "empty", resume=True)
    assert "holds no run to go on with" in refusal(tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("recipe", "differing"),
    [
        (tiny_recipe(epochs=3), "recipe"),
        (tiny_recipe(seed=1), "recipe"),
        (replace(tiny_recipe(), variant="jointnet_block_input"), "network, parameters, recipe"),
        (replace(tiny_recipe(), network=NETWORK | {"bridge_filters": 16}), "network, parameters"),
        (tiny_recipe(threshold=0.5), "recipe, threshold"),
    ],
)
def test_a_run_of_other_options_is_not_resumed(copy, recipe, differing):
    message = refusal(copy, resume=True, recipe=recipe)
    assert f"was begun with another {differing};" in message


def test_a_run_on_other_scenes_is_not_resumed(copy):
    """Other labels, say: the same bands, sizes and settings, so that nothing else differs."""
    manifest = json.loads(json.dumps(trained().store.manifest))
    manifest["scenes"][1]["label"]["sha256"] = "0" * 64
    message = refusal(copy, resume=True, store=replace(trained().store, manifest=manifest))
    assert "was begun with another data;" in message


def test_a_run_moved_with_its_store_can_be_resumed(copy, monkeypatch):
    """Paths in the manifest, and with them its hash, may change; the pixels may not."""
    manifest = json.loads(json.dumps(trained().store.manifest).replace("/data/", "/moved/"))
    called = []
    without_training(monkeypatch, called)
    train_recipe(trained().recipe, replace(trained().store, manifest=manifest), copy, resume=True)
    assert called[0][-1] is True


@pytest.mark.parametrize(
    ("name", "text"), [("config.json", "{"), ("config.json", "[]"), ("data.json", "[]")]
)
def test_a_damaged_record_is_not_resumed(copy, name, text):
    (copy / name).write_text(text)
    assert "cannot be resumed" in refusal(copy, resume=True)


def test_a_run_begun_before_an_option_existed_can_be_resumed(copy, monkeypatch):
    """What its config.json does not know was not used."""
    config = read(copy / "config.json")
    before = {key: value for key, value in config["recipe"].items() if value is not None}
    before["training"] = {k: v for k, v in before["training"].items() if v is not None}
    assert before != config["recipe"]
    (copy / "config.json").write_text(json.dumps(config | {"recipe": before}))
    called = []
    without_training(monkeypatch, called)
    train_recipe(trained().recipe, trained().store, copy, resume=True)
    assert called[0][-1] is True


def test_a_run_killed_in_its_first_epoch_begins_again(copy, monkeypatch):
    shutil.rmtree(copy / "checkpoints")
    (copy / WEIGHTS).unlink()
    called = []
    without_training(monkeypatch, called)
    train_recipe(trained().recipe, trained().store, copy, resume=True)
    assert called[0][-1] is False


def test_a_finished_run_is_only_written_again(copy):
    """Resumed after its last epoch: the same weights and figures, also where they were lost."""
    before = {name: (copy / name).read_bytes() for name in ("metrics.json", "history.csv")}
    (copy / "metrics.json").unlink()
    (copy / WEIGHTS).unlink()
    again = train_recipe(trained().recipe, trained().store, copy, resume=True)
    assert {name: (copy / name).read_bytes() for name in before} == before
    for one, other in zip(
        again.model.get_weights(), trained().run.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


# The store


def test_a_store_is_cut_once_and_opened_after_that(tmp_path):
    data = write_inria(tmp_path / "data")
    cut = prepare_store(tiny_recipe(), data, tmp_path / "store")
    shutil.rmtree(data)
    again = prepare_store(tiny_recipe(), tmp_path / "nowhere", tmp_path / "store")
    assert again.sha256 == cut.sha256


def test_a_store_of_other_settings_is_refused_with_both(tmp_path):
    tiny_store(tmp_path)
    other = replace(tiny_recipe(), patches=replace(PATCHES, stride=32))
    with pytest.raises(StoreError, match=r"stride=16.*the recipe asks for .*stride=32"):
        prepare_store(other, tmp_path / "data", tmp_path / "store")


def test_a_store_of_fewer_scenes_than_the_data_have_by_now_is_refused(tmp_path):
    store = tiny_store(tmp_path)
    recipe = tiny_recipe()
    refuse_other_scenes(store, recipe, tmp_path / "data")
    with pytest.raises(StoreError, match=r"they differ in ashby2 \((train|validation)\)"):
        refuse_other_scenes(store, replace(recipe, validation=[1, "ashby2"]), tmp_path / "data")
    for folder in ("images", "gt"):
        source = tmp_path / "data" / folder
        shutil.copy(source / "borth2.tif", source / "borth3.tif")
    with pytest.raises(StoreError, match=r"4 scenes, .* has 5, .* borth3 \(train\)"):
        refuse_other_scenes(store, recipe, tmp_path / "data")


# Begun with the weights of another run


def begun(folder: Path, store: PatchStore, **training):
    recipe = replace(tiny_recipe(**training), initial=trained().folder)
    return train_recipe(recipe, store, folder)


@pytest.mark.slow
def test_it_begins_with_all_of_the_other_run(tmp_path, eager):
    """At a learning rate of nothing it ends with it too, whatever the new patches look like."""
    store = replace(trained().store, manifest=trained().store.manifest | {"band_mean": [9, 9, 9]})
    run = begun(tmp_path / "run", store, epochs=1, steps_per_epoch=1, learning_rate=1e-12)
    for one, other in zip(run.model.get_weights(), trained().run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    config = json.loads((run.folder / "config.json").read_text())
    other = json.loads((trained().folder / "config.json").read_text())
    assert config["network"] == other["network"]
    assert config["recipe"]["initial"] == hash_file(trained().folder / WEIGHTS)
    assert other["recipe"]["initial"] is None


def test_a_network_of_another_class_or_other_bands_is_refused(tmp_path):
    recipe = replace(tiny_recipe(), initial=trained().folder)
    with pytest.raises(RunError, match="holds a JointNet, this command trains ResNetUNet"):
        train_recipe(recipe, trained().store, tmp_path / "run", network=ResNetUNet)
    two = replace(trained().store, manifest=trained().store.manifest | {"bands": 2})
    with pytest.raises(RunError, match="takes 3 bands of uint8, .* has 2 bands of uint8"):
        train_recipe(recipe, two, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Written by an earlier version

FORMER = ROOT / "tests" / "run_of_d7adeba.zip"


@pytest.fixture
def former(tmp_path) -> Path:
    """A store, a finished run and one that was killed in its second epoch, of commit d7adeba."""
    with zipfile.ZipFile(FORMER) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def former_recipe(patches):
    training = tiny_recipe(weight_average=0.9, micro_batch_size=1).training
    network = {"growth_rates": (1, 1, 1), "bridge_filters": 1, "groups": 1}
    return replace(tiny_recipe(), patches=patches, training=training, network=network)


def test_a_run_of_an_earlier_version_predicts_as_it_did(former):
    run = load_run(former / "finished")
    image = open_store(former / "store").validation.images[:1]
    expected = np.load(former / "probabilities.npy")
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(run.model.predict_on_batch(image), expected, atol=1e-5)


def test_a_run_of_an_earlier_version_goes_on_as_if_it_had_not_stopped(former, eager):
    store = open_store(former / "store")
    assert read(former / "begun" / "config.json")["recipe"]["training"]["store_on_device"] is False
    run = train_recipe(former_recipe(store.settings), store, former / "begun", resume=True)
    finished = load_run(former / "finished")
    for one, other in zip(run.model.get_weights(), finished.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert run.config["network"] == finished.config["network"]
    one, other = (read(r.folder / "metrics.json")["best_epoch"] for r in (run, finished))
    assert one == pytest.approx(other, rel=1e-3)


def test_a_run_that_held_its_patches_on_the_device_can_be_resumed(former, monkeypatch):
    """Which is no setting any more, and changed nothing in what was learned."""
    folder, called = former / "begun", []
    text = (folder / "config.json").read_text()
    assert '"store_on_device": false' in text
    text = text.replace('"store_on_device": false', '"store_on_device": true')
    (folder / "config.json").write_text(text)
    without_training(monkeypatch, called)
    store = open_store(former / "store")
    train_recipe(former_recipe(store.settings), store, folder, resume=True)
    assert called[0][-1] is True
