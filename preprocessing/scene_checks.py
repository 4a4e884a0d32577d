"""What may be wrong with scenes: dtypes, names, shared ground, a damaged Inria folder."""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import numpy as np
import shapely
from tqdm import tqdm

from preprocessing.augmentation import DTYPES
from preprocessing.errors import DatasetError, JointNetError, RasterError, one_line
from preprocessing.ground import geographic_bounds, geographic_corners, grid_difference
from preprocessing.inria import (
    CITIES,
    GSD,
    TILE_SIZE,
    TILES_PER_CITY,
    TileName,
    parse_stem,
    train_folder,
)
from preprocessing.output_files import hash_file
from preprocessing.patch_store import PatchSettings
from preprocessing.raster_access import RasterInfo, raster_info
from preprocessing.rasters import LabelReader, RasterReader
from preprocessing.scenes import Scene, images_in
from preprocessing.tiling import VOID, Window, strips

# Scenes that overlap by more of the smaller one's width are no mere neighbours. Chips of SpaceNet 1
# are upright boxes in degrees around squares of a projected grid, so each overlaps the next by 1 %.
SHARED_GROUND = 0.02

PATCH_SIZE = 512
# Upper ends, the first of which is no target at all.
COVERAGE_BINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)

# Files beside a Shapefile that change what its outlines mean: fields, CRS, index.
_SIDECARS = (".dbf", ".prj", ".shx")
# Share by which the ground resolution may differ: what a projection's scale adds is less.
_GSD_TOLERANCE = 0.02


# Scenes of a store


def check_scenes(scenes: Sequence[Scene], settings: PatchSettings) -> list[RasterInfo]:
    """Refuse what can be refused without reading the scenes whole.

    Returns:
        What the scenes' images are, in the order of the scenes; their dtype is that of the bands
        that the settings take.

    Raises:
        DatasetError: no scene of one split, two of one name, a dtype that cannot be trained on,
            or several.
        RasterError: an image that cannot be opened, or has not the bands.
    """
    for split in ("train", "validation"):
        if not any(scene.split == split for scene in scenes):
            raise DatasetError(f"no {split} scene among {len(scenes)}; name other validation tiles")
    # Scenes are told apart by name in tables and pictures, and when they are found again.
    known: dict[str, Scene] = {}
    for scene in scenes:
        other = known.setdefault(scene.name, scene)
        if other is not scene:
            raise DatasetError(
                f"two scenes are named {scene.name}: {other.image} and {scene.image}; rename one "
                "of them together with its label"
            )
    infos = []
    for scene in scenes:
        with RasterReader(scene.image, settings.band_numbers, settings.bands) as reader:
            infos.append(replace(reader.info, dtype=reader.dtype))
        if reader.dtype not in DTYPES:
            raise DatasetError(
                f"{scene.image}: pixels are {reader.dtype}, {', '.join(DTYPES[:-1])} and "
                f"{DTYPES[-1]} can be trained on; `gdal_translate -ot Float32 "
                f"{shlex.quote(str(scene.image))} OUT.tif` makes such a file (of all scenes)"
            )
    dtypes = {info.dtype: scene.name for scene, info in zip(scenes, infos, strict=True)}
    if len(dtypes) > 1:
        named = ", ".join(f"{name} is {dtype}" for dtype, name in sorted(dtypes.items()))
        raise DatasetError(f"scenes of different dtypes: {named}; convert them to one")
    return infos


def describe_scenes(scenes: Sequence[Scene], infos: Sequence[RasterInfo]) -> list[dict]:
    """Return the scenes' entries of a manifest, see ``patches.build_store``.

    All files are read, for their hashes.

    Raises:
        DatasetError: a file that cannot be read, or one image or ground on both sides of the
            split.
    """
    bar = tqdm(scenes, desc="hashing scenes", unit="scene", disable=None)
    # One vector file may be the label of all scenes.
    file = cache(_file)
    described = [_describe(scene, info, file) for scene, info in zip(bar, infos, strict=True)]
    _refuse_leaks(described)
    return described


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
    """Refuse an image or ground that stands on both sides of the split."""
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


def share_ground(one: list | None, other: list | None) -> bool:
    """Return whether two scenes show the same ground; False where one's place is unknown.

    That is so if what they share is wider than ``SHARED_GROUND`` of the smaller one's width (that
    of the narrowest turned box around it). Corners, as ``ground.geographic_corners`` gives them,
    are compared rather than upright boxes: the grid's north is not true north, so the box in
    degrees of a tile of a projected grid is larger than the tile, and overlaps the next tile's.
    """
    if one is None or other is None or not _boxes_meet(one, np.array([other]))[0]:
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
    """Return the shorter side of the narrowest box around a convex shape; 0 of a line."""
    if not shape.area:
        return 0.0
    corners = shapely.get_coordinates(shapely.oriented_envelope(shape))
    return float(np.hypot(*np.diff(corners[:3], axis=0).T).min())


