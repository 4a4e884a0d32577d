"""What a run folder says of how a run was made, and whether a run may go on."""

import json
from dataclasses import asdict
from pathlib import Path

from experiments.recipes import Recipe
from jointnet.model import JointNet
from jointnet.resnet import ResNetUNet
from jointnet.runs import WEIGHTS, describe_network
from preprocessing.errors import RunError
from preprocessing.output_files import hash_file
from preprocessing.patch_store import PatchStore


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
