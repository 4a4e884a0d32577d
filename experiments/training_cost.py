"""What training costs: time, memory and share of the machine's peak, network by network."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import keras
import numpy as np

from experiments.measurements import blocks, peak_megabytes, restart_peak
from experiments.plain_jointnet import plain_jointnet
from jointnet.model import JointNet
from jointnet.resnet import ResNetUNet
from jointnet.runs import jit_setting
from jointnet.settings import TrainingSettings
from jointnet.training import set_rematerialisation

# Patches of 512 px that the tiles of Inria's training side give.
INRIA_PATCHES = 15_500
NETWORKS = {
    "keras.layers": lambda crop, precision: plain_jointnet(crop, dtype=precision),
    "JointNet": lambda crop, precision: JointNet(dtype=precision),
    "ResNetUNet": lambda crop, precision: ResNetUNet(dtype=precision),
}


def training(
    network: str,
    precision: str,
    crop: int,
    repeats: int,
    batch: int = 1,
    micro_batch: int | None = None,
    rematerialise: str | None = None,
    xla: bool | None = None,
) -> dict[str, Any]:
    """Training steps on a constant batch.

    Args:
        network: one of ``NETWORKS``.
        precision: dtype policy.
        crop: side of a patch in pixels.
        repeats: steps that are timed, after the first; none where 0.
        batch: patches in a batch.
        micro_batch: patches in memory at a time; None for the batch.
        rematerialise: see ``TrainingSettings``.
        xla: whether XLA compiles the step; None for what a training run would do.

    Returns:
        See ``figures``; and ``xla``, whether it did.
    """
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(
        crop_size=crop,
        batch_size=batch,
        micro_batch_size=micro_batch,
        precision=precision,
        rematerialise=rematerialise,
    )
    # Counted on a small patch: what a large one took would be held before the first step.
    operations = convolution_operations(NETWORKS[network](64, precision), 64)
    model = NETWORKS[network](crop, precision)
    if rematerialise is not None:
        set_rematerialisation(model, rematerialise)
    model.compile(
        settings.make_optimizer(repeats + 1),
        settings.make_loss(),
        jit_compile=jit_setting() if xla is None else xla,
    )
    images, masks = patches(batch // settings.parts, crop)

    def step() -> None:
        for _ in range(settings.parts):
            model.train_on_batch(images, masks)

    found = figures(step, repeats, batch, crop, operations, peak_operations, precision)
    return {"xla": bool(model.jit_compile), **found}


def figures(
    step: Callable[[], None],
    repeats: int,
    batch: int,
    crop: int,
    operations: float,
    peak: Callable[[str], float],
    precision: str,
) -> dict[str, Any]:
    """Time and memory of a training step.

    Args:
        step: one step.
        repeats: how many are timed, after the first.
        batch: patches in a batch.
        crop: side of a patch in pixels.
        operations: of the convolutions of one forward pass, per pixel.
        peak: see ``peak_operations``.
        precision: what the peak is measured in.

    Returns:
        ``megabytes`` that the process, or the accelerator, came to hold more than before the first
        step; and, with repeats, median seconds and processor seconds of a step, patches per
        second, tera-operations per second of forward pass, gradients of inputs and of weights
        (what is computed twice counts once), the machine's in a large matrix product, the share
        of these, and the hours of an epoch of ``INRIA_PATCHES`` patches of 512 px at this rate.
    """
    held = restart_peak()
    step()
    result = {"megabytes": device_peak_megabytes() or peak_megabytes() - held}
    if not repeats:
        return result
    seconds, processor = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    second = statistics.median(seconds)
    reached, possible = 3 * operations * batch * crop**2 / second, peak(precision)
    return result | {
        "step_seconds": second,
        "step_seconds_range": [min(seconds), max(seconds)],
        "step_processor_seconds": statistics.median(processor),
        "patches_per_second": batch / second,
        "teraflops": reached / 1e12,
        "matrix_product_teraflops": possible / 1e12,
        "share_of_peak": reached / possible,
        "inria_epoch_hours": INRIA_PATCHES * (512 / crop) ** 2 * second / batch / 3600,
    }


def convolution_operations(model: keras.Model, side: int) -> float:
    """Operations of the convolutions of a forward pass per pixel of the input.

    Args:
        model: a network that takes ``(1, side, side, 3)`` pixels.
        side: height and width to count with.

    Returns:
        Two for each multiplication.
    """
    counted = []
    plain = keras.layers.Conv2D.call

    def call(layer: keras.layers.Conv2D, inputs: Any) -> Any:
        outputs = plain(layer, inputs)
        counted.append(2 * math.prod(layer.kernel.shape) * math.prod(outputs.shape[1:3]))
        return outputs

    with mock.patch.object(keras.layers.Conv2D, "call", call):
        model(np.zeros((1, side, side, 3), np.uint8))
    return sum(counted) / side**2


def peak_operations(precision: str, side: int = 4096) -> float:
    """Operations per second of a product of two square matrices, the median of seven.

    Args:
        precision: dtype policy in whose compute dtype to multiply.
        side: rows and columns.
    """
    dtype = keras.dtype_policies.get(precision).compute_dtype
    matrix = keras.random.normal((side, side), dtype=dtype)

    def multiply() -> None:
        keras.ops.convert_to_numpy(keras.ops.cast((matrix @ matrix)[:1, :1], "float32"))

    multiply()
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds)


def patches(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(batch, side, side, 3)`` and masks ``(batch, side, side, 1)``, uint8."""
    grey = np.stack([blocks(side, seed) for seed in range(batch)])[..., None]
    return np.repeat(grey, 3, axis=-1), (grey > 170).astype(np.uint8)


def device_peak_megabytes() -> float | None:
    """The most that the accelerator has held in this process; None on a CPU."""
    if all(device.startswith("cpu") for device in keras.distribution.list_devices()):
        return None
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
