"""From a mask to polygons: outlines that follow the pixels, simpler ones, and right angles.

Outlines are in pixels (column, row). Burning them into an empty raster gives the mask again.
Simplification and right angles work in the CRS of a ``Placement``.
"""

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import geopandas
import numpy as np
import rasterio.features
import shapely
from affine import Affine

from preprocessing.errors import JointNetError
from preprocessing.ground import Placement, apply_affine
from preprocessing.raster_access import gdal_quiet
from preprocessing.rasters import LabelReader
from preprocessing.tiling import Window, strips

BATCH = 2_000
"""Polygons in a full batch."""
# A shape takes the place of an outline from this intersection over union on.
_SAME = 0.7


def outline_batches(
    read: Callable[[Window], np.ndarray],
    height: int,
    width: int,
    *,
    corners: bool = False,
    enclosed: bool = False,
    batch: int = BATCH,
) -> Iterator[np.ndarray]:
    """Outline the connected targets of a mask, holes included, strip by strip.

    Pixels that share an edge belong together; those that touch only at a corner are apart
    (connectivity 4; with 8, rings would cross themselves there). Memory holds a strip, the shapes
    that reach its last row, and a batch.

    Args:
        read: returns the mask in a window of whole rows, uint8 ``(rows, width)``, 1 is target;
            called from top to bottom.
        height: of the mask.
        width: of the mask.
        corners: put polygons that touch at corners, also through others, into one batch.
        enclosed: put what lies in the extent of a shape into one batch with it; memory then holds
            that too.
        batch: polygons in a batch; with ``corners`` or ``enclosed`` there may be more.

    Yields:
        Object arrays of valid polygons, normalized, in the order in which a scan from the top
        completes them (with ``corners`` or ``enclosed``, them and what they wait for). None for a
        mask without target.
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


def polygonise(
    mask: str | os.PathLike | np.ndarray, transform: Affine | None = None
) -> list[shapely.Polygon]:
    """Outline the connected targets of a mask, all at once, in the order of ``outline_batches``.

    Args:
        mask: ``(height, width)`` uint8 of 0 background, 1 target, 255 void; or the path of a
            mask or label raster, which is read strip by strip.
        transform: affine from (column, row) to the coordinates wanted; pixels by default.

    Raises:
        RasterError, LabelError: see ``LabelReader``.
        ValueError: an array of another dtype or dimension.
    """
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"mask of {mask.dtype} {mask.shape}: uint8 (height, width) is needed")
        batches = list(outline_batches(lambda window: mask[window.slices], *mask.shape))
    else:
        with LabelReader(mask) as reader:
            batches = list(outline_batches(reader.read, reader.height, reader.width))
    polygons = np.concatenate([np.zeros(0, object), *batches])
    if transform is not None:
        polygons = shapely.transform(polygons, partial(apply_affine, transform))
    return list(polygons)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Polygons ``(n,)`` within strips, and what they are part of.

    Attributes:
        cut: whether each touches the border of a strip, and so may go on there.
        group: number of the group that each belongs to, int ``(n,)``.
    """

    polygons: np.ndarray
    cut: np.ndarray
    group: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "_Pieces":
        return _Pieces(self.polygons[chosen], self.cut[chosen], self.group[chosen])

    @property
    def groups(self) -> int:
        """Groups have numbers below this."""
        return int(self.group.max(initial=-1)) + 1

    def together(self, other: "_Pieces", group: np.ndarray) -> "_Pieces":
        """Return these pieces and others in new groups."""
        polygons = np.concatenate([self.polygons, other.polygons])
        return _Pieces(polygons, np.concatenate([self.cut, other.cut]), group)

    def joined(self) -> "_Pieces":
        """Return the groups' polygons as they are in the undivided mask, by their last row.

        No two polygons of a mask have the same bounds, so these alone give the order.
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
        """Return the groups' bounding boxes, and for each piece the place of its group there."""
        numbers, index = np.unique(self.group, return_inverse=True)
        low = np.full((len(numbers), 2), np.inf)
        high = -low
        bounds = shapely.bounds(self.polygons).reshape(-1, 4)
        np.minimum.at(low, index, bounds[:, :2])
        np.maximum.at(high, index, bounds[:, 2:])
        return shapely.box(*low.T, *high.T), index


_NONE = _Pieces(np.zeros(0, object), np.zeros(0, bool), np.zeros(0, np.int64))


