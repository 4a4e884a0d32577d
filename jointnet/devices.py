"""The devices that a training is given: found, chosen, and made into a scope.

Several devices of one host are ``tf.distribute.MirroredStrategy`` on TensorFlow and
``keras.distribution.DataParallel`` on JAX; several processes, on one host or on several, are
``keras.distribution`` on JAX alone. What training asks in the scope is in ``distribution``.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from jointnet.distribution import next_multiple, refuse_unequal
from preprocessing.errors import TrainingError

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
            # Each process feeds its own share, see ``distribution.share``.
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
