"""Training a network from a patch store, on any Keras backend, without reading rasters."""

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np

from jointnet import distribution
from jointnet.batches import TrainingBatches
from jointnet.callbacks import LastWeights, StepWatch
from jointnet.checkpoints import Checkpoints, TrainingState
from jointnet.device_patches import DevicePatches, refuse_other_changes
from jointnet.interruption import ResumableEpoch, noted_signals
from jointnet.run_log import RunLog
from jointnet.runs import jit_setting
from jointnet.settings import TrainingSettings
from jointnet.validation import validate
from layers import DenseAtrousBlock
from preprocessing.errors import Interrupted, RunError, TrainingError
from preprocessing.patch_store import PatchSet, PatchStore


def train(
    model: keras.Model,
    store: PatchStore,
    settings: TrainingSettings,
    folder: Path,
    resume: bool = False,
) -> TrainingState:
    """Train a network, validate after each epoch, and leave it with the best epoch's weights.

    Writes ``history.csv``, ``checkpoints/`` and, where tensorboard is importable, ``events/``
    into the run folder. A first Ctrl-C, or SIGTERM, ends it after the step it is at, with a
    checkpoint to go on from; there is one every ten minutes as well (``jointnet.interruption``).
    Under ``devices.Devices.scope`` each batch is shared among the devices; of several processes
    the first writes, and all must see the folder.

    Args:
        model: a network from raw pixels to probabilities, built under ``settings.precision``,
            and in the scope in which it trains.
        store: an open patch store.
        settings: how to train.
        folder: the run folder.
        resume: go on from the last checkpoint in ``folder``, with the weights that an
            uninterrupted run would have.

    Returns:
        The state after the last epoch, with the history.

    Raises:
        RunError: ``resume`` without checkpoints, or checkpoints that do not fit.
        TrainingError: the loss or the weights are not finite; the message names epoch, step and
            patches. The checkpoint stays the one before. Or the network has no
            block that could be rematerialised, and shall. Or the patches shall lie on the
            device and do not fit there, or be changed in other ways than there. Or the devices
            cannot share the batches (``distribution.refuse_unfit``).
        OutputError: a file cannot be written.
        Interrupted: a signal came; ``resume`` goes on there.
    """
    distribution.refuse_unfit(model, settings.batch_size // settings.parts, settings.parts)
    checkpoints = Checkpoints(distribution.common_folder(Path(folder) / "checkpoints"))
    set_rematerialisation(model, settings.rematerialise)
    batches_of = partial(
        _batches, store.train, settings, on_device=_device_patches(store.train, settings)
    )
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
            loss = steps.fit(model, [StepWatch(batches, log.bar, state.parts), last])
            check = partial(stop.check, f"in the validation after epoch {epoch + 1}")
            try:
                if settings.weight_average is not None:
                    # On JAX a weight and its average share one buffer now, which prediction frees.
                    model.set_weights([np.copy(weight) for weight in model.get_weights()])
                    _settle_statistics(model, batches_of(epoch=epoch), check)
                validated = validate(judged, store.validation, settings, check)
            except Interrupted:
                last.restore()
                steps.save()
                raise
            if not math.isfinite(validated["validation_loss"]):
                # Its pixels would count as void, and the epoch as the best of all.
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
    """Set what the dense atrous blocks of a network compute twice in training.

    Args:
        model: the network.
        wanted: see ``TrainingSettings.rematerialise``.

    Raises:
        TrainingError: something is wanted, and the network has no such blocks.
    """
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
    """Let batch normalisations replace the statistics of other weights than the averaged ones."""
    momentum = max((layer.momentum for layer in _batch_normalisations(model)), default=None)
    if momentum is not None:
        # As many as leave one part in twenty of the old.
        for index in range(math.ceil(math.log(0.05) / math.log(momentum))):
            before_batch()
            model(batches[index % len(batches)][0], training=True)


def _batch_normalisations(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _batch_normalisations(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def _device_patches(patches: PatchSet, settings: TrainingSettings) -> DevicePatches | None:
    if not settings.store_on_device:
        return None
    refuse_other_changes(settings.augmentation)
    if distribution.replicas() > 1:
        raise TrainingError("--store-on-device is for one device; leave it, or use --devices 1")
    limits = settings.augmentation.limits(patches.images.dtype)
    return DevicePatches(patches, settings.crop_size, limits)


def _batches(
    patches: PatchSet,
    settings: TrainingSettings,
    epoch: int,
    share: tuple[int, int] = (0, 1),
    on_device: DevicePatches | None = None,
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
        on_device=on_device,
        workers=loading_threads(),
    )


def loading_threads() -> int:
    """Threads that make batches: one beside a training that takes all of a few cores."""
    return min(max(1, (os.cpu_count() or 1) // 2), 8)
