"""From a mask to vector features: footprints or centre lines, with sizes and probabilities.

A mask is read strip by strip, and features come in batches: memory holds a strip, a batch, and the
shapes that are not complete yet.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import geopandas
import numpy as np
import shapely

from preprocessing.centre_lines import network, simplify_network, skeleton
from preprocessing.ground import Placement, placement
from preprocessing.mask_outlines import (
    joined_at_corners,
    numbered_pixels,
    outline_batches,
    require_right_angles,
    right_angled,
    simplify_polygons,
)
from preprocessing.raster_access import raster_info
from preprocessing.rasters import LabelReader, ProbabilityReader
from preprocessing.tiling import VOID, Window, strips

# Metres: about the half width of a road and a bit, which is what the bumps of its edge add.
PRUNE_M = 10.0

Read = Callable[[Window], np.ndarray]
"""What reads windows of a raster: float64 ``(height, width)``, NaN where there is no value."""
Probabilities = str | os.PathLike | Read | None
"""A raster on the mask's grid, or what reads one, or none."""
_Batch = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]
"""Geometries, their sizes, and sums and counts of the probabilities, if there are any."""


@dataclass(frozen=True)
class FeatureSettings:
    """Settings for features. They are ignored if the mask is not georeferenced.

    Attributes:
        min_area_m2: smaller footprints, or connected pieces of road, are left out.
        fill_holes_m2: holes smaller than this are filled, and footprints inside them merged in;
            holes with void stay open. 0 for none.
        simplify_m: metres by which outlines and lines may move to have fewer vertices. None is 0
            for footprints, which then follow the pixels' edges, and the side of a pixel for centre
            lines, which takes off the steps of the raster.
        right_angles: turn edges of footprints to right angles, by buildingregulariser.
        prune_m: side branches of centre lines that end in nothing and are shorter than this are
            removed, the shortest first, until none is left.

    Raises:
        JointNetError: ``right_angles`` without buildingregulariser.
    """

    min_area_m2: float = 0.0
    fill_holes_m2: float = 0.0
    simplify_m: float | None = None
    right_angles: bool = False
    prune_m: float = PRUNE_M

    def __post_init__(self) -> None:
        if self.right_angles:
            require_right_angles()


