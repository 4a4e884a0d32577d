"""Imagery of any depth and number of bands, from generated scenes to predicted rasters."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from jointnet import recipe as recipe_module
from jointnet.network_input import NetworkInput
from jointnet.raster_prediction import predict_raster
from jointnet.runs import Run
from jointnet.training_settings import Recipe
from layers import BandScaling
from preprocessing.augmentation import Augmentation
from preprocessing.errors import StoreError
from preprocessing.patch_store import PatchStore
from preprocessing.sample_scenes import render_scene
from tests.training_fixtures import (
    PATCHES,
    ground,
    read_tif,
    squares,
    tiny_recipe,
    write_scene,
)

SIZES = {"ashby1": (24, 40), "ashby2": (40, 32), "borth1": (16, 20), "borth2": (36, 33)}
ALL_CHANGES = Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, gamma=0.3)


def write_bands(root: Path, bands: int, convert, **profile) -> Path:
    """Scenes whose bands are squares in noise of their own, made deep by ``convert``."""
    for number, (name, size) in enumerate(SIZES.items()):
        pictures = [squares(*size, seed=number)[0] for _ in range(-(-bands // 3))]
        image = np.concatenate(pictures, axis=-1)[..., :bands].astype(np.float64)
        image *= np.linspace(1, 0.6, bands)
        label = squares(*size, seed=number)[1] * 255
        write_scene(root, name, convert(image), label, ground(number), **profile)
    return root


def recipe_of(bands: int, numbers: tuple[int, ...] | None = None, **training) -> Recipe:
    patches = replace(PATCHES, bands=bands, band_numbers=numbers)
    return replace(tiny_recipe(**{"epochs": 1} | training), patches=patches)


def train(folder: Path, recipe: Recipe) -> tuple[PatchStore, Run]:
    """Cut ``<folder>/data`` and train on it, on the way that the command goes."""
    store = recipe_module.prepare_store(recipe, folder / "data", folder / "store")
    return store, recipe_module.train_recipe(recipe, store, folder / "run")


def predict(run: Run, image: Path, folder: Path, **options) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and mask as they stand on disk."""
    predict_raster(run, image, folder, probabilities=True, **options)
    stem = folder / image.stem
    paths = (stem.with_name(f"{image.stem}_{kind}.tif") for kind in ("probabilities", "output"))
    probabilities, mask = (read_tif(path)[..., 0] for path in paths)
    assert {p.suffix for p in folder.iterdir()} == {".tif", ".png", ".geojson", ".qml"}
    return probabilities, mask


def elevation(image: np.ndarray) -> np.ndarray:
    """-400 to 8000, with a hole that is not a number and garbage that no nodata declares."""
    metres = (image * 33 - 400).astype(np.float32)
    metres[2:6, 3:9] = np.nan
    metres[-1, -1] = 3e38
    return metres


DEPTHS = {
    "elevation": (1, "float32", elevation),
    "8 bands": (8, "int16", lambda image: (image * 40 - 6000).astype(np.int16)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPTHS)
def test_from_scenes_to_a_predicted_raster(tmp_path, eager, name):
    bands, dtype, convert = DEPTHS[name]
    write_bands(tmp_path / "data", bands, convert)
    recipe = recipe_of(bands, augmentation=ALL_CHANGES, precision="mixed_bfloat16")
    store, run = train(tmp_path, recipe)
    assert store.train.images.dtype == dtype and store.train.images.shape[-1] == bands
    assert np.isfinite(store.train.images).all()
    config = json.loads((run.folder / "config.json").read_text())
    assert (config["bands"], config["dtype"], config["band_numbers"]) == (bands, dtype, None)
    limits = config["network"]["arguments"]["band_limits"]
    assert limits == store.manifest["band_limits"] and len(limits) == bands
    # Strengths of the augmentation refer to the values that there are.
    pixels = store.train.images[store.train.masks != 255]
    low, high = config["recipe"]["training"]["augmentation"]["value_range"]
    assert np.percentile(pixels, 1) <= low < high <= np.percentile(pixels, 99)
    scaled = np.asarray(run.model.get_layer("scaling")(np.asarray(store.train.images)))
    valid = scaled[store.train.masks != 255]
    assert np.abs(valid.mean(axis=0)).max() < 0.3 and np.abs(valid.std(axis=0) - 1).max() < 0.3
    assert np.abs(scaled).max() < 12
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())
    image = tmp_path / "data" / "images" / "ashby1.tif"
    probabilities, mask = predict(run, image, tmp_path / "found")
    void = np.zeros(SIZES["ashby1"], bool)
    if name == "elevation":
        void[2:6, 3:9] = True
    np.testing.assert_array_equal(np.isnan(probabilities), void)
    assert np.ptp(probabilities[~void]) > 1e-4
    np.testing.assert_array_equal(mask == 255, probabilities >= run.config["threshold"])
    with rasterio.open(tmp_path / "found" / "ashby1_output.tif") as file:
        np.testing.assert_array_equal(file.dataset_mask() == 0, void)


def towns(root: Path, dtype: type, factor: int, side: int = 128) -> Path:
    """Generated towns or a corner of them, times a factor; nothing is beyond the limits."""
    for number, name in enumerate(SIZES):
        image, _, label = render_scene(size=128, seed=number)
        image, label = image[-side:, -side:], label[-side:, -side:]
        write_scene(root, name, image.astype(dtype) * dtype(factor), label, ground(number))
    return root


