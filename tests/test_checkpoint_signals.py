"""Training that is stopped by signals, or killed, and goes on as if nothing had been."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from tqdm import tqdm

from experiments.options import Command
from jointnet import checkpoints, training
from jointnet.checkpoints import BEST, SIGNALS, Checkpoints, Remaining, Stop, noted_signals
from jointnet.runs import WEIGHTS
from jointnet.training import StepWatch, train
from jointnet.training_settings import TrainingSettings
from preprocessing.errors import Interrupted, TrainingError
from tests.forked_training import SETTINGS, Trainings, network
from tests.training_fixtures import ROOT, memory_store, tiny_store, tiny_training

pytestmark = pytest.mark.usefixtures("plain_graphs")
SIGTERM, SIGINT = signal.SIGTERM, signal.SIGINT


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory) -> Iterator[Trainings]:
    trainings = Trainings("tensorflow", tmp_path_factory.mktemp("log") / "tensorflow")
    yield trainings
    trainings.close()


@pytest.fixture(scope="module")
def whole(tensorflow, tmp_path_factory) -> Path:
    """The run folder of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert tensorflow.run("everything", folder) == 0, tensorflow.said()
    return folder


@pytest.fixture
def jax(tmp_path) -> Iterator[Trainings]:
    pytest.importorskip("jax")
    trainings = Trainings("jax", tmp_path / "log")
    yield trainings
    trainings.close()


def state_in(folder: Path) -> dict:
    return json.loads((folder / "checkpoints" / "state.json").read_text())


def arrays(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: (
                found.update({name: node[...]}) if isinstance(node, h5py.Dataset) else None
            )
        )
    return found


def assert_equal_runs(one: Path, other: Path) -> None:
    """Bit for bit: history, best and last weights, all that the optimizer knows."""
    for name in ("history.csv", "checkpoints/state.json"):
        assert (one / name).read_text() == (other / name).read_text()
    for name in (BEST, state_in(one)["last"]):
        here, there = (arrays(run / "checkpoints" / name) for run in (one, other))
        assert any(key.startswith("optimizer/") for key in here)
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[key], there[key]) for key in here)
    assert sorted(os.listdir(one / "checkpoints")) == sorted(os.listdir(other / "checkpoints"))


# Signals