def _closed(
    read: Callable[[Window], np.ndarray], height: int, width: int, corners: bool
) -> Iterator[tuple[_Pieces, _Pieces]]:
    """Yield after each strip the groups that do not reach its last row, joined, and the others."""
    from scipy import sparse

    still = _NONE
    above = np.zeros(width, np.int64)
    for strip in strips(height, width):
        bottom = strip.row + strip.height
        pieces = _outlined(read(strip) == 1, strip, corners)
        count = still.groups
        below = _row(pieces, strip.row, width)
        pairs = [(above, below)]
        if corners:
            pairs += [(above[1:], below[:-1]), (above[:-1], below[1:])]
        links = np.concatenate(
            [np.stack([one, other + count])[:, (one > 0) & (other > 0)] for one, other in pairs],
            axis=1,
        )
        both = [count + pieces.groups] * 2
        graph = sparse.coo_array((np.ones(links.shape[1]), links - 1), both)
        number, merged = sparse.csgraph.connected_components(graph, directed=False)
        is_open = np.zeros(number, bool)
        if bottom < height:
            reaches = shapely.bounds(pieces.polygons).reshape(-1, 4)[:, 3] == bottom
            is_open[merged[pieces.group[reaches] + count]] = True
        # Open groups are numbered from 0, so that numbers do not grow with the raster.
        renumbered = np.where(is_open, np.cumsum(is_open) - 1, np.arange(number))
        group = merged[np.concatenate([still.group, pieces.group + count])]
        everything = still.together(pieces, renumbered[group])
        still = everything[is_open[group]]
        yield everything[~is_open[group]].joined(), still
        above = _row(still, bottom - 1, width)


def _outlined(target: np.ndarray, strip: Window, corners: bool) -> _Pieces:
    """Outline one strip; ``corners`` groups pieces that touch."""
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
    """Return the group of each pixel of a row, from 1; 0 where there is none."""
    bounds = shapely.bounds(pieces.polygons).reshape(-1, 4)
    there = pieces[(bounds[:, 1] <= row) & (bounds[:, 3] > row)]
    if not len(there.polygons):
        return np.zeros(width, np.int64)
    numbers = numbered_pixels(there.polygons, there.group + 1, Window(row, 0, 1, width))
    return numbers[0].astype(np.int64)


def numbered_pixels(
    polygons: np.ndarray, numbers: np.ndarray, window: Window, dtype: type = np.int32
) -> np.ndarray:
    """Return, for each pixel of a window, the number of the last polygon around its centre, or 0.

    Polygons, one at least, are in pixels of the whole raster.
    """
    with gdal_quiet():
        return rasterio.features.rasterize(
            zip(polygons, numbers, strict=True),
            (window.height, window.width),
            transform=Affine.translation(window.column, window.row),
            dtype=dtype,
        )


def _with_enclosed(stream: Iterator[tuple[_Pieces, _Pieces]]) -> Iterator[np.ndarray]:
    """Yield polygons, holding back groups that lie in the extent of an open one."""
    waiting = _NONE
    for closed, still in stream:
        group = np.concatenate([waiting.group, closed.group + waiting.groups])
        everything = waiting.together(closed, group)
        boxes, index = everything.extents()
        tree = shapely.STRtree(still.extents()[0])
        inside = np.zeros(len(boxes), bool)
        inside[tree.query(boxes, predicate="covered_by")[0]] = True
        yield everything.polygons[~inside[index]]
        waiting = everything[inside[index]]


def _without_straight_vertices(polygons: np.ndarray) -> np.ndarray:
    """Drop vertices on straight edges of polygons whose edges run along rows and columns."""
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


