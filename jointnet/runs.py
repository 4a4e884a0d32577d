"""The run folder: what is needed to use, repeat and judge a trained network.

``results/<run>/`` holds ``config.json`` (network, bands, dtype, GSD, window, threshold, target,
recipe), ``environment.json``, ``data.json`` (manifest hash, scenes and split), ``history.csv``,
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
    """A trained network with its configuration.

    Attributes:
        folder: the run folder.
        model: the network with its weights.
        config: the run's ``config.json``.
    """

    folder: Path
    model: keras.Model
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name


def describe_network(model: keras.Model) -> dict[str, Any]:
    """Return class and constructor arguments of a network, for ``config.json``.

    The dtype policy is left out: it belongs to a use of the weights, not to the network.
    """
    arguments = {key: value for key, value in model.get_config().items() if key != "dtype"}
    return {"class": type(model).__name__, "arguments": arguments}


def build_network(described: dict[str, Any], dtype: str = "float32") -> keras.Model:
    """Build the network that ``describe_network`` described.

    Raises:
        RunError: this version has no such class.
    """
    name = described["class"]
    if name not in NETWORKS:
        raise RunError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name].from_config({**described["arguments"], "dtype": dtype})


def save_weights(model: keras.Model, path: Path) -> None:
    """Write the weights as float16 in Keras' own HDF5 layout.

    ``model.load_weights(path)`` reads the file. Figures are measured after the rounding. Arrays
    with a value beyond float16's range stay float32, and so do statistics of batch normalisation,
    where a mean can be far larger than the deviation it is compared with.

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
    """Copy an HDF5 file without the space that deleted arrays leave."""
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)


def load_weights(model: keras.Model, path: Path) -> None:
    """Load weights, and the optimizer's state where the model has one.

    Raises:
        ValueError, KeyError, OSError, RuntimeError: the file is damaged or does not fit the
            network.
    """
    with alone(), warnings.catch_warnings():
        # Keras only warns of some layers that do not fit, and leaves their weights random.
        warnings.filterwarnings("error", "Skipping")
        try:
            model.load_weights(path)
        except UserWarning as error:
            raise ValueError(str(error)) from None


def load_run(folder: Path, dtype: str = "float32") -> Run:
    """Load network and configuration of a run folder.

    Args:
        folder: the run folder.
        dtype: dtype policy to compute in.

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

    With TensorFlow on a CPU, XLA compiles for long, and then computes at less than half the speed
    (``benchmark.py training``); elsewhere Keras decides.
    """
    devices = keras.distribution.list_devices()
    on_cpu = all(device.startswith("cpu") for device in devices)
    return False if on_cpu and keras.backend.backend() == "tensorflow" else "auto"


def uses_xla(model: keras.Model) -> bool:
    """Return whether XLA compiles a network here; compiles it to see what Keras decides."""
    # Only the process that writes asks, and compiling makes variables.
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
        # Folders by their last name; where they lie on this machine is private.
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
