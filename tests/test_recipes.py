"""Recipes: what their docstrings promise, that their settings fit together, and that of a store."""

import dataclasses
import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from experiments import recipes
from experiments.recipes import (
    PIXELS_PER_BATCH,
    RECIPES,
    open_buildings,
    open_roads,
    sample,
    stored_recipe,
)
from jointnet.batches import TrainingBatches
from jointnet.model import VARIANTS, JointNet
from jointnet.recipe import prepare_store, train_recipe
from jointnet.training_settings import TrainingSettings
from preprocessing import sample_scenes
from preprocessing.errors import DatasetError, OutputError
from preprocessing.inria import inria_scenes
from preprocessing.patch_store import PatchSettings, PatchStore, open_store
from preprocessing.patches import build_store
from tests.training_fixtures import NETWORK, PATCHES, squares, tiny_store, write_inria, write_scene

pytestmark = pytest.mark.usefixtures("plain_graphs")


every_recipe = pytest.mark.parametrize("name", RECIPES)


def test_all_recipes_of_the_module_can_be_named():
    functions = {
        name
        for name, value in inspect.getmembers(recipes, inspect.isfunction)
        if value.__module__.endswith("recipes") and not name.startswith("_")
    }
    assert functions == {*RECIPES, "stored_recipe", "scenes_of"}
    assert {"sample", "inria_buildings", "polygons", "open_buildings"} <= functions


@every_recipe
def test_a_docstring_says_source_data_command_time_and_score(name):
    text = " ".join(inspect.getdoc(RECIPES[name]).split())
    for heading in ("Source:", "Data:", "Command:", "Time:", "Score:"):
        assert heading in text
    command = re.search(r"Command: ``python experiments/train_jointnet.py ([^`]*)``", text)[1]
    assert f"--recipe {name}" in command


@every_recipe
def test_a_recipe_has_the_name_by_which_it_is_called(name):
    assert RECIPES[name]().name == name


@every_recipe
def test_sizes_fit_together(name):
    recipe = RECIPES[name]()
    training, patches = recipe.training, recipe.patches
    assert training.crop_size <= patches.patch_size
    assert patches.stride <= patches.patch_size
    assert training.crop_size == patches.validation_size
    assert training.crop_size % JointNet.MULTIPLE == 0
    if training.steps_per_epoch and training.warmup_steps:
        assert training.warmup_steps < 0.2 * training.steps_per_epoch * training.epochs


@every_recipe
def test_groups_divide_the_growth_rates(name):
    recipe = RECIPES[name]()
    arguments = {**VARIANTS[recipe.variant], **recipe.network}
    growth_rates = arguments.get("growth_rates", (32, 64, 128))
    groups = arguments.get("groups", 8)
    by_depth = (8, 16, 32) if groups == "doubling" else (groups,) * 3
    assert all(rate % group == 0 for rate, group in zip(growth_rates, by_depth, strict=True))


@every_recipe
def test_a_recipe_survives_json(name):
    recipe = RECIPES[name]()
    content = recipe.training.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert json.loads(json.dumps(dataclasses.asdict(recipe.patches)))


def test_training_settings_can_be_replaced_and_the_rest_stays():
    changed = sample().with_training(epochs=3, seed=5)
    assert (changed.training.epochs, changed.training.seed) == (3, 5)
    again = changed.with_training(epochs=sample().training.epochs, seed=0)
    assert again.training == sample().training
    assert (changed.name, changed.variant, changed.patches) == (
        sample().name,
        sample().variant,
        sample().patches,
    )


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="momentum"):
        sample().with_training(momentum=0.9)


# Scenes


def names(scenes: list, split: str) -> list[str]:
    return [scene.name for scene in scenes if scene.split == split]


def test_inria_holds_back_tiles_1_to_5_unless_told(tmp_path):
    sizes = dict.fromkeys([f"austin{n}" for n in range(1, 8)], (16, 16))
    write_inria(tmp_path / "AerialImageDataset" / "train", sizes)
    scenes = RECIPES["inria_buildings"]().scenes
    assert names(scenes(tmp_path, None), "validation") == [f"austin{n}" for n in range(1, 6)]
    assert names(scenes(tmp_path, [6, "austin1"]), "validation") == ["austin1", "austin6"]


