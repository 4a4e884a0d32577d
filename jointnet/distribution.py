"""Devices and processes that share a training."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from preprocessing.errors import TrainingError, first_line


def compiled(function: Callable) -> Callable:
    """Compile a function of ``keras.ops`` on arrays, where the backend can."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


_VARIABLES = (
    "KERAS_DISTRIBUTION_NUM_PROCESSES, KERAS_DISTRIBUTION_PROCESS_ID (from 0) and "
    "KERAS_DISTRIBUTION_JOB_ADDRESSES (host:port of process 0)"
)
_HOSTS = f"several hosts train with KERAS_BACKEND=jax and, on each, {_VARIABLES}"


@dataclass(frozen=True)
class Devices:
    """The devices that share each batch.

    Attributes:
        names: those of all processes, such as ``("gpu:0", "gpu:1")``; empty for one device, which
            the engine chooses.
        process: number of this process, of ``processes``; process 0 writes.
        note: why not all devices are in use, or empty.
    """

    names: tuple[str, ...] = ()
    process: int = 0
    processes: int = 1
    note: str = ""

    def record(self) -> dict[str, list[str] | int]:
        """Return what ``environment.json`` says of several devices; {} for one."""
        if len(self.names) < 2:
            return {}
        return {"trained_on": list(self.names), "processes": self.processes}

    def describe(self, samples: int) -> str:
        """Return a line on how ``samples`` are shared, or the note for one device."""
        if len(self.names) < 2:
            return self.note
        several = f" of {self.processes} processes" if self.processes > 1 else ""
        return (
            f"training on {len(self.names)} devices{several} ({', '.join(self.names)}), "
            f"{samples // len(self.names)} of {samples} samples on each"
        )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Build and train the network inside this context, once in a process.

        Its end waits for all processes and disconnects them.
        """
        if len(self.names) < 2:
            yield
        elif keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.distribute.MirroredStrategy(list(self.names)).scope():
                yield
        else:
            # Each process feeds its own share of a batch.
            together = keras.distribution.DataParallel(
                devices=list(self.names), auto_shard_dataset=False
            )
            with together.scope():
                yield
            if self.processes > 1:
                import jax

                jax.distributed.shutdown()


def join_processes() -> None:
    """Join the processes that train together, before anything is computed.

    ``keras.distribution.initialize`` takes them from the environment: ``_VARIABLES``.

    Raises:
        TrainingError: the backend is not JAX, or the processes do not find each other.
    """
    if keras.backend.backend() != "jax":
        raise TrainingError(
            f"several processes train on JAX alone, the backend is {keras.backend.backend()} (its "
            f"MultiWorkerMirroredStrategy fails under Keras 3, keras-team/keras#20585); {_HOSTS}"
        )
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the processes do not find each other: {first_line(error)}; give each {_VARIABLES}"
        ) from None


def joins_by_environment() -> bool:
    """Return whether the environment asks for several processes."""
    return int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES") or 1) > 1


def choose_devices(samples: int, wanted: int | None = None) -> Devices:
    """Choose the devices to train on; call ``join_processes`` before, for several processes.

    Args:
        samples: samples that are computed at a time; every device takes an equal share.
        wanted: number of devices; without an accelerator the CPU is divided. None for all
            accelerators, or for one if they cannot share ``samples``. Several processes use all.

    Raises:
        TrainingError: ``TF_CONFIG`` asks for several workers; there are fewer devices than
            ``wanted``; or they cannot share ``samples`` equally.
    """
    process, processes = _place()
    workers = _tensorflow_workers()
    if workers > 1 and processes == 1:
        raise TrainingError(
            f"TF_CONFIG names {workers} workers, but TensorFlow's MultiWorkerMirroredStrategy "
            f"fails under Keras 3 (keras-team/keras#20585); {_HOSTS}"
        )
    if wanted is not None and wanted > 1:
        _divide_processor(wanted)
    found = _find_devices(wanted)
    if wanted is not None and wanted > len(found):
        raise TrainingError(
            f"{wanted} devices are asked for, and there are {len(found)} ({', '.join(found)}); "
            f"ask for up to {len(found)}"
        )
    names = found if processes > 1 else found[:wanted]
    if wanted is None and processes == 1 and samples % max(len(names), 1):
        note = (
            f"training on 1 of {len(names)} devices, as {samples} samples at a time cannot be "
            f"shared equally among all; a batch size of {_next_multiple(samples, len(names))} can"
        )
        return Devices(note=note)
    _refuse_unequal(samples, max(len(names), 1))
    return Devices(tuple(names), process, processes)


def _place() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    # process_index() would start the devices, which cannot be divided afterwards.
    if not jax.distributed.is_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()


def _tensorflow_workers() -> int:
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(len(cluster.get(kind, [])) for kind in ("chief", "worker"))
    except (ValueError, AttributeError, TypeError):
        return 0


def _divide_processor(count: int) -> None:
    """Divide the CPU into devices, for tests and trials."""
    # Running devices cannot be divided; the caller refuses if there are too few.
    with contextlib.suppress(RuntimeError):
        if keras.backend.backend() == "jax":
            import jax

            jax.config.update("jax_num_cpu_devices", count)
        elif keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            (processor,) = tf.config.list_physical_devices("CPU")
            parts = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(processor, parts)


def _find_devices(wanted: int | None) -> list[str]:
    names = keras.distribution.list_devices()
    processors = all(name.startswith("cpu") for name in names)
    # Several processes join to use their CPUs.
    return [] if processors and wanted is None and _place()[1] == 1 else names


def share() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many share each batch."""
    current = keras.distribution.distribution()
    return (0, 1) if current is None else (current.data_shard_id, current.num_processes)


