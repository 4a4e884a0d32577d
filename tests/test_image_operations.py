"""Changes of one image: colours, filters, noise, symmetries and warps, and how it is shown."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.errors import LabelError
from preprocessing.image_operations import (
    affine_matrix,
    as_pixels,
    blur,
    drop_pixels,
    drop_rectangles,
    emboss,
    frequency_noise,
    gaussian_noise,
    recolour,
    salt_and_pepper,
    scale,
    sharpen,
    stretch,
    symmetry,
    uneven_light,
    warp,
)


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


def texture(shape=(32, 40, 3), dtype=np.uint8, seed=0) -> np.ndarray:
    image = 0.1 + 0.8 * np.random.default_rng(seed).random(shape, np.float32)
    return image if dtype == np.float32 else (image * np.iinfo(dtype).max).astype(dtype)


@every_function
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("shape", [(32, 40, 3), (40, 32, 1), (16, 16, 8)])
def test_shape_dtype_and_what_came_in_are_kept_and_pixels_change(function, dtype, shape):
    image = texture(shape, dtype)
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
    image = texture()
    first, again = (function(image, 255, generator(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@every_function
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 1), (9, 1, 4), (2, 2, 2)])
def test_patches_of_few_pixels(function, shape):
    assert function(texture(shape), 255, generator()).shape == shape


@every_function
def test_all_dtypes_are_changed_alike(function):
    """As fractions of the range, apart from rounding, and from clipping that floats do without."""
    eight = texture()
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
    image = texture((64, 64, 3))
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
    image = texture(dtype=np.float32)
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
    texture = frequency_noise(shape, exponent, generator())
    assert (texture.shape, texture.dtype) == (shape, np.float32)
    assert (texture.min(), texture.max()) == (0, 1)


def test_a_single_pixel_has_no_waves():
    assert frequency_noise((1, 1), -2.0, generator()).tolist() == [[0]]


def test_the_lower_the_exponent_the_smoother():
    steps = []
    for exponent in (0.0, -1.0, -2.0, -4.0):
        texture = frequency_noise((128, 128), exponent, generator(2))
        steps.append(np.abs(np.diff(texture, axis=1)).mean() / np.std(texture))
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
    image = texture((200, 200, 4))
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
    image = texture((96, 128, 2))
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
    image = texture((4, 4, 3))
    assert (drop_pixels(image, 1.0, 300, generator()) == 255).all()
    assert (drop_pixels(image, 1.0, -5, generator()) == 0).all()
    assert (drop_pixels(texture((4, 4, 3), np.float32), 1.0, -5, generator()) == -5).all()


SIZES = [(8, 8), (9, 9), (64, 64), (255, 255)]


def labels(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 255], np.uint8), shape)


def ramp(height, width) -> np.ndarray:
    """Bands are x and y."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.dstack([columns, rows])


def disc(size: int, radius: float) -> np.ndarray:
    centre = (size - 1) / 2
    rows, columns = np.ogrid[:size, :size]
    return (np.hypot(rows - centre, columns - centre) < radius).astype(np.uint8)


def test_the_eight_symmetries_by_eye():
    square = np.array([[1, 2], [3, 4]])
    drawn = [symmetry(square, k).tolist() for k in range(8)]
    assert drawn == [
        [[1, 2], [3, 4]],
        [[2, 4], [1, 3]],
        [[4, 3], [2, 1]],
        [[3, 1], [4, 2]],
        [[2, 1], [4, 3]],
        [[4, 2], [3, 1]],
        [[3, 4], [1, 2]],
        [[1, 3], [2, 4]],
    ]
    assert len({str(one) for one in drawn}) == 8


@pytest.mark.parametrize("k", range(8))
@pytest.mark.parametrize("shape", [(2, 5), (4, 3, 3), (0, 3), (1, 1)])
def test_every_symmetry_has_its_inverse(k, shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    # Mirror images are their own inverse.
    inverse = k if k >= 4 else -k % 4
    np.testing.assert_array_equal(symmetry(symmetry(array, k), inverse), array)


@pytest.mark.parametrize("k", [-1, 8])
def test_there_is_no_ninth_symmetry(k):
    with pytest.raises(ValueError, match="0 to 7"):
        symmetry(np.zeros((2, 2)), k)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_quarter_turns_are_exact(size, bands, dtype):
    image, mask = noise((*size, bands), dtype), labels(size)
    for quarters in (0, 1, 2, 3, -1):
        turned, turned_mask = warp(image, mask, affine_matrix(size, turn=quarters / 4))
        np.testing.assert_array_equal(turned_mask, np.rot90(mask, quarters))
        # A coordinate that is off by the last bit of a cosine mixes in so much of a neighbour.
        tolerance = 1e-4 if dtype == np.float32 else 0
        np.testing.assert_allclose(turned, np.rot90(image, quarters), rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(5, 9), (1, 6), (6, 1), (1, 1), (30, 70)])
