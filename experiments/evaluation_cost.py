"""What measuring finished masks costs, on generated tiles of Inria's size."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from jointnet.mask_evaluation import MaskMeasures, evaluate_masks
from preprocessing.inria import CITIES, GSD
from preprocessing.sample_scenes import CRS, render_scene

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
        mask = _mask(size, number)
        for name, moved in zip(names, (mask, np.roll(mask, 1, axis=(0, 1))), strict=True):
            _write(name, moved)
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


def _mask(size: int, city: int) -> np.ndarray:
    """``(size, size)`` uint8, 0 and 1: a city's generated scene, repeated."""
    mask = render_scene(min(size, _RENDERED), (0, city))[2]
    repeats = -(-size // len(mask))
    return np.tile(mask, (repeats, repeats))[:size, :size]


def _write(path: Path, mask: np.ndarray) -> None:
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "compress": "DEFLATE", "crs": CRS}
    profile["transform"] = Affine(GSD, 0, 500_000, 0, -GSD, 5_000_000)
    height, width = mask.shape
    with rasterio.open(path, "w", height=height, width=width, **profile) as out:
        out.write(mask * np.uint8(255), 1)
