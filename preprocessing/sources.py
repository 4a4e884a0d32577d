"""What a patch store is cut from: files and their hashes, dtypes, and ground on both sides."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
import shapely
from tqdm import tqdm

from preprocessing.errors import DatasetError
from preprocessing.geometry import geographic_bounds, geographic_corners
from preprocessing.output_files import hash_file
from preprocessing.patch_store import PatchSettings
from preprocessing.rasters import RasterInfo, RasterReader
from preprocessing.scenes import Scene

DTYPES = ("uint8", "uint16", "int16", "float32")
"""Of the pixels that can be trained on; float32, in which they are scaled, holds all of them."""

SHARED_GROUND = 0.02
"""Scenes that reach into each other by more of the smaller one's width are no mere neighbours.

Chips may be cut as upright boxes in degrees around squares of a projected grid, as those of
SpaceNet 1 are, and each then reaches into the next by up to 1 %.
"""

# Files beside a Shapefile that change what its outlines mean: fields, CRS, index.
_SIDECARS = (".dbf", ".prj", ".shx")


def check_scenes(scenes: Sequence[Scene], settings: PatchSettings) -> list[RasterInfo]:
    """Refuse what can be refused without reading the scenes whole.

    Args:
        scenes: training and validation scenes.
        settings: which bands are taken of each.

    Returns:
        What the scenes' images are, in the order of the scenes; their dtype is that of the bands
        that are taken.

    Raises:
        DatasetError: no scene of one split, two of one name, a dtype that cannot be trained on,
            or several.
        RasterError: an image that cannot be opened, or has not the bands.
    """
    for split in ("train", "validation"):
        if not any(scene.split == split for scene in scenes):
            raise DatasetError(f"no {split} scene among {len(scenes)}; name other validation tiles")
    _refuse_namesakes(scenes)
    infos = [_info(scene, settings) for scene in scenes]
    for scene, info in zip(scenes, infos, strict=True):
        if info.dtype not in DTYPES:
            raise DatasetError(
                f"{scene.image}: pixels are {info.dtype}, {', '.join(DTYPES[:-1])} and "
                f"{DTYPES[-1]} can be trained on; `gdal_translate -ot Float32 "
                f"{shlex.quote(str(scene.image))} OUT.tif` makes such a file (of all scenes)"
            )
    dtypes = {info.dtype: scene.name for scene, info in zip(scenes, infos, strict=True)}
    if len(dtypes) > 1:
        named = ", ".join(f"{name} is {dtype}" for dtype, name in sorted(dtypes.items()))
        raise DatasetError(f"scenes of different dtypes: {named}; convert them to one")
    return infos


def _refuse_namesakes(scenes: Sequence[Scene]) -> None:
    """Scenes are told apart by name: in figures, in pictures, and when they are found again."""
    known: dict[str, Scene] = {}
    for scene in scenes:
        other = known.setdefault(scene.name, scene)
        if other is not scene:
            raise DatasetError(
                f"two scenes are named {scene.name}: {other.image} and {scene.image}; rename one "
                "of them together with its label"
            )


def _info(scene: Scene, settings: PatchSettings) -> RasterInfo:
    with RasterReader(scene.image, settings.band_numbers, settings.bands) as reader:
        return replace(reader.info, dtype=reader.dtype)


def describe_scenes(scenes: Sequence[Scene], infos: Sequence[RasterInfo]) -> list[dict]:
    """The scenes' entries of a manifest, see ``patches.build_store``; reads all files for hashes.

    Raises:
        DatasetError: a file that cannot be read, or one image or ground on both sides of the
            split.
    """
    pairs = zip(scenes, infos, strict=True)
    # One vector file may be the label of all scenes.
    file = cache(_file)
    described = [
        _describe(scene, info, file)
        for scene, info in tqdm(
            pairs, desc="hashing scenes", total=len(scenes), unit="scene", disable=None
        )
    ]
    _refuse_leaks(described)
    return described


def share_ground(one: list | None, other: list | None) -> bool:
    """Whether two scenes show the same ground.

    Corners are compared, not upright boxes: the box in degrees of a tile of a projected grid is
    larger than the tile, as the grid's north is not true north, and overlaps the next tile's.

    Args:
        one: corners as ``geometry.geographic_corners`` gives them, None where unknown.
        other: the same of the other scene.

    Returns:
        Whether what they share is wider than ``SHARED_GROUND`` of the smaller one's width (that
        of the narrowest box around it, turned as need be); False where one's place is unknown.
    """
    if one is None or other is None:
        return False
    if not _boxes_meet(one, np.array([other]))[0]:
        return False
    longitude, latitude = one[0]
    # A degree of longitude is shorter than one of latitude.
    scale = (max(np.cos(np.radians(latitude)), 1e-6), 1)
    one, other = (
        shapely.MultiPoint(_unwrapped(corners, longitude) * scale).convex_hull
        for corners in (one, other)
    )
    return _width(one.intersection(other)) > SHARED_GROUND * min(_width(one), _width(other))


def _width(shape: shapely.Geometry) -> float:
    """The shorter side of the narrowest box around a convex shape; 0 of lines and points."""
    if not shape.area:
        return 0.0
    corners = shapely.get_coordinates(shapely.oriented_envelope(shape))
    return float(np.hypot(*np.diff(corners[:3], axis=0).T).min())


def _boxes_meet(one: list, others: np.ndarray) -> np.ndarray:
    """Whether the box around one scene's corners meets those of others, ``(n, 4, 2)``."""
    one, others = (_unwrapped(corners, one[0][0]) for corners in (one, others))
    apart = (one.max(0) <= others.min(1)) | (others.max(1) <= one.min(0))
    return ~apart.any(axis=1)


