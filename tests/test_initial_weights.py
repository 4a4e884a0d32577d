"""Training that begins with the network and weights of another run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jointnet.recipe import train_recipe
from jointnet.resnet import ResNetUNet
from jointnet.runs import WEIGHTS
from preprocessing.errors import RunError
from preprocessing.output_files import hash_file
from preprocessing.patch_store import PatchStore
from tests.training_fixtures import tiny_recipe, trained


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
