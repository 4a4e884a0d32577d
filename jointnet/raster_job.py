"""Predicted bands on disk: each appears complete, and any process may predict any of them.

A folder beside the outputs, ``.<stem>_<key>.bands``, holds ``job.json`` and a file per band. The
key stands for network, options and input (``RasterJob``), so bands of another
configuration are never taken for these. Files hold the float32 rows of ``Band.strips`` one after
the other, each strip's values, then, where it has them, its weights.
"""

import hashlib
import json
import os
import platform
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jointnet.network_input import fed_bands, fed_steps
from jointnet.prediction import (
    Band,
    Strip,
    WindowGrid,
    bands_of,
    batch_of,
    join,
    mean_over_symmetries,
    predict_band,
)
from jointnet.runs import WEIGHTS, Run
from preprocessing.errors import OutputError, RasterError, RunError
from preprocessing.image_names import RasterName
from preprocessing.output_files import hash_file, require_space, write_json
from preprocessing.tiling import Window

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo
    from preprocessing.rasters import RasterReader
    from preprocessing.resampling import ResampledReader, WhiteIsVoid


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


_SECONDS_TO_ANSWER = 30


def precision_of(run: Run) -> str:
    """Name of the dtype policy that the network computes in."""
    return getattr(getattr(run.model, "dtype_policy", None), "name", "float32")


def files_of(image: RasterName) -> list[list]:
    """Name, size and time of change of all files of a raster, without reading their pixels.

    Names are bare, as machines may see a shared file system under different paths; it is taken to
    tell all of them the same size and time, as NFS, SMB and Lustre do. A copy keeps the time by
    ``cp -p`` or ``rsync -t``. Of an archive, it is that of the archive.

    A server of http is asked once, for a single byte: size, and ``Last-Modified`` or else
    ``ETag``. The request knows nothing of GDAL's own settings (passwords, headers). Where a server
    says neither, and of all other remote files (``/vsis3/`` and its like), a change is not noticed
    unless size, bands, dtype or place of the raster are others.

    Returns:
        The raster's own file, then the others: ``[name, size in bytes, change]``, the last two
        None where they are unknown. A remote name is the whole address, without a signature.

    Raises:
        RasterError: no such file, or no raster.
    """
    from preprocessing.raster_access import raster_files

    return [_entry(RasterName(name)) for name in raster_files(image)]


def compare_files(was: list[list], now: list[list]) -> Literal["same", "gone", "changed"]:
    """What has become of files, by ``files_of``.

    Args:
        was: what they were; what was unknown then is not compared.
        now: what they are.

    Returns:
        "gone" where files are missing, or servers say nothing of them any more, while all others
        are what they were.
    """
    unknown = {name for name, *stamp in was if stamp == [None, None]}
    was, now = ([entry for entry in found if entry[0] not in unknown] for found in (was, now))
    if was == now:
        return "same"
    left = [entry for entry in now if entry[1:] != [None, None]]
    return "gone" if all(entry in was for entry in left) else "changed"


def raster_of(info: "RasterInfo", marks: list, image: RasterName) -> list:
    """What a raster is beside its files, plain values.

    Args:
        info: of the raster.
        marks: numbers of the bands that are fed, and what says where they are void.
        image: the raster; of a subdataset, a member of an archive or a remote file the name
            counts, without the folders of this machine.
    """
    if image.is_file():
        name = ""
    elif image.url:
        name = image.replace(image.url, image.unsigned_url)
    else:
        name = _with_paths(image, os.path.basename)
    crs = info.crs.to_wkt() if info.crs else None
    points = [[p.row, p.col, p.x, p.y] for p in info.gcps]
    return [name, info.band_count, info.dtype, crs, list(info.transform), points, *map(str, marks)]


def absolute_name(image: RasterName) -> str:
    """The raster's name for processes that run in another folder."""
    return os.path.abspath(image) if image.is_file() else _with_paths(image, os.path.abspath)


