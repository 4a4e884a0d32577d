"""Objects of a mask matched with those of the truth, counted, and divided once."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.tiling import VOID

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo

MATCH_IOU = 0.5
BOUNDARY_PX = 3
_STRIP_ROWS = 512

_COUNTS = (
    *("matched", "true_objects", "predicted_objects", "true_pixels", "predicted_pixels"),
    *("boundary_intersection", "boundary_union"),
)
_SUMS = (*_COUNTS, "polis_px", "polis_m", "pairs_on_ground")


@dataclass(frozen=True, eq=False)
class ObjectCounts:
    """Objects of one or more scenes, and what was matched.

    Attributes:
        matched: pairs of a true and a predicted object with an IoU of at least 0.5.
        true_pixels: pixels of the true objects.
        predicted_pixels: pixels of the predicted objects.
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
        """Add up; boundaries of two widths raise ValueError, as their pixels cannot be added."""
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

    def metrics(self) -> dict[str, float | int | None]:
        """Return the metrics and the counts behind them.

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

        ap50 = None
        if self.scores is not None:
            ap50 = average_precision(self.scores, self.hits, actual)
        return {
            "precision": ratio(self.matched, positive, empty),
            "recall": ratio(self.matched, actual, empty),
            "f1": ratio(2 * self.matched, positive + actual, empty),
            "ap50": ap50,
            "boundary_iou": ratio(self.boundary_intersection, self.boundary_union, 1.0),
            "polis_px": ratio(self.polis_px, self.matched, None),
            "polis_m": ratio(self.polis_m, self.pairs_on_ground, None),
            "count_error": error(positive, actual),
            "area_error": error(self.predicted_pixels, self.true_pixels),
            "boundary_px": self.boundary_px,
            **{name: getattr(self, name) for name in _COUNTS},
        }


def average_precision(scores: np.ndarray, hits: np.ndarray, actual: int) -> float:
    """Return the average precision of scored objects, interpolated at 101 recalls as COCO does.

    ``AP = mean over r = 0, 0.01, ..., 1 of max {precision at recalls of at least r}``, 0 for
    recalls that are not reached. Objects enter from the highest score down; those of equal scores
    enter together, so that their order changes nothing. Source: Lin et al. 2014, "Microsoft COCO:
    Common Objects in Context", and its evaluation code; for AP50 an IoU of 0.5 makes a hit.

    Args:
        scores: ``(n,)`` float, higher is more certain; NaN (all pixels void) comes last.
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


def count_objects(
    truth: np.ndarray,
    prediction: np.ndarray,
    probabilities: np.ndarray | None = None,
    info: "RasterInfo | None" = None,
) -> ObjectCounts:
    """Match the objects of a prediction with those of the truth.

    Memory holds two numbers of 32 bits for each pixel beside the masks.

    Args:
        truth: ``(height, width)`` uint8 mask of 0, 1 and 255 (void).
        prediction: mask of the same shape and values.
        probabilities: ``(height, width)`` float, 0..1, NaN where void: an object's score is
            their mean over its pixels. None for no scores.
        info: of the raster, for distances in metres where it has a place on the ground.

    Raises:
        ValueError: shapes that differ or are not two-dimensional.
    """
    if truth.ndim != 2 or truth.shape != prediction.shape:
        raise ValueError(
            f"masks must be (height, width) of one shape; got {truth.shape} and {prediction.shape}"
        )
    valid = (truth != VOID) & (prediction != VOID)
    true, true_areas = _components(truth, valid)
    found, found_areas = _components(prediction, valid)
    pairs = match(true, found, true_areas, found_areas)
    scores = None
    if probabilities is not None:
        scores = _means(found, probabilities, valid, len(found_areas))[found_areas > 0]
    hits = np.zeros(len(found_areas), bool)
    hits[pairs[:, 1]] = True
    outlines = [
        _outlines(mask, labels, numbers)
        for mask, labels, numbers in ((truth, true, pairs[:, 0]), (prediction, found, pairs[:, 1]))
    ]
    inner, outer = boundaries(truth, prediction, BOUNDARY_PX)
    polis_m, pairs_on_ground = _on_ground(outlines, info)
    return ObjectCounts(
        matched=len(pairs),
        true_objects=int(np.count_nonzero(true_areas)),
        predicted_objects=int(np.count_nonzero(found_areas)),
        true_pixels=int(true_areas.sum()),
        predicted_pixels=int(found_areas.sum()),
        boundary_intersection=inner,
        boundary_union=outer,
        boundary_px=BOUNDARY_PX,
        polis_px=float(polis(*outlines).sum()),
        polis_m=polis_m,
        pairs_on_ground=pairs_on_ground,
        scores=scores,
        hits=hits[found_areas > 0],
    )


