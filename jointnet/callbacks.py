"""What watches the steps of a training."""

import math

import keras
import numpy as np
from tqdm import tqdm

from jointnet.backends import compiled
from jointnet.batches import TrainingBatches
from preprocessing.errors import TrainingError


class StepWatch(keras.callbacks.Callback):
    """Advances the progress bar, and stops a run whose loss or weights are no numbers.

    Args:
        batches: the epoch's batches, to name the one that failed.
        bar: progress bar over the steps of the whole run, whose time left is the run's.
        done: how many of the epoch's steps were done before, and are not among those watched.
    """

    def __init__(self, batches: TrainingBatches, bar: tqdm, done: int = 0):
        super().__init__()
        self.batches = batches
        self.bar = bar
        self.done = done
        # One call for all: a GPU would wait for one call for each weight.
        self._sum = compiled(_sum)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Check the running mean of the loss, which no later batch can make finite again.

        And the weights: TensorFlow's ReLU on a CPU makes 0 of NaN, so that a network of such
        weights has a loss like any other.
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


def _sum(arrays: list[keras.KerasTensor]) -> keras.KerasTensor:
    return keras.ops.sum(keras.ops.stack([keras.ops.sum(array) for array in arrays]))
