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

from preprocessing.errors import DatasetError, PolygonError
from preprocessing.inria import STEM
from preprocessing.raster_access import RasterInfo
from preprocessing.scenes import Scene, images_in, pair_by_stem
from preprocessing.vectors import LINE, POLYGON, areas_of, explode, read_features, vector_files

HELD_BACK = 5
"""Without a split of one's own, one raster in so many is held back for validation."""


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
    validation: Collection[int | str] | None = None,
) -> list[Scene]:
    """List the scenes of a folder of rasters with polygon files, sorted by name.

    Where a raster's stem reads ``<place><index>`` as in the Inria layout, place and index are
    taken from it; otherwise the stem is the place and there is no index.

    Args:
        images: the folder of rasters.
        polygons: a folder with one vector file per raster, of the same stem; or one vector file
            for all rasters, of which the suffix may be left out.
        validation: what is held back for validation: indices, which count for every place, and
            names (stems, or tiles of which patches were cut). None holds back the first raster
            and every fifth after it.

    Raises:
        DatasetError: no such folder or file; rasters and vector files that do not pair, all
            named in the one error; a name in ``validation`` that no raster has; no scene left
            on a side.
    """
    rasters, files = images_in(images), vector_files(Path(polygons))
    if isinstance(files, Path):
        pairs = [(raster, files) for raster, _ in pair_by_stem(rasters, rasters)]
    else:
        pairs = pair_by_stem(rasters, files)
    names = {raster.stem: _read_stem(raster.stem) for raster, _ in pairs}
    held_back = _held_back(names, validation, Path(images))
    return [
        Scene(
            name=raster.stem,
            place=names[raster.stem][1],
            index=names[raster.stem][2],
            split="validation" if raster.stem in held_back else "train",
            image=raster,
            label=label,
            label_kind="polygons",
        )
        for raster, label in pairs
    ]


def _read_stem(stem: str) -> tuple[str, str, int | None]:
    """Tile, place and index."""
    match = STEM.fullmatch(stem)
    return (match["tile"], match["place"], int(match["index"])) if match else (stem, stem, None)


def _held_back(
    names: dict[str, tuple[str, str, int | None]],
    validation: Collection[int | str] | None,
    folder: Path,
) -> set[str]:
    """Stems of the rasters that are held back; refuses a split with an empty side."""
    if validation is None:
        # Patches of one tile stay together.
        tiles = sorted({tile for tile, _, _ in names.values()})
        validation = tiles[::HELD_BACK]
    known = set(names) | {tile for tile, _, _ in names.values()}
    unknown = [name for name in validation if isinstance(name, str) and name not in known]
    if unknown:
        raise DatasetError(f"validation names no raster of {folder}: {', '.join(unknown)}")
    held_back = {
        stem
        for stem, (tile, _, index) in names.items()
        if stem in validation or tile in validation or index in validation
    }
    if len(held_back) in (0, len(names)):
        side = "training" if held_back else "validation"
        raise DatasetError(
            f"no {side} scene among {len(names)} raster(s) in {folder}: two or more are needed, "
            "some of them, but not all, named for validation"
        )
    return held_back


def read_polygons(
    path: Path | str,
    info: RasterInfo,
    where: str | None = None,
    buffer_m: float | None = None,
    layer: str | None = None,
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

    Returns:
        Polygons, one per part of a feature, as an object array (n,), and what became of the
        features. None at all where they lie around the raster and none in it.

    Raises:
        PolygonError: no vector file; no features, or none with an area; a filter that does not
            work or that nothing passes; no CRS in the file or raster; polygons whose extent does
            not meet that of the raster; `buffer_m` not above 0.
    """
    if buffer_m is not None and not buffer_m > 0:
        raise PolygonError(f"buffer_m is {buffer_m}; it is metres to either side, above 0")
    if not info.georeferenced:
        raise PolygonError(
            f"{path}: its polygons cannot be placed, as the raster has no CRS or no affine; "
            "georeference the raster, or give a label raster of its size"
        )
    features = read_features(path, where, layer)
    shapes = features.geometry.to_numpy()
    parts, feature, repaired = areas_of(features, info, buffer_m, path)
    if not len(parts):
        raise PolygonError(f"{path}: {_nothing_left(shapes, buffer_m)}")
    ground = _footprint(info)
    shapely.prepare(ground)
    meets, within = shapely.intersects(ground, parts), shapely.contains(ground, parts)
    if not meets.any():
        _refuse_elsewhere(path, parts, ground, info)
    with_area, used = len(np.unique(feature)), np.unique(feature[meets])
    counts = PolygonCounts(
        read=len(shapes),
        repaired=repaired,
        dropped=len(shapes) - with_area,
        outside=with_area - len(used),
        partly=len(np.intersect1d(used, feature[~within])),
    )
    return parts[meets], counts


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


def _footprint(info: RasterInfo) -> shapely.Polygon:
    """The raster's outline in its CRS; a rotated raster is no upright rectangle there."""
    outline = shapely.box(0, 0, info.width, info.height)
    return shapely.affinity.affine_transform(outline, info.transform.to_shapely())


def _nothing_left(shapes: np.ndarray, buffer_m: float | None) -> str:
    """Why no polygon came out of these features."""
    parts, _ = explode(shapes, np.arange(len(shapes)))
    kinds = shapely.get_type_id(parts)
    if (kinds == POLYGON).any():
        return (
            "no polygon has a place in the raster's CRS; are its coordinates those of its CRS? "
            "A GeoJSON that names none is in degrees of longitude and latitude"
        )
    if (kinds == LINE).any() and buffer_m is None:
        return f"holds {(kinds == LINE).sum()} lines and no polygons; buffer_m makes them areas"
    return f"holds {len(shapes)} feature(s), of which none has an area; polygons are needed"


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
