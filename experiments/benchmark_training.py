"""Time and memory of training steps, and the cost of their input."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from experiments.measurements import blocks, peak_megabytes, restart_peak, times
from jointnet.batches import TrainingBatches
from jointnet.model import JointNet
from jointnet.resnet import ResNetUNet
from jointnet.runs import jit_setting
from jointnet.training import loading_threads, set_rematerialisation
from jointnet.training_settings import TrainingSettings
from layers.dense_atrous_block import DILATION_RATES
from preprocessing.augmentation import STRONG, Augmentation
from preprocessing.patch_store import PatchSet

# Patches of 512 px that the tiles of Inria's training side give.
INRIA_PATCHES = 15_500
NETWORKS = {
    "keras.layers": lambda crop, precision: plain_jointnet(crop, dtype=precision),
    "JointNet": lambda crop, precision: JointNet(dtype=precision),
    "ResNetUNet": lambda crop, precision: ResNetUNet(dtype=precision),
}


def plain_jointnet(
    side: int,
    growth_rates: tuple[int, int, int] = (32, 64, 128),
    bridge_filters: int = 256,
    dtype: str = "float32",
) -> keras.Model:
    """Build ``jointnet.JointNet`` with its defaults from nothing but ``keras.layers``.

    Its weights are those of ``JointNet``; convolutions and normalisations each come in the same
    order. The size is fixed, ``side`` a multiple of 8, because bilinear
    ``keras.layers.UpSampling2D`` takes no free one in graph mode.

    Returns:
        A network from ``(batch, side, side, 3)`` pixels, 0..255, to ``(batch, side, side, 1)``
        float32 probabilities.
    """
    policy = {"dtype": dtype}

    def convolution(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        return keras.layers.Conv2D(filters, 1, activation="relu", **policy)(x)

    def block(x: keras.KerasTensor, growth_rate: int) -> keras.KerasTensor:
        for rate in DILATION_RATES:
            y = keras.layers.Conv2D(
                growth_rate, 3, padding="same", dilation_rate=rate, activation="relu", **policy
            )(x)
            y = keras.layers.GroupNormalization(8, epsilon=0.1, **policy)(y)
            x = keras.layers.Concatenate(**policy)([x, y])
        return convolution(x, 4 * growth_rate)

    inputs = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1, dtype="float32")(inputs)
    skips = []
    for growth in growth_rates:
        x = block(x, growth)
        skips.append(x)
        # Every second pixel, as in JointNet: training a strided 1x1 convolution corrupts memory
        # in TensorFlow on a CPU.
        x = convolution(keras.layers.AveragePooling2D(1, 2, **policy)(x), growth)
    x = convolution(x, bridge_filters)
    for growth, skip in reversed(list(zip(growth_rates, skips, strict=True))):
        x = keras.layers.UpSampling2D(interpolation="bilinear", **policy)(x)
        x = keras.layers.Concatenate(**policy)([x, skip])
        x = block(x, growth) if skip is skips[0] else convolution(x, growth)
    logits = keras.layers.Conv2D(1, 1, **policy)(x)
    return keras.Model(inputs, keras.layers.Activation("sigmoid", dtype="float32")(logits))


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
    """Measure training steps on a constant batch, see ``step_cost``.

    ``network`` is one of ``NETWORKS``; the settings are those of ``TrainingSettings``. XLA
    compiles the step if ``xla`` says so, or (None) if it would in a training run; the ``xla``
    that is returned says whether it did.
    """
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(
        crop_size=crop,
        batch_size=batch,
        micro_batch_size=micro_batch,
        precision=precision,
        rematerialise=rematerialise,
    )
    # Counted on a small patch, since the memory of a large one would be held before the first step.
    operations = convolution_operations(NETWORKS[network](64, precision), 64)
    model = NETWORKS[network](crop, precision)
    if rematerialise is not None:
        set_rematerialisation(model, rematerialise)
    model.compile(
        settings.make_optimizer(repeats + 1),
        settings.make_loss(),
        jit_compile=jit_setting() if xla is None else xla,
    )
    images, masks = generated_batch(batch // settings.micro_batches, crop)

    def step() -> None:
        for _ in range(settings.micro_batches):
            model.train_on_batch(images, masks)

    cost = step_cost(step, repeats, batch, crop, operations, lambda: matrix_product(precision))
    return {"xla": bool(model.jit_compile), **cost}


def step_cost(
    step: Callable[[], None],
    repeats: int,
    batch: int,
    crop: int,
    operations: float,
    peak: Callable[[], float],
) -> dict[str, Any]:
    """Measure time and memory of a training step on ``batch`` patches of ``crop`` pixels a side.

    ``repeats`` steps, which may be none, are timed after the first. ``operations`` are those of
    the convolutions of one forward pass, per pixel; ``peak`` returns the operations per second of
    a large matrix product.

    Returns:
        ``megabytes`` that the process, or the accelerator, came to hold more than before the first
        step; and, with repeats, median seconds and processor seconds of a step, patches per
        second, tera-operations per second of the forward pass and of the gradients by inputs and
        by weights (what is computed twice counts once), those of the matrix product, the ratio of
        both, and the hours of an epoch of ``INRIA_PATCHES`` patches of 512 px at this rate.
    """
    held = restart_peak()
    step()
    cost = {"megabytes": device_peak_megabytes() or peak_megabytes() - held}
    if not repeats:
        return cost
    processor = []

    def timed() -> None:
        used = time.process_time()
        step()
        processor.append(time.process_time() - used)

    seconds = times(timed, repeats)
    median = statistics.median(seconds)
    reached, possible = 3 * operations * batch * crop**2 / median, peak()
    return cost | {
        "step_seconds": median,
        "step_seconds_range": [min(seconds), max(seconds)],
        "step_processor_seconds": statistics.median(processor),
        "patches_per_second": batch / median,
        "teraflops": reached / 1e12,
        "matrix_product_teraflops": possible / 1e12,
        "share_of_peak": reached / possible,
        "inria_epoch_hours": INRIA_PATCHES * (512 / crop) ** 2 * median / batch / 3600,
    }


def convolution_operations(model: keras.Model, side: int) -> float:
    """Return the operations of the convolutions of a forward pass per pixel of the input.

    The model takes ``(1, side, side, 3)`` pixels; a multiplication counts as two operations.
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


