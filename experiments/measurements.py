"""What ``experiments/benchmark.py`` measures, each in a process of its own.

``python -m experiments.measurements NAME '{"size": 1024}'`` runs one function and prints what it
returns as JSON, with the greatest memory that the process held (from where it restarted the count,
if it did).
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from jointnet.batches import TrainingBatches
from jointnet.model import JointNet
from jointnet.runs import jit_setting
from jointnet.training_settings import TrainingSettings
from layers import GroupNormalization
from preprocessing.augmentation import STRONG
from preprocessing.patch_store import PatchSet

LAYERS = {"project": GroupNormalization, "keras": keras.layers.GroupNormalization}


def batches(crop: int, batch: int, variant: str, precision: str, repeats: int) -> dict[str, Any]:
    """Batches with all augmentation in one thread, against training steps on them.

    Args:
        crop: side of a sample in pixels.
        batch: samples in a batch.
        variant: one of ``jointnet.model.VARIANTS``.
        precision: dtype policy of the training.
        repeats: training steps; four times as many batches.

    Returns:
        Median seconds of a batch and of a step, megapixels per second of both, their ratio.
    """
    settings = TrainingSettings(crop_size=crop, batch_size=batch, precision=precision)
    model = random_network(variant, precision)
    optimizer, loss = settings.make_optimizer(repeats), settings.make_loss()
    model.compile(optimizer, loss, jit_compile=jit_setting())
    with tempfile.TemporaryDirectory() as folder:
        patches = stored_patches(Path(folder), 3 * crop // 2)
        source = TrainingBatches(patches, 0, 0, batch, crop, STRONG, steps=4 * repeats)
        numbers = iter(range(len(source)))
        loading = times(lambda: source[next(numbers)], len(source))
        images, masks = source[0]
        model.train_on_batch(images, masks)
        training = times(lambda: model.train_on_batch(images, masks), repeats)
    pixels = batch * crop**2 / 1e6
    load, step = statistics.median(loading), statistics.median(training)
    return {
        "batch_seconds": load,
        "batch_seconds_range": [min(loading), max(loading)],
        "step_seconds": step,
        "step_seconds_range": [min(training), max(training)],
        "batches_megapixels_per_second": pixels / load,
        "training_megapixels_per_second": pixels / step,
        "ratio": step / load,
    }


def normalisation(
    layer: str, shape: list[int], depth: int, dtype: str, repeats: int
) -> dict[str, Any]:
    """A stack of ReLU and group normalisation, forward, and forward with gradients.

    Args:
        layer: one of ``LAYERS``.
        shape: of the input, channels last.
        depth: number of normalisations, each after a ReLU; six as in a dense atrous block.
        dtype: ``"float32"`` or ``"bfloat16"``.
        repeats: of each.

    Returns:
        Median seconds of both, and the megabytes that the process came to hold while it computed
        the gradients (Linux; elsewhere since the process began).
    """
    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    stack = keras.Sequential([keras.Input((None, None, shape[-1]), dtype=dtype)])
    for _ in range(depth):
        stack.add(keras.layers.ReLU(dtype=policy))
        stack.add(LAYERS[layer](groups=8, epsilon=0.1, dtype=policy))
    forward, gradient = _compiled(stack)
    few = keras.random.normal([1, 16, 16, shape[-1]], dtype=dtype)
    x = keras.random.normal(shape, dtype=dtype)
    for function in (forward, gradient):
        _wait(function(few))
    _wait(x)
    held = restart_peak()
    _wait(gradient(x))
    megabytes = peak_megabytes() - held
    _wait(forward(x))
    return {
        "forward_seconds": statistics.median(times(lambda: _wait(forward(x)), repeats)),
        "gradient_seconds": statistics.median(times(lambda: _wait(gradient(x)), repeats)),
        "gradient_megabytes": megabytes,
    }


def restart_peak() -> float:
    """Let ``peak_megabytes`` begin from what is held now, where that can be; what that is."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass
    return peak_megabytes()


def peak_megabytes() -> float:
    """The greatest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # What getrusage says of a child begins at the memory of the process that started it.
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _compiled(layer: keras.Model) -> tuple[Callable, Callable]:
    """Functions of the input: the output; the gradients of a weighted sum of it."""
    if keras.backend.backend() == "jax":
        import jax

        state = [v.value for v in layer.trainable_variables]

        def total(values: list, x: Any) -> Any:
            y = layer.stateless_call(values, [], x)[0].astype("float32")
            return (y * y).sum()

        forward = jax.jit(lambda x: layer.stateless_call(state, [], x)[0])
        backward = jax.jit(jax.grad(total, argnums=(0, 1)))
        return forward, lambda x: backward(state, x)[1]
    import tensorflow as tf

    @tf.function
    def gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x), "float32")
            total = tf.reduce_sum(y * y)
        found = tape.gradient(total, [x, *(v.value for v in layer.trainable_variables)])
        # All of them are needed for the first to be there.
        with tf.control_dependencies(found[1:]):
            return tf.identity(found[0])

    return tf.function(lambda x: layer(x)), gradient


def _wait(result: Any) -> None:
    """Until a result is there: some backends compute in the background."""
    keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.ravel(result)[:1], "float32"))


def times(function: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of so many calls."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return seconds


def random_network(variant: str, precision: str) -> JointNet:
    """A network with random weights, ready to predict."""
    keras.utils.set_random_seed(0)
    model = JointNet.from_variant(variant, dtype=precision)
    model.compile(jit_compile=jit_setting())
    return model


def blocks(side: int, seed: int) -> np.ndarray:
    """``(side, side)`` uint8: bright blocks of 16 pixels, one in seven, on noise."""
    random = np.random.default_rng(seed)
    roofs = random.random((-(-side // 16), -(-side // 16))) < 1 / 7
    noise = random.integers(40, 160, (side, side), np.uint8)
    bright = np.repeat(np.repeat(roofs, 16, 0), 16, 1)[:side, :side]
    return np.where(bright, noise // 4 + 200, noise).astype(np.uint8)


def stored_patches(folder: Path, side: int, number: int = 32) -> PatchSet:
    """Patches in memory maps, as a store has them.

    Args:
        folder: where to write them.
        side: of the patches in pixels.
        number: of patches.
    """
    grey = np.stack([blocks(side, seed) for seed in range(number)])
    np.save(folder / "images.npy", np.repeat(grey[..., None], 3, axis=-1))
    np.save(folder / "masks.npy", (grey > 170).astype(np.uint8))
    return PatchSet(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        extents=np.full((number, 2), side),
        target_shares=(grey > 170).mean(axis=(1, 2)),
        valid_shares=np.ones(number),
        scenes=tuple(f"scene{n}" for n in range(number)),
    )


def main(name: str, arguments: str) -> None:
    """Run one measurement and print it as the last line."""
    from experiments import benchmark_prediction, benchmark_training, step_profile, torch_cost

    here = {"batches": batches, "normalisation": normalisation}
    there = {
        "inference": benchmark_prediction.inference,
        "memory": benchmark_prediction.memory,
        "windows": benchmark_prediction.windows,
        "mosaic": benchmark_prediction.mosaic,
        "cutting": benchmark_training.cutting,
        "schedule": benchmark_training.schedule,
        "evaluation": benchmark_prediction.evaluation,
        "input": benchmark_training.input_cost,
        "profile": step_profile.profile,
        "training": benchmark_training.training,
        "torch_training": torch_cost.torch_training,
    }
    result = (here | there)[name](**json.loads(arguments))
    print(json.dumps({**result, "peak_megabytes": peak_megabytes()}))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(*sys.argv[1:])
