"""Metrics of masks from integer counts: counts are added over everything, then divided once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

import numpy as np

from preprocessing.tiling import VOID

METRICS = ("iou", "f1", "precision", "recall", "accuracy")
"""The metrics of pixels, in the order of tables."""
RELAXED_METRICS = ("completeness", "correctness", "quality")
BUFFER_PX = 3
PATCH = 512
SHARE = 0.05

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
ENOUGH = 6
"""Below, no verdict: five scenes all fall on one side by chance once in 16 times (sign test)."""
# Weights of 10,000 scenes at once, 8 bytes each, are 80 MB.
_CHUNK_ELEMENTS = 10_000_000


class _Added:
    """Counts that are added field by field."""

    def __add__(self, other: Self) -> Self:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return type(self)(*(one + more for one, more in pairs))


# Pixels


@dataclass(frozen=True)
class Counts(_Added):
    """The binary confusion matrix, in pixels."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @property
    def pixels(self) -> int:
        """All pixels counted."""
        return sum(vars(self).values())

    def metrics(self) -> dict[str, float]:
        """Return accuracy, precision, recall, F1 and IoU of the target class, see ``ratios``."""
        return {name: float(ratio) for name, ratio in ratios(*vars(self).values()).items()}


def ratios(
    true_positive: np.ndarray | int,
    false_positive: np.ndarray | int,
    false_negative: np.ndarray | int,
    true_negative: np.ndarray | int,
) -> dict[str, np.ndarray]:
    """Divide the counts of one or many confusion matrices.

    A ratio without a denominator is 1 where neither truth nor prediction has target (they agree),
    and 0 otherwise. Accuracy without any pixel is 1.

    Returns:
        ``accuracy``, ``precision``, ``recall``, ``f1`` and ``iou``, float64 in 0..1, of the shape
        of the counts.
    """
    found, wanted = true_positive + false_positive, true_positive + false_negative
    empty = np.asarray(found + wanted == 0, np.float64)
    fractions = {
        "accuracy": (true_positive + true_negative, found + false_negative + true_negative),
        "precision": (true_positive, found),
        "recall": (true_positive, wanted),
        "f1": (2 * true_positive, found + wanted),
        "iou": (true_positive, found + false_negative),
    }
    return {
        name: np.divide(part, whole, out=empty.copy(), where=np.greater(whole, 0))
        for name, (part, whole) in fractions.items()
    }


def count(truth: np.ndarray, prediction: np.ndarray) -> Counts:
    """Count a prediction against the truth.

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
    pairs = 2 * truth[valid].astype(np.uint8) + prediction[valid].astype(np.uint8)
    # The bins are true negative, false positive, false negative and true positive.
    return Counts(*np.bincount(pairs, minlength=4)[[3, 1, 2, 0]].tolist())


def check_masks(**masks: np.ndarray) -> None:
    """Raise ValueError unless arrays, given by name, have one shape and hold 0, 1 and 255 only."""
    if len({mask.shape for mask in masks.values()}) > 1:
        shapes = ", ".join(f"{name} {mask.shape}" for name, mask in masks.items())
        raise ValueError(f"masks must have one shape; got {shapes}")
    for name, mask in masks.items():
        others = mask[(mask != 0) & (mask != 1) & (mask != VOID)]
        if others.size:
            raise ValueError(f"{name} must hold 0, 1 and {VOID} only; got {others[0]}")


def threshold_mask(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return a uint8 mask: 1 where at least ``threshold``, 255 where not a number, else 0."""
    mask = (probabilities >= threshold).astype(np.uint8)
    mask[np.isnan(probabilities)] = VOID
    return mask


# Pixels within a buffer


@dataclass(frozen=True)
class RelaxedCounts(_Added):
    """Target pixels of both sides: those with a counterpart within the buffer, and all."""

    true_found: int = 0
    true_total: int = 0
    predicted_right: int = 0
    predicted_total: int = 0

    def metrics(self) -> dict[str, float]:
        """Return completeness, correctness and quality, each in 0..1.

        Completeness (relaxed recall) is the share of true pixels that were found, correctness
        (relaxed precision) the share of predicted pixels that are right; quality is
        ``cp * cr / (cp + cr - cp * cr)``, which is the IoU where the buffer is 0.

        A share of no pixels is 1 where all pixels of the other side are matched, also if there
        are none, and 0 otherwise.
        """
        true_matched = self.true_found == self.true_total
        predicted_matched = self.predicted_right == self.predicted_total

        def share(part: int, whole: int, others_matched: bool) -> float:
            return part / whole if whole else float(others_matched)

        completeness = share(self.true_found, self.true_total, predicted_matched)
        correctness = share(self.predicted_right, self.predicted_total, true_matched)
        both = completeness * correctness
        quality = both / (completeness + correctness - both) if both else 0.0
        return {"completeness": completeness, "correctness": correctness, "quality": quality}


