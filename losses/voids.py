"""Leave void pixels out of losses."""

import keras


def split_void(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, ignore_class: int | None
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Return labels and probabilities as float32 rows per sample, with each pixel's weight.

    Args:
        y_true: ``(batch, ...)`` labels 0, 1 and ``ignore_class``, any numeric dtype.
        y_pred: probabilities in 0..1 of the same number of elements per sample.
        ignore_class: the label of void pixels, or None where there are none.

    Returns:
        ``(truth, probability, valid)``, each ``(batch, pixels)`` float32; ``valid`` is 1 where
        the pixel counts and 0 where it is void, and ``truth`` is 0 at void pixels.

    Raises:
        ValueError: labels and probabilities have different numbers of pixels per sample.
    """
    batch = keras.ops.shape(y_pred)[0]
    truth = keras.ops.reshape(keras.ops.cast(y_true, "float32"), (batch, -1))
    probability = keras.ops.reshape(keras.ops.cast(y_pred, "float32"), (batch, -1))
    labels, pixels = truth.shape[1], probability.shape[1]
    if None not in (labels, pixels) and labels != pixels:
        raise ValueError(
            f"y_true and y_pred must have one label per probability; got shapes "
            f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}"
        )
    if ignore_class is None:
        return truth, probability, keras.ops.ones_like(truth)
    valid = keras.ops.cast(keras.ops.not_equal(truth, float(ignore_class)), "float32")
    return truth * valid, probability, valid