def test_half_a_turn_of_any_shape_and_identity_are_exact(shape):
    image, mask = noise((*shape, 4)), labels(shape)
    same, same_mask = warp(image, mask, affine_matrix(shape))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(same_mask, mask)
    turned, turned_mask = warp(image, mask, affine_matrix(shape, turn=0.5))
    np.testing.assert_array_equal(turned, image[::-1, ::-1])
    np.testing.assert_array_equal(turned_mask, mask[::-1, ::-1])


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_bands_are_warped_alike_and_on_their_own(bands, dtype):
    image, mask = noise((12, 17, bands), dtype), labels((12, 17))
    high = 1 if dtype == np.float32 else np.iinfo(dtype).max
    matrix = affine_matrix((12, 17), 0.07, 1.2, 0.1, 0.3)
    moved, moved_mask = warp(image, mask, matrix)
    assert (moved.shape, moved.dtype) == (image.shape, image.dtype)
    assert (moved_mask.shape, moved_mask.dtype) == (mask.shape, mask.dtype)
    for band in range(bands):
        alone, _ = warp(image[..., band : band + 1], mask, matrix)
        # By the number of bands OpenCV has other code, with weights in 32 steps to a pixel.
        np.testing.assert_allclose(moved[..., band], alone[..., 0], rtol=0, atol=high / 25)


@settings(deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    turn=st.floats(-1, 1),
    factor=st.floats(0.5, 2),
    slant=st.floats(-1, 1),
    direction=st.floats(0, 1),
)
def test_the_map_turns_scales_and_keeps_areas_and_the_centre(
    height, width, turn, factor, slant, direction
):
    matrix = affine_matrix((height, width), turn, factor, slant, direction)
    centre = np.array([(width - 1) / 2, (height - 1) / 2, 1])
    np.testing.assert_allclose(matrix @ centre, centre[:2], atol=1e-9)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(factor**-2)


