"""Change the colours, sharpness, noise or place of an image, or show it on a screen.

An image is ``(height, width, bands)`` uint8, uint16, int16 or float32 with raw values. Functions
that change one keep shape and dtype; integers are rounded and clipped to the range of their dtype,
float32 is not.
"""

from collections.abc import Callable

import numpy as np

from preprocessing.errors import LabelError
from preprocessing.tiling import VOID

# Luma of ITU-R BT.601, and the two chroma axes of YIQ; a grey pixel has no chroma.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
# Float32 planes of this size fit the processor's cache, and matrix products of them start no
# threads that would compete with the training step.
PIXELS_AT_ONCE = 8192


def recolour(
    image: np.ndarray,
    low: float,
    high: float,
    brightness: float = 0.0,
    contrast: float = 0.0,
    chroma: float = 1.0,
    hue: float = 0.0,
    gamma: float = 1.0,
) -> np.ndarray:
    """Bend the tone curve, then turn and stretch the colours, then stretch and shift all bands.

    Returns the image itself if nothing is to change.

    Args:
        image: as the module says.
        low: bottom of the range of values that the changes refer to.
        high: top of that range.
        brightness: added to all bands, as a fraction of the range.
        contrast: all bands are stretched about the centre of the range by 1 + contrast.
        chroma: factor of the distance from grey in the first three bands (red, green, blue); 0
            leaves their luma. It and ``hue`` do nothing with fewer bands.
        hue: turn of the same bands about the grey axis, as a fraction of a full turn; luma stays.
        gamma: exponent of the value's fraction of the range.
    """
    if (brightness, contrast, chroma, hue, gamma) == (0, 0, 1, 0, 1) or image.size == 0:
        return image
    matrix = np.eye(image.shape[-1])
    if len(matrix) >= 3 and (chroma != 1 or hue):
        turn = np.eye(3)
        turn[1:, 1:] = chroma * _rotation(hue).T
        matrix[:3, :3] = YIQ_TO_RGB @ turn @ RGB_TO_YIQ
    matrix *= 1 + contrast
    # Each row of the three colours adds up to one, so one offset serves every band.
    offset = brightness * (high - low) - contrast * (low + high) / 2
    if gamma != 1:
        curve = _tone_curve(image.dtype, gamma, low, high)
    matrix, offset = matrix.astype(np.float32), np.float32(offset)
    recoloured = np.empty_like(image)
    step = max(1, PIXELS_AT_ONCE // image.shape[1])
    for start in range(0, len(image), step):
        rows = slice(start, start + step)
        values = curve(image[rows]) if gamma != 1 else image[rows]
        # Planes, because numpy is several times faster on long rows than on triples.
        planes = np.moveaxis(values, -1, 0).astype(np.float32, order="C")
        flat = matrix @ planes.reshape(len(planes), -1)
        flat += offset
        recoloured[rows] = np.moveaxis(as_pixels(flat, image.dtype).reshape(planes.shape), 0, -1)
    return recoloured


def as_pixels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert float32 values to the nearest that ``dtype`` holds; may overwrite them."""
    if dtype != np.float32:
        limits = np.iinfo(dtype)
        np.rint(values, out=values)
        np.clip(values, limits.min, limits.max, out=values)
    return values.astype(dtype, copy=False)


def _tone_curve(
    dtype: np.dtype, exponent: float, low: float, high: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that raises fractions of low to high to a power and returns float32.

    It leaves values outside the range alone, and looks integers up in a table.
    """
    # A numpy scalar keeps the power of float32 values in float64; a Python float would not.
    exponent = np.float64(exponent)

    def bend(values: np.ndarray) -> np.ndarray:
        fraction = np.clip((values - low) / (high - low), 0, 1)
        return (values + (high - low) * (fraction**exponent - fraction)).astype(np.float32)

    if dtype == np.float32:
        return bend
    lowest = np.iinfo(dtype).min
    table = bend(np.arange(lowest, np.iinfo(dtype).max + 1))
    return lambda values: table[values if lowest == 0 else values.astype(np.intp) - lowest]


# The difference of this blur from the image is the detail that sharpening adds.
DETAIL_SIGMA = 1.0
SLOPE_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 4
# Spectra from white noise to slow, cloud-like waves.
EXPONENTS = (-4.0, 0.0)
# Sides of dropped rectangles, as fractions of the patch's shorter side, and at least in pixels.
RECTANGLE_SIDES = (1 / 32, 1 / 6)
SHORTEST_RECTANGLE = 2


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of standard deviation ``sigma`` pixels, above 0."""
    import cv2

    return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), sigma).reshape(image.shape)


def sharpen(image: np.ndarray, amount: float) -> np.ndarray:
    """Add ``amount`` (above 0) times the detail that a slight blur takes away (unsharp mask)."""
    import cv2

    soft = blur(image, DETAIL_SIGMA)
    sharp = cv2.addWeighted(np.ascontiguousarray(image), 1 + amount, soft, -amount, 0)
    return sharp.reshape(image.shape)


def emboss(image: np.ndarray, amount: float, direction: float) -> np.ndarray:
    """Add a relief, as if brightness were height and light came from one side.

    It is ``amount`` times the rise over two pixels in a direction, a fraction of a full turn: 0 is
    to the right, 0.25 downwards.
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
    """Blend the image with itself in other light by a mask of frequency noise.

    Light and colour then vary like shadows of clouds or haze or, at high frequencies, from pixel to
    pixel. In the other light, values above ``low`` (no light) are multiplied by ``gain`` and, in
    each band, by a factor drawn log-evenly from 1 / spread to spread.
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
    """Return random waves, their amplitude a power of frequency: float32 (height, width), 0 to 1.

    The exponent 0 gives white noise, a lower one smoother waves. A single pixel is 0.
    """
    height, width = shape
    across = np.fft.rfftfreq(width).astype(np.float32)
    down = np.fft.fftfreq(height).astype(np.float32)
    frequency = np.hypot(down[:, None], across)
    # Any number but 0 would do, as the mean is set to 0 below.
    frequency[0, 0] = 1
    parts = rng.standard_normal((*frequency.shape, 2), dtype=np.float32)
    waves = parts.view(np.complex64)[..., 0] * frequency ** np.float32(exponent)
    waves[0, 0] = 0
    noise = np.fft.irfft2(waves, s=shape).astype(np.float32, copy=False)
    noise -= noise.min()
    highest = noise.max()
    return noise / highest if highest > 0 else noise


def gaussian_noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise of this standard deviation, in raw values, to every pixel and band."""
    values = rng.standard_normal(image.shape, dtype=np.float32)
    values *= np.float32(deviation)
    values += image
    return as_pixels(values, image.dtype)


def salt_and_pepper(
    image: np.ndarray, share: float, low: float, high: float, rng: np.random.Generator
) -> np.ndarray:
    """Set about this share of the pixels, 0..1, to ``low`` or ``high``, half of them each."""
    drawn = rng.random(image.shape[:2], dtype=np.float32)
    changed = _filled(image, drawn < share, low)
    return _filled(changed, drawn < share / 2, high)


def drop_pixels(
    image: np.ndarray, share: float, value: float, rng: np.random.Generator
) -> np.ndarray:
    """Set all bands of about this share of the pixels, 0..1, to one value."""
    return _filled(image, rng.random(image.shape[:2], dtype=np.float32) < share, value)


def drop_rectangles(
    image: np.ndarray, share: float, value: float, rng: np.random.Generator
) -> np.ndarray:
    """Set rectangles of about this share of the area, 0..1, to one value (coarse dropout).

    They are cells of a grid whose place and cell size are drawn; neighbours make larger shapes.
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
    """Return a copy with all bands of some pixels set to a value."""
    filled = image.copy()
    filled[where] = as_pixels(np.array(value, np.float32), image.dtype)
    return filled


def symmetry(array: np.ndarray, k: int) -> np.ndarray:
    """Flip or rotate an array (h, w, ...) by one of the eight symmetries of the square.

    k of 0 to 3 is the number of quarter turns anticlockwise; 4 to 7 mirror the same left to right
    afterwards. Returns a view, (h, w, ...) for even k and (w, h, ...) for odd k.

    Raises:
        ValueError: k is not one of 0 to 7.
    """
    if k not in range(8):
        raise ValueError(f"k is {k}: the symmetries of the square are numbered 0 to 7")
    turned = np.rot90(array, k % 4)
    return turned[:, ::-1] if k >= 4 else turned


def affine_matrix(
    shape: tuple[int, int],
    turn: float = 0.0,
    factor: float = 1.0,
    slant: float = 0.0,
    direction: float = 0.0,
) -> np.ndarray:
    """Return the map from pixels of the changed patch to where they were in the source.

    Args:
        shape: (height, width), before and after.
        turn: rotation as a fraction of a full turn, anticlockwise as ``np.rot90``.
        factor: scale; above 1 enlarges.
        slant: shear, as the tangent of its angle; areas stay.
        direction: of the shear, as a fraction of a full turn; 0 shifts rows against each other.

    Returns:
        (2, 3) float64, from (x, y, 1) of the output to (x, y) of the source; pixel centres are
        whole numbers, y points down.
    """
    along = _rotation(direction)
    shear = along.T @ np.array([[1.0, slant], [0.0, 1.0]]) @ along
    linear = np.linalg.inv(factor * shear @ _rotation(turn))
    centre = (np.array(shape[::-1]) - 1) / 2
    return np.column_stack([linear, centre - linear @ centre])


def warp(image: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resample a non-empty image bilinearly and its mask by nearest neighbour.

    Beyond its sides the image is mirrored, so that no edge appears, and the mask, (h, w) uint8 of
    0, 1 and 255, is void, so that nothing invented counts. ``affine_matrix`` makes the matrix.

    Raises:
        LabelError: a mask of another dtype than uint8.
    """
    import cv2

    if mask.dtype != np.uint8:
        raise LabelError(f"cannot rotate, scale or shear a mask of {mask.dtype}: give uint8")
    size, image, mask = mask.shape[::-1], np.ascontiguousarray(image), np.ascontiguousarray(mask)
    linear, nearest = (way | cv2.WARP_INVERSE_MAP for way in (cv2.INTER_LINEAR, cv2.INTER_NEAREST))
    moved = cv2.warpAffine(image, matrix, size, flags=linear, borderMode=cv2.BORDER_REFLECT)
    moved_mask = cv2.warpAffine(
        mask, matrix, size, flags=nearest, borderMode=cv2.BORDER_CONSTANT, borderValue=VOID
    )
    return moved.reshape(image.shape), moved_mask


def _rotation(turn: float) -> np.ndarray:
    """Return the (2, 2) rotation of (x, y) by a fraction of a turn, anticlockwise on screen."""
    cosine, sine = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    return np.array([[cosine, sine], [-sine, cosine]])


def stretch(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Map the 2nd to the 98th percentile of the valid values to 0..255, and clip.

    ``valid`` is bool of the shape of the values or of its leading dimensions. Returns float32;
    unchanged if no value is valid.
    """
    if not valid.any():
        return values.astype(np.float32)
    return scale(values, *np.percentile(values[valid], (2, 98)))


def scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low`` to ``high`` to 0..255, and clip; float32 of the same shape."""
    return (np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.float32)


# Classes of a predicted pixel: bit 0 is the truth, bit 1 the prediction.
BACKGROUND, MISSED, FALSE, FOUND = 0, 1, 2, 3
ERROR_COLOURS = {
    BACKGROUND: (0, 0, 0),
    MISSED: (86, 180, 233),
    FALSE: (213, 94, 0),
    FOUND: (0, 158, 115),
    VOID: (128, 128, 128),
}
"""Red, green and blue of each class: black, blue, orange, green, and grey for void.

From the palette of Okabe and Ito (2008), which is safe for colour-blind readers.
"""


def error_classes(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return the class of each pixel: ``BACKGROUND``, ``MISSED``, ``FALSE``, ``FOUND`` or void.

    Masks and result are uint8 of one shape, masks of 0, 1 and 255; void in either mask is void.
    """
    classes = (truth == 1).view(np.uint8) + 2 * (prediction == 1).view(np.uint8)
    classes[(truth == VOID) | (prediction == VOID)] = VOID
    return classes
