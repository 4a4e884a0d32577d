"""Bilinear upsampling by two that works with free height and width in every engine."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="jointnet")
class BilinearUpsampling(keras.layers.Layer):
    """Double height and width bilinearly, pixel centres aligned at half pixels.

    Equal to ``keras.layers.UpSampling2D(2, interpolation="bilinear")``, which fails in graph
    mode where height and width are free (seen in keras 3.14 to 3.15.1). Along an axis, the two
    pixels that replace ``x[i]`` are ``(x[i-1] + 3 x[i]) / 4`` and ``(3 x[i] + x[i+1]) / 4``, with
    the border pixel repeated.

    Input shape:
        ``(batch, height, width, channels)``, floating point.

    Output shape:
        ``(batch, 2 * height, 2 * width, channels)``.
    """

    def call(self, inputs):
        """Upsample ``inputs`` along rows, then along columns."""
        shape = ops.shape(inputs)
        height, width, channels = shape[1], shape[2], inputs.shape[3]
        before = ops.concatenate([inputs[:, :1], inputs[:, :-1]], axis=1)
        after = ops.concatenate([inputs[:, 1:], inputs[:, -1:]], axis=1)
        x = ops.stack([(before + 3 * inputs) / 4, (3 * inputs + after) / 4], axis=2)
        x = ops.reshape(x, (-1, 2 * height, width, channels))
        before = ops.concatenate([x[:, :, :1], x[:, :, :-1]], axis=2)
        after = ops.concatenate([x[:, :, 1:], x[:, :, -1:]], axis=2)
        x = ops.stack([(before + 3 * x) / 4, (3 * x + after) / 4], axis=3)
        return ops.reshape(x, (-1, 2 * height, 2 * width, channels))

    def compute_output_shape(self, input_shape):
        """Height and width doubled where known."""
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else 2 * height,
            None if width is None else 2 * width,
            channels,
        )
