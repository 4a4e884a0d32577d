"""JointNet of nothing but ``keras.layers``: what this project's layers are measured against."""

import keras

from layers.dense_atrous_block import DILATION_RATES


def plain_jointnet(
    side: int,
    batch: int | None = None,
    growth_rates: tuple[int, int, int] = (32, 64, 128),
    bridge_filters: int = 256,
    dtype: str = "float32",
) -> keras.Model:
    """The function of ``jointnet.JointNet`` with its defaults, for patches of one size.

    Its weights are those of ``JointNet``, convolutions and normalisations each in the same order.
    The size is fixed because bilinear ``keras.layers.UpSampling2D`` takes no free one in
    graph mode.

    Args:
        side: height and width of the input in pixels, a multiple of 8.
        batch: samples, or None for any number.
        growth_rates: growth rate of each encoder block; the first is also the decoder block's.
        bridge_filters: channels of the bridge.
        dtype: dtype policy.

    Returns:
        A network from ``(batch, side, side, 3)`` pixels, 0..255, to ``(batch, side, side, 1)``
        float32 probabilities.
    """
    policy = {"dtype": dtype}

    def convolution(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        return keras.layers.Conv2D(filters, 1, activation="relu", **policy)(x)

    def block(x: keras.KerasTensor, growth_rate: int) -> keras.KerasTensor:
        for rate in DILATION_RATES:
            y = keras.layers.Conv2D(
                growth_rate, 3, padding="same", dilation_rate=rate, activation="relu", **policy
            )(x)
            y = keras.layers.GroupNormalization(8, epsilon=0.1, **policy)(y)
            x = keras.layers.Concatenate(**policy)([x, y])
        return convolution(x, 4 * growth_rate)

    inputs = keras.Input((side, side, 3), batch)
    x = keras.layers.Rescaling(1 / 127.5, -1, dtype="float32")(inputs)
    skips = []
    for growth in growth_rates:
        x = block(x, growth)
        skips.append(x)
        # Every second pixel, as in JointNet: a strided 1x1 convolution's training corrupts memory
        # in TensorFlow on a CPU.
        x = convolution(keras.layers.AveragePooling2D(1, 2, **policy)(x), growth)
    x = convolution(x, bridge_filters)
    for growth, skip in reversed(list(zip(growth_rates, skips, strict=True))):
        x = keras.layers.UpSampling2D(interpolation="bilinear", **policy)(x)
        x = keras.layers.Concatenate(**policy)([x, skip])
        x = block(x, growth) if skip is skips[0] else convolution(x, growth)
    logits = keras.layers.Conv2D(1, 1, **policy)(x)
    return keras.Model(inputs, keras.layers.Activation("sigmoid", dtype="float32")(logits))
