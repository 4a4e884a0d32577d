"""JointNet (Zhang and Wang 2019, Remote Sensing 11(6):696, figure 2 and table 1)."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar

import keras

from layers import BandScaling, BilinearUpsampling, DenseAtrousBlock

# Widths for machines without a GPU keep the depth, the dilation rates and the fields of view.
VARIANTS: dict[str, dict[str, Any]] = {
    "jointnet": {},
    "jointnet_block_input": {"downsample_from": "block_input"},
    "jointnet_half": {"growth_rates": (16, 32, 64), "bridge_filters": 128},
    "jointnet_quarter": {"growth_rates": (8, 16, 32), "bridge_filters": 64},
}


class PixelNetwork(keras.Model):
    """Base of the networks: scales raw pixels in its first layer, and ends with a sigmoid.

    Args:
        body: turns scaled pixels into features ``(batch, height, width, channels)`` of the given
            dtype policy; a 1x1 convolution and the sigmoid follow.
        bands: number of spectral bands.
        band_offset: subtracted from each band: one number, or one per band.
        band_scale: divides each band after that: one number, or one per band.
        band_limits: (low, high) that each band is clipped to first, or None; for imagery of more
            than 8 bits, see ``preprocessing.band_statistics``.
        dtype: dtype policy; scaling and sigmoid are float32 under each.

    Raises:
        ValueError: ``bands`` is not positive, or an argument does not fit it.
    """

    # What divides the sides of every image, and the names that ``from_variant`` takes.
    MULTIPLE = 1
    VARIANTS: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        body: Callable[[keras.KerasTensor, keras.DTypePolicy], keras.KerasTensor],
        bands: int,
        band_offset: float | Sequence[float],
        band_scale: float | Sequence[float],
        band_limits: Sequence[tuple[float, float]] | None,
        name: str,
        dtype: str | dict[str, Any] | keras.DTypePolicy | None,
    ):
        if bands < 1:
            raise ValueError(f"bands must be 1 or more; got {bands}")
        offsets = _per_band("band_offset", band_offset, bands)
        scales = _per_band("band_scale", band_scale, bands)
        if 0 in scales:
            raise ValueError(f"band_scale must not be 0; got {band_scale}")
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        inputs = keras.Input((None, None, bands), name="pixels")
        scaling = BandScaling(offsets, scales, band_limits, dtype="float32", name="scaling")
        x = body(scaling(inputs), policy)
        x = keras.layers.Conv2D(1, 1, dtype=policy, name="logits")(x)
        outputs = keras.layers.Activation("sigmoid", dtype="float32", name="probabilities")(x)
        super().__init__(inputs, outputs, name=name)
        # Keras scales the loss of a model whose own policy is mixed_float16.
        self.dtype_policy = policy
        self.bands = bands
        self.band_offset = offsets
        self.band_scale = scales
        self.band_limits = scaling.limits

    def call(
        self,
        inputs: keras.KerasTensor,
        training: bool | None = None,
        mask: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Return the probabilities of raw pixels, or raise ValueError if the sides do not fit."""
        sides = tuple(inputs.shape[1:3])
        if any(side is not None and side % self.MULTIPLE for side in sides):
            raise ValueError(
                f"height and width must be multiples of {self.MULTIPLE}; got {sides[0]} x "
                f"{sides[1]}; jointnet.prediction.predict_image takes images of any size"
            )
        return super().call(inputs, training=training, mask=mask)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, without those of subclasses."""
        return {
            "bands": self.bands,
            "band_offset": self.band_offset,
            "band_scale": self.band_scale,
            "band_limits": self.band_limits,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "PixelNetwork":
        """Build a network from what ``get_config`` returned; its weights are random."""
        return cls(**config)


def _per_band(argument: str, value: float | Sequence[float], bands: int) -> list[float]:
    values = [value] * bands if isinstance(value, Real) else list(value)
    if len(values) != bands:
        raise ValueError(f"{argument} must be one number or {bands}, one per band; got {value}")
    return [float(number) for number in values]


@keras.saving.register_keras_serializable(package="jointnet")
class JointNet(PixelNetwork):
    """Encoder of dense atrous blocks, bridge, and decoder with fused skips.

    Three dense atrous blocks, each followed by a stride-2 1x1 convolution; a 1x1 bridge; then
    three times bilinear x2, concatenation with the fused output of the encoder's block of that
    size, and a 1x1 convolution, where the last is a whole dense atrous block.

    Group statistics span the whole input, so an output pixel depends on all of it: predict with
    windows of the size that was trained on.

    Further arguments are those of ``PixelNetwork``; by default 0..255 is mapped to -1..1.

    Args:
        growth_rates: growth rate of each encoder block; the first is also the decoder block's.
        bridge_filters: channels of the bridge.
        groups: groups of the normalisations: one number for all blocks, or ``"doubling"``: 8, 16,
            32 by depth and 32 in the decoder's block, which must divide the growth rates.
        downsample_from: ``"block_output"`` (the fused output feeds the next level) or
            ``"block_input"`` (the other public implementation, whose bridge sees single strided
            pixels).

    Call arguments:
        inputs: ``(batch, height, width, bands)`` raw pixels of any numeric dtype; height and
            width free multiples of 8; ``jointnet.prediction.predict_image`` takes other sizes.

    Returns:
        ``(batch, height, width, 1)`` float32 probabilities of the target class, 0..1.

    Raises:
        ValueError: an argument has no such value; the message says which it may have.
    """

    MULTIPLE = 8
    VARIANTS = VARIANTS

    def __init__(
        self,
        bands: int = 3,
        growth_rates: Sequence[int] = (32, 64, 128),
        bridge_filters: int = 256,
        groups: int | str = 8,
        downsample_from: str = "block_output",
        band_offset: float | Sequence[float] = 127.5,
        band_scale: float | Sequence[float] = 127.5,
        band_limits: Sequence[tuple[float, float]] | None = None,
        name: str = "jointnet",
        dtype: str | dict[str, Any] | keras.DTypePolicy | None = None,
    ):
        if len(growth_rates) != 3:
            raise ValueError(f"growth_rates must hold three numbers; got {growth_rates}")
        if downsample_from not in ("block_output", "block_input"):
            raise ValueError(
                f'downsample_from must be "block_output" or "block_input"; got {downsample_from!r}'
            )
        if isinstance(groups, str) and groups != "doubling":
            raise ValueError(f'groups must be a number or "doubling"; got {groups!r}')
        by_depth = (8, 16, 32) if groups == "doubling" else (groups,) * 3

        def body(x: keras.KerasTensor, policy: keras.DTypePolicy) -> keras.KerasTensor:
            def convolution(filters: int, name: str) -> keras.layers.Conv2D:
                return keras.layers.Conv2D(filters, 1, activation="relu", dtype=policy, name=name)

            skips = []
            for depth, (growth, block_groups) in enumerate(
                zip(growth_rates, by_depth, strict=True), start=1
            ):
                block = DenseAtrousBlock(
                    growth, block_groups, dtype=policy, name=f"encoder_{depth}"
                )
                skips.append(block(x))
                x = skips[-1] if downsample_from == "block_output" else x
                # Equals a strided 1x1 convolution, whose training corrupts memory in TensorFlow on
                # a CPU (oneDNN). The gradient of x[:, ::2, ::2] would take ten times as long.
                every_second = keras.layers.AveragePooling2D(
                    1, 2, dtype=policy, name=f"every_second_{depth}"
                )
                x = convolution(growth, f"downsampling_{depth}")(every_second(x))
            x = convolution(bridge_filters, "bridge")(x)
            for depth in (3, 2, 1):
                x = BilinearUpsampling(dtype=policy, name=f"upsampling_{depth}")(x)
                skip = keras.layers.Concatenate(dtype=policy, name=f"skip_{depth}")
                x = skip([x, skips[depth - 1]])
                if depth > 1:
                    x = convolution(growth_rates[depth - 1], f"decoder_{depth}")(x)
            return DenseAtrousBlock(growth_rates[0], by_depth[-1], dtype=policy, name="decoder_1")(
                x
            )

        super().__init__(body, bands, band_offset, band_scale, band_limits, name, dtype)
        self.growth_rates = tuple(int(growth) for growth in growth_rates)
        self.bridge_filters = bridge_filters
        self.groups = groups
        self.downsample_from = downsample_from

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("growth_rates", "bridge_filters", "groups", "downsample_from")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_variant(cls, variant: str, **overrides: Any) -> "JointNet":
        """Build one of ``VARIANTS``, some arguments overridden; ValueError for other names."""
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
        return cls(**{**VARIANTS[variant], **overrides})
