"""Train a network, validate it after each epoch, and log."""

import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import keras
import numpy as np
from tqdm import tqdm

from jointnet import distribution
from jointnet.batches import TrainingBatches
from jointnet.checkpoints import Checkpoints, ResumableEpoch, TrainingState, noted_signals
from jointnet.distribution import compiled
from jointnet.metrics import Counts, count, threshold_mask
from jointnet.runs import jit_setting
from jointnet.training_settings import TrainingSettings
from layers import DenseAtrousBlock
from preprocessing.errors import Interrupted, RunError, TrainingError
from preprocessing.output_files import write_csv
from preprocessing.patch_store import PatchSet, PatchStore
from preprocessing.tiling import VOID


class EventLog:
    """Write the history as TensorBoard events, if ``tensorboard`` is importable.

    Keras' own callback needs TensorFlow.
    """

    def __init__(self, folder: Path):
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            self._writer = None
            return
        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))

    def write(self, epoch: int, record: dict[str, float]) -> None:
        """Write the record of an epoch, counted from 1."""
        if self._writer is None:
            return
        values = [
            self._summary.Value(tag=name, simple_value=float(value))
            for name, value in record.items()
            if name != "epoch"
        ]
        self._writer.add_event(self._event(step=epoch, summary=self._summary(value=values)))
        self._writer.flush()


