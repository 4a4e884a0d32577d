"""Draw random changes of training patches, and apply them."""

import importlib
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from preprocessing import image_operations
from preprocessing.errors import LabelError, RasterError, TrainingError

COLOURS = ("brightness", "contrast", "saturation", "hue", "gamma")
MOVES = ("rotation", "scale", "shear")
FILTERS = ("blur", "sharpen", "emboss")
PIXELS = ("frequency_noise", "gaussian_noise", "salt_and_pepper", "dropout", "coarse_dropout")
# The order in which they are drawn: another one, or an insertion, changes what each seed gives.
CHANGES = (*COLOURS, *MOVES, *FILTERS, "grayscale", *PIXELS)
DTYPES = ("uint8", "uint16", "int16", "float32")
# What strength 1 means for these: pixels, and factors of what is added.
BLUR_SIGMA, SHARPEN_AMOUNT, EMBOSS_AMOUNT = 3.0, 4.0, 2.0


@dataclass(frozen=True)
class Change:
    """The largest strength of a change, 0 to 1, and the probability that a patch is changed."""

    strength: float
    probability: float = 1.0


Strength = float | Change | None


@dataclass(frozen=True)
class Draws:
    """What was drawn for one patch, independent of strengths and probabilities.

    Attributes:
        symmetry: 0 to 7, see ``image_operations.symmetry``.
        shifts: by name of the change, -1 to 1, times its strength: how far it goes and which way
            (changes of one direction take the size). A change that is not named is not made.
        chances: by name, 0 to 1, by default 0: a change is made if this is below its probability.
        shear_direction: fraction of a full turn, as is ``emboss_direction``.
        seed: for ``pixel_generator``.
    """

    symmetry: int = 0
    shifts: dict[str, float] = field(default_factory=dict)
    chances: dict[str, float] = field(default_factory=dict)
    shear_direction: float = 0.0
    emboss_direction: float = 0.0
    seed: int = 0

    @classmethod
    def from_generator(cls, rng: np.random.Generator) -> "Draws":
        """Draw for every change, on or off; the order is part of every seed."""
        symmetry = int(rng.integers(8))
        shifts = rng.uniform(-1, 1, size=len(CHANGES)).tolist()
        *chances, shear_direction, emboss_direction = rng.random(len(CHANGES) + 2).tolist()
        return cls(
            symmetry,
            dict(zip(CHANGES, shifts, strict=True)),
            dict(zip(CHANGES, chances, strict=True)),
            shear_direction,
            emboss_direction,
            int(rng.integers(2**63)),
        )

    def pixel_generator(self, name: str) -> np.random.Generator:
        """Return the generator for one change's pixels, independent of all others."""
        return np.random.default_rng([self.seed, CHANGES.index(name)])