def _boxes_meet(one: list, others: np.ndarray) -> np.ndarray:
    """Return whether the box around one scene's corners meets those of others, ``(n, 4, 2)``."""
    one, others = (_unwrapped(corners, one[0][0]) for corners in (one, others))
    apart = (one.max(0) <= others.min(1)) | (others.max(1) <= one.min(0))
    return ~apart.any(axis=1)


def _unwrapped(corners: list | np.ndarray, longitude: float) -> np.ndarray:
    """Shift corners across the antimeridian to the side of a longitude."""
    corners = np.array(corners, float)
    corners[..., 0] -= 360 * np.round((corners[..., 0] - longitude) / 360)
    return corners


# A folder in the Inria layout


@dataclass
class Problems:
    """Base of checks that go on after an error, which becomes a line of ``problems``."""

    problems: list[str] = field(default_factory=list, kw_only=True)

    @contextmanager
    def noted(self, file: str = "", called: str = "") -> Iterator[None]:
        """Turn an error in the block into a problem, in which ``file`` is ``called`` otherwise."""
        try:
            yield
        except JointNetError as error:
            self.problems.append(one_line(error).replace(file, called))


@dataclass
class InriaCheck(Problems):
    """What was found in a folder.

    Attributes:
        folder: the folder that holds ``images`` and ``gt``.
        official: whether all names are those of the official data set.
        images: how many were found.
        labels: how many were found.
        notes: what differs from the official data set without being wrong, one line each.
        tiles: readable labels by place.
        target: target pixels by place.
        valid: pixels that are not void by place.
        coverage: patches of ``PATCH_SIZE`` by their share of target, one number per entry of
            ``COVERAGE_BINS``; those at the far edges may be smaller, those all void are left out.
    """

    folder: Path
    official: bool
    images: int
    labels: int
    notes: list[str] = field(default_factory=list)
    tiles: Counter[str] = field(default_factory=Counter)
    target: Counter[str] = field(default_factory=Counter)
    valid: Counter[str] = field(default_factory=Counter)
    coverage: np.ndarray = field(default_factory=lambda: np.zeros(len(COVERAGE_BINS), int))


def check_inria(root: Path | str) -> InriaCheck:
    """Read every pixel of a folder in the Inria layout, and say what is wrong with it.

    ``root`` holds ``images`` and ``gt``, or ``train``, or ``AerialImageDataset``; if there is no
    such folder, or no raster in it, DatasetError is raised. Memory holds a few rows of a file.
    """
    folder = train_folder(root)
    images, labels = images_in(folder / "images"), images_in(folder / "gt")
    if not images and not labels:
        raise DatasetError(f"{folder}: images and gt hold no rasters")
    pairs = {image.stem: image for image in images}
    tiles = {path.stem: tile for path in [*images, *labels] if (tile := _parse(path))}
    official = bool(tiles) and all(t.place in CITIES and t.patch is None for t in tiles.values())
    check = InriaCheck(folder, official, len(images), len(labels))
    check.problems += _names(images, labels)
    if official:
        check.problems += missing_tiles(tiles, CITIES, TILES_PER_CITY, "tiles")
    else:
        check.notes += _unlike_official(images, tiles.values())
    for path in tqdm(images, desc="reading images", unit="image", disable=None):
        with check.noted():
            check.problems += _read_image(path, official)
    for path in tqdm(labels, desc="reading labels", unit="label", disable=None):
        with check.noted():
            _read_label(path, tiles[path.stem].place if path.stem in tiles else path.stem, check)
            if path.stem in pairs:
                image = raster_info(pairs[path.stem])
                difference = grid_difference(raster_info(path), image, "its image")
                check.problems += [f"{path}: {difference}"] if difference else ()
    return check


def check_report(check: InriaCheck) -> list[str]:
    """Return what a check counted as lines for a screen, without its problems and notes."""
    lines = [f"{check.images} images and {check.labels} labels in {check.folder}"]
    if not check.valid.total():
        return lines
    width = max(len("overall"), *map(len, check.tiles))
    lines.append(f"{'place':<{width}}  {'tiles':>5}  {'target':>7}")
    counted = [(p, check.tiles[p], check.target[p], check.valid[p]) for p in sorted(check.tiles)]
    every = (check.tiles, check.target, check.valid)
    counted.append(("overall", *(counter.total() for counter in every)))
    for place, tiles, target, valid in counted:
        lines.append(f"{place:<{width}}  {tiles:>5}  {target / max(valid, 1):>7.1%}")
    lines.append(f"share of target  patches of {PATCH_SIZE} px")
    bins = ["none", *(f"{low:.0%} to {high:.0%}" for low, high in pairwise(COVERAGE_BINS))]
    for name, count in zip(bins, check.coverage, strict=True):
        part = count / check.coverage.sum()
        lines.append(f"{name:>15}  {count:>6} {part:>6.1%}  {'#' * round(40 * part)}".rstrip())
    return lines


def _parse(path: Path) -> TileName | None:
    with suppress(DatasetError):
        return parse_stem(path.stem)
    return None


