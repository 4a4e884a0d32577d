"""What is counted of objects, added over scenes before anything is divided."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class ObjectCounts:
    """Objects of one or more scenes, and what was matched.

    Attributes:
        matched: pairs of a true and a predicted object with an IoU of at least 0.5.
        true_objects: objects of the truth.
        predicted_objects: objects of the prediction.
        true_pixels: pixels of the former.
        predicted_pixels: pixels of the latter.
        boundary_intersection: pixels of both boundaries, see ``boundaries``.
        boundary_union: pixels of either boundary.
        boundary_px: width of the boundaries in pixels.
        polis_px: sum over the pairs of their PoLiS distance in pixels.
        polis_m: the same in metres, over the pairs of scenes that have a place on the ground.
        pairs_on_ground: how many these are.
        scores: mean probability of each predicted object, float64 ``(predicted_objects,)``; None
            where there are no probabilities.
        hits: which of them are matched, bool ``(predicted_objects,)``.
    """

    matched: int = 0
    true_objects: int = 0
    predicted_objects: int = 0
    true_pixels: int = 0
    predicted_pixels: int = 0
    boundary_intersection: int = 0
    boundary_union: int = 0
    boundary_px: int | None = None
    polis_px: float = 0.0
    polis_m: float = 0.0
    pairs_on_ground: int = 0
    scores: np.ndarray | None = field(default_factory=lambda: np.zeros(0))
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        """Both together.

        Raises:
            ValueError: boundaries of two widths, whose pixels cannot be added.
        """
        widths = {self.boundary_px, other.boundary_px} - {None}
        if len(widths) > 1:
            raise ValueError(f"boundaries must have one width; got {sorted(widths)}")
        scored = self.scores is not None and other.scores is not None
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
        return ObjectCounts(
            **sums,
            boundary_px=next(iter(widths), None),
            scores=np.concatenate([self.scores, other.scores]) if scored else None,
            hits=np.concatenate([self.hits, other.hits]),
        )

    def measures(self) -> dict[str, float | int | None]:
        """Figures and the counts behind them.

        Precision ``matched / predicted``, recall ``matched / true`` and
        ``F1 = 2 matched / (predicted + true)`` of objects, and the boundary IoU: a ratio without
        a denominator is 1 where there are neither true nor predicted objects (or boundaries), and
        0 otherwise. ``ap50``: see ``average_precision``; None without probabilities.
        ``polis_px`` and ``polis_m``: mean over the pairs; None without pairs.
        ``count_error = (predicted - true) / true`` of objects and ``area_error``, the same of
        their pixels: 0 without either, None where only the truth is empty.
        """
        positive, actual = self.predicted_objects, self.true_objects
        empty = 1.0 if positive == actual == 0 else 0.0

        def ratio(part: float, whole: float, otherwise: float | None) -> float | None:
            return part / whole if whole else otherwise

        def error(found: int, true: int) -> float | None:
            return ratio(found - true, true, None if found else 0.0)

        return {
            "precision": ratio(self.matched, positive, empty),
            "recall": ratio(self.matched, actual, empty),
            "f1": ratio(2 * self.matched, positive + actual, empty),
            "ap50": None
            if self.scores is None
            else average_precision(self.scores, self.hits, actual),
            "boundary_iou": ratio(self.boundary_intersection, self.boundary_union, 1.0),
            "polis_px": ratio(self.polis_px, self.matched, None),
            "polis_m": ratio(self.polis_m, self.pairs_on_ground, None),
            "count_error": error(positive, actual),
            "area_error": error(self.predicted_pixels, self.true_pixels),
            "boundary_px": self.boundary_px,
            **{name: getattr(self, name) for name in _COUNTS},
        }


_COUNTS = (
    *("matched", "true_objects", "predicted_objects", "true_pixels", "predicted_pixels"),
    *("boundary_intersection", "boundary_union"),
)
_SUMS = (*_COUNTS, "polis_px", "polis_m", "pairs_on_ground")


def average_precision(scores: np.ndarray, hits: np.ndarray, actual: int) -> float:
    """Average precision of scored objects, interpolated at 101 recalls as COCO does.

    ``AP = mean over r = 0, 0.01, ..., 1 of max {precision at recalls of at least r}``, 0 for
    recalls that are not reached. Objects enter from the highest score down; those of equal scores
    enter together, so that the order in which they come changes nothing. Source: Lin et al. 2014,
    "Microsoft COCO: Common Objects in Context", and its evaluation code; AP50 is the one where an
    IoU of 0.5 makes a hit.

    Args:
        scores: ``(n,)`` float, higher is surer; NaN (all pixels void) comes last.
        hits: ``(n,)`` bool, whether the object is matched.
        actual: true objects.

    Returns:
        0..1; 1 without objects on either side, 0 with such on one side only.
    """
    if not len(scores) or not actual:
        return float(len(scores) == actual == 0)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    scores, matched = scores[order], np.cumsum(hits[order])
    last = np.r_[scores[1:] != scores[:-1], True]
    matched, entered = matched[last], np.flatnonzero(last) + 1
    precision = np.maximum.accumulate((matched / entered)[::-1])[::-1]
    # In whole numbers: 0.29 * 100 is no 29.
    place = np.searchsorted(matched * 100, np.arange(101) * actual)
    return float(np.append(precision, 0.0)[place].mean())