@dataclass(frozen=True)
class Augmentation:
    """Which random changes are made to a patch, how strong and how often.

    A change is a strength of 0 to 1, made to every patch, or ``Change(strength, probability)``;
    None and 0 are off. How far it goes is drawn evenly between its two extremes, or from nothing
    to its extreme. The order is: rotation, scale and shear at once, blur, sharpen, emboss,
    frequency noise, all colours at once, Gaussian noise, salt and pepper, dropout, coarse dropout,
    flips. ``Augmentation(**dataclasses.asdict(it))`` gives the same again, also through JSON.

    Attributes:
        dihedral: one of the eight flips and rotations, or of the four that keep the shape of a
            patch that is not square. Nothing is resampled.
        brightness: shift of all bands, up to plus or minus this fraction of the value range.
        contrast: stretch about the centre of the value range, by 1 - contrast to 1 + contrast.
        saturation: distance from grey, times 1 - saturation to 1 + saturation, in the first
            three bands (red, green, blue); does nothing with fewer bands.
        hue: turn of the same bands about the grey axis, up to plus or minus this fraction of a
            full turn; luma stays.
        gamma: exponent of the value's fraction of the range, 1 / (1 + gamma) to 1 + gamma.
        value_range: (low, high) that the strengths refer to; None for the whole range of an
            integer dtype. 11-bit imagery in uint16 wants (0, 2047), float32 always a range.
        rotation: about the centre, up to this fraction of a full turn either way; 0.5 gives every
            angle, as does 0.125 with ``dihedral``. Here and below, the image is mirrored beyond
            the patch, and the mask void.
        scale: factor from 1 / (1 + scale) to 1 + scale, drawn log-evenly.
        shear: in a random direction, up to this tangent of its angle; areas stay.
        blur: Gaussian, standard deviation up to this times 3 pixels.
        sharpen: unsharp mask; adds up to this times 4 of what a blur of 1 pixel takes away.
        emboss: relief lit from a random side; adds up to this times 2 of the rise over two pixels.
        grayscale: blend of the first three bands with luma, up to this share.
        frequency_noise: blend, by a mask of smooth to grainy waves, with the patch in other light:
            each band times 1 / (1 + frequency_noise) to 1 + frequency_noise.
        gaussian_noise: standard deviation up to this fraction of the value range.
        salt_and_pepper: up to this share of the pixels at either end of the value range.
        dropout: up to this share of the pixels at the low end of the value range.
        coarse_dropout: up to this share of the area, as rectangles, at the same value.

    Raises:
        TrainingError: a strength or probability outside 0 to 1, or a range without low < high.
    """

    dihedral: bool = True
    brightness: Strength = 0.2
    contrast: Strength = 0.2
    saturation: Strength = 0.2
    hue: Strength = 0.0
    gamma: Strength = 0.0
    value_range: tuple[float, float] | None = None
    rotation: Strength = None
    scale: Strength = None
    shear: Strength = None
    blur: Strength = None
    sharpen: Strength = None
    emboss: Strength = None
    grayscale: Strength = None
    frequency_noise: Strength = None
    gaussian_noise: Strength = None
    salt_and_pepper: Strength = None
    dropout: Strength = None
    coarse_dropout: Strength = None

    def __post_init__(self) -> None:
        """Check all settings, and turn lists and dicts from JSON into what they were."""
        for name in CHANGES:
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        if self.value_range is not None:
            limits = tuple(float(limit) for limit in self.value_range)
            if len(limits) != 2 or not limits[0] < limits[1]:
                raise TrainingError(
                    f"augmentation value_range is {limits}: give (low, high) with low below high"
                )
            object.__setattr__(self, "value_range", limits)

    @cached_property
    def changes(self) -> dict[str, Change]:
        """The changes that are on, by name, without ``dihedral``."""
        given = {name: getattr(self, name) for name in CHANGES}
        every = {
            name: change if isinstance(change, Change) else Change(change or 0.0)
            for name, change in given.items()
        }
        return {name: one for name, one in every.items() if one.strength and one.probability}

    def apply(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change a patch and its mask together.

        Args:
            image: (h, w, bands) uint8, uint16, int16 or float32, raw values.
            mask: (h, w) of 0, 1 and 255, of any dtype, uint8 if a change resamples it. Only
                flips, rotation, scale and shear change it; void stays void.
            rng: the strengths do not change how much is drawn from it.

        Returns:
            Image and mask, contiguous, of the same shapes and dtypes; maybe the arrays given.
            Integer images are rounded and clipped to their dtype, float32 images are not.

        Raises:
            LabelError: the mask has another size than the image, or its dtype cannot hold void.
            RasterError: another dtype, or float32 without ``value_range``.
            TrainingError: a change needs OpenCV, which cannot be imported.
        """
        return self.apply_drawn(image, mask, Draws.from_generator(rng))

    def apply_drawn(
        self, image: np.ndarray, mask: np.ndarray, draws: Draws
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change a patch and its mask as ``apply`` does, by given draws."""
        if image.shape[:2] != mask.shape:
            raise LabelError(f"a mask of {mask.shape} does not fit an image of {image.shape}")
        if image.size and self.changes:
            low, high = self.limits(image.dtype)
            self._check_opencv()
            image, mask = self._move(image, mask, draws)
            image = self._filter(image, draws)
            image = self._relight(image, draws, low, high)
            image = self._spoil(image, draws, low, high)
        symmetry = draws.symmetry if self.dihedral else 0
        if image.shape[0] != image.shape[1]:
            symmetry -= symmetry % 2
        return (
            np.ascontiguousarray(image_operations.symmetry(image, symmetry)),
            np.ascontiguousarray(image_operations.symmetry(mask, symmetry)),
        )

    def _move(
        self, image: np.ndarray, mask: np.ndarray, draws: Draws
    ) -> tuple[np.ndarray, np.ndarray]:
        turn, slant = self._reach("rotation", draws), self._reach("shear", draws)
        factor = self._factor("scale", draws)
        if (turn, slant, factor) == (0, 0, 1):
            return image, mask
        shape, direction = mask.shape, draws.shear_direction
        matrix = image_operations.affine_matrix(shape, turn, factor, slant, direction)
        return image_operations.warp(image, mask, matrix)

    def _filter(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        if sigma := BLUR_SIGMA * abs(self._reach("blur", draws)):
            image = image_operations.blur(image, sigma)
        if amount := SHARPEN_AMOUNT * abs(self._reach("sharpen", draws)):
            image = image_operations.sharpen(image, amount)
        if amount := EMBOSS_AMOUNT * abs(self._reach("emboss", draws)):
            image = image_operations.emboss(image, amount, draws.emboss_direction)
        return image

    def _relight(self, image: np.ndarray, draws: Draws, low: float, high: float) -> np.ndarray:
        gain = self._factor("frequency_noise", draws) ** 0.5
        if gain != 1:
            spread = (1 + self.changes["frequency_noise"].strength) ** 0.5
            rng = draws.pixel_generator("frequency_noise")
            image = image_operations.uneven_light(image, gain, spread, low, rng)
        return image_operations.recolour(
            image,
            low,
            high,
            brightness=self._reach("brightness", draws),
            contrast=self._reach("contrast", draws),
            chroma=(1 + self._reach("saturation", draws))
            * (1 - abs(self._reach("grayscale", draws))),
            hue=self._reach("hue", draws),
            gamma=self._factor("gamma", draws),
        )

    def _spoil(self, image: np.ndarray, draws: Draws, low: float, high: float) -> np.ndarray:
        if share := abs(self._reach("gaussian_noise", draws)):
            rng = draws.pixel_generator("gaussian_noise")
            image = image_operations.gaussian_noise(image, share * (high - low), rng)
        if share := abs(self._reach("salt_and_pepper", draws)):
            rng = draws.pixel_generator("salt_and_pepper")
            image = image_operations.salt_and_pepper(image, share, low, high, rng)
        if share := abs(self._reach("dropout", draws)):
            rng = draws.pixel_generator("dropout")
            image = image_operations.drop_pixels(image, share, low, rng)
        if share := abs(self._reach("coarse_dropout", draws)):
            rng = draws.pixel_generator("coarse_dropout")
            image = image_operations.drop_rectangles(image, share, low, rng)
        return image

    def _shift(self, name: str, draws: Draws) -> tuple[float, float]:
        """Return strength and shift of a change; 0 and 0 if it is off or not made."""
        change = self.changes.get(name)
        if change is None or draws.chances.get(name, 0.0) >= change.probability:
            return 0.0, 0.0
        return change.strength, draws.shifts.get(name, 0.0)

    def _reach(self, name: str, draws: Draws) -> float:
        """Return how far a change goes, from minus to plus its strength."""
        strength, shift = self._shift(name, draws)
        return strength * shift

    def _factor(self, name: str, draws: Draws) -> float:
        """Return a change's factor, log-evenly from 1 / (1 + strength) to 1 + strength."""
        strength, shift = self._shift(name, draws)
        return (1 + strength) ** shift

    def limits(self, dtype: np.dtype) -> tuple[float, float]:
        """Return the range of values that the strengths refer to.

        Raises:
            RasterError: another dtype, or float32 without ``value_range``.
        """
        if dtype.name not in DTYPES:
            raise RasterError(f"cannot augment {dtype} images: give one of {', '.join(DTYPES)}")
        if self.value_range is not None:
            return self.value_range
        if dtype != np.float32:
            return 0.0, float(np.iinfo(dtype).max)
        if self.changes.keys() <= {*MOVES, *FILTERS}:
            # None of these uses the range.
            return 0.0, 1.0
        raise RasterError(
            "cannot augment float32 images without their range: give the augmentation's "
            "value_range, such as (0, 1)"
        )

    def _check_opencv(self) -> None:
        # Fail at the first patch, not later at the first that draws such a change.
        needing = [name for name in (*MOVES, *FILTERS) if name in self.changes]
        if needing:
            try:
                importlib.import_module("cv2")
            except ImportError:
                raise TrainingError(
                    f"augmentation {', '.join(needing)} needs OpenCV, which cannot be imported: "
                    "install opencv-python-headless, or leave them out"
                ) from None


def _checked(name: str, given: Any) -> Strength:
    """Return a valid setting; a dict, as JSON has it, becomes a ``Change``."""
    if isinstance(given, dict):
        try:
            given = Change(**given)
        except TypeError:
            raise TrainingError(
                f"augmentation {name} is {given}: give strength and probability"
            ) from None
    if isinstance(given, Change):
        _check_fraction(f"the probability of augmentation {name}", given.probability)
        _check_fraction(f"augmentation {name}", given.strength)
    elif given is not None:
        _check_fraction(f"augmentation {name}", given)
    return given


def _check_fraction(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise TrainingError(f"{what} is {value!r}: give a fraction from 0 to 1")


STRONG = Augmentation(
    brightness=0.15,
    contrast=0.3,
    saturation=0.4,
    hue=0.04,
    gamma=0.3,
    # With the quarter turns and flips these are all angles.
    rotation=Change(0.125, 0.5),
    scale=Change(0.25, 0.5),
    shear=Change(0.1, 0.3),
    blur=Change(0.5, 0.2),
    sharpen=Change(0.4, 0.2),
    emboss=Change(0.4, 0.1),
    grayscale=Change(1.0, 0.1),
    frequency_noise=Change(0.5, 0.3),
    gaussian_noise=Change(0.06, 0.3),
    salt_and_pepper=Change(0.02, 0.1),
    dropout=Change(0.05, 0.1),
    coarse_dropout=Change(0.1, 0.2),
)
"""Every change, for networks that will see imagery unlike their training data.

Turning, shearing and shrinking make about 10 % of the pixels of square patches void. For values
that do not fill the range of an integer dtype use ``dataclasses.replace(STRONG, value_range=...)``.
"""
