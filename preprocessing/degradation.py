"""Blur, sharpening, relief, noise, uneven light and lost pixels: what spoils the pixels of a patch.

Every function takes (h, w, bands) of uint8, uint16, int16 or float32, not empty, and returns the
same shape and dtype in a new array; all bands are changed. Integers are rounded and clipped to
their dtype's range, float32 is not clipped. Blur, sharpen and emboss need OpenCV, the others numpy
alone.
"""

import numpy as np

from preprocessing.colour import as_pixels

# Of the blur whose difference from the image is the detail that sharpening adds.
DETAIL_SIGMA = 1.0
SLOPE_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 4
# Spectra from white noise to slow, cloud-like waves.
EXPONENTS = (-4.0, 0.0)
# Sides of dropped rectangles, as fractions of the patch's shorter side, and at least in pixels.
RECTANGLE_SIDES = (1 / 32, 1 / 6)
SHORTEST_RECTANGLE = 2


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian.

    Args:
        image: the patch.
        sigma: standard deviation in pixels, above 0.
    """
    import cv2

    return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), sigma).reshape(image.shape)


def sharpen(image: np.ndarray, amount: float) -> np.ndarray:
    """Unsharp mask: add what a slight blur takes away.

    Args:
        image: the patch.
        amount: how many times the detail is added, above 0.
    """
    import cv2

    soft = blur(image, DETAIL_SIGMA)
    sharp = cv2.addWeighted(np.ascontiguousarray(image), 1 + amount, soft, -amount, 0)
    return sharp.reshape(image.shape)


def emboss(image: np.ndarray, amount: float, direction: float) -> np.ndarray:
    """Add a relief, as if brightness were height and light came from one side.

    Args:
        image: the patch.
        amount: how many times the rise over two pixels is added.
        direction: in which the rise is measured, as a fraction of a full turn; 0 is to the right,
            0.25 downwards.
    """
    import cv2

    angle = 2 * np.pi * direction
    kernel = amount * (np.cos(angle) * SLOPE_X + np.sin(angle) * SLOPE_X.T)
    kernel[1, 1] += 1
    kernel = kernel.astype(np.float32)
    return cv2.filter2D(np.ascontiguousarray(image), -1, kernel).reshape(image.shape)


def uneven_light(
    image: np.ndarray, gain: float, spread: float, low: float, rng: np.random.Generator
) -> np.ndarray:
    """Blend the patch with a version of itself in other light, by a frequency noise mask.

    Light and colour then change from place to place: shadows of clouds, haze, or, at high
    frequencies, mottled pixels.

    Args:
        image: the patch.
        gain: factor of all bands in the other version.
        spread: further factor of each band, drawn log-evenly from 1 / spread to spread.
        low: value that is no light, from which gains are counted.
        rng: draws the bands' factors and the mask.
    """
    gains = gain * spread ** rng.uniform(-1, 1, size=image.shape[-1])
    alpha = frequency_noise(image.shape[:2], rng.uniform(*EXPONENTS), rng)
    changed = np.empty_like(image)
    for band, factor in enumerate(gains):
        values = image[..., band].astype(np.float32)
        values += (values - np.float32(low)) * alpha * np.float32(factor - 1)
        changed[..., band] = as_pixels(values, image.dtype)
    return changed


def frequency_noise(
    shape: tuple[int, int], exponent: float, rng: np.random.Generator
) -> np.ndarray:
    """Return random waves whose amplitude is a power of their frequency.

    Args:
        shape: (height, width), not empty.
        exponent: 0 is white noise, the further below the smoother.
        rng: draws the waves.

    Returns:
        (height, width) float32 that reaches from 0 to 1; all 0 for a single pixel.
    """
    height, width = shape
    across = np.fft.rfftfreq(width).astype(np.float32)
    down = np.fft.fftfreq(height).astype(np.float32)
    frequency = np.hypot(down[:, None], across)
    # No wave is longer than the patch: the mean is scaled away below.
    frequency[0, 0] = 1
    parts = rng.standard_normal((*frequency.shape, 2), dtype=np.float32)
    waves = parts.view(np.complex64)[..., 0] * frequency ** np.float32(exponent)
    waves[0, 0] = 0
    noise = np.fft.irfft2(waves, s=shape).astype(np.float32, copy=False)
    noise -= noise.min()
    highest = noise.max()
    return noise / highest if highest > 0 else noise


def gaussian_noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise that is drawn for every pixel and band.

    Args:
        image: the patch.
        deviation: standard deviation, in pixel values.
        rng: draws the noise.
    """
    values = rng.standard_normal(image.shape, dtype=np.float32)
    values *= np.float32(deviation)
    values += image
    return as_pixels(values, image.dtype)


def salt_and_pepper(
    image: np.ndarray, share: float, low: float, high: float, rng: np.random.Generator
) -> np.ndarray:
    """Set single pixels, all their bands, to the lowest or the highest value.

    Args:
        image: the patch.
        share: of the pixels, 0..1, on average; one half of them each.
        low: pepper.
        high: salt.
        rng: draws which pixels.
    """
    drawn = rng.random(image.shape[:2], dtype=np.float32)
    changed = _filled(image, drawn < share, low)
    return _filled(changed, drawn < share / 2, high)


def drop_pixels(
    image: np.ndarray, share: float, value: float, rng: np.random.Generator
) -> np.ndarray:
    """Set single pixels, all their bands, to one value.

    Args:
        image: the patch.
        share: of the pixels, 0..1, on average.
        value: what is left of them.
        rng: draws which pixels.
    """
    return _filled(image, rng.random(image.shape[:2], dtype=np.float32) < share, value)


def drop_rectangles(
    image: np.ndarray, share: float, value: float, rng: np.random.Generator
) -> np.ndarray:
    """Set rectangles, all their bands, to one value (coarse dropout).

    The rectangles are cells of a grid whose place and cell size are drawn, so they never overlap,
    and neighbours make larger shapes.

    Args:
        image: the patch.
        share: of the area, 0..1, on average.
        value: what is left of them.
        rng: draws grid and cells.
    """
    shortest, longest = (
        max(SHORTEST_RECTANGLE, side * min(image.shape[:2])) for side in RECTANGLE_SIDES
    )
    cells = []
    for extent in image.shape[:2]:
        side = round(shortest * (longest / shortest) ** rng.random())
        cells.append((np.arange(extent) + rng.integers(side)) // side)
    rows, columns = cells
    dropped = rng.random((rows[-1] + 1, columns[-1] + 1), dtype=np.float32) < share
    return _filled(image, dropped[rows[:, None], columns], value)


def _filled(image: np.ndarray, where: np.ndarray, value: float) -> np.ndarray:
    """Return a copy with all bands of some pixels set to the nearest value the dtype holds."""
    filled = image.copy()
    filled[where] = as_pixels(np.array(value, np.float32), image.dtype)
    return filled
