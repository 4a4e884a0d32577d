"""Predicting the bands of a raster with several processes of this machine.

``python -m jointnet.band_workers FOLDER K/N`` is one of them: it predicts band K - 1 and every Nth
after it, as far as they are missing, and writes them into the folder.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from jointnet.band_runs import predict_bands
from jointnet.job_folders import job_of
from jointnet.raster_job import RasterJob
from jointnet.window_bands import Band
from preprocessing.errors import JointNetError, RunError

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
        [sys.executable, "-m", "jointnet.band_workers", job.files.folder, f"{number}/{workers}"],
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
