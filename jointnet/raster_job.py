"""One raster to predict: its options, all that the result depends on, and its swaths on disk.

Predicted swaths lie in a folder beside the outputs, ``.<stem>_<key>.swaths``, until the outputs are
complete. The key is a hash of network, options and raster, so the swaths of another prediction are
never used. Each swath is a file that appears complete, so any process may predict any of them.
"""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jointnet.network_input import NetworkInput
from jointnet.prediction import (
    Strip,
    Swath,
    WindowGrid,
    batch_of,
    join,
    mean_over_symmetries,
    predict_swath,
    swaths_of,
)
from jointnet.runs import WEIGHTS, Run
from preprocessing.errors import OutputError, RasterError, RunError
from preprocessing.image_names import RasterName
from preprocessing.output_files import cannot_write, hash_file, require_space
from preprocessing.tiling import Window

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo

FORMAT = "jointnet prediction 2"
KEY_TAG = "JOINTNET_PREDICTION"
"""Tag of the mask that holds the key of the job that made it."""

MASK, OVERLAY, PROBABILITIES = "_output.tif", "_overlay.png", "_probabilities.tif"
FOOTPRINTS, CENTRE_LINES = "_footprints.geojson", "_centre_lines.geojson"


def features_ending(target: str) -> str:
    """Return the ending of a target's vector layer: centre lines of roads, else footprints."""
    return CENTRE_LINES if target == "roads" else FOOTPRINTS


def output_paths(
    image: str | os.PathLike,
    folder: str | os.PathLike,
    probabilities: bool = False,
    target: str = "buildings",
) -> dict[str, Path]:
    """Return where the outputs of an image go, by ending: ``<stem>_output.tif`` and so on."""
    features = features_ending(target)
    endings = [MASK, OVERLAY, features, features.replace(".geojson", ".qml")]
    if probabilities:
        endings.append(PROBABILITIES)
    return {ending: Path(folder) / f"{RasterName(image).stem}{ending}" for ending in endings}


def outputs_of(image: Path) -> list[Path]:
    """Return the names of all files that a prediction of an image may write."""
    return [
        path
        for target in ("buildings", "roads")
        for path in output_paths(image, "", probabilities=True, target=target).values()
    ]