EIGHT_AND_ELEVEN = {"eight": (np.uint8, 1), "eleven": (np.uint16, 8)}


def test_eleven_bits_are_scaled_as_their_eight_bits_are(tmp_path):
    scaled = {}
    for depth, (dtype, factor) in EIGHT_AND_ELEVEN.items():
        data = towns(tmp_path / depth / "data", dtype, factor)
        store = recipe_module.prepare_store(recipe_of(3), data, tmp_path / depth / "store")
        manifest = store.manifest
        scaling = BandScaling(
            manifest["band_mean"], manifest["band_std"], manifest["band_limits"], dtype="float32"
        )
        scaled[depth] = scaling(read_tif(data / "images" / "ashby1.tif")[None])
    np.testing.assert_allclose(scaled["eleven"], scaled["eight"], atol=1e-5)


@pytest.mark.slow
def test_eleven_bits_train_and_predict_as_their_eight_bits_do(tmp_path, eager):
    found = {}
    plain = Augmentation(brightness=0, contrast=0, saturation=0)
    for depth, (dtype, factor) in EIGHT_AND_ELEVEN.items():
        data = towns(tmp_path / depth / "data", dtype, factor, side=48)
        _, run = train(tmp_path / depth, recipe_of(3, augmentation=plain))
        image = data / "images" / "ashby1.tif"
        found[depth] = {
            "weights": np.concatenate([w.ravel() for w in run.model.get_weights()]),
            "probabilities": predict(run, image, tmp_path / depth / "found")[0],
            "loss": json.loads((run.folder / "metrics.json").read_text())["best_epoch"]["loss"],
        }
    for name, eight in found["eight"].items():
        np.testing.assert_allclose(found["eleven"][name], eight, atol=1e-3, err_msg=name)


@pytest.fixture
def infrared(tmp_path) -> Path:
    """A folder of data whose near infrared is tagged alpha, as some writers do, and 0 on water."""

    def convert(image: np.ndarray) -> np.ndarray:
        image[4:9, 4:9, 3] = 0
        return (image * 8).astype(np.uint16)

    write_bands(tmp_path / "data", 4, convert)
    kinds = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    for path in (tmp_path / "data" / "images").iterdir():
        with rasterio.open(path, "r+") as file:
            file.colorinterp = kinds
    return tmp_path


@pytest.mark.slow
def test_infrared_tagged_alpha_is_fed_where_it_is_named(infrared, eager):
    recipe = recipe_of(4, (1, 2, 3, 4))
    store, run = train(infrared, recipe)
    assert (store.train.masks[0][4:9, 4:9] != 255).all()
    assert run.config["band_numbers"] == [1, 2, 3, 4]
    image = infrared / "data" / "images" / "ashby1.tif"
    # The run's bands without being asked for, and others where they are.
    NetworkInput(run, image)
    probabilities, _ = predict(run, image, infrared / "found")
    assert np.isfinite(probabilities).all()
    named, _ = predict(run, image, infrared / "named", bands=(1, 2, 3, 4))
    np.testing.assert_array_equal(named, probabilities)
    turned, _ = predict(run, image, infrared / "turned", bands=(4, 3, 2, 1))
    assert not np.array_equal(turned, probabilities)


def test_a_store_of_other_bands_is_refused(infrared):
    recipe = recipe_of(4, (1, 2, 3, 4))
    data, folder = infrared / "data", infrared / "store"
    store = recipe_module.prepare_store(recipe, data, folder)
    assert recipe_module.prepare_store(recipe, data, folder).sha256 == store.sha256
    other = replace(recipe, patches=replace(recipe.patches, band_numbers=(4, 3, 2, 1)))
    with pytest.raises(StoreError, match=r"\(1, 2, 3, 4\).*the recipe asks for .*\(4, 3, 2, 1\)"):
        recipe_module.prepare_store(other, data, folder)


@pytest.fixture
def configure(tmp_path, monkeypatch) -> Callable[[Recipe], dict]:
    """What config.json says of a run on 11 bits, without the training."""
    monkeypatch.setattr(recipe_module, "train", lambda *arguments: None)
    monkeypatch.setattr(recipe_module, "save_weights", lambda *arguments: None)
    monkeypatch.setattr(recipe_module, "_judge", lambda *arguments: None)
    write_bands(tmp_path / "data", 3, lambda image: (image * 8).astype(np.uint16))

    def run(recipe: Recipe) -> dict:
        train(tmp_path, recipe)
        return json.loads((tmp_path / "run" / "config.json").read_text())

    return run


def test_a_stated_range_of_values_is_kept(configure):
    stated = Augmentation(value_range=(0, 2047))
    config = configure(recipe_of(3, augmentation=stated))
    assert config["recipe"]["training"]["augmentation"]["value_range"] == [0, 2047]
    assert len(config["network"]["arguments"]["band_limits"]) == 3


def test_a_store_of_before_limits_is_trained_on_as_it_was(configure, tmp_path):
    """Scaled by the mean and deviation that it states, and clipped nowhere."""
    recipe_module.prepare_store(recipe_of(3), tmp_path / "data", tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["band_limits"], manifest["band_percentiles"], manifest["settings"]["band_numbers"]
    path.write_text(json.dumps(manifest))
    config = configure(recipe_of(3))
    assert config["network"]["arguments"]["band_limits"] is None
    assert config["network"]["arguments"]["band_scale"] == manifest["band_std"]
    assert config["recipe"]["training"]["augmentation"]["value_range"] is None
    assert config["band_numbers"] is None
