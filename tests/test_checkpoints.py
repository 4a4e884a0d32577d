"""Checkpoints: whole after a kill at any moment, and enough to go on as if nothing had been."""

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from jointnet import checkpoints as module
from jointnet.checkpoints import BEST, Checkpoints, TrainingState
from preprocessing.errors import OutputError, RunError


def network(filters: int = 2, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(filters, name="only")])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    # As the first training step does.
    model.optimizer.build(model.trainable_variables)
    return model


def step(model: keras.Model, times: int = 1) -> None:
    """Change weights and optimizer, the same way each time."""
    for _ in range(times):
        ones = [keras.ops.ones(v.shape) for v in model.trainable_variables]
        model.optimizer.apply(ones, model.trainable_variables)


def values(model: keras.Model) -> list[np.ndarray]:
    """Weights, then all that the optimizer knows."""
    return [keras.ops.convert_to_numpy(v) for v in [*model.weights, *model.optimizer.variables]]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def history(*scores: float) -> list[dict]:
    return [{"epoch": n, "validation_iou": score} for n, score in enumerate(scores, start=1)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# State


def test_a_new_state_is_at_its_beginning():
    state = TrainingState()
    assert (state.epoch, state.best, state.epochs_without_gain) == (0, None, 0)


@pytest.mark.parametrize(
    ("scores", "best", "without_gain"),
    [
        ([0.1], 1, 0),
        ([0.1, 0.2, 0.3], 3, 0),
        ([0.1, 0.5, 0.3, 0.4], 2, 2),
        ([0.5, 0.5, 0.5], 1, 2),
        ([0.0, 0.0], 1, 1),
    ],
)
def test_the_best_epoch_is_the_first_of_the_highest_score(scores, best, without_gain):
    state = TrainingState(history(*scores))
    assert state.epoch == len(scores)
    assert state.best["epoch"] == best
    assert state.epochs_without_gain == without_gain


# Save and restore


def test_restore_undoes_save_optimizer_included(tmp_path):
    model, state = network(), TrainingState(history(0.5))
    step(model, 3)
    Checkpoints(tmp_path / "new").save(model, state)
    other = network(seed=1)
    assert not same(values(model), values(other))
    assert Checkpoints(tmp_path / "new").restore(other) == state
    assert same(values(model), values(other))
    assert int(other.optimizer.iterations) == 3
    # And both go on alike.
    step(model)
    step(other)
    assert same(values(model), values(other))


def test_best_and_last_are_kept_and_nothing_else(tmp_path):
    model, checkpoints = network(), Checkpoints(tmp_path)
    assert not checkpoints.exist()
    best = None
    for scores in ([0.1], [0.1, 0.9], [0.1, 0.9, 0.3], [0.1, 0.9, 0.3, 0.9]):
        step(model)
        checkpoints.save_best(model, TrainingState(history(*scores)))
        checkpoints.save(model, TrainingState(history(*scores)))
        if len(scores) == 2:
            best = model.get_weights()
    assert checkpoints.exist()
    assert names(tmp_path) == [BEST, "epoch_00004.weights.h5", "state.json"]
    other = network(seed=1)
    assert checkpoints.restore(other).epoch == 4
    assert same(other.get_weights(), model.get_weights())
    checkpoints.load_best(other)
    assert same(other.get_weights(), best)
    assert not same(best, model.get_weights())


def test_the_history_survives_in_full(tmp_path):
    record = {"epoch": 1, "loss": 0.1 + 0.2, "validation_iou": 1 / 3, "learning_rate": 1e-45}
    Checkpoints(tmp_path).save(network(), TrainingState([record]))
    assert Checkpoints(tmp_path).restore(network()).history == [record]


def test_a_state_in_the_middle_of_an_epoch_makes_way_for_the_next(tmp_path):
    model, checkpoints = network(), Checkpoints(tmp_path)
    # Not numbers that few digits have.
    sums = [0.1 + 0.2, 1 / 3]
    for state in (
        TrainingState(micro_batches=1, sums=[0.5, 1.0]),
        TrainingState(micro_batches=12, sums=sums),
        TrainingState(history(0.1)),
        TrainingState(history(0.1), micro_batches=3, sums=sums),
    ):
        step(model)
        checkpoints.save(model, state)
        other = network(seed=1)
        assert Checkpoints(tmp_path).restore(other) == state
        assert same(values(other), values(model))
        assert len(names(tmp_path)) == 2
    state.finish_epoch(history(0.1, 0.2)[1])
    assert state == TrainingState(history(0.1, 0.2))


def test_when_it_was_saved_is_known(tmp_path, monkeypatch):
    clock = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.saved == 1.0
    checkpoints.save(network(), TrainingState(history(0.1)))
    assert checkpoints.saved == 2.0
    checkpoints.restore(network())
    assert checkpoints.saved == 3.0


# Killed


def test_what_a_killed_process_had_begun_to_write_goes_with_the_next_state(tmp_path):
    for name in (".epoch_00001.weights.h5-ab", ".state.json-cd", ".best.weights.h5-ef", ".mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    Checkpoints(tmp_path).save(network(), TrainingState(history(0.1)))
    assert names(tmp_path) == [".mine", "epoch_00001.weights.h5", "state.json"]


def fail(*arguments) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["best", "last", "state"])
def test_a_run_killed_while_saving_goes_on_from_the_epoch_before(tmp_path, monkeypatch, moment):
    """Best weights, last weights, state.json: each of the three may be where it ends."""
    model, checkpoints = network(), Checkpoints(tmp_path)
    step(model)
    checkpoints.save_best(model, TrainingState(history(0.1)))
    checkpoints.save(model, TrainingState(history(0.1)))
    before = values(model)
    step(model)
    with monkeypatch.context() as patch:
        if moment == "state":
            patch.setattr(module, "write_json", fail)
        else:
            save, wanted = keras.Model.save_weights, BEST if moment == "best" else "epoch_"

            def save_half(self, path):
                save(self, path)
                if Path(path).name.startswith(wanted):
                    path.write_bytes(path.read_bytes()[:100])
                    raise KeyboardInterrupt

            patch.setattr(keras.Model, "save_weights", save_half)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save_best(model, TrainingState(history(0.1, 0.2)))
            checkpoints.save(model, TrainingState(history(0.1, 0.2)))
    other = network(seed=1)
    assert Checkpoints(tmp_path).restore(other).epoch == 1
    assert same(values(other), before)
    # The next save clears up.
    step(other)
    Checkpoints(tmp_path).save_best(other, TrainingState(history(0.1, 0.2)))
    Checkpoints(tmp_path).save(other, TrainingState(history(0.1, 0.2)))
    assert names(tmp_path) == [BEST, "epoch_00002.weights.h5", "state.json"]


def test_a_failure_to_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    model, checkpoints = network(), Checkpoints(tmp_path)
    checkpoints.save(model, TrainingState(history(0.1)))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def disk_full(self, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save_weights", disk_full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        checkpoints.save(model, TrainingState(history(0.1, 0.2)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Damaged, or of another network


def refusal(folder: Path, model: keras.Model) -> str:
    with pytest.raises(RunError) as caught:
        Checkpoints(folder).restore(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '"x"'])
def test_a_damaged_state_is_refused(tmp_path, text):
    Checkpoints(tmp_path).save(network(), TrainingState(history(0.1)))
    (tmp_path / "state.json").write_text(text)
    assert "cannot be resumed" in refusal(tmp_path, network())


@pytest.mark.parametrize("size", [None, 0, 100])
def test_missing_or_truncated_weights_are_refused(tmp_path, size):
    Checkpoints(tmp_path).save(network(), TrainingState(history(0.1)))
    path = tmp_path / "epoch_00001.weights.h5"
    path.unlink() if size is None else path.write_bytes(path.read_bytes()[:size])
    assert "cannot be resumed" in refusal(tmp_path, network())


def test_a_checkpoint_without_the_optimizer_is_refused(tmp_path):
    """It would go on, with other weights than an uninterrupted run has."""
    Checkpoints(tmp_path).save(network(), TrainingState(history(0.1)))
    model = network()
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.save_weights(tmp_path / "epoch_00001.weights.h5")
    assert "optimizer" in refusal(tmp_path, network())


def test_weights_of_another_network_are_refused(tmp_path):
    Checkpoints(tmp_path).save(network(), TrainingState(history(0.1)))
    assert "cannot be resumed" in refusal(tmp_path, network(filters=3))


def test_a_state_names_its_file_and_history(tmp_path):
    """Runs begun with an earlier version go on with this one, so this layout is kept."""
    Checkpoints(tmp_path).save(network(), TrainingState(history(0.25)))
    assert json.loads((tmp_path / "state.json").read_text()) == {
        "last": "epoch_00001.weights.h5",
        "history": [{"epoch": 1, "validation_iou": 0.25}],
    }
