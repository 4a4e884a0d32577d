"""Labels that are polygons: from vector files in any CRS to masks on a raster's pixels.

GeoJSON, GeoPackage, Shapefile and FlatGeobuf are read. Outlines are brought into the raster's
CRS and pixels and filled there: a pixel is target where its centre lies in a polygon and in none
of its holes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
import shapely.affinity
from rasterio.features import rasterize

from preprocessing.errors import PolygonError
from preprocessing.folders import labelled_scenes
from preprocessing.raster_access import RasterInfo
from preprocessing.scenes import Scene
from preprocessing.spacenet import are_chips
from preprocessing.splits import hold_back
from preprocessing.vector_areas import areas_of, nearby
from preprocessing.vectors import LINE, explode, read_features

_NO_PLACE = (
    "no polygon has a place in the raster's CRS; are its coordinates those of its CRS? "
    "A GeoJSON that names none is in degrees of longitude and latitude"
)


@dataclass(frozen=True)
class PolygonCounts:
    """What became of the features of a vector file.

    Attributes:
        read: features that the file holds, or those that pass the attribute filter.
        repaired: of these, those whose outline crossed itself and was repaired.
        dropped: those without an area: empty, points, lines without a buffer, collapsed
            outlines, coordinates that have no place in the raster's CRS.
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
        """One line for a log."""
        return (
            f"{self.used} of {self.read} polygons used ({self.partly} partly outside the raster), "
            f"{self.repaired} repaired, {self.dropped} dropped, {self.outside} outside"
        )


def polygon_scenes(
    images: Path | str,
    polygons: Path | str,
    validation: Collection[int | str] | float | None = None,
) -> list[Scene]:
    """List the scenes of a folder of rasters with polygon files, sorted by name.

    Where a raster's stem reads ``<place><index>`` as in the Inria layout, place and index are
    taken from it; otherwise the stem is the place and there is no index.

    Args:
        images: the folder of rasters.
        polygons: a folder with one vector file per raster, of the same stem; or one vector file
            for all rasters, of which the suffix may be left out.
        validation: what is held back, see ``preprocessing.splits.hold_back``. None holds back
            the first raster and every fifth after it.

    Raises:
        DatasetError: no such folder or file; rasters and vector files that do not pair, all
            named in the one error; a name in ``validation`` that no raster has; no scene left
            on a side.
    """
    return hold_back(labelled_scenes(images, polygons, kind="polygons"), validation, images)


def read_polygons(
    path: Path | str,
    info: RasterInfo,
    where: str | None = None,
    buffer_m: float | None = None,
    layer: str | None = None,
    areas_needed: bool = True,
) -> tuple[np.ndarray, PolygonCounts]:
    """Read the polygons of a vector file that meet a raster, in the raster's CRS.

    A GeoJSON without a CRS of its own is in EPSG:4326 (RFC 7946). Holes and all parts are kept;
    of a collection, the parts that have an area. An outline that crosses itself is repaired: it
    covers what any of its parts covers.

    Args:
        path: GeoJSON, GeoPackage, Shapefile, FlatGeobuf or what else GDAL reads.
        info: of the raster, see ``raster_info``.
        where: which features, as the WHERE of OGR SQL: ``"building" = 'yes'``.
        buffer_m: what lines become polygons by: metres of ground to either side of them, half
            a road's width. Polygons are left as they are.
        layer: the layer, where the file has several.
        areas_needed: whether features of which none has an area are an error. If not, one such
            feature, or points alone, are background; several lines are an error anyway, as a
            width by which they become areas was forgotten.

    Returns:
        Polygons, one per part of a feature, as an object array (n,), and what became of the
        features. None at all where the file has no features, no feature passes the filter or has
        a geometry, or all lie around the raster and none in it: the raster is background.

    Raises:
        PolygonError: no vector file; geometries of which none has an area; a filter that does
            not work; no CRS in the file or raster; polygons whose extent, with those that the
            filter leaves out, does not meet that of the raster; `buffer_m` not above 0.
    """
    if buffer_m is not None and not buffer_m > 0:
        raise PolygonError(f"buffer_m is {buffer_m}; it is metres to either side, above 0")
    if not info.georeferenced:
        raise PolygonError(
            f"{path}: its polygons cannot be placed, as the raster has no CRS or no affine; "
            "georeference the raster, or give a label raster of its size"
        )
    features = read_features(path, where, layer)
    nothing = np.empty(0, object), PolygonCounts(len(features.shapes), dropped=len(features.shapes))
    if not shapely.get_num_coordinates(features.shapes).any():
        return nothing
    with_area = features.with_area(buffer_m)
    if not with_area.any():
        lines = _lines(features.shapes)
        if areas_needed or (lines and len(features.shapes) > 1):
            raise PolygonError(f"{path}: {_without_area(len(features.shapes), lines, buffer_m)}")
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
            # Those that pass may well lie elsewhere, in another raster of the same town.
            read_polygons(path, info, None, buffer_m, layer)
    within = shapely.contains(ground, parts)
    read, elsewhere = len(features.shapes), features.feature[with_area & ~chosen]
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
    """Read the polygons of a scene's vector file, as ``read_polygons`` does.

    Args:
        scene: names the file; of numbered chips, which have one each, some may hold nothing but a
            stray point or line, and are background.
        info: of the scene's image.

    Raises:
        PolygonError: as ``read_polygons``; the image is named.
    """
    chip = are_chips([scene.image, scene.label])
    try:
        return read_polygons(scene.label, info, scene.where, scene.buffer_m, areas_needed=not chip)
    except PolygonError as error:
        # One file may be the label of all scenes.
        raise PolygonError(f"{scene.image}: {error}") from error


def rasterise(polygons: Sequence[shapely.Geometry], info: RasterInfo) -> np.ndarray:
    """Fill polygons on the pixels of a raster.

    A pixel is target where its centre lies inside: only then does the mask have the polygons'
    area on the average, and the outlines of a mask give the same mask again. Filling every
    pixel that is touched would widen all of them by half a pixel and join neighbours.

    Args:
        polygons: polygons and multipolygons in the raster's CRS; may overlap, reach outside, or
            be none at all.
        info: of the raster, whose affine may be rotated or south-up.

    Returns:
        Mask (height, width) uint8 of 0 and 1; nothing is known of void here.
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
    """Which of so many features are named by any of these numbers, bool (count,)."""
    named = np.zeros(count, bool)
    named[np.concatenate(numbers)] = True
    return named


def _footprint(info: RasterInfo) -> shapely.Polygon:
    """The raster's outline in its CRS; a rotated raster is no upright rectangle there."""
    outline = shapely.box(0, 0, info.width, info.height)
    return shapely.affinity.affine_transform(outline, info.transform.to_shapely())


def _lines(shapes: np.ndarray) -> int:
    """How many lines these features hold."""
    parts, _ = explode(shapes, np.arange(len(shapes)))
    return int((shapely.get_type_id(parts) == LINE).sum())


def _without_area(count: int, lines: int, buffer_m: float | None) -> str:
    """Why so many features give no polygon."""
    if lines and buffer_m is None:
        return f"holds {lines} lines and no polygons; buffer_m makes them areas"
    return f"holds {count} feature(s), of which none has an area; polygons are needed"


def _refuse_elsewhere(
    path: Path | str, parts: np.ndarray, ground: shapely.Polygon, info: RasterInfo
) -> None:
    """Raise where the polygons' extent does not meet the raster's.

    Where it does, they lie around the raster: an empty tile of a town, which has its use.
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
