"""Random flips, rotations and colour changes of training patches, with numpy alone.

The eight flips and rotations move pixels and never resample them, so masks stay exact. The
colour changes are one affine transform of the bands, then one clip and one cast. Everything
random comes from the generator that is handed in: the same generator state gives the same
patch, whatever was augmented before.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from preprocessing.errors import LabelError, RasterError, TrainingError

# Luma of ITU-R BT.601, and the two chroma axes of YIQ; a grey pixel has no chroma.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
# Float32 planes of so many pixels stay in the processor's cache, and below the size at which a
# matrix product starts threads that would compete with the training step.
PIXELS_AT_ONCE = 8192
STRENGTHS = ("brightness", "contrast", "saturation", "hue", "gamma")
DTYPES = ("uint8", "uint16", "float32")


def dihedral(array: np.ndarray, k: int) -> np.ndarray:
    """Flip or rotate an array by one of the eight symmetries of the square.

    Args:
        array: (h, w, ...) of any dtype.
        k: 0 to 3 are quarter turns anticlockwise; 4 to 7 are the same, then mirrored left to
            right. 0 changes nothing.

    Returns:
        A view, (h, w, ...) for even k and (w, h, ...) for odd k.

    Raises:
        ValueError: k is not one of 0 to 7.
    """
    _check_symmetry(k)
    turned = np.rot90(array, k % 4)
    return turned[:, ::-1] if k >= 4 else turned


def dihedral_inverse(array: np.ndarray, k: int) -> np.ndarray:
    """Undo ``dihedral(array, k)``; same arguments, a view.

    Raises:
        ValueError: k is not one of 0 to 7.
    """
    _check_symmetry(k)
    return np.rot90(array[:, ::-1] if k >= 4 else array, -(k % 4))


@dataclass(frozen=True)
class Augmentation:
    """Which random changes are made to a patch, and how strong.

    All strengths lie in 0 to 1, 0 is none; each change is drawn evenly between its two extremes.
    ``dataclasses.asdict`` gives what JSON holds, and ``Augmentation(**it)`` takes it back.

    Attributes:
        dihedral: one of the eight flips and rotations; of the four that keep the shape where a
            patch is not square.
        brightness: shift of all bands, up to plus or minus this fraction of the value range.
        contrast: stretch about the centre of the value range, by 1 - contrast to 1 + contrast.
        saturation: distance from grey, times 1 - saturation to 1 + saturation. Of the first
            three bands (red, green, blue); the others, and images of fewer bands, are left alone.
        hue: turn about the grey axis, up to plus or minus this fraction of a full turn, of the
            same bands; luma stays.
        gamma: exponent of the value's fraction of the range, 1 / (1 + gamma) to 1 + gamma.
        value_range: (low, high) that the strengths refer to. None is the whole range of an
            integer dtype; 11-bit imagery in uint16 wants (0, 2047), and float32 has no range of
            its own.

    Raises:
        TrainingError: a strength outside 0 to 1, or a range that is not (low, higher).
    """

    dihedral: bool = True
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0
    gamma: float = 0.0
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; a list from JSON becomes the tuple that it was."""
        for name in STRENGTHS:
            strength = getattr(self, name)
            if not 0 <= strength <= 1:
                raise TrainingError(
                    f"augmentation {name} is {strength}: give a fraction from 0 to 1"
                )
        if self.value_range is not None:
            limits = tuple(float(limit) for limit in self.value_range)
            if len(limits) != 2 or not limits[0] < limits[1]:
                raise TrainingError(
                    f"augmentation value_range is {limits}: give (low, high) with low below high"
                )
            object.__setattr__(self, "value_range", limits)

    def apply(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change a patch and its mask together.

        Args:
            image: (h, w, bands) uint8, uint16 or float32, raw values.
            mask: (h, w) of any dtype; it is flipped and rotated with the image, no more.
            rng: source of all randomness; how much is drawn does not depend on the strengths.

        Returns:
            Image and mask, contiguous, of the shapes and dtypes that came in. Integer images are
            rounded and clipped to their dtype's range, float32 ones are not. Where nothing was
            to be changed they may be the arrays that came in.

        Raises:
            LabelError: the mask has another height or width than the image.
            RasterError: another dtype, or float32 without ``value_range``.
        """
        if image.shape[:2] != mask.shape:
            raise LabelError(f"a mask of {mask.shape} does not fit an image of {image.shape}")
        symmetry = int(rng.integers(8))
        shifts = rng.uniform(-1, 1, size=len(STRENGTHS))
        if not self.dihedral:
            symmetry = 0
        elif image.shape[0] != image.shape[1]:
            symmetry -= symmetry % 2
        image = self._recolour(image, shifts)
        return (
            np.ascontiguousarray(dihedral(image, symmetry)),
            np.ascontiguousarray(dihedral(mask, symmetry)),
        )

    def _recolour(self, image: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Apply the five colour changes, each as far as its shift in -1 to 1 says."""
        strengths = [getattr(self, name) for name in STRENGTHS]
        if not any(strengths) or image.size == 0:
            return image
        low, high = self._limits(image.dtype)
        brightness, contrast, saturation, hue, _ = shifts * strengths
        matrix = np.eye(image.shape[-1])
        if len(matrix) >= 3 and (self.saturation or self.hue):
            matrix[:3, :3] = _colour_matrix(1 + saturation, hue)
        matrix *= 1 + contrast
        # Rows of a colour matrix add up to one, so one offset serves every band.
        offset = brightness * (high - low) - contrast * (low + high) / 2
        if self.gamma:
            curve = _tone_curve(image.dtype, (1 + self.gamma) ** shifts[4], low, high)
        recoloured = np.empty_like(image)
        step = max(1, PIXELS_AT_ONCE // image.shape[1])
        for start in range(0, len(image), step):
            rows = slice(start, start + step)
            values = curve(image[rows]) if self.gamma else image[rows]
            recoloured[rows] = _affine(values, matrix, offset, image.dtype)
        return recoloured

    def _limits(self, dtype: np.dtype) -> tuple[float, float]:
        """Return the range of values that the strengths refer to."""
        if dtype.name not in DTYPES:
            raise RasterError(f"cannot augment {dtype} images: give one of {', '.join(DTYPES)}")
        if self.value_range is not None:
            return self.value_range
        if dtype == np.float32:
            raise RasterError(
                "cannot augment float32 images without their range: give the augmentation's "
                "value_range, such as (0, 1)"
            )
        return 0.0, float(np.iinfo(dtype).max)


def _check_symmetry(k: int) -> None:
    if k not in range(8):
        raise ValueError(f"k is {k}: the symmetries of the square are numbered 0 to 7")


def _colour_matrix(saturation: float, hue: float) -> np.ndarray:
    """Return the (3, 3) RGB matrix that scales chroma and turns it by ``hue`` full turns."""
    cosine, sine = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    chroma = np.eye(3)
    chroma[1:, 1:] = saturation * np.array([[cosine, -sine], [sine, cosine]])
    return YIQ_TO_RGB @ chroma @ RGB_TO_YIQ


def _affine(values: np.ndarray, matrix: np.ndarray, offset: float, dtype: np.dtype) -> np.ndarray:
    """Return ``matrix @ bands + offset`` of every pixel of (h, w, bands), in ``dtype``."""
    # Planes, because numpy is several times faster on long rows than on triples.
    planes = np.moveaxis(values, -1, 0).astype(np.float32, order="C")
    flat = matrix.astype(np.float32) @ planes.reshape(len(planes), -1)
    flat += np.float32(offset)
    if dtype != np.float32:
        limits = np.iinfo(dtype)
        np.rint(flat, out=flat)
        np.clip(flat, limits.min, limits.max, out=flat)
    return np.moveaxis(flat.reshape(planes.shape), 0, -1).astype(dtype)


def _tone_curve(
    dtype: np.dtype, exponent: float, low: float, high: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what raises values, as fractions of low to high, to a power, in float32.

    Values outside the range stay as they are. Integers are looked up in a table.
    """

    def bend(values: np.ndarray) -> np.ndarray:
        fraction = np.clip((values - low) / (high - low), 0, 1)
        return (values + (high - low) * (fraction**exponent - fraction)).astype(np.float32)

    if dtype == np.float32:
        return bend
    return bend(np.arange(np.iinfo(dtype).max + 1)).__getitem__
