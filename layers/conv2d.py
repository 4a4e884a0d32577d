"""Dilated convolution as one operation, whichever backend Keras runs on."""

from collections.abc import Callable

import keras


@keras.saving.register_keras_serializable(package="jointnet")
class Conv2D(keras.layers.Conv2D):
    """``keras.layers.Conv2D``, faster on TensorFlow where it is dilated.

    On TensorFlow Keras rearranges the pixels into a batch of small images, convolves, and
    rearranges them back, which also keeps bias and activation from being computed with the
    convolution. Here it is one operation, and so is its gradient by the input, the convolution
    with the kernel turned by 180 degrees (Dumoulin and Visin 2016, arXiv:1603.07285, section
    4.2). Its gradient by the kernel stays as Keras has it: as one operation it is slower in
    float32, and TensorFlow 2.21 ends with a segmentation fault in bfloat16.

    That holds for stride 1, ``"same"`` padding, an odd kernel, one group and channels last;
    everything else, and every other backend, is as in the base class. So are arguments, weights,
    shapes and errors; values are equal but for rounding. The name is that of the base class as
    well, since files of weights name the layers of a list by their class.
    """

    def convolution_op(
        self, inputs: keras.KerasTensor, kernel: keras.KerasTensor
    ) -> keras.KerasTensor:
        """The convolution, without bias and activation."""
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
        """The convolution, and the function from its gradient to those of the arguments."""
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
