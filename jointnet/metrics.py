"""Pixel metrics from integer counts: counts are added over everything, and divided once."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

VOID = 255


@dataclass(frozen=True)
class Counts:
    """The binary confusion matrix in pixels.

    Attributes:
        true_positive: target, predicted as target.
        false_positive: background, predicted as target.
        false_negative: target, predicted as background.
        true_negative: background, predicted as background.
    """

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def pixels(self) -> int:
        """All pixels counted."""
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    def metrics(self) -> dict[str, float]:
        """Accuracy, precision, recall, F1 and IoU of the target class, each in 0..1.

        A ratio without a denominator is 1 where neither truth nor prediction has target (they
        agree), and 0 otherwise. Accuracy without any pixel is 1.
        """
        positive = self.true_positive + self.false_positive
        actual = self.true_positive + self.false_negative
        empty = 1.0 if positive == actual == 0 else 0.0

        def ratio(part: int, whole: int) -> float:
            return part / whole if whole else empty

        correct = self.true_positive + self.true_negative
        return {
            "accuracy": correct / self.pixels if self.pixels else 1.0,
            "precision": ratio(self.true_positive, positive),
            "recall": ratio(self.true_positive, actual),
            "f1": ratio(2 * self.true_positive, positive + actual),
            "iou": ratio(self.true_positive, positive + actual - self.true_positive),
        }


def count(truth: np.ndarray, prediction: np.ndarray) -> Counts:
    """Counts of a prediction against the truth.

    Args:
        truth: uint8 mask of 0, 1 and 255 (void), any shape.
        prediction: mask of 0 and 1, or 255 where nothing was predicted; same shape.

    Returns:
        Counts over the pixels that are void in neither.

    Raises:
        ValueError: the shapes differ, or a value is none of 0, 1 and 255 (a probability, say).
    """
    check_masks(truth=truth, prediction=prediction)
    valid = (truth != VOID) & (prediction != VOID)
    truth, prediction = truth[valid], prediction[valid]
    pairs = 2 * truth.astype(np.uint8) + prediction.astype(np.uint8)
    true_negative, false_positive, false_negative, true_positive = np.bincount(
        pairs, minlength=4
    ).tolist()
    return Counts(true_positive, false_positive, false_negative, true_negative)


def check_masks(**masks: np.ndarray) -> None:
    """Refuse what are no masks of one raster.

    Args:
        **masks: arrays by the name that an error shall give them.

    Raises:
        ValueError: the shapes differ, or a value is none of 0, 1 and 255 (a probability, say).
    """
    shapes = [mask.shape for mask in masks.values()]
    if len(set(shapes)) > 1:
        raise ValueError(f"{_listed(masks)} must have one shape; got {_listed(map(str, shapes))}")
    for name, mask in masks.items():
        others = mask[(mask != 0) & (mask != 1) & (mask != VOID)]
        if others.size:
            raise ValueError(f"{name} must hold 0, 1 and {VOID} only; got {others[0]}")


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"


def threshold_mask(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Mask of probabilities: uint8, 1 where at least ``threshold``, 255 where not a number."""
    mask = (probabilities >= threshold).astype(np.uint8)
    mask[np.isnan(probabilities)] = VOID
    return mask
