"""BilinearUpsampling against values by hand and Keras' own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import BilinearUpsampling
from tests.gradients import gradient


def random_input(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_values_by_hand():
    x = np.array([[0, 4], [8, 12]], np.float32).reshape(1, 2, 2, 1)
    expected = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    np.testing.assert_array_equal(np.asarray(BilinearUpsampling()(x))[0, :, :, 0], expected)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 5, 3), (2, 6, 1, 1), (2, 7, 4, 5)])
def test_equals_the_layer_of_keras(shape):
    x = random_input(*shape)
    reference = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    np.testing.assert_allclose(BilinearUpsampling()(x), reference, atol=1e-6)


def test_one_pixel_is_repeated():
    x = np.array([[[[5.0, 7.0]]]], np.float32)
    np.testing.assert_array_equal(BilinearUpsampling()(x), np.tile(x, (1, 2, 2, 1)))


@pytest.mark.usefixtures("on_tensorflow")
def test_free_height_and_width_in_graph_mode():
    layer = BilinearUpsampling()
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def graph(x):
        traces.append(x.shape)
        return layer(x)

    for shape in ((1, 3, 5, 3), (2, 4, 2, 3)):
        x = random_input(*shape)
        reference = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
        np.testing.assert_allclose(graph(x), reference, atol=1e-6)
    assert len(traces) == 1


def test_shapes_are_inferred():
    assert BilinearUpsampling()(keras.Input((None, 5, 3))).shape == (None, None, 10, 3)
    x = random_input(2, 3, 4, 5)
    assert BilinearUpsampling().compute_output_shape(x.shape) == BilinearUpsampling()(x).shape


def test_float16_neither_overflows_nor_changes_a_constant():
    x = np.full((1, 3, 3, 2), 60000, np.float16)
    y = np.asarray(BilinearUpsampling(dtype="mixed_float16")(x))
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.full((1, 6, 6, 2), 60000, np.float16))


def test_the_gradient_spreads_each_pixel_over_weights_that_sum_to_four():
    x = random_input(1, 4, 5, 2)
    found = gradient(lambda x: keras.ops.sum(BilinearUpsampling()(x)), x)
    np.testing.assert_allclose(found, np.full(x.shape, 4), atol=1e-6)


def test_configuration_round_trip():
    layer = BilinearUpsampling(name="double", dtype="mixed_bfloat16")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, BilinearUpsampling)
    assert again.get_config() == layer.get_config()