@settings(deadline=None)
@given(
    turn=st.floats(-1, 1),
    factor=st.floats(0.5, 2),
    slant=st.floats(-1, 1),
    direction=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_target_pixel_comes_from_a_target_pixel_and_what_comes_from_nowhere_is_void(
    turn, factor, slant, direction, seed
):
    shape = (23, 31)
    mask = labels(shape, seed)
    matrix = affine_matrix(shape, turn, factor, slant, direction)
    _, moved = warp(noise((*shape, 1)), mask, matrix)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x, y = np.moveaxis(np.dstack([columns, rows, np.ones(shape)]) @ matrix.T, -1, 0)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    expected = np.full(shape, 255, np.uint8)
    expected[inside] = mask[row[inside], column[inside]]
    # Half way between two centres either is the nearest.
    clear = (np.abs(x - np.floor(x) - 0.5) > 2e-3) & (np.abs(y - np.floor(y) - 0.5) > 2e-3)
    np.testing.assert_array_equal(moved[clear], expected[clear])


@pytest.mark.parametrize("turn", [0.02, 0.125, -0.3])
def test_image_and_mask_stay_aligned(turn):
    """A ramp says where each pixel came from; the mask is its left half."""
    size = (41, 41)
    image = ramp(*size)
    mask = (image[..., 0] > 19.5).astype(np.uint8)
    moved, moved_mask = warp(image, mask, affine_matrix(size, turn, 1.1, 0.1, 0.4))
    counted = moved_mask != 255
    assert counted.mean() > 0.5
    far = counted & (np.abs(moved[..., 0] - 19.5) > 0.05)
    np.testing.assert_array_equal(moved[far][:, 0] > 19.5, moved_mask[far] == 1)


def test_the_image_is_bilinear():
    size = (21, 21)
    matrix = affine_matrix(size, 0.06, 1.3, 0.1, 0.2)
    moved, moved_mask = warp(ramp(*size), np.zeros(size, np.uint8), matrix)
    rows, columns = np.mgrid[:21, :21]
    expected = np.dstack([columns, rows, np.ones(size)]) @ matrix.T
    inside = ((expected > 0) & (expected < 20)).all(axis=-1)
    # Older OpenCV takes weights from a table of 32 steps to a pixel.
    np.testing.assert_allclose(moved[inside], expected[inside], atol=1 / 32 + 1e-3)
    assert (moved_mask[inside] == 0).all()


def test_turning_anticlockwise_and_back():
    size = 101
    mask = np.zeros((size, size), np.uint8)
    mask[20:40, 45:75] = 1
    image = np.repeat(mask[..., None] * np.uint8(200), 3, axis=2)
    forth = warp(image, mask, affine_matrix(mask.shape, turn=1 / 12))
    # What was at the top goes to the left.
    assert np.nonzero(forth[1] == 1)[1].mean() < np.nonzero(mask)[1].mean() - 5
    back, back_mask = warp(*forth, affine_matrix(mask.shape, turn=-1 / 12))
    counted = back_mask != 255
    overlap = (back_mask == 1) & (mask == 1)
    assert overlap.sum() / ((back_mask == 1) | ((mask == 1) & counted)).sum() > 0.93
    inner = np.zeros_like(mask, bool)
    inner[23:37, 48:72] = True
    assert (back[inner] == 200).all()


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"turn": 0.1}, 1.0),
        ({"slant": 0.3, "direction": 0.2}, 1.0),
        ({"factor": 1.25}, 1.25**2),
        ({"factor": 0.8, "turn": 0.3}, 0.8**2),
    ],
)
def test_areas_of_targets(changes, factor):
    mask = disc(201, 50)
    image = np.zeros((201, 201, 1), np.uint8)
    _, moved = warp(image, mask, affine_matrix(mask.shape, **changes))
    assert (moved == 1).sum() == pytest.approx(factor * mask.sum(), rel=0.01)


def test_a_shear_shifts_rows_against_each_other():
    mask = np.zeros((41, 41), np.uint8)
    mask[:, 20] = 1
    _, moved = warp(mask[..., None], mask, affine_matrix(mask.shape, slant=0.5))
    shifts = [np.flatnonzero(row == 1)[0] - 20 for row in moved[[0, 10, 20, 30, 40]]]
    assert shifts == [-10, -5, 0, 5, 10]
    mask = np.ascontiguousarray(mask.T)
    _, moved = warp(mask[..., None], mask, affine_matrix(mask.shape, slant=0.5))
    np.testing.assert_array_equal((moved == 1)[20], (mask == 1)[20])


def test_what_comes_from_outside_is_mirrored_and_void():
    image = np.arange(1, 9, dtype=np.uint8).reshape(1, 8, 1)
    image = np.repeat(image, 8, axis=0)
    mask = np.ones((8, 8), np.uint8)
    moved, moved_mask = warp(image, mask, affine_matrix(mask.shape, factor=0.5))
    # Column x of the result was at 2 x - 3.5.
    inside = (moved_mask == 1).any(axis=0)
    assert inside.tolist() == [False, False, True, True, True, True, False, False]
    assert ((moved_mask == 1) | (moved_mask == 255)).all()
    assert (moved_mask == 255).sum() == 64 - 16
    assert moved[4, 2:6, 0] == pytest.approx([1.5, 3.5, 5.5, 7.5], abs=0.5)
    assert moved[4, :2, 0] == pytest.approx([4, 2.5], abs=1)
    np.testing.assert_array_equal(moved[:4], moved[:3:-1])


def test_void_stays_void_and_an_all_void_mask_too():
    shape = (50, 50)
    image = noise((*shape, 3))
    matrix = affine_matrix(shape, 0.11, 1.2, 0.1, 0.7)
    _, moved = warp(image, np.full(shape, 255, np.uint8), matrix)
    assert (moved == 255).all()


def test_a_mask_that_cannot_hold_void_is_refused():
    image = noise((4, 4, 3))
    for dtype in (bool, np.int8, np.float32):
        with pytest.raises(LabelError, match="uint8"):
            warp(image, np.zeros((4, 4), dtype), affine_matrix((4, 4), 0.1))


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
