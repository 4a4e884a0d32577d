"""Stretching for the screen."""

import numpy as np

from preprocessing.image_operations import scale, stretch


def test_the_bulk_of_the_values_fills_the_range():
    values = np.arange(101, dtype=np.uint16) * 10
    shown = stretch(values, np.ones(101, bool))
    assert shown[2] == 0
    assert shown[98] == 255
    np.testing.assert_allclose(shown[50], 127.5)
    assert shown.min() == 0
    assert shown.max() == 255


def test_void_values_do_not_move_the_range():
    values = np.array([0.0, 100.0, 1e9])
    shown = stretch(values, np.array([True, True, False]))
    np.testing.assert_allclose(shown, [0, 255, 255])


def test_without_valid_values_nothing_changes():
    np.testing.assert_array_equal(stretch(np.array([7]), np.array([False])), [7])


def test_a_constant_image_is_black():
    np.testing.assert_array_equal(stretch(np.full(5, 3.0), np.ones(5, bool)), np.zeros(5))


def test_given_limits_become_black_and_white():
    np.testing.assert_allclose(
        scale(np.array([5, 10, 15, 20, 25]), 10, 20), [0, 0, 127.5, 255, 255]
    )
