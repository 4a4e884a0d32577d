"""JointNet: size, wiring, precision, saving, and that it learns."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import jointnet
from jointnet import JointNet
from jointnet.model import VARIANTS
from layers import GroupNormalization
from losses import BinaryFocalLoss, DiceLoss, WeightedSumLoss
from tests.gradients import gradient
from tests.training_fixtures import run_python

pytestmark = pytest.mark.usefixtures("plain_graphs")

ROOT = Path(__file__).resolve().parents[1]
TINY = {"growth_rates": (8, 8, 8), "bridge_filters": 8}


def tiny(**arguments) -> JointNet:
    keras.utils.set_random_seed(0)
    return JointNet(**{**TINY, **arguments})


def random_pixels(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def test_importing_the_package_prints_nothing_and_loads_no_engine():
    done = run_python("import jointnet; print(jointnet.__version__)", blocked=("keras",))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (done.stdout, done.stderr) == (project["version"] + "\n", "")
    with pytest.raises(AttributeError, match="no attribute 'UNet'"):
        jointnet.UNet  # noqa: B018


@pytest.mark.parametrize(
    ("variant", "parameters"), [("jointnet", 4_785_889), ("jointnet_block_input", 4_710_209)]
)
def test_parameter_counts_of_the_public_implementations(variant, parameters):
    assert JointNet.from_variant(variant).count_params() == parameters


def test_the_default_is_the_first_variant():
    assert JointNet().get_config() == JointNet.from_variant("jointnet").get_config()


def block_parameters(channels: int, growth: int) -> int:
    convolutions = sum(9 * (channels + i * growth) * growth + 3 * growth for i in range(6))
    return convolutions + (channels + 6 * growth + 1) * 4 * growth


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_parameters_of_its_formula(variant):
    arguments = {"growth_rates": (32, 64, 128), "bridge_filters": 256, **VARIANTS[variant]}
    (k1, k2, k3), bridge = arguments["growth_rates"], arguments["bridge_filters"]
    from_input = arguments.get("downsample_from") == "block_input"
    expected, channels = 0, 3
    for k in (k1, k2, k3):
        expected += block_parameters(channels, k)
        expected += ((channels if from_input else 4 * k) + 1) * k
        channels = k
    expected += (k3 + 1) * bridge
    expected += (bridge + 4 * k3 + 1) * k3 + (k3 + 4 * k2 + 1) * k2
    expected += block_parameters(k2 + 4 * k1, k1) + 4 * k1 + 1
    assert JointNet.from_variant(variant).count_params() == expected


def test_variants_take_overrides():
    model = JointNet.from_variant("jointnet_quarter", bands=4, groups=4, name="mine")
    assert (model.bands, model.groups, model.name) == (4, 4, "mine")
    assert model.growth_rates == (8, 16, 32)


@pytest.mark.parametrize(("groups", "expected"), [(4, [4, 4, 4, 4]), ("doubling", [8, 16, 32, 32])])
def test_groups_by_depth(groups, expected):
    model = tiny(groups=groups, growth_rates=(32, 32, 32))
    blocks = [
        model.get_layer(name) for name in ("encoder_1", "encoder_2", "encoder_3", "decoder_1")
    ]
    assert [block.groups for block in blocks] == expected
    assert [block.normalizations[0].groups for block in blocks] == expected
    assert all(block.epsilon == 0.1 for block in blocks)


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize("downsample_from", ["block_output", "block_input"])
def test_other_numbers_of_bands(bands, downsample_from):
    model = tiny(bands=bands, downsample_from=downsample_from)
    assert model(random_pixels(2, 8, 16, bands)).shape == (2, 8, 16, 1)


def test_scaling_by_hand():
    model = tiny(bands=2, band_offset=[10, 20], band_scale=[5, 50])
    pixels = np.array([10, 20, 15, 120, 0, 0], np.uint8).reshape(1, 1, 3, 2)
    scaled = model.get_layer("scaling")(pixels)
    expected = [[0, 0], [1, 2], [-2, -0.4]]
    np.testing.assert_allclose(np.asarray(scaled)[0, 0], expected, atol=1e-6)
    scaled = tiny().get_layer("scaling")(np.array([0, 127.5, 255]).reshape(1, 1, 1, 3))
    np.testing.assert_allclose(np.ravel(scaled), [-1, 0, 1], atol=1e-6)


def test_bands_are_clipped_where_there_are_limits():
    model = tiny(bands=2, band_offset=10, band_scale=5, band_limits=[(0, 20), (-5, 15)])
    pixels = np.array([-9999, 10, 3e38, 3e38], np.float32).reshape(1, 1, 2, 2)
    scaled = model.get_layer("scaling")(pixels)
    np.testing.assert_allclose(np.asarray(scaled)[0, 0], [[-2, 0], [2, 1]], atol=1e-6)
    assert model.count_params() == tiny(bands=2).count_params()
    for policy in ("mixed_bfloat16", "mixed_float16"):
        limited = tiny(band_limits=[(0, 300)] * 3, dtype=policy)
        garbage = random_pixels(1, 16, 16, 3).astype(np.float32)
        garbage[0, 3, 4] = 3e38, -3e38, 1e30
        assert np.isfinite(limited(garbage)).all()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_float_pixels_reach_the_scaling_as_they_are(policy):
    """Neighbouring bfloat16 numbers near 8000 are 32 apart: those of a hill are one."""
    pixels = (8000 + random_pixels(1, 16, 16, 1) / 64).astype(np.float32)
    high = tiny(bands=1, band_offset=8002, band_scale=2, dtype=policy)
    low = tiny(bands=1, band_offset=2, band_scale=2, dtype=policy)
    np.testing.assert_allclose(
        high.predict_on_batch(pixels), low.predict_on_batch(pixels - 8000), atol=5e-3
    )
    assert np.ptp(high.predict_on_batch(pixels)) > 0.05


def test_raw_pixels_of_every_dtype_give_the_same():
    model = tiny()
    pixels = random_pixels(1, 16, 16, 3)
    expected = np.asarray(model(pixels))
    for dtype in ("uint16", "int16", "int32", "float32", "float64"):
        np.testing.assert_array_equal(model(pixels.astype(dtype)), expected)


def test_uint16_pixels_beyond_the_range_of_float16_are_scaled_in_float32():
    model = tiny(band_offset=65000, band_scale=500, dtype="mixed_float16")
    pixels = (65000 + random_pixels(1, 16, 16, 3).astype(int)).astype(np.uint16)
    low = tiny(band_offset=0, band_scale=500, dtype="mixed_float16")
    probabilities = np.asarray(model(pixels))
    np.testing.assert_allclose(probabilities, low(pixels - np.uint16(65000)), atol=5e-3)
    assert np.ptp(probabilities) > 0.05


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_scaling_and_sigmoid_are_float32_under_mixed_policies(policy):
    model = tiny(dtype=policy)
    in_float32 = {layer.name for layer in model.layers if layer.compute_dtype == "float32"}
    assert in_float32 == {"pixels", "scaling", "probabilities"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    pixels = random_pixels(1, 16, 16, 3)
    mixed, plain = model(pixels), tiny()(pixels)
    assert mixed.dtype == tf.float32
    # Equal but for rounding: the precision does not enter the weights.
    difference = np.abs(np.asarray(mixed) - np.asarray(plain)).max()
    assert 0 < difference < 0.03


def test_a_global_policy_is_taken_over_but_not_by_scaling_and_sigmoid():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny()
    finally:
        keras.config.set_dtype_policy(before)
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert model.get_layer("encoder_1").compute_dtype == "bfloat16"
    # Neighbouring bfloat16 numbers near 6e4 are 256 apart.
    low, high = (np.full((1, 8, 8, 3), value, np.float32) for value in (60000, 60001))
    scaling = model.get_layer("scaling")
    assert np.all(np.asarray(scaling(high)) > np.asarray(scaling(low)))
    probabilities = model(random_pixels(1, 8, 8, 3))
    assert probabilities.dtype == tf.float32


def test_the_loss_is_scaled_where_the_policy_is_float16():
    model = tiny(dtype="mixed_float16")
    model.compile(keras.optimizers.Adam(), DiceLoss())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.usefixtures("on_tensorflow")
def test_free_multiples_of_eight_in_graph_mode():
    model = tiny()
    graph = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    for shape in ((1, 8, 24, 3), (2, 16, 8, 3)):
        pixels = random_pixels(*shape)
        probabilities = np.asarray(graph(pixels))
        assert probabilities.shape == (*shape[:3], 1)
        assert 0 < probabilities.min() < probabilities.max() < 1
        np.testing.assert_allclose(probabilities, model(pixels), atol=1e-5)


def test_other_sizes_are_refused_with_what_would_work():
    with pytest.raises(ValueError, match="multiples of 8; got 12 x 16; .*predict_image takes"):
        tiny()(random_pixels(1, 12, 16, 3))


def test_every_second_pixel_is_a_strided_convolution_with_the_same_kernel():
    model = tiny()
    levels = keras.Model(
        model.input,
        [model.get_layer(name).output for name in ("encoder_1", "downsampling_1")],
    )
    fused, downsampled = levels(random_pixels(2, 16, 24, 3))
    strided = keras.layers.Conv2D(8, 1, strides=2, activation="relu")
    strided.build(fused.shape)
    strided.set_weights(model.get_layer("downsampling_1").get_weights())
    assert downsampled.shape == (2, 8, 12, 8)
    np.testing.assert_allclose(downsampled, strided(fused), atol=1e-5)


def seen(layer: str, downsample_from: str, side: int, at: int) -> np.ndarray:
    """Pixels, ``(side, side)`` bool, that one position of a layer's output depends on.

    Through the convolutions only: group normalisation is taken out by the caller, and all
    weights are positive, so that nothing cancels.
    """
    model = tiny(downsample_from=downsample_from)
    model.set_weights(
        [np.full(w.shape, 1 / w.shape[-2] if w.ndim == 4 else 0) for w in model.get_weights()]
    )
    part = keras.Model(model.get_layer("scaling").output, model.get_layer(layer).output)
    pixels = np.ones((1, side, side, 3), np.float32)
    slopes = gradient(lambda x: keras.ops.sum(part(x)[0, at, at]), pixels)
    return slopes[0].any(axis=-1)


@pytest.fixture
def without_statistics(monkeypatch):
    monkeypatch.setattr(GroupNormalization, "call", lambda self, inputs: inputs)


def test_the_bridge_sees_225_pixels_through_block_outputs(without_statistics):
    field = seen("bridge", "block_output", side=240, at=15)
    expected = np.zeros((240, 240), bool)
    expected[120 - 112 : 120 + 113, 120 - 112 : 120 + 113] = True
    np.testing.assert_array_equal(field, expected)


def test_the_bridge_sees_single_pixels_through_block_inputs(without_statistics):
    field = seen("bridge", "block_input", side=64, at=4)
    assert np.argwhere(field).tolist() == [[32, 32]]


def test_block_input_passes_no_learned_context_down():
    """Even with statistics, the bridge depends on every eighth pixel only."""
    pixels = random_pixels(1, 32, 32, 3)
    changed = 255 - pixels
    changed[:, ::8, ::8] = pixels[:, ::8, ::8]
    for downsample_from, equal in (("block_input", True), ("block_output", False)):
        model = tiny(downsample_from=downsample_from)
        bridge = keras.Model(model.input, model.get_layer("bridge").output)
        assert np.array_equal(bridge(pixels), bridge(changed)) is equal


def test_numbers_of_numpy_become_plain_ones_in_the_configuration():
    arguments = {"band_offset": np.array([1, 2.5, 3]), "band_scale": np.float32(2)}
    model = JointNet(growth_rates=np.array([8, 8, 8]), bridge_filters=8, **arguments)
    config = json.loads(json.dumps(model.get_config()))
    assert config["band_offset"] == [1, 2.5, 3] and config["band_scale"] == [2, 2, 2]
    assert config["growth_rates"] == [8, 8, 8]


def test_configuration_round_trip_gives_equal_predictions():
    model = tiny(
        bands=2,
        groups=4,
        downsample_from="block_input",
        band_offset=[1.0, 2.0],
        band_scale=[3.0, 4.0],
        band_limits=[(0, 200), (5.5, 90)],
        name="mine",
        dtype="mixed_bfloat16",
    )
    again = JointNet.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert (again.name, again.dtype_policy.name) == ("mine", "mixed_bfloat16")
    assert again.band_limits == [[0, 200], [5.5, 90]]
    again.set_weights(model.get_weights())
    pixels = random_pixels(1, 16, 16, 2)
    np.testing.assert_array_equal(again(pixels), model(pixels))


@pytest.mark.parametrize(("groups", "growth_rates"), [(8, (8, 16, 24)), ("doubling", (32,) * 3)])
def test_saved_and_loaded_safely(tmp_path, groups, growth_rates):
    limits = [(0, 99), (0, 150), (20, 255)]
    arguments = {"band_offset": [1, 2, 3], "band_limits": limits}
    model = tiny(groups=groups, growth_rates=growth_rates, **arguments)
    pixels = random_pixels(1, 16, 16, 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(again, JointNet)
    assert (again.growth_rates, again.groups) == (growth_rates, groups)
    np.testing.assert_array_equal(again(pixels), model(pixels))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bands": 0}, "bands must be 1 or more; got 0"),
        ({"growth_rates": (8, 8)}, r"growth_rates must hold three numbers; got \(8, 8\)"),
        ({"growth_rates": (8, 12, 8)}, "growth_rate must be a positive multiple of groups=8"),
        ({"groups": "halving"}, "groups must be a number or \"doubling\"; got 'halving'"),
        ({"groups": 0}, "groups must be positive"),
        ({"downsample_from": "skip"}, "downsample_from must be .*; got 'skip'"),
        ({"band_scale": 0}, "band_scale must not be 0; got 0"),
        ({"band_scale": [1, 0, 1]}, r"band_scale must not be 0; got \[1, 0, 1\]"),
        ({"band_scale": [1, 2]}, r"band_scale must be one number or 3, .*; got \[1, 2\]"),
        ({"band_limits": [(0, 1)]}, "limits must have one pair for each of 3 bands"),
        ({"band_limits": [(1, 0)] * 3}, r"limits must be pairs of \(low, high\)"),
        ({"band_offset": [1]}, r"band_offset must be one number or 3, .*; got \[1\]"),
        ({"bridge_filters": 0}, "filters"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_unknown_variants_and_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown variant 'big'; known: jointnet, "):
        JointNet.from_variant("big")
    with pytest.raises(TypeError, match="dilation_rates"):
        JointNet(dilation_rates=(1, 2))


def test_it_learns_one_small_patch():
    model = tiny()
    # A bright roof on dark ground, with noise.
    labels = np.zeros((1, 32, 32), np.uint8)
    labels[:, 8:22, 10:26] = 1
    pixels = (random_pixels(1, 32, 32, 3) // 4 + 120 * labels[..., None]).astype(np.uint8)
    loss = WeightedSumLoss([BinaryFocalLoss(gamma=0, alpha=0.5), DiceLoss()], [2, 1])
    model.compile(keras.optimizers.Adam(1e-2), loss, run_eagerly=True)
    values = [float(model.train_on_batch(pixels, labels)) for _ in range(10)]
    assert values[0] > 0.8
    assert values[-1] < 0.1 * values[0]


TRAIN_DOWNSAMPLING = """
import keras, numpy as np
import jointnet
from jointnet import JointNet

# The bridge of this variant is reached through the downsampling layers alone: 3, then 8 channels.
pixels = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3)).astype("uint8")
for policy in ("float32", "mixed_bfloat16"):
    whole = JointNet(3, (8, 8, 8), 8, downsample_from="block_input", dtype=policy)
    model = keras.Model(whole.input, whole.get_layer("bridge").output)
    before = whole.get_layer("downsampling_1").get_weights()[0]
    model.compile("adam", "mse", run_eagerly=True)
    for _ in range(5):
        model.train_on_batch(pixels, np.ones((4, 16, 16, 8)))
    assert np.any(whole.get_layer("downsampling_1").get_weights()[0] != before)
print("trained")
"""


def test_training_the_downsampling_does_not_corrupt_memory():
    """A strided 1x1 convolution aborts TensorFlow here, in a process of its own to survive it."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_DOWNSAMPLING],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("trained\n")
