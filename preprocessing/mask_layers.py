"""From a mask to a layer for a GIS: footprints of its targets, or the centre lines of its roads.

Where the mask has a place on the ground, layers are in the mask's own CRS, and tolerances are
metres there. Without simplification, footprints burned into the mask's grid give the mask again.
``Footprints`` and ``CentreLines`` give a layer batch by batch, in the memory of one batch and of
the shapes that are open; ``footprint_layer`` and ``centre_line_layer`` give it as one frame.
"""

import os
from dataclasses import dataclass

import geopandas
import numpy as np
import shapely

from preprocessing.centre_lines import network, simplify_network, skeleton
from preprocessing.mask_features import (
    PRUNE_M,
    Features,
    FeatureSettings,
    MaskFeatures,
    Probabilities,
    Read,
)
from preprocessing.outlines import joined_at_corners
from preprocessing.pixel_sums import sums_at_points, sums_in_polygons
from preprocessing.simplification import right_angled, simplify_polygons

__all__ = [
    "PRUNE_M",
    "CentreLines",
    "FeatureSettings",
    "Footprints",
    "MaskLayer",
    "centre_line_layer",
    "features_of",
    "footprint_layer",
]


class Footprints(MaskFeatures):
    """Footprints of a mask, each a valid polygon, with ``area_m2``; see ``footprint_layer``."""

    geometry_type, noun, _size, _corners = "Polygon", "footprint", "area", False

    _unsimplified = _turned = _unturned = _failed = 0

    @property
    def unit(self) -> str:
        """Of the areas."""
        return "px" if self.place.crs is None else "m2"

    @property
    def _measured(self) -> bool:
        chosen = self.settings
        sizes = chosen.min_area_m2, chosen.fill_holes_m2, chosen.simplify_m
        return any(sizes) or chosen.right_angles

    def _kept(self) -> list[str]:
        notes = []
        if self._unsimplified:
            kept = self._unsimplified
            notes.append(f"Simplification would destroy {kept:,}: kept as they were.")
        if self._turned + self._unturned:
            found = f"{self._turned:,} turned, {self._unturned:,} kept as they were"
            failed = f" ({self._failed:,} failed)" if self._failed else ""
            notes.append(f"Right angles: {found}{failed}.")
        return notes

    def _features(self, outlines: np.ndarray, areas: np.ndarray, read: Read | None) -> Features:
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
    """Centre lines of the roads of a mask, with ``length_m``; see ``centre_line_layer``.

    Roads that are connected, if only by a corner, are thinned as one when the last of them has
    been read: memory holds the outlines of the connected roads that are open and, of the largest,
    five bytes for every pixel of its bounding box. A network that spans the mask is one piece.
    """

    geometry_type, noun, _size, _corners = "LineString", "centre line", "length", True

    @property
    def unit(self) -> str:
        """Of the lengths."""
        return "px" if self.place.crs is None else "m"

    def _features(self, outlines: np.ndarray, areas: np.ndarray, read: Read | None) -> Features:
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
        """Centres of pixels in local metres, or in pixels where there is no ground."""
        centres = self.place.coordinates(pixels + 0.5)
        return centres if self.place.crs is None else self.place.metres(centres)


def features_of(
    target: str,
    mask: str | os.PathLike,
    probabilities: Probabilities = None,
    settings: FeatureSettings | None = None,
) -> MaskFeatures:
    """``CentreLines`` for the target "roads", ``Footprints`` for anything else.

    Args:
        target: what is 1 in the mask.
        mask: path of a mask or label raster.
        probabilities: of the target, on the grid of the mask; see ``mask_features``.
        settings: what was chosen; the defaults of ``experiments/vectorise.py`` if nothing was.

    Raises:
        RasterError: see ``MaskFeatures``.
    """
    kind = CentreLines if target == "roads" else Footprints
    return kind(mask, probabilities, settings)


@dataclass(frozen=True, eq=False)
class MaskLayer:
    """A layer made of a mask.

    Attributes:
        frame: one row per feature; ``vector_writers.write_layers`` writes it.
        geometry_type: "Polygon" or "LineString", of all features, of none too.
        notes: sentences worth reading: how the mask was placed, what was kept as it was.
    """

    frame: geopandas.GeoDataFrame
    geometry_type: str
    notes: tuple[str, ...]


