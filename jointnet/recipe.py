"""What a recipe is: a network, its data and its training."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from jointnet.checkpoints import Checkpoints, TrainingState
from jointnet.distribution import Devices, alone, common_folder, wait_for_all
from jointnet.evaluation import evaluate_scenes, summarise, table
from jointnet.figures import draw_curves, draw_scene
from jointnet.metrics import threshold_mask
from jointnet.model import JointNet
from jointnet.prediction import predict_image
from jointnet.resnet import ResNetUNet
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
from jointnet.training_settings import TrainingSettings
from preprocessing.band_statistics import value_range
from preprocessing.errors import RunError, StoreError
from preprocessing.output_files import hash_file, write_json
from preprocessing.patch_store import PatchSettings, PatchStore, open_store, validation_scenes
from preprocessing.scenes import Scene

Validation = Sequence[int | str] | None


@dataclass(frozen=True)
class Recipe:
    """A network, its data and its training.

    Attributes:
        name: name of the recipe.
        scenes: lists the scenes under the data folder, given what is held back for validation
            (tile indices or names; None for the recipe's own split).
        variant: name of the network's variant, see ``jointnet.model.VARIANTS``; for a
            ``ResNetUNet`` that of its encoder, see ``jointnet.resnet.BACKBONES``.
        patches: how scenes are cut.
        training: how the network is trained.
        network: arguments of the network that differ from the variant's.
        validation: tile indices or names held back, None for the recipe's own split.
        initial: run folder whose network and weights the training begins with, in place of
            ``variant``, ``network`` and random weights; None for none.
        window: side of a window at prediction in pixels, of which neighbours share a quarter;
            None for the training's crop size.
    """

    name: str
    scenes: Callable[[Path, Validation], list[Scene]]
    variant: str
    patches: PatchSettings
    training: TrainingSettings
    network: dict[str, Any] = field(default_factory=dict)
    validation: Validation = None
    initial: Path | None = None
    window: int | None = None

    def with_training(self, **changes: Any) -> "Recipe":
        """The recipe with some training settings replaced."""
        return replace(self, training=replace(self.training, **changes))


def describe_run(recipe: Recipe, model: JointNet | ResNetUNet, store: PatchStore) -> dict:
    """Content of ``config.json``: what using and repeating the network depends on."""
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
                "where": scene.get("where"),
                "buffer_m": scene.get("buffer_m"),
                "white_border": scene.get("white_border", False),
                "image_sha256": scene["image"]["sha256"],
                "label_sha256": scene["label"]["sha256"],
            }
            for scene in store.manifest["scenes"]
        ],
    }


def refuse_others(folder: Path, config: dict, data: dict) -> None:
    """Refuse to go on with a run of another configuration or on other scenes.

    Args:
        folder: the run folder.
        config: what ``describe_run`` gives now.
        data: what ``describe_data`` gives now.

    Raises:
        RunError: what the folder says differs, which is named, or cannot be read.
    """
    # Through JSON and back, as the file was written: tuples are lists there.
    wanted = _stated(json.loads(json.dumps(config)))
    try:
        found = _stated(json.loads((folder / "config.json").read_text(encoding="utf-8")))
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
    """Without what is None: an option that an earlier version did not know was not used."""
    inner = {k: _stated(v) if isinstance(v, dict) else v for k, v in content.items()}
    return {key: value for key, value in inner.items() if value is not None}


def _identity(scene: dict) -> list:
    """What makes a scene of ``data.json`` the same wherever it lies."""
    keys = ("name", "split", "image_sha256", "label_sha256", "where", "buffer_m")
    return [*(scene.get(key) for key in keys), scene.get("white_border", False)]


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
        if store.settings != recipe.patches:
            raise StoreError(
                f"{folder} was cut with {store.settings}, the recipe asks for {recipe.patches}; "
                "delete it or name another folder with --store"
            )
        return store
    from preprocessing.patches import build_store

    return build_store(folder, recipe.scenes(data, recipe.validation), recipe.patches)


def refuse_other_scenes(store: PatchStore, recipe: Recipe, data: Path) -> None:
    """Refuse a store that was cut before scenes came, went or changed sides.

    Raises:
        StoreError: the data folder holds other scenes than the store; both are named.
        JointNetError: of other kinds, where the data folder cannot be read.
    """
    stored = {(scene["name"], scene["split"]) for scene in store.manifest["scenes"]}
    found = {(scene.name, scene.split) for scene in recipe.scenes(data, recipe.validation)}
    if stored != found:
        name, split = min(stored ^ found)
        raise StoreError(
            f"{store.folder} holds {len(stored)} scenes, {data} has {len(found)}, and they differ "
            f"in {name} ({split}); delete the store and it is made again"
        )


def run(
    recipe: Recipe,
    store: PatchStore,
    folder: Path,
    resume: bool = False,
    network: type[JointNet] | type[ResNetUNet] = JointNet,
    devices: Devices | None = None,
) -> Run:
    """Train a recipe and write its run folder (see ``jointnet.runs``).

    Args:
        recipe: what to train.
        store: the patches, see ``prepare_store``.
        folder: the run folder; must not hold a run unless ``resume``.
        resume: go on from the last checkpoint; a run that had finished is only written again.
        network: class of the network; the recipe's ``variant`` and ``network`` must be of it.
        devices: what to train on, see ``distribution.choose_devices``; None for the engine's own
            choice, one. Of several processes, which must share the folder, the first writes.

    Returns:
        The finished run, with the weights as written.

    Raises:
        RunError: the folder holds a run already; or, with ``resume``, none, or one of another
            configuration or other data; or the network cannot be built as the recipe has it.
            Or the run that it is to begin with is none, or of another network or other bands.
        StoreError: no training pixel is target.
        TrainingError: the loss is not finite; or the devices cannot share the batches.
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
    network: type[JointNet] | type[ResNetUNet],
    devices: Devices,
) -> TrainingState:
    """Write what the run is, train, and write its weights."""
    keras.utils.set_random_seed(recipe.training.seed)
    recipe = _with_value_range(recipe, store)
    model = _build(recipe, store, network)
    config = describe_run(recipe, model, store)
    check_folder(folder, resume)
    if resume:
        refuse_others(folder, config, describe_data(store))
    # The first process makes what the others would refuse.
    wait_for_all("checked")
    common_folder(folder)
    if devices.process == 0:
        write_json(folder / "config.json", config)
        if not resume:
            said = environment() | {"xla": uses_xla(model)} | devices.described()
            write_json(folder / "environment.json", said)
        write_json(folder / "data.json", describe_data(store))
    # A run that was killed before its first checkpoint begins again.
    begun = resume and Checkpoints(folder / "checkpoints").exist()
    state = train(model, store, recipe.training, folder, begun)
    if devices.process == 0:
        with alone():
            save_weights(model, folder / WEIGHTS)
    return state


