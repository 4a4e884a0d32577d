"""ResNetUNet: size, wiring, what pretrained weights are fed, precision, saving, and learning."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from jointnet import ResNetUNet
from jointnet.checkpoints import Checkpoints, TrainingState
from jointnet.metrics import count, threshold_mask
from jointnet.prediction import predict_image
from jointnet.resnet import BACKBONES, IMAGENET_MEAN, IMAGENET_STD
from jointnet.runs import WEIGHTS, build_network, describe_network, load_weights, save_weights
from jointnet.training import train
from jointnet.training_settings import TrainingSettings
from preprocessing.augmentation import Augmentation
from preprocessing.patch_store import PatchStore
from preprocessing.sample_scenes import render_scene
from preprocessing.tiling import Window, cut
from tests import shallow_resnet
from tests.training_fixtures import patch_set, run_python

pytestmark = pytest.mark.usefixtures("plain_graphs")

# Of the encoders without their classifier, as keras.applications' documentation has them.
ENCODERS = {
    "ResNet50": 23_587_712,
    "ResNet101": 42_658_176,
    "ResNet152": 58_370_944,
    "ResNet50V2": 23_564_800,
    "ResNet101V2": 42_626_560,
    "ResNet152V2": 58_331_648,
}
SMALL = {"decoder_filters": (16, 16, 8, 8, 8)}
SHALLOW = SMALL | {"backbone": shallow_resnet.NAME}


def random_pixels(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def shaken(model: keras.Model) -> keras.Model:
    """Other weights than at the start, so that statistics, gammas and betas act."""
    random = np.random.default_rng(1)
    model.set_weights(
        [w * (1 + 0.2 * random.random(w.shape, np.float32)) for w in model.get_weights()]
    )
    return model


@pytest.fixture(scope="module")
def network() -> ResNetUNet:
    """A small network, never trained; leave it as it is."""
    keras.utils.set_random_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        shallow_resnet.add(patch)
        return shaken(ResNetUNet(**SHALLOW))


@pytest.fixture
def shallow(monkeypatch) -> None:
    """Encoders of one block per stage can be built."""
    shallow_resnet.add(monkeypatch)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> tuple[Path, keras.Model]:
    """A ResNet50 without classifier in place of the pretrained one, and the file it came in."""
    path = tmp_path_factory.mktemp("weights") / "encoder.weights.h5"
    keras.utils.set_random_seed(2)
    encoder = shaken(keras.applications.ResNet50(include_top=False, weights=None))
    encoder.save_weights(path)
    return path, encoder


# Size and wiring


def decoder_parameters(filters: tuple[int, ...], skips: tuple[int, ...]) -> int:
    total, channels = 0, 2048
    for width, skip in zip(filters, skips, strict=True):
        total += 9 * (channels + skip) * width + 9 * width * width + 2 * 4 * width
        channels = width
    return total + channels + 1


def test_parameters_of_the_default():
    assert ResNetUNet().count_params() == 32_602_641
    expected = decoder_parameters((256, 128, 64, 32, 16), (1024, 512, 256, 64, 0))
    assert ENCODERS["ResNet50"] + expected == 32_602_641


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(b, marks=[] if b == "ResNet50V2" else pytest.mark.slow) for b in ENCODERS],
)
def test_every_encoder_gives_its_five_sizes_to_the_decoder(backbone):
    model = ResNetUNet.from_variant(backbone, **SMALL)
    decoder = decoder_parameters(SMALL["decoder_filters"], (1024, 512, 256, 64, 0))
    assert model.count_params() == ENCODERS[backbone] + decoder
    skips = [model.get_layer(f"skip_{depth}").input[1] for depth in (2, 3, 4, 5)]
    levels = keras.Model(model.input, [*skips, model.get_layer("upsampling_5").input])
    shapes = [tuple(level.shape) for level in levels(random_pixels(1, 64, 96, 3))]
    expected = {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048}
    assert shapes == [(1, 64 // size, 96 // size, c) for size, c in expected.items()]


def test_the_backbones_are_those_of_keras():
    assert set(BACKBONES) == set(ENCODERS)
    assert all(hasattr(keras.applications, backbone) for backbone in BACKBONES)


def test_free_multiples_of_32_in_graph_mode(network):
    graph = tf.function(network, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    for shape in ((1, 32, 96, 3), (2, 64, 32, 3)):
        pixels = random_pixels(*shape)
        probabilities = np.asarray(graph(pixels))
        assert probabilities.shape == (*shape[:3], 1) and probabilities.dtype == np.float32
        assert 0 <= probabilities.min() < probabilities.max() <= 1
        np.testing.assert_allclose(probabilities, network(pixels), atol=1e-5)


def test_other_sizes_are_refused_with_what_would_work(network):
    with pytest.raises(ValueError, match="multiples of 32; got 48 x 64; .*predict_image takes"):
        network(random_pixels(1, 48, 64, 3))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 33)])
def test_an_image_of_any_size_is_predicted(network, height, width):
    image = random_pixels(height, width, 3)
    # One window at a time, as sums depend on the batch's shape in their last bits.
    probabilities = predict_image(network, image, window=64, overlap=0, batch_size=1)
    padded = cut(image, Window(0, 0, 64, 64))
    whole = np.asarray(network(padded[None]))[0, ..., 0]
    np.testing.assert_allclose(probabilities, whole[:height, :width], atol=1e-6)


def test_a_pixel_does_not_depend_on_the_rest_of_its_batch(network):
    """At prediction the statistics are those of training, so what lies beside does not count."""
    pixels = random_pixels(3, 32, 32, 3)
    np.testing.assert_allclose(network(pixels)[1:2], network(pixels[1:2]), atol=1e-5)
    alone = np.asarray(network(pixels[1:2], training=True))
    assert np.abs(alone - np.asarray(network(pixels, training=True))[1:2]).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bands": 0}, "bands must be 1 or more; got 0"),
        ({"backbone": "ResNet18"}, "unknown backbone 'ResNet18'; known: ResNet50, "),
        ({"decoder_filters": (8, 8)}, r"decoder_filters must hold five numbers; got \(8, 8\)"),
        ({"band_scale": [1, 0, 1]}, r"band_scale must not be 0; got \[1, 0, 1\]"),
        ({"band_offset": [1]}, r"band_offset must be one number or 3, .*; got \[1\]"),
        ({"weights": "imagenet", "bands": 4}, '^weights="imagenet" need 3 bands; got 4; leave'),
        ({"weights": "ImageNet"}, 'must be None, "imagenet" or a file; ImageNet is none'),
        ({"weights": "no/file.h5"}, 'must be None, "imagenet" or a file; no/file.h5 is none'),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNetUNet(**arguments)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="unknown backbone 'jointnet_half'; known: ResNet50"):
        ResNetUNet.from_variant("jointnet_half")


# What the encoder is fed


def fed(model: ResNetUNet, pixels: np.ndarray) -> np.ndarray:
    part = keras.Model(model.input, model.get_layer("as_pretrained").output)
    return np.asarray(part(pixels))


@pytest.mark.parametrize(
    ("backbone", "preprocessing"),
    [("ResNet50", keras.applications.resnet), ("ResNet50V2", keras.applications.resnet_v2)],
)
def test_the_encoder_is_fed_what_it_was_pretrained_on(backbone, preprocessing):
    """Two ways to the same: keras' own preprocessing, and the statistics that it stands for."""
    pixels = random_pixels(1, 32, 32, 3)
    expected = preprocessing.preprocess_input(pixels.astype(np.float32))
    model = ResNetUNet(backbone=backbone, **SMALL)
    assert (model.band_offset, model.band_scale) == (list(IMAGENET_MEAN), list(IMAGENET_STD))
    np.testing.assert_allclose(fed(model, pixels), expected, atol=1e-4)


