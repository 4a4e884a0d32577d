"""From a mask to footprints: polygons of the targets, their area on the ground, and GeoJSON.

Outlines follow the pixels' edges exactly: burning the polygons of a mask into an empty raster
gives the mask again.
"""

import os

import geopandas
import numpy as np
import rasterio
import rasterio.features
import shapely
from affine import Affine

from preprocessing.errors import RasterError
from preprocessing.placement import Placement, apply_affine, geodesic_areas, placement
from preprocessing.raster_access import (
    GDAL_ERRORS,
    gdal_quiet,
    open_raster,
    raster_info,
    reason,
    strips,
)
from preprocessing.rasters import LabelReader, read_label
from preprocessing.vector_writers import write_layer


def polygonise(
    mask: str | os.PathLike | np.ndarray, transform: Affine | None = None
) -> list[shapely.Polygon]:
    """Outlines of the connected targets of a mask, holes included.

    Pixels that share an edge belong together; those that touch at a corner only are apart
    (connectivity 4; with 8, rings would cross themselves there). Void is not target.

    Args:
        mask: ``(height, width)`` uint8 of 0 background, 1 target, 255 void; or the path of a
            mask or label raster. Masks that ``MaskWriter`` wrote, and others of one band of
            uint8, are streamed: memory holds the shapes that are open and the polygons; other
            files are read whole.
        transform: affine from (column, row) to the coordinates wanted; the identity, pixel
            coordinates, by default.

    Returns:
        Valid polygons, in the order in which a scan from the top completes them; none for a
        mask without target.

    Raises:
        RasterError: no such file, no raster, or corrupt.
        LabelError: values other than {0, 1} or {0, 255}.
        ValueError: an array of another dtype or dimension.
    """
    transform = Affine.identity() if transform is None else transform
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"mask of {mask.dtype} {mask.shape}: uint8 (height, width) is needed")
        targets = (mask == 1).astype(np.uint8)
        return _outlines(targets, targets, transform)
    if not _streams(mask):
        return polygonise(read_label(mask), transform)
    with open_raster(mask) as dataset:
        band, own = rasterio.band(dataset, 1), dataset.transform
        try:
            polygons = _outlines(band, band, own)
        except GDAL_ERRORS as error:
            raise RasterError(f"{mask}: cannot be read: {reason(error)}") from error
    if own == transform:
        return polygons

    def move(points: np.ndarray) -> np.ndarray:
        # Corners of pixels have whole coordinates: what the way there and back costs is undone.
        return apply_affine(transform, np.rint(apply_affine(~own, points)))

    return list(shapely.transform(np.array(polygons, dtype=object), move))


def _outlines(
    source: np.ndarray | rasterio.Band, inside: np.ndarray | rasterio.Band, transform: Affine
) -> list[shapely.Polygon]:
    """Polygons of the pixels of ``source`` where ``inside`` is not 0."""
    with gdal_quiet():
        shapes = rasterio.features.shapes(source, inside, connectivity=4, transform=transform)
        rings = (shape["coordinates"] for shape, _ in shapes)
        return [shapely.Polygon(outer, holes) for outer, *holes in rings]


def _streams(path: str | os.PathLike) -> bool:
    """Whether GDAL can outline the file as it is; checks all its values on the way.

    GDAL knows nothing of void that lies over targets, of targets in other bands than the first,
    and it takes the file's own affine.
    """
    with LabelReader(path) as reader:
        for window in strips(reader.height, reader.width):
            reader.read(window)
        plain = reader.info.dtype == "uint8" and reader.info.band_count == 1
        return plain and not reader.target_under_void and not reader.info.transform.is_degenerate


def footprints(
    mask: str | os.PathLike, min_area_m2: float = 0.0
) -> tuple[geopandas.GeoDataFrame, str]:
    """Footprints of a mask, on the ground where the mask has a place there.

    The area is geodesic, on the WGS 84 ellipsoid, of the polygon between its vertices, holes
    subtracted: neither the metres of EPSG:3857 nor degrees are ground. A mask that has only
    ground control points is placed by polynomials fitted to them, see
    ``geometry.fit_control_points``.

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
