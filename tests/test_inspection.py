import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from jointnet import JointNet, ResNetUNet
from jointnet.inspection import (
    channels_of,
    default_layer,
    find_layer,
    first_filters,
    grad_cam,
    grouped,
    named_layers,
    observe,
)
from layers import GroupNormalization
from preprocessing.errors import RunError
from tests import shallow_resnet

ROOT = Path(__file__).resolve().parents[1]
IMAGE = np.array([[1, 2], [3, 4]], np.float32)[..., None]


def linear(factors, logit_factors, stride=1) -> keras.Model:
    """Channels that are the image times a factor, logits that are the sum of these times another.

    With a stride, channels are smaller, and logits as large as the image by repetition.
    """
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(len(factors), 1, stride, use_bias=False, name="features")(inputs)
    x = keras.layers.UpSampling2D(stride, name="repeated")(x)
    x = keras.layers.Conv2D(1, 1, use_bias=False, name="logits")(x)
    model = keras.Model(inputs, keras.layers.Activation("sigmoid", name="probabilities")(x))
    model.get_layer("features").set_weights([np.reshape(factors, (1, 1, 1, -1))])
    model.get_layer("logits").set_weights([np.reshape(logit_factors, (1, 1, -1, 1))])
    return model


@pytest.fixture(scope="module")
def network() -> JointNet:
    """A small one with random weights, among them biases other than 0."""
    keras.utils.set_random_seed(0)
    model = JointNet(growth_rates=(8, 8, 8), bridge_filters=12)
    random = np.random.default_rng(1)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (24, 16, 3), np.uint8)


# Grad-CAM


def test_grad_cam_of_a_linear_network_is_what_a_hand_computes():
    model = linear((1, 2), (3, -1))
    # One of four pixels counts: its logit changes by 3 and -1 with the channels there.
    at_first = np.array([[True, False], [False, False]])
    cam = grad_cam(model, IMAGE, "features", at_first)
    assert cam.weights.tolist() == [0.75, -0.25]
    # 0.75 x - 0.25 * 2 x
    assert cam.coarse.tolist() == [[0.25, 0.5], [0.75, 1.0]]
    assert cam.heat.tolist() == [[0.25, 0.5], [0.75, 1.0]]
    every = grad_cam(model, IMAGE, "features")
    assert every.weights.tolist() == [3, -1] and every.coarse.tolist() == [[1, 2], [3, 4]]
    assert np.array_equal(every.heat, cam.heat)


def test_what_speaks_against_the_target_is_zero():
    cam = grad_cam(linear((1, 2), (-3, 1)), IMAGE, "features")
    assert not cam.coarse.any() and not cam.heat.any()
    mixed = grad_cam(linear((1,), (1,)), IMAGE - 2, "features")
    assert mixed.coarse.tolist() == [[0, 0], [1, 2]] and mixed.heat.tolist() == [[0, 0], [0.5, 1]]
    none = grad_cam(linear((1,), (1,)), IMAGE, "features", np.zeros((2, 2), bool))
    assert not none.weights.any() and not none.heat.any()


def test_a_smaller_layer_is_interpolated_to_the_size_of_the_image():
    image = np.zeros((4, 4, 1), np.float32)
    image[:, 2:] = 4
    cam = grad_cam(linear((1,), (1,), stride=2), image, "features")
    # Each of the four positions has four pixels: a gradient of 4 for each.
    assert cam.weights.tolist() == [4] and cam.coarse.tolist() == [[0, 16], [0, 16]]
    assert cam.heat.tolist() == [[0, 0.25, 0.75, 1]] * 4


def test_of_the_logits_themselves_the_map_is_their_positive_part():
    cam = grad_cam(linear((1,), (2,)), IMAGE - 3, "logits")
    assert cam.weights.tolist() == [1] and cam.coarse.tolist() == [[0, 0], [0, 2]]


def test_weights_are_the_gradient_within_a_block_too(network, pixels):
    """What is added to a normalisation's ``beta`` is added to its channel at all positions."""
    tf = pytest.importorskip("tensorflow")
    counted = np.zeros((24, 16), bool)
    counted[5:15, 2:9] = True
    blocks = {"encoder_1": 24 * 16, "encoder_3": 6 * 4, "decoder_1": 24 * 16}
    layers = [find_layer(network, f"{block}/normalization_3") for block in blocks]
    to_logits = keras.Model(network.inputs, network.get_layer("logits").output)
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(to_logits(pixels[None])[0, ..., 0][counted])
    gradients = tape.gradient(score, [layer.beta.value for layer in layers])
    for (block, positions), gradient in zip(blocks.items(), gradients, strict=True):
        cam = grad_cam(network, pixels, f"{block}/normalization_3", counted)
        expected = gradient.numpy() / positions
        np.testing.assert_allclose(cam.weights, expected, rtol=1e-3, atol=1e-5)


# What a layer gives


def test_activations_are_those_of_a_network_that_ends_there(network, pixels):
    for name in ("scaling", "encoder_2", "bridge", "logits"):
        part = keras.Model(network.inputs, network.get_layer(name).output)
        expected = keras.ops.convert_to_numpy(part(pixels[None]))[0]
        found = observe(network, pixels, name)
        np.testing.assert_allclose(found.activations, expected, atol=1e-5)
        assert found.activations.shape[-1] == channels_of(network)[name]
    np.testing.assert_allclose(found.logits, found.activations[..., 0])
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-found.logits)), atol=1e-6)


