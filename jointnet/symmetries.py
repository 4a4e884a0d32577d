"""Test-time augmentation: the mean of what a network says of a window turned and mirrored.

A window from above has no top: each of its eight flips and quarter turns is as good an input. Their
mean has fewer errors that hang on the direction; it costs eight times the network's time.
"""

from collections.abc import Callable

import numpy as np

SYMMETRIES = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))


def turned(batch: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """Windows mirrored (left to right), then turned by quarters, anticlockwise.

    Args:
        batch: ``(batch, size, size, channels)``, any dtype.
        turns: quarter turns.
        mirrored: whether to mirror.

    Returns:
        An array of the same shape and dtype.
    """
    return np.rot90(batch[:, :, ::-1] if mirrored else batch, turns, axes=(1, 2))


def turned_back(batch: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """The inverse of ``turned``."""
    back = np.rot90(batch, -turns, axes=(1, 2))
    return back[:, :, ::-1] if mirrored else back


def mean_over_symmetries(
    predict: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that gives the mean of ``predict`` over the eight symmetries of its windows.

    Args:
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``; called
            eight times, with batches of one shape.

    Returns:
        A function of the same form; its probabilities are float32.
    """

    def mean(batch: np.ndarray) -> np.ndarray:
        total = np.zeros((*batch.shape[:3], 1), np.float32)
        for symmetry in SYMMETRIES:
            seen = np.ascontiguousarray(turned(batch, *symmetry))
            total += turned_back(np.asarray(predict(seen), np.float32), *symmetry)
        return total / len(SYMMETRIES)

    return mean
