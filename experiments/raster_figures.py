"""What prediction from raster to raster costs: time beside the bare network, memory over rows.

The measurements behind ``experiments/benchmark.py inference`` and ``memory``; each runs in a
process of its own, see ``measurements``.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiments.measurements import (
    blocks,
    peak_megabytes,
    random_network,
    restart_peak,
    times,
)
from jointnet.prediction import batch_of
from jointnet.runs import Run
from jointnet.window_bands import WindowGrid

# Square kilometres that a plan may be made for, at so many metres per pixel.
PLANNED = {"city_of_200_km2": 200, "county_of_2500_km2": 2_500, "country_of_100000_km2": 100_000}
PLANNED_GSD = 0.3


class TimedNetwork:
    """A network that is timed, and answers with the brightness of the image.

    The network computes every window, but has random weights; brightness in its place gives
    masks and footprints about as many and as large as those of buildings.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.seconds = 0.0
        self.windows = 0

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """``(batch, height, width, bands)`` uint8 to ``(batch, height, width, 1)``, 0..1."""
        began = time.perf_counter()
        answer = np.asarray(self.model.predict_on_batch(images))
        self.seconds += time.perf_counter() - began
        self.windows += len(images)
        return np.where(images[..., :1] > 170, 0.9, 0.1 * answer).astype(np.float32)


def inference(size: int, variant: str, precision: str, window: int) -> dict[str, Any]:
    """``predict_raster`` on a generated tile, and the bare network on as many windows.

    Args:
        size: side of the tile in pixels.
        variant: one of ``jointnet.model.VARIANTS``.
        precision: dtype policy.
        window: side of a window in pixels; windows overlap by a quarter.

    Returns:
        Seconds end to end; those in the network during that run; those of the bare network, its
        batch before and after that run (median) times the number of batches; the hours that a
        city, a county and a country would take one such machine.
    """
    from jointnet.raster_prediction import predict_raster

    network = TimedNetwork(random_network(variant, precision))
    config = {"bands": 3, "dtype": "uint8", "gsd": 0.3, "window": window, "threshold": 0.5}
    config |= {"overlap": window // 4, "target": "buildings"}
    batch = batch_of(window)
    ready = np.random.default_rng(0).integers(0, 256, (batch, window, window, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        tile = _write_tile(Path(folder) / "tile.tif", size, size)
        # The first call builds the graph.
        network.model.predict_on_batch(ready)
        bare = times(lambda: network.model.predict_on_batch(ready), 3)
        run = Run(Path("random"), network, config)
        done = predict_raster(run, tile, Path(folder) / "outputs")
        bare += times(lambda: network.model.predict_on_batch(ready), 3)
    windows = len(WindowGrid(size, size, window, window // 4).windows())
    bare_seconds = statistics.median(bare) * windows / batch
    return {
        "pixels": done.pixels,
        "windows": windows,
        "batch": batch,
        "footprints": done.features,
        "seconds_end_to_end": done.seconds,
        "seconds_in_network": network.seconds,
        "seconds_bare": bare_seconds,
        "bare_batch_seconds": bare,
        "network_share": network.seconds / done.seconds,
        "bare_to_end_to_end": bare_seconds / done.seconds,
        "megapixels_per_second": done.pixels / 1e6 / done.seconds,
        **planned_hours(done.pixels / done.seconds),
    }


def planned_hours(pixels_per_second: float) -> dict[str, float]:
    """Machine hours of the areas in ``PLANNED``, all of them imagery of ``PLANNED_GSD``."""
    per_km2 = 1e6 / PLANNED_GSD**2 / pixels_per_second / 3600
    return {f"machine_hours_{name}": km2 * per_km2 for name, km2 in PLANNED.items()}


class LocalNetwork:
    """A stand-in that costs next to nothing: how bright a pixel and its eight neighbours are."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """``(batch, height, width, bands)`` uint8 to ``(batch, height, width, 1)``, 0..1."""
        import cv2

        means = [cv2.blur(image[..., 0], (3, 3), borderType=cv2.BORDER_REFLECT) for image in images]
        return np.where(np.stack(means)[..., None] > 170, np.float32(0.9), np.float32(0.1))


def memory(rows: int, width: int, window: int) -> dict[str, Any]:
    """Memory of ``predict_raster`` with a stand-in network, all outputs and probabilities included.

    Args:
        rows: of a generated raster, which repeats itself every ``width`` rows.
        width: of it.
        window: side of a window in pixels; windows overlap by a quarter.

    Returns:
        Megabytes that the process held before, and the most that it came to hold beyond them
        (Linux; elsewhere the peak since the process began), footprints and seconds.
    """
    from jointnet.raster_prediction import predict_raster

    config = {"bands": 3, "dtype": "uint8", "gsd": 0.3, "window": window, "threshold": 0.5}
    config |= {"overlap": window // 4, "target": "buildings"}
    run = Run(Path("stand-in"), LocalNetwork(), config)
    with tempfile.TemporaryDirectory() as folder:
        small = _write_tile(Path(folder) / "small.tif", 2 * window, 2 * window)
        # What is imported and set up once belongs to no raster.
        predict_raster(run, small, Path(folder) / "first", probabilities=True)
        tile = _write_tile(Path(folder) / "tile.tif", rows, width)
        held = restart_peak()
        done = predict_raster(run, tile, Path(folder) / "outputs", probabilities=True)
        beyond = peak_megabytes() - held
    return {
        "pixels": done.pixels,
        "footprints": done.features,
        "held_megabytes": held,
        "megabytes_beyond": beyond,
        "seconds": done.seconds,
    }


def _write_tile(path: Path, rows: int, width: int) -> Path:
    """A georeferenced raster of three bands, in strips as Inria's tiles are."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    options = {"driver": "GTiff", "height": rows, "width": width, "count": 3, "dtype": "uint8"}
    placed = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.3, 0.3)}
    grey = blocks(width, 0)
    with rasterio.open(path, "w", **options, **placed, BIGTIFF="IF_SAFER") as file:
        for first in range(0, rows, width):
            part = grey[: min(width, rows - first)]
            for band in (1, 2, 3):
                file.write(part, band, window=Window(0, first, width, len(part)))
    return path
