"""The run folder: what is needed to use, repeat and judge a trained network.

``results/<run>/`` holds ``config.json`` (network, bands, dtype, GSD, window, threshold, target,
recipe), ``environment.json``, ``data.json`` (hash of the manifest, scenes, split), ``history.csv``,
``metrics.json``, ``weights.weights.h5`` (float16, Keras' own layout) and ``curves.png``;
``checkpoints/`` and ``pictures/`` beside them are not kept in git.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from jointnet.distribution import alone
from jointnet.model import JointNet
from jointnet.resnet import ResNetUNet
from preprocessing.errors import RunError, first_line
from preprocessing.output_files import replacing

NETWORKS = {"JointNet": JointNet, "ResNetUNet": ResNetUNet}
WEIGHTS = "weights.weights.h5"
# Keys of config.json that every use of the network needs.
CONFIG_KEYS = ("network", "bands", "dtype", "gsd", "target", "window", "overlap", "threshold")


@dataclass(frozen=True)
class Run:
    """A run folder, its network with weights, and its ``config.json``."""

    folder: Path
    model: keras.Model
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name


def describe_network(model: keras.Model) -> dict[str, Any]:
    """Return class and constructor arguments of a network, but for the dtype policy."""
    arguments = {key: value for key, value in model.get_config().items() if key != "dtype"}
    return {"class": type(model).__name__, "arguments": arguments}


def build_network(described: dict[str, Any], dtype: str = "float32") -> keras.Model:
    """Build what ``describe_network`` described; RunError if the class is unknown."""
    name = described["class"]
    if name not in NETWORKS:
        raise RunError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name].from_config({**described["arguments"], "dtype": dtype})


def save_weights(model: keras.Model, path: Path) -> None:
    """Write the weights as float16, in the layout that ``model.load_weights(path)`` reads.

    Arrays that exceed float16's range stay float32, and so do statistics of batch normalisation,
    whose means can be far larger than their deviations.

    Raises:
        OutputError: the file cannot be written; an older one stays as it was.
    """
    plain = build_network(describe_network(model))
    pairs = zip(plain.weights, model.get_weights(), strict=True)
    plain.set_weights([_rounded(w) if variable.trainable else w for variable, w in pairs])
    with replacing(path, overwrite=True) as beside:
        whole = beside.with_name("whole.weights.h5")
        plain.save_weights(whole)
        with h5py.File(whole, "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, node: names.append(name) if _is_float(node) else None)
            for name in names:
                values = file[name][...]
                halved = _halved(values)
                if np.array_equal(halved, values):
                    del file[name]
                    file.create_dataset(name, data=halved)
        _repack(whole, beside)


def _halved(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _rounded(values: np.ndarray) -> np.ndarray:
    halved = _halved(values)
    return halved.astype(values.dtype) if np.isfinite(halved).all() else values


def _is_float(node: h5py.Group | h5py.Dataset) -> bool:
    return isinstance(node, h5py.Dataset) and node.dtype.kind == "f"


def _repack(source: Path, path: Path) -> None:
    # A copy drops the space that deleted arrays leave.
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)


def load_weights(model: keras.Model, path: Path) -> None:
    """Load weights, and the optimizer's state where the model has one.

    Raises:
        ValueError, KeyError, OSError, RuntimeError: the file is damaged or does not fit.
    """
    with alone(), warnings.catch_warnings():
        # Keras may only warn of layers that do not fit, and leave them random.
        warnings.filterwarnings("error", "Skipping")
        try:
            model.load_weights(path)
        except UserWarning as error:
            raise ValueError(str(error)) from None


def load_run(folder: Path, dtype: str = "float32") -> Run:
    """Load a run folder, to compute under the dtype policy ``dtype``.

    Raises:
        RunError: it is not a run folder, or its weights do not fit its configuration.
    """
    folder = Path(folder)
    config_path, weights = folder / "config.json", folder / WEIGHTS
    for path in (config_path, weights):
        if not path.is_file():
            raise RunError(
                f"{folder} is not a run folder: it has no {path.name}; give a folder that "
                "a training command wrote, such as results/<run>"
            )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        missing = [key for key in CONFIG_KEYS if key not in config]
        if missing:
            raise ValueError(f"its config.json has no {', '.join(missing)}")
        model = build_network(config["network"], dtype)
        load_weights(model, weights)
        model.compile(jit_compile=jit_setting())
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        raise RunError(f"{folder} cannot be loaded: {first_line(error)}") from None
    return Run(folder, model, config)


def jit_setting() -> bool | str:
    """Return what to give ``compile(jit_compile=...)`` on this machine.

    Keras decides, except with TensorFlow on a CPU, where XLA takes long to compile and then runs
    at less than half the speed (``benchmark.py training``).
    """
    devices = keras.distribution.list_devices()
    on_cpu = all(device.startswith("cpu") for device in devices)
    return False if on_cpu and keras.backend.backend() == "tensorflow" else "auto"


def uses_xla(model: keras.Model) -> bool:
    """Compile a network, and return whether Keras chose XLA."""
    # Compiling makes variables, and only the process that writes does it.
    with alone():
        model.compile(jit_compile=jit_setting())
    return bool(model.jit_compile)


def environment() -> dict[str, Any]:
    """Return versions, backend, devices, processor, commit and command of this process."""
    packages = ("keras", "tensorflow", "jax", "numpy", "opencv-python-headless", "rasterio")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "packages": versions,
        "backend": keras.backend.backend(),
        "devices": keras.distribution.list_devices(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "commit": _commit(),
        # Paths by their last name: where they lie is private.
        "command": " ".join(Path(word).name if "/" in word else word for word in sys.argv),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
