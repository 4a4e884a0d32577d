"""A training on several devices and processes, as seen by what trains.

Each device holds the whole network and computes an equal share of every batch; losses are means
over samples, so the mean of the shares' gradients is the batch's gradient, and the training that
of one device but for rounding. One device of one process is left to the engine, with nothing
added. All functions read the engine's own state, which ``devices.Devices.scope`` sets.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from preprocessing.errors import TrainingError


def share() -> tuple[int, int]:
    """Number of this process, from 0, and the number of processes that share each batch."""
    current = keras.distribution.distribution()
    return (0, 1) if current is None else (current.data_shard_id, current.num_processes)


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return share()[0] == 0


def replicas() -> int:
    """Number of devices, of all processes, that share each batch."""
    current = keras.distribution.distribution()
    if current is not None:
        return current.num_model_replicas
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """For what processes do not do in step, such as writing a file of weights.

    Keras makes variables even to write and to read a file, some of them once per process. In the
    scope of several processes each would wait for the same variable in all others.
    """
    current = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(current)


def wait_for_all(name: str) -> None:
    """Go on once every process is here; ``name`` must be the same in all of them."""
    if share()[1] > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def greatest(number: int | None) -> int | None:
    """The greatest of all processes' positive numbers, None where none has one."""
    if share()[1] > 1:
        from jax.experimental import multihost_utils

        number = int(multihost_utils.process_allgather(np.int32(number or 0)).max()) or None
    return number


def common_folder(path: Path) -> Path:
    """Make a folder that the first process writes and all read.

    Raises:
        TrainingError: another process does not see it.
    """
    if is_first():
        path.mkdir(parents=True, exist_ok=True)
    wait_for_all(f"made {path.name}")
    if not path.is_dir():
        raise TrainingError(
            f"process {share()[0] + 1} does not see {path}, which process 1 made; run all of them "
            "in a folder on a disk that they share"
        )
    return path


def refuse_unfit(model: keras.Model, part: int, parts: int) -> None:
    """Refuse a training that would not be that of one device.

    Args:
        model: the network.
        part: samples that are computed at a time.
        parts: such parts of a batch.

    Raises:
        TrainingError: the devices do not divide ``part``; the network was not built in the scope;
            or TensorFlow is to add gradients up over parts.
    """
    count = replicas()
    if count == 1:
        return
    refuse_unequal(part, count)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow and parts > 1:
        raise TrainingError(
            f"micro batches on {count} devices fail under tf.distribute.MirroredStrategy; use "
            "KERAS_BACKEND=jax, or leave --micro-batch-size out"
        )
    value = model.variables[0].value
    held = len(getattr(value, "values", [0]) if on_tensorflow else value.sharding.device_set)
    if held != count:
        raise TrainingError(
            f"the network lies on {held} device, {count} are to train it; build it under "
            "Devices.scope()"
        )


def refuse_unequal(part: int, count: int) -> None:
    """Refuse samples that devices cannot share equally.

    Args:
        part: samples that are computed at a time.
        count: number of devices.

    Raises:
        TrainingError: ``count`` does not divide ``part``.
    """
    if part % count:
        raise TrainingError(
            f"{count} devices cannot share {part} samples at a time equally; a batch size (micro "
            f"batch size, where one is set) of {next_multiple(part, count)} works"
        )


def next_multiple(number: int, of: int) -> int:
    """The smallest multiple of ``of`` from ``number`` on."""
    return -(-number // of) * of


class SpreadNetwork:
    """A network whose predictions are computed by all devices, each for its share of a batch.

    By itself Keras would let every device compute the whole batch.

    Args:
        model: a network built under ``Devices.scope``.
    """

    def __init__(self, model: keras.Model):
        on_tensorflow = keras.backend.backend() == "tensorflow"
        self._predict = (_tensorflow_prediction if on_tensorflow else _jax_prediction)(model)

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """As ``keras.Model.predict_on_batch``; the same images must be given in all processes.

        Args:
            images: ``(batch, height, width, bands)``; ``replicas()`` divides the batch.

        Returns:
            ``(batch, height, width, 1)``, all of it in every process.
        """
        return self._predict(images)


def spread(model: keras.Model) -> keras.Model | SpreadNetwork:
    """What is to predict in the place of ``model``: on one device the model itself."""
    return model if replicas() == 1 else SpreadNetwork(model)


def _tensorflow_prediction(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()

    def predict(images: np.ndarray) -> np.ndarray:
        parts = np.split(images, strategy.num_replicas_in_sync)
        shared = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )
        return model.predict_on_batch(shared)

    return predict


def _jax_prediction(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    import jax

    together = keras.distribution.distribution()
    mesh = together.device_mesh.backend_mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    # Keras' own step would leave each process with its share.
    @functools.partial(jax.jit, out_shardings=everywhere)
    def step(trainable: list, others: list, images: Any) -> Any:
        return model.stateless_call(trainable, others, images, training=False)[0]

    def predict(images: np.ndarray) -> np.ndarray:
        layout = together.get_data_layout(images.shape).backend_layout
        shared = jax.make_array_from_callback(images.shape, layout, lambda part: images[part])
        trainable = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        return np.asarray(step(trainable, others, shared))

    return predict
