"""From a mask to footprints: polygons of the targets, their area on the ground, and GeoJSON.

Outlines follow the pixels' edges exactly: burning the polygons of a mask into an empty raster
gives the mask again.
"""

import os

import geopandas
import numpy as np
import shapely

from preprocessing.ground import Placement, geodesic_areas, placement
from preprocessing.mask_outlines import polygonise
from preprocessing.raster_access import raster_info
from preprocessing.vector_writers import write_layer


def footprints(
    mask: str | os.PathLike, min_area_m2: float = 0.0
) -> tuple[geopandas.GeoDataFrame, str]:
    """Footprints of a mask, on the ground where the mask has a place there.

    The area is geodesic, on the WGS 84 ellipsoid, of the polygon between its vertices, holes
    subtracted: neither the metres of EPSG:3857 nor degrees are ground. A mask that has only
    ground control points is placed by polynomials fitted to them, see
    ``ground.fit_control_points``.

    Args:
        mask: path of a mask or label raster.
        min_area_m2: smaller footprints are left out; without effect where there is no ground.

    Returns:
        A frame with one row per footprint and the columns ``id`` (int64, from 1), ``area_m2``
        (float64) and ``geometry`` (valid polygons, EPSG:4326), and a note: one sentence on what
        the control points are worth where they were used, else empty. Where the raster has no
        CRS, or neither affine nor control points that lead to the ground: ``area_px`` (int64) in
        place of ``area_m2``, geometry in pixels (x the column, y the row, counted from the top
        left corner), no CRS, and a note that says so. A mask without target gives no rows.

    Raises:
        RasterError: no such file, no raster, or corrupt.
        LabelError: values other than {0, 1} or {0, 255}.
    """
    place = placement(raster_info(mask))
    outlines = np.array(polygonise(mask), dtype=object)
    if place.crs is None:
        return _in_pixels(outlines, place, min_area_m2)
    ground = shapely.orient_polygons(place.geographic(place.outlines(outlines)))
    area = geodesic_areas(ground)
    keep = area >= min_area_m2
    columns = {"id": np.arange(1, keep.sum() + 1), "area_m2": area[keep]}
    return geopandas.GeoDataFrame(columns, geometry=ground[keep], crs="EPSG:4326"), place.note


def _in_pixels(
    outlines: np.ndarray, place: Placement, min_area_m2: float
) -> tuple[geopandas.GeoDataFrame, str]:
    """The frame and the note for a raster that has no place on the ground."""
    note = place.note
    if min_area_m2 > 0:
        note = f"{note[:-1]}, and no smallest area in m2 applies."
    area = np.rint(shapely.area(outlines)).astype(np.int64)
    columns = {"id": np.arange(1, len(outlines) + 1), "area_px": area}
    return geopandas.GeoDataFrame(columns, geometry=outlines), note


def write_geojson(
    frame: geopandas.GeoDataFrame, path: str | os.PathLike, overwrite: bool = False
) -> None:
    """Write footprints as GeoJSON, which appears only when it is complete.

    In EPSG:4326 the file follows RFC 7946: longitude and latitude with eight decimals (about a
    millimetre), outer rings anticlockwise. Pixel coordinates are written as they are. No rows
    give an empty FeatureCollection.

    Args:
        frame: as ``footprints`` returns it; polygons in EPSG:4326 or without CRS.
        path: the file to write; missing folders are made.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
        ValueError: the frame's CRS is another than EPSG:4326.
    """
    if frame.crs is not None and frame.crs.to_epsg() != 4326:
        raise ValueError(f"CRS {frame.crs.name}: GeoJSON is EPSG:4326, frame.to_crs(4326) first")
    write_layer(frame, path, "Polygon", "GeoJSON", overwrite)
