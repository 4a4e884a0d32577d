"""Polygons of a vector file as labels: brought to a raster, counted, burnt into its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import shapely
import shapely.affinity
from rasterio.features import rasterize

from preprocessing.errors import PolygonError
from preprocessing.ground import local_metres, to_longitude_latitude
from preprocessing.raster_access import RasterInfo
from preprocessing.scenes import Scene
from preprocessing.spacenet import are_chips
from preprocessing.vectors import LINE, POLYGON, VectorFeatures, read_features

# An outline of so many segments bends as the raster does in another CRS. Where a segment is so
# many times longer than most, the outline is torn, as at the antimeridian.
_SEGMENTS, _TORN = 64, 30
# Share of its size by which an outline is grown: more than its segments cut off.
_MARGIN = 0.01
_NO_PLACE = (
    "no polygon has a place in the raster's CRS; are its coordinates those of its CRS? "
    "A GeoJSON that names none is in degrees of longitude and latitude"
)


def nearby(
    features: VectorFeatures, info: RasterInfo, buffer_m: float | None
) -> tuple[np.ndarray, bool]:
    """Find which parts may meet a raster, and whether the raster lies among all of them.

    Boxes are compared in the features' CRS, so that of a town's file only what lies around a
    raster is brought into the raster's CRS. At least one feature must have an area.

    Returns:
        Which parts have an area and may meet the raster, bool (m,): all with an area where the
        raster has no outline in their CRS. And whether that outline meets their extent.
    """
    with_area = features.with_area(buffer_m)
    extent = shapely.total_bounds(features.parts[with_area])
    # A place has two longitudes where they are counted beyond 180 degrees.
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
    features: VectorFeatures, chosen: np.ndarray, info: RasterInfo, buffer_m: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas that the chosen parts of features, bool (m,), cover in a raster's CRS.

    Without ``buffer_m`` no lines may be chosen, see ``nearby``.

    Returns:
        Valid polygons with finite coordinates, an object array (n,), and the number of the
        feature that each is part of, int (n,).

    Raises:
        PolygonError: no way leads from the features' CRS to the raster's or, for lines, to metres
            of ground.
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
        widened = _to_crs(shapely.buffer(lines[known], buffer_m), metres, info.crs.to_wkt(), path)
        areas = np.concatenate([areas, widened])
        of_area = np.concatenate([of_area, of_line[known]])
    usable = _finite(areas) & (shapely.get_type_id(areas) == POLYGON)
    return areas[usable], of_area[usable]


def _outline(
    features: VectorFeatures, info: RasterInfo, buffer_m: float | None
) -> shapely.Polygon | None:
    """Return a raster's outline in the features' CRS, grown by metres; None where it is torn."""
    outline = _footprint(info)
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
    """Bring shapes to another CRS; coordinates without a place there become infinite."""
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
    """Return a CRS whose metres are metres of ground around the raster's centre."""
    transformer = to_longitude_latitude(info.crs)
    if transformer is None:
        raise PolygonError(
            f"{path}: lines cannot be widened by metres, as the raster's CRS has no place on "
            "Earth; give polygons"
        )
    centre = info.transform @ (info.width / 2, info.height / 2)
    return pyproj.CRS.from_proj4(local_metres(*transformer.transform(*centre)))


@dataclass(frozen=True)
class PolygonCounts:
    """What became of the features of a vector file.

    Attributes:
        read: features that the file holds, or those that pass the attribute filter.
        repaired: of these, those whose outline crossed itself and was repaired.
        dropped: those without an area: empty, points, lines without a buffer, collapsed
            outlines, coordinates without a place in the raster's CRS.
        outside: those with an area that do not meet the raster.
        partly: those that meet the raster and reach beyond its border.
    """

    read: int
    repaired: int = 0
    dropped: int = 0
    outside: int = 0
    partly: int = 0

    @property
    def used(self) -> int:
        """Features that meet the raster."""
        return self.read - self.dropped - self.outside

    def __str__(self) -> str:
        """Describe them in one line."""
        return (
            f"{self.used} of {self.read} polygons used ({self.partly} partly outside the raster), "
            f"{self.repaired} repaired, {self.dropped} dropped, {self.outside} outside"
        )


