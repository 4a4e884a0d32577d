"""Training on several devices and processes is the training of one device, but for rounding.

Devices are parts of the CPU, and start once per process: each number of them has processes of its
own, in which several trainings run (``tests/distributed_training.py``).
"""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.train_jointnet import main
from jointnet import distribution
from jointnet.batches import TrainingBatches
from jointnet.distribution import Devices, choose_devices, join_processes
from preprocessing.augmentation import Augmentation
from preprocessing.errors import TrainingError
from tests.helpers import error
from tests.training_fixtures import ROOT, memory_store, tiny_store

BACKENDS = ("tensorflow", "jax")
SGD = {"name": "sgd", "sgd": True, "settings": {"learning_rate": 0.02}}
PERMUTED = SGD | {"name": "permuted", "order": [3, 1, 0, 2]}
ADAM = {
    "name": "adam",
    "network": "block",
    "settings": {"learning_rate": 1e-3, "weight_decay": 0.1, "weight_average": 0.9},
}
# The same in micro-batches, which TensorFlow refuses on several devices.
PARTS = ADAM | {"name": "parts", "settings": {**ADAM["settings"], "micro_batch_size": 2}}
SHORT = {"network": "block", "settings": {"epochs": 2, "steps_per_epoch": 3, "learning_rate": 0.01}}
WHOLE = SHORT | {"name": "whole"}
HALVES = {
    "name": "halves",
    "network": "block",
    "settings": {**SHORT["settings"], "epochs": 1},
    "resumed": {"epochs": 2},
}
NORMALISED = {"name": "normalised", "network": "normalised", "settings": {"weight_average": 0.9}}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass(frozen=True)
class Group:
    """Processes that train together, and the folder they write to."""

    folder: Path
    processes: list[subprocess.Popen]

    def end(self) -> list[str]:
        """Wait for all; what each printed."""
        printed = [process.communicate(timeout=600)[0] for process in self.processes]
        for process, text in zip(self.processes, printed, strict=True):
            assert process.returncode == 0, text[-3000:]
        return printed

    def training(self, name: str) -> dict:
        """Weights before and after, each as one vector, and the history."""
        with np.load(self.folder / f"{name}.npz") as file:
            vectors = {
                key: np.concatenate([file[n].ravel() for n in file.files if n.startswith(key)])
                for key in ("start", "weight")
            }
            return vectors | {"history": json.loads(str(file["history"]))}


