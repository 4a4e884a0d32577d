"""Pixel metrics from integer counts: counts are added over everything, and divided once."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from preprocessing.tiling import VOID


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


BUFFER_PX = 3


@dataclass(frozen=True)
class RelaxedCounts:
    """Pixels that have a counterpart within the buffer, and all of them.

    Attributes:
        true_found: true target pixels with predicted target within the buffer.
        true_total: true target pixels.
        predicted_right: predicted target pixels with true target within the buffer.
        predicted_total: predicted target pixels.
    """

    true_found: int = 0
    true_total: int = 0
    predicted_right: int = 0
    predicted_total: int = 0

    def __add__(self, other: "RelaxedCounts") -> "RelaxedCounts":
        return RelaxedCounts(
            self.true_found + other.true_found,
            self.true_total + other.true_total,
            self.predicted_right + other.predicted_right,
            self.predicted_total + other.predicted_total,
        )

    def measures(self) -> dict[str, float]:
        """Completeness, correctness and quality, each in 0..1.

        Completeness (relaxed recall) is the share of true pixels that were found, correctness
        (relaxed precision) the share of predicted pixels that are right; quality is
        ``cp * cr / (cp + cr - cp * cr)``, which is the IoU where the buffer is 0.

        A share of no pixels is 1 where all pixels on the other side are matched, as they are
        where there are none either, and 0 otherwise.
        """
        true_matched = self.true_found == self.true_total
        predicted_matched = self.predicted_right == self.predicted_total

        def share(part: int, whole: int, others_matched: bool) -> float:
            return part / whole if whole else float(others_matched)

        completeness = share(self.true_found, self.true_total, predicted_matched)
        correctness = share(self.predicted_right, self.predicted_total, true_matched)
        both = completeness * correctness
        return {
            "completeness": completeness,
            "correctness": correctness,
            "quality": both / (completeness + correctness - both) if both else 0.0,
        }


def count_relaxed(
    truth: np.ndarray,
    prediction: np.ndarray,
    buffer_px: int = BUFFER_PX,
    label: np.ndarray | None = None,
) -> RelaxedCounts:
    """Relaxed counts of a prediction against the truth.

    Void pixels are left out of the counting, not of the search: a true pixel is matched by
    predicted target where the truth is void, and a predicted pixel by a road that the label draws
    where there is no imagery. The second needs ``label``, as void hides it in ``truth``.

    Args:
        truth: ``(height, width)`` uint8 mask of 0, 1 and 255 (void); may be empty.
        prediction: mask of 0 and 1, or 255 where nothing was predicted; same shape.
        buffer_px: pixels, 0 or more, up to which two pixels match: the Euclidean distance of
            their centres, inclusive.
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
    return RelaxedCounts(
        true_found=_number(true & near(prediction == 1, buffer_px)),
        true_total=_number(true),
        predicted_right=_number(predicted & near(label == 1, buffer_px)),
        predicted_total=_number(predicted),
    )


