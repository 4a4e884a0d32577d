"""All thresholds at once: precision, recall and IoU over the threshold, and calibration.

Probabilities are counted in bins of 2^-16, whose edges float32 and float64 hold exactly, as they
do the product with 2^16: a count of the pixels that reach ``k / 65536`` is the count that a
comparison of every pixel would give, whatever was added. Memory is flat: two rows of 65,537
numbers, whose last is the probability 1 itself.
"""

from collections.abc import Sequence

import numpy as np

from jointnet.metrics import Counts
from preprocessing.tiling import VOID

BINS = 2**16
# Guo et al. take 15 bins, whose edges no binary number holds.
CALIBRATION_BINS = 16
CURVE_POINTS = 64
_CHUNK = 1 << 22


class ProbabilityHistogram:
    """Pixels by probability and truth; ``add`` takes any number of scenes or strips."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS + 1), np.int64)

    def add(self, truth: np.ndarray, probabilities: np.ndarray) -> None:
        """Count pixels.

        Args:
            truth: mask of 0, 1 and 255 (void), any shape.
            probabilities: float of the same shape, 0..1, NaN where there is none; pixels that are
                void in either are not counted.

        Raises:
            ValueError: the shapes differ, or a probability outside of 0..1.
        """
        if truth.shape != probabilities.shape:
            raise ValueError(
                f"truth and probabilities must have one shape; got {truth.shape} and "
                f"{probabilities.shape}"
            )
        # Contiguous or not, a view: strips of an array are.
        rows = max(1, _CHUNK // max(1, truth[:1].size))
        for first in range(0, len(truth), rows):
            self._add(truth[first : first + rows], probabilities[first : first + rows])

    def _add(self, truth: np.ndarray, probabilities: np.ndarray) -> None:
        valid = (truth != VOID) & ~np.isnan(probabilities)
        if not valid.all():
            truth, probabilities = truth[valid], probabilities[valid]
        if not truth.size:
            return
        low, high = probabilities.min(), probabilities.max()
        if low < 0 or high > 1:
            raise ValueError(f"probabilities must lie in 0..1; got values from {low:g} to {high:g}")
        if probabilities.dtype.itemsize < 4:
            probabilities = probabilities.astype(np.float32)
        number = (probabilities * BINS).astype(np.int64)
        number += (BINS + 1) * (truth == 1)
        counts = np.bincount(number.ravel(), minlength=2 * (BINS + 1))
        self._counts += counts.reshape(2, -1)

    @property
    def pixels(self) -> int:
        """All pixels counted."""
        return int(self._counts.sum())

    def curve(self) -> dict[str, np.ndarray]:
        """Precision, recall and IoU of the target at every threshold.

        Returns:
            ``threshold``, ``k / 65536`` for k from 0 to 65,536, and of the pixels that have at
            least that probability ``true_positive`` and ``false_positive``, int64; ``precision``,
            ``recall`` and ``iou``, float64, by ``metrics.Counts.metrics``: a ratio without a
            denominator is 1 where neither truth nor prediction has target, else 0.
        """
        # From the right: who reaches a threshold reaches all below.
        false, true = np.cumsum(self._counts[:, ::-1], axis=1)[:, ::-1]
        actual = true[0]
        empty = ((true + false) == 0) & (actual == 0)

        def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
            return np.divide(part, whole, out=empty.astype(float), where=whole > 0)

        return {
            "threshold": np.arange(BINS + 1) / BINS,
            "true_positive": true,
            "false_positive": false,
            "precision": ratio(true, true + false),
            "recall": ratio(true, np.broadcast_to(actual, true.shape)),
            "iou": ratio(true, actual + false),
        }

    def best(self) -> dict[str, float]:
        """The threshold of the greatest IoU, the lowest of several: with precision and recall."""
        curve = self.curve()
        place = int(np.argmax(curve["iou"]))
        return {
            name: float(curve[name][place]) for name in ("threshold", "iou", "precision", "recall")
        }

    def calibration(self) -> dict:
        """Reliability curve and expected calibration error of the target's probability.

        ``sum over bins of pixels in bin / all pixels * |share of target - mean probability|``, over
        16 bins of equal width; the last holds 1. Mean probabilities are right to 2^-17. Source:
        Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks",
        equation 3, there of the winning class' confidence and with 15 bins, here of the probability
        of the one class.

        Returns:
            ``ece`` in 0..1, 0 without pixels, and ``bins``: of each that holds pixels ``from``,
            ``to``, ``pixels``, ``mean_probability`` and ``target_share``.
        """
        first = np.arange(CALIBRATION_BINS) * (BINS // CALIBRATION_BINS)
        # The middle of each of the narrow bins; the last of them holds 1 alone.
        middle = np.append((np.arange(BINS) + 0.5) / BINS, 1.0)
        every = self._counts.sum(axis=0)
        pixels, target, sums = (
            np.add.reduceat(values, first) for values in (every, self._counts[1], every * middle)
        )
        filled = np.maximum(pixels, 1)
        mean, share = sums / filled, target / filled
        bins = [
            {
                "from": number / CALIBRATION_BINS,
                "to": (number + 1) / CALIBRATION_BINS,
                "pixels": int(pixels[number]),
                "mean_probability": float(mean[number]),
                "target_share": float(share[number]),
            }
            for number in np.flatnonzero(pixels).tolist()
        ]
        error = float((pixels * np.abs(share - mean)).sum() / max(self.pixels, 1))
        return {"ece": error, "bins": bins}

    def report(self, pooled: Sequence[tuple[float | None, Counts]]) -> dict:
        """What ``evaluation.json`` keeps of all thresholds.

        Args:
            pooled: thresholds of interest with the counts at exactly them over the same pixels;
                None for the threshold of finished masks, which is not known.

        Returns:
            ``best`` as above; ``cost``, of each of these its ``threshold``, its ``iou`` and
            ``iou_lost`` against the best; ``curve``, every 1024th point of the curve; and
            ``calibration``.
        """
        best, curve = self.best(), self.curve()
        ious = [(threshold, counts.metrics()["iou"]) for threshold, counts in pooled]
        names = ("threshold", "precision", "recall", "iou")
        points = zip(
            *(curve[name][:: BINS // CURVE_POINTS].tolist() for name in names), strict=True
        )
        return {
            "best": best,
            # A threshold between two bins can be better than both by a few pixels.
            "cost": [
                {"threshold": threshold, "iou": iou, "iou_lost": max(best["iou"] - iou, 0.0)}
                for threshold, iou in ious
            ],
            "curve": [dict(zip(names, point, strict=True)) for point in points],
            "calibration": self.calibration(),
        }


def threshold_lines(report: dict) -> str:
    """A report as lines for a screen: the best threshold, what others cost, and calibration."""
    best, calibration = report["best"], report["calibration"]
    costs = []
    for cost in report["cost"]:
        threshold = "that of the masks" if cost["threshold"] is None else f"{cost['threshold']:g}"
        costs.append(f"{threshold} costs {cost['iou_lost']:.3f} (IoU {cost['iou']:.3f})")
    return (
        f"best threshold on these scenes: {best['threshold']:.3f} (IoU {best['iou']:.3f}, "
        f"precision {best['precision']:.3f}, recall {best['recall']:.3f}); {'; '.join(costs)}\n"
        f"calibration: expected error {calibration['ece']:.3f} over {CALIBRATION_BINS} bins"
    )
