"""Training from a patch store: what it writes, when it stops, and that it can be interrupted."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from jointnet import training
from jointnet.checkpoints import BEST, Checkpoints
from jointnet.training import EventLog, train, validate
from jointnet.training_settings import TrainingSettings
from preprocessing.augmentation import Augmentation
from preprocessing.errors import RunError, TrainingError
from preprocessing.output_files import write_csv
from preprocessing.patch_store import PatchSet, PatchStore
from tests.training_fixtures import (
    memory_store,
    patch_set,
    read_events,
    run_python,
    small_network,
    squares,
    tiny_training,
)

pytestmark = pytest.mark.usefixtures("plain_graphs")


def read_history(folder: Path) -> list[dict]:
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def script_scores(monkeypatch, *scores: float) -> list[list[np.ndarray]]:
    """Let validation give these IoUs, one after the other; returns the weights at each."""
    seen = []

    def scored(model: keras.Model, patches: PatchSet, settings: TrainingSettings, *_) -> dict:
        seen.append(model.get_weights())
        return {
            "validation_loss": 0.5,
            "validation_iou": scores[len(seen) - 1],
            "validation_f1": 0.5,
        }

    monkeypatch.setattr(training, "validate", scored)
    return seen


def linear_network(seed: int = 0) -> keras.Model:
    """A network that compiles at once, and finds what is bright."""
    keras.utils.set_random_seed(seed)
    scaling = keras.layers.Rescaling(1 / 127.5, -1)
    convolution = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")
    return keras.Sequential([keras.Input((None, None, 3)), scaling, convolution])


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three epochs of a small network: network, state, folder."""
    folder = tmp_path_factory.mktemp("trained")
    model = linear_network()
    settings = tiny_training(epochs=3, steps_per_epoch=30, learning_rate=0.02)
    return model, train(model, memory_store(), settings, folder), folder


# What training does and writes


def test_it_learns(trained):
    """Squares that are brighter than all else are found in a few seconds."""
    _, state, _ = trained
    assert state.best["validation_iou"] > 0.9
    assert state.history[-1]["loss"] < 0.5 * state.history[0]["loss"]


def test_one_record_per_epoch_with_all_that_was_measured(trained):
    _, state, _ = trained
    assert [record["epoch"] for record in state.history] == [1, 2, 3]
    measures = ("loss", "iou", "f1", "precision", "recall", "accuracy")
    expected = {"epoch", "loss", "learning_rate", *(f"validation_{name}" for name in measures)}
    assert all(set(record) == expected for record in state.history)
    assert all(np.isfinite(list(record.values())).all() for record in state.history)


def test_history_is_written_as_csv_checkpoint_and_events(trained):
    _, state, folder = trained
    assert read_history(folder) == state.history
    assert json.loads((folder / "checkpoints" / "state.json").read_text())["history"] == (
        state.history
    )
    events = read_events(folder / "events")
    assert set(events) == set(state.history[0]) - {"epoch"}
    for name, values in events.items():
        assert [step for step, _ in values] == [1, 2, 3]
        expected = [record[name] for record in state.history]
        assert [value for _, value in values] == pytest.approx(expected, rel=1e-6)


def test_only_the_best_and_the_last_checkpoint_stay(trained):
    _, _, folder = trained
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == [BEST, "epoch_00003.weights.h5", "state.json"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "events",
        "history.csv",
    ]


def test_the_network_ends_with_the_weights_of_the_best_epoch(tmp_path, monkeypatch):
    seen = script_scores(monkeypatch, 0.2, 0.9, 0.1)
    model = linear_network()
    state = train(model, memory_store(), tiny_training(epochs=3), tmp_path)
    assert state.best["epoch"] == 2
    assert same(model.get_weights(), seen[1])
    assert not same(seen[1], seen[2])


