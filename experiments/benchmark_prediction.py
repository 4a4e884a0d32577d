"""Time, memory and steadiness of prediction from raster to raster, and the cost of evaluation."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from affine import Affine

from experiments.measurements import blocks, peak_megabytes, restart_peak, times
from experiments.recipes import scenes_of
from jointnet.mask_evaluation import MaskMeasures, evaluate_masks
from jointnet.metrics import Counts, count, threshold_mask
from jointnet.model import JointNet
from jointnet.prediction import Predict, WindowGrid, batch_of, mean_over_symmetries, predict_image
from jointnet.raster_prediction import predict_raster
from jointnet.runs import Run, jit_setting, load_run
from preprocessing.inria import CITIES, parse_stem, train_folder
from preprocessing.patches import load_pair
from preprocessing.raster_writers import write_raster
from preprocessing.rasters import read_image
from preprocessing.sample_scenes import render_scene
from preprocessing.scenes import images_in
from preprocessing.tiling import VOID

# Areas in square kilometres whose machine hours are planned, and metres per pixel of the imagery.
PLANNED = {"city_of_200_km2": 200, "county_of_2500_km2": 2_500, "country_of_100000_km2": 100_000}
PLANNED_GSD = 0.3
ON_GROUND = {"crs": "EPSG:32633", "transform": Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)}
# A place whose tiles are a grid, numbered row by row, and the columns of that grid.
TOWN, COLUMNS = "barnarp", 4


class TimedNetwork:
    """A network that is timed and answers with the brightness of the image.

    The network computes every window but has random weights; brightness in place of its answer
    gives masks and footprints about as many and as large as those of buildings.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.seconds = 0.0

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Map ``(batch, height, width, bands)`` uint8 to ``(batch, height, width, 1)``, 0..1."""
        began = time.perf_counter()
        answer = np.asarray(self.model.predict_on_batch(images))
        self.seconds += time.perf_counter() - began
        return np.where(images[..., :1] > 170, 0.9, 0.1 * answer).astype(np.float32)


class LocalNetwork:
    """A stand-in that costs next to nothing: the mean brightness of a pixel and its neighbours."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Map ``(batch, height, width, bands)`` uint8 to ``(batch, height, width, 1)``, 0..1."""
        import cv2

        means = [cv2.blur(image[..., 0], (3, 3), borderType=cv2.BORDER_REFLECT) for image in images]
        return np.where(np.stack(means)[..., None] > 170, np.float32(0.9), np.float32(0.1))


def inference(size: int, variant: str, precision: str, window: int) -> dict[str, Any]:
    """Time ``predict_raster`` on a generated tile, and the bare network on as many windows.

    The tile has ``size`` pixels a side; windows overlap by a quarter.

    Returns:
        Seconds end to end; those in the network during that run; those of the bare network: the
        median of its batch before and after that run, times the number of batches; the hours that
        one such machine would take for a city, a county and a country.
    """
    keras.utils.set_random_seed(0)
    network = TimedNetwork(JointNet.from_variant(variant, dtype=precision))
    network.model.compile(jit_compile=jit_setting())
    batch = batch_of(window)
    ready = np.random.default_rng(0).integers(0, 256, (batch, window, window, 3), np.uint8)

    def predict() -> None:
        network.model.predict_on_batch(ready)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tile = _tile(folder / "tile.tif", size, size)
        # The first call builds the graph.
        predict()
        bare = times(predict, 3)
        done = predict_raster(_untrained(network, window), tile, folder / "outputs")
        bare += times(predict, 3)
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
    """Return the machine hours of the areas in ``PLANNED``, at ``PLANNED_GSD``."""
    per_km2 = 1e6 / PLANNED_GSD**2 / pixels_per_second / 3600
    return {f"machine_hours_{name}": km2 * per_km2 for name, km2 in PLANNED.items()}


