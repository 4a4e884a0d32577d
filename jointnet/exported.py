"""What was exported, loaded again by the engines that it is for, and compared with Keras.

None of these engines needs this project, nor Keras.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jointnet.export import INPUT, OUTPUT
from jointnet.runs import Run
from preprocessing.errors import JointNetError

Predict = Callable[[np.ndarray], np.ndarray]


def predict_onnx(path: Path) -> Predict:
    """Load an ONNX file into ONNX Runtime: ``(batch, height, width, bands)`` to ``(..., 1)``."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def predict_saved_model(path: Path) -> Predict:
    """Load a SavedModel into TensorFlow: ``(batch, height, width, bands)`` to ``(..., 1)``."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(images).numpy()


def predict_litert(path: Path) -> Predict:
    """Load a LiteRT file into its interpreter: ``(batch, height, width, bands)`` to ``(..., 1)``.

    The interpreter is made anew for each size.
    """
    from ai_edge_litert.interpreter import Interpreter

    def predict(images: np.ndarray) -> np.ndarray:
        interpreter = Interpreter(str(path))
        fed, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.resize_tensor_input(fed["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(fed["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    return predict


PREDICTORS: dict[str, Callable[[Path], Predict]] = {
    "onnx": predict_onnx,
    "saved_model": predict_saved_model,
    "litert": predict_litert,
}
"""How each of ``export.FORMATS`` is loaded."""


def greatest_difference(run: Run, name: str, path: Path, patch: np.ndarray) -> float:
    """Run an exported network beside Keras', on a patch and on other shapes.

    The other shapes are a part of the patch that is not square, as a batch of two: what is said to
    be free is used so.

    Args:
        run: the network that was exported.
        name: one of ``export.FORMATS``.
        path: what was exported.
        patch: ``(height, width, bands)`` raw pixels in the run's dtype; height and width multiples
            that the network takes.

    Returns:
        The greatest difference of two probabilities at a pixel.

    Raises:
        JointNetError: the exported network gives another shape or dtype, or values that are no
            numbers.
    """
    predict, multiple = PREDICTORS[name](path), run.model.MULTIPLE
    rows = max(patch.shape[0] // 2 // multiple, 1) * multiple
    part = patch[:rows]
    differences = []
    for images in (patch[None], np.stack([part, part[:, ::-1]])):
        wanted = np.asarray(run.model.predict_on_batch(images))
        given = predict(images)
        if given.shape != wanted.shape or given.dtype != wanted.dtype:
            raise JointNetError(
                f"{path}: gives {given.dtype} {given.shape} for images of {images.shape}, "
                f"{wanted.dtype} {wanted.shape} was to come"
            )
        differences.append(float(np.abs(given - wanted).max()))
    if not np.isfinite(differences).all():
        raise JointNetError(f"{path}: gives values that are no numbers")
    return max(differences)