def test_imagery_of_other_depth_and_contrast_is_brought_to_the_same(shallow):
    """Standardised by its own statistics, 16-bit imagery looks to the encoder as ImageNet does."""
    random = np.random.default_rng(0)
    pixels = random.normal((900, 2000, 400), (90, 400, 30), (1, 64, 64, 3)).astype(np.uint16)
    statistics = {"band_offset": [900, 2000, 400], "band_scale": [90, 400, 30]}
    given = fed(ResNetUNet(**statistics, **SHALLOW), pixels)
    # Blue, green, red, each around 0.
    np.testing.assert_allclose(given.mean(axis=(0, 1, 2)), 0, atol=3)
    np.testing.assert_allclose(given.std(axis=(0, 1, 2)), IMAGENET_STD[::-1], rtol=0.05)
    by_hand = (pixels[0, 0, 0].astype(float) - [900, 2000, 400]) / [90, 400, 30] * IMAGENET_STD
    np.testing.assert_allclose(given[0, 0, 0], by_hand[::-1], rtol=1e-3)


def test_pixels_beyond_the_limits_are_clipped(network, shallow):
    limited = ResNetUNet(band_limits=[(50, 200)] * 3, **SHALLOW)
    limited.set_weights(network.get_weights())
    pixels = random_pixels(1, 32, 32, 3)
    np.testing.assert_array_equal(limited(pixels), network(pixels.clip(50, 200)))


