"""What the tests of stores, training and evaluation share: small scenes, stores and recipes."""

import atexit
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
from affine import Affine

from jointnet.recipe import train_recipe
from jointnet.runs import Run
from jointnet.training_settings import Recipe, TrainingSettings
from layers import DenseAtrousBlock
from preprocessing.inria import inria_scenes
from preprocessing.patch_store import PatchSet, PatchSettings, PatchStore
from preprocessing.patches import build_store, load_pair
from preprocessing.scenes import Scene
from tests.helpers import write_image

ROOT = Path(__file__).resolve().parents[1]
NETWORK = {"growth_rates": (8, 8, 8), "bridge_filters": 8}
# Patches of 32, of which crops are drawn; validation patches of the crops' size.
PATCHES = PatchSettings(patch_size=32, stride=16, validation_size=16)
# Larger and smaller than a patch, and no multiple of one.
SIZES = {"ashby1": (40, 25), "ashby2": (48, 33), "borth1": (12, 20), "borth2": (20, 12)}


def squares(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with bright squares, uint8 (h, w, 3), and where they are, uint8 (h, w)."""
    random = np.random.default_rng(seed)
    mask = np.kron(random.integers(0, 2, (-(-height // 6), -(-width // 6))), np.ones((6, 6), int))[
        :height, :width
    ].astype(np.uint8)
    noise = random.integers(20, 90, (height, width, 3))
    return (noise + 140 * mask[..., None]).astype(np.uint8), mask


def ground(number: int) -> Affine:
    """Ground that no other number has, for scenes of up to 1,000 pixels."""
    return Affine(0.3, 0, 500_000 + 400 * number, 0, -0.3, 5_000_000)


def load_scene(
    scene: Scene, bands: int = 3, band_numbers: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray, dict | None]:
    """Image and mask of a scene, void where either has no data, and the counts of polygons."""
    image, label, valid, counts = load_pair(scene, bands, band_numbers)
    return image, np.where(valid, label, np.uint8(255)), counts


def write_scene(
    root: Path, name: str, image: np.ndarray, label: np.ndarray, transform: Affine, **profile
) -> None:
    """Write one scene of the Inria layout; the label as it stands on disk, (h, w)."""
    for kind, pixels in (("images", image), ("gt", label[..., None])):
        (root / kind).mkdir(parents=True, exist_ok=True)
        write_image(root / kind / f"{name}.tif", pixels, transform=transform, **profile)


def write_inria(root: Path, sizes: dict[str, tuple[int, int]] = SIZES) -> Path:
    """Write scenes in the Inria layout, each on ground of its own; index 1 is to be held back."""
    for number, (name, size) in enumerate(sizes.items()):
        image, mask = squares(*size, seed=number)
        write_scene(root, name, image, mask * 255, ground(number))
    return root


def scene(root: Path, name: str, split: str, **other) -> Scene:
    """One scene of a folder as ``write_scene`` writes it."""
    files = {"image": root / "images" / f"{name}.tif", "label": root / "gt" / f"{name}.tif"}
    fields = {"place": name, "index": None, "label_kind": "raster", **files}
    return Scene(name=name, split=split, **fields | other)


def tiny_store(folder: Path, patches: PatchSettings = PATCHES) -> PatchStore:
    """A store of four small scenes, ``<folder>/store``, cut from ``<folder>/data``."""
    return build_store(folder / "store", inria_scenes(write_inria(folder / "data"), (1,)), patches)


def tiny_training(**changes) -> TrainingSettings:
    """Settings that train in seconds."""
    small = {"crop_size": 16, "batch_size": 2, "epochs": 2, "steps_per_epoch": 2}
    return TrainingSettings(**small | {"learning_rate": 1e-3} | changes)


def patch_set(images: np.ndarray, masks: np.ndarray) -> PatchSet:
    """Patches in memory, all of each inside its scene."""
    valid = (masks != 255).sum(axis=(1, 2))
    return PatchSet(
        images=images,
        masks=masks,
        extents=np.full((len(images), 2), images.shape[1]),
        target_shares=(masks == 1).sum(axis=(1, 2)) / np.maximum(valid, 1),
        valid_shares=valid / (images.shape[1] * images.shape[2]),
        scenes=tuple(f"scene{number}" for number in range(len(images))),
    )


def memory_store(size: int = 16, train: int = 6, validation: int = 3) -> PatchStore:
    """A store that lies on no disk, for ``jointnet.training`` alone."""
    pairs = [squares(size, size, seed) for seed in range(train + validation)]
    images, masks = (np.stack(part) for part in zip(*pairs, strict=True))
    return PatchStore(
        Path("nowhere"),
        {"bands": 3, "dtype": "uint8"},
        patch_set(images[:train], masks[:train]),
        patch_set(images[train:], masks[train:]),
    )


def read_tif(path: Path) -> np.ndarray:
    """All bands of a raster, (height, width, bands), read by rasterio alone."""
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1)


def run_python(code: str, *arguments: object, blocked: tuple[str, ...] = (), **environment: str):
    """Run code in a fresh process in which the blocked packages cannot be imported."""
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each scalar, as TensorBoard itself reads them."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    accumulator = event_accumulator.EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def small_network(seed: int = 0) -> keras.Model:
    """A network that compiles in a second: one dense atrous block between scaling and sigmoid."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = DenseAtrousBlock(4, groups=2)(x)
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))


def tiny_recipe(**training) -> Recipe:
    """A recipe for data as ``write_inria`` writes it, named "tiny"."""
    return Recipe(
        name="tiny",
        scenes=lambda data, validation: inria_scenes(data, validation or (1,)),
        variant="jointnet",
        patches=PATCHES,
        training=tiny_training(**training),
        network=NETWORK,
    )


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """TensorFlow runs Keras' steps as they are written: tracing one costs as much as many steps."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@dataclass(frozen=True)
class Trained:
    """A finished run of the tiny recipe: its parts, and what was printed."""

    folder: Path
    data: Path
    store: PatchStore
    recipe: Recipe
    run: Run
    printed: str


@cache
def trained() -> Trained:
    """Train once for all test modules; look at it, or copy it.

    Without graphs: what shall have its very figures is to run under ``eagerly`` too.
    """
    base = Path(tempfile.mkdtemp(prefix="trained-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    recipe, store = tiny_recipe(), tiny_store(base)
    with contextlib.redirect_stdout(io.StringIO()) as printed, eagerly():
        # A name that a shell would take apart.
        finished = train_recipe(recipe, store, base / "results" / "tiny run")
    return Trained(finished.folder, base / "data", store, recipe, finished, printed.getvalue())
