"""A process that imports once and trains in forks of itself, which tests signal and kill.

Nothing has run on the backend when it forks, so that each fork begins as a new process does.
``python -m tests.forked_training`` reads a line of JSON per run and answers with two: the number
of the process, and what it ended with.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import keras

from jointnet import checkpoints, training
from jointnet.training_settings import TrainingSettings
from preprocessing.errors import Interrupted
from tests.training_fixtures import ROOT, memory_store

LEARNING = {"crop_size": 16, "learning_rate": 0.01, "seed": 3}
SETTINGS = {
    # All that is carried over: moments, schedule, averages, gradients of micro-batches.
    "everything": TrainingSettings(
        **LEARNING,
        batch_size=4,
        micro_batch_size=2,
        epochs=3,
        steps_per_epoch=3,
        schedule="cosine",
        warmup_steps=2,
        weight_decay=0.05,
        weight_average=0.8,
        loss="cross_entropy+dice",
        target_weight=0.5,
    ),
    "long": TrainingSettings(**LEARNING, batch_size=2, epochs=4, steps_per_epoch=40),
}


def network(seed: int = 0) -> keras.Model:
    """A network that compiles at once, with statistics that a step changes."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Rescaling(1 / 127.5, -1),
        keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
    ]
    return keras.Sequential([keras.Input((None, None, 3)), *layers])


class Trainings:
    """The process, from the test's side.

    Args:
        backend: of Keras.
        log: file for what the trainings print on standard error.
    """

    def __init__(self, backend: str, log: Path):
        self.log = log
        # The order of a sum depends on the number of threads.
        threads = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        environment = dict.fromkeys((*threads, "OPENBLAS_NUM_THREADS"), "1")
        environment |= {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend}
        # What is compiled runs a few times.
        environment |= {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_training"],
            cwd=ROOT,
            env=os.environ | environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, name: str, folder: Path, **options) -> int:
        """Begin to train; returns the process number."""
        job = {"name": name, "folder": str(folder), "log": str(self.log)} | options
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Wait for what was begun; returns its exit code, or less the signal that ended it."""
        return int(self.process.stdout.readline())

    def run(self, name: str, folder: Path, **options) -> int:
        """Both."""
        self.start(name, folder, **options)
        return self.end()

    def said(self) -> list[str]:
        """What the last training wrote to standard error, line by line."""
        return self.log.read_text().splitlines()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def after_each_step(act: Callable[..., None]) -> None:
    """Do something when a step is done, before it can be saved."""
    watch = training.StepWatch.on_train_batch_end

    def watch_and_act(self, batch, logs=None):
        watch(self, batch, logs)
        act(self, batch, logs)

    training.StepWatch.on_train_batch_end = watch_and_act


def send_at(moment: str, number: int) -> None:
    """Let the process signal itself: ``"step 2 3"`` in epoch 2, at step 3; ``"validation 2"``."""
    what, *numbers = moment.split()
    wanted = [int(word) for word in numbers]
    if what == "step":

        def send(self, batch, logs=None):
            if [self.batches.epoch + 1, self.done + batch + 1] == wanted:
                os.kill(os.getpid(), number)

        after_each_step(send)
        return
    validate = training.validate

    def validate_and_send(model, patches, settings, before_batch):
        calls = []

        def send_at_the_second():
            calls.append(before_batch)
            epoch = before_batch.args[0].split()[-1]
            if len(calls) == 2 and int(epoch) == wanted[0]:
                os.kill(os.getpid(), number)
            before_batch()

        return validate(model, patches, settings, send_at_the_second)

    training.validate = validate_and_send


def train(job: dict) -> int:
    """One run; returns its exit code."""
    if "send" in job:
        send_at(job["send"], job["signal"])
    if "touch" in job:
        # From now on it is worth while to kill.
        after_each_step(lambda *arguments: Path(job["touch"]).touch())
    checkpoints.SECONDS_BETWEEN_SAVES = job.get("seconds", 600)
    handlers = [signal.getsignal(number) for number in checkpoints.SIGNALS]
    folder, settings = Path(job["folder"]), SETTINGS[job["name"]]
    resume = (folder / "checkpoints" / "state.json").exists()
    try:
        # Other initial weights each time, which must not matter once there is a checkpoint.
        seed = os.getpid() if resume else 0
        training.train(network(seed), memory_store(size=24), settings, folder, resume)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal
    finally:
        assert handlers == [signal.getsignal(number) for number in checkpoints.SIGNALS]
    return 0


def main() -> None:
    """Train as the lines say."""
    for line in sys.stdin:
        job = json.loads(line)
        number = os.fork()
        if not number:
            log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            try:
                code = train(job)
            except BaseException:  # noqa: BLE001 (the test reads it)
                traceback.print_exc()
                code = 1
            sys.stderr.flush()
            os._exit(code)
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
