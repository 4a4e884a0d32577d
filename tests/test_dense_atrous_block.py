"""DenseAtrousBlock: its wiring, field of view, size and memory, and its dilated convolution."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import DenseAtrousBlock, GroupNormalization
from layers.dense_atrous_block import Conv2D
from tests.gradients import gradient


def random_input(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_equals_the_block_written_out_with_layers_of_keras():
    keras.utils.set_random_seed(0)
    x = random_input(2, 9, 11, 3)
    block = DenseAtrousBlock(4, groups=2)
    actual = block(x)
    *layers_of_block, fusion_kernel, fusion_bias = block.get_weights()
    kernels, biases = layers_of_block[0:12:2], layers_of_block[1:12:2]
    features = x
    for kernel, bias, dilation in zip(kernels, biases, (1, 2, 5, 1, 2, 5), strict=True):
        y = keras.ops.conv(features, kernel, padding="same", dilation_rate=dilation) + bias
        y = keras.layers.GroupNormalization(2, epsilon=0.1)(keras.ops.relu(y))
        features = keras.ops.concatenate([features, y], axis=-1)
    fused = keras.ops.relu(keras.ops.conv(features, fusion_kernel) + fusion_bias)
    np.testing.assert_allclose(actual, fused, atol=1e-4)


def test_each_convolution_reads_the_input_and_all_earlier_outputs():
    block = DenseAtrousBlock(8)
    block.build((None, None, None, 3))
    read = [convolution.kernel.shape[2] for convolution in block.convolutions]
    assert read == [3, 11, 19, 27, 35, 43]
    assert [convolution.dilation_rate for convolution in block.convolutions] == [
        (rate, rate) for rate in (1, 2, 5, 1, 2, 5)
    ]
    assert block.fusion.kernel.shape == (1, 1, 51, 32)


@pytest.mark.parametrize(("channels", "growth"), [(3, 8), (5, 32), (128, 64)])
def test_parameter_count_by_formula(channels, growth):
    block = DenseAtrousBlock(growth)
    block.build((None, None, None, channels))
    # Kernel, bias, gamma and beta of each convolution; kernel and bias of the fusion.
    convolutions = sum(9 * (channels + i * growth) * growth + 3 * growth for i in range(6))
    fusion = (channels + 6 * growth) * 4 * growth + 4 * growth
    assert block.count_params() == convolutions + fusion


@pytest.mark.parametrize(("filters", "expected"), [(None, 32), (5, 5)])
def test_output_shape_is_inferred_and_met(filters, expected):
    block = DenseAtrousBlock(8, filters=filters)
    y = block(random_input(2, 4, 6, 3))
    assert y.shape == (2, 4, 6, expected)
    assert block.compute_output_shape((2, 4, 6, 3)) == (2, 4, 6, expected)
    assert block(keras.Input((None, None, 3))).shape == (None, None, None, expected)


def test_the_fused_output_is_not_negative_and_not_dead():
    keras.utils.set_random_seed(0)
    y = np.asarray(DenseAtrousBlock(8)(random_input(1, 8, 8, 3)))
    assert y.min() == 0
    assert y.max() > 0


def field_of_view(dilation_rates: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Which outputs one bright pixel reaches, through the convolutions only.

    Group normalisation, whose statistics span the image, is taken out; all weights are positive,
    so that nothing cancels.
    """
    monkeypatch.setattr(GroupNormalization, "call", lambda self, inputs: inputs)
    block = DenseAtrousBlock(1, groups=1, dilation_rates=dilation_rates)
    x = np.zeros((1, 41, 41, 1), np.float32)
    x[0, 20, 20] = 1
    block.build(x.shape)
    block.set_weights([np.full(w.shape, float(w.ndim == 4)) for w in block.get_weights()])
    return np.asarray(block(x))[0, :, :, 0] > 0


def test_the_field_of_view_is_33_pixels_without_holes(monkeypatch):
    reached = field_of_view((1, 2, 5, 1, 2, 5), monkeypatch)
    expected = np.zeros((41, 41), bool)
    expected[4:37, 4:37] = True
    np.testing.assert_array_equal(reached, expected)


def test_equal_dilation_rates_would_leave_holes(monkeypatch):
    reached = field_of_view((2, 2), monkeypatch)
    expected = np.zeros((41, 41), bool)
    expected[16:25:2, 16:25:2] = True
    np.testing.assert_array_equal(reached, expected)