def count_relaxed(
    truth: np.ndarray,
    prediction: np.ndarray,
    buffer_px: int = BUFFER_PX,
    label: np.ndarray | None = None,
) -> RelaxedCounts:
    """Count matches of a prediction and the truth within a buffer.

    Void pixels are not counted, but they do match: a true pixel is found by predicted target
    where the truth is void, and a predicted pixel is right beside a road that the label draws
    where there is no imagery. The second needs ``label``, as void hides it in ``truth``.

    Args:
        truth: ``(height, width)`` uint8 mask of 0, 1 and 255 (void); may be empty.
        prediction: mask of 0 and 1, or 255 where nothing was predicted; same shape.
        buffer_px: Euclidean distance of two pixels' centres up to which they match, 0 or more.
        label: the truth as it was before void was put in, of 0, 1 and 255 where it has no data
            itself; same shape. None for ``truth``.

    Returns:
        Counts over the pixels that are void neither in ``truth`` nor in ``prediction``.

    Raises:
        ValueError: shapes that differ or are not two-dimensional, a value that is none of 0, 1
            and 255, or a negative buffer.
    """
    label = truth if label is None else label
    check_masks(truth=truth, prediction=prediction, label=label)
    valid = (truth != VOID) & (prediction != VOID)
    true, predicted = (truth == 1) & valid, (prediction == 1) & valid
    found, right = near(prediction == 1, buffer_px), near(label == 1, buffer_px)
    counted = (true & found, true, predicted & right, predicted)
    return RelaxedCounts(*(int(np.count_nonzero(pixels)) for pixels in counted))


def near(target: np.ndarray, buffer_px: int) -> np.ndarray:
    """Return which pixels have target within ``buffer_px``, Euclidean and inclusive.

    Both arrays are ``(height, width)`` bool; outside of them there is no target. Another shape or
    a negative buffer raises ValueError.

    Target is dilated with the disc of that radius, row by row of the disc, which rounds no
    distance. Time grows with the radius, not with its square; a distance transform takes 75 times
    as long, and calls every pixel of an empty mask near.
    """
    if target.ndim != 2 or buffer_px < 0:
        raise ValueError(
            "masks must be (height, width) and the buffer 0 pixels or more; "
            f"got {target.shape} and {buffer_px}"
        )
    # From the disc's outermost rows, which are the narrowest, to its middle.
    found, widened, reach = np.zeros_like(target), target.copy(), 0
    for offset in range(buffer_px, -1, -1):
        while (reach + 1) ** 2 + offset**2 <= buffer_px**2:
            reach += 1
            widened[:, reach:] |= target[:, :-reach]
            widened[:, :-reach] |= target[:, reach:]
        rest = max(len(target) - offset, 0)
        found[offset:] |= widened[:rest]
        found[:rest] |= widened[offset:]
    return found


# Patches with target


@dataclass(frozen=True)
class PatchCounts(_Added):
    """What the patches with target hold together.

    Attributes:
        kept: how many have more than a share of target.
        patches: how many hold a valid pixel.
        counts: of the kept ones; mirrored pixels count again.
    """

    kept: int = 0
    patches: int = 0
    counts: Counts = field(default_factory=Counts)


