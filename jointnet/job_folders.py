"""Folders of bands, seen by who did not begin them: other processes, and later predictions."""

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jointnet.band_files import read_job
from jointnet.job_inputs import compare_files
from jointnet.raster_job import PredictionOptions, RasterJob
from jointnet.runs import WEIGHTS, load_run
from preprocessing.errors import RunError
from preprocessing.output_files import hash_file
from preprocessing.raster_names import RasterName


@dataclass(frozen=True)
class Leftover:
    """Bands of a raster that another prediction has not finished, or is at work on.

    Attributes:
        folder: where they lie.
        size: bytes in all.
        run: folder of its network.
        options: what was chosen (``PredictionOptions``), by which it can be gone on with; None
            where it cannot, as raster or weights have changed.
    """

    folder: Path
    size: int
    run: Path
    options: dict[str, Any] | None


def leftovers(job: RasterJob) -> list[Leftover]:
    """Folders of bands beside those of a job: of the same raster, by its name, but another key.

    Nothing is deleted: another process may be at work there.
    """
    own = job.files.folder
    pattern = re.compile(re.escape(own.name.removesuffix(".bands")[:-12]) + r"[0-9a-f]{12}\.bands")
    if not job.folder.is_dir():
        return []
    folders = sorted(path for path in job.folder.iterdir() if pattern.fullmatch(path.name))
    found = (_leftover(job, folder) for folder in folders if folder.name != own.name)
    return [leftover for leftover in found if leftover is not None]


def _leftover(job: RasterJob, folder: Path) -> Leftover | None:
    """What a folder is; None for one that is of another raster, or gone."""
    size = _size(folder)
    try:
        told = read_job(folder)
        run, options = Path(told["run"]), told["options"]
        # Of the name only 80 characters are in that of the folder.
        if RasterName(told["path"]).stem != job.image.stem:
            return None
        can_go_on = _is_current(job, told, run / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError):
        return Leftover(folder, size, Path(), None) if folder.is_dir() else None
    return Leftover(folder, size, run, options if can_go_on else None)


def _is_current(job: RasterJob, told: dict[str, Any], weights: Path) -> bool:
    """Whether raster and weights are what they were, and options alone tell the jobs apart."""
    described, options = job.described, json.loads(json.dumps(asdict(job.options)))
    same_run = weights.parent.resolve() == job.run.folder.resolve()
    return (
        all(told[name] == described[name] for name in ("format", "precision"))
        and compare_files(told["image"], described["image"]) == "same"
        and weights.is_file()
        and hash_file(weights) == told["weights"]
        and not (same_run and told["options"] == options)
    )


def _size(folder: Path) -> int:
    """Bytes of all files in a folder, from which another process may be taking some."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def job_of(folder: Path) -> RasterJob:
    """The job whose bands lie in a folder, with its network, in a process that knows nothing else.

    Args:
        folder: of a ``BandFiles``.

    Raises:
        RunError: there is no job, its run has changed or cannot be loaded.
        RasterError: the raster has changed or cannot be read.
    """
    folder = Path(folder)
    try:
        told = read_job(folder)
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} holds no job to go on with: {error}") from None
    run = load_run(Path(told["run"]), told["precision"])
    job = RasterJob(run, told["path"], folder.parent, PredictionOptions(**told["options"]))
    if job.key != told["key"]:
        raise RunError(
            f"{told['path']} or the weights of {told['run']} have changed since {folder} was "
            "begun; start again"
        )
    return job
