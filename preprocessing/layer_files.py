"""The files of vector layers as they are written batch by batch, in the memory of one batch.

A GeoPackage is appended to, GeoParquet gets a row group per batch. GeoJSON and FlatGeobuf cannot
be appended to: batches go into a GeoPackage beside the file, which GDAL then reads as a stream
and converts; the disk holds that much more until it is done. The spatial index of FlatGeobuf is
packed once all bounding boxes are known: GDAL holds about a hundred bytes a feature for it.
"""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely

from preprocessing.raster_access import ClosedOnExit

# Of the arrow stream; the default of 65,536 would be what memory holds.
_ROWS = 2_000
DRIVERS = {
    ".gpkg": "GPKG",
    ".geojson": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
}


class LayerFile(ClosedOnExit):
    """One file of a layer: batches are written, then it is finished; a context manager.

    GeoJSON is in EPSG:4326 by RFC 7946 where the batches have a CRS.

    Args:
        path: the file, in a folder that nothing else uses.
        geometry_type: "Polygon" or "LineString".
        driver: one of the values of ``DRIVERS``.
    """

    def __init__(self, path: Path, geometry_type: str, driver: str) -> None:
        self.path, self.driver, self._geometry_type = path, driver, geometry_type
        self._rows = 0
        self._begun = False
        self._parquet: Any = None
        converted = driver in ("GeoJSON", "FlatGeobuf")
        self._table = path.with_name(f"batches-{path.stem}.gpkg") if converted else path

    def close(self) -> None:
        """Give up what is open; a file that is finished has nothing."""
        if self._parquet is not None:
            self._parquet.close()

    def write(self, frame: geopandas.GeoDataFrame) -> None:
        """Append rows; the first batch, empty only if there are no others, says which columns.

        Raises:
            OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError: disk full, or
                no right to write.
        """
        if self._begun and frame.empty:
            return
        if self.driver == "Parquet":
            self._write_parquet(frame)
        else:
            self._append(frame)
        self._begun = True
        self._rows += len(frame)

    def finish(self) -> None:
        """Complete the file and count what arrived: not every failure at closing is reported.

        Raises:
            OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError: disk full, or
                rows are missing.
        """
        if self._parquet is not None:
            self._finish_parquet()
        elif self._table != self.path:
            self._convert()
        if (arrived := rows_in(self.path, self.driver)) != self._rows:
            raise OSError(f"{arrived} of {self._rows} features arrived, disk full?")

    def _append(self, frame: geopandas.GeoDataFrame) -> None:
        """Rows to a GeoPackage."""
        options = {} if self._table == self.path else {"SPATIAL_INDEX": "NO"}
        if self.driver == "GeoJSON" and frame.crs is not None:
            frame = _in_one_turn(frame.to_crs("EPSG:4326"))
        with warnings.catch_warnings():
            # Of a frame without CRS pyogrio warns; here that is meant.
            warnings.simplefilter("ignore", UserWarning)
            pyogrio.write_dataframe(
                frame,
                self._table,
                layer=self.path.stem,
                driver="GPKG",
                geometry_type=self._geometry_type,
                append=self._begun,
                **({} if self._begun else options),
            )

    def _convert(self) -> None:
        """From the GeoPackage of batches to the file."""
        with pyogrio.open_arrow(self._table, use_pyarrow=False, batch_size=_ROWS) as (
            info,
            stream,
        ):
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
        """Rows to GeoParquet, in a row group of their own."""
        from pyarrow import parquet

        content = io.BytesIO()
        # geopandas knows how; what it says of the file as a whole is put together at the end.
        frame.to_parquet(content, index=False, write_covering_bbox=len(frame) > 0)
        table = parquet.read_table(content)
        metadata = dict(table.schema.metadata)
        geo = json.loads(metadata.pop(b"geo"))
        column = geo["columns"][geo["primary_column"]]
        if not self._begun:
            self._geo = geo
            # Geometries that are not there have no type; readers find it here.
            column["geometry_types"] = [self._geometry_type]
            schema = table.schema.with_metadata(metadata)
            self._parquet = parquet.ParquetWriter(self.path, schema, compression="zstd")
        else:
            whole = self._geo["columns"][self._geo["primary_column"]]
            one, other = whole["bbox"], column["bbox"]
            whole["bbox"] = [*map(min, one[:2], other[:2]), *map(max, one[2:], other[2:])]
        self._parquet.write_table(table.replace_schema_metadata(metadata))

    def _finish_parquet(self) -> None:
        self._parquet.add_key_value_metadata({"geo": json.dumps(self._geo)})
        self._parquet.close()
        self._parquet = None


def _in_one_turn(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Rows in degrees, each moved by whole turns so that it begins between -180 and 180.

    GDAL cuts at the antimeridian; what lies across another multiple of 360, it loses.
    """
    geometries = frame.geometry.to_numpy()
    turns = np.floor((shapely.bounds(geometries).reshape(-1, 4)[:, 0] + 180) / 360)
    if not turns.any():
        return frame
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    points[:, 0] -= 360 * turns[owner]
    return frame.set_geometry(shapely.set_coordinates(geometries.copy(), points), crs=frame.crs)


def rows_in(path: Path, driver: str) -> int:
    """How many features a file has, without reading them into memory.

    Args:
        path: a file that ``LayerFile`` wrote.
        driver: one of the values of ``DRIVERS``.
    """
    if driver == "Parquet":
        from pyarrow import parquet

        return parquet.read_metadata(path).num_rows
    if driver == "GeoJSON":
        # GDAL writes a feature per line; reading it with GDAL would hold all of them.
        with open(path, encoding="utf-8") as lines:
            return sum(line.startswith('{ "type": "Feature",') for line in lines)
    return pyogrio.read_info(path, force_feature_count=True)["features"]