def weights_of(run: Run) -> str:
    """Hash of a run's weights; one of its own for a network that was never written."""
    path = run.folder / WEIGHTS
    return hash_file(path) if path.is_file() else uuid.uuid4().hex


def _entry(name: RasterName) -> list:
    if name.url:
        return [name.unsigned_url, *_told_by_server(name)]
    path = _on_disk(name)
    try:
        stat = os.stat(path)
    except OSError:
        # Not a file of this machine.
        return [str(name), None, None]
    return [os.path.basename(path), stat.st_size, stat.st_mtime_ns]


def _with_paths(image: RasterName, change: Callable[[str], str]) -> str:
    """A name with the paths in it changed."""
    from preprocessing.raster_access import raster_files

    name = str(image)
    for path in {_on_disk(file) for file in raster_files(image)}:
        if os.path.isfile(path):
            name = name.replace(path, change(path), 1)
    return name


def _on_disk(name: str) -> str:
    """The file itself, or the archive that holds it."""
    if not name.startswith("/vsi"):
        return name
    inside = name.split("/", 2)[-1]
    return next(filter(os.path.isfile, _shorter_and_shorter(inside)), name)


def _shorter_and_shorter(path: str) -> Iterable[str]:
    """A path, the folder it lies in, and so on: one of them is the archive of a member."""
    while path.strip("/"):
        yield path
        path = path.rpartition("/")[0]


def _told_by_server(name: RasterName) -> tuple[int | None, str | None]:
    """Size and time (or tag) of a remote file, or of the archive that holds it."""
    plain = name.startswith(("/vsicurl", "http"))
    for url in [name.url] if plain else _shorter_and_shorter(name.url):
        # One byte: some servers that give files refuse to describe them (HEAD).
        request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER) as answer:
                told = answer.headers
        except urllib.error.HTTPError:
            continue
        except (OSError, ValueError, HTTPException):
            break
        size = told.get("Content-Range", "").rpartition("/")[2] or told.get("Content-Length", "")
        change = told.get("Last-Modified") or told.get("ETag")
        return int(size) if size.isdecimal() else None, change
    return None, None


FORMAT = "jointnet prediction 1"
KEY_TAG = "JOINTNET_PREDICTION"
"""Name of the tag in the mask that holds the key of the job that made it."""


@dataclass(frozen=True)
class PredictionOptions:
    """What may be chosen for a prediction.

    Attributes:
        bands: 1-based bands to feed; None for those named in training, else by colour
            interpretation.
        threshold: probability from which a pixel is target, 0..1; None for the run's own.
        probabilities: write ``<stem>_probabilities.tif`` too, float32, NaN where void.
        batch_size: windows predicted at once; None for ``prediction.batch_of`` the run's window.
        augment: predict every window in its eight flips and rotations, and take the mean; eight
            times the time.
        gsd: ground metres per pixel of the raster, where it does not say or says it wrong; None
            for what it says; ``"native"`` to feed it as it is, whatever it says.
        void_white: white areas are void, see ``preprocessing.resampling``.
    """

    bands: Sequence[int] | None = None
    threshold: float | None = None
    probabilities: bool = False
    batch_size: int | None = None
    augment: bool = False
    gsd: float | str | None = None
    void_white: bool = False


