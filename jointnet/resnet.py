"""ResNetUNet, the control: ResNet encoder (He et al. 2016, CVPR) and U-Net decoder."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from jointnet.model import PixelNetwork
from layers import BandScaling, BilinearUpsampling
from preprocessing.errors import first_line

# Residual blocks of the four stages, by the encoder's name in ``keras.applications``.
BACKBONES: dict[str, tuple[int, int, int, int]] = {
    "ResNet50": (3, 4, 6, 3),
    "ResNet101": (3, 4, 23, 3),
    "ResNet152": (3, 8, 36, 3),
    "ResNet50V2": (3, 4, 6, 3),
    "ResNet101V2": (3, 4, 23, 3),
    "ResNet152V2": (3, 8, 36, 3),
}
# Red, green, blue, 0..255: the mean of keras.applications, the standard deviation of torchvision.
IMAGENET_MEAN = (123.68, 116.779, 103.939)
IMAGENET_STD = (58.395, 57.12, 57.375)
# Of batch normalisation. With Keras' 0.99 a quarter of a moving average would still be its initial
# value after 140 steps, when recipes for a CPU have been validated already.
MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="jointnet")
class ResNetUNet(PixelNetwork):
    """ResNet encoder of ``keras.applications`` with a U-Net decoder.

    The decoder (Ronneberger et al. 2015, MICCAI, figure 1) has five stages: bilinear x2,
    concatenation with the encoder's output of that size (none at full size), and twice 3x3
    convolution, batch normalisation, ReLU.

    The first layer standardises raw pixels by the statistics of the bands. If there are three
    bands, taken for red, green and blue, a second one brings them to ImageNet's statistics,
    channel order and units, so that ``"imagenet"`` weights fit imagery of any depth and contrast;
    without statistics the two are ``preprocess_input`` of ``keras.applications``.

    Training normalises by the batch's statistics, prediction by moving averages, so an output
    pixel depends only on what the convolutions see. Further arguments are those of
    ``PixelNetwork``.

    Args:
        backbone: a name in ``BACKBONES``.
        weights: initial weights of the encoder: None for random ones, ``"imagenet"``, which
            ``keras.applications`` downloads once, or a weights file of its encoder without the
            classifier. The configuration only records them, as ``initial_weights``; a network
            that is built from its configuration loads none.
        decoder_filters: channels of the decoder's five stages, from deep to full size.
        band_offset: mean of each band, as in ``PixelNetwork``; None for ImageNet's where there
            are three bands, else 127.5.
        band_scale: standard deviation of each band, likewise.

    Call arguments:
        inputs: as for ``JointNet``; height and width are multiples of 32.

    Returns:
        Probabilities, as those of ``JointNet``.

    Raises:
        ValueError: an argument has no such value, or weights cannot be downloaded, read or used;
            the message says what would work.
    """

    MULTIPLE = 32
    VARIANTS = BACKBONES

    def __init__(
        self,
        bands: int = 3,
        backbone: str = "ResNet50",
        weights: str | Path | None = None,
        decoder_filters: Sequence[int] = (256, 128, 64, 32, 16),
        band_offset: float | Sequence[float] | None = None,
        band_scale: float | Sequence[float] | None = None,
        band_limits: Sequence[tuple[float, float]] | None = None,
        name: str = "resnet_unet",
        dtype: str | dict[str, Any] | keras.DTypePolicy | None = None,
    ):
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}; known: {', '.join(BACKBONES)}")
        if len(decoder_filters) != 5:
            raise ValueError(f"decoder_filters must hold five numbers; got {decoder_filters}")
        if band_offset is None:
            band_offset = IMAGENET_MEAN if bands == 3 else 127.5
        if band_scale is None:
            band_scale = IMAGENET_STD if bands == 3 else 127.5

        def body(x: keras.KerasTensor, policy: keras.DTypePolicy) -> keras.KerasTensor:
            if bands == 3:
                x = _as_pretrained(x, backbone)
            encoder = _encoder(backbone, weights, x, policy)
            for layer in encoder.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.momentum = MOMENTUM
            *skips, x = [encoder.get_layer(level).output for level in _levels(backbone)]
            for depth, filters in zip((5, 4, 3, 2, 1), decoder_filters, strict=True):
                x = BilinearUpsampling(dtype=policy, name=f"upsampling_{depth}")(x)
                if skips:
                    skip = keras.layers.Concatenate(dtype=policy, name=f"skip_{depth}")
                    x = skip([x, skips.pop()])
                for number in (1, 2):
                    x = _convolution(x, filters, policy, f"decoder_{depth}_{number}")
            return x

        super().__init__(body, bands, band_offset, band_scale, band_limits, name, dtype)
        self.backbone = backbone
        self.initial_weights = _describe_weights(weights)
        self.decoder_filters = tuple(decoder_filters)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with ``initial_weights`` in place of ``weights``."""
        names = ("backbone", "initial_weights", "decoder_filters")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "ResNetUNet":
        """Build a network with random weights, without any download."""
        model = cls(**{key: value for key, value in config.items() if key != "initial_weights"})
        model.initial_weights = config.get("initial_weights")
        return model

    @classmethod
    def from_variant(cls, variant: str, **overrides: Any) -> "ResNetUNet":
        """Build a network on one of ``BACKBONES``; ValueError for other names."""
        return cls(**{"backbone": variant, **overrides})