def _build(
    recipe: Recipe, store: PatchStore, network: type[JointNet] | type[ResNetUNet]
) -> JointNet | ResNetUNet:
    """The recipe's network with random or its initial weights, for the bands of the store."""
    if recipe.initial is not None:
        return _begun(recipe, store, network)
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


def _begun(
    recipe: Recipe, store: PatchStore, network: type[JointNet] | type[ResNetUNet]
) -> JointNet | ResNetUNet:
    """The network and weights of another run, the scaling of its bands included."""
    begun = load_run(recipe.initial, recipe.training.precision)
    if type(begun.model) is not network:
        raise RunError(
            f"{recipe.initial} holds a {type(begun.model).__name__}, this command trains "
            f"{network.__name__}; use the other training command"
        )
    takes, found = (
        f"{of['bands']} bands of {of['dtype']}" for of in (begun.config, store.manifest)
    )
    if takes != found:
        raise RunError(f"{recipe.initial} takes {takes}, {store.folder} has {found}")
    return begun.model


def _with_value_range(recipe: Recipe, store: PatchStore) -> Recipe:
    """The recipe, with the range of the store's pixels for its augmentation if it states none."""
    augmentation = recipe.training.augmentation
    if augmentation.value_range is not None:
        return recipe
    stated = replace(augmentation, value_range=value_range(store.manifest))
    return recipe.with_training(augmentation=stated)


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse a run folder before any work is done for it.

    Args:
        folder: the run folder.
        resume: whether a run in it shall go on.

    Raises:
        RunError: it holds a run and none shall go on, or the other way round.
    """
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
    """Measure the weights as they were written, on whole validation scenes, and draw them."""
    trained = load_run(folder)
    config, predict = trained.config, trained.model.predict_on_batch
    sizes = {"window": config["window"], "overlap": config["overlap"]}
    scenes = ((s.name, s.place, s.image, s.mask) for s in validation_scenes(store))
    rows = summarise(evaluate_scenes(predict, scenes, **sizes))
    write_json(
        folder / "metrics.json", {"best_epoch": state.best, "epochs": state.epoch, "scenes": rows}
    )
    draw_curves(state.history, folder / "curves.png")
    scene = next(validation_scenes(store))
    probabilities = predict_image(predict, scene.image, scene.mask != 255, **sizes)
    picture = folder / "pictures" / f"{scene.name}.png"
    prediction = threshold_mask(probabilities, config["threshold"])
    draw_scene(scene.image, scene.mask, prediction, f"{folder.name}: {scene.name}", picture)
    print(table(rows))
    print(f"picture of {scene.name}: {picture}")
    line = shlex.join(["--model", str(folder), "--image", str(scene.path)])
    print(f"predict with it: python experiments/infer.py {line}")
    return trained