@pytest.mark.usefixtures("on_tensorflow")
def test_free_height_and_width_in_graph_mode():
    block = DenseAtrousBlock(8)
    graph = tf.function(block.call, input_signature=[tf.TensorSpec([None, None, None, 3])])
    for shape in ((1, 3, 9, 3), (2, 8, 4, 3)):
        x = random_input(*shape)
        np.testing.assert_allclose(block(x), graph(x), atol=1e-5)


def test_every_part_takes_the_policy_of_the_block():
    block = DenseAtrousBlock(8, dtype="mixed_bfloat16")
    assert block(random_input(1, 4, 4, 3)).dtype == tf.bfloat16
    parts = [*block.convolutions, *block.normalizations, block.fusion]
    assert {part.compute_dtype for part in parts} == {"bfloat16"}
    assert {weight.dtype for weight in block.weights} == {"float32"}


def test_configuration_round_trip():
    block = DenseAtrousBlock(6, groups=3, dilation_rates=(1, 3), epsilon=0.2, filters=7, name="b")
    block.rematerialise = "blocks"
    again = keras.layers.deserialize(keras.layers.serialize(block))
    assert isinstance(again, DenseAtrousBlock)
    assert again.get_config() == block.get_config()
    x = random_input(1, 6, 6, 2)
    expected = block(x)
    again.build(x.shape)
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again(x), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"growth_rate": 12}, "growth_rate must be a positive multiple of groups=8; got 12"),
        ({"growth_rate": 0}, "growth_rate must be a positive multiple of groups=8; got 0"),
        ({"growth_rate": 8, "groups": 0}, "groups must be positive"),
        ({"growth_rate": 8, "dilation_rates": ()}, "dilation_rates must be positive integers"),
        ({"growth_rate": 8, "dilation_rates": (1, 0)}, r"dilation_rates .* got \(1, 0\)"),
        ({"growth_rate": 8, "epsilon": 0}, "epsilon must be positive"),
        ({"growth_rate": 8, "filters": 0}, "filters"),
        ({"growth_rate": 8, "rematerialise": True}, "rematerialise must be one of .* got True"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DenseAtrousBlock(**arguments)


def trained(rematerialise: str | None, jit_compile: bool) -> list[np.ndarray]:
    """Weights of a small network after three steps in graph mode."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    block = DenseAtrousBlock(4, groups=2, rematerialise=rematerialise)
    fused = block(keras.layers.Conv2D(4, 1)(inputs))
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid")(fused)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", jit_compile=jit_compile)
    x = random_input(2, 16, 24, 3)
    for _ in range(3):
        model.train_on_batch(x, (x[..., :1] > 0).astype(np.float32))
    return model.get_weights()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("rematerialise", ["concatenations", "blocks"])
def test_what_is_computed_twice_trains_alike(rematerialise, jit_compile):
    held, again = trained(None, jit_compile), trained(rematerialise, jit_compile)
    for one, other in zip(held, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def held_between_passes(rematerialise: str | None, width: int) -> set[int]:
    """Channels of the arrays of the input's size that wait for the gradient, in eager mode."""
    block = DenseAtrousBlock(4, groups=2, rematerialise=rematerialise)
    x = tf.convert_to_tensor(random_input(1, 17, width, 8))
    block(x)
    with tf.GradientTape() as tape:
        y = block(x)
    gc.collect()
    held = [a for a in gc.get_objects() if isinstance(a, tf.Tensor) and a.shape[1:3] == (17, width)]
    channels = {a.shape[-1] for a in held}
    assert all(g is not None for g in tape.gradient(y, block.trainable_variables))
    return channels


@pytest.mark.usefixtures("on_tensorflow")
@pytest.mark.parametrize(
    ("rematerialise", "width", "channels"),
    [
        # An input of 8, outputs of 4 each, what five convolutions and the fusion read, the output.
        # A width for each, as what one leaves behind may be collected late.
        (None, 19, {8, 4, 12, 16, 20, 24, 28, 32}),
        ("concatenations", 21, {8, 4, 16}),
        ("blocks", 23, {8, 16}),
    ],
)
def test_what_is_held_between_the_passes(rematerialise, width, channels):
    assert held_between_passes(rematerialise, width) == channels


# layers.Conv2D: the convolution of Keras, its values, gradients and files.


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
