"""Scale raw pixels, band by band, inside the network."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="jointnet")
class BandScaling(keras.layers.Layer):
    """Compute ``(pixels - offset) / scale`` with one offset and one scale per band.

    Limits clip the pixels first: a few saturated or damaged pixels of 16-bit or float imagery
    would otherwise spoil the statistics of a whole window.

    ``keras.layers.Rescaling`` does the same, but fails on the JAX backend if TensorFlow cannot be
    imported, and multiplies by rounded inverses.

    Args:
        offset: one number per band.
        scale: one number per band, none of them 0.
        limits: (low, high) of each band, or None.

    Input shape:
        ``(batch, height, width, bands)``, any numeric dtype.

    Output shape:
        The same, in the layer's compute dtype.

    Raises:
        ValueError: offset, scale and limits differ in length, a scale is 0, or a low limit is
            above its high one.
    """

    def __init__(
        self,
        offset: Sequence[float],
        scale: Sequence[float],
        limits: Sequence[tuple[float, float]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if len(offset) != len(scale):
            raise ValueError(
                f"offset and scale must have one number per band; got {offset} and {scale}"
            )
        if 0 in scale:
            raise ValueError(f"scale must not be 0; got {scale}")
        if limits is not None:
            limits = [[float(limit) for limit in pair] for pair in limits]
            if len(limits) != len(offset):
                raise ValueError(
                    f"limits must have one pair for each of {len(offset)} bands; got {limits}"
                )
            if not all(len(pair) == 2 and pair[0] <= pair[1] for pair in limits):
                raise ValueError(f"limits must be pairs of (low, high); got {limits}")
        self.offset = [float(number) for number in offset]
        self.scale = [float(number) for number in scale]
        self.limits = limits

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return the scaled pixels."""
        pixels = keras.ops.cast(inputs, self.compute_dtype)
        if self.limits is not None:
            limits = keras.ops.convert_to_tensor(self.limits, self.compute_dtype)
            pixels = keras.ops.clip(pixels, limits[:, 0], limits[:, 1])
        offset = keras.ops.convert_to_tensor(self.offset, self.compute_dtype)
        return (pixels - offset) / keras.ops.convert_to_tensor(self.scale, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        arguments = {"offset": self.offset, "scale": self.scale, "limits": self.limits}
        return {**super().get_config(), **arguments}
