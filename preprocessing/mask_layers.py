"""From a mask to a layer for a GIS: footprints of its targets, or the centre lines of its roads.

Where the mask has a place on the ground, layers are in the mask's own CRS, and tolerances are
metres there. Without simplification, footprints burned into the mask's grid give the mask again.
Memory holds the shapes that are open, the finished polygons, one strip of the rasters and, for
centre lines, what ``centre_lines`` states; never the mask as a whole, if it is a file of one
band of uint8 without void over targets.
"""

import os
from dataclasses import dataclass

import geopandas
import numpy as np
import shapely

from preprocessing.centre_lines import (
    Network,
    network,
    require_skeletons,
    simplify_network,
    skeleton,
)
from preprocessing.footprints import polygonise
from preprocessing.outlines import fill_holes, joined_at_corners
from preprocessing.pixel_sums import ProbabilityReader, check_grid, sums_at_points, sums_in_polygons
from preprocessing.placement import Placement, placement
from preprocessing.raster_access import raster_info
from preprocessing.simplification import require_right_angles, right_angled, simplify_polygons

# Metres: about the half width of a road and a bit, which is what the bumps of its edge add.
PRUNE_M = 10.0


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
    if right_angles:
        require_right_angles()
    given = (min_area_m2, fill_holes_m2, simplify_m, right_angles)
    place, outlines, areas, notes = _prepared(mask, probabilities, fill_holes_m2, any(given))
    if place.crs is None:
        sizes = {"area_px": np.rint(areas).astype(np.int64)}
        means = _means_in_polygons(probabilities, outlines, place)
        return _layer("Polygon", outlines, sizes | means, place, notes)
    outlines = outlines[areas >= min_area_m2]
    polygons = place.outlines(outlines)
    means = _means_in_polygons(probabilities, outlines, place)
    if simplify_m > 0:
        polygons, kept = simplify_polygons(polygons, place, simplify_m)
        if kept:
            notes.append(f"Simplification would destroy {kept:,}: kept as they were.")
    if right_angles and len(polygons):
        # The steps of pixels must go first, or it is their edges that are turned.
        tolerance = max(simplify_m, place.info.gsd)
        polygons, kept, failed = right_angled(polygons, place, tolerance)
        turned = f"Right angles: {len(polygons) - kept:,} turned, {kept:,} kept as they were"
        notes.append(turned + (f" ({failed:,} failed)." if failed else "."))
    sizes = {"area_m2": place.areas(polygons)} | means
    large = sizes["area_m2"] >= min_area_m2
    sizes = {name: values[large] for name, values in sizes.items()}
    return _layer("Polygon", polygons[large], sizes, place, notes)


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
        JointNetError: scikit-image or skan is not installed.
    """
    require_skeletons()
    place, outlines, areas, notes = _prepared(mask, probabilities, fill_holes_m2, True)
    tolerance = simplify_m
    if tolerance is None or place.crs is None:
        tolerance = 1.0 if place.crs is None else place.info.gsd
    piece = joined_at_corners(outlines)
    if place.crs is not None:
        large = (np.bincount(piece, areas) >= min_area_m2)[piece]
        outlines, piece = outlines[large], piece[large]
    pixels = skeleton(outlines, piece)
    net = network(pixels, _metres(place, pixels), 0.0 if place.crs is None else prune_m)
    means = _means_on_lines(probabilities, net, place)
    net = simplify_network(net, _metres(place, net.points), tolerance)
    lines = net.geometries(place.coordinates(net.points + 0.5))
    if place.crs is None:
        sizes = {"length_px": shapely.length(lines)}
    else:
        sizes = {"length_m": place.lengths(lines)}
    return _layer("LineString", lines, sizes | means, place, notes)


def _prepared(
    mask: str | os.PathLike,
    probabilities: str | os.PathLike | None,
    fill_holes_m2: float,
    in_metres: bool,
) -> tuple[Placement, np.ndarray, np.ndarray, list[str]]:
    """Where the mask lies, its outlines in pixels with small holes filled, their areas, notes."""
    place = placement(raster_info(mask))
    if probabilities is not None:
        check_grid(probabilities, place.info)
    outlines = np.array(polygonise(mask), dtype=object)
    notes = [place.note] if place.note else []
    if place.crs is None:
        if in_metres:
            notes = [f"{place.note[:-1]}; nothing that is measured in metres is done."]
        return place, outlines, shapely.area(outlines), notes
    if fill_holes_m2 > 0:
        outlines = fill_holes(outlines, place, fill_holes_m2, mask)
    areas = place.areas(place.outlines(outlines))
    placed = np.isfinite(areas)
    if not placed.all():
        notes.append(f"{(~placed).sum():,} lie where the CRS leads nowhere, and are left out.")
    return place, outlines[placed], areas[placed], notes


def _metres(place: Placement, pixels: np.ndarray) -> np.ndarray:
    """Centres of pixels in local metres, or in pixels where there is no ground."""
    centres = place.coordinates(pixels + 0.5)
    return centres if place.crs is None else place.metres(centres)


def _means_in_polygons(
    probabilities: str | os.PathLike | None, outlines: np.ndarray, place: Placement
) -> dict[str, np.ndarray]:
    """The column of mean probabilities inside of outlines; none without a raster of them."""
    if probabilities is None:
        return {}
    with ProbabilityReader(probabilities, place.info) as reader:
        sums = sums_in_polygons(outlines, place.info.height, place.info.width, reader.read)
    return _mean(*sums)


def _means_on_lines(
    probabilities: str | os.PathLike | None, net: Network, place: Placement
) -> dict[str, np.ndarray]:
    """The column of mean probabilities along lines; none without a raster of them."""
    if probabilities is None:
        return {}
    points, line = net.on_lines()
    size = place.info.height, place.info.width
    with ProbabilityReader(probabilities, place.info) as reader:
        return _mean(*sums_at_points(points, line, len(net.lines), *size, reader.read))


def _mean(sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Means, NaN of nothing."""
    none = np.full(len(sums), np.nan)
    return {"mean_probability": np.divide(sums, counts, out=none, where=counts > 0)}


def _layer(
    geometry_type: str,
    geometries: np.ndarray,
    columns: dict[str, np.ndarray],
    place: Placement,
    notes: list[str],
) -> MaskLayer:
    columns = {"id": np.arange(1, len(geometries) + 1), **columns}
    frame = geopandas.GeoDataFrame(columns, geometry=geometries, crs=place.crs)
    return MaskLayer(frame, geometry_type, tuple(notes))
