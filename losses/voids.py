"""Void pixels in losses: read from the labels, counted nowhere."""

from keras import ops


def split_void(y_true, y_pred, ignore_class: int | None):
    """Labels and probabilities as float32 rows per sample, with the weight of each pixel.

    Args:
        y_true: ``(batch, ...)`` labels 0, 1 and ``ignore_class``, any numeric dtype.
        y_pred: probabilities in 0..1 of the same number of elements per sample.
        ignore_class: the label of void pixels, or None where there are none.

    Returns:
        ``(truth, probability, valid)``, each ``(batch, pixels)`` float32; ``valid`` is 1 where
        the pixel counts and 0 where it is void, and ``truth`` is 0 at void pixels.
    """
    batch = ops.shape(y_pred)[0]
    truth = ops.reshape(ops.cast(y_true, "float32"), (batch, -1))
    probability = ops.reshape(ops.cast(y_pred, "float32"), (batch, -1))
    if ignore_class is None:
        return truth, probability, ops.ones_like(truth)
    valid = ops.cast(ops.not_equal(truth, float(ignore_class)), "float32")
    return truth * valid, probability, valid
