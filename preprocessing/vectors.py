"""Vector files: read by GDAL, their features taken apart into lines and valid polygons."""

import os
import shlex
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pyproj
import shapely

from preprocessing.errors import DatasetError, PolygonError, listed, one_line

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
# Type numbers of shapely; higher ones are collections.
LINE, POLYGON = 1, 3
# Files beside a Shapefile that change what is read.
_SIDECARS = (".shx", ".dbf", ".prj")
_PYOGRIO_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.GeometryError,
    ValueError,
)


def vector_files(polygons: Path) -> Path | list[Path]:
    """Return the vector files of a folder, by suffix and sorted, or the one file for all rasters.

    The suffix of that file may be left out.

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


@dataclass(frozen=True, eq=False)
class VectorFeatures:
    """Features of a vector file, taken apart to be laid on one raster after another.

    Attributes:
        crs: of the coordinates, None where there are no features.
        shapes: the geometries as they were read, or None, an object array (n,).
        parts: their single lines and valid polygons, an object array (m,).
        feature: number of the feature that each is part of, int (m,).
        repaired: how many features had an outline repaired.
        tree: of the parts.
    """

    path: Path | str
    crs: pyproj.CRS | None
    shapes: np.ndarray
    parts: np.ndarray
    feature: np.ndarray
    repaired: int
    tree: shapely.STRtree

    def with_area(self, buffer_m: float | None) -> np.ndarray:
        """Return which parts have an area: polygons, and lines that are widened; bool (m,)."""
        kind = shapely.get_type_id(self.parts)
        return (kind == POLYGON) | (kind == LINE if buffer_m is not None else False)


def read_features(path: Path | str, where: str | None, layer: str | None) -> VectorFeatures:
    """Read the features of a vector file. It may have none, and then needs no CRS.

    Arguments are those of ``polygons.read_polygons``. What was read last is kept, as one file may
    be the label of many rasters.

    Raises:
        PolygonError: no vector file, a table, several layers, no CRS, or a filter that does not
            work.
    """
    file = Path(path)
    files = [file, *(file.parent / (file.stem + end) for end in _SIDECARS)]
    stats = [file.stat() for file in files if file.is_file()]
    stamps = tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)
    return _features(path, where, layer, stamps)


# Two, because after those that pass a filter all may be asked for, to see where they lie.
@lru_cache(maxsize=2)
def _features(
    path: Path | str, where: str | None, layer: str | None, stamps: tuple
) -> VectorFeatures:
    frame = _read(path, where, layer)
    shapes = frame.geometry.to_numpy()
    parts, feature = explode(shapes, np.arange(len(shapes)))
    kind = shapely.get_type_id(parts)
    areas, of_area = parts[kind == POLYGON], feature[kind == POLYGON]
    crossed = ~shapely.is_valid(areas)
    repaired = len(np.unique(of_area[crossed]))
    # By the other method, what two loops of an outline both cover would be a hole.
    areas[crossed] = shapely.make_valid(areas[crossed], method="structure", keep_collapsed=False)
    areas, of_area = explode(areas, of_area)
    parts = np.concatenate([areas, parts[kind == LINE]])
    feature = np.concatenate([of_area, feature[kind == LINE]])
    return VectorFeatures(path, frame.crs, shapes, parts, feature, repaired, shapely.STRtree(parts))


def _read(path: Path | str, where: str | None, layer: str | None) -> geopandas.GeoDataFrame:
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
            f"and the fields are {listed(held['fields'], 40) or 'none'}"
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


def explode(shapes: np.ndarray, feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take collections of any depth apart into points, lines and polygons, without empty ones.

    Shapes (n,) may be None, and ``feature`` has a number for each, int (n,). The result is the
    parts (m,) and their numbers (m,).
    """
    while True:
        shapes, index = shapely.get_parts(shapes, return_index=True)
        feature = feature[index]
        if (shapely.get_type_id(shapes) <= POLYGON).all():
            filled = ~shapely.is_empty(shapes)
            return shapes[filled], feature[filled]


def _layer(path: Path | str, layer: str | None) -> str:
    """Return the layer asked for, or the only one that has geometries."""
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
    return one_line(str(error).split(";")[0])
