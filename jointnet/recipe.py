"""Train a recipe, from scenes to a finished run folder."""

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import keras

from jointnet.checkpoints import Checkpoints, TrainingState
from jointnet.distribution import Devices, alone, common_folder, wait_for_all
from jointnet.evaluation import evaluate_scenes, summarise, summary_text
from jointnet.figures import draw_curves, draw_scene
from jointnet.metrics import threshold_mask
from jointnet.model import JointNet, PixelNetwork
from jointnet.prediction import predict_image
from jointnet.runs import (
    WEIGHTS,
    Run,
    describe_network,
    environment,
    load_run,
    save_weights,
    uses_xla,
)
from jointnet.training import train
from jointnet.training_settings import Recipe
from preprocessing.band_statistics import value_range
from preprocessing.errors import RunError, StoreError
from preprocessing.output_files import hash_file, write_json
from preprocessing.patch_store import PatchStore, open_store, stored_scenes
from preprocessing.tiling import VOID

# Settings of earlier versions that changed nothing in what was learned.
_FORMER_SETTINGS = ("store_on_device",)


def describe_run(recipe: Recipe, model: PixelNetwork, store: PatchStore) -> dict:
    """Return ``config.json``: what is needed to use the network, and to repeat its training."""
    window = recipe.window or recipe.training.crop_size
    return {
        "network": describe_network(model),
        "parameters": model.count_params(),
        "bands": store.manifest["bands"],
        "band_numbers": recipe.patches.band_numbers,
        "dtype": store.manifest["dtype"],
        "gsd": store.manifest["gsd"],
        "target": recipe.patches.target,
        "window": window,
        "overlap": window // 4,
        "threshold": recipe.training.threshold,
        "recipe": {
            "name": recipe.name,
            "variant": recipe.variant,
            "validation": recipe.validation,
            "initial": None if recipe.initial is None else hash_file(recipe.initial / WEIGHTS),
            "patches": asdict(recipe.patches),
            "training": recipe.training.to_dict(),
        },
    }


def describe_data(store: PatchStore) -> dict:
    """Return ``data.json``: scenes, their split and hashes of their files."""
    return {
        "manifest_sha256": store.sha256,
        "patches": {"train": len(store.train), "validation": len(store.validation)},
        "scenes": [
            {
                **{key: scene[key] for key in ("name", "split", "height", "width")},
                **{key: scene.get(key) for key in ("where", "buffer_m")},
                "white_border": scene.get("white_border", False),
                "image_sha256": scene["image"]["sha256"],
                "label_sha256": scene["label"]["sha256"],
            }
            for scene in store.manifest["scenes"]
        ],
    }


def refuse_others(folder: Path, config: dict, data: dict) -> None:
    """Refuse to resume a run of another configuration or on other scenes.

    Raises:
        RunError: the folder's files differ from what ``describe_run`` and ``describe_data``
            return now, and the message says in what; or they cannot be read.
    """
    # As in the file, tuples become lists.
    wanted = _stated(json.loads(json.dumps(config)))
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for name in _FORMER_SETTINGS:
            found["recipe"]["training"].pop(name, None)
        found = _stated(found)
        scenes = json.loads((folder / "data.json").read_text(encoding="utf-8"))["scenes"]
        differing = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
        if [_identity(scene) for scene in scenes] != [_identity(s) for s in data["scenes"]]:
            differing.append("data")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder} cannot be resumed: {error}; start another run") from None
    if differing:
        raise RunError(
            f"{folder} was begun with another {', '.join(differing)}; resume with the same "
            "recipe and options, or name another run with --run"
        )


def _stated(content: dict) -> dict:
    # A setting that an earlier version did not have counts as None.
    inner = {k: _stated(v) if isinstance(v, dict) else v for k, v in content.items()}
    return {key: value for key, value in inner.items() if value is not None}


