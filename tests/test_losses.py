"""Losses: values by hand, void pixels, extremes, and special cases that must agree."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import BinaryFocalLoss, DiceLoss, WeightedSumLoss
from losses.voids import split_void
from tests.gradients import gradient

LN2 = np.log(2)
# Three losses on the same terms: each property below is asked of all of them.
every_loss = pytest.mark.parametrize(
    "loss",
    [
        BinaryFocalLoss(),
        BinaryFocalLoss(gamma=0, alpha=0.5),
        BinaryFocalLoss(gamma=0.5),
        DiceLoss(),
        WeightedSumLoss([BinaryFocalLoss(), DiceLoss()], [2.0, 1.0]),
    ],
    ids=["focal", "cross-entropy", "gamma-half", "dice", "sum"],
)


def batch(*rows: list[float]) -> np.ndarray:
    """Samples of 2 x 2 pixels, ``(batch, 2, 2, 1)``, from rows of four numbers."""
    return np.array(rows, np.float32).reshape(-1, 2, 2, 1)


def random_batch(samples: int = 3, side: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Labels with a third of void, and probabilities."""
    generator = np.random.default_rng(0)
    labels = generator.choice([0, 1, 255], (samples, side, side, 1)).astype(np.uint8)
    return labels, generator.random((samples, side, side, 1)).astype(np.float32)


def test_dice_by_hand():
    # Both 1.5, truth 2, probabilities 2: 1 - (2 * 1.5 + 1) / (2 + 2 + 1).
    value = DiceLoss()(batch([1, 0, 1, 0]), batch([0.5, 0.5, 1, 0]))
    assert float(value) == pytest.approx(0.2)
    # The same with smooth 3: 1 - (3 + 3) / (4 + 3).
    value = DiceLoss(smooth=3)(batch([1, 0, 1, 0]), batch([0.5, 0.5, 1, 0]))
    assert float(value) == pytest.approx(1 / 7)


def test_focal_by_hand():
    # Target at a half 1/4 * (1/2)^2 ln 2, background at a half 3/4 * (1/2)^2 ln 2, two at rest.
    value = BinaryFocalLoss()(batch([1, 0, 1, 0]), batch([0.5, 0.5, 1, 0]))
    assert float(value) == pytest.approx((1 / 16 + 3 / 16) * LN2 / 4, rel=1e-5)


@pytest.mark.parametrize(("gamma", "alpha"), [(0, 0.3), (0.5, 0.25), (1, 0.9), (2, 0), (3.5, 1)])
def test_alpha_and_gamma_act(gamma, alpha):
    value = BinaryFocalLoss(gamma, alpha)(batch([1, 0, 1, 0]), batch([0.5, 0.25, 0.8, 0.4]))
    target = 0.5**gamma * -np.log(0.5) + 0.2**gamma * -np.log(0.8)
    background = 0.25**gamma * -np.log(0.75) + 0.4**gamma * -np.log(0.6)
    assert float(value) == pytest.approx((alpha * target + (1 - alpha) * background) / 4, rel=1e-5)


def test_focal_without_focus_is_weighted_cross_entropy():
    labels, probabilities = random_batch()
    labels = (labels == 1).astype(np.float32)
    weights = np.where(labels == 1, 0.7, 0.3)[..., 0]
    reference = weights * keras.losses.binary_crossentropy(labels, probabilities)
    value = BinaryFocalLoss(gamma=0, alpha=0.7)(labels, probabilities)
    assert float(value) == pytest.approx(np.mean(np.asarray(reference)), rel=1e-5)