def begin(folder: Path, backend: str, jobs: object, wanted: int = 0, processes: int = 1) -> Group:
    """Start processes; threads are few, so that sums keep their order."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        # What is compiled for one training serves the next.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    call = [sys.executable, "-m", "tests.distributed_training", folder, json.dumps(jobs), wanted]
    if processes > 1:
        environment["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = f"127.0.0.1:{free_port()}"
        environment["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(processes)
    return Group(
        folder,
        [
            subprocess.Popen(
                [*map(str, call)],
                cwd=ROOT,
                env=environment | {"KERAS_DISTRIBUTION_PROCESS_ID": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(processes)
        ],
    )


@pytest.fixture(scope="module", params=BACKENDS)
def one_and_two(request, tmp_path_factory) -> tuple[Group, Group]:
    """One device and two devices of one process."""
    base, parts = tmp_path_factory.mktemp("devices"), [PARTS] if request.param == "jax" else []
    one = begin(base / "one", request.param, [SGD, PERMUTED, ADAM, *parts])
    two = begin(base / "two", request.param, [SGD, ADAM, *parts, NORMALISED], wanted=2)
    one.end()
    (printed,) = two.end()
    assert "training on 2 devices (cpu:0, cpu:1), 2 of 4 samples on each" in printed
    return one, two


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> tuple[Group, list[str]]:
    """Two processes of one device each, on JAX, and what they printed."""
    jobs = [SGD, ADAM, PARTS, WHOLE, HALVES, NORMALISED]
    group = begin(tmp_path_factory.mktemp("processes"), "jax", jobs, processes=2)
    return group, group.end()


def assert_sgd_agrees(one: Group, found: dict) -> None:
    """Within three times of what another order of the samples makes on one device."""
    expected = one.training("sgd")
    noise = np.abs(expected["weight"] - one.training("permuted")["weight"]).max()
    moved = np.abs(expected["weight"] - expected["start"]).max()
    assert np.array_equal(expected["start"], found["start"])
    assert 0 < noise < moved / 100
    assert np.abs(expected["weight"] - found["weight"]).max() <= 3 * noise
    assert_histories_agree(expected, found)


def assert_adam_agrees(one: Group, found: dict, name: str = "adam") -> None:
    """Within a twentieth of the way, in the mean over all weights.

    Adam divides by the size of the gradients: where they are nearly 0 rounding decides.
    """
    expected = one.training(name)
    moved = np.abs(expected["weight"] - expected["start"]).mean()
    assert np.abs(expected["weight"] - found["weight"]).mean() <= moved / 20
    assert_histories_agree(expected, found)


def assert_histories_agree(expected: dict, found: dict) -> None:
    """The loss is the mean over the whole batch, and all patches are validated."""
    (one,), (other,) = expected["history"], found["history"]
    assert set(one) == set(other)
    for key in one:
        assert other[key] == pytest.approx(one[key], abs=2e-3), key
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


# Trainings that agree


@pytest.mark.slow
def test_two_devices_learn_as_one(one_and_two):
    one, two = one_and_two
    assert_sgd_agrees(one, two.training("sgd"))


@pytest.mark.slow
def test_two_devices_learn_about_as_one_by_adam_with_decay_and_average(one_and_two):
    one, two = one_and_two
    assert_adam_agrees(one, two.training("adam"))
    if (two.folder / "parts.npz").exists():
        assert_adam_agrees(one, two.training("parts"), "parts")


@pytest.mark.slow
def test_two_processes_learn_as_two_devices(one_and_two, processes):
    one, two = one_and_two
    group, _ = processes
    if not (two.folder / "parts.npz").exists():
        pytest.skip("several processes are for JAX")
    for number in (0, 1):
        assert_sgd_agrees(one, group.training(f"sgd-{number}"))
        assert_adam_agrees(one, group.training(f"adam-{number}"))
        assert_adam_agrees(one, group.training(f"parts-{number}"), "parts")


@pytest.mark.slow
def test_processes_hold_the_same_network(processes):
    group, _ = processes
    for name in ("sgd", "adam", "parts", "whole", "halves", "normalised"):
        first, second = (group.training(f"{name}-{number}") for number in (0, 1))
        assert np.isfinite(first["weight"]).all()
        assert np.array_equal(first["weight"], second["weight"]), name
        assert first["history"] == second["history"], name


@pytest.mark.slow
def test_processes_go_on_as_if_they_had_not_stopped(processes):
    group, _ = processes
    whole, halves = (group.training(f"{name}-1") for name in ("whole", "halves"))
    assert len(halves["history"]) == 2
    assert halves["history"] == whole["history"]
    assert np.array_equal(halves["weight"], whole["weight"])


@pytest.mark.slow
def test_the_first_process_alone_writes_and_prints(processes):
    group, (first, second) = processes
    assert "training on 2 devices of 2 processes" in first
    assert first.count("epoch 1/1") == 5 and "epoch" not in second
    for name in ("sgd", "whole", "halves"):
        assert (group.folder / name / "history.csv").is_file()
    assert len(list((group.folder / "sgd" / "events").iterdir())) == 1


@pytest.mark.slow
def test_a_run_of_two_processes_is_written_whole(tmp_path):
    tiny_store(tmp_path)
    group = begin(tmp_path, "jax", "recipe", processes=2)
    first, second = group.end()
    run = tmp_path / "run"
    names = {"config.json", "environment.json", "data.json", "history.csv", "metrics.json"}
    assert names | {"weights.weights.h5", "curves.png"} <= {path.name for path in run.iterdir()}
    environment = json.loads((run / "environment.json").read_text())
    assert environment["processes"] == 2 and len(environment["trained_on"]) == 2
    assert "picture of" in first and "picture of" not in second
    assert "finished run" in first and "finished run" in second


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path):
    endless = SHORT["settings"] | {"epochs": 100_000}
    job = {"name": "endless", "network": "block", "settings": endless}
    group = begin(tmp_path, "jax", [job], processes=2)
    state = tmp_path / "endless" / "checkpoints" / "state.json"
    give_up = time.monotonic() + 300
    while not state.is_file() and time.monotonic() < give_up:
        time.sleep(0.2)
    group.processes[1].terminate()
    printed = [process.communicate(timeout=300)[0] for process in group.processes]
    assert all(process.returncode for process in group.processes)
    first, second = (
        [line for line in text.splitlines() if "stopped by SIGTERM" in line] for text in printed
    )
    assert len(first) == 1 and first == second
    saved = json.loads(state.read_text())
    assert len(saved["history"]) >= 1 and (state.parent / saved["last"]).is_file()


# Shares


def batches(share: tuple[int, int], **sizes: int) -> TrainingBatches:
    return TrainingBatches(
        memory_store().train, 0, 0, 4, 16, Augmentation(), steps=3, share=share, **sizes
    )


@pytest.mark.parametrize("sizes", [{}, {"micro_batch_size": 2}])
def test_shares_of_a_batch_make_the_batch(sizes):
    whole, *shares = batches((0, 1), **sizes), batches((0, 2), **sizes), batches((1, 2), **sizes)
    for index in range(len(whole)):
        for kind in (0, 1):
            joined = np.concatenate([share[index][kind] for share in shares])
            assert np.array_equal(joined, whole[index][kind])
        assert all(share.names(index) == whole.names(index) for share in shares)


def test_one_device_is_left_to_the_engine(tmp_path):
    chosen = choose_devices(4)
    assert chosen == Devices() and chosen.describe(4) == "" and chosen.record() == {}
    with chosen.scope():
        assert distribution.share() == (0, 1) and distribution.replicas() == 1
    network = object()
    assert distribution.spread(network) is network
    assert distribution.common_folder(tmp_path / "a" / "b").is_dir()


# What is refused


@pytest.fixture
def four(monkeypatch):
    """A machine of four accelerators."""
    names = [f"gpu:{number}" for number in range(4)]
    monkeypatch.setattr(distribution.keras.distribution, "list_devices", lambda: names)
    monkeypatch.setattr(distribution, "_divide_processor", lambda count: None)
    return names


def test_all_accelerators_share_a_batch_if_they_can(four):
    assert choose_devices(8).names == tuple(four)
    assert choose_devices(8, 2).names == tuple(four[:2])
    one = choose_devices(6)
    assert one.names == ()
    assert "1 of 4 devices" in one.describe(6) and "a batch size of 8 can" in one.describe(6)


def test_devices_that_do_not_divide_the_batch_are_refused(four):
    with pytest.raises(TrainingError, match="3 devices cannot share 4 samples .* of 6 works"):
        choose_devices(4, 3)


def test_more_devices_than_there_are_are_refused(four):
    with pytest.raises(TrainingError, match="5 devices are asked for, and there are 4"):
        choose_devices(10, 5)


@pytest.mark.parametrize("chief", [{}, {"chief": ["a:1"]}])
def test_workers_of_tensorflow_are_refused_and_the_way_that_works_named(monkeypatch, chief):
    cluster = {"cluster": {"worker": ["a:1", "b:1"], **chief}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(TrainingError, match="MultiWorkerMirroredStrategy fails .*=jax and, on "):
        choose_devices(4)


@pytest.mark.parametrize("text", ["{}", "no JSON", "[]", '{"cluster": {"worker": ["a:1"]}}'])
def test_one_worker_is_no_cluster(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert choose_devices(4) == Devices()


def test_processes_of_tensorflow_are_refused(monkeypatch):
    monkeypatch.setattr(distribution.keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(TrainingError, match="the backend is tensorflow .* KERAS_BACKEND=jax"):
        join_processes()


def test_processes_train_from_a_store_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    said = error(CliRunner().invoke(main, ["--recipe", "sample"]))
    assert "train from a store that exists" in said
    assert not list(tmp_path.iterdir())
