"""What was exported, loaded again by the engines that it is for, and compared with Keras.

None of these engines needs this project, nor Keras.
"""

import importlib.util
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from jointnet.runs import CONFIG_KEYS, Run
from preprocessing.errors import JointNetError, RunError
from preprocessing.output_files import replacing, replacing_folder

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
"""How each of ``FORMATS`` is loaded."""


def greatest_difference(run: Run, name: str, path: Path, patch: np.ndarray) -> float:
    """Run an exported network beside Keras', on a patch and on other shapes.

    The other shapes are a part of the patch that is not square, as a batch of two: what is said to
    be free is used so.

    Args:
        run: the network that was exported.
        name: one of ``FORMATS``.
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


# Where TensorFlow's SavedModel format leaves room for what others add to it.
SAVED_MODEL_CONTRACT = Path("assets.extra", "contract.json")
AXES = ("batch", "height", "width")
INPUT, OUTPUT = "pixels", "probabilities"


def contract(run: Run) -> dict[str, Any]:
    """What the use of a network depends on, beside its weights.

    Returns:
        The class of the network, bands, dtype, GSD in metres, target, side and overlap of windows
        in pixels, and threshold, as in the run's ``config.json``; the bands that training named,
        or None; what height and width must be multiples of; and what goes in and comes out.
    """
    numbers = {key: run.config[key] for key in CONFIG_KEYS if key != "network"}
    return {
        "run": run.name,
        "network": run.config["network"]["class"],
        **numbers,
        "band_numbers": run.config.get("band_numbers"),
        "multiple": run.model.MULTIPLE,
        "input": f"{INPUT}: (batch, height, width, bands), raw, in this dtype",
        "output": f"{OUTPUT}: (batch, height, width, 1), float32, 0 to 1",
    }


def export_onnx(run: Run, path: Path, overwrite: bool = False) -> None:
    """Write a network as ONNX, the contract in its ``metadata_props``.

    Strings of the contract stand there as they are, everything else as JSON.

    Raises:
        JointNetError: as ``require``.
        RunError: the network does not compute in float32.
        OutputError: exists and ``overwrite`` is off, or cannot be written.
    """
    require("onnx")
    import onnx

    with replacing(path, overwrite) as beside:
        raw = beside.with_name("raw.onnx")
        _export(run, raw, "onnx")
        model = onnx.load(raw)
        _name_axes(model)
        _pad_explicitly(model.graph)
        texts = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in contract(run).items()
        }
        onnx.helper.set_model_props(model, texts)
        onnx.checker.check_model(model)
        onnx.save(model, beside)


def export_saved_model(run: Run, path: Path, overwrite: bool = False) -> None:
    """Write a network as a SavedModel folder, the contract in ``assets.extra/contract.json``.

    Raises:
        As ``export_onnx``.
    """
    require("saved_model")
    with replacing_folder(path, overwrite, holds="saved_model.pb") as folder:
        _export(run, folder, "tf_saved_model")
        _write_contract(run, folder / SAVED_MODEL_CONTRACT)


def export_litert(run: Run, path: Path, overwrite: bool = False) -> None:
    """Write a network as LiteRT (``.tflite``), the contract as JSON beside it.

    It needs no operations beyond LiteRT's own. The input's shape stands in the file as 1 x 1 x 1 x
    bands, so an interpreter is told the size before it allocates (``resize_tensor_input``).

    Raises:
        As ``export_onnx``.
    """
    require("litert")
    with replacing(contract_beside(path), overwrite) as text, replacing(path, overwrite) as beside:
        # Keras takes no other ending.
        raw = beside.with_name("raw.tflite")
        _export(run, raw, "litert")
        raw.rename(beside)
        _write_contract(run, text)


def contract_beside(path: Path) -> Path:
    """The JSON file that belongs to a LiteRT file."""
    return path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class Format:
    """A format that a network can be exported to.

    Attributes:
        title: its name.
        ending: of its files; of a folder's name where it is one.
        packages: what it needs beside this project's own, by the name of import and of pip.
        export: writes a run to a path; takes ``overwrite``.
        contract: where the contract lies.
    """

    title: str
    ending: str
    packages: dict[str, str]
    export: Callable[..., None]
    contract: str


_ONNX = {name: name for name in ("onnx", "tf2onnx", "onnxruntime")}
FORMATS = {
    "onnx": Format("ONNX", ".onnx", _ONNX, export_onnx, "its metadata_props"),
    "saved_model": Format(
        "SavedModel",
        "_saved_model",
        {},
        export_saved_model,
        f"its {SAVED_MODEL_CONTRACT}",
    ),
    "litert": Format(
        "LiteRT",
        ".tflite",
        {"ai_edge_litert": "ai-edge-litert"},
        export_litert,
        "the .json beside it",
    ),
}


def require(name: str) -> None:
    """Refuse, before any work is done, a format that cannot be written and checked here.

    Args:
        name: one of ``FORMATS``.

    Raises:
        JointNetError: a package is missing, or Keras runs on another backend than TensorFlow.
    """
    form = FORMATS[name]
    if keras.backend.backend() != "tensorflow":
        raise JointNetError(
            f"{form.title} is exported by TensorFlow, Keras runs on {keras.backend.backend()}; "
            "KERAS_BACKEND=tensorflow changes that"
        )
    if any(importlib.util.find_spec(module) is None for module in form.packages):
        missing = " ".join(form.packages.values())
        raise JointNetError(f"{form.title} needs `pip install {missing}`")


def _export(run: Run, path: Path, format: str) -> None:
    """Write a network by Keras' own means, with free batch, height and width."""
    policy = run.model.dtype_policy.name
    if policy != "float32":
        raise RunError(
            f"{run.folder}: computes in {policy}; what is exported is float32: "
            f"load_run(folder) without a dtype gives it"
        )
    shape = (*(None for _ in AXES), run.config["bands"])
    fed = [keras.InputSpec(shape=shape, dtype=run.config["dtype"], name=INPUT)]
    with warnings.catch_warnings():
        # Keras' own patch of tf2onnx asks numpy for a name that is going to change.
        warnings.simplefilter("ignore", FutureWarning)
        run.model.export(path, format=format, verbose=False, input_signature=fed)


def _name_axes(model: Any) -> None:
    """Name the output of an ``onnx.ModelProto``, and its free axes, which tf2onnx numbers."""
    graph = model.graph
    (fed,), (given,) = graph.input, graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == given.name else name for name in names]
    given.name = OUTPUT
    for value in (fed, given):
        for axis, name in zip(value.type.tensor_type.shape.dim, AXES, strict=False):
            axis.dim_param = name


def _pad_explicitly(graph: Any) -> None:
    """Give an ``onnx.GraphProto``'s dilated convolutions their padding in numbers.

    ONNX Runtime does not compute it for these. Kernels are odd and strides 1, so that both sides
    get the same.
    """
    import onnx

    for node in graph.node:
        found = {attribute.name: attribute for attribute in node.attribute}
        rates = found["dilations"].ints if "dilations" in found else [1]
        if node.op_type == "Conv" and max(rates) > 1 and "auto_pad" in found:
            sides = zip(rates, found["kernel_shape"].ints, strict=True)
            padding = [rate * (side - 1) // 2 for rate, side in sides]
            node.attribute.remove(found["auto_pad"])
            node.attribute.append(onnx.helper.make_attribute("pads", padding * 2))


def _write_contract(run: Run, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(contract(run), indent=2) + "\n", encoding="utf-8")
