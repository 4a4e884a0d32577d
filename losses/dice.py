"""Soft dice loss (Milletari et al. 2016, "V-Net", section 3, with plain sums below)."""

from typing import Any

import keras

from losses.voids import split_void


@keras.saving.register_keras_serializable(package="jointnet")
class DiceLoss(keras.losses.Loss):
    """One minus the soft dice coefficient of each sample.

    ``1 - (2 sum(t p) + smooth) / (sum(t) + sum(p) + smooth)`` over a sample's valid pixels, with
    t the labels and p the probabilities; 0 without valid pixels. The batch's loss is the mean
    over samples. The loss of a sample without target falls to 0 with its probabilities.

    Args:
        smooth: positive, in pixels; defines the loss of samples without target.
        ignore_class: label of void pixels, None where there are none.

    Call arguments:
        y_true: ``(batch, height, width[, 1])`` labels 0, 1 and ``ignore_class``.
        y_pred: ``(batch, height, width, 1)`` probabilities in 0..1 (not logits).

    Raises:
        ValueError: ``smooth`` is not positive.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        ignore_class: int | None = 255,
        name: str = "dice_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if smooth <= 0:
            raise ValueError(f"smooth must be positive; got {smooth}")
        self.smooth = smooth
        self.ignore_class = ignore_class

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss per sample, ``(batch,)`` float32."""
        truth, probability, valid = split_void(y_true, y_pred, self.ignore_class)
        probability = probability * valid
        both = keras.ops.sum(truth * probability, axis=1)
        either = keras.ops.sum(truth, axis=1) + keras.ops.sum(probability, axis=1)
        return 1 - (2 * both + self.smooth) / (either + self.smooth)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "smooth": self.smooth, "ignore_class": self.ignore_class}
