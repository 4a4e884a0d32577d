"""Export a network as ONNX, SavedModel or LiteRT, and run what was exported beside Keras.

The engines of these formats need neither this project nor Keras.
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

# TensorFlow's SavedModel format leaves this folder to others.
SAVED_MODEL_CONTRACT = Path("assets.extra", "contract.json")
AXES = ("batch", "height", "width")
INPUT, OUTPUT = "pixels", "probabilities"


def contract(run: Run) -> dict[str, Any]:
    """Return what one must know to use a network.

    This is the network's class, bands, dtype, GSD in metres, target, side and overlap of windows
    in pixels, and threshold, as in the run's ``config.json``; the bands that training named, or
    None; what height and width must be multiples of; and the names of input and output.
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
    """Write a network as ONNX, with the contract in its ``metadata_props``.

    Strings of the contract are written as they are, all else as JSON.

    Raises:
        JointNetError: see ``require``.
        RunError: the network does not compute in float32.
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
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
    """Write a SavedModel folder, with the contract in ``assets.extra``; see ``export_onnx``."""
    require("saved_model")
    with replacing_folder(path, overwrite, holds="saved_model.pb") as folder:
        _export(run, folder, "tf_saved_model")
        _write_contract(run, folder / SAVED_MODEL_CONTRACT)


def export_litert(run: Run, path: Path, overwrite: bool = False) -> None:
    """Write LiteRT (``.tflite``), with the contract as JSON beside it; see ``export_onnx``.

    The file needs only LiteRT's own operations. It says that inputs are 1 x 1 x 1 x bands, so
    call ``resize_tensor_input`` before the interpreter allocates.
    """
    require("litert")
    with replacing(contract_beside(path), overwrite) as text, replacing(path, overwrite) as beside:
        # Keras accepts no other ending.
        raw = beside.with_name("raw.tflite")
        _export(run, raw, "litert")
        raw.rename(beside)
        _write_contract(run, text)


def contract_beside(path: Path) -> Path:
    """Return the path of the JSON file that belongs to a LiteRT file."""
    return path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class Format:
    """A format that a network can be exported to.

    ``packages`` are what it needs beside this project's own, by names of import and of pip;
    ``export`` writes a run to a path; ``contract`` says where the contract is.
    """

    title: str
    ending: str
    packages: dict[str, str]
    export: Callable[..., None]
    contract: str


_ONNX = {name: name for name in ("onnx", "tf2onnx", "onnxruntime")}
_LITERT = {"ai_edge_litert": "ai-edge-litert"}
FORMATS = {
    "onnx": Format("ONNX", ".onnx", _ONNX, export_onnx, "its metadata_props"),
    "saved_model": Format(
        "SavedModel", "_saved_model", {}, export_saved_model, f"its {SAVED_MODEL_CONTRACT}"
    ),
    "litert": Format("LiteRT", ".tflite", _LITERT, export_litert, "the .json beside it"),
}


def require(name: str) -> None:
    """Check that one of ``FORMATS`` can be written and tried here.

    Raises:
        JointNetError: a package is missing, or Keras runs on another backend than TensorFlow.
    """
    form = FORMATS[name]
    if keras.backend.backend() != "tensorflow":
        raise JointNetError(
            f"TensorFlow exports {form.title}, but Keras runs on {keras.backend.backend()}; "
            "set KERAS_BACKEND=tensorflow"
        )
    if any(importlib.util.find_spec(module) is None for module in form.packages):
        missing = " ".join(form.packages.values())
        raise JointNetError(f"{form.title} needs `pip install {missing}`")


def _export(run: Run, path: Path, format: str) -> None:
    """Let Keras write a network, with free batch, height and width."""
    policy = run.model.dtype_policy.name
    if policy != "float32":
        raise RunError(
            f"{run.folder} computes in {policy}, and only float32 is exported; "
            "load_run(folder) without a dtype gives that"
        )
    shape = (*(None for _ in AXES), run.config["bands"])
    fed = [keras.InputSpec(shape=shape, dtype=run.config["dtype"], name=INPUT)]
    with warnings.catch_warnings():
        # Keras' patch of tf2onnx uses a name of numpy that is going to change.
        warnings.simplefilter("ignore", FutureWarning)
        run.model.export(path, format=format, verbose=False, input_signature=fed)


def _name_axes(model: Any) -> None:
    """Name the output and the free axes of an ``onnx.ModelProto``, which tf2onnx numbers."""
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
    """Give the dilated convolutions of an ``onnx.GraphProto`` their padding in numbers.

    ONNX Runtime does not compute it for these. Their kernels are odd and their strides 1, so both
    sides get the same.
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


Engine = Callable[[np.ndarray], np.ndarray]
"""Takes ``(batch, height, width, bands)`` raw pixels, gives ``(batch, height, width, 1)``."""


def predict_onnx(path: Path) -> Engine:
    """Load an ONNX file into ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def predict_saved_model(path: Path) -> Engine:
    """Load a SavedModel into TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(images).numpy()


def predict_litert(path: Path) -> Engine:
    """Load a LiteRT file; its interpreter is made anew for each call."""
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


PREDICTORS: dict[str, Callable[[Path], Engine]] = {
    "onnx": predict_onnx,
    "saved_model": predict_saved_model,
    "litert": predict_litert,
}
"""For each of ``FORMATS`` what loads it."""


def greatest_difference(run: Run, name: str, path: Path, patch: np.ndarray) -> float:
    """Return the greatest difference between an exported network's probabilities and Keras'.

    Both predict a patch, then half of it in a batch of two, so that every free axis changes. The
    patch is ``(height, width, bands)`` raw pixels in the run's dtype, of a size that the network
    takes; ``name`` is one of ``FORMATS``.

    Raises:
        JointNetError: the exported network gives another shape or dtype, or values that are not
            finite.
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
                f"{path} gives {given.dtype} {given.shape} for images of {images.shape}, "
                f"not {wanted.dtype} {wanted.shape}"
            )
        differences.append(float(np.abs(given - wanted).max()))
    if not np.isfinite(differences).all():
        raise JointNetError(f"{path} gives values that are not finite")
    return max(differences)


def sample_patch(run: Run) -> np.ndarray:
    """Return a generated patch with the mean and deviation of a network's bands.

    It is ``(window, window, bands)`` in the run's dtype.
    """
    from preprocessing.sample_scenes import SMALLEST, render_scene

    side, network, dtype = run.config["window"], run.model, np.dtype(run.config["dtype"])
    image, *_ = render_scene(max(side, SMALLEST))
    grey = image[:side, :side].mean(axis=2, keepdims=True)
    grey = (grey - grey.mean()) / (grey.std() or 1)
    pixels = grey * np.array(network.band_scale) + np.array(network.band_offset)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    return pixels.astype(dtype)
