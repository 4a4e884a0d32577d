"""The eight symmetries: inverse pairs, all different, and the mean over them."""

import numpy as np
import pytest

from jointnet.prediction import SYMMETRIES, mean_over_symmetries, turned, turned_back

CORNER = np.arange(9).reshape(1, 3, 3, 1)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_turning_back_is_the_inverse(symmetry):
    batch = np.random.default_rng(0).random((2, 5, 5, 3))
    np.testing.assert_array_equal(turned_back(turned(batch, *symmetry), *symmetry), batch)


def test_all_eight_differ():
    assert len({turned(CORNER, *symmetry).tobytes() for symmetry in SYMMETRIES}) == 8


def test_by_hand():
    np.testing.assert_array_equal(
        turned(CORNER, 1, False)[0, ..., 0], [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
    )
    np.testing.assert_array_equal(
        turned(CORNER, 0, True)[0, ..., 0], [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    )


def test_a_network_of_single_pixels_is_left_alone():
    batch = np.random.default_rng(1).random((3, 4, 4, 2)).astype(np.float32)
    found = mean_over_symmetries(lambda images: images[..., :1])(batch)
    np.testing.assert_allclose(found, batch[..., :1], rtol=1e-6)


def test_a_network_that_leans_is_set_upright():
    """What is found a pixel to the right of where it is, is found evenly around it."""
    batch = np.zeros((1, 5, 5, 1), np.float32)
    batch[0, 2, 2] = 1
    found = mean_over_symmetries(lambda images: np.roll(images, 1, axis=2))(batch)[0, ..., 0]
    expected = np.zeros((5, 5))
    expected[[1, 3, 2, 2], [2, 2, 1, 3]] = 0.25
    np.testing.assert_allclose(found, expected)


def test_the_result_has_the_symmetry_of_its_input():
    random = np.random.default_rng(2)
    weights = random.random((6, 6, 1)).astype(np.float32)
    predict = mean_over_symmetries(lambda images: images[..., :1] * weights)
    batch = random.random((1, 6, 6, 1)).astype(np.float32)
    for symmetry in SYMMETRIES:
        np.testing.assert_allclose(
            predict(turned(batch, *symmetry)), turned(predict(batch), *symmetry), rtol=1e-5
        )
