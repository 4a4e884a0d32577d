"""What prediction from raster to raster costs: time beside the bare network, memory over rows.

The measurements behind ``experiments/benchmark.py inference`` and ``memory``; each runs in a
process of its own, see ``measurements``.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
from affine import Affine

from experiments.evaluate import validation_scenes
from experiments.measurements import (
    blocks,
    peak_megabytes,
    random_network,
    restart_peak,
    times,
)
from jointnet.mask_evaluation import MaskMeasures, evaluate_masks
from jointnet.metrics import Counts, count, threshold_mask
from jointnet.prediction import Predict, WindowGrid, batch_of, mean_over_symmetries, predict_image
from jointnet.raster_prediction import predict_raster
from jointnet.runs import Run, load_run
from preprocessing.inria import CITIES, GSD, parse_stem, train_folder
from preprocessing.sample_scenes import CRS, render_scene
from preprocessing.scenes import images_in
from preprocessing.tiling import VOID

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


def windows(
    model: str, data: str, precision: str, window: int, overlap: int, augment: bool, shift: bool
) -> dict[str, Any]:
    """Predict the validation scenes of a run with windows of one size and overlap.

    Args:
        model: folder of the run.
        data: folder of the data sets that it was trained on.
        precision: dtype policy.
        window: side of a window in pixels.
        overlap: pixels that neighbours share.
        augment: mean over the eight flips and rotations of every window.
        shift: predict a second time on windows that lie half a stride further right and down,
            and compare where the two see the same image.

    Returns:
        Pooled IoU at the run's threshold, windows per scene megapixel, seconds per megapixel and,
        with ``shift``, the share of pixels that change their class and the mean change of the
        probability. Only what lies more than a window from the sides that the second prediction
        does not see is compared, so scenes of less than two windows a side are not.
    """
    run = load_run(Path(model), precision)
    network = run.model.predict_on_batch
    predict = mean_over_symmetries(network) if augment else network
    threshold = run.config["threshold"]
    _warm_up(run, predict, window)
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
    row = {
        "iou": counts.metrics()["iou"],
        "windows_per_megapixel": number * 1e6 / pixels,
        "seconds_per_megapixel": seconds * 1e6 / pixels,
    }
    row["changed_by_shift"] = changed / compared if compared else None
    row["mean_change_by_shift"] = difference / compared if compared else None
    return row


def _warm_up(run: Run, predict: Predict, window: int) -> None:
    """Build the graph for one size of windows."""
    image = np.zeros((window, window, run.config["bands"]), run.config["dtype"])
    predict_image(predict, image, None, window, 0)


def _scenes(run: Run, data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and truth of the validation scenes, void in the truth."""
    from preprocessing.patches import load_pair

    numbers = run.config["recipe"].get("patches", {}).get("band_numbers")
    for scene in validation_scenes(run, data):
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
    """Probabilities of the same valid pixels on the grid of ``found`` and on a shifted one."""
    step = (window - overlap) // 2
    moved = predict_image(predict, image[step:, step:], valid[step:, step:], window, overlap)
    # The image that was cut off is mirrored there, which is another image.
    one, other = found[step + window :, step + window :], moved[window:, window:]
    both = np.isfinite(one)
    return one[both], other[both]


TOWN, COLUMNS = "barnarp", 4
"""A place whose tiles are a grid, read row by row, and the columns of that grid."""


def mosaic(model: str, data: str, precision: str) -> dict[str, Any]:
    """Predict the tiles of ``TOWN`` as one VRT and alone, as ``infer.py`` does, and compare.

    At a tile's border the network sees the tile mirrored, and in the VRT its neighbour; and the
    windows of both lie otherwise, of which the network sees each as a whole.

    Args:
        model: folder of the run.
        data: folder that holds ``aerial_buildings`` (``data`` of the recipe ``open_buildings``).
        precision: dtype policy.

    Returns:
        The share of pixels that are equal, the IoU of both masks, footprints of the mosaic, how
        many of them are valid, and how many reach over a border of two tiles.
    """
    import geopandas
    import rasterio
    import shapely

    run = load_run(Path(model), precision)
    images = images_in(train_folder(Path(data) / "aerial_buildings") / "images")
    tiles = [image for image in images if parse_stem(image.stem).place == TOWN]
    with rasterio.open(tiles[0]) as tile:
        height, width = tile.shape
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = predict_raster(run, write_mosaic(folder / "town.vrt", tiles, COLUMNS), folder)
        masks = [predict_raster(run, tile, folder).outputs[0] for tile in tiles]
        town = _mask(whole.outputs[0])
        alone = np.block(
            [
                [_mask(mask) for mask in masks[first : first + COLUMNS]]
                for first in range(0, len(masks), COLUMNS)
            ]
        )
        layer = next(path for path in whole.outputs if path.suffix == ".geojson")
        shapes = geopandas.read_file(layer).geometry.to_numpy()
    borders = shapely.multilinestrings(
        [[(0, y), (town.shape[1], y)] for y in range(height, len(town), height)]
        + [[(x, 0), (x, len(town))] for x in range(width, town.shape[1], width)]
    )
    return {
        "tiles": len(tiles),
        "pixels": town.size,
        "equal_pixels": float((town == alone).mean()),
        "iou_of_the_masks": count(alone, town).metrics()["iou"],
        "footprints": len(shapes),
        "valid_footprints": int(shapely.is_valid(shapes).sum()),
        "footprints_over_borders": int(shapely.crosses(shapes, borders).sum()),
    }


