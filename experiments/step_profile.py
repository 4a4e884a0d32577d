"""Where the time of a training step goes, operation by operation (TensorFlow)."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import keras

from experiments.benchmark_training import (
    NETWORKS,
    convolution_operations,
    patches,
    peak_operations,
)
from jointnet.runs import jit_setting
from jointnet.training import set_rematerialisation
from jointnet.training_settings import TrainingSettings

# What TensorFlow's names of operations contain, the first that fits.
GROUPS = {
    "gradients_of_weights": ("Conv2DBackpropFilter",),
    # By inputs the gradient of a dilated convolution is one as well.
    "convolutions_and_gradients_of_inputs": ("Conv2D",),
    "dilation": ("SpaceToBatchND", "BatchToSpaceND"),
    "concatenation_and_its_gradients": ("Concat", "Slice", "AddN"),
}
STEPS = 5
# What encloses operations, and is none.
ENCLOSING = ("Execute", "TFE_", "inference", "one_step", "Run", "Process")


def profile(
    network: str, precision: str, crop: int, rematerialise: str | None = None
) -> dict[str, Any]:
    """The median one of ``STEPS`` training steps on one patch, in one thread.

    Args:
        network: one of ``benchmark_training.NETWORKS``.
        precision: dtype policy.
        crop: side of the patch in pixels.
        rematerialise: see ``TrainingSettings``.

    Returns:
        Seconds of the convolutions with their gradients by inputs, of those by weights, of what
        dilation takes beside them, of concatenations with their gradients, and of all else
        (group normalisation above all); each one's share of the sum; tera-operations per second
        of the first two, and of a large matrix product in one thread.
    """
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(crop_size=crop, batch_size=1, precision=precision)
    operations = convolution_operations(NETWORKS[network](64, precision), 64) * crop**2
    model = NETWORKS[network](crop, precision)
    if rematerialise is not None:
        set_rematerialisation(model, rematerialise)
    model.compile(settings.make_optimizer(3), settings.make_loss(), jit_compile=jit_setting())
    batch = patches(1, crop)
    for _ in range(2):
        model.train_on_batch(*batch)
    steps = []
    for _ in range(STEPS):
        with tempfile.TemporaryDirectory() as folder:
            tf.profiler.experimental.start(folder)
            model.train_on_batch(*batch)
            tf.profiler.experimental.stop()
            trace = next(Path(folder).rglob("*.xplane.pb")).read_bytes()
        steps.append(by_group(seconds_by_operation(trace)))
    grouped = sorted(steps, key=lambda step: sum(step.values()))[STEPS // 2]
    total = sum(grouped.values())
    seconds = {f"{name}_seconds": value for name, value in grouped.items()}
    shares = {f"{name}_share": value / total for name, value in grouped.items()}
    rates = {
        f"{name}_teraflops": times * operations / grouped[name] / 1e12
        for name, times in (
            ("convolutions_and_gradients_of_inputs", 2),
            ("gradients_of_weights", 1),
        )
    }
    matrix = {"matrix_product_teraflops": peak_operations(precision, 2048) / 1e12}
    return {"sum_seconds": total, **seconds, **shares, **rates, **matrix}


def seconds_by_operation(trace: bytes) -> Counter[str]:
    """Seconds by the name of the operation, from a trace of TensorFlow's profiler."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    found: Counter[str] = Counter()
    for plane in xplane_pb2.XSpace.FromString(trace).planes:
        if "CPU" in plane.name:
            for line in plane.lines:
                for event in line.events:
                    # Such as "model/block/concat:ConcatV2".
                    name = plane.event_metadata[event.metadata_id].name.rsplit(":", 1)[-1]
                    found[name] += event.duration_ps / 1e12
    return found


def by_group(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by ``GROUPS``, and of ``all_else``.

    Args:
        seconds: by the name of the operation.
    """
    grouped = dict.fromkeys([*GROUPS, "all_else"], 0.0)
    for name, value in seconds.items():
        if not any(part in name for part in ENCLOSING):
            fits = (group for group, parts in GROUPS.items() if any(p in name for p in parts))
            grouped[next(fits, "all_else")] += value
    return grouped
