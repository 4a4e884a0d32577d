"""Outlines of a mask that is read in strips of rows: memory holds the shapes that are open.

The pieces that a strip cuts out of a shape are kept until no piece of it reaches the last row
read; then they are joined. Corners of pixels have whole coordinates, so nothing is rounded, and
the outline is the one that the undivided mask has. Coordinates are pixels (column, row).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import rasterio.features
import shapely
from affine import Affine

from preprocessing.outlines import joined_at_corners
from preprocessing.raster_access import gdal_quiet
from preprocessing.tiling import Window, strips

BATCH = 2_000
"""Polygons from which on a batch is full."""


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Polygons within strips, and what they are part of.

    Attributes:
        polygons: object array ``(n,)``.
        cut: whether each touches the border of a strip, so that it may go on there.
        group: the group that each is of, int ``(n,)``.
    """

    polygons: np.ndarray
    cut: np.ndarray
    group: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "_Pieces":
        return _Pieces(self.polygons[chosen], self.cut[chosen], self.group[chosen])

    def joined(self) -> "_Pieces":
        """The groups' polygons as they are in the undivided mask, by their last row.

        No two polygons of a mask have the same bounds, so the order depends on nothing else.
        """
        whole, parts = self[~self.cut], self[self.cut]
        numbers, start = np.unique(np.sort(parts.group), return_index=True)
        by_group = np.split(parts.polygons[np.argsort(parts.group, kind="stable")], start[1:])
        polygons, group = [whole.polygons], [whole.group]
        for number, own in zip(numbers, by_group, strict=False):
            # Pieces that only touch at a corner come back as several polygons.
            made = own if len(own) == 1 else shapely.get_parts(shapely.union_all(own))
            polygons.append(made)
            group.append(np.full(len(made), number))
        polygons, group = np.concatenate(polygons), np.concatenate(group)
        polygons = shapely.normalize(_without_straight_vertices(polygons))
        left, top, right, bottom = shapely.bounds(polygons).reshape(-1, 4).T
        order = np.lexsort((right, top, left, bottom))
        return _Pieces(polygons[order], np.zeros(len(order), bool), group[order])

    def extents(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each group the bounding box, and the number of the group that each piece is of."""
        numbers, index = np.unique(self.group, return_inverse=True)
        low = np.full((len(numbers), 2), np.inf)
        high = -low
        bounds = shapely.bounds(self.polygons).reshape(-1, 4)
        np.minimum.at(low, index, bounds[:, :2])
        np.maximum.at(high, index, bounds[:, 2:])
        return shapely.box(*low.T, *high.T), index


_NONE = _Pieces(np.zeros(0, object), np.zeros(0, bool), np.zeros(0, np.int64))


def outline_batches(
    read: Callable[[Window], np.ndarray],
    height: int,
    width: int,
    *,
    corners: bool = False,
    enclosed: bool = False,
    batch: int = BATCH,
) -> Iterator[np.ndarray]:
    """Outlines of the connected targets of a mask, holes included.

    Pixels that share an edge belong together; those that touch at a corner only are apart
    (connectivity 4; with 8, rings would cross themselves there).

    Args:
        read: gives the mask in a window of whole rows, uint8 ``(height, width)``, of which 1 is
            target; called from top to bottom.
        height: rows of the mask.
        width: columns of the mask.
        corners: polygons that touch at corners come in one batch, also through others.
        enclosed: what lies in the extent of a shape comes in one batch with it; memory then
            holds that too.
        batch: polygons from which on a batch is full; with ``corners`` and ``enclosed`` it may
            hold more.

    Yields:
        Object arrays of valid polygons, normalized, in the order in which a scan from the top
        completes them (with ``corners`` and ``enclosed``, them and what they wait for). None
        for a mask without target.
    """
    found, count = [], 0
    stream = _closed(read, height, width, corners)
    for polygons in _with_enclosed(stream) if enclosed else (made.polygons for made, _ in stream):
        found.append(polygons)
        count += len(polygons)
        if count < batch:
            continue
        whole = np.concatenate(found)
        size = len(whole) if corners or enclosed else batch
        full = len(whole) // size * size
        for first in range(0, full, size):
            yield whole[first : first + size]
        found, count = [whole[full:]], len(whole) - full
    if count:
        yield np.concatenate(found)


def _closed(
    read: Callable[[Window], np.ndarray], height: int, width: int, corners: bool
) -> Iterator[tuple[_Pieces, _Pieces]]:
    """After each strip, what no piece of reaches its last row, joined, and all that is open."""
    from scipy import sparse

    still = _NONE
    above = np.zeros(width, np.int64)
    for strip in strips(height, width):
        bottom = strip.row + strip.height
        pieces = _outlined(read(strip) == 1, strip, corners)
        count = int(still.group.max(initial=-1)) + 1
        own = int(pieces.group.max(initial=-1)) + 1
        below = _row(pieces, strip.row, width)
        pairs = [(above, below)]
        if corners:
            pairs += [(above[1:], below[:-1]), (above[:-1], below[1:])]
        links = np.concatenate(
            [np.stack([one, other + count])[:, (one > 0) & (other > 0)] for one, other in pairs],
            axis=1,
        )
        graph = sparse.coo_array((np.ones(links.shape[1]), links - 1), [count + own] * 2)
        number, merged = sparse.csgraph.connected_components(graph, directed=False)
        everything = _Pieces(
            np.concatenate([still.polygons, pieces.polygons]),
            np.concatenate([still.cut, pieces.cut]),
            merged[np.concatenate([still.group, pieces.group + count])],
        )
        is_open = np.zeros(number, bool)
        if bottom < height:
            reaches = shapely.bounds(pieces.polygons).reshape(-1, 4)[:, 3] == bottom
            is_open[merged[pieces.group[reaches] + count]] = True
        # Open groups are numbered from 0, so that numbers do not grow with the raster.
        renumbered = _Pieces(
            everything.polygons,
            everything.cut,
            np.where(is_open, np.cumsum(is_open) - 1, np.arange(number))[everything.group],
        )
        is_open = is_open[everything.group]
        still = renumbered[is_open]
        yield renumbered[~is_open].joined(), still
        above = _row(still, bottom - 1, width)


def _outlined(target: np.ndarray, strip: Window, corners: bool) -> _Pieces:
    """The pieces of one strip; ``corners`` groups those that touch."""
    pixels = target.view(np.uint8)
    with gdal_quiet():
        shapes = rasterio.features.shapes(
            pixels, target, connectivity=4, transform=Affine.translation(0, strip.row)
        )
        rings = (shape["coordinates"] for shape, _ in shapes)
        polygons = np.array([shapely.Polygon(outer, holes) for outer, *holes in rings], object)
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    cut = (bounds[:, 1] == strip.row) | (bounds[:, 3] == strip.row + strip.height)
    group = joined_at_corners(polygons) if corners else np.arange(len(polygons))
    return _Pieces(polygons, cut, group)


def _row(pieces: _Pieces, row: int, width: int) -> np.ndarray:
    """The group of each pixel of a row, from 1; 0 where there is none."""
    bounds = shapely.bounds(pieces.polygons).reshape(-1, 4)
    there = pieces[(bounds[:, 1] <= row) & (bounds[:, 3] > row)]
    if not len(there.polygons):
        return np.zeros(width, np.int64)
    with gdal_quiet():
        numbers = rasterio.features.rasterize(
            zip(there.polygons, there.group + 1, strict=True),
            (1, width),
            transform=Affine.translation(0, row),
            dtype=np.int32,
        )
    return numbers[0].astype(np.int64)


def _with_enclosed(stream: Iterator[tuple[_Pieces, _Pieces]]) -> Iterator[np.ndarray]:
    """Hold back the groups that lie in the extent of one that is open."""
    waiting: list[_Pieces] = []
    for closed, still in stream:
        first = max((int(own.group.max(initial=-1)) + 1 for own in waiting), default=0)
        waiting.append(_Pieces(closed.polygons, closed.cut, closed.group + first))
        everything = _Pieces(
            *(
                np.concatenate([getattr(own, name) for own in waiting])
                for name in ("polygons", "cut", "group")
            )
        )
        boxes, index = everything.extents()
        tree = shapely.STRtree(still.extents()[0])
        inside = np.zeros(len(boxes), bool)
        inside[tree.query(boxes, predicate="covered_by")[0]] = True
        yield everything.polygons[~inside[index]]
        waiting = [everything[inside[index]]]


def _without_straight_vertices(polygons: np.ndarray) -> np.ndarray:
    """Polygons whose edges run along rows and columns, without vertices on straight edges."""
    if not len(polygons):
        return polygons
    _, points, (rings, owners) = shapely.to_ragged_array(polygons)
    ring = np.repeat(np.arange(len(rings) - 1), np.diff(rings))
    # A ring ends where it begins: each step leads from a vertex to the next.
    upright = np.zeros(len(points), bool)
    upright[:-1] = points[1:, 0] == points[:-1, 0]
    last = np.zeros(len(points), bool)
    last[rings[1:] - 1] = True
    before = np.arange(len(points)) - 1
    before[rings[:-1]] = rings[1:] - 2
    kept = (upright != upright[before]) & ~last
    if kept.sum() == len(points) - last.sum():
        return polygons
    start = np.r_[0, np.cumsum(np.bincount(ring[kept], minlength=len(rings) - 1))]
    points = points[kept]
    closed = np.insert(points, start[1:], points[start[:-1]], axis=0)
    rings = start + np.arange(len(start))
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, closed, (rings, owners))