@pytest.fixture
def handlers() -> Iterator[dict]:
    """Handlers of its own for each signal, and after the test those that were there."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    caught = {number: signal.default_int_handler for number in SIGNALS}
    for number, handler in caught.items():
        signal.signal(number, handler)
    yield caught
    for number, handler in before.items():
        signal.signal(number, handler)


def current() -> dict:
    return {number: signal.getsignal(number) for number in SIGNALS}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_answered_where_it_suits(handlers, number):
    with pytest.raises(Interrupted) as caught, noted_signals() as stop:
        stop.check("too early")
        signal.raise_signal(number)
        stop.check("here")
    name = signal.Signals(number).name
    assert str(caught.value) == f"stopped by {name} here; go on with --resume"
    assert caught.value.signal == number
    assert current() == handlers


def test_sigterm_may_come_twice_and_a_second_ctrl_c_ends_at_once(handlers, capfd):
    with pytest.raises(KeyboardInterrupt), noted_signals() as stop:
        signal.raise_signal(SIGTERM)
        signal.raise_signal(SIGTERM)
        assert capfd.readouterr().err == ""
        signal.raise_signal(SIGINT)
        assert capfd.readouterr().err.strip().splitlines() == [
            "stopping after this step; Ctrl-C once more stops at once"
        ]
        assert stop.signal == SIGINT
        signal.raise_signal(SIGINT)
    assert current() == handlers


def test_a_signal_that_was_not_answered_is_sent_again(handlers):
    """To handlers that raise KeyboardInterrupt, here."""
    ended = False
    with pytest.raises(KeyboardInterrupt), noted_signals():
        signal.raise_signal(SIGTERM)
        ended = True
    assert ended and current() == handlers


def test_in_a_fork_ctrl_c_is_left_to_the_parent_and_sigterm_ends_it(handlers):
    """Forks inherit the handlers, and pools of them are ended by SIGTERM."""
    with noted_signals() as stop:
        process = os.fork()
        if not process:
            signal.raise_signal(SIGINT)
            signal.raise_signal(SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 143
    assert stop.signal is None


def test_what_is_ignored_stays_ignored(handlers):
    """As in the background of a shell."""
    signal.signal(SIGINT, signal.SIG_IGN)
    with noted_signals() as stop:
        signal.raise_signal(SIGINT)
    assert stop.signal is None
    assert signal.getsignal(SIGINT) == signal.SIG_IGN


def test_outside_of_the_main_thread_nothing_is_noted(tmp_path, eager, handlers):
    """Where Python lets nobody handle signals; it trains all the same."""
    found = []

    def work():
        state = train(network(), memory_store(), tiny_training(epochs=1), tmp_path)
        found.append((state.epoch, current()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(1, handlers)]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_exits_as_the_shell_has_it_with_one_line(number):
    @click.command(cls=Command)
    def command():
        Stop().check("nowhere")
        raise Interrupted(number, "in epoch 2, after step 3 of 6")

    result = CliRunner().invoke(command)
    assert result.exit_code == 128 + number
    assert result.stderr.startswith("stopped by SIG") and result.stderr.count("\n") == 1
    assert result.stdout == ""


# Between two epochs, and within one


def test_a_signal_while_an_epoch_is_saved_ends_the_run_after_it(tmp_path, monkeypatch, eager):
    """After the last epoch too: what follows on the training may take long."""
    save = Checkpoints.save

    def signal_and_save(self, model, state):
        signal.raise_signal(SIGTERM)
        save(self, model, state)

    settings = tiny_training()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", signal_and_save)
        for epoch in (1, 2):
            with pytest.raises(Interrupted, match=f"stopped by SIGTERM after epoch {epoch} of 2;"):
                train(network(), memory_store(), settings, tmp_path, resume=epoch > 1)
            assert state_in(tmp_path).keys() == {"last", "history"}
    assert train(network(), memory_store(), settings, tmp_path, resume=True).epoch == 2


@pytest.mark.parametrize(("seconds", "saves"), [(600, 2), (0, 6)])
def test_it_saves_in_the_middle_of_an_epoch_when_it_is_time(
    tmp_path, monkeypatch, eager, seconds, saves
):
    """Two epochs of two steps: at their ends, or after each step as well."""
    save, saved = Checkpoints.save, []

    def note_and_save(self, model, state):
        saved.append(state.micro_batches)
        save(self, model, state)

    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_SAVES", seconds)
    monkeypatch.setattr(Checkpoints, "save", note_and_save)
    train(network(), memory_store(), tiny_training(), tmp_path)
    assert len(saved) == saves and saved[-1] == 0


def test_the_rest_of_an_epoch_is_its_last_batches():
    batches = training._batches(memory_store().train, tiny_training(steps_per_epoch=5), epoch=1)
    rest = Remaining(batches, 3)
    assert len(rest) == 2
    for index in range(2):
        for one, other in zip(rest[index], batches[3 + index], strict=True):
            np.testing.assert_array_equal(one, other)


def test_steps_are_named_by_their_place_in_the_whole_epoch():
    batches = training._batches(memory_store().train, tiny_training(steps_per_epoch=5), epoch=1)
    watch = StepWatch(batches, tqdm(disable=True), done=3)
    watch.set_model(network())
    with pytest.raises(TrainingError) as caught:
        watch.on_train_batch_end(1, {"loss": float("nan")})
    names = ", ".join(batches.names(4))
    assert f"at epoch 2, step 5, in the batch of {names};" in str(caught.value)


# Stopped


def interrupt(
    trainings: Trainings, folder: Path, moments: list[tuple[str, int, str]], **options: int
) -> None:
    """Train to each of the moments, and at last to the end."""
    for moment, number, where in moments:
        code = trainings.run("everything", folder, send=moment, signal=number, **options)
        assert code == 128 + number, trainings.said()
        name = signal.Signals(number).name
        assert trainings.said()[-1] == f"stopped by {name} {where}; go on with --resume"
    assert trainings.run("everything", folder, **options) == 0, trainings.said()


@pytest.mark.slow
def test_a_run_that_is_stopped_anywhere_equals_one_that_is_not(tensorflow, whole, tmp_path):
    """In the first step, between micro-batches, twice in an epoch, in the validation.

    Each epoch is 3 batches of 2 micro-batches.
    """
    moments = [
        ("step 1 1", SIGTERM, "in epoch 1, after step 1 of 6"),
        ("step 2 3", SIGTERM, "in epoch 2, after step 3 of 6"),
        ("step 2 4", SIGINT, "in epoch 2, after step 4 of 6"),
        ("validation 2", SIGTERM, "in the validation after epoch 2"),
        ("validation 2", SIGINT, "in the validation after epoch 2"),
        ("step 3 6", SIGTERM, "in epoch 3, after step 6 of 6"),
    ]
    interrupt(tensorflow, tmp_path / "stopped", moments)
    assert_equal_runs(whole, tmp_path / "stopped")


@pytest.mark.slow
def test_the_same_on_jax(jax, tmp_path):
    """There the weights are with the trainer, not in the network, while ``fit`` runs.

    The run that is stopped saves after every step.
    """
    assert jax.run("everything", tmp_path / "whole") == 0, jax.said()
    moments = [
        ("step 2 3", SIGTERM, "in epoch 2, after step 3 of 6"),
        ("validation 2", SIGTERM, "in the validation after epoch 2"),
    ]
    interrupt(jax, tmp_path / "stopped", moments, seconds=0)
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_saving_in_the_middle_of_epochs_changes_nothing(tensorflow, whole, tmp_path):
    assert tensorflow.run("everything", tmp_path / "often", seconds=0) == 0, tensorflow.said()
    assert_equal_runs(whole, tmp_path / "often")


# Killed


def saved(folder: Path, settings: TrainingSettings) -> tuple[int, int]:
    """Epochs and parts of the state that loads; (0, 0) where there is none yet."""
    checkpoints = Checkpoints(folder / "checkpoints")
    if not checkpoints.exist():
        return 0, 0
    model = network(1)
    model.compile(settings.make_optimizer(1), settings.make_loss())
    state = checkpoints.restore(model)
    return state.epoch, state.micro_batches


@pytest.mark.slow
def test_killed_at_ten_random_moments(tensorflow, tmp_path):
    """What is there loads after each, and the run that ends at last is the one that was not.

    It saves after each of its 160 steps, so that most are killed while they save.
    """
    settings = SETTINGS["long"]

    def start(folder: str, touched: Path) -> int:
        """Begin, and wait for the first step."""
        process = tensorflow.start("long", tmp_path / folder, seconds=0, touch=str(touched))
        while not touched.exists():
            time.sleep(0.001)
        return process

    start("whole", tmp_path / "begun")
    begun = time.monotonic()
    assert tensorflow.end() == 0, tensorflow.said()
    seconds = time.monotonic() - begun
    random.seed(0)
    states, broken = [(0, 0)], 0
    for number in range(10):
        process = start("killed", tmp_path / f"{number}")
        time.sleep(random.uniform(0, seconds / 20))
        os.kill(process, signal.SIGKILL)
        assert tensorflow.end() == -signal.SIGKILL, tensorflow.said()
        states.append(saved(tmp_path / "killed", settings))
        broken += any((tmp_path / "killed" / "checkpoints").glob(".*"))
    assert states == sorted(states) and len(set(states)) > 5
    assert broken, "none was killed while it wrote"
    assert tensorflow.run("long", tmp_path / "killed") == 0, tensorflow.said()
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")


# How Python ends

ENDING = """
import sys, time
import click
from experiments.options import Command
from jointnet import training
from jointnet.batches import TrainingBatches
from tests.forked_training import SETTINGS, after_each_step, network
from tests.training_fixtures import memory_store