def is_first() -> bool:
    """Return whether this process is the one that writes and prints."""
    return share()[0] == 0


def replicas() -> int:
    """Return how many devices, over all processes, share each batch."""
    current = keras.distribution.distribution()
    if current is not None:
        return current.num_model_replicas
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Leave the distribution for what one process does, such as writing weights.

    Keras makes variables even to write and read a file, and within the distribution a process
    would wait for the same variable in all others.
    """
    current = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(current)


def wait_for_all(name: str) -> None:
    """Wait until every process is here, under the same ``name``."""
    if share()[1] > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def greatest(number: int | None) -> int | None:
    """Return the greatest positive number of all processes, None if none has one."""
    if share()[1] > 1:
        from jax.experimental import multihost_utils

        number = int(multihost_utils.process_allgather(np.int32(number or 0)).max()) or None
    return number


def common_folder(path: Path) -> Path:
    """Make a folder that process 0 writes and all read; TrainingError if this one cannot see it."""
    if is_first():
        path.mkdir(parents=True, exist_ok=True)
    wait_for_all(f"made {path.name}")
    if not path.is_dir():
        raise TrainingError(
            f"process {share()[0]} does not see {path}, which process 0 made; run all of them "
            "in a folder on a disk that they share"
        )
    return path


def refuse_unfit(model: keras.Model, samples: int, micro_batches: int) -> None:
    """Refuse a training whose result would differ from that of one device.

    Raises:
        TrainingError: the devices cannot share ``samples`` (computed at a time) equally; the
            network was not built in the scope; or TensorFlow would have to add up gradients.
    """
    count = replicas()
    if count == 1:
        return
    _refuse_unequal(samples, count)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow and micro_batches > 1:
        raise TrainingError(
            f"micro-batches on {count} devices fail under tf.distribute.MirroredStrategy; use "
            "KERAS_BACKEND=jax, or leave micro_batch_size as it is"
        )
    value = model.variables[0].value
    held = len(getattr(value, "values", [0]) if on_tensorflow else value.sharding.device_set)
    if held != count:
        raise TrainingError(
            f"the network lies on {held} device, {count} are to train it; build it under "
            "Devices.scope()"
        )


def _refuse_unequal(samples: int, count: int) -> None:
    if samples % count:
        raise TrainingError(
            f"{count} devices cannot share {samples} samples at a time equally; a batch size "
            f"(micro-batch size, where one is set) of {_next_multiple(samples, count)} works"
        )


def _next_multiple(number: int, of: int) -> int:
    return -(-number // of) * of


class SpreadNetwork:
    """A network built under ``Devices.scope`` whose devices each predict a share of a batch."""

    # In Keras' own prediction every device computes the whole batch.

    def __init__(self, model: keras.Model):
        on_tensorflow = keras.backend.backend() == "tensorflow"
        self._predict = (_tensorflow_prediction if on_tensorflow else _jax_prediction)(model)

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Predict a batch, the same in all processes, into ``(batch, height, width, 1)``.

        Images are ``(batch, height, width, bands)``; ``replicas()`` must divide the batch.
        """
        return self._predict(images)


def spread(model: keras.Model) -> keras.Model | SpreadNetwork:
    """Return a ``SpreadNetwork``; on one device the model itself."""
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

    # With Keras' own step each process would get its share only.
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
