"""What several test modules need: run folders, a network that is no network, small images."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rasterio
from affine import Affine
from click.testing import Result
from rasterio.errors import NotGeoreferencedWarning

from jointnet import JointNet
from jointnet.prediction import Predict, Read, WindowGrid, join, predict_swath, swaths_of
from jointnet.runs import WEIGHTS, Run, describe_network, load_run, save_weights
from preprocessing.output_files import write_json

CONFIG = {
    "bands": 3,
    "dtype": "uint8",
    "gsd": 0.3,
    "target": "buildings",
    "window": 32,
    "overlap": 8,
    "threshold": 0.5,
    "recipe": {"name": "untrained"},
}


def make_run(folder: Path, bands: int = 3, seed: int = 0, **config: Any) -> Path:
    """Write a run folder of a tiny JointNet with random weights, as training would leave it.

    Args:
        folder: where; made where it is missing.
        bands: bands of the network.
        seed: of the weights.
        config: entries of ``config.json`` that shall differ.

    Returns:
        The folder, which ``load_run`` and ``infer.py --model`` take.
    """
    keras.utils.set_random_seed(seed)
    model = JointNet(bands, growth_rates=(8, 8, 8), bridge_filters=8)
    described = {"network": describe_network(model), "parameters": model.count_params()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", CONFIG | described | {"bands": bands} | config)
    save_weights(model, folder / WEIGHTS)
    return folder


class StandIn:
    """A local network in place of a trained one: a fixed 3x3 filter over all bands, sigmoid.

    What it finds is what is bright. A pixel depends on its neighbours alone, so exact statements
    about tiling can be made with it.
    """

    FILTER = np.array([[1, 2, 1], [0, 4, 3], [2, 1, 2]], np.float32) / 16

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """``(batch, height, width, bands)`` to ``(batch, height, width, 1)``, zeros outside."""
        grey = np.pad(images.mean(axis=3, dtype=np.float32), ((0, 0), (1, 1), (1, 1)))
        height, width = images.shape[1:3]
        total = sum(
            weight * grey[:, row : row + height, column : column + width]
            for (row, column), weight in np.ndenumerate(self.FILTER)
        )
        return (1 / (1 + np.exp((128 - total) / 16)))[..., None].astype(np.float32)


def stand_in_run(**config: Any) -> Run:
    """A run of the stand-in network, as ``load_run`` would give it."""
    return Run(Path("stand_in"), StandIn(), CONFIG | config)


def stored_stand_in_run(folder: Path) -> Run:
    """A run on disk, so that its jobs can be gone on with; fast, as its network is a filter."""
    return replace(load_run(make_run(folder)), model=StandIn())


def predict_strips(
    read: Read, grid: WindowGrid, predict: Predict, batch_size: int = 4
) -> Iterator[tuple[int, np.ndarray]]:
    """Predict all swaths of a raster, one after the other, and join them."""
    swaths = swaths_of(grid)
    return join(predict_swath(read, grid, swath, predict, batch_size) for swath in swaths)


def write_image(path: Path, image: np.ndarray, **profile: Any) -> Path:
    """Write ``(height, width, bands)`` as GeoTIFF: UTM, 0.3 m, unless ``profile`` differs."""
    height, width, count = image.shape
    placed = {"crs": "EPSG:32633", "transform": Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)}
    # GDAL would take a fourth band of uint8 for alpha.
    options = {"count": count, "dtype": image.dtype, "ALPHA": "NO", **placed, **profile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", height=height, width=width, **options) as to:
            to.write(np.moveaxis(image, -1, 0))
    return path


def blotches(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """An image of bright and dark blotches with some noise, uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 2, (-(-height // 8), -(-width // 8))) * 160 + 40
    fine = np.kron(coarse, np.ones((8, 8)))[:height, :width, None]
    return np.clip(fine + random.normal(0, 20, (height, width, bands)), 1, 255).astype(np.uint8)


def error(result: Result) -> str:
    """The one line of a command that was refused, with exit code 2."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]