def test_the_loss_of_an_epoch_is_the_mean_over_its_batches(tmp_path, monkeypatch):
    """With a rate of nearly 0 the network stays, so that batches can be judged afterwards."""
    script_scores(monkeypatch, 0.5)
    model, store = linear_network(), memory_store()
    settings = tiny_training(epochs=1, steps_per_epoch=3, learning_rate=1e-12)
    state = train(model, store, settings, tmp_path)
    loss, batches = settings.make_loss(), training._batches(store.train, settings, epoch=0)
    losses = [float(loss(batches[n][1], model.predict_on_batch(batches[n][0]))) for n in range(3)]
    assert state.history[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert len(set(losses)) == 3


def test_the_average_of_the_weights_is_judged_and_kept_and_the_weights_go_on(tmp_path, monkeypatch):
    """Two epochs of one step: the average begins with the weights after the first step."""
    settings = tiny_training(epochs=2, steps_per_epoch=1, learning_rate=0.1)
    plain = script_scores(monkeypatch, 0.1, 0.9)
    train(linear_network(), memory_store(), settings, tmp_path / "plain")
    averaged, model = script_scores(monkeypatch, 0.1, 0.9), linear_network()
    train(model, memory_store(), replace(settings, weight_average=0.75), tmp_path / "averaged")
    assert not same(*plain)
    expected = [0.75 * first + 0.25 * second for first, second in zip(*plain, strict=True)]
    for found in (averaged[1], model.get_weights()):
        assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(found, expected, strict=True))
    assert same(averaged[0], plain[0])
    Checkpoints(tmp_path / "averaged" / "checkpoints").restore(model)
    assert same(model.get_weights(), plain[1])


def test_batch_statistics_are_settled_on_the_epochs_batches():
    """All pixels are 80: mean 80 and variance 0, but for a twentieth of what was there before."""
    normalisation = keras.layers.BatchNormalization(momentum=0.5)
    inner = keras.Sequential([keras.Input((None, None, 3)), normalisation])
    model = keras.Sequential([keras.Input((None, None, 3)), inner])
    store = memory_store()
    store.train.images[:] = 80
    plain = Augmentation(brightness=0, contrast=0, saturation=0)
    batches = training._batches(store.train, tiny_training(augmentation=plain), epoch=0)
    training._settle_statistics(model, batches)
    mean, variance = (
        keras.ops.convert_to_numpy(value)
        for value in (normalisation.moving_mean, normalisation.moving_variance)
    )
    assert (mean >= 0.95 * 80).all() and (mean <= 80).all()
    assert (variance <= 0.05).all()


# Early stopping


def test_it_stops_after_so_many_epochs_without_gain(tmp_path, monkeypatch):
    script_scores(monkeypatch, 0.5, 0.6, 0.6, 0.55, 0.9)
    settings = tiny_training(epochs=5, steps_per_epoch=1, early_stopping=2)
    state = train(linear_network(), memory_store(), settings, tmp_path)
    assert [record["validation_iou"] for record in state.history] == [0.5, 0.6, 0.6, 0.55]
    assert state.best["epoch"] == 2
    # Resuming a run that has stopped early does not go on.
    script_scores(monkeypatch)
    again = train(linear_network(), memory_store(), settings, tmp_path, resume=True)
    assert again == state


@pytest.mark.parametrize(
    ("make", "optimizer"),
    [
        (small_network, {}),
        (linear_network, {"weight_decay": 0.1}),
        (linear_network, {"schedule": "cosine"}),
    ],
)
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(
    tmp_path, monkeypatch, make, optimizer
):
    """One sample of a batch of four is partly void; every loss is a mean over samples."""
    script_scores(monkeypatch, *[0.1, 0.2] * 2)
    store, weights = memory_store(), []
    store.train.masks[::4, :4] = 255
    for size in (None, 1):
        settings = tiny_training(
            batch_size=4, steps_per_epoch=5, learning_rate=0.01, micro_batch_size=size, **optimizer
        )
        network = make()
        train(network, store, settings, tmp_path / str(size))
        weights.append(network.get_weights())
    start = make().get_weights()
    moved = max(np.abs(a - b).max() for a, b in zip(start, weights[0], strict=True))
    apart = max(np.abs(a - b).max() for a, b in zip(*weights, strict=True))
    assert moved > 0.01 and apart < 1e-4


def test_float16_with_a_scaled_loss_learns_alike(tmp_path, monkeypatch):
    """With micro-batches and an average of the weights, which its optimizer wraps."""
    script_scores(monkeypatch, *[0.1] * 2)
    before, learned = keras.config.dtype_policy(), []
    for precision in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(precision)
        network = small_network()
        start = network.get_weights()
        settings = tiny_training(
            epochs=1,
            steps_per_epoch=8,
            precision=precision,
            micro_batch_size=1,
            weight_average=0.5,
        )
        train(network, memory_store(), settings, tmp_path / precision)
        learned.append([a - b for a, b in zip(network.get_weights(), start, strict=True)])
        keras.config.set_dtype_policy(before)
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    # No step was left out, as one is after which a gradient is not finite.
    assert int(network.optimizer.inner_optimizer.iterations) == 8
    plain, scaled = (np.concatenate([w.ravel() for w in weights]) for weights in learned)
    assert np.corrcoef(plain, scaled)[0, 1] > 0.9