class MaskFeatures(ABC):
    """Features of one mask, to be iterated over once: frames with ids that run on.

    Frames have the columns ``id`` (int64, from 1), that of the size (geodesic), with probabilities
    ``mean_probability`` (float64, NaN where no pixel has one), and ``geometry``, in the mask's CRS.
    Without a place on the ground, coordinates and sizes are in pixels, and a note says so. There is
    always one frame, if only an empty one. Settings are by default those of
    ``experiments/vectorise.py``.

    Attributes:
        place: ``Placement`` of the mask.
        count: features given so far; complete after the last frame, as ``total`` and ``notes``.
        total: the sum of their sizes.

    Raises:
        RasterError: no such file, no raster, or probabilities of another grid; on iterating too,
            where one is corrupt.
        LabelError: on iterating: the mask has values other than {0, 1} or {0, 255}.
    """

    geometry_type: ClassVar[str]
    noun: ClassVar[str]
    _size: ClassVar[str]
    _unit: ClassVar[str]
    _corners: ClassVar[bool]

    def __init__(
        self,
        mask: str | os.PathLike,
        probabilities: Probabilities = None,
        settings: FeatureSettings | None = None,
    ) -> None:
        self.mask, self.probabilities = mask, probabilities
        self.settings = FeatureSettings() if settings is None else settings
        self.place = placement(raster_info(mask))
        if probabilities is not None and not callable(probabilities):
            ProbabilityReader(probabilities, self.place.info).close()
        self.count, self.total = 0, 0.0
        self._unplaced = 0

    @property
    def unit(self) -> str:
        """Unit of the sizes: "m2", "m" or "px"."""
        return "px" if self.place.crs is None else self._unit

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user: how the mask was placed, what was kept as it was."""
        notes = [self.place.note] if self.place.note else []
        if self.place.crs is None and self._measured:
            notes = [f"{self.place.note[:-1]}; nothing that is measured in metres is done."]
        if self._unplaced:
            notes.append(f"{self._unplaced:,} lie where the CRS leads nowhere, and are left out.")
        return (*notes, *self._kept())

    def __iter__(self) -> Iterator[geopandas.GeoDataFrame]:
        """Read the mask and yield the frames."""
        info, filled = self.place.info, self._fills
        with ExitStack() as stack:
            mask = stack.enter_context(LabelReader(self.mask))
            read = self.probabilities
            if read is not None and not callable(read):
                read = stack.enter_context(ProbabilityReader(read, info)).read
            batches = outline_batches(
                mask.read, info.height, info.width, corners=self._corners, enclosed=filled
            )
            for outlines in batches:
                frame = self._frame(outlines, read)
                if len(frame):
                    yield frame
            if not self.count:
                yield self._frame(np.zeros(0, object), read)

    @property
    def _fills(self) -> bool:
        return self.settings.fill_holes_m2 > 0 and self.place.crs is not None

    @property
    def _measured(self) -> bool:
        """Whether anything was asked for that needs metres."""
        return True

    def _kept(self) -> list[str]:
        """Return notes on what was kept as it was."""
        return []

    def _frame(self, outlines: np.ndarray, read: Read | None) -> geopandas.GeoDataFrame:
        place = self.place
        if place.crs is None:
            areas = shapely.area(outlines)
        else:
            if self._fills:
                outlines = fill_holes(outlines, place, self.settings.fill_holes_m2, self.mask)
            areas = place.areas(place.outlines(outlines))
            placed = np.isfinite(areas)
            self._unplaced += int((~placed).sum())
            outlines, areas = outlines[placed], areas[placed]
        geometries, sizes, sums = self._features(outlines, areas, read)
        ids = np.arange(1, len(geometries) + 1) + self.count
        columns = {"id": ids, f"{self._size}_{self.unit}": sizes}
        if sums is not None:
            none = np.full(len(sizes), np.nan)
            columns["mean_probability"] = np.divide(*sums, out=none, where=sums[1] > 0)
        self.count += len(geometries)
        self.total += float(sizes.sum())
        return geopandas.GeoDataFrame(columns, geometry=geometries, crs=place.crs)

    @abstractmethod
    def _features(self, outlines: np.ndarray, areas: np.ndarray, read: Read | None) -> _Batch:
        """Return the features of outlines of so many pixels or square metres."""


class Footprints(MaskFeatures):
    """Footprints of a mask, each a valid polygon, with ``area_m2`` (or ``area_px``, int64).

    In this order: holes are filled, small footprints left out, vertices simplified, edges turned,
    and what became small by that is left out too. Probabilities are those of the pixels inside
    the outline before it is simplified.
    """

    geometry_type, noun, _size, _unit = "Polygon", "footprint", "area", "m2"
    _corners = False

    _unsimplified = _turned = _unturned = _failed = 0

    @property
    def _measured(self) -> bool:
        chosen = self.settings
        sizes = chosen.min_area_m2, chosen.fill_holes_m2, chosen.simplify_m
        return any(sizes) or chosen.right_angles

    def _kept(self) -> list[str]:
        notes = []
        if self._unsimplified:
            notes.append(f"Simplification would destroy {self._unsimplified:,}: kept as they were.")
        if self._turned + self._unturned:
            found = f"{self._turned:,} turned, {self._unturned:,} kept as they were"
            failed = f" ({self._failed:,} failed)" if self._failed else ""
            notes.append(f"Right angles: {found}{failed}.")
        return notes

    def _features(self, outlines: np.ndarray, areas: np.ndarray, read: Read | None) -> _Batch:
        place, chosen = self.place, self.settings
        if place.crs is not None:
            outlines = outlines[areas >= chosen.min_area_m2]
        sums = None
        if read is not None:
            sums = sums_in_polygons(outlines, place.info.height, place.info.width, read)
        if place.crs is None:
            return outlines, np.rint(areas).astype(np.int64), sums
        polygons = place.outlines(outlines)
        sizes = areas[areas >= chosen.min_area_m2]
        if chosen.simplify_m:
            polygons, kept = simplify_polygons(polygons, place, chosen.simplify_m)
            self._unsimplified += kept
        if chosen.right_angles and len(polygons):
            # The steps of pixels must go first, or it is their edges that are turned.
            tolerance = max(chosen.simplify_m or 0.0, place.info.gsd)
            polygons, kept, failed = right_angled(polygons, place, tolerance)
            self._turned += len(polygons) - kept
            self._unturned += kept
            self._failed += failed
        if chosen.simplify_m or chosen.right_angles:
            sizes = place.areas(polygons)
        large = sizes >= chosen.min_area_m2
        if sums is not None:
            sums = sums[0][large], sums[1][large]
        return polygons[large], sizes[large], sums


class CentreLines(MaskFeatures):
    """Centre lines of the roads of a mask, with ``length_m`` (or ``length_px``).

    In this order: holes, which would become loops, are filled, small pieces left out, the rest
    thinned to skeletons, spurs removed, and vertices simplified. Lines that meet share the point. A
    piece that thins to a single pixel has no line. Probabilities are those of the pixels that a
    line runs through before it is simplified.

    Roads that are connected, if only by a corner, are thinned as one when the last of them has
    been read: memory holds the outlines of the connected roads that are open and, of the largest,
    five bytes for every pixel of its bounding box. A network that spans the mask is one piece.
    """

    geometry_type, noun, _size, _unit = "LineString", "centre line", "length", "m"
    _corners = True

    def _features(self, outlines: np.ndarray, areas: np.ndarray, read: Read | None) -> _Batch:
        place, chosen = self.place, self.settings
        on_ground = place.crs is not None
        tolerance = chosen.simplify_m if on_ground else None
        if tolerance is None:
            tolerance = place.info.gsd if on_ground else 1.0
        piece = joined_at_corners(outlines)
        if on_ground:
            large = (np.bincount(piece, areas) >= chosen.min_area_m2)[piece]
            outlines, piece = outlines[large], piece[large]
        pixels = skeleton(outlines, piece)
        net = network(pixels, self._metres(pixels), chosen.prune_m if on_ground else 0.0)
        sums = None
        if read is not None:
            points, line = net.on_lines()
            size = place.info.height, place.info.width
            sums = sums_at_points(points, line, len(net.lines), *size, read)
        net = simplify_network(net, self._metres(net.points), tolerance)
        lines = net.geometries(place.coordinates(net.points + 0.5))
        return lines, place.lengths(lines) if on_ground else shapely.length(lines), sums

    def _metres(self, pixels: np.ndarray) -> np.ndarray:
        """Return centres of pixels in local metres, or in pixels where there is no ground."""
        centres = self.place.coordinates(pixels + 0.5)
        return centres if self.place.crs is None else self.place.metres(centres)


def features_of(
    target: str,
    mask: str | os.PathLike,
    probabilities: Probabilities = None,
    settings: FeatureSettings | None = None,
) -> MaskFeatures:
    """Return ``CentreLines`` for the target "roads", ``Footprints`` for anything else."""
    kind = CentreLines if target == "roads" else Footprints
    return kind(mask, probabilities, settings)


def sums_in_polygons(
    polygons: np.ndarray, height: int, width: int, read: Read
) -> tuple[np.ndarray, np.ndarray]:
    """Add up, for each polygon, the pixels of a raster whose centre lies inside, without NaN.

    Polygons ``(n,)`` are in pixels (column, row); where they overlap, a pixel counts for the last.

    Returns:
        Sums, float64 ``(n,)``, and how many pixels were added, int64 ``(n,)``.
    """
    sums, counts = np.zeros(len(polygons)), np.zeros(len(polygons), np.int64)
    tree = shapely.STRtree(polygons)
    for strip in strips(height, width) if len(polygons) else ():
        inside = np.sort(tree.query(shapely.box(0, strip.row, width, strip.row + strip.height)))
        if not inside.size:
            continue
        number = numbered_pixels(polygons[inside], np.arange(1, len(inside) + 1), strip)
        values = read(strip)
        counted = (number > 0) & ~np.isnan(values)
        number, values = number[counted] - 1, values[counted]
        sums[inside] += np.bincount(number, values, len(inside))
        counts[inside] += np.bincount(number, minlength=len(inside))
    return sums, counts


def sums_at_points(
    points: np.ndarray, group: np.ndarray, groups: int, height: int, width: int, read: Read
) -> tuple[np.ndarray, np.ndarray]:
    """Add up, for each group of points, the pixels under them that are not NaN.

    Points are ``(n, 2)`` int of column and row, and ``group`` says that of each, int ``(n,)`` from
    0 to below ``groups``. Results are those of ``sums_in_polygons``, by group.
    """
    sums, counts = np.zeros(groups), np.zeros(groups, np.int64)
    order = np.argsort(points[:, 1], kind="stable")
    columns, rows, group = *points[order].T, group[order]
    for strip in strips(height, width):
        first, last = np.searchsorted(rows, (strip.row, strip.row + strip.height))
        if first == last:
            continue
        values = read(strip)[rows[first:last] - strip.row, columns[first:last]]
        counted = ~np.isnan(values)
        number = group[first:last][counted]
        sums += np.bincount(number, values[counted], groups)
        counts += np.bincount(number, minlength=groups)
    return sums, counts


def holds_void(polygons: np.ndarray, mask: str | os.PathLike) -> np.ndarray:
    """Return which polygons hold void pixels of a mask, bool ``(n,)``.

    They are in pixels and lie apart or one inside another.
    """
    # The inner ones last, so that each void pixel counts for the smallest polygon around it.
    order = np.argsort(-shapely.area(polygons), kind="stable")
    polygons = polygons[order]
    with LabelReader(mask) as reader:

        def void(window: Window) -> np.ndarray:
            return (reader.read(window) == VOID).astype(np.float64)

        sums, _ = sums_in_polygons(polygons, reader.height, reader.width, void)
    inner = shapely.point_on_surface(polygons[sums > 0])
    found = np.zeros(len(polygons), bool)
    found[order[shapely.STRtree(polygons).query(inner, predicate="within")[1]]] = True
    return found


def fill_holes(
    outlines: np.ndarray, place: Placement, largest_m2: float, mask: str | os.PathLike
) -> np.ndarray:
    """Fill holes smaller than so many square metres in a mask's outlines, unless they hold void.

    Outlines ``(n,)`` are in pixels. Those in a hole that is filled become part of what surrounds
    them, the others stay in order. A mask that is corrupt raises a ``RasterError``.
    """
    rings, owner = shapely.get_rings(outlines, return_index=True)
    # Of each polygon, the first ring is the outer one.
    inner = np.r_[False, owner[1:] == owner[:-1]] if len(rings) else np.zeros(0, bool)
    holes, owner = shapely.polygons(rings[inner]), owner[inner]
    small = place.areas(place.outlines(holes)) < largest_m2
    if small.any():
        small[small] = ~holds_void(holes[small], mask)
    if not small.any():
        return outlines
    filled = outlines.copy()
    for number in np.unique(owner[small]):
        own = slice(*np.searchsorted(owner, (number, number + 1)))
        kept = shapely.get_exterior_ring(holes[own][~small[own]])
        filled[number] = shapely.Polygon(outlines[number].exterior, list(kept))
    apart = np.ones(len(filled), bool)
    tree = shapely.STRtree(shapely.point_on_surface(outlines))
    apart[tree.query(holes[small], predicate="contains")[1]] = False
    return filled[apart]
