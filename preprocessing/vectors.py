"""Vector files read with GDAL, and the areas that their features cover in a raster's CRS.

`polygons` stands on this.
"""

import os
import shlex
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pyproj
import shapely
import shapely.affinity

from preprocessing.errors import DatasetError, PolygonError
from preprocessing.geometry import to_longitude_latitude
from preprocessing.raster_access import RasterInfo

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
# Type numbers of shapely; higher ones are collections.
LINE, POLYGON = 1, 3
_PYOGRIO_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.GeometryError,
    ValueError,
)


def vector_files(polygons: Path) -> Path | list[Path]:
    """The vector files of a folder, known by suffix and sorted, or the one file for all rasters.

    Args:
        polygons: the folder; or the file, of which the suffix may be left out.

    Raises:
        DatasetError: neither is there, or several files without the suffix.
    """
    if polygons.is_dir():
        return sorted(
            path
            for path in polygons.iterdir()
            if path.suffix.lower() in VECTOR_SUFFIXES and not path.name.startswith(".")
        )
    named = [polygons, *(polygons.with_name(polygons.name + end) for end in VECTOR_SUFFIXES)]
    found = [path for path in named if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(f"{', '.join(map(str, found))}: several for all rasters; name one")
    raise DatasetError(
        f"{polygons}: no such folder or file; it holds one vector file per raster "
        f"({', '.join(VECTOR_SUFFIXES)}) of the same name, or is one file for all rasters"
    )


def read_features(path: Path | str, where: str | None, layer: str | None) -> geopandas.GeoDataFrame:
    """The features of a vector file in a known CRS; none is a case, and needs no CRS.

    Args:
        path: anything GDAL reads; a GeoJSON without a CRS of its own is in EPSG:4326.
        where: the WHERE of OGR SQL, None for all.
        layer: the layer, where the file has several.

    Raises:
        PolygonError: no vector file, a table, several layers, no CRS, or a filter that does not
            work.
    """
    try:
        with warnings.catch_warnings():
            # Rings that do not close are closed.
            warnings.simplefilter("ignore")
            layer = _layer(path, layer)
            features = pyogrio.read_dataframe(
                path, layer=layer, where=where, force_2d=True, on_invalid="fix"
            )
    except _PYOGRIO_ERRORS as error:
        if where is None:
            raise PolygonError(f"{path}: cannot be read: {_words(error)}") from error
        held = pyogrio.read_info(path, layer=layer, force_feature_count=True)
        if not held["features"]:
            # A GeoJSON without features has no fields that a filter could name.
            return geopandas.GeoDataFrame(geometry=[])
        raise PolygonError(
            f"{path}: the filter {where!r} does not work; one reads like \"building\" = 'yes', "
            f"and the fields are {', '.join(held['fields'].tolist()) or 'none'}"
        ) from error
    if not isinstance(features, geopandas.GeoDataFrame):
        raise PolygonError(f"{path}: is a table without geometries; polygons are needed")
    if features.crs is None and not features.empty:
        remedy = "beside it goes a .prj" if Path(path).suffix.lower() == ".shp" else "it lacks one"
        raise PolygonError(
            f"{path}: no CRS is known ({remedy}); "
            "`ogr2ogr -a_srs EPSG:<code> OUT.gpkg IN` states it"
        )
    return features


def areas_of(
    features: geopandas.GeoDataFrame,
    info: RasterInfo,
    buffer_m: float | None,
    path: Path | str,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The areas that features cover, in a raster's CRS.

    Args:
        features: with geometries of any kind, and a CRS.
        info: of the raster.
        buffer_m: metres of ground to either side by which lines become areas, None to leave
            them out.
        path: of the file, for errors.

    Returns:
        Valid polygons with finite coordinates, an object array (n,); the number of the feature
        that each is part of, int (n,); and how many features had an outline repaired.

    Raises:
        PolygonError: no way leads from the features' CRS to the raster's, or, for lines, from
            there to metres of ground.
    """
    shapes, crs = features.geometry.to_numpy(), features.crs
    parts, feature = explode(shapes, np.arange(len(shapes)))
    kind = shapely.get_type_id(parts)
    areas, of_area = parts[kind == POLYGON], feature[kind == POLYGON]
    crossed = ~shapely.is_valid(areas)
    repaired = len(np.unique(of_area[crossed]))
    # The other method would turn what two loops of an outline both cover into a hole.
    areas[crossed] = shapely.make_valid(areas[crossed], method="structure", keep_collapsed=False)
    areas, of_area = explode(areas, of_area)
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
    return areas[usable], of_area[usable], repaired


def explode(shapes: np.ndarray, feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Single points, lines and polygons out of collections of any depth, without empty ones.

    Args:
        shapes: geometries or None, an object array (n,).
        feature: a number for each (n,), which its parts keep.
    """
    while True:
        shapes, index = shapely.get_parts(shapes, return_index=True)
        feature = feature[index]
        if (shapely.get_type_id(shapes) <= POLYGON).all():
            filled = ~shapely.is_empty(shapes)
            return shapes[filled], feature[filled]


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


def _layer(path: Path | str, layer: str | None) -> str:
    """The layer asked for, or the only one that has geometries."""
    if not Path(path).is_file():
        raise PolygonError(f"{path}: no such file; a GeoJSON, GeoPackage or Shapefile is needed")
    try:
        layers = dict(pyogrio.list_layers(os.fspath(path)).tolist())
    except _PYOGRIO_ERRORS as error:
        raise PolygonError(
            f"{path}: not a vector file that can be read (GeoJSON, GeoPackage, Shapefile, ...): "
            f"{_words(error)}"
        ) from error
    known = [name for name, kind in layers.items() if kind is not None] or list(layers)
    if layer is None and len(known) == 1:
        return known[0]
    if layer not in layers:
        named = ", ".join(known)
        if not known:
            raise PolygonError(f"{path}: holds no layers; polygons are needed")
        if layer is not None:
            raise PolygonError(f"{path}: has no layer {layer!r}; name one of {named}")
        command = shlex.join(["ogr2ogr", "OUT.gpkg", os.fspath(path), known[0]])
        raise PolygonError(
            f"{path}: has several layers ({named}) and one is needed; "
            f"`{command}` makes a file of one"
        )
    return layer


def _words(error: BaseException) -> str:
    return " ".join(str(error).split(";")[0].split())
