"""Folders of bands, seen by who did not begin them: other processes, and later predictions."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from jointnet.prediction import Band
from jointnet.raster_job import (
    PredictionOptions,
    RasterJob,
    compare_files,
    read_job,
)
from jointnet.runs import WEIGHTS, load_run
from preprocessing.errors import JointNetError, RasterError, RunError
from preprocessing.image_names import RasterName
from preprocessing.output_files import hash_file


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


ROOT = Path(__file__).resolve().parents[1]
_POLL_SECONDS, _SECONDS_TO_END = 0.2, 5
# What subprocess says of SIGKILL, which Windows has no name for.
_KILLED = -9


def part_of(bands: list[Band], part: int, parts: int) -> list[Band]:
    """Every ``parts``-th band, from band ``part`` - 1 on."""
    return [band for band in bands if band.number % parts == part - 1]


def predict_with_workers(job: RasterJob, workers: int, progress: bool = False) -> None:
    """Predict all missing bands with so many processes at once.

    A process that dies is replaced, as long as others or its successors finish bands.

    Args:
        job: what to predict, begun; its run must lie on disk.
        workers: number of processes. Each has its share of the cores.
        progress: show a bar, if standard error is a terminal.

    Raises:
        RunError: no band was finished in a round, for the reason that a process named.
    """
    with tqdm(
        total=len(job.files.missing()),
        desc=job.image.name,
        unit="band",
        leave=False,
        disable=None if progress else True,
    ) as bar:
        while before := len(job.files.missing()):
            reason = _round(job, workers, bar)
            if len(job.files.missing()) == before:
                raise RunError(reason or f"{job.image}: no process finished a band")


def _round(job: RasterJob, workers: int, bar: tqdm) -> str:
    """Let every process try once; the first line that one ended with, where one failed."""
    missing = len(job.files.missing())
    with ExitStack() as stack:
        words = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(workers)]
        processes = [
            stack.enter_context(_started(job, number, workers, file))
            for number, file in enumerate(words, start=1)
        ]
        while any(process.poll() is None for process in processes):
            time.sleep(_POLL_SECONDS)
            now = len(job.files.missing())
            bar.update(missing - now)
            missing = now
        said = [_last_line(*ended) for ended in zip(processes, words, strict=True)]
    return next(filter(None, said), "")


@contextmanager
def _started(
    job: RasterJob, number: int, workers: int, words: TextIO
) -> Iterator[subprocess.Popen]:
    """One process, which does not outlive the block."""
    modules = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, "-m", "jointnet.workers", job.files.folder, f"{number}/{workers}"],
        env={**_shares(workers), "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": modules},
        stdout=subprocess.DEVNULL,
        stderr=words,
    ) as process:
        try:
            yield process
        finally:
            # An interrupt lets it take its drafts away.
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            process.kill()


def _shares(workers: int) -> dict[str, str]:
    """Variables of the environment by which processes leave each other cores and GPU memory."""
    threads = str(max(1, _cores() // workers))
    shares = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), threads)
    if workers > 1:
        # Else the first takes all memory of the GPU.
        shares |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return shares


def _cores() -> int:
    """Cores that this process may use: of a machine that is shared, not all."""
    # Linux alone tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _last_line(process: subprocess.Popen, words: TextIO) -> str:
    """What a process that failed said last."""
    if process.returncode == 0:
        return ""
    words.seek(0)
    lines = words.read().strip().splitlines()
    # Killed for want of memory, it had no last word: what stands there is older.
    if lines and process.returncode != _KILLED:
        return lines[-1].removeprefix("error: ")
    return f"a process stopped with code {process.returncode}; was there memory for all of them?"


def main(folder: str, share: str) -> int:
    """Predict one process's share of a job; 0 done, 2 what one line on standard error says."""
    part, parts = map(int, share.split("/"))
    try:
        job = job_of(Path(folder))
        predict_bands(job, part_of(job.files.missing(), part, parts))
    except JointNetError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))


def predict_bands(job: RasterJob, bands: Iterable[Band], progress: bool = False) -> None:
    """Predict bands one after the other; one that cannot be read does not stop the others.

    Args:
        job: what to predict.
        bands: some of ``job.files.bands``.
        progress: show a bar, if standard error is a terminal.

    Raises:
        RasterError: bands cannot be read; those that were finished stay for another start.
        RunError, OutputError: at once, what was finished stays.
    """
    bands = list(bands)
    failures: list[tuple[Band, RasterError]] = []
    windows = sum(len(band.tops) for band in bands) * len(job.grid.starts(job.grid.width))
    with tqdm(
        total=windows,
        desc=job.image.name,
        unit="window",
        leave=False,
        # None: only on a terminal.
        disable=None if progress else True,
    ) as bar:
        for band in bands:
            try:
                job.predict(band, bar.update)
            except RasterError as error:
                # Of a raster that has changed, nothing that follows is of use.
                job.refuse_changed()
                failures.append((band, error))
    if failures:
        raise RasterError(_failed(job, failures))


def _failed(job: RasterJob, failures: list[tuple[Band, RasterError]]) -> str:
    """One line on what could not be read, and what is kept."""
    all_bands, line = len(job.files.bands), str(failures[0][1])
    kept = all_bands - len(job.files.missing())
    if all_bands == 1:
        return line
    # Of the raster's own grid, where the network saw another.
    scale = job.info.height / job.size[0]
    rows = ", ".join(
        f"{round(band.first * scale)} to {round(band.last * scale)}" for band, _ in failures[:4]
    )
    more = ", ..." if len(failures) > 4 else ""
    line = f"{line.rstrip('.')}; rows {rows}{more} are missing"
    if not kept:
        return line
    kept_bands = f"{kept} of {all_bands} bands are kept"
    return (
        f"{line}, {kept_bands}: while the file stays as it is, the same command goes on from them"
    )