def test_layers_within_a_block_are_seen(network, pixels):
    block = network.get_layer("encoder_1")
    scaled = observe(network, pixels, "scaling").activations[None]
    first = observe(network, pixels, "encoder_1/convolution_1").activations
    np.testing.assert_allclose(first, block.convolutions[0](scaled)[0], atol=1e-5)
    normalised = observe(network, pixels, "encoder_1/normalization_1").activations
    np.testing.assert_allclose(normalised, block.normalizations[0](first[None])[0], atol=1e-4)
    fused, outer = (
        observe(network, pixels, name).activations for name in ("encoder_1/fusion", "encoder_1")
    )
    np.testing.assert_array_equal(fused, outer)


def test_looking_changes_nothing(network, pixels):
    before = keras.ops.convert_to_numpy(network(pixels[None]))
    grad_cam(network, pixels, "encoder_1/convolution_1")
    with pytest.raises(ValueError, match="multiples of 8"):
        observe(network, pixels[:13], "bridge")
    assert all("call" not in vars(layer) for layer in named_layers(network).values())
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(network(pixels[None])), before)


# Names


def test_layers_have_names_in_the_order_of_the_network(network):
    names = list(named_layers(network))
    assert names[:3] == ["scaling", "encoder_1", "encoder_1/convolution_1"]
    assert names[-1] == "logits" and len(names) == 1 + 4 * 14 + 3 + 3 + 1 + 3 + 3 + 2 + 1
    assert grouped(names) == [
        "scaling",
        "encoder_1..3",
        "encoder_1..3/convolution_1..6",
        "encoder_1..3/normalization_1..6",
        "encoder_1..3/fusion",
        "every_second_1..3",
        "downsampling_1..3",
        "bridge",
        "upsampling_1..3",
        "skip_1..3",
        "decoder_1..3",
        "decoder_1/convolution_1..6",
        "decoder_1/normalization_1..6",
        "decoder_1/fusion",
        "logits",
    ]
    assert default_layer(network) == "bridge"
    channels = channels_of(network)
    assert channels["encoder_1/convolution_2"] == channels["encoder_1/normalization_6"] == 8
    assert (channels["encoder_1/fusion"], channels["bridge"], channels["skip_3"]) == (32, 12, 44)


def test_a_wrong_name_is_told_what_there_is(network, pixels):
    for name in ("encoder_4", "probabilities", "pixels", "encoder_1/convolution_7"):
        with pytest.raises(RunError, match=f"no layer '{name}'; there are scaling, encoder_1..3,"):
            grad_cam(network, pixels, name)
    inputs = keras.Input((None, None, 1))
    with pytest.raises(RunError, match="no layer that is named logits"):
        named_layers(keras.Model(inputs, keras.layers.Activation("sigmoid")(inputs)))


# First filters


def test_first_filters_are_those_of_the_first_block(network):
    name, kernels = first_filters(network)
    assert name == "encoder_1/convolution_1" and kernels.shape == (3, 3, 3, 8)
    np.testing.assert_array_equal(
        kernels, network.get_layer("encoder_1").convolutions[0].get_weights()[0]
    )
    with pytest.raises(RunError, match="no convolution of more than one pixel"):
        first_filters(linear((1,), (1,)))


def test_of_a_pretrained_encoder_filters_are_in_the_order_of_the_bands(monkeypatch, pixels):
    shallow_resnet.add(monkeypatch)
    model = ResNetUNet(backbone=shallow_resnet.NAME, decoder_filters=(8, 8, 8, 8, 8))
    name, kernels = first_filters(model)
    assert name == "conv1_conv" and kernels.shape == (7, 7, 3, 64)
    # Where the filters' red is taken away, the image's red has no part in what they give.
    layer = find_layer(model, name)
    kernels[:, :, 0] = 0
    layer.set_weights([kernels[:, :, ::-1], layer.get_weights()[1]])
    image = np.tile(pixels, (2, 2, 1))[:32, :32]
    others = image.copy()
    others[..., 0] //= 2
    np.testing.assert_array_equal(
        observe(model, image, name).activations, observe(model, others, name).activations
    )
    assert default_layer(model) == "conv5_block1_out"
    cam = grad_cam(model, image, default_layer(model))
    assert cam.heat.shape == (32, 32) and cam.coarse.shape == (1, 1)


# Backends


def normalised() -> tuple[keras.Model, np.ndarray]:
    """A small network with the layer whose gradient is written out, and an image."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(inputs)
    x = GroupNormalization(2, name="normalised")(x)
    x = keras.layers.Conv2D(1, 3, padding="same", name="logits")(x)
    model = keras.Model(inputs, keras.layers.Activation("sigmoid")(x))
    random = np.random.default_rng(3)
    model.set_weights([random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model, random.random((12, 10, 3), np.float32)


ON_JAX = """
import sys
for name in ("tensorflow", "rasterio", "cv2"):
    sys.modules[name] = None
import numpy
from jointnet.inspection import grad_cam
from tests.test_inspection import normalised
cam = grad_cam(*normalised(), "features")
numpy.savez(sys.argv[1], heat=cam.heat, weights=cam.weights)
"""


@pytest.mark.slow
def test_jax_sees_the_same(tmp_path):
    pytest.importorskip("jax")
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, str(tmp_path / "jax.npz")],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cam, other = grad_cam(*normalised(), "features"), np.load(tmp_path / "jax.npz")
    np.testing.assert_allclose(cam.weights, other["weights"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(cam.heat, other["heat"], atol=1e-4)


def test_a_backend_without_gradients_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(RunError, match="no gradients with the backend numpy; set KERAS_BACKEND to"):
        grad_cam(linear((1,), (1,)), IMAGE, "features")
