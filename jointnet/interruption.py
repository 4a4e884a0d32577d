"""Training that may be interrupted at any step: by a signal, or by a kill that none announces."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import keras
import numpy as np

from jointnet import distribution
from jointnet.batches import TrainingBatches
from jointnet.checkpoints import Checkpoints, TrainingState
from preprocessing.errors import Interrupted, JointNetError

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