def memory(rows: int, width: int, window: int) -> dict[str, Any]:
    """Measure the memory of ``predict_raster`` with all outputs and a stand-in network.

    The raster is generated and repeats itself every ``width`` rows; windows overlap by a quarter.

    Returns:
        Megabytes that the process held before, and the most that it came to hold beyond them
        (Linux; elsewhere the peak since the process began), footprints and seconds.
    """
    run = _untrained(LocalNetwork(), window)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = _tile(folder / "small.tif", 2 * window, 2 * window)
        # What is imported and set up once belongs to no raster.
        predict_raster(run, small, folder / "first", probabilities=True)
        tile = _tile(folder / "tile.tif", rows, width)
        held = restart_peak()
        done = predict_raster(run, tile, folder / "outputs", probabilities=True)
        beyond = peak_megabytes() - held
    return {
        "pixels": done.pixels,
        "footprints": done.features,
        "held_megabytes": held,
        "megabytes_beyond": beyond,
        "seconds": done.seconds,
    }


def _untrained(network: Any, window: int) -> Run:
    config = {"bands": 3, "dtype": "uint8", "gsd": 0.3, "threshold": 0.5, "target": "buildings"}
    return Run(Path("untrained"), network, config | {"window": window, "overlap": window // 4})


def _tile(path: Path, rows: int, width: int) -> Path:
    pixels = np.repeat(blocks(width, 0)[..., None], 3, axis=-1)
    return write_raster(path, pixels, rows, **ON_GROUND)


def windows(
    model: str, data: str, precision: str, window: int, overlap: int, augment: bool, shift: bool
) -> dict[str, Any]:
    """Predict the validation scenes of a run, in ``data``, with windows of one size and overlap.

    With ``augment`` it takes the mean over the eight symmetries of every window. With ``shift`` it
    predicts a second time on windows that lie half a stride further right and down, and compares
    where both see the same image.

    Returns:
        Pooled IoU at the run's threshold, windows per scene megapixel, seconds per megapixel and,
        with ``shift``, the share of pixels that change their class and the mean change of the
        probability. Scenes of less than two windows a side are not compared.
    """
    run = load_run(Path(model), precision)
    network = run.model.predict_on_batch
    predict = mean_over_symmetries(network) if augment else network
    threshold = run.config["threshold"]
    # The first call builds the graph.
    empty = np.zeros((window, window, run.config["bands"]), run.config["dtype"])
    predict_image(predict, empty, None, window, 0)
    counts, pixels, number, seconds = Counts(), 0, 0, 0.0
    changed, compared, difference = 0, 0, 0.0
    for image, truth in _scenes(run, Path(data)):
        valid = truth != VOID
        began = time.perf_counter()
        found = predict_image(predict, image, valid, window, overlap)
        seconds += time.perf_counter() - began
        counts += count(truth, threshold_mask(found, threshold))
        pixels += truth.size
        number += len(WindowGrid(*truth.shape, window, overlap).windows())
        if shift and min(truth.shape) >= 2 * window:
            one, other = _both_grids(predict, image, valid, window, overlap, found)
            changed += int(((one >= threshold) != (other >= threshold)).sum())
            compared += one.size
            difference += float(np.abs(one - other).sum())
    return {
        "iou": counts.metrics()["iou"],
        "windows_per_megapixel": number * 1e6 / pixels,
        "seconds_per_megapixel": seconds * 1e6 / pixels,
        "changed_by_shift": changed / compared if compared else None,
        "mean_change_by_shift": difference / compared if compared else None,
    }


def _scenes(run: Run, data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield image and truth of the validation scenes, void in the truth."""
    numbers = run.config["recipe"].get("patches", {}).get("band_numbers")
    for scene in scenes_of(run, data):
        image, label, valid, _ = load_pair(scene, run.config["bands"], numbers)
        yield image, np.where(valid, label, np.uint8(VOID))


def _both_grids(
    predict: Predict,
    image: np.ndarray,
    valid: np.ndarray,
    window: int,
    overlap: int,
    found: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of the same valid pixels on the grid of ``found`` and a shifted one."""
    step = (window - overlap) // 2
    moved = predict_image(predict, image[step:, step:], valid[step:, step:], window, overlap)
    # Within a window of the cut the network saw the image mirrored, which is another image.
    one, other = found[step + window :, step + window :], moved[window:, window:]
    both = np.isfinite(one)
    return one[both], other[both]


def mosaic(model: str, data: str, precision: str) -> dict[str, Any]:
    """Predict the tiles of ``TOWN`` as one raster and alone, as ``infer.py`` does, and compare.

    At a tile's border the network sees the tile mirrored, in the mosaic the neighbouring tile;
    and the windows of both lie elsewhere. ``data`` holds ``aerial_buildings``, the data of the
    recipe ``open_buildings``.

    Returns:
        The share of pixels that are equal, the IoU of both masks, footprints of the mosaic, how
        many of them are valid, and how many reach over a border of two tiles.
    """
    import geopandas
    import shapely

    run = load_run(Path(model), precision)
    images = images_in(train_folder(Path(data) / "aerial_buildings") / "images")
    tiles = [image for image in images if parse_stem(image.stem).place == TOWN]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = _joined([read_image(tile)[0] for tile in tiles])
        town = write_raster(folder / "town.tif", pixels)
        whole = predict_raster(run, town, folder)
        masks = [_target(predict_raster(run, tile, folder).outputs[0]) for tile in tiles]
        together, alone = _target(whole.outputs[0]), _joined(masks)
        layer = next(path for path in whole.outputs if path.suffix == ".geojson")
        shapes = geopandas.read_file(layer).geometry.to_numpy()
    height, width = masks[0].shape
    rows, columns = together.shape
    borders = shapely.multilinestrings(
        [[(0, y), (columns, y)] for y in range(height, rows, height)]
        + [[(x, 0), (x, rows)] for x in range(width, columns, width)]
    )
    return {
        "tiles": len(tiles),
        "pixels": together.size,
        "equal_pixels": float((together == alone).mean()),
        "iou_of_the_masks": count(*np.uint8([alone, together])).metrics()["iou"],
        "footprints": len(shapes),
        "valid_footprints": int(shapely.is_valid(shapes).sum()),
        "footprints_over_borders": int(shapely.crosses(shapes, borders).sum()),
    }


def _target(mask: Path) -> np.ndarray:
    return read_image(mask, band_count=1)[0][..., 0] > 0


def _joined(tiles: list[np.ndarray]) -> np.ndarray:
    """Join the tiles of a grid of ``COLUMNS`` columns, row by row."""
    rows = [np.concatenate(tiles[n : n + COLUMNS], axis=1) for n in range(0, len(tiles), COLUMNS)]
    return np.concatenate(rows)


def evaluation(size: int, objects: bool, tiles: int) -> dict[str, Any]:
    """Time ``evaluate_masks`` on generated labels and, as predictions, the same moved by a pixel.

    The tiles, ``size`` pixels a side, are of the five cities in turn; all of a city are one file.

    Returns:
        Seconds, reading included, and processor seconds, which other work on the machine does not
        lengthen; and what was found: IoU and, with objects, how many there are and their F1.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_labels(folder, size, tiles)
        restart_peak()
        began, busy = time.perf_counter(), time.process_time()
        measures = MaskMeasures(objects=objects)
        records = evaluate_masks(folder / "found", folder / "labels", measures=measures)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
    counts = sum((record.counts for record in records[1:]), records[0].counts)
    found = {"true_objects": "-", "f1": "-"}
    if objects:
        found = sum((record.objects for record in records[1:]), records[0].objects).metrics()
    return {
        "pixels": counts.pixels,
        "seconds": seconds,
        "processor_seconds": busy,
        "processor_seconds_of_a_tile": busy / len(records),
        "iou": counts.metrics()["iou"],
        "true_objects": found["true_objects"],
        "f1": found["f1"],
    }


def _write_labels(folder: Path, size: int, tiles: int) -> None:
    """Write ``labels`` and ``found``, 0 / 255."""
    # A small scene is repeated: to render a whole tile takes minutes.
    side = min(size, 500)
    repeats = -(-size // side)
    for number in range(tiles):
        place, index = number % len(CITIES), number // len(CITIES) + 1
        name = f"{CITIES[place]}{index}.tif"
        if index > 1:
            for kind in ("labels", "found"):
                os.link(folder / kind / f"{CITIES[place]}1.tif", folder / kind / name)
            continue
        label = np.tile(render_scene(side, (0, place))[2], (repeats, repeats))[:size, :size, None]
        for kind, mask in (("labels", label), ("found", np.roll(label, 1, (0, 1)))):
            path = folder / kind / name
            write_raster(path, mask * np.uint8(255), **ON_GROUND, compress="DEFLATE")
