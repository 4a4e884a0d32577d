"""Flips and quarter turns; and rotation, scale and shear as one affine map, resampled once.

Pixel centres have whole coordinates, and the centre of the patch stays where it is: a quarter turn
is ``np.rot90`` to the last bit.
"""

import numpy as np

from preprocessing.errors import LabelError

VOID = 255


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


def affine_matrix(
    shape: tuple[int, int],
    turn: float = 0.0,
    factor: float = 1.0,
    slant: float = 0.0,
    direction: float = 0.0,
) -> np.ndarray:
    """Return the map from pixels of the changed patch to where they were in the source.

    Args:
        shape: (height, width) of the patch, before and after.
        turn: rotation as a fraction of a full turn, positive anticlockwise as ``np.rot90``.
        factor: scale; above 1 things become larger.
        slant: shear, as the tangent of its angle; areas stay.
        direction: of the shear, as a fraction of a full turn; 0 shifts rows against each other.

    Returns:
        (2, 3) float64, from (x, y, 1) of the output to (x, y) of the source, pixel centres at
        whole numbers, y downwards.
    """
    along = _rotation(direction)
    shear = along.T @ np.array([[1.0, slant], [0.0, 1.0]]) @ along
    linear = np.linalg.inv(factor * shear @ _rotation(turn))
    centre = (np.array(shape[::-1]) - 1) / 2
    return np.column_stack([linear, centre - linear @ centre])


def warp(image: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resample a patch bilinearly and its mask by nearest neighbour.

    What lies outside of the patch is its mirror image, so that no edge appears where the imagery
    ends, and void in the mask, so that nothing invented ever counts. The outermost row is
    mirrored with the rest: between the last pixel centre and the edge a pixel is the last one.

    Args:
        image: (h, w, bands) uint8, uint16, int16 or float32, not empty.
        mask: (h, w) uint8 of 0, 1 and 255.
        matrix: (2, 3), see ``affine_matrix``.

    Returns:
        Image and mask of the same shapes and dtypes.

    Raises:
        LabelError: a mask of another dtype, which could not hold void.
    """
    import cv2

    if mask.dtype != np.uint8:
        raise LabelError(f"cannot rotate, scale or shear a mask of {mask.dtype}: give uint8")
    size = mask.shape[::-1]
    moved = cv2.warpAffine(
        np.ascontiguousarray(image),
        matrix,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    moved_mask = cv2.warpAffine(
        np.ascontiguousarray(mask),
        matrix,
        size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=VOID,
    )
    return moved.reshape(image.shape), moved_mask


def _rotation(turn: float) -> np.ndarray:
    """Return the (2, 2) rotation of (x, y) by a fraction of a turn, anticlockwise on screen."""
    cosine, sine = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    return np.array([[cosine, sine], [-sine, cosine]])


def _check_symmetry(k: int) -> None:
    if k not in range(8):
        raise ValueError(f"k is {k}: the symmetries of the square are numbered 0 to 7")