@click.command(cls=Command)
def main():
    training.train(network(), memory_store(size=24), SETTINGS["long"], sys.argv[1])

give = TrainingBatches.__getitem__
TrainingBatches.__getitem__ = lambda *of: (time.sleep(0.02), give(*of))[1]
after_each_step({act})
main([])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "code", "line"),
    [
        (
            "lambda *arguments: __import__('signal').raise_signal(15)",
            143,
            "stopped by SIGTERM in epoch 1, after step 1 of 40; go on with --resume",
        ),
        (
            "lambda self, *arguments: [w.assign(w * float('nan')) for w in self.model.weights]",
            2,
            "error: the loss is nan and the weights are not finite at epoch 1, step 2, in the",
        ),
    ],
)
def test_a_run_that_ends_with_batches_waiting_ends_with_its_line(tmp_path, act, code, line):
    """TensorFlow's iterator, which still loads batches, must not outlive Python."""
    ended = subprocess.run(
        [sys.executable, "-c", ENDING.format(act=act), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(line)


# The command

# Tracing a step takes longer than the few steps.
COMMAND = """
import runpy, sys
import tensorflow as tf
tf.config.run_functions_eagerly(True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_training_command_stops_and_goes_on(tmp_path):
    """From outside, at a moment of its own choice."""
    store = tiny_store(tmp_path).folder
    options = "--run mine --set variant=jointnet_quarter --set epochs=1 --set steps_per_epoch=3"
    words = [str(ROOT / "experiments" / "train_jointnet.py"), "--store", str(store)]
    options += " --batch-size 2 --precision float32"
    command = [sys.executable, "-c", COMMAND, *words, *options.split()]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "results" / "mine"
    while not (folder / "events").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    # It begins to watch for signals now; three steps take longer.
    time.sleep(0.2)
    process.terminate()
    printed, errors = process.communicate()
    assert process.returncode == 143, errors
    line = errors.strip().splitlines()[-1]
    parts = state_in(folder)["parts"]
    assert 0 < parts < 3
    assert line == f"stopped by SIGTERM in epoch 1, after step {parts} of 3; go on with --resume"
    assert "Traceback" not in errors and "epoch 1/1" not in printed
    assert not (folder / WEIGHTS).exists()
    done = subprocess.run(
        [*command, "--resume"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / WEIGHTS).exists() and "epoch 1/1" in done.stdout
