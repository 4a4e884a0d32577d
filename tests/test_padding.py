"""Padding to multiples, and taking it off again."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jointnet import JointNet
from jointnet.padding import pad_to_multiple, predict_padded


def test_values_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[..., None]
    expected = [[1, 2, 3, 2], [4, 5, 6, 5], [1, 2, 3, 2], [4, 5, 6, 5]]
    padded = pad_to_multiple(image, 4)
    np.testing.assert_array_equal(padded[..., 0], expected)
    assert padded.dtype == np.uint8


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3), st.integers(1, 9))
def test_the_padding_is_what_is_missing_and_cropping_takes_it_off(height, width, bands, multiple):
    image = np.random.default_rng(0).integers(0, 2**16, (height, width, bands), np.uint16)
    padded = pad_to_multiple(image, multiple)
    for before, after in zip(image.shape[:2], padded.shape[:2], strict=True):
        assert after % multiple == 0
        assert 0 <= after - before < multiple
    assert padded.dtype == np.uint16
    np.testing.assert_array_equal(padded[:height, :width], image)


def test_an_image_that_fits_is_not_copied():
    image = np.zeros((8, 16, 3), np.uint8)
    assert pad_to_multiple(image, 8) is image


@pytest.mark.parametrize(("height", "width"), [(1, 1), (13, 21), (8, 16)])
def test_the_prediction_is_the_crop_of_that_of_the_padded_image(height, width):
    keras.utils.set_random_seed(0)
    model = JointNet(growth_rates=(8, 8, 8), bridge_filters=8)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    probabilities = predict_padded(model, image, JointNet.MULTIPLE)
    assert probabilities.shape == (height, width)
    assert probabilities.dtype == np.float32
    whole = np.asarray(model(pad_to_multiple(image, 8)[None]))[0, ..., 0]
    np.testing.assert_allclose(probabilities, whole[:height, :width], atol=1e-6)


def test_predict_gets_one_padded_batch():
    shapes = []

    def predict(batch: np.ndarray) -> np.ndarray:
        shapes.append(batch.shape)
        return batch[..., :1] / np.float32(255)

    image = np.arange(15, dtype=np.uint8).reshape(3, 5, 1)
    np.testing.assert_array_equal(
        predict_padded(predict, image, 4), image[..., 0] / np.float32(255)
    )
    assert shapes == [(1, 4, 8, 1)]
