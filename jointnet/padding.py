"""Images of any size for a network that wants multiples, and back."""

from collections.abc import Callable

import numpy as np

from preprocessing.tiling import Window, cut


def pad_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """Mirror an image at its bottom and right so that height and width become multiples.

    Args:
        image: ``(height, width, bands)``, any dtype.
        multiple: what the network needs, ``JointNet.MULTIPLE`` for JointNet.

    Returns:
        The image with 0 to ``multiple - 1`` rows and columns more; itself where none is needed.
    """
    height, width = (-(-side // multiple) * multiple for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return cut(image, Window(0, 0, height, width))


def predict_padded(
    predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray, multiple: int
) -> np.ndarray:
    """Probabilities of one image in one piece: padded, predicted, the padding taken off again.

    Args:
        predict: ``(1, height, width, bands)`` raw pixels to ``(1, height, width, 1)``, such as
            ``model.predict_on_batch``.
        image: ``(height, width, bands)`` raw pixels.
        multiple: what the network needs.

    Returns:
        ``(height, width)`` float32 probabilities.
    """
    height, width = image.shape[:2]
    batch = pad_to_multiple(image, multiple)[None]
    return np.asarray(predict(batch))[0, :height, :width, 0]
