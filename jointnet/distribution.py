"""The few things that every Keras backend has its own name for."""

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

from preprocessing.errors import TrainingError


def compiled(function: Callable) -> Callable:
    """A function of arrays, compiled by the backend; another than these computes step by step.

    Args:
        function: of arrays, and lists of arrays, by ``keras.ops`` alone.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def memory_errors() -> tuple[type[Exception], ...]:
    """What the engines raise where memory is short; JAX's is a RuntimeError."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return (MemoryError, RuntimeError, tf.errors.ResourceExhaustedError)
    return (MemoryError, RuntimeError)


_HOSTS = (
    "several hosts train with KERAS_BACKEND=jax and, on each, --process K/N --coordinator HOST:PORT"
)


@dataclass(frozen=True)
class Devices:
    """The devices that share each batch.

    Attributes:
        names: such as ``("gpu:0", "gpu:1")``, those of all processes. Fewer than two: the device
            that the engine takes by itself.
        process: number of this process, from 0; that one alone writes.
        processes: number of processes.
        note: why there are not more of them, for the user; empty where all are in use.
    """

    names: tuple[str, ...] = ()
    process: int = 0
    processes: int = 1
    note: str = ""

    def described(self) -> dict[str, list[str] | int]:
        """What an ``environment.json`` says of them; nothing of one device."""
        if len(self.names) < 2:
            return {}
        return {"trained_on": list(self.names), "processes": self.processes}

    def line(self, part: int) -> str:
        """A line for the user on how ``part`` samples are shared; empty for one device."""
        if len(self.names) < 2:
            return self.note
        several = f" of {self.processes} processes" if self.processes > 1 else ""
        return (
            f"training on {len(self.names)} devices{several} ({', '.join(self.names)}), "
            f"{part // len(self.names)} of {part} samples on each"
        )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Where the network is to be built and trained.

        With several processes its end waits for all of them and parts them: what one of them does
        afterwards is done on its own devices, and no scope can follow.
        """
        if len(self.names) < 2:
            yield
        elif keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.distribute.MirroredStrategy(list(self.names)).scope():
                yield
        else:
            # Each process feeds its own share, see ``share``.
            together = keras.distribution.DataParallel(
                devices=list(self.names), auto_shard_dataset=False
            )
            with together.scope():
                yield
            if self.processes > 1:
                import jax

                jax.distributed.shutdown()


def join(process: tuple[int, int] | None = None, coordinator: str | None = None) -> None:
    """Make this process one of several that train together, before anything is computed.

    Args:
        process: number of this process, from 1, and the number of processes.
        coordinator: host and port, such as ``"10.0.0.1:1234"``, at which all reach process 1.
            Without both it is what the environment says: ``KERAS_DISTRIBUTION_JOB_ADDRESSES``,
            ``_NUM_PROCESSES`` and ``_PROCESS_ID`` (from 0), or what JAX finds out by itself, as
            under Slurm.

    Raises:
        TrainingError: the backend is not JAX, or the processes do not find each other.
    """
    if keras.backend.backend() != "jax":
        raise TrainingError(
            f"several processes train on JAX alone, the backend is {keras.backend.backend()} (its "
            f"MultiWorkerMirroredStrategy fails under Keras 3, keras-team/keras#20585); {_HOSTS}"
        )
    number, count = process or (None, None)
    try:
        keras.distribution.initialize(coordinator, count, None if number is None else number - 1)
    except (RuntimeError, ValueError) as error:
        line = (str(error).strip() or repr(error)).splitlines()[0]
        raise TrainingError(
            f"the processes do not find each other: {line}; give each its own "
            "--process K/N, and all the same --coordinator HOST:PORT, where process 1 runs"
        ) from None


def joins_by_environment() -> bool:
    """Whether the variables that ``keras.distribution.initialize`` reads ask for processes."""
    return int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES") or 1) > 1


def choose_devices(part: int, wanted: int | None = None) -> Devices:
    """The devices to train on; after ``join``, where that is called at all.

    Args:
        part: samples that are computed at a time, ``TrainingSettings.batch_size`` or its
            ``micro_batch_size``; every device takes an equal share.
        wanted: number of devices of this host. Where it has no accelerator, its CPU is divided
            into so many. None for all accelerators, or for one where ``part`` cannot be shared
            among them. Of several processes all devices take part.

    Raises:
        TrainingError: ``TF_CONFIG`` asks for several workers; there are fewer devices than
            ``wanted``; or they do not divide ``part``.
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
    found = _found(wanted)
    if wanted is not None and wanted > len(found):
        raise TrainingError(
            f"{wanted} devices are asked for, and there are {len(found)} ({', '.join(found)}); "
            f"leave --devices out, or give up to {len(found)}"
        )
    names = found if processes > 1 else found[:wanted]
    if wanted is None and processes == 1 and part % max(len(names), 1):
        note = (
            f"training on 1 of {len(names)} devices, as {part} samples at a time cannot be shared "
            f"equally among all; a batch size of {next_multiple(part, len(names))} can"
        )
        return Devices(note=note)
    refuse_unequal(part, max(len(names), 1))
    return Devices(tuple(names), process, processes)


def _place() -> tuple[int, int]:
    """Number of this process and of all, as ``join`` left them."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    # Without ``join`` the question would start the devices, which cannot be divided then.
    if not jax.distributed.is_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()


def _tensorflow_workers() -> int:
    """Number of workers in ``TF_CONFIG``."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(len(cluster.get(kind, [])) for kind in ("chief", "worker"))
    except (ValueError, AttributeError, TypeError):
        return 0


def _divide_processor(count: int) -> None:
    """Make so many devices of the CPU, where no accelerator is; of use to tests and trials."""
    # Devices that run already cannot be divided: too few are refused afterwards.
    with contextlib.suppress(RuntimeError):
        if keras.backend.backend() == "jax":
            import jax

            jax.config.update("jax_num_cpu_devices", count)
        elif keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            (processor,) = tf.config.list_physical_devices("CPU")
            parts = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(processor, parts)


def _found(wanted: int | None) -> list[str]:
    """Names of the accelerators; of the parts of the CPU where there are none and some wanted."""
    names = keras.distribution.list_devices()
    processors = all(name.startswith("cpu") for name in names)
    # Several processes on CPUs have joined for no other reason than to use them.
    return [] if processors and wanted is None and _place()[1] == 1 else names


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
