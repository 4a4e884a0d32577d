"""A recipe run from its scenes to a finished run folder."""

import os
from dataclasses import asdict
from pathlib import Path

import keras

from experiments.recipes import Recipe
from jointnet.checkpoints import TrainingState
from jointnet.model import JointNet
from jointnet.runs import WEIGHTS, describe_network, environment, save_weights, write_json
from jointnet.training import train
from preprocessing.errors import RunError, StoreError
from preprocessing.patch_store import PatchStore, open_store


def prepare_store(recipe: Recipe, data: Path, folder: Path) -> PatchStore:
    """Open the recipe's patch store, or cut it from the scenes where there is none.

    Only cutting reads rasters; a machine that is given a finished store needs no GDAL.

    Args:
        recipe: what to cut.
        data: folder of the data sets.
        folder: where the store lies or comes to lie.

    Raises:
        StoreError: the store there was cut with other settings, or is damaged or stale.
        JointNetError: of other kinds, while the scenes are read.
    """
    if folder.exists():
        store = open_store(folder)
        if store.manifest["settings"] != asdict(recipe.patches):
            raise StoreError(
                f"{folder} was cut with {store.manifest['settings']}, the recipe asks for "
                f"{asdict(recipe.patches)}; delete it or name another folder with --store"
            )
        return store
    from preprocessing.patches import build_store

    return build_store(folder, recipe.scenes(data), recipe.patches)


def run(
    recipe: Recipe, data: Path, store_folder: Path, folder: Path, resume: bool = False
) -> TrainingState:
    """Train a recipe and write its run folder.

    Args:
        recipe: what to train.
        data: folder of the data sets; only read where the store is not there yet.
        store_folder: the patch store.
        folder: the run folder; must not hold a run unless ``resume``.
        resume: go on from the last checkpoint.

    Returns:
        The state after the last epoch.

    Raises:
        JointNetError: of the kind that says what is wrong.
    """
    if (folder / "config.json").exists() and not resume:
        raise RunError(
            f"{folder} holds a run already; go on with --resume, or name another with --run"
        )
    store = prepare_store(recipe, data, store_folder)
    keras.utils.set_random_seed(recipe.training.seed)
    model = JointNet.from_variant(
        recipe.variant,
        bands=store.manifest["bands"],
        band_offset=store.manifest["band_mean"],
        band_scale=store.manifest["band_std"],
        dtype=recipe.training.precision,
        **recipe.network,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", describe_run(recipe, model, store))
    write_json(folder / "environment.json", environment())
    write_json(folder / "data.json", describe_data(store))
    state = train(model, store, recipe.training, folder, resume)
    save_weights(model, folder / WEIGHTS)
    write_json(folder / "metrics.json", {"best_epoch": state.best})
    return state


def describe_run(recipe: Recipe, model: JointNet, store: PatchStore) -> dict:
    """Content of ``config.json``: what using and repeating the network depends on."""
    return {
        "network": describe_network(model),
        "parameters": model.count_params(),
        "bands": store.manifest["bands"],
        "dtype": store.manifest["dtype"],
        "gsd": store.manifest["gsd"],
        "target": recipe.patches.target,
        "window": recipe.training.crop_size,
        "overlap": recipe.training.crop_size // 4,
        "threshold": recipe.training.threshold,
        "recipe": {
            "name": recipe.name,
            "variant": recipe.variant,
            "patches": asdict(recipe.patches),
            "training": recipe.training.to_dict(),
        },
    }


def describe_data(store: PatchStore) -> dict:
    """Content of ``data.json``: which scenes stood on which side, and hashes of all."""
    return {
        "manifest_sha256": store.sha256,
        "patches": {"train": len(store.train), "validation": len(store.validation)},
        "scenes": [
            {
                "name": scene["name"],
                "split": scene["split"],
                "height": scene["height"],
                "width": scene["width"],
                "image_sha256": scene["image"]["sha256"],
                "label_sha256": scene["label"]["sha256"],
            }
            for scene in store.manifest["scenes"]
        ],
    }


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
