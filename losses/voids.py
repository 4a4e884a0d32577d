"""Leave void pixels out of losses."""

import keras


def split_void(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, ignore_class: int | None
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Return labels, probabilities and validity, each ``(batch, pixels)`` float32.

    ``y_true`` is ``(batch, ...)`` of any numeric dtype, and ``y_pred`` has as many probabilities
    per sample. Where a label is ``ignore_class``, the returned label and validity are 0.

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
