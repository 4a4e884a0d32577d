"""Training a network from a patch store, on any Keras backend, without reading rasters."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from jointnet.batches import TrainingBatches
from jointnet.checkpoints import Checkpoints, TrainingState
from jointnet.event_log import EventLog
from jointnet.metrics import Counts, count, threshold_mask
from jointnet.runs import jit_setting, write_csv
from jointnet.settings import TrainingSettings
from layers import DenseAtrousBlock
from preprocessing.errors import RunError, TrainingError
from preprocessing.patch_store import PatchSet, PatchStore


class StepWatch(keras.callbacks.Callback):
    """Advances the progress bar, and stops a run whose loss or weights are no numbers.

    Args:
        batches: the epoch's batches, to name the one that failed.
        bar: progress bar over the steps of the whole run, whose time left is the run's.
    """

    def __init__(self, batches: TrainingBatches, bar: tqdm):
        super().__init__()
        self.batches = batches
        self.bar = bar

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Check the running mean of the loss, which no later batch can make finite again.

        And the weights: TensorFlow's ReLU on a CPU makes 0 of NaN, so that a network of such
        weights has a loss like any other.
        """
        loss = float((logs or {}).get("loss", 0.0))
        weights = [keras.ops.sum(weight) for weight in self.model.trainable_variables]
        finite = math.isfinite(float(keras.ops.sum(keras.ops.stack(weights))))
        if not (finite and math.isfinite(loss)):
            names = ", ".join(self.batches.names(batch))
            raise TrainingError(
                f"the loss is {loss} and the weights are {'' if finite else 'not '}finite at epoch "
                f"{self.batches.epoch + 1}, step {batch + 1}, in the batch of {names}; look at "
                "these patches, or lower the learning rate"
            )
        self.bar.set_postfix_str(f"epoch {self.batches.epoch + 1} loss {loss:.4f}", refresh=False)
        self.bar.update()


class LastWeights(keras.callbacks.Callback):
    """Remembers the weights that the last step left.

    Where the optimizer averages the weights, ``fit`` ends by putting the average in their place;
    the next epoch goes on from the weights themselves.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Copy the weights."""
        self.weights = [np.copy(weight) for weight in self.model.get_weights()]

    def restore(self) -> None:
        """Put them back."""
        self.model.set_weights(self.weights)


def train(
    model: keras.Model,
    store: PatchStore,
    settings: TrainingSettings,
    folder: Path,
    resume: bool = False,
) -> TrainingState:
    """Train a network, validate after each epoch, and leave it with the best epoch's weights.

    Writes ``history.csv``, ``checkpoints/`` and, where tensorboard is importable, ``events/``
    into the run folder.

    Args:
        model: a network from raw pixels to probabilities, built under ``settings.precision``.
        store: an open patch store.
        settings: how to train.
        folder: the run folder.
        resume: go on from the last finished epoch in ``folder``, with the weights that an
            uninterrupted run would have.

    Returns:
        The state after the last epoch, with the history.

    Raises:
        RunError: ``resume`` without checkpoints, or checkpoints that do not fit.
        TrainingError: the loss or the weights are not finite; the message names epoch, step and
            patches. The checkpoints stay those of the epoch before. Or the network has no
            block that could be rematerialised, and shall.
        OutputError: a file cannot be written.
    """
    checkpoints = Checkpoints(Path(folder) / "checkpoints")
    _set_rematerialisation(model, settings.rematerialise)
    first_batches = _batches(store.train, settings, epoch=0)
    steps = len(first_batches)
    model.compile(
        optimizer=settings.make_optimizer(first_batches.steps * settings.epochs),
        loss=settings.make_loss(),
        jit_compile=jit_setting(),
    )
    state = TrainingState()
    if resume:
        if not checkpoints.exist():
            raise RunError(f"{folder} has no checkpoint to resume from; start without --resume")
        state = checkpoints.restore(model)
        # A run that was killed between the two has its last epoch in the checkpoint only.
        write_csv(Path(folder) / "history.csv", state.history)
    log = EventLog(Path(folder) / "events")
    first, started = state.epoch, time.monotonic()
    # The bar is for terminals; in a log file the line per epoch says the same.
    with tqdm(
        total=steps * settings.epochs, initial=steps * first, unit="step", disable=None
    ) as bar:
        for epoch in range(first, settings.epochs):
            if settings.early_stopping and state.epochs_without_gain >= settings.early_stopping:
                bar.write(f"no better validation IoU for {settings.early_stopping} epochs: stopped")
                break
            batches = _batches(store.train, settings, epoch)
            # One call of fit per epoch: its batches come from an object that knows its epoch.
            # Keras would shuffle the batches, from a state that no checkpoint holds.
            watch = StepWatch(batches, bar)
            last = LastWeights()
            fitted = model.fit(batches, shuffle=False, verbose=0, callbacks=[watch, last])
            if settings.weight_average is not None:
                # On JAX a weight and its average share one buffer now, which prediction frees.
                model.set_weights([np.copy(weight) for weight in model.get_weights()])
                _settle_statistics(model, batches)
            record = {
                "epoch": epoch + 1,
                "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
                "loss": float(fitted.history["loss"][-1]),
                **validate(model, store.validation, settings),
            }
            if not math.isfinite(record["validation_loss"]):
                # Its pixels would count as void, and the epoch as the best of all.
                raise TrainingError(
                    f"the validation loss is {record['validation_loss']} after epoch {epoch + 1}; "
                    "lower the learning rate"
                )
            state.history.append(record)
            checkpoints.save_best(model, state)
            last.restore()
            checkpoints.save(model, state)
            write_csv(Path(folder) / "history.csv", state.history)
            log.write(epoch + 1, record)
            per_epoch = (time.monotonic() - started) / (state.epoch - first)
            bar.write(_report(record, settings.epochs, per_epoch))
    checkpoints.load_best(model)
    return state


