"""What several test modules need: a run folder as training would have left it, but untrained."""

from pathlib import Path
from typing import Any

import keras

from jointnet import JointNet
from jointnet.runs import WEIGHTS, describe_network, save_weights, write_json


def make_run(folder: Path, bands: int = 3, seed: int = 0, **config: Any) -> Path:
    """Write a run folder of a tiny JointNet with random weights.

    Args:
        folder: where; made where it is missing.
        bands: bands of the network.
        seed: of the weights.
        config: entries of ``config.json`` that shall differ.

    Returns:
        The folder, which ``load_run`` and ``infer.py --model`` take.
    """
    keras.utils.set_random_seed(seed)
    model = JointNet(bands, growth_rates=(8, 8, 8), bridge_filters=8)
    content = {
        "network": describe_network(model),
        "parameters": model.count_params(),
        "bands": bands,
        "dtype": "uint8",
        "gsd": 0.3,
        "target": "buildings",
        "window": 32,
        "overlap": 8,
        "threshold": 0.5,
        "recipe": {"name": "untrained"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", content | config)
    save_weights(model, folder / WEIGHTS)
    return folder
