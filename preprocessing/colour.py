"""Colour changes of patches: one affine transform of the bands, one clip, one cast; numpy alone."""

from collections.abc import Callable

import numpy as np

# Luma of ITU-R BT.601, and the two chroma axes of YIQ; a grey pixel has no chroma.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
# Float32 planes of so many pixels stay in the processor's cache, and below the size at which a
# matrix product starts threads that would compete with the training step.
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

    Args:
        image: (h, w, bands) uint8, uint16, int16 or float32, raw values.
        low: bottom of the range of values that the changes refer to.
        high: top of it.
        brightness: added to all bands, as a fraction of the range.
        contrast: all bands are stretched about the centre of the range by 1 + contrast.
        chroma: factor of the distance from grey, of the first three bands (red, green, blue); 0 is
            their luma. Further bands, and images of fewer bands, are left alone.
        hue: fraction of a full turn about the grey axis, of the same bands; luma stays.
        gamma: exponent of the value's fraction of the range.

    Returns:
        The same shape and dtype. Integers are rounded and clipped to their dtype's range, float32
        is not. Where nothing is to be changed it is the array that came in.
    """
    if (brightness, contrast, chroma, hue, gamma) == (0, 0, 1, 0, 1) or image.size == 0:
        return image
    matrix, offset = affine_colours(image.shape[-1], low, high, brightness, contrast, chroma, hue)
    if gamma != 1:
        curve = _tone_curve(image.dtype, gamma, low, high)
    recoloured = np.empty_like(image)
    step = max(1, PIXELS_AT_ONCE // image.shape[1])
    for start in range(0, len(image), step):
        rows = slice(start, start + step)
        values = curve(image[rows]) if gamma != 1 else image[rows]
        recoloured[rows] = _affine(values, matrix, offset, image.dtype)
    return recoloured


def affine_colours(
    bands: int,
    low: float,
    high: float,
    brightness: float = 0.0,
    contrast: float = 0.0,
    chroma: float = 1.0,
    hue: float = 0.0,
) -> tuple[np.ndarray, float]:
    """What ``recolour`` does after the tone curve: ``matrix @ bands + offset`` of every pixel.

    Args:
        bands: number of bands.
        low: see ``recolour``, as all further ones.
        high: top of the range.
        brightness: shift.
        contrast: stretch.
        chroma: factor.
        hue: turn.

    Returns:
        A matrix ``(bands, bands)`` float64, and the offset of every band.
    """
    matrix = np.eye(bands)
    if bands >= 3 and (chroma != 1 or hue):
        matrix[:3, :3] = _colour_matrix(chroma, hue)
    # Rows of a colour matrix add up to one, so one offset serves every band.
    return matrix * (1 + contrast), brightness * (high - low) - contrast * (low + high) / 2


def as_pixels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round float32 values, in place, to the nearest that ``dtype`` holds; float32 is left alone.

    Args:
        values: float32 of any shape; overwritten.
        dtype: uint8, uint16, int16 or float32.
    """
    if dtype != np.float32:
        limits = np.iinfo(dtype)
        np.rint(values, out=values)
        np.clip(values, limits.min, limits.max, out=values)
    return values.astype(dtype, copy=False)


def _colour_matrix(chroma: float, hue: float) -> np.ndarray:
    """Return the (3, 3) RGB matrix that scales chroma and turns it by ``hue`` full turns."""
    cosine, sine = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    turn = np.eye(3)
    turn[1:, 1:] = chroma * np.array([[cosine, -sine], [sine, cosine]])
    return YIQ_TO_RGB @ turn @ RGB_TO_YIQ


def _affine(values: np.ndarray, matrix: np.ndarray, offset: float, dtype: np.dtype) -> np.ndarray:
    """Return ``matrix @ bands + offset`` of every pixel of (h, w, bands), in ``dtype``."""
    # Planes, because numpy is several times faster on long rows than on triples.
    planes = np.moveaxis(values, -1, 0).astype(np.float32, order="C")
    flat = matrix.astype(np.float32) @ planes.reshape(len(planes), -1)
    flat += np.float32(offset)
    return np.moveaxis(as_pixels(flat, dtype).reshape(planes.shape), 0, -1)


def _tone_curve(
    dtype: np.dtype, exponent: float, low: float, high: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what raises values, as fractions of low to high, to a power, in float32.

    Values outside the range stay as they are. Integers are looked up in a table.
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