def _components(mask: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each pixel's object, 0 for none, and the valid pixels of each number.

    Objects that are void for the most part do not count: they have 0 pixels.
    """
    import cv2

    if not mask.size:
        return np.zeros(mask.shape, np.int32), np.zeros(1, np.int64)
    number, labels = cv2.connectedComponents((mask == 1).astype(np.uint8), connectivity=4)
    whole, areas = np.zeros(number, np.int64), np.zeros(number, np.int64)
    for row in range(0, len(mask), _STRIP_ROWS):
        strip, counted = labels[row : row + _STRIP_ROWS], valid[row : row + _STRIP_ROWS]
        whole += np.bincount(strip.ravel(), minlength=number)
        areas += np.bincount(strip[counted], minlength=number)
    areas[2 * areas < whole] = 0
    areas[0] = 0
    return labels, areas


def match(
    true: np.ndarray, found: np.ndarray, true_areas: np.ndarray, found_areas: np.ndarray
) -> np.ndarray:
    """Match objects with an IoU of at least 0.5, one to one.

    Objects of one mask do not overlap, so an object has at most one partner above 0.5, and any
    order of matching finds the same pairs (Kirillov et al. 2019, "Panoptic Segmentation", section
    4.1). Only an object whose halves are two objects of the other mask is a tie; the half that
    comes first then gets it.

    ``true`` and ``found`` are ``(height, width)`` int32, the number of each pixel's object, 0 for
    none. The areas are ``(numbers,)`` int64, the pixels of each, 0 for objects that do not count.

    Returns:
        ``(pairs, 2)`` int64 of true and predicted numbers, by descending IoU.
    """
    both = (true > 0) & (found > 0)
    keys, shared = np.unique(
        true[both].astype(np.int64) * len(found_areas) + found[both], return_counts=True
    )
    one, other = np.divmod(keys, len(found_areas))
    counted = (true_areas[one] > 0) & (found_areas[other] > 0)
    one, other, shared = one[counted], other[counted], shared[counted]
    # No pixel of both is void in either, so what is shared is valid.
    iou = shared / (true_areas[one] + found_areas[other] - shared)
    candidates = np.flatnonzero(iou >= MATCH_IOU)
    candidates = candidates[np.argsort(-iou[candidates], kind="stable")]
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for a, b in zip(one[candidates].tolist(), other[candidates].tolist(), strict=True):
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            pairs.append((a, b))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _means(
    labels: np.ndarray, probabilities: np.ndarray, valid: np.ndarray, number: int
) -> np.ndarray:
    """Return the mean probability of each object's valid pixels; NaN where none has one."""
    sums, counts = np.zeros(number), np.zeros(number, np.int64)
    for row in range(0, len(labels), _STRIP_ROWS):
        strip, values = labels[row : row + _STRIP_ROWS], probabilities[row : row + _STRIP_ROWS]
        counted = (strip > 0) & valid[row : row + _STRIP_ROWS] & ~np.isnan(values)
        sums += np.bincount(strip[counted], values[counted], number)
        counts += np.bincount(strip[counted], minlength=number)
    return np.divide(sums, counts, out=np.full(number, np.nan), where=counts > 0)


def boundaries(truth: np.ndarray, prediction: np.ndarray, width_px: int) -> tuple[int, int]:
    """Return how many pixels the intersection and the union of two masks' boundaries have.

    ``Boundary IoU = |(G_d and G) and (P_d and P)| / |(G_d and G) or (P_d and P)|``, where ``G_d``
    are the pixels within a distance d of the contour of G. Source: Cheng, Girshick, Dollar,
    Berg and Kirillov 2021, "Boundary IoU: Improving Object-Centric Image Segmentation
    Evaluation", equation 1. As in its code, the boundary is what d erosions by 3 x 3 pixels take
    off, so distance is the larger of rows and columns, and a mask that reaches the edge of the
    raster has a contour there. In the source d is 2 % of the image's diagonal: of a tile of 5000
    pixels 141, more than most buildings are wide. Here d is a number of pixels. The edge of void
    is no contour, and pixels that are void in either mask do not count.

    The masks are ``(height, width)`` uint8 of 0, 1 and 255 (void); ``width_px`` is d, 1 or more.
    """
    import cv2

    if not truth.size:
        return 0, 0
    kernel = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)
    valid = (truth != VOID) & (prediction != VOID)
    rings = []
    for mask in (truth, prediction):
        inside = (mask != 0).astype(np.uint8)
        eroded = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        rings.append((mask == 1) & (eroded == 0) & valid)
    return int(np.count_nonzero(rings[0] & rings[1])), int(np.count_nonzero(rings[0] | rings[1]))


