"""What a random change is, which there are, and what is drawn for one patch."""

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from preprocessing.errors import TrainingError

COLOURS = ("brightness", "contrast", "saturation", "hue", "gamma")
MOVES = ("rotation", "scale", "shear")
FILTERS = ("blur", "sharpen", "emboss")
PIXEL_CHANGES = (
    "frequency_noise",
    "gaussian_noise",
    "salt_and_pepper",
    "dropout",
    "coarse_dropout",
)
# The order in which they are drawn: another order, or one more in between, is another patch from
# the same generator.
CHANGES = (*COLOURS, *MOVES, *FILTERS, "grayscale", *PIXEL_CHANGES)


@dataclass(frozen=True)
class Change:
    """How strong a change may be, and how often it is made.

    Attributes:
        strength: 0 to 1, 0 is none; what 1 means is said where ``Augmentation`` names the change.
        probability: 0 to 1, with which a patch is changed at all.
    """

    strength: float
    probability: float = 1.0


@dataclass(frozen=True)
class Draws:
    """What was drawn for one patch, whatever the strengths and probabilities are.

    Attributes:
        symmetry: 0 to 7, see ``dihedral``.
        shifts: by the change's name, -1 to 1: how far of its strength, and which way; a change
            that goes one way only takes the size. One that is not named is not made.
        chances: by the change's name, 0 to 1: a change is made where this lies below its
            probability. 0 for one that is not named.
        shear_direction: fraction of a full turn.
        emboss_direction: fraction of a full turn.
        seed: of the generators that draw pixels.
    """

    symmetry: int = 0
    shifts: dict[str, float] = field(default_factory=dict)
    chances: dict[str, float] = field(default_factory=dict)
    shear_direction: float = 0.0
    emboss_direction: float = 0.0
    seed: int = 0

    @classmethod
    def from_generator(cls, rng: np.random.Generator) -> "Draws":
        """Draw for every change, always the same amount.

        Symmetry and colours come first: a generator gave the same of them before there were other
        changes.
        """
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
        """The generator of one change's pixels; the others never use it."""
        return np.random.default_rng([self.seed, CHANGES.index(name)])


def checked(name: str, given: Any) -> float | Change | None:
    """Return the setting of a change; a dict, as JSON has it, becomes the ``Change`` it was.

    Args:
        name: name of the change.
        given: a strength, a ``Change``, its fields as a dict, or None.

    Raises:
        TrainingError: none of these, or a strength or probability outside 0 to 1.
    """
    if isinstance(given, dict):
        try:
            given = Change(**given)
        except TypeError:
            raise TrainingError(
                f"augmentation {name} is {given}: give strength and probability"
            ) from None
    if given is None:
        return None
    if isinstance(given, Change):
        _check_fraction(f"the probability of augmentation {name}", given.probability)
        _check_fraction(f"augmentation {name}", given.strength)
    else:
        _check_fraction(f"augmentation {name}", given)
    return given


def _check_fraction(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise TrainingError(f"{what} is {value!r}: give a fraction from 0 to 1")