def _names(images: list[Path], labels: list[Path]) -> Iterator[str]:
    """Yield a line for each name that is no tile's, that two files share, or that lacks a pair."""
    for mine, others, missing in ((images, labels, "label"), (labels, images, "image")):
        stems = {path.stem for path in others}
        seen: dict[str, Path] = {}
        for path in mine:
            if _parse(path) is None:
                yield f"{path}: is no tile name; expected <place><index>, such as austin1"
            elif path.stem not in stems:
                yield f"{path}: has no {missing} of its name"
            if path.stem in seen:
                yield f"{path}: shares its name with {seen[path.stem].name}; keep one of them"
            seen[path.stem] = path


def missing_tiles(
    found: Collection[str], cities: Iterable[str], number: int, what: str, suffix: str = ""
) -> Iterator[str]:
    """Yield a line for each city that lacks some of its tiles ``<city>1<suffix>`` to ``number``.

    ``what`` is what the lines call them.
    """
    for city in cities:
        names = [f"{city}{tile}{suffix}" for tile in range(1, number + 1)]
        absent = [name for name in names if name not in found]
        if len(absent) == number:
            yield f"{city}: none of its {number} {what} is there"
        elif absent:
            yield f"{city}: {len(absent)} of {number} {what} missing: {', '.join(absent)}"


def _read_image(path: Path, official: bool) -> Iterator[str]:
    """Read an image whole, and yield what is wrong with it."""
    info = raster_info(path)
    with RasterReader(path, range(1, info.band_count + 1), info.band_count) as reader:
        windows = strips(reader.height, reader.width, PATCH_SIZE)
        pixels = (reader.read(window)[0] for window in windows)
        low, high = zip(*((strip.min(), strip.max()) for strip in pixels), strict=True)
    if min(low) == max(high):
        yield f"{path}: all its pixels are {min(low)}"
    if info.dtype not in DTYPES:
        yield f"{path}: pixels are {info.dtype}, {' or '.join(DTYPES)} can be trained on"
    if not official:
        return
    if (info.height, info.width) != (TILE_SIZE, TILE_SIZE):
        size = f"{TILE_SIZE} x {TILE_SIZE}"
        yield f"{path}: has {info.width} x {info.height} pixels, an official tile {size}"
    if (info.band_count, info.dtype) != (3, "uint8"):
        yield f"{path}: has {info.band_count} band(s) of {info.dtype}, an official tile 3 of uint8"
    if info.gsd is not None and abs(info.gsd / GSD - 1) > _GSD_TOLERANCE:
        yield f"{path}: a pixel spans {info.gsd:.3g} m, of an official tile {GSD} m"


def _read_label(path: Path, place: str, check: InriaCheck) -> None:
    """Read a label whole, and count its target."""
    target = valid = 0
    coverage = np.zeros_like(check.coverage)
    with LabelReader(path) as reader:
        columns = np.arange(0, reader.width, PATCH_SIZE)
        for row in range(0, reader.height, PATCH_SIZE):
            window = Window(row, 0, PATCH_SIZE, reader.width)
            mask = reader.read(window.clipped(reader.height, reader.width))
            targets, pixels = (
                np.add.reduceat(counted.sum(axis=0), columns)
                for counted in (mask == 1, mask != VOID)
            )
            target += int(targets.sum())
            valid += int(pixels.sum())
            bins = np.searchsorted(COVERAGE_BINS, targets[pixels > 0] / pixels[pixels > 0])
            coverage += np.bincount(bins, minlength=len(COVERAGE_BINS))
    # Not before: a label that turns out to be none counts nowhere.
    check.tiles[place] += 1
    check.target[place] += target
    check.valid[place] += valid
    check.coverage += coverage


def _unlike_official(images: list[Path], tiles: Iterable[TileName]) -> Iterator[str]:
    """Yield how the readable images of another data set differ from the official one."""
    places = Counter(tile.place for tile in tiles)
    named = ", ".join(f"{place} {count}" for place, count in sorted(places.items()))
    yield f"not the official data set ({TILES_PER_CITY} tiles of {', '.join(CITIES)}): {named}"
    infos = []
    for path in images:
        with suppress(RasterError):
            infos.append(raster_info(path))
    if not infos:
        return
    areas = sorted((info.height * info.width, info.width, info.height) for info in infos)
    (_, *least), (_, *most) = areas[0], areas[-1]
    if least != [TILE_SIZE] * 2 or most != [TILE_SIZE] * 2:
        yield (
            f"tiles have {least[0]} x {least[1]} to {most[0]} x {most[1]} pixels, "
            f"official ones {TILE_SIZE} x {TILE_SIZE}"
        )
    kinds = sorted({f"{info.band_count} of {info.dtype}" for info in infos} - {"3 of uint8"})
    if kinds:
        yield f"some have {', '.join(kinds)} bands, official ones 3 of uint8"
    known = [info.gsd for info in infos if info.gsd is not None]
    if known and max(abs(gsd / GSD - 1) for gsd in known) > _GSD_TOLERANCE:
        yield f"pixels span {min(known):.3g} to {max(known):.3g} m, official ones {GSD} m"
    if len(known) < len(infos):
        yield f"{len(infos) - len(known)} of {len(infos)} images are not georeferenced"
