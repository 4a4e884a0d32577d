"""Checkpoints from which a run goes on as if it had not stopped.

After each epoch, and in the middle of one where ``jointnet.checkpoints`` asks for it, the network
and its optimizer are written under the numbers of epoch and step, and then ``state.json`` is
replaced, which names the file that counts. A run killed at any moment therefore leaves a state
that is whole: the one before or the one after.
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
from jointnet.distribution import alone, is_first
from jointnet.runs import load_weights
from preprocessing.errors import Interrupted, JointNetError, RunError
from preprocessing.output_files import replacing, write_json

BEST = "best.weights.h5"


@dataclass
class TrainingState:
    """What a resumed run must know beside the weights and the optimizer.

    Attributes:
        history: one record per finished epoch, in order: ``epoch`` (from 1), ``loss``,
            ``validation_loss``, ``validation_iou`` and others.
        parts: parts of batches (``TrainingBatches``) that are done of the epoch after these.
        sums: what the epoch's mean loss is computed from, where ``parts`` is not 0: the values of
            the network's ``metrics_variables``.
    """

    history: list[dict] = field(default_factory=list)
    parts: int = 0
    sums: list[float] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def best(self) -> dict | None:
        """The record of the first epoch with the highest validation IoU."""
        return max(self.history, key=lambda record: record["validation_iou"], default=None)

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best["epoch"] if self.history else 0

    def finish_epoch(self, record: dict) -> None:
        """Add the record of an epoch whose parts are all done."""
        self.history.append(record)
        self.parts, self.sums = 0, []


class Checkpoints:
    """The ``checkpoints`` folder of a run; of several processes the first writes into it.

    Args:
        folder: where the files lie; made where it is missing.

    Attributes:
        saved: when this object last wrote or loaded a state, or was made, by ``time.monotonic``.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.saved = time.monotonic()

    def exist(self) -> bool:
        """Whether there is a state to go on from."""
        return (self.folder / "state.json").is_file()

    def save_best(self, model: keras.Model, state: TrainingState) -> None:
        """Write the network if its epoch, the state's last, is the best so far."""
        if is_first() and state.best == state.history[-1]:
            _save_weights(model, self.folder / BEST)

    def save(self, model: keras.Model, state: TrainingState) -> None:
        """Write network, optimizer and state; older files go once the new ones count."""
        self.saved = time.monotonic()
        if not is_first():
            return
        content = {"history": state.history}
        last = f"epoch_{state.epoch:05d}.weights.h5"
        if state.parts:
            content |= {"parts": state.parts, "sums": state.sums}
            last = f"epoch_{state.epoch:05d}_{state.parts:07d}.weights.h5"
        _save_weights(model, self.folder / last)
        write_json(self.folder / "state.json", {"last": last, **content})
        for path in self.folder.glob("epoch_*.weights.h5"):
            if path.name != last:
                path.unlink()
        # What a process that was killed while it wrote has left.
        for pattern in (".*.weights.h5-*", ".state.json-*"):
            for folder in self.folder.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)

    def restore(self, model: keras.Model) -> TrainingState:
        """Load network and optimizer of the last state into a compiled model.

        Raises:
            RunError: the files do not fit the model or are damaged.
        """
        try:
            content = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            model.optimizer.build(model.trainable_variables)
            load_weights(model, self.folder / content["last"])
            self.saved = time.monotonic()
            return TrainingState(
                content["history"], content.get("parts", 0), content.get("sums", [])
            )
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
            line = (str(error).strip() or repr(error)).splitlines()[0]
            raise RunError(f"{self.folder} cannot be resumed: {line}") from None

    def load_best(self, model: keras.Model) -> None:
        """Load the weights of the best epoch."""
        load_weights(model, self.folder / BEST)


def _save_weights(model: keras.Model, path: Path) -> None:
    with alone(), replacing(path, overwrite=True) as beside:
        model.save_weights(beside)


SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What a kill without warning may cost; JointNet is written in less than a second.
SECONDS_BETWEEN_SAVES = 600.0


