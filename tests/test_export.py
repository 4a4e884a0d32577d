import functools
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from experiments import export as command
from experiments.options import SHIPPED
from jointnet import ResNetUNet, export, runs
from jointnet.export import (
    FORMATS,
    PREDICTORS,
    SAVED_MODEL_CONTRACT,
    contract,
    contract_beside,
    greatest_difference,
    sample_patch,
)
from jointnet.runs import Run, load_run
from layers import BandScaling
from preprocessing.errors import JointNetError, OutputError, RunError
from preprocessing.rasters import RasterReader
from preprocessing.tiling import Window
from tests import shallow_resnet
from tests.helpers import CONFIG, StandIn, blotches, error, make_run

# Of a probability, on random networks and real ones.
TOLERANCE = 1e-4
every_format = pytest.mark.parametrize("name", list(FORMATS))
NUMBERS = {"bands": 3, "dtype": "uint8", "gsd": 0.3, "target": "buildings", "window": 64}
NUMBERS |= {"overlap": 16, "threshold": 0.6, "multiple": 8, "network": "JointNet"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(make_run(tmp_path_factory.mktemp("runs") / "small"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What the command says and writes: each format of a trained network, with small windows.

    It takes about fifteen seconds for each.
    """
    folder = shutil.copytree(SHIPPED["buildings"], tmp_path_factory.mktemp("runs") / "shipped")
    config = json.loads((folder / "config.json").read_text())
    small = {"window": NUMBERS["window"], "overlap": NUMBERS["overlap"]}
    (folder / "config.json").write_text(json.dumps(config | small))
    result = call("--model", folder)
    assert result.exit_code == 0, result.output
    paths = {name: folder / f"export/shipped{form.ending}" for name, form in FORMATS.items()}
    return SimpleNamespace(lines=result.stdout.splitlines(), **paths)


@pytest.fixture(scope="module")
def shipped(exported):
    return load_run(exported.onnx.parents[1])


def call(*words):
    return CliRunner().invoke(command.main, [str(word) for word in words])


# What is written, fed with pixels


@pytest.mark.slow
@every_format
def test_an_exported_network_equals_keras_at_every_size(shipped, exported, name):
    predict = PREDICTORS[name](getattr(exported, name))
    for shape in ((1, 32, 32), (2, 24, 56), (1, 64, 8), (3, 40, 32)):
        image = blotches(shape[1], shape[0] * shape[2]).reshape(shape[1], *shape[::2], 3)
        images = np.ascontiguousarray(image.swapaxes(0, 1))
        assert images.shape == (*shape, 3) and images.dtype == np.uint8
        given, wanted = predict(images), shipped.model.predict_on_batch(images)
        assert given.dtype == np.float32 and given.shape == (*shape, 1)
        np.testing.assert_allclose(given, wanted, atol=TOLERANCE)
    # Not as a network would that gives the same for all.
    assert np.ptp(wanted) > 100 * TOLERANCE


@pytest.mark.slow
@every_format
def test_the_command_says_by_how_much_they_differ(exported, name):
    (line,) = (line for line in exported.lines if line.startswith(f"{getattr(exported, name)}: "))
    assert float(re.search(r"at most (\S+) from Keras", line)[1]) < TOLERANCE


@pytest.mark.slow
@every_format
def test_a_size_that_the_network_does_not_take_is_an_error(exported, name):
    predict = PREDICTORS[name](getattr(exported, name))
    with pytest.raises(Exception):  # noqa: B017 (each engine has its own)
        predict(blotches(36, 32)[None])


@pytest.mark.slow
@every_format
def test_the_numbers_travel_with_the_network(shipped, exported, name):
    import onnx

    path = getattr(exported, name)
    if name == "onnx":
        texts = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
        assert texts["dtype"] == "uint8" and texts["network"] == "JointNet"
        plain = ("run", "network", "dtype", "target", "input", "output")
        found = {key: text if key in plain else json.loads(text) for key, text in texts.items()}
    else:
        file = path / SAVED_MODEL_CONTRACT if name == "saved_model" else contract_beside(path)
        found = json.loads(file.read_text())
    assert found == contract(shipped)
    assert found | NUMBERS == found


@pytest.mark.slow
def test_onnx_names_what_goes_in_and_out(exported):
    import onnx

    model = onnx.load(exported.onnx)
    sides = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    axes = ["batch", "height", "width"]
    assert sides == {"pixels": [*axes, 3], "probabilities": [*axes, 1]}
    assert {node.domain for node in model.graph.node} == {""}
    dilations = [
        attribute.ints[0]
        for node in model.graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "dilations" and max(attribute.ints) > 1
    ]
    # Of four blocks.
    assert sorted(dilations) == [2] * 8 + [5] * 8


@pytest.mark.slow
def test_a_saved_model_needs_nothing_but_tensorflow(shipped, exported, tmp_path):
    image = blotches(24, 40)[None]
    np.save(tmp_path / "image.npy", image)
    code = (
        "import sys, numpy, tensorflow\n"
        "loaded = tensorflow.saved_model.load(sys.argv[1])\n"
        "given = loaded.signatures['serving_default'](pixels=numpy.load('image.npy'))\n"
        "(given,) = given.values()\n"
        "assert not {'jointnet', 'layers'} & set(sys.modules)\n"
        "numpy.save('given.npy', given.numpy())\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, "-c", code, str(exported.saved_model)]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
    wanted = shipped.model.predict_on_batch(image)
    np.testing.assert_allclose(np.load(tmp_path / "given.npy"), wanted, atol=TOLERANCE)


@every_format
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_pixels_of_every_depth_go_in_as_they_are(tmp_path, name, dtype):
    inputs = keras.Input((None, None, 4), name="pixels")
    scaling = BandScaling([3000.0] * 4, [1500.0] * 4, [[-100.0, 9000.0]] * 4)
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid")(scaling(inputs))
    model = keras.Model(inputs, outputs)
    model.MULTIPLE = 8
    described = {"network": {"class": "JointNet"}, "bands": 4, "dtype": dtype}
    deep = Run(tmp_path, model, CONFIG | described)
    path = tmp_path / f"deep{FORMATS[name].ending}"
    FORMATS[name].export(deep, path)
    patch = (np.arange(32 * 32 * 4).reshape(32, 32, 4) * 13 - 500).clip(
        0 if dtype[0] == "u" else None
    )
    # Beyond the limits, where fewer bits would have wrapped.
    patch[:4] = {"uint8": 255, "uint16": 60_000, "int16": -30_000, "float32": 1e6}[dtype]
    assert greatest_difference(deep, name, path, patch.astype(dtype)) < TOLERANCE


@pytest.mark.slow
@every_format
def test_the_control_is_exported_too(name, tmp_path, monkeypatch):
    shallow_resnet.add(monkeypatch)
    keras.utils.set_random_seed(0)
    model = ResNetUNet(3, shallow_resnet.NAME, decoder_filters=(8, 8, 8, 8, 8))
    described = {"class": "ResNetUNet", "arguments": {}}
    control = Run(tmp_path / "control", model, CONFIG | {"network": described, "window": 64})
    path = tmp_path / f"control{FORMATS[name].ending}"
    FORMATS[name].export(control, path)
    patch = blotches(64, 96)
    assert greatest_difference(control, name, path, patch) < TOLERANCE
    assert contract(control)["multiple"] == 32


@pytest.mark.slow
@every_format
def test_it_finds_the_same_in_real_imagery(real_data, shipped, exported, name):
    path = getattr(exported, name)
    with RasterReader(real_data / "inria_patches/images/chicago1_0.tif") as reader:
        patch, valid = reader.read(Window(0, 0, 128, 128))
    assert valid.all()
    assert greatest_difference(shipped, name, path, patch) < TOLERANCE
    probabilities = PREDICTORS[name](path)(patch[None])
    assert 0.1 < (probabilities >= shipped.config["threshold"]).mean() < 0.9


# Without a conversion


def test_a_difference_is_seen(tmp_path, monkeypatch):
    model = StandIn()
    model.MULTIPLE = 8
    run = Run(tmp_path, model, CONFIG)

    def predictor(change):
        monkeypatch.setitem(
            PREDICTORS, "onnx", lambda path: lambda x: change(run.model.predict_on_batch(x))
        )
        return greatest_difference(run, "onnx", run.folder, blotches(32, 32))

    def one_off(given):
        given = given.copy()
        given[-1, 3, 4] += 0.25
        return given

    assert predictor(lambda given: given) == 0
    assert predictor(one_off) == pytest.approx(0.25, abs=1e-6)
    with pytest.raises(JointNetError, match="not finite"):
        predictor(lambda given: given * np.float32(np.nan))
    with pytest.raises(JointNetError, match=r"not float32 \(1, 32, 32, 1\)"):
        predictor(lambda given: given[None])
    with pytest.raises(JointNetError, match="gives float64"):
        predictor(lambda given: given.astype(np.float64))


@every_format
def test_a_missing_package_is_named(monkeypatch, name, run, tmp_path):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda module: None)
    if name == "saved_model":
        return export.require(name)
    packages = " ".join(FORMATS[name].packages.values())
    with pytest.raises(JointNetError, match=f"pip install {packages}`"):
        FORMATS[name].export(run, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(JointNetError, match="runs on jax; set KERAS_BACKEND=tensorflow"):
        export.require("saved_model")


def test_another_precision_is_refused_and_nothing_is_left(run, tmp_path):
    half = load_run(run.folder, "mixed_bfloat16")
    for name, form in FORMATS.items():
        with pytest.raises(RunError, match="mixed_bfloat16"):
            form.export(half, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_sample_patch_is_in_the_range_of_the_training(tmp_path):
    for dtype, offset, scale in (("uint8", 60, 20), ("int16", -90, 30), ("float32", 0.2, 0.05)):
        model = SimpleNamespace(band_offset=[offset] * 3, band_scale=[scale] * 3)
        patch = sample_patch(Run(tmp_path, model, CONFIG | {"dtype": dtype, "window": 128}))
        assert patch.dtype == dtype and patch.shape == (128, 128, 3)
        assert patch.mean() == pytest.approx(offset, abs=scale / 5)
        assert patch.std() == pytest.approx(scale, rel=0.2)


# The command

load_once = functools.cache(load_run)


@pytest.fixture
def quick(monkeypatch):
    """Exports that write a byte and equal Keras; each network is built once."""

    def write(run, path, overwrite=False):
        target = path / "saved_model.pb" if path.name.endswith("saved_model") else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * 1_500_000)

    for name, form in list(FORMATS.items()):
        monkeypatch.setitem(
            FORMATS,
            name,
            type(form)(form.title, form.ending, form.packages, write, form.contract),
        )
    monkeypatch.setattr(export, "greatest_difference", lambda *arguments: 2e-6)
    monkeypatch.setattr(runs, "load_run", load_once)


def test_the_command_writes_all_three_and_says_what_they_are(run, quick, tmp_path):
    result = call("--model", run.folder, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    for part in ("uint8 (batch, height, width, 3)", "all free", "multiples of 8", "windows of 32"):
        assert part in first
    assert "at 0.3 m, threshold 0.5" in first
    names = ["small.onnx", "small_saved_model", "small.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"{tmp_path / name}: ")
        assert "1.5 MB, at most 2e-06 from Keras on a generated scene" in line


def test_the_command_knows_every_format():
    assert command.FORMATS == tuple(FORMATS)


def test_by_default_it_goes_into_the_run_folder(run, quick, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "mine")
    assert call("--model", folder, "--format", "onnx").exit_code == 0
    assert [path.name for path in (folder / "export").iterdir()] == ["mine.onnx"]


def test_a_large_difference_fails(run, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "greatest_difference", lambda *arguments: 0.3)
    result = call("--model", run.folder, "--output", tmp_path, "--format", "onnx")
    assert "differs from Keras by 0.3" in error(result)


def test_wrong_input_is_one_line_and_writes_nothing(run, quick, tmp_path):
    output = tmp_path / "out"
    given = ("--model", run.folder, "--output", output)
    assert "not a run folder" in error(call("--model", tmp_path, "--output", output))
    assert "openvino" in error(call(*given, "--format", "openvino"))
    assert "none.tif" in error(call(*given, "--image", "none.tif"))
    assert not output.exists()


@every_format
def test_what_is_there_stays_without_overwrite(run, quick, tmp_path, name):
    path = tmp_path / f"small{FORMATS[name].ending}"
    older = path / "saved_model.pb" if name == "saved_model" else path
    older.parent.mkdir(exist_ok=True)
    older.write_text("older")
    given = ("--model", run.folder, "--output", tmp_path)
    # Before any of the others is written.
    assert "--overwrite replaces it" in error(call(*given))
    assert older.read_text() == "older" and list(tmp_path.iterdir()) == [path]
    assert call(*given, "--overwrite").exit_code == 0
    assert older.read_bytes()[:1] == b"x"


def test_a_failed_conversion_leaves_the_older_file(run, tmp_path, monkeypatch):
    path = tmp_path / "a.tflite"
    for file in (path, contract_beside(path)):
        file.write_text("older")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_export", fail)
    with pytest.raises(OutputError, match="No space left"):
        export.export_litert(run, path, overwrite=True)
    assert {file.read_text() for file in tmp_path.iterdir()} == {"older"}
    assert len(list(tmp_path.iterdir())) == 2