def _identity(scene: dict) -> list:
    keys = ("name", "split", "image_sha256", "label_sha256", "where", "buffer_m")
    return [*(scene.get(key) for key in keys), scene.get("white_border", False)]


def prepare_store(recipe: Recipe, data: Path, folder: Path) -> PatchStore:
    """Open the patch store in ``folder``, or cut it from the scenes in ``data``.

    Only cutting reads rasters: a machine with a finished store needs no GDAL.

    Raises:
        StoreError: the store was cut with other settings, or is damaged or stale.
        JointNetError: the scenes cannot be read.
    """
    if folder.exists():
        store = open_store(folder)
        if store.settings != recipe.patches:
            raise StoreError(
                f"{folder} was cut with {store.settings}, the recipe asks for {recipe.patches}; "
                "delete it or name another folder with --store"
            )
        return store
    from preprocessing.patches import build_store

    return build_store(folder, recipe.scenes(data, recipe.validation), recipe.patches)


def refuse_other_scenes(store: PatchStore, recipe: Recipe, data: Path) -> None:
    """Refuse a store if scenes were added, removed or moved to another split since it was cut.

    Raises:
        StoreError: the data folder holds other scenes than the store; one is named.
        JointNetError: the data folder cannot be read.
    """
    stored = {(scene["name"], scene["split"]) for scene in store.manifest["scenes"]}
    found = {(scene.name, scene.split) for scene in recipe.scenes(data, recipe.validation)}
    if stored != found:
        name, split = min(stored ^ found)
        raise StoreError(
            f"{store.folder} holds {len(stored)} scenes, {data} has {len(found)}, and they differ "
            f"in {name} ({split}); delete the store and it is made again"
        )


def train_recipe(
    recipe: Recipe,
    store: PatchStore,
    folder: Path,
    resume: bool = False,
    network: type[PixelNetwork] = JointNet,
    devices: Devices | None = None,
) -> Run:
    """Train a recipe, write its run folder (see ``jointnet.runs``), and return the run.

    ``resume`` goes on from the last checkpoint; a finished run is only written again. ``devices``
    come from ``distribution.choose_devices``; without them the engine chooses one. Several
    processes must share the folder; the first writes.

    Raises:
        RunError: the folder holds a run already; or, with ``resume``, no run, or one of another
            configuration or other data; or the network cannot be built, or does not fit the run
            that the recipe begins with.
        StoreError: no training pixel is target.
        TrainingError, Interrupted: see ``training.train``.
    """
    devices = devices or Devices()
    if not store.train.target_shares.any():
        raise StoreError(
            f"{store.folder}: no training pixel is {recipe.patches.target}, there is nothing to "
            "learn; are these the right labels (and --where the right filter)?"
        )
    with devices.scope():
        state = _train(recipe, store, folder, resume, network, devices)
    return load_run(folder) if devices.process else _judge(folder, store, state)


def _train(
    recipe: Recipe,
    store: PatchStore,
    folder: Path,
    resume: bool,
    network: type[PixelNetwork],
    devices: Devices,
) -> TrainingState:
    keras.utils.set_random_seed(recipe.training.seed)
    recipe = _with_value_range(recipe, store)
    model = _build(recipe, store, network)
    config = describe_run(recipe, model, store)
    check_folder(folder, resume)
    if resume:
        refuse_others(folder, config, describe_data(store))
    # The others would refuse a folder that the first process made before they checked.
    wait_for_all("checked")
    common_folder(folder)
    if devices.process == 0:
        write_json(folder / "config.json", config)
        if not resume:
            said = environment() | {"xla": uses_xla(model)} | devices.record()
            write_json(folder / "environment.json", said)
        write_json(folder / "data.json", describe_data(store))
    # A run that was killed before its first checkpoint starts over.
    begun = resume and Checkpoints(folder / "checkpoints").exist()
    state = train(model, store, recipe.training, folder, begun)
    if devices.process == 0:
        with alone():
            save_weights(model, folder / WEIGHTS)
    return state


