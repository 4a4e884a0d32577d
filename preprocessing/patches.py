"""Cut scenes into patches, and write them as a patch store."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from preprocessing import rasters
from preprocessing.band_statistics import BandStatistics
from preprocessing.errors import DatasetError, LabelError, OutputError
from preprocessing.ground import grid_difference
from preprocessing.massachusetts import white_border
from preprocessing.output_files import replacing_folder, require_space
from preprocessing.patch_store import FORMAT, PatchSettings, PatchStore, open_store
from preprocessing.polygons import rasterise, scene_polygons
from preprocessing.scene_checks import check_scenes, describe_scenes
from preprocessing.scenes import Scene
from preprocessing.tiling import VOID, Window, cover, cut, cut_mask, fill_void


def load_label(scene: Scene, info: rasters.RasterInfo) -> tuple[np.ndarray, dict | None]:
    """Read or rasterise the label of a scene; ``info`` is that of its image.

    Returns:
        Mask ``(height, width)`` uint8 of 0, 1 and 255; and ``polygons.PolygonCounts`` as a
        dictionary, None if the label is a raster.

    Raises:
        RasterError, LabelError, PolygonError: the label cannot be read, or has another size or
            place than the image.
    """
    if scene.label_kind == "polygons":
        polygons, counts = scene_polygons(scene, info)
        return rasterise(polygons, info), asdict(counts)
    named = f"its image {scene.image}"
    if difference := grid_difference(rasters.raster_info(scene.label), info, named):
        raise LabelError(f"{scene.label} {difference}; is it the label of another image?")
    return rasters.read_label(scene.label), None


def load_pair(
    scene: Scene, bands: int, band_numbers: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict | None]:
    """Read the whole image and label of a scene; bands are chosen as in ``PatchSettings``.

    Returns:
        Image ``(height, width, bands)`` in its dtype; label as from ``load_label``, 255 where the
        label itself has no data; validity of the image ``(height, width)`` bool; and the counts of
        ``load_label``.

    Raises:
        RasterError, LabelError, PolygonError: as ``load_label``, or the image cannot be read.
    """
    label, counts = load_label(scene, rasters.raster_info(scene.image))
    image, valid = rasters.read_image(scene.image, band_numbers, bands)
    if scene.white_border:
        valid &= ~white_border(image)
    return image, label, valid, counts


def validation_patches(
    image: np.ndarray, mask: np.ndarray, size: int
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
    """Yield window, image and mask of patches that label every valid pixel exactly once.

    The last row and column of patches are moved back into the scene, so that the network sees
    real surroundings there; their masks are void where an earlier patch lies. Images are ``(height,
    width, bands)``, masks ``(height, width)`` uint8 of 0, 1 and 255.
    """
    remaining = mask.copy()
    for window in cover(*mask.shape, size):
        yield window, cut(image, window), cut_mask(remaining, window)
        remaining[window.clipped(*mask.shape).slices] = VOID


def build_store(folder: Path, scenes: Sequence[Scene], settings: PatchSettings) -> PatchStore:
    """Cut scenes into a patch store, which appears once it is complete, and open it.

    Pixels without imagery are stored as they are fed in prediction (``tiling.fill_void``).

    The manifest holds

    - of each scene: the files with size, time of change (``mtime_ns``) and SHA-256, those beside a
      Shapefile as ``sidecars``; height, width, split; ``gsd`` in metres, the raster's own if it
      has one; ``bounds`` (west, south, east, north) and ``corners`` (upper left, upper right,
      lower right, lower left, each longitude and latitude) in EPSG:4326 or null; how its polygons
      were read and what became of them;
    - of each patch: its scene, window (row, column, height, width), extent inside the scene, and
      shares of valid and of target pixels;
    - of all: dtype, settings, and ``BandStatistics`` of the valid training pixels
      (``band_percentiles``, ``band_limits``, ``band_mean``, ``band_std``).

    Raises:
        DatasetError: a split has no scene, two scenes have one name, a dtype cannot be trained on
            or differs from others, an image or some ground is in both splits, or no training
            pixel is valid.
        OutputError: the folder exists or cannot be written (no right to, not enough space).
        RasterError, LabelError, PolygonError: a scene cannot be read; the first also if many
            pixels have a fill value that is not declared as nodata.
    """
    folder = Path(folder)
    if folder.exists():
        raise OutputError(f"{folder} exists; delete it or name another folder")
    infos = check_scenes(scenes, settings)
    pairs = [pair for pair in zip(scenes, infos, strict=True) if pair[0].label_kind == "polygons"]
    # Make the folder before hashing gigabytes: it may be impossible to write.
    with replacing_folder(folder) as made:
        # Read all vector labels before the work, as the last may be unreadable.
        for scene, info in tqdm(pairs, desc="checking labels", unit="scene", disable=None):
            scene_polygons(scene, info)
        described = describe_scenes(scenes, infos)
        manifest = _write(made, scenes, described, settings)
        (made / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return open_store(folder)


def _write(
    folder: Path, scenes: Sequence[Scene], described: list[dict], settings: PatchSettings
) -> dict:
    dtype = described[0]["dtype"]
    sizes = {"train": settings.patch_size, "validation": settings.validation_size}
    arrays, records = _allocate(folder, described, settings), {"train": [], "validation": []}
    statistics = BandStatistics(settings.bands)
    bar = tqdm(scenes, desc="cutting patches", unit="scene", disable=None)
    for number, scene in enumerate(bar):
        loaded = load_pair(scene, settings.bands, settings.band_numbers)
        image, label, valid, described[number]["polygons"] = loaded
        mask = np.where(valid, label, np.uint8(VOID))
        if scene.split == "train":
            statistics.update(image, mask != VOID)
            patches = (
                (window, cut(image, window), cut_mask(mask, window))
                for window in cover(*mask.shape, settings.patch_size, settings.stride)
            )
        else:
            patches = validation_patches(image, mask, settings.validation_size)
        images, masks = arrays[scene.split]
        for window, patch, patch_mask in patches:
            position = len(records[scene.split])
            # Only by the image's validity: there is imagery where just the label is void.
            images[position] = fill_void(patch, cut(valid, window))
            masks[position] = patch_mask
            records[scene.split].append(_record(number, window, mask.shape, patch_mask))
    if not any(patch["valid_share"] for patch in records["train"]):
        raise DatasetError("no pixel of the training scenes is valid in both image and label")
    for pair in arrays.values():
        for array in pair:
            array.flush()
    gsds = [scene["gsd"] for scene in described if scene["gsd"] is not None]
    return {
        "format": FORMAT,
        "target": settings.target,
        "bands": settings.bands,
        "dtype": dtype,
        "band_mean": statistics.mean,
        "band_std": statistics.std,
        "band_limits": statistics.limits,
        "band_percentiles": statistics.percentiles,
        "gsd": float(np.median(gsds)) if gsds else None,
        "settings": vars(settings),
        "scenes": described,
        "splits": {
            split: {"patch_size": size, "patches": records[split]} for split, size in sizes.items()
        },
    }


def _allocate(
    folder: Path, described: list[dict], settings: PatchSettings
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return memory maps for the images and masks of both splits."""
    shapes = {}
    for split, size, stride in (
        ("train", settings.patch_size, settings.stride),
        ("validation", settings.validation_size, settings.validation_size),
    ):
        members = [scene for scene in described if scene["split"] == split]
        count = sum(len(cover(s["height"], s["width"], size, stride)) for s in members)
        shapes[split] = (count, size, size)
    dtype = np.dtype(described[0]["dtype"])
    # A memory map on a full disk kills the process; an ordinary write would raise an error.
    pixels = sum(math.prod(shape) for shape in shapes.values())
    require_space(folder, pixels * (settings.bands * dtype.itemsize + 1))
    arrays = {}
    for split, shape in shapes.items():
        inside = folder / split
        inside.mkdir()
        arrays[split] = (
            open_memmap(inside / "images.npy", "w+", dtype, (*shape, settings.bands)),
            open_memmap(inside / "masks.npy", "w+", np.uint8, shape),
        )
    return arrays


def _record(scene: int, window: Window, shape: tuple[int, int], mask: np.ndarray) -> dict:
    inside = window.clipped(*shape)
    valid = int((mask != VOID).sum())
    return {
        "scene": scene,
        "window": [window.row, window.column, window.height, window.width],
        "extent": [inside.height, inside.width],
        "valid_share": round(valid / mask.size, 6),
        "target_share": round(int((mask == 1).sum()) / valid, 6) if valid else 0.0,
    }
