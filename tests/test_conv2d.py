"""layers.Conv2D: the convolution of Keras, its values, gradients and files."""

import keras
import numpy as np
import pytest

from layers import Conv2D
from tests.gradients import gradient


def both(**arguments) -> tuple[Conv2D, keras.layers.Conv2D]:
    """The layer and that of Keras, with the same weights, for five channels."""
    pair = [kind(4, **arguments) for kind in (Conv2D, keras.layers.Conv2D)]
    for layer in pair:
        layer.build((None, None, None, 5))
    pair[0].bias.assign(np.random.default_rng(1).normal(size=4))
    pair[1].set_weights(pair[0].get_weights())
    return tuple(pair)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 13, 17, 5)).astype(np.float32)


def test_one_pixel_is_spread_to_where_the_dilated_kernel_lies():
    layer = Conv2D(1, 3, padding="same", dilation_rate=(2, 3), use_bias=False)
    layer.build((None, None, None, 1))
    layer.set_weights([np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1, 1)])
    image = np.zeros((1, 7, 9, 1), np.float32)
    image[0, 3, 4] = 1
    expected = np.zeros((7, 9))
    # Correlation, as networks have it: the last weight meets the pixel first.
    expected[1::2, 1::3] = [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
    np.testing.assert_array_equal(np.asarray(layer(image))[0, ..., 0], expected)


@pytest.mark.parametrize("rate", [1, 2, 5, (1, 3), 9])
@pytest.mark.parametrize("size", [3, 1, (5, 3)])
def test_values_and_gradients_are_those_of_keras(x, rate, size):
    """Also where the dilated kernel reaches further than the image is wide."""
    ours, plain = both(kernel_size=size, padding="same", dilation_rate=rate, activation="relu")
    np.testing.assert_allclose(ours(x), plain(x), atol=1e-5)
    weight = np.random.default_rng(2).normal(size=(2, 13, 17, 4)).astype(np.float32)

    def by_input(layer):
        return gradient(lambda given: keras.ops.sum(layer(given) * weight), x)

    def by_kernel(layer):
        def value(kernel):
            return keras.ops.sum(layer.convolution_op(keras.ops.convert_to_tensor(x), kernel))

        return gradient(value, plain.get_weights()[0])

    for of in (by_input, by_kernel):
        np.testing.assert_allclose(of(ours), of(plain), atol=1e-4)


def test_the_weights_learn_as_those_of_keras(x):
    """Through ``fit``, where the gradients are taken by variables in a graph."""
    learned = []
    for layer in both(kernel_size=3, padding="same", dilation_rate=2):
        model = keras.Sequential([keras.Input((None, None, 5)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        for _ in range(3):
            model.train_on_batch(x, x[..., :4])
        learned.append(model.get_weights())
    for ours, plain in zip(*learned, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_in_bfloat16_it_is_computed_in_bfloat16(x):
    ours, plain = both(
        kernel_size=3, padding="same", dilation_rate=5, activation="relu", dtype="mixed_bfloat16"
    )
    assert keras.backend.standardize_dtype(ours(x).dtype) == "bfloat16"
    given = [keras.ops.convert_to_numpy(keras.ops.cast(of(x), "float32")) for of in (ours, plain)]
    np.testing.assert_allclose(*given, atol=0.02)


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": "valid", "dilation_rate": 2},
        {"padding": "same", "dilation_rate": 2, "kernel_size": 4},
        {"padding": "same", "strides": 2},
    ],
)
def test_everything_else_is_as_in_the_base_class(x, arguments):
    ours, plain = both(**({"kernel_size": 3} | arguments))
    np.testing.assert_allclose(ours(x), plain(x), atol=1e-5)


def test_files_of_weights_are_those_of_keras(tmp_path):
    ours, plain = (
        keras.Sequential([keras.Input((None, None, 5)), layer])
        for layer in both(kernel_size=3, padding="same", dilation_rate=2)
    )
    ours.save_weights(tmp_path / "ours.weights.h5")
    plain.set_weights([0 * weight for weight in plain.get_weights()])
    plain.load_weights(tmp_path / "ours.weights.h5")
    for loaded, saved in zip(plain.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, saved)


def test_it_comes_back_from_a_file_of_keras(tmp_path, x):
    ours, _ = both(kernel_size=3, padding="same", dilation_rate=2)
    model = keras.Sequential([keras.Input((None, None, 5)), ours])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is Conv2D
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.usefixtures("on_tensorflow")
def test_on_tensorflow_it_is_one_operation(x):
    import tensorflow as tf

    names = []
    for layer in both(kernel_size=3, padding="same", dilation_rate=2):
        graph = tf.function(layer).get_concrete_function(tf.constant(x)).graph
        names.append([operation.type for operation in graph.get_operations()])
    ours, plain = names
    assert "Conv2D" in ours and "SpaceToBatchND" not in ours
    # What it is faster than; without this the layer has no purpose.
    assert "SpaceToBatchND" in plain
