"""Files that appear only when complete: written in a folder beside, then renamed."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocessing.errors import OutputError, one_line

SIDE_FILES = (".aux.xml", ".msk", ".ovr")
"""Endings of what GDAL and QGIS leave beside a raster, wrong once the raster is another one."""


def refuse_existing(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuse an output file that must not be written, before any work is done.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder, the output is a file; name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; --overwrite replaces it")


def cannot_write(path: str | os.PathLike, error: BaseException) -> OutputError:
    """Return the error of one line for a failure to write."""
    words = getattr(error, "strerror", None) or one_line(error.__cause__ or error)
    return OutputError(f"{path}: cannot be written: {words}")


@contextmanager
def folder_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Make a hidden temporary folder beside ``path``, deleted when the block ends.

    It is on the same disk as ``path``, so that a rename moves a file out of it. Helper files that a
    library leaves next to its output are deleted with it. Missing parents are made.

    Raises:
        OSError: no right to write there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_space(folder: Path, size: int) -> None:
    """Raise an ``OSError`` if the disk of a folder has less free than a number of bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"needs up to {size / 1e6:.1f} MB free, the disk has {free / 1e6:.1f}")


def publish(finished: Path, path: str | os.PathLike, overwrite: bool = False) -> None:
    """Rename a finished file to its place.

    Raises:
        OutputError: something else has written ``path`` in the meantime.
        OSError: it cannot be renamed.
    """
    refuse_existing(path, overwrite)
    os.replace(finished, path)


@contextmanager
def replacing(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Give a path to write to, and move the file to ``path`` once the block has ended.

    The path given has the same name, in a ``folder_beside``. On any exception, an interrupt too,
    an older file stays as it was and nothing new remains. The block should only write: an
    ``OSError`` in it counts as a failure to write.

    Raises:
        OutputError: exists and ``overwrite`` is off; no right to write; disk full.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    try:
        with folder_beside(path) as folder:
            yield folder / path.name
            publish(folder / path.name, path, overwrite)
    except OSError as error:
        raise cannot_write(path, error) from error


def refuse_existing_folder(path: str | os.PathLike, overwrite: bool, holds: str) -> None:
    """Refuse an output folder that must not be written, before any work is done.

    An empty folder is as good as none. Only a folder that holds a file named ``holds`` may be
    replaced: a slip of the keyboard should not cost a folder of another kind.

    Raises:
        OutputError: the folder is not empty and ``overwrite`` is off, or it is of another kind;
            or the path is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: is a file, the output is a folder; name another")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / holds).exists():
        raise OutputError(f"{path}: holds other things; name a folder that is new or empty")
    if not overwrite:
        raise OutputError(f"{path}: exists already; --overwrite replaces it")


@contextmanager
def replacing_folder(
    path: str | os.PathLike, overwrite: bool = False, holds: str = ""
) -> Iterator[Path]:
    """Give a new folder to fill, which becomes ``path`` once the block has ended.

    On any exception, an interrupt too, an older folder stays as it was and nothing new remains.

    Raises:
        OutputError: as ``refuse_existing_folder``; no right to write; disk full.
    """
    path = Path(path)
    refuse_existing_folder(path, overwrite, holds)
    try:
        with folder_beside(path) as beside:
            # Not the folder beside itself, which only its owner may enter.
            made = beside / "new"
            made.mkdir()
            yield made
            refuse_existing_folder(path, overwrite, holds)
            if path.is_dir():
                path.rename(beside / "old")
            made.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON, as ``replacing`` does."""
    text = json.dumps(content, indent=2) + "\n"
    with replacing(path, overwrite=True) as beside:
        beside.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of equal keys as CSV with a header, as ``replacing`` does."""
    with (
        replacing(path, overwrite=True) as beside,
        beside.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def publish_all(moves: Sequence[tuple[Path, Path]], aside: Path, overwrite: bool = False) -> None:
    """Rename finished files to their places: all of them, or none.

    Files that are replaced, and their side files (statistics, masks), go to ``aside``, an empty
    folder on the same disk, and come back on failure.

    Raises:
        OutputError: something has been written to a place in the meantime.
        OSError: a file cannot be renamed.
    """
    for _, path in moves:
        refuse_existing(path, overwrite)
    done: list[tuple[Path, Path]] = []

    def move(source: Path, path: Path) -> None:
        os.replace(source, path)
        done.append((source, path))

    try:
        for _, path in moves:
            for old in (path.with_name(path.name + suffix) for suffix in ("", *SIDE_FILES)):
                if old.exists():
                    move(old, aside / old.name)
        for finished, path in moves:
            move(finished, path)
    except BaseException:
        for source, path in reversed(done):
            os.replace(path, source)
        raise
