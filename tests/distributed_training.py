"""Trainings for ``test_distribution``, run in processes of their own as devices start only once.

``python -m tests.distributed_training FOLDER JOBS DEVICES``: each job of the JSON
list is one call of ``train``, whose weights and history are written to ``FOLDER/<name>.npz``;
``"recipe"`` is a whole run.
"""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from jointnet import model as jointnet_model
from jointnet.batches import TrainingBatches
from jointnet.distribution import Devices, choose_devices, join_processes, joins_by_environment
from jointnet.recipe import train_recipe
from jointnet.training import train
from jointnet.training_settings import TrainingSettings
from layers import BandScaling, BilinearUpsampling, DenseAtrousBlock
from preprocessing.patch_store import PatchStore, open_store
from tests.training_fixtures import memory_store, small_network, tiny_recipe


def store() -> PatchStore:
    """Patches of 32 pixels, of which some are partly void.

    And one is all void, and drawn all the same: its loss is 0, and it counts as a sample.
    """
    whole = memory_store(size=32, train=12, validation=5)
    whole.train.masks[::4, :8] = 255
    whole.train.masks[1] = 255
    return whole


def network(kind: str) -> keras.Model:
    """All layers of JointNet in one level; one block; or a convolution and a batch norm."""
    keras.utils.set_random_seed(1)
    if kind == "level":
        inputs = keras.Input((None, None, 3))
        x = BandScaling([127.5] * 3, [127.5] * 3)(inputs)
        skip = DenseAtrousBlock(8)(x)
        x = keras.layers.AveragePooling2D(1, 2)(skip)
        x = BilinearUpsampling()(keras.layers.Conv2D(8, 1, activation="relu")(x))
        x = keras.layers.Concatenate()([x, skip])
        return keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))
    if kind == "block":
        return small_network(1)
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )


class Sgd(TrainingSettings):
    """Settings whose optimizer is plain gradient descent."""

    def make_optimizer(self, total_steps: int) -> keras.optimizers.Optimizer:
        """Without a moment: differences of rounding stay in proportion."""
        return keras.optimizers.SGD(self.learning_rate)


def permuted(order: list[int]) -> type:
    """Batches whose samples come in another order."""
    plain = TrainingBatches.__getitem__

    def item(self: TrainingBatches, index: int) -> tuple[np.ndarray, np.ndarray]:
        images, masks = plain(self, index)
        return images[order], masks[order]

    return item


def run(job: dict, folder: Path, devices: Devices) -> None:
    """Train as the job says, and write what came out."""
    values = {"crop_size": 32, "batch_size": 4, "epochs": 1, "steps_per_epoch": 20}
    kind = Sgd if job.get("sgd") else TrainingSettings
    settings = kind(**values | job.get("settings", {}))
    model = network(job.get("network", "level"))
    start = model.get_weights()
    plain = TrainingBatches.__getitem__
    if "order" in job:
        TrainingBatches.__getitem__ = permuted(job["order"])
    try:
        into = folder / job.get("folder", job["name"])
        state = train(model, store(), settings, into, job.get("resume", False))
        if job.get("resumed"):
            state = train(model, store(), replace(settings, **job["resumed"]), into, True)
    finally:
        TrainingBatches.__getitem__ = plain
    name = job["name"] if devices.processes == 1 else f"{job['name']}-{devices.process}"
    arrays = {f"weight_{n:03}": weight for n, weight in enumerate(model.get_weights())}
    arrays |= {f"start_{n:03}": weight for n, weight in enumerate(start)}
    np.savez(folder / f"{name}.npz", history=json.dumps(state.history), **arrays)


def run_recipe(folder: Path, devices: Devices) -> None:
    """A whole run of the tiny recipe, from a store that lies in the folder."""
    # JointNet with two convolutions in each block, of six: it is to be written, not to learn.
    jointnet_model.DenseAtrousBlock = partial(DenseAtrousBlock, dilation_rates=(1, 2))
    recipe = tiny_recipe(batch_size=2)
    finished = train_recipe(recipe, open_store(folder / "store"), folder / "run", devices=devices)
    print("finished", finished.name, flush=True)


def main() -> None:
    """Run the jobs of the command line."""
    folder, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    wanted = int(sys.argv[3]) or None
    if joins_by_environment():
        join_processes()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    devices = choose_devices(2 if jobs == "recipe" else 4, wanted)
    print(devices.describe(4), flush=True)
    if jobs == "recipe":
        run_recipe(folder, devices)
        return
    with devices.scope():
        for job in jobs:
            run(job, folder, devices)


if __name__ == "__main__":
    main()
