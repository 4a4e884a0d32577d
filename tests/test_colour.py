"""Colour changes, by hand."""

import numpy as np
import pytest

from preprocessing.image_operations import as_pixels, recolour


def noise(shape=(8, 8, 3), dtype=np.uint8, seed=0) -> np.ndarray:
    image = np.random.default_rng(seed).random(shape, np.float32)
    return image if dtype == np.float32 else (image * np.iinfo(dtype).max).astype(dtype)


def row(*pixels, dtype=np.uint8) -> np.ndarray:
    return np.array([pixels], dtype)


def bytes_recoloured(image: np.ndarray, **changes: float) -> list:
    return recolour(image, 0, 255, **changes).tolist()


def test_nothing_to_change_is_the_array_itself():
    image = noise()
    assert recolour(image, 0, 255) is image
    empty = noise((0, 4, 3))
    assert recolour(empty, 0, 255, brightness=0.5) is empty


def test_brightness_shifts_all_bands_and_clips():
    image = row((0, 100, 250))
    assert bytes_recoloured(image, brightness=0.2) == [[[51, 151, 255]]]
    assert bytes_recoloured(image, brightness=-0.1) == [[[0, 74, 224]]]


def test_a_range_scales_brightness():
    image = np.full((2, 2, 1), 1000, np.uint16)
    assert recolour(image, 0, 2000, brightness=0.1).ravel().tolist() == [1200] * 4


def test_contrast_stretches_all_bands_about_the_centre_of_the_range():
    image = row((20, 80, 100, 200))
    assert recolour(image, 40, 160, contrast=0.5).tolist() == [[[0, 70, 100, 250]]]
    assert recolour(image, 40, 160, contrast=-0.5).tolist() == [[[60, 90, 100, 150]]]


def test_without_chroma_a_pixel_is_its_luma():
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    image = row((200, 100, 50))
    assert bytes_recoloured(image, chroma=0) == [[[round(luma)] * 3]]
    by_hand = [round(luma + 1.25 * (value - luma)) for value in (200, 100, 50)]
    assert bytes_recoloured(image, chroma=1.25) == [[by_hand]]


@pytest.mark.parametrize("change", [{"chroma": 0.0}, {"chroma": 1.6}, {"hue": 0.56}])
def test_grey_pixels_and_further_bands_have_no_colour(change):
    image = noise((8, 8, 5))
    image[..., 1:3] = image[..., :1]
    np.testing.assert_array_equal(recolour(image, 0, 255, **change), image)
    two_bands = image[..., 3:]
    np.testing.assert_array_equal(recolour(two_bands, 0, 255, **change), two_bands)


def test_hue_keeps_luma_and_a_full_turn_is_none():
    image = noise(dtype=np.float32)
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    turned = recolour(image, 0, 1, hue=1 / 3)
    assert np.abs(turned - image).max() > 0.1
    np.testing.assert_allclose(turned @ luma, image @ luma, atol=1e-5)
    np.testing.assert_allclose(recolour(image, 0, 1, hue=1.0), image, atol=1e-5)
    np.testing.assert_allclose(recolour(turned, 0, 1, hue=-1 / 3), image, atol=1e-5)


def test_gamma_by_hand():
    image = row((0,), (64,), (255,))
    assert np.ravel(bytes_recoloured(image, gamma=2)).tolist() == [0, round(64**2 / 255), 255]
    brighter = np.ravel(bytes_recoloured(image, gamma=0.5)).tolist()
    assert brighter == [0, round((64 * 255) ** 0.5), 255]


def test_gamma_of_values_below_zero():
    """Elevation of -400 to 400 as int16 and as float32."""
    levels = row((-500,), (-400,), (-200,), (0,), (400,), (500,), dtype=np.int16)
    deep, real = (recolour(levels.astype(d), -400, 400, gamma=2) for d in ("int16", "f4"))
    assert deep.ravel().tolist() == [-500, -400, -350, -200, 400, 500]
    np.testing.assert_array_equal(deep, real)


def test_gamma_is_the_same_for_all_dtypes_and_none_outside_the_range():
    levels = row((5,), (10,), (60,), (110,), (200,))
    results = [
        recolour(levels.astype(dtype), 10, 110, gamma=1.3) for dtype in ("uint8", "uint16", "f4")
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], atol=0.5)
    assert results[0].ravel()[[0, 1, 3, 4]].tolist() == [5, 10, 110, 200]
    assert results[0].ravel()[2] < 60


def test_floats_are_not_clipped():
    image = row((0.1, 0.5, 1.0), dtype=np.float32)
    np.testing.assert_allclose(
        recolour(image, 0, 1, brightness=0.5), [[[0.6, 1.0, 1.5]]], atol=1e-6
    )
    np.testing.assert_allclose(
        recolour(image, 0, 1, brightness=-0.5), [[[-0.4, 0.0, 0.5]]], atol=1e-6
    )


def test_rows_are_changed_alike_whatever_the_size():
    image = np.tile(noise((1, 100, 3)), (300, 1, 1))
    changed = recolour(image, 0, 255, brightness=0.06, contrast=-0.08, gamma=1.1)
    assert not np.array_equal(changed, image)
    np.testing.assert_array_equal(changed, np.broadcast_to(changed[:1], changed.shape))


def test_what_a_dtype_cannot_hold_is_rounded_and_clipped():
    values = np.array([-3, 0.4, 0.6, 254.6, 300], np.float32)
    assert as_pixels(values.copy(), np.dtype(np.uint8)).tolist() == [0, 0, 1, 255, 255]
    assert as_pixels(values.copy(), np.dtype(np.uint16)).tolist() == [0, 0, 1, 255, 300]
    np.testing.assert_array_equal(as_pixels(values.copy(), np.dtype(np.float32)), values)