def _set_rematerialisation(model: keras.Model, wanted: bool) -> None:
    blocks = [layer for layer in model.layers if isinstance(layer, DenseAtrousBlock)]
    if wanted and not blocks:
        raise TrainingError(
            f"rematerialise is for networks of dense atrous blocks, such as JointNet; a "
            f"{type(model).__name__} has none"
        )
    for block in blocks:
        block.rematerialise = wanted


def validate(model: keras.Model, patches: PatchSet, settings: TrainingSettings) -> dict[str, float]:
    """Loss and pooled pixel metrics over the validation patches.

    Args:
        model: a compiled network.
        patches: validation patches; void pixels count in nothing.
        settings: batch size and threshold.

    Returns:
        ``validation_loss`` (mean over patches with valid pixels), and ``validation_iou``,
        ``_f1``, ``_precision``, ``_recall``, ``_accuracy`` at the threshold, from counts added
        over all patches.
    """
    loss_of = settings.make_loss()
    counts, losses = Counts(), []
    size = settings.batch_size // settings.parts
    for first in range(0, len(patches), size):
        images = np.asarray(patches.images[first : first + size])
        masks = np.asarray(patches.masks[first : first + size])
        missing = size - len(images)
        # The last batch is filled up so that the network is compiled for one shape.
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        probabilities = np.asarray(model.predict_on_batch(filled))[: len(images)]
        counts += count(masks, threshold_mask(probabilities[..., 0], settings.threshold))
        per_sample = loss_of.call(masks[..., None], probabilities)
        has_valid = (masks != 255).any(axis=(1, 2))
        losses.extend(keras.ops.convert_to_numpy(per_sample)[has_valid].tolist())
    metrics = {f"validation_{name}": value for name, value in counts.metrics().items()}
    return {"validation_loss": float(np.mean(losses)) if losses else 0.0, **metrics}


def _settle_statistics(model: keras.Model, batches: TrainingBatches) -> None:
    """Let batch normalisations replace the statistics of other weights than the averaged ones."""
    momentum = max((layer.momentum for layer in _batch_normalisations(model)), default=None)
    if momentum is not None:
        # As many as leave one part in twenty of the old.
        for index in range(math.ceil(math.log(0.05) / math.log(momentum))):
            model(batches[index % len(batches)][0], training=True)


def _batch_normalisations(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _batch_normalisations(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def _batches(patches: PatchSet, settings: TrainingSettings, epoch: int) -> TrainingBatches:
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
    )


def _report(record: dict, epochs: int, seconds_per_epoch: float) -> str:
    """One line on an epoch, with the time that is left."""
    shown = ("loss", "validation_loss", "validation_iou", "validation_f1")
    values = "  ".join(f"{name} {record[name]:.3f}" for name in shown)
    left = (epochs - record["epoch"]) * seconds_per_epoch / 60
    return f"epoch {record['epoch']}/{epochs}  {values}  {left:.0f} min left"