def test_the_value_is_the_mean_over_samples_of_the_mean_over_their_pixels():
    labels = batch([1, 0, 0, 0], [1, 255, 255, 255])
    probabilities = batch([0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.5, 0.5])
    loss = BinaryFocalLoss(gamma=0, alpha=0.5)
    per_sample = loss.call(labels, probabilities)
    np.testing.assert_allclose(per_sample, [LN2 / 2, LN2], rtol=1e-6)
    assert float(loss(labels, probabilities)) == pytest.approx(0.75 * LN2)
    # 1 - (1 + 1) / (1 + 2 + 1) and 1 - (1/2 + 1) / (1 + 1/4 + 1).
    dice = DiceLoss()
    np.testing.assert_allclose(dice.call(labels, probabilities), [1 / 2, 1 / 3], rtol=1e-6)
    assert float(dice(labels, probabilities)) == pytest.approx(5 / 12)


@every_loss
def test_a_batch_split_over_devices_gives_the_same(loss):
    labels, probabilities = random_batch(samples=4)
    whole = float(loss(labels, probabilities))
    halves = [float(loss(labels[i : i + 2], probabilities[i : i + 2])) for i in (0, 2)]
    assert np.mean(halves) == pytest.approx(whole, rel=1e-5)
    assert halves[0] != pytest.approx(halves[1], rel=1e-3)


@every_loss
def test_void_pixels_change_neither_value_nor_gradient(loss):
    labels, probabilities = random_batch()
    void = labels == 255
    others = np.where(void, 1 - probabilities, probabilities)
    assert float(loss(labels, others)) == pytest.approx(float(loss(labels, probabilities)))
    slopes = gradient(lambda p: loss(labels, p), probabilities)
    assert np.all(slopes[void] == 0)
    assert np.all(slopes[~void] != 0)


@every_loss
def test_a_sample_is_judged_by_its_valid_pixels_alone(loss):
    value = loss(batch([1, 0, 255, 255]), batch([0.6, 0.3, 0.9, 0.1]))
    alone = loss(
        np.array([1, 0], np.float32).reshape(1, 1, 2, 1),
        np.array([0.6, 0.3], np.float32).reshape(1, 1, 2, 1),
    )
    assert float(value) == pytest.approx(float(alone), rel=1e-6)


@every_loss
def test_an_all_void_sample_gives_zero_and_no_gradient(loss):
    labels, probabilities = batch([255] * 4), batch([0, 0.3, 0.9, 1])
    assert float(loss(labels, probabilities)) == pytest.approx(0, abs=1e-7)
    assert np.all(gradient(lambda p: loss(labels, p), probabilities) == 0)


@every_loss
def test_all_background_is_finite_and_falls_to_zero_with_the_probabilities(loss):
    labels = batch([0] * 4)
    values = [float(loss(labels, batch([p] * 4))) for p in (0.9, 0.5, 0.01, 0)]
    assert np.all(np.isfinite(values))
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0, abs=1e-5)


@every_loss
def test_exact_zero_and_one_have_finite_value_and_gradient(loss):
    labels, probabilities = batch([1, 0, 1, 0]), batch([0, 1, 1, 0])
    assert 0 < float(loss(labels, probabilities)) < 100
    assert np.all(np.isfinite(gradient(lambda p: loss(labels, p), probabilities)))


@every_loss
def test_the_gradient_is_that_of_finite_differences(loss):
    labels, probabilities = batch([1, 0, 255, 1]), batch([0.3, 0.6, 0.5, 0.9])
    slopes = gradient(lambda p: loss(labels, p), probabilities).ravel()
    for pixel in range(4):
        step = np.zeros(4, np.float32)
        step[pixel] = 1e-2
        up, down = (float(loss(labels, probabilities + s * batch(step))) for s in (1, -1))
        assert slopes[pixel] == pytest.approx((up - down) / 2e-2, rel=2e-2, abs=1e-4)


@every_loss
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_labels_of_any_dtype_with_or_without_a_last_axis(loss, dtype):
    labels, probabilities = random_batch()
    expected = float(loss(labels.astype(np.float32), probabilities))
    assert expected > 0
    assert float(loss(labels.astype(dtype), probabilities)) == expected
    assert float(loss(labels[..., 0].astype(dtype), probabilities)) == expected


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_probabilities_are_summed_in_float32(loss, dtype):
    # 128 x 128 pixels: sums above 2048 have no room for single pixels in float16.
    generator = np.random.default_rng(0)
    labels = generator.choice([0, 1, 255], (2, 128, 128, 1)).astype(np.uint8)
    probabilities = tf.cast(generator.random(labels.shape), dtype)
    value = loss(labels, probabilities)
    assert value.dtype == tf.float32
    expected = float(loss(labels, tf.cast(probabilities, tf.float32)))
    assert float(value) == pytest.approx(expected, rel=1e-5)