def test_rematerialised_blocks_learn_alike(tmp_path, monkeypatch):
    script_scores(monkeypatch, *[0.1] * 3)
    weights = []
    for again in (None, "concatenations", "blocks"):
        network = small_network()
        settings = tiny_training(epochs=1, rematerialise=again)
        train(network, memory_store(), settings, tmp_path / str(again))
        assert network.layers[2].rematerialise == again
        weights.append(network.get_weights())
    for held, *others in zip(*weights, strict=True):
        for other in others:
            np.testing.assert_allclose(held, other, atol=1e-5)


def test_a_network_without_blocks_cannot_be_rematerialised(tmp_path):
    with pytest.raises(TrainingError, match="Sequential has none"):
        train(linear_network(), memory_store(), tiny_training(rematerialise="blocks"), tmp_path)


def test_the_average_moves_about_alike_over_micro_batches(tmp_path, monkeypatch):
    script_scores(monkeypatch, *[0.1] * 2)
    weights = []
    for size in (None, 1):
        settings = tiny_training(
            batch_size=4,
            steps_per_epoch=20,
            learning_rate=0.01,
            epochs=1,
            micro_batch_size=size,
            weight_average=0.9,
        )
        network = linear_network()
        train(network, memory_store(), settings, tmp_path / str(size))
        weights.append(network.get_weights())
    start = linear_network().get_weights()
    moved = max(np.abs(a - b).max() for a, b in zip(start, weights[0], strict=True))
    apart = max(np.abs(a - b).max() for a, b in zip(*weights, strict=True))
    assert apart < 0.1 * moved


def test_it_never_stops_early_unless_told(tmp_path, monkeypatch):
    script_scores(monkeypatch, 0.9, 0.1, 0.1, 0.1)
    settings = tiny_training(epochs=4, steps_per_epoch=1)
    assert train(linear_network(), memory_store(), settings, tmp_path).epoch == 4


# A loss that is no number


def poisoned(number: int) -> PatchStore:
    """A store of float32 patches, of which one holds NaN."""
    store = memory_store(train=6)
    images = store.train.images.astype(np.float32)
    images[number] = np.nan
    return replace(store, train=replace(store.train, images=images))


@pytest.mark.parametrize(
    ("network", "what"),
    [("linear", "the loss is nan"), ("relu", "the weights are not finite")],
)
def test_a_poisoned_patch_stops_the_run_and_is_named(tmp_path, network, what):
    """TensorFlow's ReLU on a CPU hides NaN from the loss, but its weights are lost all the same."""
    settings = tiny_training(epochs=2, steps_per_epoch=5, batch_size=1, seed=3)
    plain = Augmentation(brightness=0, contrast=0, saturation=0)
    settings = replace(settings, augmentation=plain)
    # Left out of the first epoch, and not the first of the second.
    names = [
        [training._batches(memory_store().train, settings, epoch).names(n)[0] for n in range(5)]
        for epoch in (0, 1)
    ]
    (name,) = {f"scene{n} (patch {n})" for n in range(6)} - set(names[0])
    step = names[1].index(name) + 1
    assert step > 1
    number = int(name[5])
    model = linear_network() if network == "linear" else small_network()
    with pytest.raises(TrainingError) as caught:
        train(model, poisoned(number), settings, tmp_path)
    message = str(caught.value)
    assert what in message
    assert f"at epoch 2, step {step}, in the batch of {name};" in message
    # The state is that of the epoch before.
    assert Checkpoints(tmp_path / "checkpoints").restore(model).epoch == 1
    assert len(read_history(tmp_path)) == 1


