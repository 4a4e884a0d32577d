"""A generated data set of Inria's layout and size, and what the published recipe costs on it.

Nothing is learnt from it: it stands in for the download of 21 GB, so that reading, cutting,
memory and time at full size can be measured without it.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from affine import Affine
from tqdm import tqdm

from experiments.measurements import peak_megabytes, times
from experiments.published_recipes import inria_buildings
from jointnet.batches import TrainingBatches
from jointnet.model import JointNet
from jointnet.runs import jit_setting
from preprocessing.inria import CITIES, GSD, TILE_SIZE, TILES_PER_CITY
from preprocessing.output_files import replacing
from preprocessing.patch_store import open_store
from preprocessing.patches import build_store
from preprocessing.sample_scenes import CORNER, CRS, GAP, render_scene

# Scenes are rendered at this side and laid out over a tile, which takes a second, not minutes.
_RENDERED = 1000


def write_stand_in(
    data: Path, tiles: int = TILES_PER_CITY, size: int = TILE_SIZE, seed: int = 0
) -> Path:
    """Write ``AerialImageDataset/train/{images,gt}`` as Inria has it, with generated pixels.

    Every city has its own generated scene, repeated over its tiles and shifted from tile to tile,
    so that no two files are equal; names, sizes, dtypes and label values are Inria's, files are
    uncompressed strips as Inria's, and no two tiles share ground.

    Args:
        data: folder that comes to hold ``AerialImageDataset``.
        tiles: tiles of each city, numbered from 1.
        size: side of a tile in pixels of 0.3 m.
        seed: number that the pixels depend on.

    Returns:
        The folder ``AerialImageDataset``. Files that exist are replaced.

    Raises:
        OutputError: the folder cannot be written.
    """
    train = Path(data) / "AerialImageDataset" / "train"
    repeats = -(-size // _RENDERED)
    for column, city in enumerate(CITIES):
        image, _, mask = render_scene(_RENDERED, (seed, column))
        layers = np.tile(np.dstack([image, mask * np.uint8(255)]), (repeats, repeats, 1))
        for index in tqdm(range(1, tiles + 1), desc=f"writing {city}", unit="tile", disable=None):
            moved = np.roll(layers, (7 * index, 13 * index), axis=(0, 1))[:size, :size]
            step = size * GSD + GAP
            west, north = CORNER[0] + step * column, CORNER[1] - step * index
            place = Affine(GSD, 0, west, 0, -GSD, north)
            _write(train / "images" / f"{city}{index}.tif", moved[..., :3], place)
            _write(train / "gt" / f"{city}{index}.tif", moved[..., 3:], place)
    return train.parent


def _write(path: Path, pixels: np.ndarray, place: Affine) -> None:
    import rasterio

    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "crs": CRS, "transform": place}
    profile |= {"height": height, "width": width, "count": count}
    with replacing(path, overwrite=True) as partial, rasterio.open(partial, "w", **profile) as out:
        out.write(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def cutting(data: str, store: str) -> dict[str, Any]:
    """Cut the data set into patches as ``--recipe inria_buildings`` does.

    Args:
        data: folder that holds ``AerialImageDataset``.
        store: where the patch store comes to lie; must not exist.

    Returns:
        Tiles, patches of both splits, seconds, megapixels per second, gigabytes of the store.
    """
    recipe = inria_buildings()
    began = time.perf_counter()
    scenes = recipe.scenes(Path(data), None)
    made = build_store(Path(store), scenes, recipe.patches)
    seconds = time.perf_counter() - began
    pixels = sum(scene["height"] * scene["width"] for scene in made.manifest["scenes"])
    size = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
    return {
        "tiles": len(scenes),
        "training_patches": len(made.train),
        "validation_patches": len(made.validation),
        "cutting_seconds": seconds,
        "cutting_megapixels_per_second": pixels / 1e6 / seconds,
        "store_gigabytes": size / 1e9,
    }


def schedule(store: str, batch: int, precision: str, variant: str, repeats: int) -> dict[str, Any]:
    """Training steps and predictions of the recipe from its store, and what all of them take.

    Args:
        store: the patch store.
        batch: samples in a batch.
        precision: dtype policy.
        variant: one of ``jointnet.model.VARIANTS``.
        repeats: training steps, and batches predicted, after the first of each.

    Returns:
        Median seconds of a step with the loading of its batch, and of the step alone; patches
        and megapixels per second; hours of an epoch, of a validation, and days of the recipe's
        epochs with their validations, computed from these.
    """
    opened = open_store(Path(store))
    settings = inria_buildings().with_training(batch_size=batch, precision=precision).training
    keras.utils.set_random_seed(0)
    scaling = {"band_offset": opened.manifest["band_mean"]}
    scaling["band_scale"] = opened.manifest["band_std"]
    model = JointNet.from_variant(variant, dtype=precision, **scaling)
    model.compile(settings.make_optimizer(repeats), settings.make_loss(), jit_compile=jit_setting())
    batches = TrainingBatches(
        opened.train, 0, 0, batch, settings.crop_size, settings.augmentation, repeats + 1
    )
    model.train_on_batch(*batches[0])
    loaded, alone = [], []
    for index in range(1, repeats + 1):
        began = time.perf_counter()
        images, masks = batches[index]
        ready = time.perf_counter()
        model.train_on_batch(images, masks)
        ended = time.perf_counter()
        loaded.append(ended - began)
        alone.append(ended - ready)
    peak = peak_megabytes()
    images = np.asarray(opened.validation.images[:batch])
    model.predict_on_batch(images)
    predicted = statistics.median(times(lambda: model.predict_on_batch(images), repeats))
    step = statistics.median(loaded)
    epoch_hours = len(opened.train) / batch * step / 3600
    validation_hours = len(opened.validation) / batch * predicted / 3600
    return {
        "step_seconds": step,
        "step_alone_seconds": statistics.median(alone),
        "patches_per_second": batch / step,
        "megapixels_per_second": batch * settings.crop_size**2 / 1e6 / step,
        "training_peak_megabytes": peak,
        "predicted_patches_per_second": batch / predicted,
        "epoch_hours": epoch_hours,
        "validation_hours": validation_hours,
        "epochs": settings.epochs,
        "schedule_days": settings.epochs * (epoch_hours + validation_hours) / 24,
    }