class RasterJob:
    """A raster, the network that predicts it, and where its outputs go.

    A raster whose ground resolution is another than the network's is resampled to it as it is read
    (see ``network_input.fed_steps``).

    Attributes: ``run``, ``target``, ``image``, ``folder``, ``options``, ``info`` (of the raster),
    ``size`` (rows and columns that the network sees) and ``grid``, the windows over these.

    Args:
        run: the network, from ``jointnet.runs.load_run``.
        image: anything GDAL reads, see ``image_names.RasterName``.
        folder: where the outputs go.
        options: what was chosen.

    Raises:
        RasterError: no such raster, or not the bands.
    """

    def __init__(
        self, run: Run, image: str | os.PathLike, folder: Path, options: PredictionOptions
    ):
        from preprocessing.rasters import RasterReader
        from preprocessing.resampling import size_at

        self.run, self.options, self.target = run, options, run.config["target"]
        self.image, self.folder = RasterName(image), Path(folder)
        self._bands = fed_bands(run, options.bands)
        self._reader = lambda: RasterReader(self.image, self._bands, run.config["bands"])
        with self._reader() as reader:
            self.info = reader.info
            self._marks = [*reader.bands, *reader.validity.marks]
        if options.void_white:
            # Refuses what has no white.
            self._imagery().close()
        self.size = (self.info.height, self.info.width)
        if (steps := fed_steps(run, self.info.steps, options.gsd)) is not None:
            self.size = size_at(*self.size, steps, run.config["gsd"])
        self.grid = WindowGrid(*self.size, run.config["window"], run.config["overlap"])
        self._begun = files_of(self.image)

    @property
    def resumable(self) -> bool:
        """Whether another start can go on from the bands: not for weights that have no file."""
        return (self.run.folder / WEIGHTS).is_file()

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is target."""
        given = self.options.threshold
        return self.run.config["threshold"] if given is None else given

    @property
    def batch_size(self) -> int:
        """Windows predicted at once."""
        return self.options.batch_size or batch_of(self.run.config["window"])

    @property
    def paths(self) -> dict[str, Path]:
        """Where the outputs go, by kind."""
        return output_paths(self.image, self.folder, self.options.probabilities, self.target)

    @cached_property
    def described(self) -> dict[str, Any]:
        """All that the outputs depend on, plain values."""
        options = asdict(self.options) | {"threshold": self.threshold, "target": self.target}
        options |= {"batch_size": self.batch_size, "bands": self._bands and list(self._bands)}
        return {
            "format": FORMAT,
            "weights": weights_of(self.run),
            "network": self.run.config.get("network"),
            "precision": precision_of(self.run),
            "window": self.run.config["window"],
            "overlap": self.run.config["overlap"],
            "raster": raster_of(self.info, self._marks, self.image),
            "size": list(self.size),
            "image": self._begun,
            "options": options,
        }

    @cached_property
    def key(self) -> str:
        """Hash of ``described``, hexadecimal."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()

    @cached_property
    def files(self) -> BandFiles:
        """The bands that are predicted already."""
        name = f".{self.image.stem[:80]}_{self.key[:12]}.bands"
        return BandFiles(self.folder / name, self.grid)

    def begin(self) -> list[Band]:
        """Make the folder for the bands, or find it; which of them are missing.

        Raises:
            OutputError: it cannot be made, or the disk has no room.
        """
        try:
            place = {"run": os.path.abspath(self.run.folder), "path": absolute_name(self.image)}
            options = {"options": asdict(self.options)}
            self.files.begin(self.described | place | options | {"key": self.key})
        except OutputError as error:
            # The user named another folder than the hidden one.
            words = str(error).split(": ", 1)[-1]
            raise OutputError(f"{self.paths[MASK]}: {words}") from error
        except OSError as error:
            words = error.strerror or " ".join(str(error).split())
            raise OutputError(f"{self.paths[MASK]}: cannot be written: {words}") from error
        return self.files.missing()

    def is_done(self) -> bool:
        """Whether all outputs are there, made by this very job."""
        from preprocessing.raster_access import raster_tags

        if not all(path.is_file() for path in self.paths.values()):
            return False
        try:
            return raster_tags(self.paths[MASK]).get(KEY_TAG) == self.key
        except RasterError:
            return False

    def predict(self, band: Band, advance: Any = None) -> None:
        """Predict one band and keep it.

        Args:
            band: one of ``files.bands``.
            advance: called after each window that was read.

        Raises:
            RasterError: the raster cannot be read there, or has changed since the job began.
            RunError: the network gives what is not finite.
            OutputError: the band cannot be written.
        """
        self.refuse_changed()
        with self._fed() as reader:

            def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
                if advance is not None:
                    advance()
                return reader.read(window)

            # Closed before the raster is: another thread may be reading it.
            strips = predict_band(read, self.grid, band, self._finite, self.batch_size)
            with closing(strips):
                self.files.save(band, self._unchanged(strips))

    def reader(self) -> "RasterReader":
        """The raster, opened with the bands that the network is fed, at its own size."""
        return self._reader()

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Probabilities of all bands on the raster's own grid.

        Yields:
            First row and ``(rows, width)`` float32 of consecutive strips; NaN where void.

        Raises:
            OutputError: a band is missing or damaged.
            RasterError: the raster cannot be read.
        """
        from preprocessing.resampling import resampled_strips

        own = (self.info.height, self.info.width)
        if self.size == own:
            yield from self.files.strips()
            return
        with self._imagery() as reader:
            for first, strip in resampled_strips(self.files.strips(), self.size, own):
                _, valid = reader.read(Window(first, 0, *strip.shape))
                # Imagery too little to be fed has no target.
                yield first, np.where(valid, np.nan_to_num(strip), np.float32(np.nan))

    def _fed(self) -> "RasterReader | ResampledReader | WhiteIsVoid":
        """The raster at the size that the network sees."""
        from preprocessing.resampling import ResampledReader

        if self.size == (self.info.height, self.info.width):
            return self._imagery()
        return ResampledReader(self._imagery(), *self.size)

    def _imagery(self) -> "RasterReader | WhiteIsVoid":
        """The raster at its own size, with what counts as void."""
        from preprocessing.resampling import WhiteIsVoid

        return WhiteIsVoid(self._reader()) if self.options.void_white else self._reader()

    def refuse_changed(self) -> None:
        """Refuse a raster that has changed since the job began.

        Raises:
            RasterError: it has, or it is gone.
        """
        found = compare_files(self._begun, files_of(self.image))
        if found == "gone":
            raise RasterError(
                f"{self.image}: gone, in whole or in part, or not to be reached any more; once it "
                "is there again as it was, the same command goes on from what is predicted"
            )
        if found == "changed":
            # Of no use to any other start: the key is another one then.
            self.files.remove()
            raise RasterError(
                f"{self.image}: changed while it was predicted; start again once it is complete"
            )

    def _unchanged(self, strips: Any) -> Any:
        yield from strips
        # Before the band counts as finished.
        self.refuse_changed()

    def _finite(self, images: np.ndarray) -> np.ndarray:
        predict = self.run.model.predict_on_batch
        results = (mean_over_symmetries(predict) if self.options.augment else predict)(images)
        if not np.isfinite(results).all():
            raise RunError(
                f"{self.image}: the network gives values that are not finite; are the "
                "pixels in the range it was trained on?"
            )
        return results


MASK, OVERLAY = "_output.tif", "_overlay.png"
FOOTPRINTS, CENTRE_LINES = "_footprints.geojson", "_centre_lines.geojson"
PROBABILITIES = "_probabilities.tif"


def layer_of(target: str) -> str:
    """The kind of layer that a target gets: roads centre lines, anything else footprints."""
    return CENTRE_LINES if target == "roads" else FOOTPRINTS


def style_of(layer: str) -> str:
    """The kind of the QGIS style beside a layer, such as ``_footprints.qml``."""
    return layer.replace(".geojson", ".qml")


def output_paths(
    image: str | os.PathLike,
    folder: str | os.PathLike,
    probabilities: bool = False,
    target: str = "buildings",
) -> dict[str, Path]:
    """Where the outputs of an image go, by kind: ``<stem>_output.tif`` and so on."""
    layer = layer_of(target)
    kinds = [MASK, OVERLAY, layer, style_of(layer)]
    if probabilities:
        kinds.append(PROBABILITIES)
    return {kind: Path(folder) / f"{RasterName(image).stem}{kind}" for kind in kinds}


def outputs_of(image: Path) -> list[Path]:
    """Return the names of all files that a prediction of an image may write beside it."""
    return [
        path
        for target in ("buildings", "roads")
        for path in output_paths(image, "", probabilities=True, target=target).values()
    ]