def read_polygons(
    path: Path | str,
    info: RasterInfo,
    where: str | None = None,
    buffer_m: float | None = None,
    layer: str | None = None,
    areas_needed: bool = True,
) -> tuple[np.ndarray, PolygonCounts]:
    """Read the polygons of a vector file that meet a raster, in the raster's CRS.

    A GeoJSON without a CRS of its own is in EPSG:4326 (RFC 7946). Holes are kept, and all parts
    that have an area. An outline that crosses itself is repaired: it covers what any of its parts
    covers.

    Args:
        path: GeoJSON, GeoPackage, Shapefile, FlatGeobuf or what else GDAL reads.
        info: of the raster.
        where: which features, as the WHERE of OGR SQL: ``"building" = 'yes'``; None for all.
        buffer_m: metres of ground to either side by which lines are widened to polygons, half a
            road's width. Polygons are left as they are.
        layer: the layer, where the file has several.
        areas_needed: whether features of which none has an area are an error. If not, one such
            feature, or points alone, are background. Several lines are an error anyway: their
            width was forgotten.

    Returns:
        Polygons, one per part of a feature, as an object array (n,), and what became of the
        features. There are none, and the raster is background, where the file has no features, no
        feature passes the filter or has a geometry, or all lie around the raster.

    Raises:
        PolygonError: no vector file; no geometry with an area; a filter that does not work; no CRS
            in the file or raster; polygons whose extent, with those that the filter leaves out,
            does not meet that of the raster; `buffer_m` not above 0.
    """
    if buffer_m is not None and not buffer_m > 0:
        raise PolygonError(f"buffer_m is {buffer_m}; it is metres to either side, above 0")
    if not info.georeferenced:
        raise PolygonError(
            f"{path}: its polygons cannot be placed, as the raster has no CRS or no affine; "
            "georeference the raster, or give a label raster of its size"
        )
    features = read_features(path, where, layer)
    read = len(features.shapes)
    nothing = np.empty(0, object), PolygonCounts(read, dropped=read)
    if not shapely.get_num_coordinates(features.shapes).any():
        return nothing
    with_area = features.with_area(buffer_m)
    if not with_area.any():
        lines = int((shapely.get_type_id(features.parts) == LINE).sum())
        if areas_needed or (lines and read > 1):
            problem = f"holds {read} feature(s), of which none has an area; polygons are needed"
            if lines and buffer_m is None:
                problem = f"holds {lines} lines and no polygons; buffer_m makes them areas"
            raise PolygonError(f"{path}: {problem}")
        return nothing
    ground = _footprint(info)
    shapely.prepare(ground)
    chosen, around = nearby(features, info, buffer_m)
    parts, feature = areas_of(features, chosen, info, buffer_m)
    meets = shapely.intersects(ground, parts)
    if not meets.any() and not around:
        chosen = with_area
        parts, feature = areas_of(features, chosen, info, buffer_m)
        if not len(parts):
            raise PolygonError(f"{path}: {_NO_PLACE}")
        meets = shapely.intersects(ground, parts)
        if not meets.any() and where is None:
            _refuse_elsewhere(path, parts, ground, info)
        elif not meets.any():
            # Those that pass may lie in another raster of the same town; all of them may not.
            read_polygons(path, info, None, buffer_m, layer)
    within = shapely.contains(ground, parts)
    elsewhere = features.feature[with_area & ~chosen]
    used = _among(read, feature[meets])
    placed = _among(read, feature, elsewhere)
    beyond = _among(read, feature[~within], elsewhere)
    counts = PolygonCounts(
        read=read,
        repaired=features.repaired,
        dropped=int((~placed).sum()),
        outside=int((placed & ~used).sum()),
        partly=int((used & beyond).sum()),
    )
    return parts[meets], counts


def scene_polygons(scene: Scene, info: RasterInfo) -> tuple[np.ndarray, PolygonCounts]:
    """Read the polygons of a scene's vector file, as ``read_polygons`` does; errors name the image.

    Numbered chips have a file each, which may hold nothing but a stray point or line: the chip is
    then background.
    """
    chip = are_chips([scene.image, scene.label])
    try:
        return read_polygons(scene.label, info, scene.where, scene.buffer_m, areas_needed=not chip)
    except PolygonError as error:
        # One file may be the label of all scenes.
        raise PolygonError(f"{scene.image}: {error}") from error


def rasterise(polygons: Sequence[shapely.Geometry], info: RasterInfo) -> np.ndarray:
    """Burn polygons into the pixels of a raster.

    A pixel is target where its centre lies inside. So the mask has the polygons' area on average,
    and the outlines of a mask give the same mask again. To fill every pixel that is touched would
    widen them all by half a pixel and join neighbours.

    Polygons and multipolygons, in the raster's CRS, may overlap, reach outside, or be none at all.
    The affine may be rotated or south-up. The mask is (height, width) uint8 of 0 and 1; nothing is
    known of void here.
    """
    shape = (info.height, info.width)
    if not len(polygons):
        return np.zeros(shape, np.uint8)
    inverse = ~info.transform
    linear = np.array([[inverse.a, inverse.b], [inverse.d, inverse.e]])
    shift = np.array([inverse.c, inverse.f])
    pixels = shapely.transform(np.asarray(polygons, object), lambda xy: xy @ linear.T + shift)
    return rasterize(pixels, shape, all_touched=False, dtype=np.uint8)


def _among(count: int, *numbers: np.ndarray) -> np.ndarray:
    """Return which of so many features are named by any of these numbers, bool (count,)."""
    named = np.zeros(count, bool)
    named[np.concatenate(numbers)] = True
    return named


def _footprint(info: RasterInfo) -> shapely.Polygon:
    """Return the raster's outline in its CRS, where a rotated raster is no upright rectangle."""
    outline = shapely.box(0, 0, info.width, info.height)
    return shapely.affinity.affine_transform(outline, info.transform.to_shapely())


def _refuse_elsewhere(
    path: Path | str, parts: np.ndarray, ground: shapely.Polygon, info: RasterInfo
) -> None:
    """Raise if the polygons' extent does not meet the raster's.

    If it does, they lie around the raster: an empty tile of a town, which has its use.
    """
    extent = shapely.box(*shapely.total_bounds(parts))
    if not extent.intersects(ground):
        raise PolygonError(
            f"{path}: all {len(parts)} polygons lie outside the raster: they span "
            f"{_span(extent)}, the raster {_span(ground)} in its CRS "
            f"({info.crs.to_string()[:40]}); is it the file of another raster, or its CRS a wrong "
            "one?"
        )


def _span(shape: shapely.Geometry) -> str:
    west, south, east, north = (f"{value:.10g}" for value in shape.bounds)
    return f"x {west} to {east} and y {south} to {north}"