@dataclass(frozen=True)
class PredictionOptions:
    """What may be chosen for a prediction.

    Attributes:
        bands: 1-based bands to feed; None for those named in training, else by colour
            interpretation.
        threshold: probability from which a pixel is target, 0..1; None for the run's own.
        probabilities: write ``<stem>_probabilities.tif`` too, float32, NaN where void.
        batch_size: windows predicted at once; None for ``prediction.batch_of`` the run's window.
        augment: average each window's eight flips and rotations; takes eight times as long.
        gsd: ground metres per pixel; None for what the raster says; ``"native"`` to feed it as it
            is.
        void_white: white areas are void, see ``preprocessing.resampling``.
    """

    bands: Sequence[int] | None = None
    threshold: float | None = None
    probabilities: bool = False
    batch_size: int | None = None
    augment: bool = False
    gsd: float | str | None = None
    void_white: bool = False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` in the block into an ``OutputError`` of one line about ``path``."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


class SwathFiles:
    """The predicted swaths of one raster, in a folder that ``locked`` or ``begin`` makes.

    A file holds the float32 rows of ``Swath.strips`` one after the other: each strip's values,
    then its weights if it has any. Errors in writing name ``output``, as users do not know the
    folder.
    """

    def __init__(self, folder: Path, grid: WindowGrid, output: Path):
        self.folder, self.grid, self._output = Path(folder), grid, output
        self.swaths = swaths_of(grid)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep a second run of the same job out until the block ends.

        The lock ends with the process, even if it is killed. Without locks (system or disk) two
        runs do the work twice, which does no harm as files appear complete.

        Raises:
            OutputError: another process has the lock, or the folder cannot be made.
        """
        with ExitStack() as stack:
            with writing(self._output):
                self.folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(self.folder / "lock", "a"))
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"{self._output}: another process is at work on it") from None
            except (ImportError, OSError):
                pass
            yield

    def begin(self, job: dict) -> list[Swath]:
        """Write the job for ``job_in``, delete drafts of killed runs, return the missing swaths.

        Raises:
            OutputError: no right to write, or the disk has no room for the missing swaths.
        """
        with writing(self._output):
            self.folder.mkdir(parents=True, exist_ok=True)
            for draft in self.folder.glob("swath_*.f32-*"):
                draft.unlink(missing_ok=True)
            for drafts in self.folder.glob("drafts-*"):
                if not (drafts / "replaced").exists():
                    shutil.rmtree(drafts, ignore_errors=True)
            require_space(self.folder, sum(map(self._size, self.missing())))
            draft = self.folder / "job.json-draft"
            draft.write_text(json.dumps(job), encoding="utf-8")
            draft.replace(self.folder / "job.json")
        return self.missing()

    def missing(self) -> list[Swath]:
        """Return the missing swaths, top to bottom."""
        return [swath for swath in self.swaths if not self._path(swath).exists()]

    def save(self, swath: Swath, strips: Iterable[Strip]) -> None:
        """Write a swath strip by strip; its file appears when it is complete.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        path = self._path(swath)
        # Files from tempfile can be read by their owner only.
        draft = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
        try:
            with writing(self._output):
                with open(draft, "xb") as file:
                    for strip in strips:
                        for rows in (strip.values, strip.weights):
                            if rows is not None:
                                file.write(np.ascontiguousarray(rows, np.float32).data)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
        finally:
            with suppress(OSError):
                draft.unlink()

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and ``(rows, width)`` float32 probabilities, NaN where void.

        Raises:
            OutputError: a swath is missing or damaged.
        """
        return join(map(self._load, self.swaths))

    @contextmanager
    def drafts(self) -> Iterator[Path]:
        """Yield a temporary folder for drafts of the outputs.

        Once it holds a folder ``replaced``, outputs may be in place (``publishing``).
        """
        with (
            writing(self._output),
            tempfile.TemporaryDirectory(prefix="drafts-", dir=self.folder) as name,
        ):
            yield Path(name)

    @property
    def publishing(self) -> bool:
        """Whether a run was killed while it moved the outputs into place."""
        return any(self.folder.glob("drafts-*/replaced"))

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete the folder if no swath is finished."""
        if len(self.missing()) == len(self.swaths):
            self.remove()

    def _path(self, swath: Swath) -> Path:
        return self.folder / f"swath_{swath.number:05}.f32"

    def _size(self, swath: Swath) -> int:
        rows = sum((end - first) * (2 if edge else 1) for first, end, edge in swath.strips())
        return rows * self.grid.width * np.dtype(np.float32).itemsize

    def _load(self, swath: Swath) -> Iterator[Strip]:
        path, width = self._path(swath), self.grid.width
        try:
            size = path.stat().st_size
            if size != self._size(swath):
                raise OutputError(f"{path} has {size} bytes, not {self._size(swath)}; delete it")
            with open(path, "rb") as file:
                for first, end, edge in swath.strips():
                    values, weights = (
                        np.fromfile(file, np.float32, (end - first) * width).reshape(-1, width)
                        if wanted
                        else None
                        for wanted in (True, edge)
                    )
                    yield Strip(first, values, weights)
        except OSError as error:
            raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from error


class RasterJob:
    """A raster, the network that predicts it, and the folder of its outputs.

    ``input`` is the raster as the network is fed it, ``grid`` the windows over that.

    Raises:
        RasterError: no such raster, or one that does not fit the network (``NetworkInput``).
    """

    def __init__(
        self, run: Run, image: str | os.PathLike, folder: Path, options: PredictionOptions
    ):
        self.run, self.options, self.target = run, options, run.config["target"]
        self.image, self.folder = RasterName(image), Path(folder)
        self.input = NetworkInput(run, image, options.bands, options.gsd, options.void_white)
        self.grid = WindowGrid(*self.input.size, run.config["window"], run.config["overlap"])
        self._begun = files_of(self.image)

    @property
    def resumable(self) -> bool:
        """Whether a later run can use the swaths: not if the weights have no file."""
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
        """Where the outputs go, by ending."""
        return output_paths(self.image, self.folder, self.options.probabilities, self.target)

    @cached_property
    def described(self) -> dict[str, Any]:
        """All that the outputs depend on, as plain values."""
        options = asdict(self.options) | {"threshold": self.threshold, "target": self.target}
        options["batch_size"] = self.batch_size
        options["bands"] = self.input.bands and list(self.input.bands)
        weights = self.run.folder / WEIGHTS
        return {
            "format": FORMAT,
            # A network that was never saved is like no other.
            "weights": hash_file(weights) if self.resumable else uuid.uuid4().hex,
            "network": self.run.config.get("network"),
            "precision": getattr(getattr(self.run.model, "dtype_policy", None), "name", "float32"),
            "window": self.run.config["window"],
            "overlap": self.run.config["overlap"],
            "raster": raster_of(self.input.info, self.input.marks, self.image),
            "size": list(self.input.size),
            "image": self._begun,
            "options": options,
        }

    @cached_property
    def key(self) -> str:
        """Hash of ``described``, hexadecimal."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()

    @cached_property
    def files(self) -> SwathFiles:
        """The predicted swaths."""
        name = f".{self.image.stem[:80]}_{self.key[:12]}.swaths"
        return SwathFiles(self.folder / name, self.grid, self.paths[MASK])

    def begin(self) -> list[Swath]:
        """Prepare the folder of swaths, see ``SwathFiles.begin``."""
        place = {"run": os.path.abspath(self.run.folder), "path": absolute_name(self.image)}
        told = place | {"options": asdict(self.options), "key": self.key}
        return self.files.begin(self.described | told)

    def is_done(self) -> bool:
        """Return whether all outputs exist and were made by this job."""
        from preprocessing.raster_access import raster_tags

        if not all(path.is_file() for path in self.paths.values()):
            return False
        try:
            return raster_tags(self.paths[MASK]).get(KEY_TAG) == self.key
        except RasterError:
            return False

    def predict(self, swath: Swath, advance: Callable[[], Any] | None = None) -> None:
        """Predict one swath and keep it; ``advance`` is called with each window.

        Raises:
            RasterError: the raster cannot be read there, or has changed since the job began.
            RunError: the network returns values that are not finite.
            OutputError: the swath cannot be written.
        """
        self.refuse_changed()
        with self.input.fed() as reader:

            def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
                if advance is not None:
                    advance()
                return reader.read(window)

            def unchanged(strips: Iterator[Strip]) -> Iterator[Strip]:
                yield from strips
                # Before the swath counts as finished.
                self.refuse_changed()

            # Closed before the raster is: another thread may be reading it.
            strips = predict_swath(read, self.grid, swath, self._finite, self.batch_size)
            with closing(strips):
                self.files.save(swath, unchanged(strips))

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield what ``SwathFiles.strips`` yields, on the raster's own grid."""
        return self.input.on_own_grid(self.files.strips())

    def refuse_changed(self) -> None:
        """Raise a ``RasterError`` if the raster has changed since the job began, or is gone."""
        found = compare_files(self._begun, files_of(self.image))
        if found == "gone":
            raise RasterError(
                f"{self.image}: gone, in whole or in part; once it is there again as it was, the "
                "same command goes on from what is predicted"
            )
        if found == "changed":
            # No other run can use the swaths, as its key differs.
            self.files.remove()
            raise RasterError(
                f"{self.image}: changed while it was predicted; start again once it is complete"
            )

    def _finite(self, images: np.ndarray) -> np.ndarray:
        predict = self.run.model.predict_on_batch
        results = (mean_over_symmetries(predict) if self.options.augment else predict)(images)
        if not np.isfinite(results).all():
            raise RunError(
                f"{self.image}: the network gives values that are not finite; are the "
                "pixels in the range it was trained on?"
            )
        return results


def job_in(folder: Path, load: Callable[[str, str, str], Run]) -> RasterJob:
    """Return the job of a ``SwathFiles`` folder, for another process.

    ``load`` returns a network by the folder of its run, its precision and its weights' hash.

    Raises:
        RunError: there is no job, or its run has changed or cannot be loaded.
        RasterError: the raster has changed or cannot be read.
    """
    try:
        told = json.loads((Path(folder) / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} holds no job to go on with: {error}") from None
    run = load(told["run"], told["precision"], told["weights"])
    job = RasterJob(run, told["path"], Path(folder).parent, PredictionOptions(**told["options"]))
    if job.key != told["key"]:
        raise RunError(
            f"{told['path']} or the weights of {told['run']} have changed since {folder} was "
            "begun; start again"
        )
    return job


def files_of(image: RasterName) -> list[list]:
    """Return ``[name, bytes, time of change]`` of a raster's own file, then of its others.

    Names are bare, as machines may see a shared file system under different paths. For a member of
    an archive, size and time are the archive's. For remote files they are None, and the name is
    the address without signature, so only other size, bands, dtype or place show a change.

    Raises:
        RasterError: no such file, or no raster.
    """
    from preprocessing.raster_access import raster_files

    return [_entry(RasterName(name)) for name in raster_files(image)]


def compare_files(was: list[list], now: list[list]) -> Literal["same", "gone", "changed"]:
    """Compare files by ``files_of``, without those that were unknown.

    Returns "gone" if files are missing while all others are as they were.
    """
    unknown = {name for name, *stamp in was if stamp == [None, None]}
    was, now = ([entry for entry in found if entry[0] not in unknown] for found in (was, now))
    if was == now:
        return "same"
    left = [entry for entry in now if entry[1:] != [None, None]]
    return "gone" if all(entry in was for entry in left) else "changed"


def raster_of(info: "RasterInfo", marks: list, image: RasterName) -> list:
    """Return plain values that tell a raster from others, beside its files.

    ``marks`` are those of ``NetworkInput``. The name counts only if it is no file (a subdataset,
    a member of an archive or a remote file), without the folders of this machine.
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
    """Return the raster's name for processes that run in another folder."""
    return os.path.abspath(image) if image.is_file() else _with_paths(image, os.path.abspath)


def _entry(name: RasterName) -> list:
    if name.url:
        return [name.unsigned_url, None, None]
    path = _on_disk(name)
    try:
        stat = os.stat(path)
    except OSError:
        # Not a file of this machine.
        return [str(name), None, None]
    return [os.path.basename(path), stat.st_size, stat.st_mtime_ns]


def _with_paths(image: RasterName, change: Callable[[str], str]) -> str:
    """Return a name with the paths in it changed."""
    from preprocessing.raster_access import raster_files

    name = str(image)
    for path in {_on_disk(file) for file in raster_files(image)}:
        if os.path.isfile(path):
            name = name.replace(path, change(path), 1)
    return name


def _on_disk(name: str) -> str:
    """Return the file itself, or the archive that holds it."""
    inside = name.split("/", 2)[-1] if name.startswith("/vsi") else ""
    # The archive is one of the folders that the path of a member seems to lie in.
    while inside.strip("/"):
        if os.path.isfile(inside):
            return inside
        inside = inside.rpartition("/")[0]
    return name
