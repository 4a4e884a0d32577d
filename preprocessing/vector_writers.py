"""The writers of vector layers: GeoPackage, GeoJSON, FlatGeobuf and GeoParquet.

Each file is written in a hidden folder beside its place, read back in part, and only then
renamed, so that it is complete or not there. A GeoPackage is always a new one with one layer:
appending would mix coordinates of different CRS in silence.
"""

import importlib.util
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import geopandas
import pyogrio

from preprocessing.errors import OutputError
from preprocessing.outputs import folder_beside, publish, refuse_existing
from preprocessing.qgis_style import style, style_path

DRIVERS = {
    ".gpkg": "GPKG",
    ".geojson": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
}
# SQLite keeps what is not yet in the file in these; beside another file they would damage it.
_OPEN = ("-wal", "-journal")


def check_layers(paths: Sequence[Path], overwrite: bool = False) -> None:
    """Refuse, before any work is done, layers that must not or cannot be written.

    Args:
        paths: the files asked for.
        overwrite: files that exist are to be replaced.

    Raises:
        OutputError: an unknown ending, one file twice, a file or style that exists while
            ``overwrite`` is off, a GeoPackage that is open elsewhere, or GeoParquet without
            pyarrow.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise OutputError(f"{', '.join(map(str, paths))}: one file twice; name each once")
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
    frame: geopandas.GeoDataFrame,
    paths: Sequence[str | os.PathLike],
    geometry_type: str,
    overwrite: bool = False,
) -> list[Path]:
    """Write a layer in one or several formats, known by their endings, each with a QGIS style.

    GeoJSON follows RFC 7946: EPSG:4326, longitude and latitude with eight decimals (about a
    millimetre), outer rings anticlockwise, cut at the antimeridian. The others keep the frame's
    CRS and its coordinates to the last bit. A frame without CRS is written as it is. No rows
    give a layer with the same columns and the geometry type (GeoJSON: an empty
    FeatureCollection). All files are complete before the first appears.

    Args:
        frame: rows of one geometry type, in any CRS or none.
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
        moves = []
        for path in [*layers, *styles]:
            with _told(path):
                draft = stack.enter_context(folder_beside(path)) / path.name
                if path in styles:
                    draft.write_text(style(geometry_type), encoding="utf-8")
                else:
                    _write(frame, draft, geometry_type, DRIVERS[path.suffix.lower()])
            moves.append((draft, path))
        for draft, path in moves:
            with _told(path):
                publish(draft, path, overwrite)
    return [path for _, path in moves]


def write_layer(
    frame: geopandas.GeoDataFrame,
    path: str | os.PathLike,
    geometry_type: str,
    driver: str,
    overwrite: bool = False,
) -> None:
    """Write one layer without a style, whatever its ending; see ``write_layers``.

    Args:
        frame: rows of one geometry type, in any CRS or none.
        path: the file to write; missing folders are made.
        geometry_type: "Polygon" or "LineString".
        driver: one of the values of ``DRIVERS``.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    with _told(path), folder_beside(path) as folder:
        _write(frame, folder / path.name, geometry_type, driver)
        publish(folder / path.name, path, overwrite)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Failures to write, in one line that names the file asked for."""
    try:
        yield
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        words = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OutputError(f"{path}: cannot be written: {words}") from error


def _write(frame: geopandas.GeoDataFrame, path: Path, geometry_type: str, driver: str) -> None:
    """Write the file and count what arrived: not every failure at closing is reported."""
    if driver == "Parquet":
        complete = _write_parquet(frame, path, geometry_type)
    else:
        options: dict[str, Any] = {}
        if driver == "GeoJSON" and frame.crs is not None:
            frame = frame.to_crs("EPSG:4326")
            options = {"RFC7946": "YES", "COORDINATE_PRECISION": 8}
        with warnings.catch_warnings():
            # Of a frame without CRS pyogrio warns; here that is meant.
            warnings.simplefilter("ignore", UserWarning)
            pyogrio.write_dataframe(
                frame, path, driver=driver, geometry_type=geometry_type, **options
            )
        complete = pyogrio.read_info(path, force_feature_count=True)["features"]
    if complete != len(frame):
        raise OSError(f"{complete} of {len(frame)} features arrived, disk full?")


def _write_parquet(frame: geopandas.GeoDataFrame, path: Path, geometry_type: str) -> int:
    """Write GeoParquet and return how many rows the file has."""
    from pyarrow import parquet

    frame.to_parquet(path, index=False, compression="zstd", write_covering_bbox=len(frame) > 0)
    if frame.empty:
        # Geometries that are not there have no type; readers find it in the metadata.
        table = parquet.read_table(path)
        geo = json.loads(table.schema.metadata[b"geo"])
        geo["columns"][geo["primary_column"]]["geometry_types"] = [geometry_type]
        metadata = {**table.schema.metadata, b"geo": json.dumps(geo).encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")
    return parquet.read_metadata(path).num_rows
