"""Checkpoints: stop a run at any moment, and go on as if it had not stopped.

A checkpoint is written after each epoch, every ten minutes, and on SIGINT or SIGTERM, after the
current step: network and optimizer into a file named by epoch and step, then ``state.json``, which
names that file. A kill at any moment leaves either the checkpoint before or the one after.
"""

import gc
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import keras
import numpy as np

from jointnet import distribution
from jointnet.batches import TrainingBatches
from jointnet.runs import load_weights
from preprocessing.errors import Interrupted, JointNetError, RunError, first_line
from preprocessing.output_files import replacing, write_json

BEST = "best.weights.h5"


@dataclass
class TrainingState:
    """What a resumed run must know besides the weights and the optimizer.

    Attributes:
        history: a record of each finished epoch: ``epoch`` (from 1), ``loss``,
            ``validation_loss``, ``validation_iou`` and others.
        micro_batches: micro-batches of the next epoch that are done.
        sums: the network's ``metrics_variables``, which make the epoch's mean loss; empty if
            ``micro_batches`` is 0.
    """

    history: list[dict] = field(default_factory=list)
    micro_batches: int = 0
    sums: list[float] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def best(self) -> dict | None:
        """Record of the epoch with the highest validation IoU, the first of equals."""
        return max(self.history, key=lambda record: record["validation_iou"], default=None)

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best["epoch"] if self.history else 0

    def finish_epoch(self, record: dict) -> None:
        """Add the record of a finished epoch."""
        self.history.append(record)
        self.micro_batches, self.sums = 0, []


class Checkpoints:
    """The ``checkpoints`` folder of a run; of several processes only the first writes into it."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        # When a state was last written or loaded.
        self.saved = time.monotonic()

    def exist(self) -> bool:
        """Return whether there is a state to resume from."""
        return (self.folder / "state.json").is_file()

    def save_best(self, model: keras.Model, state: TrainingState) -> None:
        """Write the network if the last epoch is the best so far."""
        if distribution.is_first() and state.best == state.history[-1]:
            _save_weights(model, self.folder / BEST)

    def save(self, model: keras.Model, state: TrainingState) -> None:
        """Write network, optimizer and state, then delete older files."""
        self.saved = time.monotonic()
        if not distribution.is_first():
            return
        content = {"history": state.history}
        last = f"epoch_{state.epoch:05d}.weights.h5"
        if state.micro_batches:
            # "parts" is the name of micro-batches in the files of earlier versions.
            content |= {"parts": state.micro_batches, "sums": state.sums}
            last = f"epoch_{state.epoch:05d}_{state.micro_batches:07d}.weights.h5"
        _save_weights(model, self.folder / last)
        write_json(self.folder / "state.json", {"last": last, **content})
        for path in self.folder.glob("epoch_*.weights.h5"):
            if path.name != last:
                path.unlink()
        # A process that was killed while it wrote leaves these.
        for pattern in (".*.weights.h5-*", ".state.json-*"):
            for folder in self.folder.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)

    def restore(self, model: keras.Model) -> TrainingState:
        """Load the last state into a compiled model; RunError if it does not fit or is damaged."""
        try:
            content = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            model.optimizer.build(model.trainable_variables)
            load_weights(model, self.folder / content["last"])
            self.saved = time.monotonic()
            return TrainingState(
                content["history"], content.get("parts", 0), content.get("sums", [])
            )
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
            raise RunError(f"{self.folder} cannot be resumed: {first_line(error)}") from None

    def load_best(self, model: keras.Model) -> None:
        """Load the weights of the best epoch."""
        load_weights(model, self.folder / BEST)


def _save_weights(model: keras.Model, path: Path) -> None:
    with distribution.alone(), replacing(path, overwrite=True) as beside:
        model.save_weights(beside)


SIGNALS = (signal.SIGTERM, signal.SIGINT)
# The most work that a kill can lose; writing JointNet takes under a second.
SECONDS_BETWEEN_SAVES = 600.0


class Stop:
    """The ``signal`` that asked a run to stop; None before one came."""

    def __init__(self):
        self.signal: int | None = None
        self._process = os.getpid()

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second Ctrl-C interrupts as usual.

        A second SIGTERM does not: a job's end may send it to the process and to its group.
        """
        if os.getpid() != self._process:
            # A fork that loads batches ignores Ctrl-C, as the current step needs them. Python's
            # pools end their processes by SIGTERM.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if number == signal.SIGINT:
            if self.signal == signal.SIGINT:
                raise KeyboardInterrupt
            # print is not safe inside a signal handler.
            os.write(2, b"\nstopping after this step; Ctrl-C once more stops at once\n")
        self.signal = number

    def asked(self) -> bool:
        """Return whether a signal came to any process; all must call this at the same step."""
        self.signal = distribution.greatest(self.signal)
        return self.signal is not None

    def check(self, where: str) -> None:
        """Raise ``Interrupted`` if a signal came; ``where`` says how far the run has come."""
        if self.asked():
            raise Interrupted(self.signal, where)


