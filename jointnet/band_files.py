"""Predicted bands on disk: each appears complete, and any process may predict any of them.

A folder beside the outputs, ``.<stem>_<key>.bands``, holds ``job.json`` and a file per band. The
key stands for network, options and input (``raster_job.RasterJob``), so bands of another
configuration are never taken for these. Files hold the float32 rows of ``Band.strips`` one after
the other, each strip's values, then, where it has them, its weights.
"""

import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from jointnet.window_bands import Band, Strip, WindowGrid, bands_of, join
from preprocessing.errors import OutputError, RunError
from preprocessing.output_files import require_space, write_json

_CLAIM, _PUBLISHING = "claimed", "publishing"
_DRAFTS = "band_*.f32-*"
_DAY = 24 * 3600
_ITEM = np.dtype(np.float32).itemsize
# Claims that this process has made, on behalf of any of its jobs.
_CLAIMED: set[Path] = set()


class BandFiles:
    """The bands of one raster that are predicted already.

    Attributes: ``folder``, ``grid``, ``bands``, all bands of the grid, and ``claim_file``, which
    says who makes the outputs.

    Args:
        folder: where they lie; made by ``begin``.
        grid: windows over the raster.
    """

    def __init__(self, folder: Path, grid: WindowGrid):
        self.folder = Path(folder)
        self.grid = grid
        self.bands = bands_of(grid)
        self.claim_file = self.folder.absolute() / _CLAIM
        self._claimed = False

    def begin(self, job: dict) -> None:
        """Make the folder, or find it as an earlier start with the same job left it.

        Args:
            job: what is predicted, JSON; read back by ``read_job``. Its ``key`` tells it from
                other jobs.

        Raises:
            RunError: the folder holds another job.
            OSError: it cannot be made, or the disk has no room for the bands that are missing.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_old_drafts()
        try:
            found = read_job(self.folder)
        except (FileNotFoundError, ValueError):
            # A cut file, as a power loss leaves it, says no more than none.
            write_json(self.folder / "job.json", job)
            found = read_job(self.folder)
        if found.get("key") != job["key"]:
            raise RunError(f"{self.folder} holds bands of another prediction; delete it")
        require_space(self.folder, sum(self._size(band) for band in self.missing()))

    def missing(self) -> list[Band]:
        """Bands that are not there yet, from top to bottom."""
        return [band for band in self.bands if not self._path(band).exists()]

    def save(self, band: Band, strips: Iterable[Strip]) -> None:
        """Write one band, which appears when it is complete.

        Args:
            band: one of ``bands``.
            strips: its strips; each is written before the next is asked for.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        # Not from tempfile, whose files only their owner may read.
        path = self.folder / f"{self._path(band).name}-{uuid.uuid4().hex}"
        try:
            with open(path, "xb") as file:
                for strip in strips:
                    for rows in (strip.values, strip.weights):
                        if rows is not None:
                            file.write(np.ascontiguousarray(rows, np.float32).data)
                file.flush()
                os.fsync(file.fileno())
            path.replace(self._path(band))
        except BaseException as error:
            with suppress(OSError):
                path.unlink()
            if isinstance(error, OSError):
                raise self._cannot_write(error) from error
            raise

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """First row and ``(rows, width)`` float32 probabilities, NaN where void, of all bands.

        Raises:
            OutputError: a band is missing or damaged.
        """
        return join(map(self._load, self.bands))

    def claim(self) -> bool:
        """Whether the caller, of several that find nothing missing, is to make the outputs.

        A claim of a process of this machine that has died is none, nor is one older than a day of
        another machine, or one that a loss of power has left empty.

        Raises:
            OutputError: the disk is full, or there is no right to write.
        """
        for _ in range(2):
            try:
                with open(self.claim_file, "x", encoding="utf-8") as file:
                    file.write(f"{platform.node()} {os.getpid()}")
            except FileExistsError:
                if not _is_stale(self.claim_file):
                    return False
                with suppress(OSError):
                    self.claim_file.unlink()
            except FileNotFoundError:
                # Another has made the outputs, and removed the bands.
                return False
            except OSError as error:
                # Left empty, it would stand in the way of the next start.
                with suppress(OSError):
                    self.claim_file.unlink()
                raise self._cannot_write(error) from error
            else:
                _CLAIMED.add(self.claim_file)
                self._claimed = True
                return True
        return False

    def release(self) -> None:
        """Give one's own claim back, so that another may make the outputs."""
        if self._claimed:
            self._claimed = False
            _CLAIMED.discard(self.claim_file)
            with suppress(OSError):
                self.claim_file.unlink()

    @property
    def publishing(self) -> bool:
        """Whether outputs may lie in their places already, put there from these bands."""
        return (self.folder / _PUBLISHING).exists()

    def begin_publishing(self) -> None:
        """Say that outputs are about to be put in their places."""
        (self.folder / _PUBLISHING).touch()

    def end_publishing(self) -> None:
        """Say that nothing was put there after all."""
        (self.folder / _PUBLISHING).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder with all that it holds."""
        _CLAIMED.discard(self.claim_file)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete the folder where no band was finished: there is nothing to go on from.

        Nor is one being written: another process may be at work on the same job.
        """
        if len(self.missing()) == len(self.bands) and not any(self.folder.glob(_DRAFTS)):
            self.remove()

    def _cannot_write(self, error: OSError) -> OutputError:
        words = error.strerror or " ".join(str(error).split())
        return OutputError(f"{self.folder}: cannot be written: {words}")

    def _remove_old_drafts(self) -> None:
        """Delete what processes that were killed more than a day ago had not finished."""
        for path in (*self.folder.glob(_DRAFTS), *self.folder.glob("drafts-*")):
            with suppress(OSError):
                if _age(path) > _DAY:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _path(self, band: Band) -> Path:
        return self.folder / f"band_{band.number:05}.f32"

    def _size(self, band: Band) -> int:
        rows = sum((end - first) * (2 if edge else 1) for first, end, edge in band.strips())
        return rows * self.grid.width * _ITEM

    def _load(self, band: Band) -> Iterator[Strip]:
        path, width = self._path(band), self.grid.width
        try:
            size = path.stat().st_size
            if size != self._size(band):
                raise OutputError(f"{path} has {size} bytes, not {self._size(band)}; delete it")
            with open(path, "rb") as file:
                for first, end, edge in band.strips():
                    values, weights = (
                        np.fromfile(file, np.float32, (end - first) * width).reshape(-1, width)
                        if wanted
                        else None
                        for wanted in (True, edge)
                    )
                    yield Strip(first, values, weights)
        except OSError as error:
            raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_job(folder: Path) -> dict:
    """What is predicted in a folder of bands, as ``BandFiles.begin`` was told.

    Raises:
        OSError, ValueError: nothing has begun there, or the file is damaged.
    """
    return json.loads((folder / "job.json").read_text(encoding="utf-8"))


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _is_stale(claim: Path) -> bool:
    """Whether who made a claim cannot be at work on it any more."""
    try:
        node, _, pid = claim.read_text(encoding="utf-8").rpartition(" ")
        # Nothing is in it yet, or for ever. On Windows the signal that only asks would end the
        # process.
        if not pid.isdecimal() or node != platform.node() or os.name == "nt":
            return _age(claim) > _DAY
        if int(pid) == os.getpid():
            # In a container that starts again, processes get the numbers that they had before.
            return claim not in _CLAIMED
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        # Gone, or of another user.
        return False
    return False
