"""A slow filter in place of a network, also in the worker processes that Dask starts.

Dask loads this module in each worker (``distributed.worker.preload``) and calls ``dask_setup``.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from jointnet import workers
from jointnet.runs import WEIGHTS, Run
from tests.helpers import CONFIG, StandIn


class Slow(StandIn):
    """Takes some time, in which it may be killed."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Wait, then do as ``StandIn``."""
        time.sleep(0.03)
        return super().predict_on_batch(images)


def slow_run(folder: Path, **config: Any) -> Run:
    """Return a run that other processes load in the same way."""
    weights = folder / WEIGHTS
    if not weights.exists():
        folder.mkdir(exist_ok=True)
        weights.write_bytes(b"these")
    return Run(folder, Slow(), CONFIG | config)


def dask_setup(worker: Any) -> None:
    """Give jobs of this worker the slow filter."""
    workers.load_run = lambda folder, precision: slow_run(folder)
