"""Predict swaths in other processes, of this machine or of a Dask cluster.

Each loads the network once and predicts one swath at a time into the folder of
``raster_job.SwathFiles``. If one dies, another predicts its swath. Workers of a cluster must see
raster, run and outputs under the same paths as this process, and be able to import the project.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jointnet.prediction import Swath
from jointnet.raster_job import RasterJob, job_in
from jointnet.runs import Run, load_run
from preprocessing.errors import JointNetError, RunError, one_line

if TYPE_CHECKING:
    from distributed import Client, Future

SECONDS_WITHOUT_WORKERS = 60
"""How long to wait for a cluster that has no workers."""
_SECONDS_TO_CONNECT, _POLL_SECONDS = 10, 0.2
# A network uses all threads of its process, so a worker with several predicts one swath at a time.
_ONE_AT_A_TIME = threading.Lock()


class Workers(ExitStack):
    """Processes that share the swaths of a raster, from the first raster to the end of the block.

    Args:
        count: processes of this machine; each has its share of the cores.
        address: scheduler of a Dask cluster to use instead, such as ``tcp://node1:8786``.
    """

    def __init__(self, count: int, address: str | None = None) -> None:
        super().__init__()
        self.count, self.address = count, address

    def predict(
        self, job: RasterJob, swaths: Sequence[Swath], advance: Callable[[], Any]
    ) -> Iterator[tuple[Swath, JointNetError]]:
        """Predict swaths of a job that has begun, and yield those that failed with the error.

        ``advance`` is called after each swath. Close the generator to skip the rest.

        Raises:
            RunError: no cluster answers, or it has lost its workers.
        """
        client = self._client
        folder = os.path.abspath(job.files.folder)
        # Impure: the result of a task is a file, so it must run, not come from a cache.
        futures = {
            client.submit(_predict, swath.number, folder, pure=False): swath for swath in swaths
        }
        failed, reason = set(), f"swaths were lost; do all workers see {folder}?"
        try:
            for future in _finished(client, set(futures)):
                advance()
                if error := _error_of(future):
                    failed.add(futures[future])
                    yield futures[future], error
        except _ClusterError as error:
            reason = str(error)
        missing = job.files.missing()
        if any(swath not in failed for swath in missing):
            raise RunError(
                f"{self.address or job.image}: {reason.rstrip('.?')}; {len(missing)} of "
                f"{len(job.files.swaths)} swaths are missing, the same command goes on from the "
                "others"
            )

    @cached_property
    def _client(self) -> "Client":
        """The connection to the cluster; without an address one is started here."""
        # Takes half a second to import.
        from dask import config
        from distributed import Client, LocalCluster

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        address = self.address
        if address is None:
            preloads = config.get("distributed.worker.preload")
            settings = {
                # Set before the processes start, as libraries read it once; the user's own win.
                "distributed.nanny.pre-spawn-environ": _environment(self.count),
                # By default a process that died is given up if its successor needs 15 s to start.
                "distributed.deploy.lost-worker-timeout": SECONDS_WITHOUT_WORKERS,
                # For dask_setup.
                "distributed.worker.preload": [
                    *([preloads] if isinstance(preloads, str) else preloads),
                    __name__,
                ],
            }
            self.enter_context(config.set(settings))
            address = self.enter_context(
                LocalCluster(
                    n_workers=self.count,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
            )
        try:
            client = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            words = one_line(error)
            raise RunError(f"{address}: no Dask scheduler answers there: {words}") from None
        return self.enter_context(client)


class _ClusterError(Exception):
    """The cluster has stopped working."""


def _finished(client: "Client", pending: set["Future"]) -> Iterator["Future"]:
    """Yield futures as they end, failed or not."""
    last_seen = time.monotonic()
    while pending:
        done = {future for future in pending if future.done()}
        if any(future.cancelled() for future in done):
            raise _ClusterError("the Dask scheduler no longer answers")
        yield from done
        pending -= done
        if done or client.scheduler_info()["workers"]:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > SECONDS_WITHOUT_WORKERS:
            raise _ClusterError(f"no workers for {SECONDS_WITHOUT_WORKERS:g} s")
        if pending:
            time.sleep(_POLL_SECONDS)


def _error_of(future: "Future") -> JointNetError | None:
    """Return what went wrong with a task that has ended."""
    from distributed import KilledWorker

    if future.status == "finished":
        return None
    error = future.exception()
    if isinstance(error, KilledWorker):
        return RunError("worker processes died over one swath; was there memory for all of them?")
    if isinstance(error, JointNetError):
        return error
    return RunError(f"a swath was lost: {one_line(error)}")


def _environment(workers: int) -> dict[str, str]:
    """Return environment variables that make processes share cores and GPU memory."""
    # On Linux only the cores that this process may use; the machine may be shared.
    shared = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if shared else os.cpu_count() or 1
    threads = str(max(1, cores // workers))
    return {
        "TF_NUM_INTRAOP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        # Otherwise the first takes all memory of the GPU.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that started this one; Dask calls this in each worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _predict(number: int, folder: str) -> None:
    """Predict one swath into the shared folder: the task of a worker."""
    failed = None
    with _ONE_AT_A_TIME:
        try:
            job = _job(folder)
            swath = job.files.swaths[number]
            if swath in job.files.missing():
                job.predict(swath)
        except JointNetError as error:
            # A copy, as the cause of the error cannot be sent.
            failed = type(error)(str(error))
    if failed:
        raise failed


@lru_cache(maxsize=1)
def _job(folder: str) -> RasterJob:
    return job_in(Path(folder), _run)


@lru_cache(maxsize=1)
def _run(folder: str, precision: str, weights: str) -> Run:
    """Load a network once for all rasters; ``weights`` is their hash, for the cache."""
    return load_run(Path(folder), precision)
