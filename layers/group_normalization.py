"""Group normalisation (Wu and He 2018, "Group Normalization", arXiv:1803.08494, equations 1-7)."""

import math
from collections.abc import Callable
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="jointnet")
class GroupNormalization(keras.layers.Layer):
    """Normalise each sample over space and over groups of channels, channels last.

    Each group of adjacent channels is brought to mean 0 and variance 1, sample by sample; a
    learned scale (``gamma``) and offset (``beta``) per channel follow. Samples do not depend on
    each other, so training and inference are the same function. One group is layer normalisation
    over space and channels; one group per channel is instance normalisation.

    Statistics are float32 under every dtype policy, and the variance is the mean of squared
    deviations, not a difference of large squares: float16 inputs of large magnitude and small
    spread do not overflow, and keep their precision.

    The gradient is written out, and needs only the input, which the ReLU before the layer holds
    anyway, and statistics per channel. Automatic differentiation would also hold a float32 copy
    of the input, and take twice as long.

    Args:
        groups: number of groups; must divide the channels. ``-1`` is one group per channel.
        epsilon: added to the variance.

    Input shape:
        ``(batch, ..., channels)``, floating point; free spatial sizes.

    Output shape:
        The same, in the layer's compute dtype.

    Raises:
        ValueError: ``groups`` is neither positive nor -1, ``epsilon`` is not positive, or the
            channels are unknown or not a multiple of ``groups``.
    """

    def __init__(self, groups: int = 32, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        if groups < 1 and groups != -1:
            raise ValueError(f"groups must be positive, or -1 for one per channel; got {groups}")
        if epsilon <= 0:
            raise ValueError(f"epsilon must be positive; got {epsilon}")
        self.groups = groups
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``gamma`` and ``beta``, one float32 value per channel."""
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"the number of channels must be known; got shape {input_shape}")
        groups = channels if self.groups == -1 else self.groups
        if channels % groups:
            raise ValueError(
                f"groups={self.groups} does not divide {channels} channels; "
                f"a divisor of {channels} would work"
            )
        self._group_count = groups
        self.gamma = self.add_weight(
            name="gamma", shape=(channels,), initializer="ones", autocast=False
        )
        self.beta = self.add_weight(
            name="beta", shape=(channels,), initializer="zeros", autocast=False
        )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return the normalised inputs."""
        gamma, beta = (keras.ops.cast(w, "float32") for w in (self.gamma, self.beta))
        return keras.ops.custom_gradient(self._with_gradient)(inputs, gamma, beta)

    def _with_gradient(
        self, inputs: keras.KerasTensor, gamma: keras.KerasTensor, beta: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, Callable]:
        """Return the normalised input and its gradient function."""
        x = keras.ops.cast(inputs, "float32")
        # Moments of channels first, from which those of groups follow exactly: this walks memory
        # in order, and is two to three times as fast as taking a group's channels at once.
        mean = _mean_over_space(x)
        centred = x - mean
        variance = _mean_over_space(keras.ops.square(centred))
        group_mean = self._mean_over_group(mean)
        shift = mean - group_mean
        group_variance = self._mean_over_group(variance + keras.ops.square(shift))
        root = keras.ops.rsqrt(group_variance + self.epsilon)
        scale = gamma * root

        def gradient(
            *arguments: keras.KerasTensor, upstream: keras.KerasTensor | None = None
        ) -> tuple[keras.KerasTensor, ...]:
            # Torch passes the arguments of the forward pass, and the gradient by name.
            if upstream is None:
                (upstream,) = arguments
            # As in batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167, section 3),
            # with a group for the batch: if y is the normalised input before gamma and beta,
            # dx = root * (gamma g - mean(gamma g) - y mean(gamma g y)).
            g = keras.ops.cast(upstream, "float32")
            g_mean = _mean_over_space(g)
            # TensorFlow would compute this during the forward pass, and hold it in float32. The
            # zero makes it wait for the gradient.
            held = inputs + keras.ops.cast(0 * g_mean, inputs.dtype)
            centred = keras.ops.cast(held, "float32") - group_mean
            gy_mean = root * _mean_over_space(g * centred)
            slope = self._mean_over_group(gamma * gy_mean) * keras.ops.square(root)
            constant = self._mean_over_group(gamma * g_mean) * root
            dx = g * scale - centred * slope - constant
            *spatial, _ = keras.ops.shape(inputs)[1:]
            positions = math.prod(keras.ops.cast(length, "float32") for length in spatial)
            but_channels = tuple(range(len(inputs.shape) - 1))
            return (
                keras.ops.cast(dx, inputs.dtype),
                keras.ops.sum(gy_mean, axis=but_channels) * positions,
                keras.ops.sum(g_mean, axis=but_channels) * positions,
            )

        offset = shift * scale + beta
        return keras.ops.cast(centred * scale + offset, self.compute_dtype), gradient

    def _mean_over_group(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Replace each channel of ``(batch, 1, ..., channels)`` by its group's mean."""
        *rest, channels = x.shape
        by_group = (-1, *rest[1:], self._group_count, channels // self._group_count)
        grouped = keras.ops.reshape(x, by_group)
        # Added to zeros rather than repeated, which is many operations on TensorFlow.
        means = keras.ops.mean(grouped, axis=-1, keepdims=True) + keras.ops.zeros_like(grouped)
        return keras.ops.reshape(means, (-1, *rest[1:], channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


def _mean_over_space(x: keras.KerasTensor) -> keras.KerasTensor:
    # One axis at a time: TensorFlow's single float32 sum over several axes is off by half of the
    # spread of values near 60,000 in a window of 256 x 256.
    for axis in range(len(x.shape) - 2, 0, -1):
        x = keras.ops.mean(x, axis=axis, keepdims=True)
    return x
