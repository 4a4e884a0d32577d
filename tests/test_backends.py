"""TensorFlow and JAX compute the same, and JAX needs neither TensorFlow nor a GIS library.

What is compared is computed by one function: here, and in a process of its own on the JAX backend,
where the libraries that a bare machine lacks cannot be imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from jointnet import JointNet
from jointnet.runs import save_weights
from layers import BilinearUpsampling, DenseAtrousBlock, GroupNormalization
from losses import BinaryFocalLoss, DiceLoss, WeightedSumLoss
from tests.gradients import gradient

ROOT = Path(__file__).resolve().parents[1]
BLOCKED = ("tensorflow", "rasterio", "shapely", "geopandas", "pyogrio", "pyproj", "fiona")
# The subprocess prints what it got to, so that a failure says which step it was.
ON_JAX = f"""
import sys
from pathlib import Path

for name in {BLOCKED}:
    sys.modules[name] = None
import jointnet, jointnet.batches, jointnet.prediction, jointnet.training
import keras, numpy
print("imported on", keras.backend.backend(), flush=True)
from tests.test_backends import compute
folder = Path(sys.argv[1])
numpy.savez(folder / "jax.npz", **compute(folder))
print("computed")
"""
LAYERS = {
    "group_normalization": lambda: GroupNormalization(2, 0.1),
    "dense_atrous_block": lambda: DenseAtrousBlock(8),
    "bilinear_upsampling": lambda: BilinearUpsampling(),
}
LOSSES = {
    "focal": lambda: BinaryFocalLoss(),
    "cross_entropy": lambda: BinaryFocalLoss(gamma=0, alpha=0.5),
    "dice": lambda: DiceLoss(),
    "sum": lambda: WeightedSumLoss([BinaryFocalLoss(), DiceLoss()], [2.0, 1.0]),
}


def make_network() -> JointNet:
    return JointNet(growth_rates=(8, 8, 8), bridge_filters=8)


def compute(folder: Path) -> dict[str, np.ndarray]:
    """Predictions, layers and losses on the backend of this process, by name."""
    generator = np.random.default_rng(0)
    results = {}
    network = make_network()
    network.load_weights(folder / "weights.weights.h5")
    pixels = generator.integers(0, 256, (2, 24, 16, 3), np.uint8)
    network.compile(jit_compile=keras.backend.backend() == "jax")
    results["network"] = network.predict_on_batch(pixels)

    x = generator.normal(size=(2, 6, 5, 4)).astype(np.float32)
    for name, make in LAYERS.items():
        layer = make()
        layer.build(x.shape)
        layer.set_weights([generator.normal(0, 0.3, w.shape) for w in layer.weights])
        results[name] = keras.ops.convert_to_numpy(layer(x))

    labels = generator.choice([0, 1, 255], (3, 6, 6, 1)).astype(np.uint8)
    probabilities = generator.random(labels.shape, np.float32)
    extremes = (probabilities > 0.5).astype(np.float32)
    for name, make in LOSSES.items():
        loss = make()
        results[f"{name}_value"] = keras.ops.convert_to_numpy(loss(labels, probabilities))
        results[f"{name}_gradient"] = gradient(lambda p, f=loss: f(labels, p), probabilities)
        results[f"{name}_at_0_and_1"] = keras.ops.convert_to_numpy(loss(labels, extremes))
        results[f"{name}_gradient_at_0_and_1"] = gradient(lambda p, f=loss: f(labels, p), extremes)
    return results


NAMES = [
    "network",
    *LAYERS,
    *(f"{name}_{kind}" for name in LOSSES for kind in ("value", "gradient", "at_0_and_1")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a random network, rounded to float16, as a run folder has them."""
    path = tmp_path_factory.mktemp("backends")
    keras.utils.set_random_seed(0)
    network = make_network()
    generator = np.random.default_rng(1)
    # Other than at the start, so that gamma, beta and biases act.
    network.set_weights([w + generator.normal(0, 0.1, w.shape) for w in network.get_weights()])
    save_weights(network, path / "weights.weights.h5")
    return path


@pytest.fixture(scope="module")
def on_jax(folder: Path) -> subprocess.CompletedProcess:
    pytest.importorskip("jax")
    jax_alone = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        # Compiles twice as fast; what is compiled runs once.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, "-c", ON_JAX, str(folder)],
        cwd=ROOT,
        env=os.environ | jax_alone,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def here(folder: Path) -> dict[str, np.ndarray]:
    return compute(folder)


def test_jax_runs_without_tensorflow_and_gis_libraries(on_jax):
    assert "imported on jax" in on_jax.stdout, on_jax.stderr[-2000:]
    assert on_jax.returncode == 0, on_jax.stderr[-2000:]


@pytest.mark.parametrize("name", NAMES)
def test_tensorflow_and_jax_compute_the_same(name, folder, on_jax, here):
    assert on_jax.returncode == 0, on_jax.stderr[-2000:]
    with np.load(folder / "jax.npz") as other:
        assert np.ptp(here[name]) > 0 or here[name].ndim == 0
        assert np.all(np.isfinite(here[name]))
        np.testing.assert_allclose(other[name], here[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_at_exact_zero_and_one_are_finite_on_jax_too(name, folder, on_jax):
    assert on_jax.returncode == 0, on_jax.stderr[-2000:]
    with np.load(folder / "jax.npz") as other:
        assert np.all(np.isfinite(other[f"{name}_gradient_at_0_and_1"]))
