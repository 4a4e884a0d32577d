"""Bilinear upsampling by two, for free height and width on every backend."""

import keras


@keras.saving.register_keras_serializable(package="jointnet")
class BilinearUpsampling(keras.layers.Layer):
    """Double height and width bilinearly.

    Equal to ``keras.layers.UpSampling2D(2, interpolation="bilinear")``, which fails in graph
    mode if height and width are free (keras 3.14 to 3.15.1). Along an axis,
    ``(x[i-1] + 3 x[i]) / 4`` and ``(3 x[i] + x[i+1]) / 4`` replace ``x[i]``, with border pixels
    repeated. They are computed as steps from ``x[i]``: float16 does not overflow, and constants
    stay the same.

    Input shape:
        ``(batch, height, width, channels)``, floating point.

    Output shape:
        ``(batch, 2 * height, 2 * width, channels)``.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Upsample ``inputs`` along rows, then along columns."""
        shape = keras.ops.shape(inputs)
        height, width, channels = shape[1], shape[2], inputs.shape[3]
        x = keras.ops.stack(_both_halves(inputs, axis=1), axis=2)
        x = keras.ops.reshape(x, (-1, 2 * height, width, channels))
        x = keras.ops.stack(_both_halves(x, axis=2), axis=3)
        return keras.ops.reshape(x, (-1, 2 * height, 2 * width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape with height and width doubled where they are known."""
        batch, *sides, channels = input_shape
        return (batch, *(None if side is None else 2 * side for side in sides), channels)


def _both_halves(x: keras.KerasTensor, axis: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the two pixels that replace each one along an axis."""
    shape = list(keras.ops.shape(x))

    # By ops.slice: TensorFlow's gradient of x[:, :1] takes five times as long on a CPU.
    def piece(first: int, length: int | keras.KerasTensor) -> keras.KerasTensor:
        start, size = [0] * len(shape), list(shape)
        start[axis], size[axis] = first, length
        return keras.ops.slice(x, start, size)

    rest = shape[axis] - 1
    before = keras.ops.concatenate([piece(0, 1), piece(0, rest)], axis=axis)
    after = keras.ops.concatenate([piece(1, rest), piece(rest, 1)], axis=axis)
    return x + (before - x) / 4, x + (after - x) / 4