@contextmanager
def noted_signals() -> Iterator[Stop]:
    """Note SIGTERM and Ctrl-C while the block runs, and send the signal again at its end.

    Signals that the process ignores, as under ``nohup``, stay ignored. Only the main thread notes
    any, as Python handles signals nowhere else.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop.note) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None is a handler that Python did not install and cannot restore.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if stop.signal is not None:
        signal.raise_signal(stop.signal)


class ResumableEpoch(keras.callbacks.Callback):
    """The steps of an epoch, which can stop after any of them and go on there.

    A checkpoint in the middle of an epoch holds the weights as the step left them (not their
    average), the optimizer with unfinished sums of gradients, and the sums behind the mean loss:
    a resumed run equals one that was not interrupted. ``batches`` are those of the whole epoch.
    """

    def __init__(
        self, batches: TrainingBatches, checkpoints: Checkpoints, state: TrainingState, stop: Stop
    ):
        super().__init__()
        self.batches = batches
        self.checkpoints = checkpoints
        self.state = state
        self.stop = stop

    def fit(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> float:
        """Train what is left of the epoch, and return the mean loss over all of it.

        Leaves the model with averaged weights, if its optimizer averages. ``callbacks`` are
        called before this one.

        Raises:
            Interrupted: a signal came; the checkpoint is saved.
            OutputError: a checkpoint cannot be written.
        """
        every = [*callbacks, self]
        if self.state.micro_batches < len(self.batches):
            # No checkpoint holds the state by which Keras would shuffle the batches.
            rest = Remaining(self.batches, self.state.micro_batches)
            try:
                model.fit(rest, shuffle=False, verbose=0, callbacks=every)
            except (Interrupted, JointNetError) as ended:
                # The frames of fit hold TensorFlow's iterator over the batches. If the exception
                # kept it, Python would hang or complain at its end.
                ended.with_traceback(None)
                gc.collect()
                raise ended from None
        else:
            # Interrupted after the last step: do what fit does from there on.
            ends = keras.callbacks.CallbackList(every, model=model)
            ends.on_epoch_begin(0)
            ends.on_epoch_end(0)
            model.optimizer.finalize_variable_values(model.trainable_variables)
        return float(model.get_metrics_result()["loss"])

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Restore the sums of earlier steps."""
        if self.state.micro_batches:
            for variable, value in zip(self._sums(), self.state.sums, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Save if it is time; save and stop if a signal came."""
        self.state.micro_batches += 1
        late = time.monotonic() - self.checkpoints.saved > SECONDS_BETWEEN_SAVES
        if self.stop.asked() or late:
            self.save()
            steps = f"step {self.state.micro_batches} of {len(self.batches)}"
            self.stop.check(f"in epoch {self.state.epoch + 1}, after {steps}")

    def save(self) -> None:
        """Write a checkpoint in the middle of the epoch, or raise ``OutputError``."""
        self.state.sums = [float(keras.ops.convert_to_numpy(value)) for value in self._sums()]
        self.checkpoints.save(self.model, self.state)

    def _sums(self) -> list[keras.Variable]:
        return self.model.metrics_variables


class Remaining(keras.utils.PyDataset):
    """The batches of an epoch from number ``first`` on."""

    def __init__(self, batches: TrainingBatches, first: int):
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches = batches
        self.first = first

    def __len__(self) -> int:
        """Return the number of batches that are left."""
        return len(self.batches) - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return batch ``index`` of those that are left."""
        return self.batches[self.first + index]
