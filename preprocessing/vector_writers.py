"""Vector layers written batch by batch as GeoPackage, GeoJSON, FlatGeobuf or GeoParquet.

Memory holds one batch. A GeoPackage is appended to, GeoParquet gets a row group per batch. GeoJSON
and FlatGeobuf cannot be appended to: batches go into a GeoPackage beside the file, which GDAL then
converts as a stream. For the spatial index of FlatGeobuf, GDAL holds about a hundred bytes a
feature.
"""

import importlib.util
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely

from preprocessing.errors import OutputError, listed
from preprocessing.output_files import cannot_write, folder_beside, publish, refuse_existing
from preprocessing.raster_access import ClosedOnExit

# Rows of an arrow batch, which memory holds; the default is 65,536.
_ROWS = 2_000
DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".parquet": "Parquet"}
# SQLite keeps here what is not yet in the file; beside another file they would damage it.
_OPEN = ("-wal", "-journal")
Frames = geopandas.GeoDataFrame | Iterable[geopandas.GeoDataFrame]
"""One frame; or batches with the same columns, at least one, if only an empty one."""

# Red, green, blue and opacity, 0 to 255: the colour of masks in overlays.
_COLOUR, _TINT = "255,0,200,255", "255,0,200,60"
_SYMBOLS = {
    "Polygon": (
        "fill",
        "SimpleFill",
        2,
        {
            "color": _TINT,
            "style": "solid",
            "outline_color": _COLOUR,
            "outline_style": "solid",
            "outline_width": "0.4",
            "outline_width_unit": "MM",
            "joinstyle": "miter",
        },
    ),
    "LineString": (
        "line",
        "SimpleLine",
        1,
        {
            "line_color": _COLOUR,
            "line_style": "solid",
            "line_width": "0.6",
            "line_width_unit": "MM",
            "capstyle": "round",
            "joinstyle": "round",
        },
    ),
}


def check_layers(paths: Sequence[Path], overwrite: bool = False) -> None:
    """Refuse layers that must not or cannot be written, before any work is done.

    Raises:
        OutputError: an unknown ending, one file twice, a file or style that exists while
            ``overwrite`` is off, a GeoPackage that is open elsewhere, or GeoParquet without
            pyarrow.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise OutputError(f"{listed(paths)}: one file twice; name each once")
    for path in paths:
        if path.suffix.lower() not in DRIVERS:
            raise OutputError(
                f"{path}: the ending says which format to write; {', '.join(DRIVERS)} are known"
            )
        if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
            raise OutputError(f"{path}: GeoParquet needs pyarrow; `pip install pyarrow` brings it")
        refuse_existing(path, overwrite)
        refuse_existing(style_path(path), overwrite)
        for log in (path.with_name(path.name + end) for end in _OPEN):
            if path.suffix.lower() == ".gpkg" and log.exists():
                raise OutputError(f"{path}: is open in another program ({log.name}); close it")


def write_layers(
    frames: Frames, paths: Sequence[str | os.PathLike], geometry_type: str, overwrite: bool = False
) -> list[Path]:
    """Write a vector layer in one or several formats, by their endings, each with a QGIS style.

    GeoJSON follows RFC 7946: EPSG:4326, longitude and latitude with eight decimals (about a
    millimetre), outer rings anticlockwise, cut at the antimeridian. The others keep the frame's
    CRS and its coordinates to the last bit. Frames without CRS are written as they are. No rows
    give a layer with the same columns and the geometry type (GeoJSON: an empty
    FeatureCollection). All files are complete before the first appears.

    Args:
        frames: rows of one geometry type, in any CRS or none.
        paths: files that end in .gpkg, .geojson, .fgb or .parquet; missing folders are made.
        geometry_type: "Polygon" or "LineString".
        overwrite: replace existing files, styles too.

    Returns:
        The files written: the layers, then their styles. Layers of one name share a style.

    Raises:
        OutputError: see ``check_layers``; or a file cannot be written.
    """
    layers = [Path(path) for path in paths]
    check_layers(layers, overwrite)
    styles = list(dict.fromkeys(map(style_path, layers)))
    with ExitStack() as stack:
        moves, files = [], []
        for path in [*layers, *styles]:
            with _told(path):
                draft = stack.enter_context(folder_beside(path)) / path.name
                if path in styles:
                    draft.write_text(style(geometry_type), encoding="utf-8")
                else:
                    file = VectorFile(draft, geometry_type, DRIVERS[path.suffix.lower()])
                    files.append((stack.enter_context(file), path))
            moves.append((draft, path))
        for frame in [frames] if isinstance(frames, geopandas.GeoDataFrame) else frames:
            for file, path in files:
                with _told(path):
                    file.write(frame)
        for file, path in files:
            with _told(path):
                file.finish()
        for draft, path in moves:
            with _told(path):
                publish(draft, path, overwrite)
    return [path for _, path in moves]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise failures to write as an error of one line that names the file asked for."""
    try:
        yield
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise cannot_write(path, error) from error


