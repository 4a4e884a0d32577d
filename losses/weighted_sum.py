"""A weighted sum of losses."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="jointnet")
class WeightedSumLoss(keras.losses.Loss):
    """Add up ``weight * loss`` of losses whose ``call`` returns one value per sample.

    Raises:
        ValueError: there is no loss, or there are not as many weights as losses.
    """

    def __init__(
        self,
        losses: Sequence[keras.losses.Loss],
        weights: Sequence[float],
        name: str = "weighted_sum_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if not losses or len(losses) != len(weights):
            raise ValueError(
                f"one weight per loss is needed; got {len(losses)} losses and "
                f"{len(weights)} weights"
            )
        self.losses = list(losses)
        self.weights = [float(weight) for weight in weights]

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss per sample, ``(batch,)`` float32."""
        return sum(
            weight * loss.call(y_true, y_pred)
            for weight, loss in zip(self.weights, self.losses, strict=True)
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the losses serialised."""
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        return {**super().get_config(), "losses": losses, "weights": self.weights}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WeightedSumLoss":
        """Build the loss from what ``get_config`` returned."""
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(**{**config, "losses": losses})