def test_open_buildings_is_two_data_sets_of_one_split(tmp_path):
    write_inria(tmp_path / "aerial_buildings" / "train", {"barn1": (16, 16), "barn2": (16, 16)})
    write_inria(tmp_path / "inria_patches", {"austin1_0": (16, 16), "chicago1_0": (16, 16)})
    scenes = RECIPES["open_buildings"]().scenes(tmp_path, None)
    assert names(scenes, "validation") == ["barn1", "chicago1_0"]
    assert names(scenes, "train") == ["barn2", "austin1_0"]


def test_the_split_of_open_buildings_is_fixed(tmp_path):
    with pytest.raises(DatasetError, match="leave --validation out"):
        RECIPES["open_buildings"]().scenes(tmp_path, [1])


def test_open_buildings_of_the_real_imagery_is_the_stated_split(real_data):
    scenes = RECIPES["open_buildings"]().scenes(real_data, None)
    places = ("barnarp", "zanzibar", "nepal", "philippines", "nairobi")
    held_back = {name for name in names(scenes, "validation") if not name.startswith("chicago1_")}
    assert held_back == {f"{place}1" for place in places}
    assert not [name for name in names(scenes, "train") if name.startswith("chicago")]


def test_polygons_carries_filter_and_buffer_to_every_scene(tmp_path):
    (tmp_path / "polygons").mkdir()
    for number in (1, 2):
        image, mask = squares(16, 16)
        write_scene(tmp_path, f"a{number}", image, mask, Affine(1, 0, 20 * number, 0, -1, 0))
        (tmp_path / "polygons" / f"a{number}.geojson").touch()
    shutil.rmtree(tmp_path / "gt")
    scenes = recipes.polygons(where="building = 'yes'", buffer_m=2.5).scenes(tmp_path, None)
    assert [(s.where, s.buffer_m) for s in scenes] == [("building = 'yes'", 2.5)] * 2
    plain = recipes.polygons().scenes(tmp_path, [2])
    assert [(s.where, s.buffer_m) for s in plain] == [(None, None)] * 2
    assert names(plain, "validation") == ["a2"]


def test_a_recipe_without_its_data_says_what_was_looked_for(tmp_path):
    for name in ("inria_buildings", "open_buildings", "polygons"):
        with pytest.raises(DatasetError):
            RECIPES[name]().scenes(tmp_path, None)


# Generated scenes


def few_scenes(monkeypatch, fail_after: int | None = None) -> list:
    """Generate two small scenes instead of twelve; or fail after some."""
    calls, write = [], sample_scenes.write_sample_scenes

    def generate(folder, **arguments):
        calls.append(arguments)
        write(folder, **arguments | {"scenes": fail_after or 4, "size": 128})
        if fail_after:
            raise OutputError("disk full")

    monkeypatch.setattr(sample_scenes, "write_sample_scenes", generate)
    return calls


def test_sample_scenes_are_generated_once(tmp_path, monkeypatch):
    calls = few_scenes(monkeypatch)
    data = tmp_path / "data"
    scenes = sample().scenes(data, None)
    assert names(scenes, "validation") == ["modelton1", "sampleville1"]
    assert names(scenes, "train") == ["modelton2", "sampleville2"]
    again = sample().scenes(data, [2])
    assert names(again, "validation") == ["modelton2", "sampleville2"]
    assert calls == [{"scenes": 12, "size": 512, "seed": 0}]
    assert [path.name for path in data.iterdir()] == ["sample_scenes"]


def test_scenes_that_were_generated_in_part_do_not_pass_for_the_whole(tmp_path, monkeypatch):
    few_scenes(monkeypatch, fail_after=2)
    with pytest.raises(OutputError):
        sample().scenes(tmp_path / "data", None)
    assert list((tmp_path / "data").iterdir()) == []


# The recipe that a patch store is trained by as it was cut.


@pytest.fixture
def two_sources(tmp_path):
    """A store whose training patches come from two data sets, of one and of many patches."""
    scenes = inria_scenes(write_inria(tmp_path / "data"), (1,))
    sourced = [replace(scene, source=scene.place) for scene in scenes]
    return build_store(tmp_path / "store", sourced, PATCHES)