def polis(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the PoLiS distance of pairs of polygons, in the unit of their coordinates.

    ``p(A, B) = sum over vertices a of A of d(a, outline of B) / (2 q)
    + sum over vertices b of B of d(b, outline of A) / (2 r)``, of q and r vertices: half the mean
    distance from the vertices of each to the nearest point of the other's outline. 0 for equal
    polygons. Source: Avbelj, Mueller and Bamler 2015, "A Metric for Polygon Comparison and
    Building Extraction Evaluation", IEEE GRSL 12(1), equation 3. Outer rings only, as its public
    implementation has it. Outlines of masks have a vertex at every step of their pixels.

    Both are object arrays ``(n,)`` of polygons, in the order of the pairs; the result is float64
    ``(n,)``.
    """
    import shapely

    rings = [shapely.get_exterior_ring(polygons) for polygons in (true, found)]
    total = np.zeros(len(true))
    for ring, other in (rings, rings[::-1]):
        # Without the last point, which is the first again.
        vertices = shapely.get_num_points(ring) - 1
        points, owner = shapely.get_coordinates(ring, return_index=True)
        kept = np.diff(owner, append=-1) == 0
        distances = shapely.distance(shapely.points(points[kept]), other[owner[kept]])
        total += np.bincount(owner[kept], distances, len(true)) / (2 * np.maximum(vertices, 1))
    return total


def _outlines(mask: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the polygons, in pixels, of objects by number: object array."""
    import shapely

    from preprocessing.mask_outlines import polygonise

    if not len(numbers):
        return np.zeros(0, object)
    polygons = np.array(polygonise(mask), dtype=object)
    # A point on an edge between two pixels is inside the polygon, and so are both pixels.
    inner = shapely.get_coordinates(shapely.point_on_surface(polygons)).astype(np.int64)
    of_number = np.zeros(labels.max() + 1, object)
    of_number[labels[inner[:, 1], inner[:, 0]]] = polygons
    return of_number[numbers]


def _on_ground(outlines: list[np.ndarray], info: "RasterInfo | None") -> tuple[float, int]:
    """Return the sum of PoLiS in metres, and of how many pairs: 0 without a place on the ground."""
    import shapely

    from preprocessing.ground import placement

    place = None if info is None else placement(info)
    if place is None or place.crs is None:
        return 0.0, 0
    placed = [shapely.transform(place.outlines(one), place.metres) for one in outlines]
    return float(polis(*placed).sum()), len(outlines[0])
