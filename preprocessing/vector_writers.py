"""The writers of vector layers: GeoPackage, GeoJSON, FlatGeobuf and GeoParquet.

Layers come whole or in batches, of which memory holds one, see ``layer_files``. Each file is
written in a hidden folder beside its place, read back in part, and only then renamed, so that it
is complete or not there. A GeoPackage is always a new one with one layer: appending to another
would mix coordinates of different CRS in silence.
"""

import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import geopandas
import pyogrio

from preprocessing.errors import OutputError
from preprocessing.layer_files import DRIVERS, LayerFile
from preprocessing.output_files import folder_beside, publish, refuse_existing
from preprocessing.qgis_style import style, style_path

# SQLite keeps what is not yet in the file in these; beside another file they would damage it.
_OPEN = ("-wal", "-journal")


Frames = geopandas.GeoDataFrame | Iterable[geopandas.GeoDataFrame]
"""A layer as one frame; or as batches with the same columns, at least one, if only an empty one."""


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
    frames: Frames,
    paths: Sequence[str | os.PathLike],
    geometry_type: str,
    overwrite: bool = False,
) -> list[Path]:
    """Write a layer in one or several formats, known by their endings, each with a QGIS style.

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
                    driver = DRIVERS[path.suffix.lower()]
                    files.append(
                        (stack.enter_context(LayerFile(draft, geometry_type, driver)), path)
                    )
            moves.append((draft, path))
        for frame in _batches(frames):
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


def write_layer(
    frames: Frames,
    path: str | os.PathLike,
    geometry_type: str,
    driver: str,
    overwrite: bool = False,
) -> None:
    """Write one layer without a style, whatever its ending; see ``write_layers``.

    Args:
        frames: rows of one geometry type, in any CRS or none.
        path: the file to write; missing folders are made.
        geometry_type: "Polygon" or "LineString".
        driver: one of the values of ``DRIVERS``.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    with ExitStack() as stack:
        with _told(path):
            folder = stack.enter_context(folder_beside(path))
            file = stack.enter_context(LayerFile(folder / path.name, geometry_type, driver))
        for frame in _batches(frames):
            with _told(path):
                file.write(frame)
        with _told(path):
            file.finish()
            publish(folder / path.name, path, overwrite)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Failures to write, in one line that names the file asked for."""
    try:
        yield
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        words = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OutputError(f"{path}: cannot be written: {words}") from error


def _batches(frames: Frames) -> Iterable[geopandas.GeoDataFrame]:
    return [frames] if isinstance(frames, geopandas.GeoDataFrame) else frames