def near(target: np.ndarray, buffer_px: int) -> np.ndarray:
    """Where target lies within a distance.

    Target is dilated with the disc of that radius, row by row of the disc, which is exact: no
    distance is rounded. Time grows with the radius, not with its square.

    Args:
        target: ``(height, width)`` bool; may be empty.
        buffer_px: pixels, 0 or more; Euclidean, inclusive.

    Returns:
        ``(height, width)`` bool. Nothing lies outside the array.

    Raises:
        ValueError: not two-dimensional, or a negative buffer.
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


def _number(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


PATCH = 512
SHARE = 0.05


@dataclass(frozen=True)
class PatchCounts:
    """What the patches that are left hold together.

    Attributes:
        kept: patches with more than so much target.
        patches: all patches that hold a valid pixel.
        counts: the confusion matrix over the kept ones, mirrored pixels counted again.
    """

    kept: int = 0
    patches: int = 0
    counts: Counts = field(default_factory=Counts)

    def __add__(self, other: "PatchCounts") -> "PatchCounts":
        return PatchCounts(
            self.kept + other.kept, self.patches + other.patches, self.counts + other.counts
        )


def weights(length: int, patch: int = PATCH) -> np.ndarray:
    """How often each pixel of one axis counts in each patch.

    An axis longer than a patch is padded to whole patches by its mirror image on both sides (by
    one pixel more at the end, where the padding is odd); a shorter one is one patch as it is.

    Args:
        length: pixels of the axis, 1 or more.
        patch: pixels of a patch.

    Returns:
        ``(patches, length)`` int64 of 0, 1 and 2.
    """
    padding = -length % patch if length > patch else 0
    # Up to 511 pixels on an axis of 513 or more: mirrored once is enough.
    pixel = np.pad(np.arange(length), (padding // 2, padding - padding // 2), mode="reflect")
    number = np.arange(len(pixel)) // patch
    counted = np.zeros((number[-1] + 1, length), np.int64)
    np.add.at(counted, (number, pixel), 1)
    return counted


class PatchGrid:
    """Adds up the confusion matrix of every patch of a scene that is read in strips of rows.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        patch: side of a patch in pixels.
    """

    def __init__(self, height: int, width: int, patch: int = PATCH):
        self._rows, self._columns = weights(height, patch), weights(width, patch)
        # Of valid, true, predicted, and both of the latter.
        self._sums = np.zeros((4, len(self._rows), len(self._columns)), np.int64)

    def add(self, row: int, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count a strip.

        Args:
            row: of the scene, the strip's first.
            truth: ``(rows, width)`` uint8 mask of 0, 1 and 255 (void).
            prediction: mask of the same shape and values.
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
        """The patches with more than a share of target among their valid pixels.

        Args:
            share: 0..1; patches that have exactly it are left out. Patches without a valid pixel
                always are.
        """
        valid, true, found, both = self._sums
        kept = true / np.maximum(valid, 1) > share
        valid_sum, true, found, both = (int(sums[kept].sum()) for sums in self._sums)
        counts = Counts(both, found - both, true - both, valid_sum - true - found + both)
        return PatchCounts(int(kept.sum()), int(np.count_nonzero(valid)), counts)


RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
ENOUGH = 6
"""Below, no verdict: five scenes all fall on one side by chance once in 16 times (sign test)."""
METRICS = ("iou", "f1", "precision", "recall", "accuracy")
# Weights of 10,000 scenes at once, 8 bytes each, are 80 MB.
_CHUNK_ELEMENTS = 10_000_000


@dataclass(frozen=True)
class Difference:
    """The second minus the first, of one metric from counts added over all scenes.

    Attributes:
        value: the difference, -1..1.
        low: lower end of the interval; None with fewer than two scenes.
        high: upper end of it; None likewise.
        number: how many scenes were drawn from, those with a valid pixel.
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
        """Attributes and verdict, for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def paired_difference(
    first: Sequence[Counts],
    second: Sequence[Counts],
    metric: str = "iou",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """The difference of a pooled metric, with its bootstrap interval of 95 % over scenes.

    Args:
        first: counts of each scene by one mask or run.
        second: those of the same scenes, in the same order, by the other.
        metric: one of ``METRICS``, as ``Counts.metrics`` defines it for empty scenes too.
        resamples: how often scenes are drawn.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        Second minus first. Scenes without a valid pixel in both are left out.

    Raises:
        ValueError: another number of scenes on one side, or an unknown metric.
    """
    if len(first) != len(second) or metric not in METRICS:
        raise ValueError(
            f"got {len(first)} and {len(second)} scenes and metric {metric!r}; give the same "
            f"scenes twice, and one of {', '.join(METRICS)}"
        )
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.pixels or b.pixels]
    pooled = [sum((pair[side] for pair in pairs), Counts()) for side in (0, 1)]
    value = pooled[1].metrics()[metric] - pooled[0].metrics()[metric]
    number = len(pairs)
    if number < 2:
        return Difference(value, None, None, number)
    table = np.array([[list(vars(one).values()) for one in pair] for pair in pairs], np.int64)
    generator = np.random.default_rng(seed)
    differences = []
    step = max(1, _CHUNK_ELEMENTS // number)
    for begin in range(0, resamples, step):
        size = min(step, resamples - begin)
        weights = generator.multinomial(number, np.full(number, 1 / number), size)
        ratios = [_ratio(weights @ table[:, side], metric) for side in (0, 1)]
        differences.append(ratios[1] - ratios[0])
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(np.concatenate(differences), [tail, 100 - tail])
    return Difference(value, float(low), float(high), number)


def _ratio(counts: np.ndarray, metric: str) -> np.ndarray:
    """``Counts.metrics`` of many, ``(n, 4)`` int64 in the order of its fields."""
    true, false, missed, background = counts.T
    found, wanted = true + false, true + missed
    part, whole = {
        "accuracy": (true + background, true + false + missed + background),
        "precision": (true, found),
        "recall": (true, wanted),
        "f1": (2 * true, found + wanted),
        "iou": (true, found + wanted - true),
    }[metric]
    empty = (found + wanted == 0).astype(float)
    return np.divide(part, whole, out=empty, where=whole > 0)
