"""What blur, sharpening, relief, noise, uneven light and lost pixels do to pixels."""

import cv2
import numpy as np
import pytest

from preprocessing.image_operations import (
    blur,
    drop_pixels,
    drop_rectangles,
    emboss,
    frequency_noise,
    gaussian_noise,
    salt_and_pepper,
    sharpen,
    uneven_light,
)

HIGH = {np.uint8: 255, np.uint16: 65535, np.int16: 32767, np.float32: 1.0}
EVERY = {
    "blur": lambda image, high, rng: blur(image, 1.5),
    "sharpen": lambda image, high, rng: sharpen(image, 2.0),
    "emboss": lambda image, high, rng: emboss(image, 1.0, 0.1),
    "uneven_light": lambda image, high, rng: uneven_light(image, 1.3, 1.5, 0, rng),
    "gaussian_noise": lambda image, high, rng: gaussian_noise(image, 0.1 * high, rng),
    "salt_and_pepper": lambda image, high, rng: salt_and_pepper(image, 0.5, 0, high, rng),
    "drop_pixels": lambda image, high, rng: drop_pixels(image, 0.5, 0, rng),
    "drop_rectangles": lambda image, high, rng: drop_rectangles(image, 0.9, 0, rng),
}
every_function = pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)


def generator(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(shape=(32, 40, 3), dtype=np.uint8, seed=0) -> np.ndarray:
    image = 0.1 + 0.8 * np.random.default_rng(seed).random(shape, np.float32)
    return image if dtype == np.float32 else (image * np.iinfo(dtype).max).astype(dtype)


@every_function
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("shape", [(32, 40, 3), (40, 32, 1), (16, 16, 8)])
def test_shape_dtype_and_what_came_in_are_kept_and_pixels_change(function, dtype, shape):
    image = noise(shape, dtype)
    before = image.copy()
    # A crop of a read-only memory map is neither writeable nor contiguous.
    image.flags.writeable = False
    changed = function(image, HIGH[dtype], generator())
    assert (changed.shape, changed.dtype) == (shape, image.dtype)
    np.testing.assert_array_equal(image, before)
    for band in range(shape[2]):
        assert not np.array_equal(changed[..., band], image[..., band])
    inner = function(image[2:-3, 1:-2], HIGH[dtype], generator())
    assert inner.shape == (shape[0] - 5, shape[1] - 3, shape[2])


@every_function
def test_the_generator_decides_everything(function):
    image = noise()
    first, again = (function(image, 255, generator(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@every_function
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 1), (9, 1, 4), (2, 2, 2)])
def test_patches_of_few_pixels(function, shape):
    assert function(noise(shape), 255, generator()).shape == shape


@every_function
def test_all_dtypes_are_changed_alike(function):
    """As fractions of the range, apart from rounding, and from clipping that floats do without."""
    eight = noise()
    eight = eight // 4 + 96
    scale = 257
    sixteen = eight.astype(np.uint16) * scale
    floats = eight / np.float32(255)
    results = [
        np.clip(function(image, high, generator(1)).astype(np.float64) / high, 0, 1)
        for image, high in ((eight, 255), (sixteen, 65535), (floats, 1.0))
    ]
    # Sharpening takes the difference from a blur that is rounded too.
    np.testing.assert_allclose(results[0], results[2], atol=2.1 / 255)
    np.testing.assert_allclose(results[1], results[2], atol=3 / 65535)


def test_blur_of_a_point_is_a_gaussian():
    image = np.zeros((41, 41, 1), np.float32)
    image[20, 20] = 1
    spread = blur(image, 2.0)[..., 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    rows = np.arange(41) - 20
    assert (spread.sum(axis=1) * rows**2).sum() == pytest.approx(4, rel=0.02)
    np.testing.assert_allclose(spread, spread.T, atol=1e-7)


def test_a_wider_blur_leaves_less_and_a_flat_image_alone():
    image = noise((64, 64, 3))
    left = [np.std(blur(image, sigma)) for sigma in (0.5, 1, 2, 3)]
    assert left == sorted(left, reverse=True) and left[-1] < 0.3 * left[0]
    flat = np.full((9, 9, 3), 77, np.uint8)
    np.testing.assert_array_equal(blur(flat, 3), flat)
    np.testing.assert_array_equal(blur(image, 1e-3), image)


def test_sharpening_steepens_an_edge_and_leaves_flat_ground():
    image = np.full((9, 20, 1), 100, np.uint8)
    image[:, 10:] = 150
    row = sharpen(image, 1.0)[4, :, 0].astype(int)
    assert row[9] < 100 and row[10] > 150
    assert (row[:6] == 100).all() and (row[14:] == 150).all()
    stronger = sharpen(image, 3.0)[4, :, 0].astype(int)
    assert stronger[9] < row[9] and stronger[10] > row[10]
    assert sharpen(image, 40)[4, 9, 0] == 0 and sharpen(image, 40)[4, 10, 0] == 255


def test_sharpening_is_the_unsharp_mask():
    image = noise(dtype=np.float32)
    expected = image + 1.5 * (image - cv2.GaussianBlur(image, (0, 0), 1.0))
    np.testing.assert_allclose(sharpen(image, 1.5), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("direction", "rise"), [(0, (4, 0)), (0.25, (0, 4)), (0.5, (-4, 0)), (0.75, (0, -4))]
)
def test_a_relief_adds_the_rise_over_two_pixels_in_its_direction(direction, rise):
    rows, columns = np.mgrid[:9, :9]
    for slope, added in zip((columns, rows), rise, strict=True):
        image = (50 + 2 * slope)[..., None].astype(np.uint8)
        relief = emboss(image, 1.0, direction).astype(int)
        assert (relief - image)[1:-1, 1:-1].ravel().tolist() == [added] * 49
        doubled = emboss(image, 2.0, direction).astype(int)
        assert (doubled - image)[1:-1, 1:-1].ravel().tolist() == [2 * added] * 49


def test_a_relief_of_flat_ground_is_flat():
    flat = np.full((6, 6, 3), 77, np.uint8)
    np.testing.assert_array_equal(emboss(flat, 2.0, 0.3), flat)


def test_uneven_light_lies_between_the_patch_and_its_other_version():
    image = np.full((64, 64, 3), 100, np.float32)
    lit = uneven_light(image, 1.5, 1.0, 0, generator())
    assert lit.min() == pytest.approx(100, abs=1e-3)
    assert lit.max() == pytest.approx(150, abs=1e-3)
    assert np.std(lit) > 3
    # Without a spread the bands stay alike; with one they do not.
    np.testing.assert_array_equal(lit[..., 0], lit[..., 2])
    cast = uneven_light(image, 1.5, 1.5, 0, generator())
    assert np.abs(cast[..., 0] - cast[..., 2]).max() > 5
    darker = uneven_light(image, 1 / 1.5, 1.0, 0, generator())
    assert darker.max() == pytest.approx(100, abs=1e-3)
    assert darker.min() == pytest.approx(100 / 1.5, abs=1e-3)


def test_where_there_is_no_light_it_stays_dark():
    image = np.full((8, 8, 2), 20, np.uint8)
    np.testing.assert_array_equal(uneven_light(image, 2.0, 2.0, 20, generator()), image)


@pytest.mark.parametrize("shape", [(64, 64), (33, 50), (7, 1), (1, 8), (2, 1)])
@pytest.mark.parametrize("exponent", [-4.0, -1.5, 0.0])
def test_frequency_noise_reaches_from_0_to_1(shape, exponent):
    noise = frequency_noise(shape, exponent, generator())
    assert (noise.shape, noise.dtype) == (shape, np.float32)
    assert (noise.min(), noise.max()) == (0, 1)


def test_a_single_pixel_has_no_waves():
    assert frequency_noise((1, 1), -2.0, generator()).tolist() == [[0]]


def test_the_lower_the_exponent_the_smoother():
    steps = []
    for exponent in (0.0, -1.0, -2.0, -4.0):
        noise = frequency_noise((128, 128), exponent, generator(2))
        steps.append(np.abs(np.diff(noise, axis=1)).mean() / np.std(noise))
    assert steps == sorted(steps, reverse=True)
    # White noise: the mean difference of two independent normals is 2 / sqrt(pi) deviations.
    assert steps[0] == pytest.approx(2 / np.pi**0.5, rel=0.05)
    assert steps[-1] < 0.1


def test_the_spectrum_falls_with_the_power_of_the_frequency():
    exponent = -1.5
    spectrum = np.mean(
        [
            np.abs(np.fft.rfft2(frequency_noise((64, 64), exponent, generator(seed)))) ** 2
            # Each is scaled to its own extremes: by its deviation they are alike.
            / np.var(frequency_noise((64, 64), exponent, generator(seed)))
            for seed in range(200)
        ],
        axis=0,
    )
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    among = (frequency > 0.03) & (frequency < 0.45)
    slope = np.polyfit(np.log(frequency[among]), np.log(spectrum[among]), 1)[0]
    assert slope == pytest.approx(2 * exponent, abs=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_noise_has_its_deviation_and_no_mean(dtype):
    high = HIGH[dtype]
    image = np.full((128, 128, 3), high / 2, dtype)
    added = gaussian_noise(image, 0.05 * high, generator()).astype(np.float64) - image
    assert added.std() == pytest.approx(0.05 * high, rel=0.02)
    assert abs(added.mean()) < 0.001 * high
    # Every band has its own.
    bands = added.reshape(-1, 3).T
    assert np.abs(np.corrcoef(bands) - np.eye(3)).max() < 0.05


def test_noise_is_clipped_not_wrapped():
    image = np.dstack([np.zeros((50, 50), np.uint8), np.full((50, 50), 255, np.uint8)])
    noisy = gaussian_noise(image, 10, generator())
    assert noisy[..., 0].max() < 100 and noisy[..., 1].min() > 155


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_salt_and_pepper_are_one_half_each_and_take_all_bands(share):
    image = np.full((200, 200, 3), 100, np.uint8)
    changed = salt_and_pepper(image, share, 10, 240, generator())
    assert (np.ptp(changed, axis=2) == 0).all()
    assert set(np.unique(changed)) <= {10, 100, 240}
    for value in (10, 240):
        assert (changed[..., 0] == value).mean() == pytest.approx(share / 2, rel=0.1)


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_dropped_pixels_take_all_bands_and_their_share(share):
    image = noise((200, 200, 4))
    changed = drop_pixels(image, share, 0, generator())
    dropped = (changed == 0).all(axis=2)
    np.testing.assert_array_equal(changed[~dropped], image[~dropped])
    assert dropped.mean() == pytest.approx(share, rel=0.1)


def test_dropped_rectangles_take_their_share_on_average():
    image = np.full((96, 128, 2), 100, np.uint8)
    shares = [(drop_rectangles(image, 0.2, 7, generator(seed)) == 7).mean() for seed in range(400)]
    assert np.mean(shares) == pytest.approx(0.2, abs=0.02)
    assert (drop_rectangles(image, 1.0, 7, generator()) == 7).all()


def test_dropped_rectangles_are_rectangles():
    image = noise((96, 128, 2))
    for seed in range(20):
        changed = drop_rectangles(image, 0.2, 0, generator(seed))
        dropped = (changed == 0).all(axis=2)
        np.testing.assert_array_equal(changed[~dropped], image[~dropped])
        for array in (dropped, dropped.T):
            # Runs that neither begin nor end at the border are as long as a rectangle's side.
            edges = [np.flatnonzero(np.diff(line.astype(int))) for line in array]
            lengths = np.concatenate([np.diff(edge) for edge in edges])
            assert (lengths >= 3).all()


def test_values_that_a_dtype_cannot_hold_are_clipped():
    image = noise((4, 4, 3))
    assert (drop_pixels(image, 1.0, 300, generator()) == 255).all()
    assert (drop_pixels(image, 1.0, -5, generator()) == 0).all()
    assert (drop_pixels(noise((4, 4, 3), np.float32), 1.0, -5, generator()) == -5).all()