def _build(recipe: Recipe, store: PatchStore, network: type[PixelNetwork]) -> PixelNetwork:
    """Build the recipe's network for the bands of the store, with its initial weights."""
    if recipe.initial is not None:
        return _load_initial(recipe, store, network)
    sizes = {
        "crop_size": recipe.training.crop_size,
        "validation_size": recipe.patches.validation_size,
        "window": recipe.window or 0,
    }
    for name, side in sizes.items():
        if side % network.MULTIPLE:
            raise RunError(
                f"{name} must be a multiple of {network.MULTIPLE} for {network.__name__}; the "
                f"recipe has {side}"
            )
    try:
        return network.from_variant(
            recipe.variant,
            bands=store.manifest["bands"],
            band_offset=store.manifest["band_mean"],
            band_scale=store.manifest["band_std"],
            band_limits=store.manifest.get("band_limits"),
            dtype=recipe.training.precision,
            **recipe.network,
        )
    except ValueError as error:
        raise RunError(f"{network.__name__} cannot be built: {error}") from None


def _load_initial(recipe: Recipe, store: PatchStore, network: type[PixelNetwork]) -> PixelNetwork:
    # Bands keep the scaling of that run, as its weights were trained with it.
    initial = load_run(recipe.initial, recipe.training.precision)
    if type(initial.model) is not network:
        raise RunError(
            f"{recipe.initial} holds a {type(initial.model).__name__}, this command trains "
            f"{network.__name__}; use the other training command"
        )
    takes, found = (
        f"{of['bands']} bands of {of['dtype']}" for of in (initial.config, store.manifest)
    )
    if takes != found:
        raise RunError(f"{recipe.initial} takes {takes}, {store.folder} has {found}")
    return initial.model


def _with_value_range(recipe: Recipe, store: PatchStore) -> Recipe:
    augmentation = recipe.training.augmentation
    if augmentation.value_range is not None:
        return recipe
    stated = replace(augmentation, value_range=value_range(store.manifest))
    return recipe.with_training(augmentation=stated)


def check_folder(folder: Path, resume: bool) -> None:
    """Raise RunError unless a run folder is free or, with ``resume``, can be resumed."""
    begun = (folder / "config.json").exists()
    if begun and not resume:
        raise RunError(
            f"{folder} holds a run already; go on with --resume, or name another with --run"
        )
    if resume and (folder / WEIGHTS).exists() and not (folder / "checkpoints").is_dir():
        raise RunError(
            f"{folder} holds finished weights and no checkpoints: there is nothing to go on from, "
            "and starting over would replace them; name another run with --run"
        )
    if resume and not begun:
        raise RunError(f"{folder} holds no run to go on with; start one without --resume")


def _judge(folder: Path, store: PatchStore, state: TrainingState) -> Run:
    """Measure the written weights on whole validation scenes, and draw curves and a picture."""
    trained = load_run(folder)
    config, predict = trained.config, trained.model.predict_on_batch
    sizes = {"window": config["window"], "overlap": config["overlap"]}
    scenes = ((s.name, s.place, s.image, s.mask) for s in stored_scenes(store))
    rows = summarise(evaluate_scenes(predict, scenes, **sizes))
    write_json(
        folder / "metrics.json", {"best_epoch": state.best, "epochs": state.epoch, "scenes": rows}
    )
    draw_curves(state.history, folder / "curves.png")
    scene = next(stored_scenes(store))
    probabilities = predict_image(predict, scene.image, scene.mask != VOID, **sizes)
    picture = folder / "pictures" / f"{scene.name}.png"
    prediction = threshold_mask(probabilities, config["threshold"])
    draw_scene(scene.image, scene.mask, prediction, f"{folder.name}: {scene.name}", picture)
    print(summary_text(rows))
    print(f"picture of {scene.name}: {picture}")
    line = shlex.join(["--model", str(folder), "--image", str(scene.path)])
    print(f"predict with it: python experiments/infer.py {line}")
    return trained
