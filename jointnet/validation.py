"""Loss and metrics of a network over validation patches."""

from collections.abc import Callable

import keras
import numpy as np

from jointnet.metrics import Counts, count, threshold_mask
from jointnet.settings import TrainingSettings
from preprocessing.patch_store import PatchSet


def validate(
    model: keras.Model,
    patches: PatchSet,
    settings: TrainingSettings,
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Loss and pooled pixel metrics over the validation patches.

    Args:
        model: a compiled network.
        patches: validation patches; void pixels count in nothing.
        settings: batch size and threshold.
        before_batch: called before each batch; what it raises ends the validation.

    Returns:
        ``validation_loss`` (mean over patches with valid pixels), and ``validation_iou``,
        ``_f1``, ``_precision``, ``_recall``, ``_accuracy`` at the threshold, from counts added
        over all patches.
    """
    loss_of = settings.make_loss()
    counts, losses = Counts(), []
    size = settings.batch_size // settings.parts
    for first in range(0, len(patches), size):
        before_batch()
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
