"""BandScaling against values by hand and Keras' own layer."""

import keras
import numpy as np
import pytest

from layers import BandScaling


def test_values_by_hand():
    pixels = np.array([10, 20, 15, 120, 0, 0], np.uint8).reshape(1, 1, 3, 2)
    expected = [[0, 0], [1, 2], [-2, -0.4]]
    for dtype in ("uint8", "uint16", "float64"):
        scaled = BandScaling([10, 20], [5, 50])(pixels.astype(dtype))
        assert scaled.dtype == "float32"
        np.testing.assert_allclose(np.asarray(scaled)[0, 0], expected, atol=1e-6)


def test_equals_the_layer_of_keras():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    offset, scale = np.array([100, 90, 80]), np.array([50, 40.5, 60])
    reference = keras.layers.Rescaling(1 / scale, -offset / scale, dtype="float32")(pixels)
    np.testing.assert_allclose(BandScaling(offset, scale)(pixels), reference, atol=1e-6)


def test_large_pixels_keep_their_differences():
    pixels = np.array([60000, 60001], np.uint16).reshape(1, 1, 1, 2)
    scaled = BandScaling([60000, 60000], [0.5, 0.5], dtype="float32")(pixels)
    np.testing.assert_array_equal(np.ravel(scaled), [0, 2])


def test_shapes_are_inferred():
    output = BandScaling([0], [1])(keras.Input((None, None, 1), dtype="uint8"))
    assert (output.shape, output.dtype) == ((None, None, None, 1), "float32")


def test_configuration_round_trip():
    layer = BandScaling([1, 2], [3, 4.5], name="s", dtype="float32")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, BandScaling)
    assert again.get_config() == layer.get_config()
    assert (again.offset, again.scale) == ([1, 2], [3, 4.5])


@pytest.mark.parametrize(
    ("offset", "scale", "message"),
    [
        ([1, 2], [1], r"one number per band; got \[1, 2\] and \[1\]"),
        ([1, 2], [1, 0], r"scale must not be 0; got \[1, 0\]"),
    ],
)
def test_wrong_arguments_are_named(offset, scale, message):
    with pytest.raises(ValueError, match=message):
        BandScaling(offset, scale)
