"""The dense atrous block of JointNet, and its dilated convolution."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from layers.group_normalization import GroupNormalization


@keras.saving.register_keras_serializable(package="jointnet")
class Conv2D(keras.layers.Conv2D):
    """``keras.layers.Conv2D``, faster on TensorFlow if it is dilated, and equal but for rounding.

    On TensorFlow, Keras rearranges the pixels into a batch of small images, convolves, and
    rearranges them back. Here it is one operation, and so is the gradient of the input, the
    convolution with the kernel turned by 180 degrees (Dumoulin and Visin 2016, arXiv:1603.07285,
    section 4.2). The kernel's gradient stays Keras' own: as one operation it is slower in
    float32, and crashes TensorFlow 2.21 in bfloat16.

    Other backends, strides, paddings, groups, data formats and even kernels use the base class.
    Do not rename the class: weights files name the layers of a list by class.
    """

    def convolution_op(
        self, inputs: keras.KerasTensor, kernel: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Convolve, without bias and activation."""
        covered = (
            keras.backend.backend() == "tensorflow"
            and max(self.dilation_rate) > 1
            and (self.padding, self.data_format) == ("same", "channels_last")
            and self.strides == (1, 1)
            and self.groups == 1
            and all(side % 2 for side in self.kernel_size)
        )
        if not covered:
            return super().convolution_op(inputs, kernel)
        convolve = keras.ops.custom_gradient(self._with_gradient)
        return convolve(inputs, keras.ops.cast(kernel, inputs.dtype))

    def _with_gradient(
        self, inputs: keras.KerasTensor, kernel: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, Callable]:
        """Return the convolution and its gradient function."""
        import tensorflow as tf

        def convolve(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
            return tf.nn.conv2d(x, weights, 1, "SAME", dilations=self.dilation_rate)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            turned = keras.ops.swapaxes(keras.ops.flip(kernel, axis=(0, 1)), 2, 3)
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                outputs = super(Conv2D, self).convolution_op(inputs, kernel)
            return convolve(upstream, turned), tape.gradient(outputs, kernel, upstream)

        return convolve(inputs, kernel), gradient


DILATION_RATES = (1, 2, 5, 1, 2, 5)
REMATERIALISATIONS = (None, "concatenations", "blocks")


@keras.saving.register_keras_serializable(package="jointnet")
class DenseAtrousBlock(keras.layers.Layer):
    """Dense 3x3 atrous convolutions, fused by one 1x1 convolution.

    Each 3x3 convolution reads the concatenation of the block's input and all earlier outputs;
    ReLU and group normalisation follow. The dilation rates 1, 2, 5 (twice) widen the field of
    view without the holes that equal rates would leave. A 1x1 convolution with ReLU fuses the
    concatenation of everything.

    Args:
        growth_rate: channels of each 3x3 convolution (k).
        groups: groups of the normalisations; must divide ``growth_rate``.
        dilation_rates: one for each 3x3 convolution.
        epsilon: of the normalisations.
        filters: channels of the fused output; None for ``4 * growth_rate``.
        rematerialise: what training computes again for the gradients, to save memory at the cost
            of time; results stay the same. ``"concatenations"``: what the convolutions read,
            which grows with the square of their number (Pleiss et al. 2017, "Memory-Efficient
            Implementation of DenseNets", arXiv:1707.06990). ``"blocks"``: everything but the
            block's input (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost",
            arXiv:1604.06174).

    Input shape:
        ``(batch, height, width, channels)``, floating point; free height and width.

    Output shape:
        ``(batch, height, width, filters)``, 0 or more.

    Raises:
        ValueError: ``growth_rate`` is not positive or no multiple of ``groups``,
            ``dilation_rates`` is empty or holds values below 1, or ``rematerialise`` is unknown.
    """

    def __init__(
        self,
        growth_rate: int,
        groups: int = 8,
        dilation_rates: Sequence[int] = DILATION_RATES,
        epsilon: float = 0.1,
        filters: int | None = None,
        rematerialise: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if growth_rate < 1 or (groups > 0 and growth_rate % groups):
            raise ValueError(
                f"growth_rate must be a positive multiple of groups={groups}; got {growth_rate}"
            )
        if not dilation_rates or min(dilation_rates) < 1:
            raise ValueError(f"dilation_rates must be positive integers; got {dilation_rates}")
        if rematerialise not in REMATERIALISATIONS:
            raise ValueError(
                f"rematerialise must be one of {REMATERIALISATIONS}; got {rematerialise!r}"
            )
        self.growth_rate = growth_rate
        self.groups = groups
        self.dilation_rates = tuple(dilation_rates)
        self.epsilon = epsilon
        self.filters = filters
        self.rematerialise = rematerialise
        self.convolutions = [
            Conv2D(
                growth_rate,
                3,
                padding="same",
                dilation_rate=rate,
                activation="relu",
                dtype=self.dtype_policy,
                name=f"convolution_{i}",
            )
            for i, rate in enumerate(self.dilation_rates, start=1)
        ]
        self.normalizations = [
            GroupNormalization(groups, epsilon, dtype=self.dtype_policy, name=f"normalization_{i}")
            for i in range(1, len(self.dilation_rates) + 1)
        ]
        self.fusion = keras.layers.Conv2D(
            self._fused_filters, 1, activation="relu", dtype=self.dtype_policy, name="fusion"
        )

    @property
    def _fused_filters(self) -> int:
        return 4 * self.growth_rate if self.filters is None else self.filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build each convolution for the channels that reach it."""
        *rest, channels = input_shape
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            convolution.build((*rest, channels))
            normalization.build((*rest, self.growth_rate))
            channels += self.growth_rate
        self.fusion.build((*rest, channels))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return the block's fused output."""
        if self.rematerialise is None:
            return self._fused(inputs)
        if self.rematerialise == "concatenations":
            return self._fused_from_list(inputs)
        return keras.remat(self._fused_from_list)(inputs)

    def _fused(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        x = inputs
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            x = keras.ops.concatenate([x, normalization(convolution(x))], axis=-1)
        return self.fusion(x)

    def _fused_from_list(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Do the same without holding the concatenations."""
        tensors = [inputs]
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            *tensors, y = _convolve_list(convolution, tensors)
            tensors.append(normalization(y))
        return _convolve_list(self.fusion, tensors)[-1]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape with the fused channels."""
        return (*input_shape[:-1], self._fused_filters)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("growth_rate", "groups", "dilation_rates", "epsilon", "filters", "rematerialise")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _convolve_list(
    convolution: keras.layers.Conv2D, tensors: list[keras.KerasTensor]
) -> list[keras.KerasTensor]:
    """Return the tensors, and the convolution of their concatenation, which is not held."""
    # The tensors pass through, so that their gradients are added up as they come, and not held.

    def linear(kernel: keras.KerasTensor, *tensors: keras.KerasTensor) -> list[keras.KerasTensor]:
        together = keras.ops.concatenate(tensors, axis=-1)
        return [*tensors, convolution.convolution_op(together, kernel)]

    kernel, bias = (keras.ops.cast(w, tensors[0].dtype) for w in convolution.weights)
    *tensors, y = keras.remat(linear)(kernel, *tensors)
    return [*tensors, convolution.activation(y + bias)]
