"""Recipes: what their docstrings promise, and that their settings fit together."""

import dataclasses
import inspect
import json
import re
import shutil

import pytest
from affine import Affine

from experiments import recipes
from experiments.recipes import RECIPES, sample
from jointnet.model import VARIANTS, JointNet
from preprocessing import sample_scenes
from preprocessing.errors import DatasetError, OutputError
from tests.training_fixtures import squares, write_inria, write_scene

every_recipe = pytest.mark.parametrize("name", RECIPES)


def test_all_recipes_of_the_module_can_be_named():
    functions = {
        name
        for name, value in inspect.getmembers(recipes, inspect.isfunction)
        if value.__module__.endswith("recipes") and not name.startswith("_")
    }
    assert functions == set(RECIPES)
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
