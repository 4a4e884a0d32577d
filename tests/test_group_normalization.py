"""GroupNormalization against values by hand, Keras' own layer and float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import GroupNormalization
from tests.gradients import gradient


def by_definition(x: np.ndarray, groups: int, epsilon: float) -> np.ndarray:
    """Equations 1 to 7 of the paper in float64, gamma 1 and beta 0."""
    grouped = x.astype(np.float64).reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = grouped.var((1, 3), keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)


def random_input(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, shape).astype(np.float32)


def test_values_by_hand():
    # Group one is 1, 3, 5, 7 and group two 19, 21, 17, 23: both have variance 5, and 5 + 4 = 9.
    x = np.array([[[[1, 3, 19, 21], [5, 7, 17, 23]]]], np.float32)
    layer = GroupNormalization(groups=2, epsilon=4.0)
    normalised = [[-1, -1 / 3, -1 / 3, 1 / 3], [1 / 3, 1, -1, 1]]
    np.testing.assert_allclose(np.asarray(layer(x))[0, 0], normalised, atol=1e-6)
    layer.set_weights([np.array([1, 3, 3, 6]), np.array([0, 0, 10, -1])])
    expected = [[-1, -1, 9, 1], [1 / 3, 3, 7, 5]]
    np.testing.assert_allclose(np.asarray(layer(x))[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 12), (2, 7, 12), (2, 5, 7, 12), (2, 3, 4, 5, 12)])
@pytest.mark.parametrize(("groups", "epsilon"), [(1, 1e-3), (3, 1e-5), (4, 0.1), (12, 1e-5)])
def test_equals_the_layer_of_keras(shape, groups, epsilon):
    x = random_input(*shape)
    ours, theirs = (
        GroupNormalization(groups, epsilon),
        keras.layers.GroupNormalization(groups, epsilon=epsilon),
    )
    ours.build(shape), theirs.build(shape)
    weights = [random_input(12, seed=1), random_input(12, seed=2)]
    ours.set_weights(weights), theirs.set_weights(weights)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=5e-4)


def test_defaults_are_those_of_keras():
    layer = GroupNormalization()
    assert (layer.groups, layer.epsilon) == (32, 1e-5)
    x = random_input(1, 4, 4, 64)
    np.testing.assert_allclose(layer(x), by_definition(x, 32, 1e-5), atol=1e-5)


def test_one_group_is_layer_normalisation_over_space_and_channels():
    x = random_input(2, 4, 5, 6)
    reference = keras.layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-5)
    np.testing.assert_allclose(GroupNormalization(1)(x), reference(x), atol=1e-5)


@pytest.mark.parametrize("groups", [6, -1])
def test_one_group_per_channel_is_instance_normalisation(groups):
    x = random_input(2, 4, 5, 6)
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(GroupNormalization(groups)(x), expected, atol=1e-5)


def test_a_sample_does_not_depend_on_its_batch():
    x = random_input(3, 4, 4, 8)
    layer = GroupNormalization(2)
    np.testing.assert_array_equal(np.asarray(layer(x))[1:2], layer(x[1:2]))


@pytest.mark.parametrize("side", [8, 256])
@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
def test_float16_of_large_magnitude_and_tiny_spread(policy, side):
    # Neighbouring float16 numbers near 6e4 are 32 apart; their squares are far out of range.
    steps = np.random.default_rng(0).integers(0, 3, (2, side, side, 8))
    x = (60000 + 32 * steps).astype(np.float16)
    y = np.asarray(GroupNormalization(2, dtype=policy)(x))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, by_definition(x, 2, 1e-5), atol=2e-3)


def test_bfloat16_of_large_magnitude_and_tiny_spread():
    steps = np.random.default_rng(0).integers(0, 3, (2, 64, 64, 8))
    x = (59904 + 256 * steps).astype(np.float32)
    y = GroupNormalization(2, dtype="mixed_bfloat16")(x)
    assert y.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(y, tf.float32), by_definition(x, 2, 1e-5), atol=1e-2)


def test_a_constant_is_normalised_to_zero():
    x = np.full((1, 256, 256, 4), 60000, np.float16)
    assert np.abs(np.asarray(GroupNormalization(2, dtype="mixed_float16")(x))).max() == 0


@pytest.mark.parametrize(
    ("policy", "low"), [("mixed_float16", tf.float16), ("mixed_bfloat16", tf.bfloat16)]
)
def test_only_the_result_is_rounded_under_mixed_policies(policy, low):
    """Statistics, gamma and beta are float32: the result is that of float32, rounded once."""
    x = tf.cast(random_input(2, 16, 16, 8), low)
    layers = [GroupNormalization(2, dtype=policy), GroupNormalization(2, dtype="float32")]
    for layer in layers:
        layer.build(x.shape)
        layer.set_weights([np.full(8, 1.0037), np.full(8, 0.3019)])
        assert layer.gamma.dtype == "float32"
    mixed, plain = layers[0](x), layers[1](tf.cast(x, tf.float32))
    assert mixed.dtype == low
    np.testing.assert_array_equal(
        tf.cast(mixed, tf.float32), tf.cast(tf.cast(plain, low), "float32")
    )


@pytest.mark.usefixtures("on_tensorflow")
def test_free_height_and_width_in_graph_mode():
    layer = GroupNormalization(4)
    layer.build((None, None, None, 8))
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 8])])
    def graph(x):
        traces.append(x.shape)
        return layer(x)

    for shape in ((1, 3, 9, 8), (2, 6, 4, 8)):
        x = random_input(*shape)
        np.testing.assert_allclose(graph(x), by_definition(x, 4, 1e-5), atol=1e-5)
    assert len(traces) == 1


def test_shapes_are_inferred():
    output = GroupNormalization(4)(keras.Input((None, None, 8)))
    assert output.shape == (None, None, None, 8)
    assert GroupNormalization(4).compute_output_shape((2, None, 5, 8)) == (2, None, 5, 8)


def test_gradients_equal_those_of_the_layer_of_keras():
    x, weighting = random_input(2, 5, 6, 8), random_input(2, 5, 6, 8, seed=1)
    gamma, beta = np.linspace(0.5, 2, 8, dtype=np.float32), np.linspace(-1, 1, 8, dtype=np.float32)
    gradients = []
    for layer in (GroupNormalization(2, 0.1), keras.layers.GroupNormalization(2, epsilon=0.1)):
        layer.build(x.shape)

        def total(x, gamma, beta, layer=layer):
            y, _ = layer.stateless_call([gamma, beta], [], x)
            return keras.ops.sum(weighting * y**2)

        gradients.append(
            [
                gradient(lambda v: total(v, gamma, beta), x),
                gradient(lambda v: total(x, v, beta), gamma),
                gradient(lambda v: total(x, gamma, v), beta),
            ]
        )
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_configuration_round_trip():
    layer = GroupNormalization(groups=4, epsilon=0.1, name="norm", dtype="mixed_bfloat16")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, GroupNormalization)
    assert again.get_config() == layer.get_config()
    assert (again.groups, again.epsilon, again.name) == (4, 0.1, "norm")
    assert again.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 0}, "groups must be positive, or -1 .*got 0"),
        ({"groups": -2}, "groups must be positive, or -1 .*got -2"),
        ({"epsilon": 0.0}, "epsilon must be positive; got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupNormalization(**arguments)


def test_channels_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="groups=3 does not divide 8 channels"):
        GroupNormalization(3).build((None, 4, 4, 8))
    with pytest.raises(ValueError, match="channels must be known"):
        GroupNormalization(3).build((None, 4, 4, None))
