"""BandScaling against values by hand and Keras' own layer."""

import keras
import numpy as np
import pytest

from layers import BandScaling
from tests.training_fixtures import run_python


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


def test_pixels_are_clipped_before_they_are_scaled():
    pixels = np.array([10, 20, -1e4, 49, 1e30, -7, 12, 3.4e38], np.float32).reshape(1, 1, 4, 2)
    scaled = BandScaling([10, 20], [5, 50], [(0, 100), (-5, 45)])(pixels)
    expected = [[0, 0], [-2, 0.5], [18, -0.5], [0.4, 0.5]]
    np.testing.assert_allclose(np.asarray(scaled)[0, 0], expected, atol=1e-6)


def test_limits_that_nothing_reaches_change_nothing():
    pixels = np.random.default_rng(0).integers(0, 2048, (2, 4, 5, 2), np.uint16)
    plain, limited = (
        BandScaling([900, 70], [11, 3]),
        BandScaling([900, 70], [11, 3], [[0, 4e3]] * 2),
    )
    np.testing.assert_array_equal(limited(pixels), plain(pixels))


def test_limits_that_are_one_make_a_band_constant():
    pixels = np.array([-3, 7, 9e9], np.float32).reshape(1, 1, 3, 1)
    assert np.ravel(BandScaling([7], [1], [[7, 7]])(pixels)).tolist() == [0, 0, 0]


ON_JAX = """
import keras, numpy as np
from layers import BandScaling
pixels = np.array([-9999, 0, 100.5, 3e38], np.float32).reshape(1, 1, 2, 2)
layer = BandScaling([50, 0], [25, 2], [[0, 100], [-1, 8]])
network = keras.Sequential([keras.Input((None, None, 2)), layer])
network.compile(jit_compile=True)
print(keras.backend.backend(), np.ravel(network.predict_on_batch(pixels)).tolist())
"""


def test_jax_clips_as_tensorflow_does():
    pytest.importorskip("jax")
    done = run_python(ON_JAX, blocked=("tensorflow",), KERAS_BACKEND="jax")
    assert done.stdout.splitlines()[-1:] == ["jax [-2.0, 0.0, 2.0, 4.0]"], done.stderr[-2000:]


def test_shapes_are_inferred():
    output = BandScaling([0], [1])(keras.Input((None, None, 1), dtype="uint8"))
    assert (output.shape, output.dtype) == ((None, None, None, 1), "float32")


def test_configuration_round_trip():
    for limits in (None, [(0, 5), (-1, 2)]):
        layer = BandScaling([1, 2], [3, 4.5], limits, name="s", dtype="float32")
        again = keras.layers.deserialize(keras.layers.serialize(layer))
        assert isinstance(again, BandScaling)
        assert again.get_config() == layer.get_config()
        assert (again.offset, again.scale) == ([1, 2], [3, 4.5])
        assert again.limits == (limits and [[0, 5], [-1, 2]])


def test_the_configuration_of_before_there_were_limits_is_read():
    config = BandScaling([1], [2]).get_config()
    del config["limits"]
    assert BandScaling.from_config(config).limits is None


@pytest.mark.parametrize(
    ("offset", "scale", "limits", "message"),
    [
        ([1, 2], [1], None, r"one number per band; got \[1, 2\] and \[1\]"),
        ([1, 2], [1, 0], None, r"scale must not be 0; got \[1, 0\]"),
        ([1, 2], [1, 1], [(0, 1)], r"limits must have one pair for each of 2 bands; got \[\[0"),
        ([1], [1], [(2, 1)], r"limits must be pairs of \(low, high\); got \[\[2.0, 1.0\]\]"),
        ([1], [1], [(1, 2, 3)], r"limits must be pairs"),
        ([1], [1], [(0, float("nan"))], r"limits must be pairs"),
    ],
)
def test_wrong_arguments_are_named(offset, scale, limits, message):
    with pytest.raises(ValueError, match=message):
        BandScaling(offset, scale, limits)
