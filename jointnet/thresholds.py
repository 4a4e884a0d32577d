"""All thresholds at once: precision, recall and IoU over the threshold, and calibration.

Probabilities are counted in bins of 2^-16. Float32 and float64 hold the edges of these bins, and
the product of a probability with 2^16, exactly: the number of pixels that reach ``k / 65536`` is
the one that comparing every pixel gives. Memory is flat: two rows of 65,537 numbers, the last of
which is for the probability 1 itself.
"""

from collections.abc import Sequence

import numpy as np

from jointnet.metrics import Counts, ratios
from preprocessing.tiling import VOID

BINS = 2**16
# Guo et al. take 15 bins, whose edges are no binary numbers.
CALIBRATION_BINS = 16
CURVE_POINTS = 64
_CHUNK = 1 << 22


class ProbabilityHistogram:
    """Counts pixels by probability and truth, of any number of scenes or strips."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS + 1), np.int64)

    def add(self, truth: np.ndarray, probabilities: np.ndarray) -> None:
        """Count pixels.

        Args:
            truth: mask of 0, 1 and 255 (not counted), any shape.
            probabilities: float of the same shape, 0..1, NaN (not counted) where there is none.

        Raises:
            ValueError: the shapes differ, or a probability outside of 0..1.
        """
        if truth.shape != probabilities.shape:
            raise ValueError(
                f"truth and probabilities must have one shape; got {truth.shape} and "
                f"{probabilities.shape}"
            )
        # By strips of rows, which are views of any array.
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
        """Return the metrics of the target at every threshold.

        These are ``threshold``, ``k / 65536`` for k from 0 to 65,536, float64; the int64 counts
        ``true_positive`` and ``false_positive`` of the pixels that reach it; and the
        ``metrics.ratios`` of these, float64.
        """
        # From the right: what reaches a threshold reaches all below.
        false, true = np.cumsum(self._counts[:, ::-1], axis=1)[:, ::-1]
        counts = {"true_positive": true, "false_positive": false}
        rest = {"false_negative": true[0] - true, "true_negative": false[0] - false}
        return {"threshold": np.arange(BINS + 1) / BINS, **counts, **ratios(**counts, **rest)}

    def best(self) -> dict[str, float]:
        """Return the (lowest) threshold of the greatest IoU, with IoU, precision and recall."""
        curve = self.curve()
        place = int(np.argmax(curve["iou"]))
        return {
            name: float(curve[name][place]) for name in ("threshold", "iou", "precision", "recall")
        }

    def calibration(self) -> dict:
        """Return reliability curve and expected calibration error of the target's probability.

        ``sum over bins of pixels in bin / all pixels * |share of target - mean probability|``, over
        16 bins of equal width, the last of which holds 1. Mean probabilities are right to 2^-17.
        Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks",
        equation 3. They take the winning class' confidence, this the probability of the one class.

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

    def describe(self, pooled: Sequence[tuple[float | None, Counts]]) -> dict:
        """Return what ``evaluation.json`` keeps of all thresholds.

        ``pooled`` are thresholds of interest, each with the counts at exactly that threshold over
        the same pixels; None is the unknown threshold of finished masks.

        Returns:
            ``best`` and ``calibration``, as the methods give them; ``cost``, of each of ``pooled``
            its ``threshold``, its ``iou`` and the ``iou_lost`` against the best; and ``curve``,
            every 1024th point of the curve.
        """
        best, curve = self.best(), self.curve()
        names = ("threshold", "precision", "recall", "iou")
        points = zip(
            *(curve[name][:: BINS // CURVE_POINTS].tolist() for name in names), strict=True
        )
        ious = [(threshold, counts.metrics()["iou"]) for threshold, counts in pooled]
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


def threshold_lines(described: dict) -> str:
    """Return lines for a screen: the best threshold, what others cost, and calibration."""
    best, calibration = described["best"], described["calibration"]
    costs = []
    for cost in described["cost"]:
        threshold = "that of the masks" if cost["threshold"] is None else f"{cost['threshold']:g}"
        costs.append(f"{threshold} costs {cost['iou_lost']:.3f} (IoU {cost['iou']:.3f})")
    return (
        f"best threshold on these scenes: {best['threshold']:.3f} (IoU {best['iou']:.3f}, "
        f"precision {best['precision']:.3f}, recall {best['recall']:.3f}); {'; '.join(costs)}\n"
        f"calibration: expected error {calibration['ece']:.3f} over {CALIBRATION_BINS} bins"
    )
