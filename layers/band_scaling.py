"""Scaling of raw pixels, band by band, inside the network."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="jointnet")
class BandScaling(keras.layers.Layer):
    """``(pixels - offset) / scale`` with one offset and one scale per band.

    ``keras.layers.Rescaling`` does the same, but on the JAX backend it can fail where TensorFlow
    is not importable, and it multiplies by rounded inverses.

    Args:
        offset: subtracted from each band, one number per band.
        scale: divides each band after that, one number per band, none 0.

    Input shape:
        ``(batch, height, width, bands)``, any numeric dtype.

    Output shape:
        As the input, in the layer's compute dtype.

    Raises:
        ValueError: different numbers of offsets and scales, or a scale of 0.
    """

    def __init__(self, offset: Sequence[float], scale: Sequence[float], **kwargs: Any):
        super().__init__(**kwargs)
        if len(offset) != len(scale):
            raise ValueError(
                f"offset and scale must have one number per band; got {offset} and {scale}"
            )
        if 0 in scale:
            raise ValueError(f"scale must not be 0; got {scale}")
        self.offset = [float(number) for number in offset]
        self.scale = [float(number) for number in scale]

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Scaled pixels."""
        pixels = keras.ops.cast(inputs, self.compute_dtype)
        offset = keras.ops.convert_to_tensor(self.offset, self.compute_dtype)
        return (pixels - offset) / keras.ops.convert_to_tensor(self.scale, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "offset": self.offset, "scale": self.scale}