def matrix_product(precision: str, side: int = 4096) -> float:
    """Return the operations per second of a product of two square matrices, the median of seven."""
    dtype = keras.dtype_policies.get(precision).compute_dtype
    matrix = keras.random.normal((side, side), dtype=dtype)

    def multiply() -> None:
        keras.ops.convert_to_numpy(keras.ops.cast((matrix @ matrix)[:1, :1], "float32"))

    multiply()
    return 2 * side**3 / statistics.median(times(multiply, 7))


def generated_batch(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``(batch, side, side, 3)`` and masks ``(batch, side, side, 1)``, uint8."""
    grey = np.stack([blocks(side, seed) for seed in range(batch)])[..., None]
    return np.repeat(grey, 3, axis=-1), (grey > 170).astype(np.uint8)


def device_peak_megabytes() -> float | None:
    """Return the most that the accelerator has held in this process; None on a CPU."""
    if all(device.startswith("cpu") for device in keras.distribution.list_devices()):
        return None
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


class Constant(keras.utils.PyDataset):
    """Give out one batch ``length`` times."""

    def __init__(self, batch: tuple, length: int):
        super().__init__()
        self.batch = batch
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple:
        return self.batch


class StepTimes(keras.callbacks.Callback):
    """Note the seconds from the end of one step to the end of the next."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Note the time; reading the loss waits for the step on every backend."""
        float((logs or {})["loss"])
        now = time.perf_counter()
        if batch:
            self.seconds.append(now - self._before)
        self._before = now


def input_cost(crop: int, batch: int, precision: str, repeats: int, rounds: int) -> dict[str, Any]:
    """Time steps of full-width JointNet in ``fit``, by where their batches come from.

    ``repeats`` steps of each source are timed in each of ``rounds`` rounds.

    Returns:
        Median seconds of a step on a constant batch, on crops of a store in memory maps as the
        published recipes augment them, and on such crops with every augmentation; and the ratios
        of the last two to the first, medians over the rounds.
    """
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(crop_size=crop, batch_size=batch, precision=precision)
    model = JointNet(dtype=precision)
    model.compile(settings.make_optimizer(repeats), settings.make_loss(), jit_compile=jit_setting())
    with tempfile.TemporaryDirectory() as folder:
        patches = stored_patches(Path(folder), 3 * crop // 2)
        kept = {"steps": repeats + 1, "workers": loading_threads()}
        published, augmented = (
            TrainingBatches(patches, 0, 0, batch, crop, augmentation, **kept)
            for augmentation in (Augmentation(), STRONG)
        )
        constant = Constant(published[0], repeats + 1)
        sources = {"constant": constant, "published": published, "augmented": augmented}
        found: dict[str, list[float]] = {name: [] for name in sources}
        # The first step builds the graph.
        model.fit(Constant(published[0], 1), verbose=0)
        for _ in range(rounds):
            for name, source in sources.items():
                watch = StepTimes()
                model.fit(source, shuffle=False, verbose=0, callbacks=[watch])
                found[name].append(statistics.median(watch.seconds))
    seconds = {name: np.array(values) for name, values in found.items()}
    return {f"{name}_step_seconds": float(np.median(s)) for name, s in seconds.items()} | {
        f"{name}_over_constant": float(np.median(seconds[name] / seconds["constant"]))
        for name in ("published", "augmented")
    }


def stored_patches(folder: Path, side: int, number: int = 32) -> PatchSet:
    """Write generated patches and return them in memory maps, as a patch store holds them."""
    images, masks = generated_batch(number, side)
    np.save(folder / "images.npy", images)
    np.save(folder / "masks.npy", masks[..., 0])
    return PatchSet(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        extents=np.full((number, 2), side),
        target_shares=masks.mean(axis=(1, 2, 3)),
        valid_shares=np.ones(number),
        scenes=tuple(f"scene{n}" for n in range(number)),
    )