def joined_at_corners(outlines: np.ndarray) -> np.ndarray:
    """Number the groups of a mask's outlines that touch each other, if only at a corner.

    Outlines end at a corner; a skeleton goes on through it. The numbers, int ``(n,)``, run from 0
    in the order in which groups first appear.
    """
    from scipy import sparse

    # Polygons of one mask share no edge, so those that intersect touch.
    pairs = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    links = sparse.coo_matrix((np.ones(pairs.shape[1], bool), pairs), [len(outlines)] * 2)
    _, group = sparse.csgraph.connected_components(links, directed=False)
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def simplify_polygons(
    polygons: np.ndarray, place: Placement, tolerance_m: float
) -> tuple[np.ndarray, int]:
    """Leave out vertices so that no outline moves by more than a tolerance.

    After Douglas and Peucker (1973); holes are kept, and no ring crosses another of its polygon.
    The vertices that stay are the polygon's own to the last bit. A polygon is kept as it was where
    the result is empty, invalid, in several parts, or has an intersection over union with it
    below 0.7. Polygons ``(n,)`` are valid and in the CRS of ``place``, which must have one.

    Returns:
        Polygons ``(n,)``, and how many of them were kept as they were.
    """
    metric = shapely.transform(polygons, place.metres)
    simplified = shapely.simplify(numbered_vertices(metric), tolerance_m)
    good = _takes_the_place_of(metric, simplified)
    result = with_numbered(simplified[good], shapely.get_coordinates(polygons))
    return _replaced(polygons, good, result)


def require_right_angles() -> None:
    """Raise a ``JointNetError`` if buildingregulariser is not installed."""
    if importlib.util.find_spec("buildingregulariser") is None:
        raise JointNetError("right angles need `pip install buildingregulariser`")


def right_angled(
    polygons: np.ndarray, place: Placement, tolerance_m: float
) -> tuple[np.ndarray, int, int]:
    """Turn edges to right angles with each other, by buildingregulariser.

    Diagonals at 45 degrees and near circles stay. A polygon is kept as it was where the library
    fails, or where ``simplify_polygons`` would keep it. First, edges are straightened by up to the
    tolerance: about the side of a pixel, or steps remain.

    Returns:
        Polygons ``(n,)``; how many were kept as they were; on how many of these the library failed.
    """
    metric = shapely.transform(polygons, place.metres)
    turned, failed = _regularised(metric, tolerance_m)
    good = _takes_the_place_of(metric, turned)
    result = shapely.transform(turned[good], lambda xy: place.metres(xy, back=True))
    return *_replaced(polygons, good, result), failed


def _regularised(polygons: np.ndarray, tolerance_m: float) -> tuple[np.ndarray, int]:
    """Return what the library makes of each polygon, else None; and how often it failed."""
    from buildingregulariser import regularize_geodataframe

    made = np.full(len(polygons), None, object)
    failed, open_ranges = 0, [np.arange(len(polygons))] if len(polygons) else []
    while open_ranges:
        numbers = open_ranges.pop()
        frame = geopandas.GeoDataFrame({"number": numbers}, geometry=polygons[numbers])
        try:
            with warnings.catch_warnings():
                # It warns about each polygon that it gives back as it was.
                warnings.simplefilter("ignore")
                turned = regularize_geodataframe(
                    frame,
                    parallel_threshold=2 * tolerance_m,
                    simplify_tolerance=tolerance_m,
                    num_cores=1,
                )
        except Exception:  # noqa: BLE001 (whatever it is, the other polygons go on)
            failed += len(numbers) == 1
            open_ranges += np.array_split(numbers, 2) if len(numbers) > 1 else []
            continue
        single = turned[~turned["number"].duplicated(keep=False)]
        made[single["number"].to_numpy()] = single.geometry.to_numpy()
    return made, failed


def _takes_the_place_of(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return where the new shape is one valid polygon about where the old one is; bool (n,)."""
    good = (shapely.get_type_id(new) == 3) & shapely.is_valid(new) & ~shapely.is_empty(new)
    common = shapely.area(shapely.intersection(old[good], new[good]))
    both = shapely.area(old[good]) + shapely.area(new[good]) - common
    good[good] = common >= _SAME * both
    return good


def _replaced(polygons: np.ndarray, good: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, int]:
    """Put valid results in the place of the good polygons; return all, and how many were kept."""
    good[good] = valid = shapely.is_valid(result)
    done = polygons.copy()
    done[good] = result[valid]
    return done, int((~good).sum())


def numbered_vertices(geometries: np.ndarray) -> np.ndarray:
    """Return copies whose heights are the numbers of the vertices, from 0 through all of them."""
    points = shapely.get_coordinates(geometries)
    numbered = np.column_stack([points, np.arange(len(points), dtype=float)])
    return shapely.set_coordinates(shapely.force_3d(geometries), numbered)


def with_numbered(geometries: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return copies, flat again, whose vertices are the points that their heights name."""
    number = shapely.get_coordinates(geometries, include_z=True)[:, 2].astype(int)
    return shapely.set_coordinates(shapely.force_2d(geometries), points[number])