def _unwrapped(corners: list | np.ndarray, longitude: float) -> np.ndarray:
    """Corners with ground across the antimeridian in one piece, on the side of a longitude."""
    corners = np.array(corners, float)
    corners[..., 0] -= 360 * np.round((corners[..., 0] - longitude) / 360)
    return corners


def _describe(scene: Scene, info: RasterInfo, file: Callable[[Path], dict]) -> dict:
    placed = (info.crs, info.transform, info.height, info.width)
    return {
        "name": scene.name,
        "place": scene.place,
        "index": scene.index,
        "split": scene.split,
        "image": file(scene.image),
        "label": file(scene.label),
        "sidecars": [file(path) for path in _sidecars(scene.label)],
        "where": scene.where,
        "buffer_m": scene.buffer_m,
        "white_border": scene.white_border,
        "source": scene.source,
        "height": info.height,
        "width": info.width,
        "dtype": info.dtype,
        "gsd": scene.gsd if info.gsd is None else info.gsd,
        # A CRS without an affine (or with control points only) places no pixel on the ground.
        "bounds": geographic_bounds(*placed) if info.georeferenced else None,
        "corners": geographic_corners(*placed) if info.georeferenced else None,
    }


def _file(path: Path) -> dict:
    try:
        # Before the hash: what is written meanwhile then counts as changed.
        stat = path.stat()
        digest = hash_file(path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    return {
        "path": str(path.resolve()),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "sha256": digest,
    }


def _sidecars(label: Path) -> list[Path]:
    if label.suffix.lower() != ".shp":
        return []
    beside = label.parent.glob("*")
    return sorted(p for p in beside if p.stem == label.stem and p.suffix.lower() in _SIDECARS)


def _refuse_leaks(described: list[dict]) -> None:
    held_back = [scene for scene in described if scene["split"] == "validation"]
    by_hash = {scene["image"]["sha256"]: scene for scene in held_back}
    placed = [scene for scene in held_back if scene["corners"] is not None]
    corners = np.array([scene["corners"] for scene in placed], float).reshape(-1, 4, 2)
    for one in (scene for scene in described if scene["split"] == "train"):
        if other := by_hash.get(one["image"]["sha256"]):
            _refuse_leak(one, other, "are the same image")
        if one["corners"] is None:
            continue
        for number in np.flatnonzero(_boxes_meet(one["corners"], corners)):
            if share_ground(one["corners"], placed[number]["corners"]):
                _refuse_leak(one, placed[number], "show the same ground")


def _refuse_leak(one: dict, other: dict, reason: str) -> NoReturn:
    raise DatasetError(
        f"{one['name']} (train) and {other['name']} (validation) {reason}; "
        "put both on one side of the split"
    )