class VectorFile(ClosedOnExit):
    """A file of a vector layer: write batches, then finish it; a context manager.

    It lies in a folder that nothing else uses; its driver is one of the values of ``DRIVERS``.

    Raises:
        OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError: on writing or
            finishing: disk full, or no right to write.
    """

    def __init__(self, path: Path, geometry_type: str, driver: str) -> None:
        self.path, self.driver, self._geometry_type = path, driver, geometry_type
        self._rows = 0
        self._begun = False
        self._parquet: Any = None
        converted = driver in ("GeoJSON", "FlatGeobuf")
        self._table = path.with_name(f"batches-{path.stem}.gpkg") if converted else path

    def close(self) -> None:
        """Give up a file that is not finished."""
        if self._parquet is not None:
            self._parquet.close()

    def write(self, frame: geopandas.GeoDataFrame) -> None:
        """Append rows, with the columns of the first batch, which is empty only if all are."""
        if self._begun and frame.empty:
            return
        if self.driver == "Parquet":
            self._write_parquet(frame)
        else:
            self._append(frame)
        self._begun = True
        self._rows += len(frame)

    def finish(self) -> None:
        """Complete the file and count its rows: not every failure at closing is reported."""
        if self._parquet is not None:
            self._parquet.add_key_value_metadata({"geo": json.dumps(self._geo)})
            self._parquet.close()
            self._parquet = None
        elif self._table != self.path:
            self._convert()
        if (arrived := rows_in(self.path, self.driver)) != self._rows:
            raise OSError(f"{arrived} of {self._rows} features arrived, disk full?")

    def _append(self, frame: geopandas.GeoDataFrame) -> None:
        """Append rows to the GeoPackage."""
        # What is converted needs no index; pyogrio takes the option with the first batch alone.
        indexed = self._begun or self._table == self.path
        if self.driver == "GeoJSON" and frame.crs is not None:
            frame = _in_one_turn(frame.to_crs("EPSG:4326"))
        with warnings.catch_warnings():
            # pyogrio warns about a frame without CRS, which is meant here.
            warnings.simplefilter("ignore", UserWarning)
            pyogrio.write_dataframe(
                frame,
                self._table,
                layer=self.path.stem,
                driver="GPKG",
                geometry_type=self._geometry_type,
                append=self._begun,
                **({} if indexed else {"SPATIAL_INDEX": "NO"}),
            )

    def _convert(self) -> None:
        """Make the file of the GeoPackage of batches."""
        with pyogrio.open_arrow(self._table, use_pyarrow=False, batch_size=_ROWS) as opened:
            info, stream = opened
            options: dict[str, Any] = {}
            if self.driver == "GeoJSON" and info["crs"] is not None:
                options = {"RFC7946": "YES", "COORDINATE_PRECISION": 8}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                pyogrio.write_arrow(
                    stream,
                    self.path,
                    layer=self.path.stem,
                    driver=self.driver,
                    geometry_name=info["geometry_name"] or "geom",
                    geometry_type=self._geometry_type,
                    crs=info["crs"],
                    **options,
                )
        self._table.unlink()

    def _write_parquet(self, frame: geopandas.GeoDataFrame) -> None:
        """Write a row group of GeoParquet."""
        from pyarrow import parquet

        content = io.BytesIO()
        # geopandas writes a file of the batch; what it says of the whole is joined at the end.
        frame.to_parquet(content, index=False, write_covering_bbox=len(frame) > 0)
        table = parquet.read_table(content)
        metadata = dict(table.schema.metadata)
        geo = json.loads(metadata.pop(b"geo"))
        column = geo["columns"][geo["primary_column"]]
        if not self._begun:
            self._geo = geo
            # Without geometries there would be no type for readers.
            column["geometry_types"] = [self._geometry_type]
            schema = table.schema.with_metadata(metadata)
            self._parquet = parquet.ParquetWriter(self.path, schema, compression="zstd")
        else:
            whole = self._geo["columns"][self._geo["primary_column"]]
            one, other = whole["bbox"], column["bbox"]
            whole["bbox"] = [*map(min, one[:2], other[:2]), *map(max, one[2:], other[2:])]
        self._parquet.write_table(table.replace_schema_metadata(metadata))


def _in_one_turn(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Move rows in degrees by whole turns, so that each begins between -180 and 180.

    GDAL cuts at the antimeridian and loses what lies across another multiple of 360.
    """
    geometries = frame.geometry.to_numpy()
    turns = np.floor((shapely.bounds(geometries).reshape(-1, 4)[:, 0] + 180) / 360)
    if not turns.any():
        return frame
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    points[:, 0] -= 360 * turns[owner]
    return frame.set_geometry(shapely.set_coordinates(geometries.copy(), points), crs=frame.crs)


def rows_in(path: Path, driver: str) -> int:
    """Count the features of a ``VectorFile`` without reading them into memory."""
    if driver == "Parquet":
        from pyarrow import parquet

        return parquet.read_metadata(path).num_rows
    if driver == "GeoJSON":
        # A feature stands on a line; GDAL would read all of them into memory.
        with open(path, encoding="utf-8") as lines:
            return sum(line.startswith('{ "type": "Feature",') for line in lines)
    return pyogrio.read_info(path, force_feature_count=True)["features"]


def style_path(layer: Path) -> Path:
    """Return where QGIS looks for the style of a layer: ``town.qml`` for ``town.gpkg``."""
    return layer.with_suffix(".qml")


def style(geometry_type: str) -> str:
    """Return a QGIS style as XML: an outline and a light fill for polygons, a line for lines."""
    symbol, layer, number, properties = _SYMBOLS[geometry_type]
    props = "\n".join(f'          <prop k="{k}" v="{v}"/>' for k, v in properties.items())
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.0.0" styleCategories="Symbology">
  <renderer-v2 type="singleSymbol" symbollevels="0" enableorderby="0" forceraster="0">
    <symbols>
      <symbol type="{symbol}" name="0" alpha="1" clip_to_extent="1">
        <layer class="{layer}" enabled="1" locked="0" pass="0">
{props}
        </layer>
      </symbol>
    </symbols>
    <rotation/>
    <sizescale/>
  </renderer-v2>
  <layerGeometryType>{number}</layerGeometryType>
</qgis>
"""