# Initial weights


def test_the_encoder_with_pretrained_weights_computes_what_it_did(pretrained, monkeypatch):
    path, encoder = pretrained
    asked = []

    def download(name: str, url: str, **options: str) -> str:
        asked.append(name)
        return str(path)

    monkeypatch.setattr("keras.src.applications.resnet.file_utils.get_file", download)
    model = ResNetUNet(weights="imagenet", **SMALL)
    assert asked == ["resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"]
    pixels = random_pixels(1, 64, 64, 3)
    expected = encoder(keras.applications.resnet.preprocess_input(pixels.astype(np.float32)))
    deepest = keras.Model(model.input, model.get_layer("conv5_block3_out").output)
    assert np.isfinite(expected).all() and np.ptp(expected) > 0.1
    np.testing.assert_allclose(deepest(pixels), expected, rtol=1e-3, atol=1e-4)
    # Built again, it says which weights it began with, and asks for none.
    again = build_network(json.loads(json.dumps(describe_network(model))))
    assert again.initial_weights == model.initial_weights == "imagenet"
    assert len(asked) == 1


def test_a_weights_file_is_loaded_and_recorded_by_name_and_content(pretrained):
    path, encoder = pretrained
    model = ResNetUNet(weights=path, **SMALL)
    for layer in encoder.layers:
        for one, other in zip(
            model.get_layer(layer.name).get_weights() if layer.weights else [],
            layer.get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.initial_weights == f"encoder.weights.h5 (sha256 {digest})"


def test_weights_that_cannot_be_downloaded_are_one_line_that_says_what_would_work(monkeypatch):
    def download(*arguments: str, **options: str) -> str:
        raise Exception("URL fetch failure on https://...: None")  # noqa: TRY002 (as Keras does)

    monkeypatch.setattr("keras.src.applications.resnet.file_utils.get_file", download)
    with pytest.raises(ValueError, match="weights of ResNet50 cannot be downloaded .*_notop.h5 as"):
        ResNetUNet(weights="imagenet", dtype="mixed_bfloat16")
    # The policy that the encoder was built under is no longer the global one.
    assert keras.config.dtype_policy().name == "float32"


def test_weights_that_do_not_fit_are_refused_in_one_line(pretrained, tmp_path):
    truncated = tmp_path / "truncated.weights.h5"
    truncated.write_bytes(pretrained[0].read_bytes()[:100_000])
    for weights, backbone in ((truncated, "ResNet50"), (pretrained[0], "ResNet50V2")):
        with pytest.raises(ValueError, match=f"does not fit {backbone} of 3 bands") as caught:
            ResNetUNet(backbone=backbone, weights=weights)
        assert "\n" not in str(caught.value) and "_notop.h5" in str(caught.value)


# Configuration and saving


def test_configuration_round_trip_gives_equal_predictions_with_two_bands(tmp_path, shallow):
    model = ResNetUNet(
        bands=2,
        backbone=shallow_resnet.NAME,
        decoder_filters=(8, 8, 8, 8, 4),
        band_offset=[1.0, 2.0],
        band_scale=[3.0, 4.0],
        band_limits=[[0, 200], [10, 250]],
        name="mine",
        dtype="mixed_bfloat16",
    )
    # Without a pretrained encoder for so many bands, they are scaled and no more.
    assert "as_pretrained" not in {layer.name for layer in model.layers}
    scaled = model.get_layer("scaling")(np.array([7, 250]).reshape(1, 1, 1, 2))
    np.testing.assert_allclose(np.ravel(scaled), [2, 62], atol=1e-6)
    again = ResNetUNet.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert (again.name, again.dtype_policy.name) == ("mine", "mixed_bfloat16")
    again.set_weights(shaken(model).get_weights())
    pixels = random_pixels(1, 32, 32, 2)
    np.testing.assert_array_equal(again(pixels), model(pixels))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(loaded, ResNetUNet)
    np.testing.assert_array_equal(loaded(pixels), model(pixels))


def test_building_undoes_describing_through_json(network, shallow):
    described = json.loads(json.dumps(describe_network(network)))
    assert described["class"] == "ResNetUNet"
    assert described["arguments"]["initial_weights"] is None
    again = build_network(described, "mixed_bfloat16")
    assert describe_network(again) == describe_network(network)
    assert [w.shape for w in again.weights] == [w.shape for w in network.weights]


def test_what_float16_cannot_hold_is_saved_as_it_is(network, shallow, tmp_path):
    """A variance of 1e6 would be inf, and what was divided by it 0."""
    model = build_network(describe_network(network))
    model.set_weights(network.get_weights())
    norm = model.get_layer("conv1_bn")
    norm.moving_variance.assign(np.geomspace(1e-7, 1e9, 64))
    norm.moving_mean.assign(np.linspace(2000, 2001, 64))
    kernel = model.get_layer("logits").kernel
    kernel.assign(np.linspace(1, 1e6, 8).reshape(kernel.shape))
    save_weights(model, tmp_path / WEIGHTS)
    again = build_network(describe_network(model))
    load_weights(again, tmp_path / WEIGHTS)
    for one, other in zip(model.weights, again.weights, strict=True):
        exact = not one.trainable or one is kernel
        expected = one.numpy() if exact else one.numpy().astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(other.numpy(), expected)
    # Still half as large: the statistics are few.
    assert (tmp_path / WEIGHTS).stat().st_size < 2.2 * model.count_params()


# Precision


def test_scaling_and_sigmoid_are_float32_under_a_mixed_policy(network, shallow):
    model = ResNetUNet(**SHALLOW, dtype="mixed_bfloat16")
    in_float32 = {layer.name for layer in model.layers if layer.compute_dtype == "float32"}
    assert in_float32 == {"pixels", "scaling", "as_pretrained", "probabilities"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    model.set_weights(network.get_weights())
    pixels = random_pixels(1, 64, 64, 3)
    mixed, plain = model(pixels), network(pixels)
    assert mixed.dtype == tf.float32
    difference = np.abs(np.asarray(mixed) - np.asarray(plain)).max()
    assert 0 < difference < 0.1


# Training


TRAIN = """
import keras, numpy as np, pytest
from jointnet import ResNetUNet
from losses import DiceLoss
from tests import shallow_resnet

shallow_resnet.add(pytest.MonkeyPatch())

pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
masks = (pixels[..., :1] > 128).astype("uint8")
for policy in ("float32", "mixed_bfloat16"):
    keras.utils.set_random_seed(0)
    model = ResNetUNet(backbone="ResNet14", decoder_filters=(16, 16, 8, 8, 8), dtype=policy)
    before = {w.path: w.numpy() for w in model.trainable_weights}
    model.compile("adam", DiceLoss(), jit_compile=False)
    losses = [float(model.train_on_batch(pixels, masks)) for _ in range(2)]
    assert np.isfinite(losses).all(), losses
    same = [w.path for w in model.trainable_weights if np.array_equal(w, before[w.path])]
    # A bias before a normalisation changes nothing, so it may stay.
    assert all(path.endswith("bias") for path in same), same
    assert all(np.isfinite(w).all() for w in model.get_weights())
print("trained")
"""


@pytest.mark.slow
def test_training_the_strided_convolutions_does_not_corrupt_memory():
    """1x1 convolutions of stride 2 abort TensorFlow on a CPU, but not on so many channels.

    In a process of its own, to survive it.
    """
    done = run_python(TRAIN, KERAS_BACKEND="tensorflow")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("trained\n")


def test_a_strided_convolution_of_that_many_channels_has_the_gradient_of_a_plain_one():
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(2, 16, 16, 256)).astype(np.float32))
    kernel = tf.constant(random.normal(size=(1, 1, 256, 128)).astype(np.float32))
    weights = random.normal(size=(2, 8, 8, 128)).astype(np.float32)
    gradients = []
    for strides, seen in ((2, x), (1, x[:, ::2, ::2])):
        with tf.GradientTape() as tape:
            tape.watch([seen, kernel])
            value = tf.reduce_sum(tf.nn.conv2d(seen, kernel, strides, "VALID") * weights)
        of_x, of_kernel = tape.gradient(value, [seen, kernel])
        gradients.append((of_x[:, ::2, ::2] if strides == 2 else of_x, of_kernel))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def generated_store(side: int = 64) -> PatchStore:
    """Four patches to train on, and the same for validation."""
    image, _, mask = render_scene(size=2 * side, seed=3)
    corners = [(slice(i, i + side), slice(j, j + side)) for i in (0, side) for j in (0, side)]
    patches = patch_set(np.stack([image[c] for c in corners]), np.stack([mask[c] for c in corners]))
    return PatchStore(Path("nowhere"), {"bands": 3, "dtype": "uint8"}, patches, patches)


