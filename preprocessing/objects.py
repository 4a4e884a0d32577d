"""Objects of a mask against those of the truth: matching, scores, boundaries and outlines.

An object is a connected piece of target; pixels that share an edge belong together, as in
``footprints``. Touching houses are one object, in the truth too, polygons included, as they are
compared after they were drawn into a mask. No object is too small to count.

Void: an object ends where its own mask is void. One with more than half of its pixels under void
of the other mask is counted nowhere, as nothing is known of it there; of the others, pixels under
the other mask's void count in no area, IoU or score.
"""

from typing import TYPE_CHECKING

import numpy as np

from preprocessing.object_counts import ObjectCounts
from preprocessing.tiling import VOID

if TYPE_CHECKING:
    from preprocessing.rasters import RasterInfo

MATCH_IOU = 0.5
BOUNDARY_PX = 3
_STRIP_ROWS = 512


def count_objects(
    truth: np.ndarray,
    prediction: np.ndarray,
    probabilities: np.ndarray | None = None,
    info: "RasterInfo | None" = None,
    boundary_px: int = BOUNDARY_PX,
) -> ObjectCounts:
    """Match the objects of a prediction with those of the truth.

    Memory holds two numbers of 32 bits for each pixel beside the masks.

    Args:
        truth: ``(height, width)`` uint8 mask of 0, 1 and 255 (void).
        prediction: mask of the same shape and values.
        probabilities: ``(height, width)`` float, 0..1, NaN where void: an object's score is
            their mean over its pixels. None for no scores.
        info: of the raster, for distances in metres where it has a place on the ground.
        boundary_px: width of the boundaries, see ``boundaries``.

    Returns:
        The counts; zeros where nothing is target or all is void.

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
    inner, outer = boundaries(truth, prediction, boundary_px)
    polis_m = _on_ground(outlines, info)
    return ObjectCounts(
        matched=len(pairs),
        true_objects=int(np.count_nonzero(true_areas)),
        predicted_objects=int(np.count_nonzero(found_areas)),
        true_pixels=int(true_areas.sum()),
        predicted_pixels=int(found_areas.sum()),
        boundary_intersection=inner,
        boundary_union=outer,
        boundary_px=boundary_px,
        polis_px=float(polis(*outlines).sum()),
        polis_m=0.0 if polis_m is None else polis_m,
        pairs_on_ground=0 if polis_m is None else len(pairs),
        scores=scores,
        hits=hits[found_areas > 0],
    )


def _components(mask: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the objects, and count their valid pixels.

    Returns:
        ``(height, width)`` int32, 0 for no object, and ``(numbers,)`` int64, 0 for number 0 and
        for objects that are not to be counted.
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
    """Pairs of objects with an IoU of at least 0.5, one to one, greedily by IoU.

    Objects of one mask do not overlap, so an object has at most one partner above 0.5, and no
    order of matching (by IoU, by score, or the best of all) could find other pairs (Kirillov et
    al. 2019, "Panoptic Segmentation", section 4.1). Only an object whose halves are two objects
    of the other mask is a tie; the half that comes first then gets it.

    Args:
        true: ``(height, width)`` int32, number of the true object of each pixel, 0 for none.
        found: the same of the predicted objects.
        true_areas: ``(numbers,)`` int64, pixels of each; 0 for objects that do not count.
        found_areas: the same of the predicted objects.

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
    """Mean probability of each object's valid pixels; NaN where none has one."""
    sums, counts = np.zeros(number), np.zeros(number, np.int64)
    for row in range(0, len(labels), _STRIP_ROWS):
        strip, values = labels[row : row + _STRIP_ROWS], probabilities[row : row + _STRIP_ROWS]
        counted = (strip > 0) & valid[row : row + _STRIP_ROWS] & ~np.isnan(values)
        sums += np.bincount(strip[counted], values[counted], number)
        counts += np.bincount(strip[counted], minlength=number)
    return np.divide(sums, counts, out=np.full(number, np.nan), where=counts > 0)


def boundaries(truth: np.ndarray, prediction: np.ndarray, width_px: int) -> tuple[int, int]:
    """Pixels of the intersection and of the union of two masks' boundaries.

    ``Boundary IoU = |(G_d and G) and (P_d and P)| / |(G_d and G) or (P_d and P)|``, where ``G_d``
    are the pixels within a distance d of the contour of G. Source: Cheng, Girshick, Dollar,
    Berg and Kirillov 2021, "Boundary IoU: Improving Object-Centric Image Segmentation
    Evaluation", equation 1. As in its code, the boundary is what d erosions by 3 x 3 pixels take
    off, so distance is the larger of rows and columns, and a mask that reaches the edge of the
    raster has a contour there. There d is 2 % of the image's diagonal, meant for photographs of a
    few large objects; of a tile of 5000 pixels that would be 141, more than most buildings are
    wide. Here d is a number of pixels. Where a mask ends at void is no contour, and pixels that
    are void in either mask do not count.

    Args:
        truth: ``(height, width)`` uint8 mask of 0, 1 and 255 (void).
        prediction: mask of the same shape and values.
        width_px: d, 1 or more.
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
    """PoLiS distance of pairs of polygons, in the unit of their coordinates.

    ``p(A, B) = sum over vertices a of A of d(a, outline of B) / (2 q)
    + sum over vertices b of B of d(b, outline of A) / (2 r)``, of q and r vertices: half the mean
    distance from the vertices of each to the nearest point of the other's outline. 0 for equal
    polygons. Source: Avbelj, Mueller and Bamler 2015, "A Metric for Polygon Comparison and
    Building Extraction Evaluation", IEEE GRSL 12(1), equation 3. Outer rings only, as its public
    implementation has it. Outlines of masks have a vertex at every step of their pixels.

    Args:
        true: object array ``(n,)`` of polygons.
        found: object array ``(n,)`` of their partners.

    Returns:
        float64 ``(n,)``.
    """
    import shapely

    rings = [shapely.get_exterior_ring(polygons) for polygons in (true, found)]
    total = np.zeros(len(true))
    for ring, other in (rings, rings[::-1]):
        # Without the last point, which is the first again.
        vertices = shapely.get_num_points(ring) - 1
        points, owner = shapely.get_coordinates(ring, return_index=True)
        kept = np.r_[owner[1:] == owner[:-1], np.zeros(min(len(owner), 1), bool)].astype(bool)
        distances = shapely.distance(shapely.points(points[kept]), other[owner[kept]])
        total += np.bincount(owner[kept], distances, len(true)) / (2 * np.maximum(vertices, 1))
    return total


def _outlines(mask: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Polygons, in pixels, of objects by number: object array ``(len(numbers),)``."""
    import shapely

    from preprocessing.footprints import polygonise

    if not len(numbers):
        return np.zeros(0, object)
    polygons = np.array(polygonise(mask), dtype=object)
    # On an edge between pixels, which is inside of the polygon, both pixels are its own.
    inner = shapely.get_coordinates(shapely.point_on_surface(polygons)).astype(np.int64)
    of_number = np.zeros(labels.max() + 1, object)
    of_number[labels[inner[:, 1], inner[:, 0]]] = polygons
    return of_number[numbers]


def _on_ground(outlines: list[np.ndarray], info: "RasterInfo | None") -> float | None:
    """Sum of PoLiS in metres; None where the raster has no place on the ground."""
    import shapely

    from preprocessing.placement import placement

    place = None if info is None else placement(info)
    if place is None or place.crs is None:
        return None
    placed = [shapely.transform(place.outlines(one), place.metres) for one in outlines]
    return float(polis(*placed).sum())