class Stop:
    """Whether a signal has asked a run to stop.

    Attributes:
        signal: number of the signal, None while there was none.
    """

    def __init__(self):
        self.signal: int | None = None
        self._process = os.getpid()

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: remember it. A second Ctrl-C ends the process as it always does.

        A second SIGTERM does not, as systems that stop a job may send it to both the process
        and its group.
        """
        if os.getpid() != self._process:
            # A fork that loads batches: on Ctrl-C they are needed to the end of the step, and
            # SIGTERM is how Python's pools end their processes.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if number == signal.SIGINT:
            if self.signal == signal.SIGINT:
                raise KeyboardInterrupt
            # Printing from a handler may fall into the middle of another print.
            os.write(2, b"\nstopping after this step; Ctrl-C once more stops at once\n")
        self.signal = number

    def asked(self) -> bool:
        """Whether a signal came, to whichever process; all must ask at the same point."""
        self.signal = distribution.greatest(self.signal)
        return self.signal is not None

    def check(self, where: str) -> None:
        """Stop here if a signal asked for it.

        Args:
            where: how far the run has come, for the message.

        Raises:
            Interrupted: a signal came.
        """
        if self.asked():
            raise Interrupted(self.signal, where)


@contextmanager
def noted_signals() -> Iterator[Stop]:
    """Let SIGTERM and Ctrl-C be noted in place of ending the process, while the block runs.

    A signal that the block did not answer is sent again when it ends. One that the process
    ignores, as ``nohup`` and shells have it for what runs in the background, stays ignored.
    Outside of the main thread, where Python handles no signals, nothing is noted.
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
            # None is a handler that Python did not install, and cannot install again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if stop.signal is not None:
        signal.raise_signal(stop.signal)


class ResumableEpoch(keras.callbacks.Callback):
    """The steps of an epoch, which may stop after any of them and go on there.

    A checkpoint in the middle of an epoch holds the weights as the step left them (not their
    average), the optimizer with gradients that are still being added up, and the sums of which
    the epoch's mean loss is made, so that what goes on from it equals what was not interrupted.

    Args:
        batches: the whole epoch's batches.
        checkpoints: where to save.
        state: where the run stands; its ``parts`` are already done.
        stop: whether to stop.
    """

    def __init__(
        self,
        batches: TrainingBatches,
        checkpoints: Checkpoints,
        state: TrainingState,
        stop: Stop,
    ):
        super().__init__()
        self.batches = batches
        self.checkpoints = checkpoints
        self.state = state
        self.stop = stop

    def fit(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> float:
        """Train what is left of the epoch, all of it as a rule.

        Args:
            model: a compiled network; where its optimizer averages the weights, they are the
                average afterwards, as after Keras' ``fit``.
            callbacks: further callbacks, called before this one.

        Returns:
            The mean loss over the whole epoch.

        Raises:
            Interrupted: a signal came; the checkpoint is saved.
            OutputError: a checkpoint cannot be written.
        """
        every = [*callbacks, self]
        if self.state.parts < len(self.batches):
            # Keras would shuffle the batches, from a state that no checkpoint holds.
            rest = Remaining(self.batches, self.state.parts)
            try:
                model.fit(rest, shuffle=False, verbose=0, callbacks=every)
            except (Interrupted, JointNetError) as ended:
                # The frames of fit hold TensorFlow's iterator over the batches. Kept with the
                # exception it is still there when Python ends, which then hangs or complains.
                ended.with_traceback(None)
                gc.collect()
                raise ended from None
        else:
            # It was interrupted after the last step: what fit does from there on.
            ends = keras.callbacks.CallbackList(every, model=model)
            ends.on_epoch_begin(0)
            ends.on_epoch_end(0)
            model.optimizer.finalize_variable_values(model.trainable_variables)
        return float(model.get_metrics_result()["loss"])

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Put back the sums of the steps that are done."""
        if self.state.parts:
            for variable, value in zip(self._sums(), self.state.sums, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Save if it is time or a signal came, which then ends the run."""
        self.state.parts += 1
        late = time.monotonic() - self.checkpoints.saved > SECONDS_BETWEEN_SAVES
        if self.stop.asked() or late:
            self.save()
            steps = f"step {self.state.parts} of {len(self.batches)}"
            self.stop.check(f"in epoch {self.state.epoch + 1}, after {steps}")

    def save(self) -> None:
        """Write a checkpoint in the middle of the epoch, of the weights that the network has.

        Raises:
            OutputError: it cannot be written.
        """
        self.state.sums = [float(keras.ops.convert_to_numpy(value)) for value in self._sums()]
        self.checkpoints.save(self.model, self.state)

    def _sums(self) -> list[keras.Variable]:
        return self.model.metrics_variables


class Remaining(keras.utils.PyDataset):
    """The batches of an epoch from one on.

    Args:
        batches: the whole epoch's batches.
        first: index of the first to be given out.
    """

    def __init__(self, batches: TrainingBatches, first: int):
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches = batches
        self.first = first

    def __len__(self) -> int:
        """Batches that are left."""
        return len(self.batches) - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch ``index`` of those that are left, as ``TrainingBatches`` gives it."""
        return self.batches[self.first + index]