@every_loss
@pytest.mark.usefixtures("on_tensorflow")
def test_free_shapes_in_graph_mode(loss):
    signature = [tf.TensorSpec([None] * 3, tf.uint8), tf.TensorSpec([None, None, None, 1])]
    graph = tf.function(lambda labels, p: loss(labels, p), input_signature=signature)
    for side in (3, 6):
        labels, probabilities = random_batch(side=side)
        expected = float(loss(labels, probabilities))
        assert float(graph(labels[..., 0], probabilities)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make", [BinaryFocalLoss, DiceLoss])
def test_without_an_ignored_class_every_pixel_counts(make):
    labels, probabilities = random_batch()
    labels = (labels == 1).astype(np.uint8)
    expected = float(make()(labels, probabilities))
    assert float(make(ignore_class=None)(labels, probabilities)) == pytest.approx(expected)
    # A class other than 255 can be the ignored one.
    marked = np.where(labels == 1, 1, 7)
    assert float(make(ignore_class=7)(marked, probabilities)) == pytest.approx(
        float(make()(np.where(labels == 1, 1, 255), probabilities))
    )


def test_the_weighted_sum_by_hand():
    labels, probabilities = random_batch()
    parts = [BinaryFocalLoss(), DiceLoss()]
    values = [float(part(labels, probabilities)) for part in parts]
    value = WeightedSumLoss(parts, [2, 0.5])(labels, probabilities)
    assert float(value) == pytest.approx(2 * values[0] + 0.5 * values[1], rel=1e-6)


@every_loss
def test_configuration_round_trip(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    labels, probabilities = random_batch()
    assert float(again(labels, probabilities)) == float(loss(labels, probabilities))


def test_every_argument_survives_the_round_trip():
    focal = BinaryFocalLoss(1.5, 0.6, ignore_class=9, name="f", reduction="sum")
    again = BinaryFocalLoss.from_config(focal.get_config())
    kept = (again.gamma, again.alpha, again.ignore_class, again.name, again.reduction)
    assert kept == (1.5, 0.6, 9, "f", "sum")
    dice = DiceLoss(0.5, ignore_class=None, name="d")
    again = DiceLoss.from_config(dice.get_config())
    assert (again.smooth, again.ignore_class, again.name) == (0.5, None, "d")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryFocalLoss(gamma=-1), "gamma must be 0 or more; got -1"),
        (lambda: BinaryFocalLoss(alpha=1.5), "alpha must lie in 0..1; got 1.5"),
        (lambda: BinaryFocalLoss(alpha=-0.1), "alpha must lie in 0..1; got -0.1"),
        (lambda: DiceLoss(smooth=0), "smooth must be positive; got 0"),
        (lambda: WeightedSumLoss([], []), "got 0 losses and 0 weights"),
        (lambda: WeightedSumLoss([DiceLoss()], [1, 2]), "got 1 losses and 2 weights"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_loss
def test_labels_of_another_size_are_refused_and_not_broadcast(loss):
    with pytest.raises(ValueError, match=r"got shapes \(2, 1, 1\) and \(2, 2, 2, 1\)"):
        loss(np.ones((2, 1, 1)), np.ones((2, 2, 2, 1)))


def test_split_void_by_hand():
    labels = np.array([[0, 1], [255, 1]], np.uint8)[None]
    parts = split_void(labels, np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1), 255)
    expected = [[0, 1, 0, 1], [0, 1, 2, 3], [1, 1, 0, 1]]
    for part, values in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(part, [values])
