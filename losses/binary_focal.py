"""Binary focal loss (Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5)."""

from typing import Any

import keras

from losses.voids import split_void


@keras.saving.register_keras_serializable(package="jointnet")
class BinaryFocalLoss(keras.losses.Loss):
    """Cross-entropy that gives little weight to pixels that are predicted well.

    With p the probability of the target class, ``-alpha (1 - p)^gamma log(p)`` on target pixels
    and ``-(1 - alpha) p^gamma log(1 - p)`` on background. A sample's loss is the mean over its
    valid pixels (0 if it has none); the batch's is the mean over samples, so splitting a batch
    over devices does not change it.

    ``gamma=0`` is cross-entropy weighted by ``alpha``; with ``alpha=0.5`` it is half of the plain
    cross-entropy.

    Args:
        gamma: focusing exponent, 0 or more; the paper of JointNet has 2.
        alpha: weight of the target class, 0..1; background has ``1 - alpha``. JointNet has 0.25.
        ignore_class: label of void pixels, None where there are none.

    Call arguments:
        y_true: ``(batch, height, width[, 1])`` labels 0, 1 and ``ignore_class``.
        y_pred: ``(batch, height, width, 1)`` probabilities in 0..1 (not logits).

    Raises:
        ValueError: ``gamma`` is negative or ``alpha`` outside 0..1.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float = 0.25,
        ignore_class: int | None = 255,
        name: str = "binary_focal_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more; got {gamma}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in 0..1; got {alpha}")
        self.gamma = gamma
        self.alpha = alpha
        self.ignore_class = ignore_class

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss per sample, ``(batch,)`` float32."""
        truth, probability, valid = split_void(y_true, y_pred, self.ignore_class)
        # Keeps the logarithm and its gradient finite at probabilities of exactly 0 and 1.
        probability = keras.ops.clip(probability, 1e-7, 1 - 1e-7)
        target = self.alpha * _power(1 - probability, self.gamma) * -keras.ops.log(probability)
        background = (
            (1 - self.alpha) * _power(probability, self.gamma) * -keras.ops.log(1 - probability)
        )
        pixels = valid * (truth * target + (1 - truth) * background)
        return keras.ops.sum(pixels, axis=1) / keras.ops.maximum(keras.ops.sum(valid, axis=1), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        arguments = {"gamma": self.gamma, "alpha": self.alpha, "ignore_class": self.ignore_class}
        return {**super().get_config(), **arguments}


def _power(base: keras.KerasTensor, exponent: float) -> keras.KerasTensor:
    # The general power is ten times slower than a square, and its gradient is 0 * inf at 0.
    if exponent == 0:
        return keras.ops.ones_like(base)
    if exponent == 2:
        return keras.ops.square(base)
    return keras.ops.power(base, exponent)
