"""What the input costs: training steps on batches of a store against steps on a constant one."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from experiments.measurements import stored_patches
from jointnet.batches import TrainingBatches
from jointnet.device_patches import DevicePatches
from jointnet.model import JointNet
from jointnet.runs import jit_setting
from jointnet.settings import TrainingSettings
from jointnet.training import loading_threads
from preprocessing.augmentation import STRONG, Augmentation

# What the published recipes do.
PUBLISHED = Augmentation()


class Constant(keras.utils.PyDataset):
    """One batch, again and again.

    Args:
        batch: the batch.
        length: how often.
    """

    def __init__(self, batch: Sequence[Any], length: int):
        super().__init__()
        self.batch = tuple(batch)
        self.length = length

    def __len__(self) -> int:
        """How often."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """The batch."""
        return self.batch


class StepTimes(keras.callbacks.Callback):
    """Seconds from the end of one step to the end of the next."""

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
    """Steps of full-width JointNet in ``fit``, by where its batches come from.

    Args:
        crop: side of a sample in pixels.
        batch: samples in a batch.
        precision: dtype policy.
        repeats: steps that are timed of each, in each round.
        rounds: how often the kinds take turns.

    Returns:
        Median seconds of a step on a constant batch, on crops of a store in memory maps as the
        published recipes augment them, on such crops with every augmentation, and on crops of a
        store on the device as the published recipes augment them; and
        the ratios of the last three to the first, medians over the rounds.
    """
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(crop_size=crop, batch_size=batch, precision=precision)
    model = JointNet(dtype=precision)
    model.compile(settings.make_optimizer(repeats), settings.make_loss(), jit_compile=jit_setting())
    with tempfile.TemporaryDirectory() as folder:
        patches = stored_patches(Path(folder), 3 * crop // 2)
        on_device = DevicePatches(patches, crop)

        def batches(augmentation: Augmentation, **where: Any) -> TrainingBatches:
            kept = {"steps": repeats + 1, "workers": loading_threads()}
            return TrainingBatches(patches, 0, 0, batch, crop, augmentation, **kept, **where)

        plain = batches(PUBLISHED)
        sources = {
            "constant": Constant(plain[0], repeats + 1),
            "published": plain,
            "augmented": batches(STRONG),
            "on_device": batches(PUBLISHED, on_device=on_device),
        }
        found: dict[str, list[float]] = {name: [] for name in sources}
        model.fit(Constant(plain[0], 1), verbose=0)
        for _ in range(rounds):
            for name, source in sources.items():
                watch = StepTimes()
                model.fit(source, shuffle=False, verbose=0, callbacks=[watch])
                found[name].append(statistics.median(watch.seconds))
    ratios = {
        f"{name}_over_constant": statistics.median(
            seconds / constant
            for seconds, constant in zip(found[name], found["constant"], strict=True)
        )
        for name in ("published", "augmented", "on_device")
    }
    seconds = {f"{name}_step_seconds": statistics.median(s) for name, s in found.items()}
    return seconds | ratios