def footprint_layer(
    mask: str | os.PathLike,
    probabilities: str | os.PathLike | None = None,
    *,
    min_area_m2: float = 0.0,
    fill_holes_m2: float = 0.0,
    simplify_m: float = 0.0,
    right_angles: bool = False,
) -> MaskLayer:
    """Footprints of a mask, each a valid polygon.

    In this order: holes are filled, small footprints left out, vertices simplified, edges
    turned, and what became small by that is left out too.

    Args:
        mask: path of a mask or label raster.
        probabilities: path of a raster of the same grid, 0 to 1, NaN where there is void.
        min_area_m2: smaller footprints are left out.
        fill_holes_m2: holes smaller than this are filled, unless they hold void, with what lies
            in them.
        simplify_m: metres by which outlines may move, see ``simplification``; 0 for outlines
            that follow the pixels' edges.
        right_angles: turn edges to right angles, by buildingregulariser.

    Returns:
        A layer of polygons with the columns ``id`` (int64, from 1), ``area_m2`` (float64,
        geodesic, as ``footprints.footprints`` measures it), with ``probabilities`` also
        ``mean_probability`` (float64: over the pixels inside the outline before it is simplified,
        those without a value aside; NaN where none has one), and ``geometry``, in the mask's CRS.
        A mask without a place on the ground gives ``area_px`` (int64) in place of ``area_m2``
        and pixels for coordinates; none of the four settings applies there, which a note says.

    Raises:
        RasterError: no such file, no raster, corrupt, or probabilities of another grid.
        LabelError: the mask has values other than {0, 1} or {0, 255}.
        JointNetError: ``right_angles`` without buildingregulariser.
    """
    settings = FeatureSettings(min_area_m2, fill_holes_m2, simplify_m, right_angles)
    return _layer(Footprints(mask, probabilities, settings))


def centre_line_layer(
    mask: str | os.PathLike,
    probabilities: str | os.PathLike | None = None,
    *,
    min_area_m2: float = 0.0,
    fill_holes_m2: float = 0.0,
    simplify_m: float | None = None,
    prune_m: float = PRUNE_M,
) -> MaskLayer:
    """Centre lines of the roads of a mask; lines that meet share the point where they do.

    In this order: holes are filled, small pieces left out, the rest thinned to skeletons, spurs
    removed, and vertices simplified. A piece that thins to a single pixel has no line.

    Args:
        mask: path of a mask or label raster.
        probabilities: path of a raster of the same grid, 0 to 1, NaN where there is void.
        min_area_m2: smaller connected pieces are left out.
        fill_holes_m2: as in ``footprint_layer``; holes would become loops.
        simplify_m: metres by which lines may move; None for the side of a pixel, which takes
            off the steps of the raster; 0 leaves out what lies between two others.
        prune_m: side branches that end in nothing and are shorter than this, in metres, are
            removed, the shortest first, until none is left.

    Returns:
        A layer of lines with the columns ``id`` (int64, from 1), ``length_m`` (float64,
        geodesic), with ``probabilities`` also ``mean_probability`` (float64: over the pixels
        that the line runs through before it is simplified), and ``geometry``, in the mask's CRS.
        A mask without a place on the ground gives ``length_px`` in place of ``length_m`` and
        pixels for coordinates; of the four settings none applies there but the simplification by
        a pixel, as a note says.

    Raises:
        RasterError: no such file, no raster, corrupt, or probabilities of another grid.
        LabelError: the mask has values other than {0, 1} or {0, 255}.
    """
    settings = FeatureSettings(min_area_m2, fill_holes_m2, simplify_m, prune_m=prune_m)
    return _layer(CentreLines(mask, probabilities, settings))


def _layer(features: MaskFeatures) -> MaskLayer:
    """All features in one frame."""
    frames = list(features)
    columns = {
        name: np.concatenate([frame[name] for frame in frames])
        for name in frames[0].columns.drop("geometry")
    }
    geometry = np.concatenate([frame.geometry for frame in frames])
    frame = geopandas.GeoDataFrame(columns, geometry=geometry, crs=features.place.crs)
    return MaskLayer(frame, features.geometry_type, features.notes)
