"""How far a difference between two masks or runs would scatter with other scenes.

Two runs measured on the same scenes are compared scene by scene (paired): scenes are drawn with
replacement, their counts added, and the metric of one minus that of the other taken, many times
over. The 2.5 and 97.5 percentiles are the interval. Source: Efron and Tibshirani 1993, "An
Introduction to the Bootstrap", sections 8.3 and 13.3 (percentile interval).

It says what other scenes of the same kind would do to the difference. It says nothing of another
seed of the training, and takes scenes as independent, which neighbours are not.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from jointnet.metrics import Counts

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