@pytest.mark.slow
def test_it_learns_generated_patches_and_a_checkpoint_holds_its_statistics(tmp_path, shallow):
    """By the project's own training, and judged as prediction is: by the moving averages."""
    plain = Augmentation(brightness=0, contrast=0, saturation=0, dihedral=False)
    settings = TrainingSettings(
        crop_size=64,
        batch_size=4,
        epochs=2,
        steps_per_epoch=20,
        learning_rate=1e-3,
        loss="cross_entropy+dice",
        augmentation=plain,
    )
    keras.utils.set_random_seed(0)
    model, store = ResNetUNet(**SHALLOW), generated_store()
    state = train(model, store, settings, tmp_path)
    assert state.history[-1]["loss"] < state.history[0]["loss"]
    found = threshold_mask(model.predict_on_batch(store.train.images)[..., 0], 0.6)
    assert count(store.train.masks, found).metrics()["iou"] > 0.8
    again = ResNetUNet(**SHALLOW)
    again.compile(settings.make_optimizer(40), settings.make_loss())
    restored = Checkpoints(tmp_path / "checkpoints").restore(again)
    assert restored == TrainingState(history=state.history)
    if state.best == state.history[-1]:
        for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


ON_JAX = """
import keras, numpy as np, pytest
from jointnet import ResNetUNet
from losses import DiceLoss
from tests import shallow_resnet

shallow_resnet.add(pytest.MonkeyPatch())
folder = sys.argv[1]
assert keras.backend.backend() == "jax"
model = ResNetUNet(backbone="ResNet14", decoder_filters=(16, 16, 8, 8, 8))
model.load_weights(f"{folder}/weights.weights.h5")
pixels = np.load(f"{folder}/pixels.npy")
model.compile("sgd", DiceLoss())
np.save(f"{folder}/probabilities.npy", model.predict_on_batch(pixels))
before = model.get_layer("conv1_bn").moving_mean.numpy()
assert np.isfinite(float(model.train_on_batch(pixels, pixels[..., :1] > 128)))
assert np.any(model.get_layer("conv1_bn").moving_mean.numpy() != before)
"""


@pytest.mark.slow
def test_jax_without_tensorflow_computes_the_same_and_trains(network, shallow, tmp_path):
    pytest.importorskip("jax")
    pixels = random_pixels(1, 64, 32, 3)
    np.save(tmp_path / "pixels.npy", pixels)
    save_weights(network, tmp_path / WEIGHTS)
    here = build_network(describe_network(network))
    load_weights(here, tmp_path / WEIGHTS)
    done = run_python(
        ON_JAX,
        tmp_path,
        blocked=("tensorflow", "rasterio", "shapely"),
        KERAS_BACKEND="jax",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_backend_optimization_level=0",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "probabilities.npy")
    assert np.ptp(found) > 1e-4
    np.testing.assert_allclose(found, here(pixels), atol=1e-4)
