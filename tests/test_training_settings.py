"""Training settings: what is written to config.json, losses, and schedules by hand."""

import json

import keras
import numpy as np
import pytest

from jointnet.training_settings import TrainingSettings
from layers import GroupNormalization
from preprocessing.augmentation import Augmentation


def test_settings_come_back_from_json():
    settings = TrainingSettings(
        crop_size=64,
        schedule="cosine",
        warmup_steps=7,
        loss="focal",
        early_stopping=3,
        augmentation=Augmentation(hue=0.1, value_range=(0, 2047)),
    )
    content = json.loads(json.dumps(settings.to_dict()))
    augmentation = Augmentation(**content.pop("augmentation"))
    assert TrainingSettings(**content, augmentation=augmentation) == settings


# Losses

TRUTH = np.array([[0, 1], [255, 1]], np.uint8)[None, ..., None]
PROBABILITY = np.array([[0.2, 0.6], [0.9, 0.5]], np.float32)[None, ..., None]
CROSS_ENTROPY = -(np.log(0.8) + np.log(0.6) + np.log(0.5)) / 3
DICE = 1 - (2 * (0.6 + 0.5) + 1) / (2 + 0.2 + 0.6 + 0.5 + 1)
FOCAL = (
    -(0.75 * 0.2**2 * np.log(0.8) + 0.25 * 0.4**2 * np.log(0.6) + 0.25 * 0.5**2 * np.log(0.5)) / 3
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dice", DICE), ("focal", FOCAL), ("cross_entropy+dice", CROSS_ENTROPY + DICE)],
)
def test_losses_by_hand(name, expected):
    loss = TrainingSettings(loss=name).make_loss()
    assert float(loss(TRUTH, PROBABILITY)) == pytest.approx(expected, rel=1e-5)


def test_the_weight_of_targets_in_the_cross_entropy_by_hand():
    settings = TrainingSettings(loss="cross_entropy+dice", cross_entropy_alpha=0.75)
    background, target = -np.log(0.8), -(np.log(0.6) + np.log(0.5))
    expected = 2 * (0.25 * background + 0.75 * target) / 3 + DICE
    assert float(settings.make_loss()(TRUTH, PROBABILITY)) == pytest.approx(expected, rel=1e-5)


# Schedules


def rates(steps, total: int = 12, **changes) -> list[float]:
    optimizer = TrainingSettings(learning_rate=2.0, **changes).make_optimizer(total)
    values = []
    for step in steps:
        optimizer._iterations.assign(step)
        values.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    return values


def test_a_constant_rate_is_constant():
    assert rates([0, 1, 11, 12]) == [2.0] * 4


def test_a_constant_rate_with_warm_up_rises_evenly_and_stays():
    assert rates([0, 1, 2, 4, 5, 12], warmup_steps=4) == [0, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_cosine_falls_to_0_at_the_last_step_and_stays_there():
    expected = [2.0, 1 + np.cos(np.pi / 6), 1.0, 1 + np.cos(np.pi * 11 / 12), 0.0, 0.0]
    found = rates([0, 2, 6, 11, 12, 20], schedule="cosine")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cosine_with_warm_up_rises_evenly_and_falls_over_the_rest():
    found = rates([0, 1, 3, 4, 6, 8, 12, 20], schedule="cosine", warmup_steps=4)
    down = [1 + np.cos(np.pi / 4), 1.0, 0.0, 0.0]
    np.testing.assert_allclose(found, [0, 0.5, 1.5, 2.0, *down], atol=1e-6)


def test_a_warm_up_longer_than_the_run_is_no_error():
    assert rates([0, 1, 2], total=2, schedule="cosine", warmup_steps=4) == [0, 0.5, 1.0]


def test_weight_decay_is_decoupled_and_leaves_biases_and_norms_alone():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 1, bias_initializer="ones"),
            GroupNormalization(2),
        ]
    )
    optimizer = TrainingSettings(learning_rate=0.5, weight_decay=0.1).make_optimizer(10)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.trainable_variables}
    # Without a gradient only the decay acts.
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    assert len(before) == 4
    for variable in model.trainable_variables:
        share = 0.95 if variable.path.endswith("kernel") else 1.0
        found = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(found, share * before[variable.path], rtol=1e-6)


def test_without_weight_decay_it_is_plain_adam():
    optimizer = TrainingSettings().make_optimizer(10)
    assert type(optimizer) is keras.optimizers.Adam
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(1e-4)


# Errors


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("loss", "hinge", "one of dice, focal, cross_entropy"),
        ("schedule", "linear", "one of constant, cosine; got 'linear'"),
        ("precision", "float16", "one of float32, mixed_bfloat16"),
        ("crop_size", 0, "positive; got 0"),
        ("batch_size", -1, "positive"),
        ("epochs", 0, "positive"),
        ("steps_per_epoch", 0, "positive"),
        ("early_stopping", 0, "positive"),
        ("learning_rate", 0.0, "positive"),
        ("warmup_steps", -1, "0 or more"),
        ("weight_decay", -0.1, "0 or more"),
        ("weight_average", 0.0, "between 0 and 1"),
        ("weight_average", 1.0, "between 0 and 1; got 1.0"),
        ("target_weight", 1.5, "in 0..1; got 1.5"),
        ("threshold", -0.1, "in 0..1"),
        ("cross_entropy_alpha", 1.1, "in 0..1; got 1.1"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_named(name, value, expected):
    with pytest.raises(ValueError, match=f"^{name} must .*{expected}"):
        TrainingSettings(**{name: value})


# Micro-batches


def test_a_schedule_counts_updates_and_not_micro_batches():
    cosine = {"schedule": "cosine", "warmup_steps": 2, "batch_size": 8}
    whole = rates(range(12), **cosine)
    halves = rates(range(24), micro_batch_size=4, **cosine)
    assert halves == [rate for rate in whole for _ in range(2)]


def test_a_batch_that_is_whole_has_an_optimizer_like_any_other():
    settings = TrainingSettings(batch_size=4, micro_batch_size=4)
    assert settings.micro_batches == 1
    assert settings.make_optimizer(10).gradient_accumulation_steps is None


@pytest.mark.parametrize(("size", "said"), [(3, "must divide batch_size 8"), (0, "positive")])
def test_micro_batches_that_make_no_batch_are_refused(size, said):
    with pytest.raises(ValueError, match=said):
        TrainingSettings(batch_size=8, micro_batch_size=size)
