"""What a training says of itself while it runs: a bar, a line per epoch, history and events."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from jointnet import distribution
from jointnet.checkpoints import TrainingState
from jointnet.event_log import EventLog
from preprocessing.output_files import write_csv


class RunLog:
    """Progress of a run, on the terminal and in its folder; of several processes the first's.

    A context manager, which closes the bar.

    Args:
        folder: the run folder, for ``history.csv`` and ``events/``.
        epochs: epochs of the whole run.
        steps: steps of an epoch, as the bar counts them.
        state: where the run begins.

    Attributes:
        bar: progress bar over the steps of the whole run.

    Raises:
        OutputError: the history of a run that goes on cannot be written.
    """

    def __init__(self, folder: Path, epochs: int, steps: int, state: TrainingState):
        self.folder = folder
        self.epochs = epochs
        self.writes = distribution.is_first()
        if self.writes and state.history:
            # A run that was killed between the two has its last epoch in the checkpoint only.
            write_csv(folder / "history.csv", state.history)
        self._events = EventLog(folder / "events") if self.writes else None
        # The validation counts as a step: it may be all that is left of the epoch.
        self._first, self._started = state.epoch + state.parts / (steps + 1), time.monotonic()
        self.bar = tqdm(
            total=steps * epochs,
            initial=steps * state.epoch + state.parts,
            unit="step",
            # The bar is for terminals; in a log file the line per epoch says the same.
            disable=None if self.writes else True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.writes:
            self.bar.write(line)

    def record(self, state: TrainingState) -> None:
        """Write the last epoch of a state down, and say it with the time that is left.

        Raises:
            OutputError: a file cannot be written.
        """
        if not self.writes:
            return
        record = state.history[-1]
        write_csv(self.folder / "history.csv", state.history)
        self._events.write(record["epoch"], record)
        shown = ("loss", "validation_loss", "validation_iou", "validation_f1")
        values = "  ".join(f"{name} {record[name]:.3f}" for name in shown)
        per_epoch = (time.monotonic() - self._started) / (state.epoch - self._first)
        left = (self.epochs - state.epoch) * per_epoch / 60
        self.say(f"epoch {state.epoch}/{self.epochs}  {values}  {left:.0f} min left")
