"""The areas that features of a vector file cover in a raster's CRS.

`polygons` stands on this.
"""

from pathlib import Path

import geopandas
import numpy as np
import pyproj
import shapely
import shapely.affinity

from preprocessing.errors import PolygonError
from preprocessing.geometry import to_longitude_latitude
from preprocessing.raster_access import RasterInfo
from preprocessing.vectors import LINE, POLYGON, Features

# An outline of so many segments bends as the raster does in another CRS; where one is so much
# longer than most, the outline is torn, as it is at the antimeridian.
_SEGMENTS, _TORN = 64, 30
# Share of its size by which an outline is grown, more than its segments cut off.
_MARGIN = 0.01


def nearby(features: Features, info: RasterInfo, buffer_m: float | None) -> tuple[np.ndarray, bool]:
    """Which parts may meet a raster, and whether the raster lies among all of them.

    Found by boxes in the features' CRS, so that of a town's file only what lies around a raster
    is brought into the raster's.

    Args:
        features: at least one with an area.
        info: of the raster.
        buffer_m: metres by which lines are widened, None to leave them out.

    Returns:
        Which parts have an area and may meet the raster, bool (m,), all with an area where the
        raster's outline cannot be laid among them; and whether that outline meets their extent.
    """
    with_area = features.with_area(buffer_m)
    extent = shapely.total_bounds(features.parts[with_area])
    # The same place has two longitudes where they are counted beyond 180 degrees.
    turns = features.crs.is_geographic and (extent[0] < -180 or extent[2] > 180)
    outline = None if turns else _outline(features, info, buffer_m)
    if outline is None:
        return with_area, False
    west, south, east, north = outline.bounds
    grown = shapely.box(west, south, east, north).buffer(
        _MARGIN * max(east - west, north - south), join_style="mitre"
    )
    meets = np.zeros(len(with_area), bool)
    meets[features.tree.query(grown)] = True
    return meets & with_area, bool(outline.intersects(shapely.box(*extent)))


def areas_of(
    features: Features, chosen: np.ndarray, info: RasterInfo, buffer_m: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The areas that parts of features cover, in a raster's CRS.

    Args:
        features: with a CRS.
        chosen: which parts, bool (m,), see ``nearby``.
        info: of the raster.
        buffer_m: metres of ground to either side by which lines become areas, None where no line
            is chosen.

    Returns:
        Valid polygons with finite coordinates, an object array (n,), and the number of the
        feature that each is part of, int (n,).

    Raises:
        PolygonError: no way leads from the features' CRS to the raster's, or, for lines, from
            there to metres of ground.
    """
    path, crs = features.path, features.crs
    parts, feature = features.parts[chosen], features.feature[chosen]
    kind = shapely.get_type_id(parts)
    areas, of_area = parts[kind == POLYGON], feature[kind == POLYGON]
    areas = _to_crs(areas, crs, info.crs.to_wkt(), path)
    if buffer_m is not None:
        lines, of_line = parts[kind == LINE], feature[kind == LINE]
        metres = _local_metres(info, path)
        lines = _to_crs(lines, crs, metres, path)
        known = _finite(lines)
        bands = _to_crs(shapely.buffer(lines[known], buffer_m), metres, info.crs.to_wkt(), path)
        areas = np.concatenate([areas, bands])
        of_area = np.concatenate([of_area, of_line[known]])
    usable = _finite(areas) & (shapely.get_type_id(areas) == POLYGON)
    return areas[usable], of_area[usable]


def _outline(
    features: Features, info: RasterInfo, buffer_m: float | None
) -> shapely.Polygon | None:
    """A raster's outline in the features' CRS, grown by metres; None where it is torn there."""
    outline = shapely.box(0, 0, info.width, info.height)
    outline = shapely.affinity.affine_transform(outline, info.transform.to_shapely())
    crs = pyproj.CRS.from_wkt(info.crs.to_wkt())
    try:
        if buffer_m is not None:
            metres = _local_metres(info, features.path)
            bent = shapely.segmentize(outline, outline.length / _SEGMENTS)
            grown = _to_crs(np.array([bent]), crs, metres, features.path)[0]
            outline = shapely.convex_hull(grown).buffer(1.1 * buffer_m, join_style="mitre")
            crs = metres
        outline = shapely.segmentize(outline, outline.length / _SEGMENTS)
        outline = _to_crs(np.array([outline]), crs, features.crs, features.path)[0]
    except (PolygonError, shapely.errors.GEOSException):
        return None
    corners = shapely.get_coordinates(outline)
    steps = np.hypot(*np.diff(corners, axis=0).T)
    if not np.isfinite(corners).all() or steps.max() > _TORN * np.median(steps):
        return None
    return outline if outline.is_valid else None


def _to_crs(
    shapes: np.ndarray, source: pyproj.CRS, target: pyproj.CRS | str, path: Path | str
) -> np.ndarray:
    """Shapes in another CRS; coordinates that have no place there become infinite."""
    try:
        return geopandas.GeoSeries(shapes, crs=source).to_crs(target).to_numpy()
    except pyproj.exceptions.ProjError as error:
        raise PolygonError(
            f"{path}: no way leads from its CRS ({source.name}) to the raster's; "
            "state the right one with `ogr2ogr -a_srs EPSG:<code> OUT.gpkg IN`"
        ) from error


def _finite(shapes: np.ndarray) -> np.ndarray:
    return np.isfinite(shapely.bounds(shapes)).all(axis=-1)


def _local_metres(info: RasterInfo, path: Path | str) -> pyproj.CRS:
    """A CRS whose metres are metres of ground around the raster's centre, at any latitude."""
    middle = shapely.Point(info.width / 2, info.height / 2)
    middle = shapely.affinity.affine_transform(middle, info.transform.to_shapely())
    transformer = to_longitude_latitude(info.crs)
    if transformer is None:
        raise PolygonError(
            f"{path}: lines cannot be widened by metres, as the raster's CRS has no place on "
            "Earth; give polygons"
        )
    longitude, latitude = transformer.transform(middle.x, middle.y)
    return pyproj.CRS.from_proj4(f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +units=m")