def test_an_epoch_whose_validation_is_no_number_becomes_no_checkpoint(tmp_path, monkeypatch):
    """All of its pixels would be void, and its IoU 1: the best of all."""
    nothing = np.full((1, 16, 16, 1), np.nan, np.float32)
    patches = memory_store().validation
    with monkeypatch.context() as patch:
        patch.setattr(Echo, "predict_on_batch", lambda self, images: nothing)
        lost = validate(Echo(), patches, tiny_training(batch_size=1))
    assert lost["validation_iou"] == 1.0 and np.isnan(lost["validation_loss"])
    monkeypatch.setattr(training, "validate", lambda *arguments: lost)
    with pytest.raises(TrainingError, match="the validation loss is nan after epoch 1"):
        train(linear_network(), memory_store(), tiny_training(), tmp_path)
    assert not Checkpoints(tmp_path / "checkpoints").exist()
    assert not (tmp_path / "history.csv").exists()


# Interrupted


RUN = """
import os, sys
from pathlib import Path
from jointnet import training
from jointnet.checkpoints import Checkpoints
from tests.forked_training import network
from tests.training_fixtures import memory_store, tiny_training

mode, folder = sys.argv[1], Path(sys.argv[2])
settings = tiny_training(
    epochs=4, steps_per_epoch=3, schedule="cosine", warmup_steps=2, learning_rate=0.01,
    weight_decay=0.05, loss="cross_entropy+dice", target_weight=0.5, weight_average=0.8,
)

def run(seed, resume, folder=folder):
    training.train(network(seed), memory_store(size=24), settings, folder, resume)

if mode == "interrupted":
    run(0, False, folder.with_name("whole"))
    save = Checkpoints.save
    def save_and_end(self, model, state):
        save(self, model, state)
        if state.epoch == 2:
            raise KeyboardInterrupt
    Checkpoints.save = save_and_end
    try:
        run(0, False)
    except KeyboardInterrupt:
        pass
    else:
        sys.exit("not interrupted")
    Checkpoints.save = save
    watch = training.StepWatch.on_train_batch_end
    def watch_and_die(self, batch, logs=None):
        watch(self, batch, logs)
        if (self.batches.epoch, batch) == (2, 1):
            os._exit(9)
    training.StepWatch.on_train_batch_end = watch_and_die
    run(5, True)
if mode == "resumed":
    run(6, True)
"""


def all_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: (
                arrays.update({name: node[...]}) if isinstance(node, h5py.Dataset) else None
            )
        )
    return arrays


