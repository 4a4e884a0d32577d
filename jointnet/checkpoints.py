"""Checkpoints from which a run goes on as if it had not stopped.

After each epoch, and in the middle of one where ``jointnet.interruption`` asks for it, the network
and its optimizer are written under the numbers of epoch and step, and then ``state.json`` is
replaced, which names the file that counts. A run killed at any moment therefore leaves a state
that is whole: the one before or the one after.
"""

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import keras

from jointnet.distribution import alone, is_first
from jointnet.runs import load_weights
from preprocessing.errors import RunError
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
