"""Bilinear upsampling by two that works with free height and width in every engine."""

import keras


@keras.saving.register_keras_serializable(package="jointnet")
class BilinearUpsampling(keras.layers.Layer):
    """Double height and width bilinearly, pixel centres aligned at half pixels.

    Equal to ``keras.layers.UpSampling2D(2, interpolation="bilinear")``, which fails in graph
    mode where height and width are free (seen in keras 3.14 to 3.15.1). Along an axis, the two
    pixels that replace ``x[i]`` are ``(x[i-1] + 3 x[i]) / 4`` and ``(3 x[i] + x[i+1]) / 4``, with
    the border pixel repeated. Written as steps from ``x[i]``, so that neither float16 overflows
    nor a constant changes.

    Input shape:
        ``(batch, height, width, channels)``, floating point.

    Output shape:
        ``(batch, 2 * height, 2 * width, channels)``.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Upsample ``inputs`` along rows, then along columns."""
        shape = keras.ops.shape(inputs)
        height, width, channels = shape[1], shape[2], inputs.shape[3]
        before = keras.ops.concatenate([inputs[:, :1], inputs[:, :-1]], axis=1)
        after = keras.ops.concatenate([inputs[:, 1:], inputs[:, -1:]], axis=1)
        x = keras.ops.stack([inputs + (before - inputs) / 4, inputs + (after - inputs) / 4], axis=2)
        x = keras.ops.reshape(x, (-1, 2 * height, width, channels))
        before = keras.ops.concatenate([x[:, :, :1], x[:, :, :-1]], axis=2)
        after = keras.ops.concatenate([x[:, :, 1:], x[:, :, -1:]], axis=2)
        x = keras.ops.stack([x + (before - x) / 4, x + (after - x) / 4], axis=3)
        return keras.ops.reshape(x, (-1, 2 * height, 2 * width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Height and width doubled where known."""
        batch, height, width, channels = input_shape
        return (
            batch,
            None if height is None else 2 * height,
            None if width is None else 2 * width,
            channels,
        )