def weights(length: int, patch: int = PATCH) -> np.ndarray:
    """Return how often each pixel of an axis counts in each patch: ``(patches, length)`` int64.

    An axis longer than a patch is padded to whole patches by its mirror image on both sides (by
    one pixel more at the end, where the padding is odd), so that pixels near its ends count
    twice; a shorter one is one patch as it is.
    """
    padding = -length % patch if length > patch else 0
    # Up to 511 pixels on an axis of 513 or more: mirrored once is enough.
    pixel = np.pad(np.arange(length), (padding // 2, padding - padding // 2), mode="reflect")
    number = np.arange(len(pixel)) // patch
    counted = np.zeros((number[-1] + 1, length), np.int64)
    np.add.at(counted, (number, pixel), 1)
    return counted


class PatchGrid:
    """Adds up the confusion matrix of every patch of a scene that is read in strips of rows."""

    def __init__(self, height: int, width: int, patch: int = PATCH):
        self._rows, self._columns = weights(height, patch), weights(width, patch)
        # Of valid, true, predicted, and both of the latter.
        self._sums = np.zeros((4, len(self._rows), len(self._columns)), np.int64)

    def add(self, row: int, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count a strip, whose first row is ``row`` of the scene.

        Truth and prediction are ``(rows, width)`` uint8 masks of 0, 1 and 255 (void).
        """
        valid = (truth != VOID) & (prediction != VOID)
        true, found = valid & (truth == 1), valid & (prediction == 1)
        classes = [pixels.view(np.uint8) for pixels in (valid, true, found, true & found)]
        weight = self._rows[:, row : row + len(truth)]
        # Runs of rows that count alike; within one, sums stay far below what uint16 holds.
        first = np.flatnonzero(np.r_[True, (weight[:, 1:] != weight[:, :-1]).any(axis=0)])
        for start, stop in zip(first, np.r_[first[1:], len(truth)], strict=True):
            sums = [np.add.reduce(one[start:stop], axis=0, dtype=np.uint16) for one in classes]
            by_column = np.array(sums, np.int64) @ self._columns.T
            self._sums += by_column[:, None, :] * weight[None, :, start, None]

    def counts(self, share: float = SHARE) -> PatchCounts:
        """Add up the patches with more than ``share``, 0..1, of target among their valid pixels.

        Patches without a valid pixel are always left out.
        """
        valid, true = self._sums[:2]
        kept = true / np.maximum(valid, 1) > share
        all_valid, true, found, both = self._sums[:, kept].sum(axis=1).tolist()
        counts = Counts(both, found - both, true - both, all_valid - true - found + both)
        return PatchCounts(int(kept.sum()), int(np.count_nonzero(valid)), counts)


# Differences


@dataclass(frozen=True)
class Difference:
    """The second minus the first, of one metric from counts added over all scenes.

    ``value`` lies in -1..1, ``low`` and ``high`` are the ends of its interval, None with fewer
    than two scenes, and ``number`` is how many scenes with a valid pixel were drawn from.
    """

    value: float
    low: float | None
    high: float | None
    number: int

    @property
    def verdict(self) -> str:
        """In words, what the interval allows to say."""
        if self.low is None:
            return f"{('none', 'only one')[self.number]} with pixels: no interval"
        if self.low <= 0 <= self.high:
            return "not distinguishable"
        if self.number < ENOUGH:
            return f"too few to tell ({ENOUGH} needed)"
        return "higher" if self.low > 0 else "lower"

    def described(self) -> dict:
        """Return attributes and verdict, for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def paired_difference(
    first: Sequence[Counts], second: Sequence[Counts], metric: str = "iou"
) -> Difference:
    """Return the difference of a pooled metric, with its bootstrap interval of 95 % over scenes.

    ``first`` and ``second`` are counts of the same scenes, in the same order, by two masks or
    runs; ``metric`` is one of ``METRICS``. Scenes without a valid pixel in both are left out.
    Scenes are drawn ``RESAMPLES`` times from ``SEED``: the same counts give the same interval.

    Raises:
        ValueError: another number of scenes on one side, or an unknown metric.
    """
    if len(first) != len(second) or metric not in METRICS:
        raise ValueError(
            f"got {len(first)} and {len(second)} scenes and metric {metric!r}; give the same "
            f"scenes twice, and one of {', '.join(METRICS)}"
        )
    pairs = [pair for pair in zip(first, second, strict=True) if any(one.pixels for one in pair)]
    number = len(pairs)
    table = np.array([[list(vars(one).values()) for one in pair] for pair in pairs], np.int64)
    table = table.reshape(number, 2, 4)

    def difference(drawn: np.ndarray) -> np.ndarray:
        """``(resamples,)`` from how often each scene is drawn, ``(resamples, scenes)``."""
        one, other = (ratios(*(drawn @ table[:, side]).T)[metric] for side in (0, 1))
        return other - one

    value = float(difference(np.ones((1, number), np.int64))[0])
    if number < 2:
        return Difference(value, None, None, number)
    # scipy.stats.bootstrap has the same ends, but takes up to three times as long and draws
    # other scenes than the tables in results/ were made of.
    generator, equal = np.random.default_rng(SEED), np.full(number, 1 / number)
    step = max(1, _CHUNK_ELEMENTS // number)
    sizes = [min(step, RESAMPLES - begin) for begin in range(0, RESAMPLES, step)]
    drawn = [difference(generator.multinomial(number, equal, size)) for size in sizes]
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(value, float(low), float(high), number)
