"""The recipe that a patch store is trained by as it was cut."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.recipes import PIXELS_PER_BATCH, open_buildings, open_roads, stored_recipe
from jointnet.batches import TrainingBatches
from jointnet.recipe import prepare_store, train_recipe
from jointnet.training_settings import TrainingSettings
from preprocessing.errors import DatasetError
from preprocessing.inria import inria_scenes
from preprocessing.patch_store import PatchSettings, PatchStore, open_store
from preprocessing.patches import build_store
from tests.training_fixtures import NETWORK, PATCHES, tiny_store, write_inria

pytestmark = pytest.mark.usefixtures("plain_graphs")


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
