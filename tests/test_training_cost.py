"""What training costs: operations counted by hand, the plain network, figures that are whole."""

import keras
import numpy as np
import pytest

from experiments.benchmark_training import (
    convolution_operations,
    figures,
    patches,
    plain_jointnet,
    training,
)
from jointnet import JointNet

SMALL = {"growth_rates": (8, 8, 8), "bridge_filters": 8}


def by_kind(network: keras.Model) -> list[keras.Variable]:
    """Weights of the convolutions in order, then those of the normalisations."""
    return sorted(network.weights, key=lambda weight: weight.name in ("gamma", "beta"))


def test_the_network_of_keras_layers_is_the_same_function():
    ours = JointNet(**SMALL)
    plain = plain_jointnet(24, **SMALL)
    generator = np.random.default_rng(0)
    for mine, other in zip(by_kind(ours), by_kind(plain), strict=True):
        mine.assign(mine + generator.normal(0, 0.1, mine.shape))
        other.assign(mine)
    pixels = generator.integers(0, 256, (2, 24, 24, 3), np.uint8)
    expected = ours.predict_on_batch(pixels)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(plain.predict_on_batch(pixels), expected, atol=1e-5)


def test_operations_of_convolutions():
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.Conv2D(5, 1, strides=2),
        ]
    )
    assert convolution_operations(network, 8) == 2 * 3 * 4 * 9 + 2 * 4 * 5 / 4


def test_full_jointnet_takes_2_2_million_operations_per_pixel():
    ours = convolution_operations(JointNet(), 64)
    assert ours == pytest.approx(2.2e6, rel=0.02)
    assert convolution_operations(plain_jointnet(64), 64) == ours


def test_figures_of_a_step():
    calls = []
    found = figures(lambda: calls.append(0), 3, 2, 512, 1e6, lambda precision: 1e15, "float32")
    assert len(calls) == 4
    assert found["patches_per_second"] == pytest.approx(2 / found["step_seconds"])
    assert found["teraflops"] * 1e12 == pytest.approx(
        3 * 1e6 * 512**2 * found["patches_per_second"]
    )
    assert found["share_of_peak"] == pytest.approx(found["teraflops"] / 1e3)
    assert found["inria_epoch_hours"] == pytest.approx(15_500 / found["patches_per_second"] / 3600)
    assert set(figures(lambda: None, 0, 1, 8, 1.0, lambda p: 1.0, "float32")) == {"megabytes"}


def test_patches_show_both_classes():
    images, masks = patches(2, 64)
    assert images.shape == (2, 64, 64, 3) and masks.shape == (2, 64, 64, 1)
    assert set(np.unique(masks)) == {0, 1}
    assert not np.array_equal(images[0], images[1])


@pytest.mark.slow
def test_a_step_of_the_full_network_in_parts():
    found = training("JointNet", "float32", 32, 1, batch=2, micro_batch=1, rematerialise="blocks")
    assert found["share_of_peak"] > 0
    assert found["megabytes"] > 50