@pytest.mark.slow
def test_a_run_that_is_interrupted_twice_equals_one_that_is_not(tmp_path):
    """Stopped after epoch 2, begun again, killed in the middle of epoch 3, begun again.

    The one that is not runs first, in the process that is killed; what goes on after the kill has
    a process of its own. Each time with other initial weights, which must not matter. Bit for
    bit; what that needs is a fixed number of threads, as the order of a sum depends on it.
    """
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    for mode, code in (("interrupted", 9), ("resumed", 0)):
        done = run_python(RUN, mode, tmp_path / "stopped", **threads)
        assert done.returncode == code, done.stderr
        if mode == "interrupted":
            state = json.loads((tmp_path / "stopped" / "checkpoints" / "state.json").read_text())
            assert len(state["history"]) == 2
    for name in ("history.csv", "checkpoints/state.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "stopped" / name).read_text()
    for name in (BEST, "epoch_00004.weights.h5"):
        whole = all_arrays(tmp_path / "whole" / "checkpoints" / name)
        stopped = all_arrays(tmp_path / "stopped" / "checkpoints" / name)
        assert set(whole) == set(stopped)
        # Momenta and step count of the optimizer are among them.
        assert sum(key.startswith("optimizer/") for key in whole) > len(whole) / 2
        assert all(np.array_equal(whole[key], stopped[key]) for key in whole)
    rates = [record["learning_rate"] for record in read_history(tmp_path / "stopped")]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-8


def test_an_epoch_that_was_saved_but_not_logged_is_in_the_history_after_all(tmp_path, monkeypatch):
    """Killed between checkpoint and history.csv, in the last epoch."""
    script_scores(monkeypatch, 0.1, 0.2)
    settings = tiny_training(steps_per_epoch=1)
    state = train(linear_network(), memory_store(), settings, tmp_path)
    write_csv(tmp_path / "history.csv", state.history[:1])
    train(linear_network(), memory_store(), settings, tmp_path, resume=True)
    assert read_history(tmp_path) == state.history


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(RunError, match="has no checkpoint to resume from"):
        train(linear_network(), memory_store(), tiny_training(), tmp_path, resume=True)


# Validation


class Echo:
    """Gives the first band as probability, in 255ths, and remembers the shapes it was given."""

    def __init__(self):
        self.shapes = []

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        return (images[..., :1] / 255).astype(np.float32)


def validation_patches() -> PatchSet:
    """Three patches of 2 x 2: all kinds of pixels, with void, and all void."""
    bright, dark = 255, 0
    first = [[[bright, bright], [dark, dark]], [[1, 0], [1, 0]]]
    second = [[[bright, bright], [bright, dark]], [[1, 255], [255, 0]]]
    third = [[[bright, bright], [dark, dark]], [[255, 255], [255, 255]]]
    bands, masks = zip(first, second, third, strict=True)
    images = np.repeat(np.array(bands, np.uint8)[..., None], 3, axis=-1)
    return patch_set(images, np.array(masks, np.uint8))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_validation_by_hand(batch_size):
    """True positives 1 + 1, false ones 1, false negatives 1, true ones 1 + 1; void is nothing."""
    echo = Echo()
    found = validate(echo, validation_patches(), tiny_training(batch_size=batch_size))
    # Dice of the patches with valid pixels, with 1 added above and below.
    dice = [1 - (2 * 1 + 1) / (2 + 2 + 1), 1 - (2 * 1 + 1) / (1 + 1 + 1)]
    assert found == {
        "validation_loss": pytest.approx(np.mean(dice), rel=1e-6),
        "validation_iou": pytest.approx(2 / 4),
        "validation_f1": pytest.approx(4 / 6),
        "validation_precision": pytest.approx(2 / 3),
        "validation_recall": pytest.approx(2 / 3),
        "validation_accuracy": pytest.approx(4 / 6),
    }
    # One shape for all batches, the incomplete one too.
    assert set(echo.shapes) == {(batch_size, 2, 2, 3)}


def test_validation_counts_from_the_threshold_on():
    images = np.full((1, 2, 2, 3), 153, np.uint8)
    patches = patch_set(images, np.ones((1, 2, 2), np.uint8))
    at = {
        threshold: validate(Echo(), patches, tiny_training(threshold=threshold))
        for threshold in (0.59, 0.61)
    }
    assert at[0.59]["validation_iou"] == 1.0
    assert at[0.61]["validation_iou"] == 0.0


def test_all_void_is_no_loss():
    patches = validation_patches()
    void = patch_set(patches.images[2:], patches.masks[2:])
    found = validate(Echo(), void, tiny_training())
    assert found["validation_loss"] == 0.0 and found["validation_iou"] == 1.0


def test_validation_leaves_the_network_as_it_was():
    model = linear_network()
    settings = tiny_training()
    model.compile(optimizer=settings.make_optimizer(1), loss=settings.make_loss())
    before = model.get_weights()
    image, mask = squares(16, 16)
    one = validate(model, patch_set(image[None], mask[None]), settings)
    assert same(before, model.get_weights())
    assert one == validate(model, patch_set(image[None], mask[None]), settings)


# TensorBoard events, where tensorboard is there, and nothing where it is not.


RECORDS = [
    {"epoch": 1, "loss": 0.75, "validation_iou": 0.125},
    {"epoch": 2, "loss": 0.5, "validation_iou": 0.25},
]


def test_tensorboard_reads_what_was_logged(tmp_path):
    log = EventLog(tmp_path)
    for record in RECORDS:
        log.write(record["epoch"], record)
    assert read_events(tmp_path) == {
        "loss": [(1, 0.75), (2, 0.5)],
        "validation_iou": [(1, 0.125), (2, 0.25)],
    }


def test_an_epoch_is_on_disk_at_once(tmp_path):
    log = EventLog(tmp_path)
    log.write(1, RECORDS[0])
    assert read_events(tmp_path)["loss"] == [(1, 0.75)]


def test_a_resumed_run_adds_to_its_events(tmp_path):
    for record in RECORDS:
        EventLog(tmp_path).write(record["epoch"], record)
    # Of two files of one second and one process the names may order otherwise: 10 before 9.
    assert sorted(read_events(tmp_path)["loss"]) == [(1, 0.75), (2, 0.5)]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    log = EventLog(tmp_path / "events")
    log.write(1, RECORDS[0])
    assert not (tmp_path / "events").exists()