def write_mosaic(path: Path, tiles: Sequence[Path], columns: int) -> Path:
    """Write a VRT of tiles of three bands and one size, without a place on the ground.

    Args:
        path: the VRT.
        tiles: uint8 rasters, the rows of a grid one after the other.
        columns: of that grid.

    Returns:
        ``path``.
    """
    import rasterio

    with rasterio.open(tiles[0]) as tile:
        height, width = tile.shape
    rows = len(tiles) // columns
    grid = list(product(range(rows), range(columns)))
    bands = ""
    for band, colour in enumerate(("Red", "Green", "Blue"), start=1):
        sources = "".join(
            f"<SimpleSource><SourceFilename>{tile}</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="{column * width}" yOff="{row * height}" xSize="{width}" '
            f'ySize="{height}"/></SimpleSource>'
            for (row, column), tile in zip(grid, tiles, strict=True)
        )
        bands += (
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>'
            f"{sources}</VRTRasterBand>"
        )
    size = f'rasterXSize="{columns * width}" rasterYSize="{rows * height}"'
    path.write_text(f"<VRTDataset {size}>{bands}</VRTDataset>", encoding="utf-8")
    return path


def _mask(path: Path) -> np.ndarray:
    """A mask of ``infer.py`` as 0 and 1."""
    import rasterio

    with rasterio.open(path) as file:
        return (file.read(1) > 0).astype(np.uint8)


# Scenes are rendered at this side and laid out over a tile, as in ``full_size``.
_RENDERED = 500


def write_tiles(folder: Path, size: int, tiles: int) -> Path:
    """Write generated labels, and as predictions the same moved by a pixel.

    Args:
        folder: comes to hold ``labels`` and ``found``.
        size: side of a tile in pixels.
        tiles: how many, of the five cities in turn; all tiles of a city are one file.

    Returns:
        The folder.
    """
    for number in range(tiles):
        city, index = CITIES[number % len(CITIES)], number // len(CITIES) + 1
        names = [folder / side / f"{city}{index}.tif" for side in ("labels", "found")]
        if index > 1:
            for name in names:
                os.link(name.with_name(f"{city}1.tif"), name)
            continue
        mask = _town_mask(size, number)
        for name, moved in zip(names, (mask, np.roll(mask, 1, axis=(0, 1))), strict=True):
            _write_town(name, moved)
    return folder


def evaluation(folder: str, objects: bool) -> dict[str, Any]:
    """``evaluate_masks`` on the tiles of ``write_tiles``.

    Args:
        folder: where they lie.
        objects: count objects too.

    Returns:
        Seconds, reading included, and those that the processor worked on it, which other work
        on the machine does not lengthen; and what was found: IoU and, with objects, how many
        there are and their F1.
    """
    began, busy = time.perf_counter(), time.process_time()
    measures = MaskMeasures(objects=objects)
    records = evaluate_masks(Path(folder) / "found", Path(folder) / "labels", measures=measures)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    counts = sum((record.counts for record in records[1:]), records[0].counts)
    result = {
        "tiles": len(records),
        "pixels": counts.pixels,
        "seconds": seconds,
        "processor_seconds": busy,
        "processor_seconds_of_a_tile": busy / len(records),
        "iou": counts.metrics()["iou"],
    }
    if objects:
        measures = sum((record.objects for record in records[1:]), records[0].objects).measures()
        return {**result, "true_objects": measures["true_objects"], "f1": measures["f1"]}
    return {**result, "true_objects": "-", "f1": "-"}


def _town_mask(size: int, city: int) -> np.ndarray:
    """``(size, size)`` uint8, 0 and 1: a city's generated scene, repeated."""
    mask = render_scene(min(size, _RENDERED), (0, city))[2]
    repeats = -(-size // len(mask))
    return np.tile(mask, (repeats, repeats))[:size, :size]


def _write_town(path: Path, mask: np.ndarray) -> None:
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "compress": "DEFLATE", "crs": CRS}
    profile["transform"] = Affine(GSD, 0, 500_000, 0, -GSD, 5_000_000)
    height, width = mask.shape
    with rasterio.open(path, "w", height=height, width=width, **profile) as out:
        out.write(mask * np.uint8(255), 1)