def _levels(backbone: str) -> list[str]:
    """Return the names of the encoder's last layers at 1/2, 1/4 .. 1/32 of the size."""
    blocks = BACKBONES[backbone]
    if backbone.endswith("V2"):
        # The last block of a stage halves the size, after its first layers.
        within = [f"conv{n}_block{blocks[n - 2]}_preact_relu" for n in (2, 3, 4)]
        return ["conv1_conv", *within, "post_relu"]
    return ["conv1_relu", *(f"conv{n}_block{blocks[n - 2]}_out" for n in (2, 3, 4, 5))]


def _as_pretrained(x: keras.KerasTensor, backbone: str) -> keras.KerasTensor:
    """Turn standardised red, green and blue into what the encoder was pretrained on, float32.

    For V2 that is 0..255 mapped to -1..1; for the others blue, green, red minus the mean.
    """
    if backbone.endswith("V2"):
        offset = [(127.5 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        scale = [127.5 / s for s in IMAGENET_STD]
    else:
        x = keras.ops.flip(x, axis=-1)
        offset, scale = [0.0] * 3, [1 / s for s in reversed(IMAGENET_STD)]
    return BandScaling(offset, scale, dtype="float32", name="as_pretrained")(x)


def _encoder(
    backbone: str, weights: str | Path | None, x: keras.KerasTensor, policy: keras.DTypePolicy
) -> keras.Model:
    """Build the encoder on top of ``x``, with its initial weights."""
    build = getattr(keras.applications, backbone)
    if weights is None:
        with _global_policy(policy):
            return build(include_top=False, weights=None, input_tensor=x)
    bands = x.shape[-1]
    if weights == "imagenet" and bands != 3:
        raise ValueError(
            f'weights="imagenet" need 3 bands; got {bands}; leave weights out, or give a weights '
            f"file of an encoder of {bands} bands"
        )
    if weights != "imagenet" and not Path(weights).is_file():
        raise ValueError(f'weights must be None, "imagenet" or a file; {weights} is none')
    try:
        with _global_policy(policy), warnings.catch_warnings():
            # Keras may only warn of layers that do not fit, and leave them random.
            warnings.filterwarnings("error", "Skipping")
            return build(include_top=False, weights=str(weights), input_tensor=x)
    except Exception as error:  # noqa: BLE001 (a failed download raises a plain Exception)
        line = first_line(error)
        name = f"{backbone.lower()}_weights_tf_dim_ordering_tf_kernels_notop.h5"
        if weights == "imagenet":
            raise ValueError(
                f"the ImageNet weights of {backbone} cannot be downloaded ({line}); give the path "
                f"of {name} as weights, or leave weights out"
            ) from None
        raise ValueError(
            f"{weights} does not fit {backbone} of {bands} bands without its classifier ({line}); "
            f"{name} of keras.applications would, for 3 bands"
        ) from None


@contextlib.contextmanager
def _global_policy(policy: keras.DTypePolicy) -> Iterator[None]:
    """Set the global dtype policy, as keras.applications follows no other."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _convolution(
    x: keras.KerasTensor, filters: int, policy: keras.DTypePolicy, name: str
) -> keras.KerasTensor:
    # No bias: the normalisation would take it out.
    x = keras.layers.Conv2D(
        filters, 3, padding="same", use_bias=False, dtype=policy, name=f"{name}_conv"
    )(x)
    x = keras.layers.BatchNormalization(momentum=MOMENTUM, dtype=policy, name=f"{name}_norm")(x)
    return keras.layers.Activation("relu", dtype=policy, name=f"{name}_relu")(x)


def _describe_weights(weights: str | Path | None) -> str | None:
    # A file goes by its name and content; its folder is private.
    if weights is None or weights == "imagenet":
        return weights
    with Path(weights).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{Path(weights).name} (sha256 {digest})"