class RunLog:
    """Progress ``bar``, a line for each epoch, ``history.csv`` and TensorBoard events.

    ``steps`` are the micro-batches of an epoch. Of several processes only the first writes and
    prints. Leaving the context closes the bar. A file that cannot be written is an OutputError.
    """

    def __init__(self, folder: Path, epochs: int, steps: int, state: TrainingState):
        self.folder = folder
        self.epochs = epochs
        self.writes = distribution.is_first()
        if self.writes and state.history:
            # A kill between the two files leaves the last epoch in the checkpoint alone.
            write_csv(folder / "history.csv", state.history)
        self._events = EventLog(folder / "events") if self.writes else None
        # The validation, which may be all that is left of an epoch, counts as a step.
        self._first = state.epoch + state.micro_batches / (steps + 1)
        self._started = time.monotonic()
        self.bar = tqdm(
            total=steps * epochs,
            initial=steps * state.epoch + state.micro_batches,
            unit="step",
            # None shows the bar on terminals only; a log file has the lines of the epochs.
            disable=None if self.writes else True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.writes:
            self.bar.write(line)

    def record(self, state: TrainingState) -> None:
        """Write and print the last epoch of a state, or raise ``OutputError``."""
        if not self.writes:
            return
        record = state.history[-1]
        write_csv(self.folder / "history.csv", state.history)
        self._events.write(record["epoch"], record)
        shown = ("loss", "validation_loss", "validation_iou", "validation_f1")
        values = "  ".join(f"{name} {record[name]:.3f}" for name in shown)
        per_epoch = (time.monotonic() - self._started) / (state.epoch - self._first)
        left = (self.epochs - state.epoch) * per_epoch / 60
        self.say(f"epoch {state.epoch}/{self.epochs}  {values}  {left:.0f} min left")


class StepWatch(keras.callbacks.Callback):
    """Advance the progress bar, and stop a run whose loss or weights are not finite.

    ``done`` micro-batches of the epoch came before this call of ``fit``.
    """

    def __init__(self, batches: TrainingBatches, bar: tqdm, done: int = 0):
        super().__init__()
        self.batches = batches
        self.bar = bar
        self.done = done
        # One call for all weights, as a GPU would wait for each.
        self._sum = compiled(_sum)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Check the running mean of the loss, and the weights.

        TensorFlow's ReLU turns NaN into 0 on a CPU: the loss may be finite when weights are not.
        """
        loss = float((logs or {}).get("loss", 0.0))
        weights = [weight.value for weight in self.model.trainable_variables]
        finite = math.isfinite(float(self._sum(weights)))
        if not (finite and math.isfinite(loss)):
            index = self.done + batch
            names = ", ".join(self.batches.names(index))
            raise TrainingError(
                f"the loss is {loss} and the weights are {'' if finite else 'not '}finite at epoch "
                f"{self.batches.epoch + 1}, step {index + 1}, in the batch of {names}; look at "
                "these patches, or lower the learning rate"
            )
        self.bar.set_postfix_str(f"epoch {self.batches.epoch + 1} loss {loss:.4f}", refresh=False)
        self.bar.update()


class LastWeights(keras.callbacks.Callback):
    """Keep the weights of the last step, which ``fit`` replaces by their average if there is one.

    The next epoch goes on from the weights themselves.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Copy the weights."""
        self.weights = [np.copy(weight) for weight in self.model.get_weights()]

    def restore(self) -> None:
        """Put them back."""
        self.model.set_weights(self.weights)


def _sum(arrays: list[keras.KerasTensor]) -> keras.KerasTensor:
    return keras.ops.sum(keras.ops.stack([keras.ops.sum(array) for array in arrays]))


def validate(
    model: keras.Model,
    patches: PatchSet,
    settings: TrainingSettings,
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Measure loss and pooled pixel metrics over the validation patches.

    ``before_batch`` may raise to end the validation.

    Returns:
        ``validation_loss``, the mean over patches with valid pixels, and ``validation_iou``,
        ``_f1``, ``_precision``, ``_recall``, ``_accuracy`` at the threshold, from counts added
        over the valid pixels of all patches.
    """
    loss_of = settings.make_loss()
    counts, losses = Counts(), []
    size = settings.samples_at_a_time
    for first in range(0, len(patches), size):
        before_batch()
        images = np.asarray(patches.images[first : first + size])
        masks = np.asarray(patches.masks[first : first + size])
        missing = size - len(images)
        # Fill up the last batch, so that the network is compiled for one shape.
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        probabilities = np.asarray(model.predict_on_batch(filled))[: len(images)]
        counts += count(masks, threshold_mask(probabilities[..., 0], settings.threshold))
        per_sample = loss_of.call(masks[..., None], probabilities)
        has_valid = (masks != VOID).any(axis=(1, 2))
        losses.extend(keras.ops.convert_to_numpy(per_sample)[has_valid].tolist())
    metrics = {f"validation_{name}": value for name, value in counts.metrics().items()}
    return {"validation_loss": float(np.mean(losses)) if losses else 0.0, **metrics}


def train(
    model: keras.Model,
    store: PatchStore,
    settings: TrainingSettings,
    folder: Path,
    resume: bool = False,
) -> TrainingState:
    """Train a network, leave it with the best epoch's weights, and return the last state.

    Writes ``history.csv``, ``checkpoints/`` (see ``jointnet.checkpoints``) and, where tensorboard
    is importable, ``events/`` into the run folder. Under ``distribution.Devices.scope``, in which
    the network must be built, the devices share each batch; all processes must see the folder.
    With ``resume`` the weights at the end equal those of a run that was not interrupted.

    Raises:
        RunError: there is no checkpoint to resume from, or it does not fit the network.
        TrainingError: the loss or the weights are not finite (the message names epoch, step and
            patches, and the checkpoint before is kept); the network has no blocks to
            rematerialise; or the devices cannot share the batches
            (``distribution.refuse_unfit``).
        OutputError: a file cannot be written.
        Interrupted: a signal came; ``resume`` goes on there.
    """
    distribution.refuse_unfit(model, settings.samples_at_a_time, settings.micro_batches)
    checkpoints = Checkpoints(distribution.common_folder(Path(folder) / "checkpoints"))
    set_rematerialisation(model, settings.rematerialise)
    batches_of = partial(_batches, store.train, settings)
    first_batches = batches_of(epoch=0)
    model.compile(
        optimizer=settings.make_optimizer(first_batches.steps * settings.epochs),
        loss=settings.make_loss(),
        jit_compile=jit_setting(),
    )
    judged = distribution.spread(model)
    state = TrainingState()
    if resume:
        if not checkpoints.exist():
            raise RunError(f"{folder} has no checkpoint to resume from; start without --resume")
        state = checkpoints.restore(model)
    with (
        noted_signals() as stop,
        RunLog(Path(folder), settings.epochs, len(first_batches), state) as log,
    ):
        for epoch in range(state.epoch, settings.epochs):
            if settings.early_stopping and state.epochs_without_gain >= settings.early_stopping:
                log.say(f"no better validation IoU for {settings.early_stopping} epochs: stopped")
                break
            # One call of fit per epoch: its batches come from an object that knows its epoch.
            batches = batches_of(epoch=epoch, share=distribution.share())
            last = LastWeights()
            steps = ResumableEpoch(batches, checkpoints, state, stop)
            loss = steps.fit(model, [StepWatch(batches, log.bar, state.micro_batches), last])
            check = partial(stop.check, f"in the validation after epoch {epoch + 1}")
            try:
                if settings.weight_average is not None:
                    # On JAX a weight now shares a buffer with its average; prediction frees it.
                    model.set_weights([np.copy(weight) for weight in model.get_weights()])
                    _settle_statistics(model, batches_of(epoch=epoch), check)
                validated = validate(judged, store.validation, settings, check)
            except Interrupted:
                last.restore()
                steps.save()
                raise
            if not math.isfinite(validated["validation_loss"]):
                # NaN counts as void, so this epoch would be the best of all.
                raise TrainingError(
                    f"the validation loss is {validated['validation_loss']} after epoch "
                    f"{epoch + 1}; lower the learning rate"
                )
            rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
            state.finish_epoch(
                {"epoch": epoch + 1, "learning_rate": rate, "loss": loss, **validated}
            )
            checkpoints.save_best(model, state)
            last.restore()
            checkpoints.save(model, state)
            log.record(state)
            stop.check(f"after epoch {epoch + 1} of {settings.epochs}")
    distribution.wait_for_all("trained")
    checkpoints.load_best(model)
    return state


def set_rematerialisation(model: keras.Model, wanted: str | None) -> None:
    """Set ``rematerialise`` of the dense atrous blocks; TrainingError if none can take it."""
    blocks = [layer for layer in model.layers if isinstance(layer, DenseAtrousBlock)]
    if wanted and not blocks:
        raise TrainingError(
            f"rematerialise is for networks of dense atrous blocks, such as JointNet; a "
            f"{type(model).__name__} has none"
        )
    for block in blocks:
        block.rematerialise = wanted


def _settle_statistics(
    model: keras.Model, batches: TrainingBatches, before_batch: Callable[[], None] = lambda: None
) -> None:
    """Give batch normalisations the statistics of the averaged weights."""
    momentum = max((layer.momentum for layer in _batch_normalisations(model)), default=None)
    if momentum is not None:
        # So many steps leave a twentieth of the old statistics.
        for index in range(math.ceil(math.log(0.05) / math.log(momentum))):
            before_batch()
            model(batches[index % len(batches)][0], training=True)


def _batch_normalisations(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _batch_normalisations(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def _batches(
    patches: PatchSet, settings: TrainingSettings, epoch: int, share: tuple[int, int] = (0, 1)
) -> TrainingBatches:
    return TrainingBatches(
        patches,
        epoch=epoch,
        seed=settings.seed,
        batch_size=settings.batch_size,
        crop_size=settings.crop_size,
        augmentation=settings.augmentation,
        steps=settings.steps_per_epoch,
        target_weight=settings.target_weight,
        source_shares=settings.source_shares,
        micro_batch_size=settings.micro_batch_size,
        share=share,
        workers=loading_threads(),
    )


def loading_threads() -> int:
    """Return how many threads make batches: half of the cores, at least 1 and at most 8."""
    return min(max(1, (os.cpu_count() or 1) // 2), 8)
