"""Predicting the bands of a raster on a Dask cluster that is there already.

Scheduler, workers and this process see the raster, the run and the outputs under the same paths,
and the workers can import this project. A worker loads the network once, and predicts one band at
a time; a band of a worker that dies is given to another.
"""

import os
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jointnet.raster_job import RasterJob
from jointnet.workers import job_of
from preprocessing.errors import JointNetError, RunError

SECONDS_WITHOUT_WORKERS = 60
_SECONDS_TO_CONNECT, _POLL_SECONDS = 10, 0.5
# A network that computes uses all threads of its process.
_ONE_AT_A_TIME = threading.Lock()


def predict_on_cluster(
    job: RasterJob,
    address: str,
    progress: bool = False,
    seconds_without_workers: float = SECONDS_WITHOUT_WORKERS,
) -> None:
    """Predict all missing bands on a cluster.

    Args:
        job: what to predict, begun; its run must lie on disk.
        address: of the scheduler, such as ``tcp://node1:8786``.
        progress: show a bar, if standard error is a terminal.
        seconds_without_workers: so long a scheduler may have none, at the start or later.

    Raises:
        RunError: no Dask, no scheduler at the address, no workers, or a band that fails.
    """
    try:
        from distributed import Client
    except ImportError:
        raise RunError(
            'a cluster needs Dask: `pip install "distributed>=2025.1"`, here and on the workers'
        ) from None
    try:
        client = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())
        raise RunError(f"{address}: no Dask scheduler answers there: {words}") from None
    missing = job.files.missing()
    with (
        client,
        tqdm(
            total=len(missing),
            desc=job.image.name,
            unit="band",
            leave=False,
            disable=None if progress else True,
        ) as bar,
    ):
        folder = os.path.abspath(job.files.folder)
        # Impure: what a task leaves is a file, so it must be run, not remembered.
        futures = client.map(_predict, [band.number for band in missing], folder=folder, pure=False)
        failures = []
        try:
            for future in _finished(client, futures, seconds_without_workers):
                bar.update()
                if future.status == "error":
                    failures.append(" ".join(str(future.exception()).split()))
        except (OSError, _NoWorkersError) as error:
            words = " ".join(str(error).split()) or "no longer answers"
            failures.append(f"{address}: the Dask scheduler: {words}")
    if lost := len(job.files.missing()):
        first = failures[0].rstrip(".") if failures else f"{address}: bands were lost"
        bands = len(job.files.bands)
        raise RunError(
            f"{first}; {lost} of {bands} bands are missing, the same command goes on from the "
            "others"
        )


class _NoWorkersError(Exception):
    """A scheduler that nobody works for."""


def _finished(client: Any, futures: list, seconds_without_workers: float) -> Iterator[Any]:
    """Futures as they end, well or not.

    Raises:
        OSError: the scheduler has gone.
        _NoWorkersError: it has had no workers for so long.
    """
    pending, last_seen = set(futures), time.monotonic()
    while pending:
        done = {future for future in pending if future.done()}
        yield from done
        pending -= done
        if done or client.scheduler_info()["workers"]:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > seconds_without_workers:
            raise _NoWorkersError(f"no workers for {seconds_without_workers:g} s")
        if pending:
            time.sleep(_POLL_SECONDS)


def _predict(number: int, folder: str) -> None:
    """One task: predict one band into the folder that all share."""
    with _ONE_AT_A_TIME:
        job = _job(folder)
        band = job.files.bands[number]
        if band in job.files.missing():
            try:
                job.predict(band)
            except JointNetError as error:
                # Of a kind that the scheduler can send, whatever the error's own is.
                raise RuntimeError(str(error)) from None


@lru_cache(maxsize=1)
def _job(folder: str) -> RasterJob:
    """The job with its network, loaded once for all bands of a raster."""
    return job_of(Path(folder))