@pytest.mark.parametrize("target", ["buildings", "roads", "fields"])
def test_the_target_decides_on_the_settings(tmp_path, target):
    store = tiny_store(tmp_path, replace(PATCHES, target=target))
    recipe = stored_recipe(store)
    base = open_roads() if target == "roads" else open_buildings()
    assert (recipe.name, recipe.variant) == ("store", base.variant)
    assert recipe.patches == replace(PATCHES, target=target)
    expected = replace(
        base.training, crop_size=16, batch_size=PIXELS_PER_BATCH // 256, source_shares=None
    )
    assert recipe.training == expected


@pytest.mark.parametrize(("size", "batch"), [(256, 4), (512, 1), (1024, 1), (128, 16)])
def test_a_batch_has_as_many_pixels_whatever_the_window(tmp_path, size, batch):
    store = tiny_store(tmp_path)
    settings = PatchSettings(patch_size=1024, stride=1024, validation_size=size)
    store.manifest["settings"] = vars(settings)
    training = stored_recipe(store).training
    assert (training.crop_size, training.batch_size) == (size, batch)


def batches_of(store: PatchStore, training: TrainingSettings) -> TrainingBatches:
    """The batches of the first epoch, as large as the training's."""
    return TrainingBatches(
        store.train,
        epoch=0,
        seed=0,
        batch_size=training.batch_size,
        crop_size=16,
        augmentation=training.augmentation,
        source_shares=training.source_shares,
    )


def test_sources_have_equal_shares_of_each_batch(two_sources):
    recipe = stored_recipe(two_sources).with_training(batch_size=4)
    assert recipe.training.source_shares == {"ashby": 0.5, "borth": 0.5}
    batches = batches_of(two_sources, recipe.training)
    for index in range(len(batches)):
        assert sum(name.startswith("borth") for name in batches.names(index)) == 2


@pytest.mark.parametrize("void", [("borth",), ("ashby",)])
def test_a_source_without_valid_pixels_has_no_share(two_sources, void):
    patches = two_sources.train
    empty = np.array([source in void for source in patches.sources])
    shares = np.where(empty, 0, patches.valid_shares)
    store = replace(two_sources, train=replace(patches, valid_shares=shares))
    training = stored_recipe(store).with_training(batch_size=2).training
    assert training.source_shares is None
    batches = batches_of(store, training)
    names = [name for index in range(len(batches)) for name in batches.names(index)]
    assert names and not any(name.startswith(void) for name in names)


def test_other_depths_have_a_value_range(tmp_path):
    store = tiny_store(tmp_path)
    assert stored_recipe(store).training.augmentation == open_buildings().training.augmentation
    store.manifest["dtype"] = "uint16"
    store.manifest["band_percentiles"] = {"2": [20.0, 30.0, 40.0], "98": [900.0, 950.0, 1100.0]}
    augmentation = stored_recipe(store).training.augmentation
    assert augmentation.value_range == (30.0, 950.0)
    assert augmentation.hue == open_buildings().training.augmentation.hue


def test_the_recipe_fits_its_store(tmp_path):
    store = tiny_store(tmp_path)
    recipe = stored_recipe(store)
    assert prepare_store(recipe, Path("nowhere"), store.folder).folder == store.folder


def test_a_store_of_an_earlier_version_can_be_trained_on(tmp_path):
    folder = tiny_store(tmp_path).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("band_limits", "band_percentiles"):
        manifest.pop(key, None)
    manifest["settings"].pop("band_numbers", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    recipe = stored_recipe(open_store(folder))
    assert recipe.patches == PATCHES and recipe.training.augmentation.value_range is None


def test_its_scenes_cannot_be_listed(tmp_path):
    with pytest.raises(DatasetError, match="give it by --store"):
        stored_recipe(tiny_store(tmp_path)).scenes(Path("data"), None)


@pytest.mark.slow
def test_a_store_is_trained_on_without_its_data(two_sources, tmp_path, eager):
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    store = open_store(two_sources.folder)
    recipe = replace(stored_recipe(store), variant="jointnet", network=NETWORK)
    recipe = recipe.with_training(epochs=1, steps_per_epoch=2, batch_size=2, precision="float32")
    run = train_recipe(recipe, store, tmp_path / "run")
    assert run.config["recipe"]["name"] == "store"
    assert run.config["window"] == 16
    found = run.model.predict_on_batch(np.zeros((1, 16, 16, 3), np.uint8))
    assert np.isfinite(np.asarray(found)).all()
