"""Training that is stopped by signals, or killed, and goes on as if nothing had been."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from jointnet import interruption
from jointnet.batches import TrainingBatches
from jointnet.checkpoints import BEST, Checkpoints
from jointnet.interruption import Remaining, Stop, noted_signals
from jointnet.settings import TrainingSettings
from jointnet.training import train
from preprocessing.augmentation import Augmentation
from preprocessing.errors import Interrupted
from tests.forked_training import SETTINGS, Trainings, network
from tests.training_fixtures import ROOT, memory_store, tiny_store, tiny_training

pytestmark = pytest.mark.usefixtures("plain_graphs")
SIGTERM, SIGINT = signal.SIGTERM, signal.SIGINT


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory):
    trainings = Trainings("tensorflow", tmp_path_factory.mktemp("log") / "tensorflow")
    yield trainings
    trainings.close()


@pytest.fixture
def jax(tmp_path):
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


# Stopped


def interrupt(trainings: Trainings, folder: Path, moments: list[tuple[str, int, str]]) -> None:
    """Train to each of the moments, and at last to the end."""
    for moment, number, where in moments:
        code = trainings.run("everything", folder, send=moment, signal=number)
        assert code == 128 + number, trainings.said()
        name = signal.Signals(number).name
        assert trainings.said()[-1] == f"stopped by {name} {where}; go on with --resume"
    assert trainings.run("everything", folder) == 0, trainings.said()


@pytest.mark.slow
def test_a_run_that_is_stopped_anywhere_equals_one_that_is_not(tensorflow, tmp_path):
    """In the first step, between the parts of a batch, twice in an epoch, in the validation.

    Each epoch is 3 batches of 2 parts.
    """
    assert tensorflow.run("everything", tmp_path / "whole") == 0, tensorflow.said()
    moments = [
        ("step 1 1", SIGTERM, "in epoch 1, after step 1 of 6"),
        ("step 2 3", SIGTERM, "in epoch 2, after step 3 of 6"),
        ("step 2 4", SIGINT, "in epoch 2, after step 4 of 6"),
        ("validation 2", SIGTERM, "in the validation after epoch 2"),
        ("validation 2", SIGINT, "in the validation after epoch 2"),
        ("step 3 6", SIGTERM, "in epoch 3, after step 6 of 6"),
    ]
    interrupt(tensorflow, tmp_path / "parts", moments)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_the_same_on_jax(jax, tmp_path):
    """There the weights are with the trainer, not in the network, while ``fit`` runs."""
    assert jax.run("everything", tmp_path / "whole") == 0, jax.said()
    moments = [
        ("step 2 3", SIGTERM, "in epoch 2, after step 3 of 6"),
        ("validation 2", SIGTERM, "in the validation after epoch 2"),
    ]
    interrupt(jax, tmp_path / "parts", moments)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_saving_in_the_middle_of_epochs_changes_nothing(tensorflow, tmp_path):
    for folder, seconds in (("seldom", 600), ("often", 0)):
        assert tensorflow.run("everything", tmp_path / folder, seconds=seconds) == 0
    assert_equal_runs(tmp_path / "seldom", tmp_path / "often")


# Killed


def saved(folder: Path, settings: TrainingSettings) -> tuple[int, int]:
    """Epochs and parts of the state that loads; (0, 0) where there is none yet."""
    checkpoints = Checkpoints(folder / "checkpoints")
    if not checkpoints.exist():
        return 0, 0
    model = network(1)
    model.compile(settings.make_optimizer(1), settings.make_loss())
    state = checkpoints.restore(model)
    return state.epoch, state.parts


@pytest.mark.slow
def test_killed_at_ten_random_moments(tensorflow, tmp_path):
    """What is there loads after each, and the run that ends at last is the one that was not.

    It saves after each of its 320 steps, so that most are killed while they save.
    """
    settings = SETTINGS["long"]
    begun = time.monotonic()
    assert tensorflow.run("long", tmp_path / "whole", seconds=0) == 0, tensorflow.said()
    seconds = time.monotonic() - begun
    random.seed(0)
    states, broken = [(0, 0)], 0
    for number in range(10):
        touched = tmp_path / f"{number}"
        process = tensorflow.start("long", tmp_path / "parts", seconds=0, touch=str(touched))
        while not touched.exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, seconds / 20))
        os.kill(process, signal.SIGKILL)
        assert tensorflow.end() == -signal.SIGKILL, tensorflow.said()
        states.append(saved(tmp_path / "parts", settings))
        broken += any((tmp_path / "parts" / "checkpoints").glob(".*"))
    assert states == sorted(states) and len(set(states)) > 5
    print(states, broken, seconds)
    assert tensorflow.run("long", tmp_path / "parts") == 0, tensorflow.said()
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
