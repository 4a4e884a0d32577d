"""Pixels of any depth on a screen; never what a network is fed."""

import numpy as np


def stretch(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Map the 2nd to the 98th percentile of the valid values to 0..255, and clip.

    Args:
        values: any shape and numeric dtype.
        valid: bool of the same shape, or of its leading dimensions; what the percentiles are of.

    Returns:
        float32 of the same shape; as it was where nothing is valid.
    """
    if not valid.any():
        return values.astype(np.float32)
    return scale(values, *np.percentile(values[valid], (2, 98)))


def scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low`` to ``high`` to 0..255, and clip.

    Args:
        values: any shape and numeric dtype.
        low: what becomes 0.
        high: what becomes 255.

    Returns:
        float32 of the same shape.
    """
    return (np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.float32)
