"""Pack masks into the zip file that the Inria contest takes, and check such a file."""

import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from tqdm import tqdm

from preprocessing.errors import DatasetError, OutputError, RasterError, listed
from preprocessing.inria import TEST_CITIES, TILE_SIZE, TILES_PER_CITY
from preprocessing.output_files import cannot_write, refuse_existing, replacing
from preprocessing.raster_access import (
    GDAL_ERRORS,
    RasterInfo,
    gdal_quiet,
    raster_info,
    read_window,
    reason,
)
from preprocessing.rasters import LabelReader
from preprocessing.scene_checks import Problems, missing_tiles
from preprocessing.tiling import strips

Sizes = Mapping[str, tuple[int, int]]
"""Height and width of each mask, by its name."""

OFFICIAL_NAMES = tuple(
    f"{city}{number}.tif" for city in TEST_CITIES for number in range(1, TILES_PER_CITY + 1)
)
# The label of austin29 has 343 KB with the first and 115 KB with the second, zip file included.
COMPRESSIONS = {
    "lzw": {"compress": "LZW"},
    "ccittfax4": {"compress": "CCITTFAX4", "nbits": 1},
}
# Of a zip file, so that the same masks give the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)
_ROWS = 128


@dataclass
class SubmissionCheck(Problems):
    """What was found in a zip file; without ``problems`` the contest can take it.

    Attributes:
        masks: how many could be read whole.
        size: bytes of the zip file.
        pixels: pixels of these masks.
        target: pixels of the target among them.
    """

    masks: int = 0
    size: int = 0
    pixels: int = 0
    target: int = 0


def wanted_tiles(images: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Return the names of the masks that a submission holds, and height and width of each.

    Where all test images have names of official tiles, or there are none, all 180 of these are
    wanted, those that are not there with 5000 x 5000 pixels. Other images are another data set, of
    which each has a mask. An image that cannot be opened raises RasterError.
    """
    found = {mask_name(image): raster_info(image) for image in images}
    sizes = {name: (info.height, info.width) for name, info in found.items()}
    if found.keys() <= set(OFFICIAL_NAMES):
        return {name: sizes.get(name, (TILE_SIZE, TILE_SIZE)) for name in OFFICIAL_NAMES}
    return sizes


def mask_name(image: Path) -> str:
    """Return the name of an image's mask: the image's own, as a TIFF."""
    return image.name if image.suffix.lower() in (".tif", ".tiff") else f"{image.stem}.tif"


def missing_masks(names: Collection[str], wanted: Collection[str]) -> list[str]:
    """Return a line for each city of the official data set of which masks are missing.

    Masks of other images that are missing share one more line.
    """
    absent = [name for name in wanted if name not in names and name not in OFFICIAL_NAMES]
    there = {*names, *(name for name in OFFICIAL_NAMES if name not in wanted)}
    lines = list(missing_tiles(there, TEST_CITIES, TILES_PER_CITY, "masks", ".tif"))
    if absent:
        lines.append(f"{len(absent)} of {len(wanted)} masks missing: {listed(absent)}")
    return lines


# Checking


def check_submission(path: Path, wanted: Sizes) -> SubmissionCheck:
    """Read a zip file whole, and say what the contest would stumble over.

    Looks, in flat memory, at names (missing, others, twice, in folders), damage, format, bands,
    bits, compression, size and every value. A path that is no zip file raises DatasetError.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        words = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path}: is no zip file that can be read: {words}") from error
    check = SubmissionCheck(size=path.stat().st_size)
    with archive:
        entries = archive.infolist()
        check.problems += _name_problems([entry.filename for entry in entries], wanted)
        known = [entry for entry in entries if entry.filename in wanted]
        for entry in tqdm(known, desc="checking", unit="mask", disable=None):
            name = entry.filename
            member = f"/vsizip/{{{path.resolve()}}}/{name}"
            with check.noted(member, name):
                _read_through(archive, entry)
                _check_mask(member, name, wanted[name], check)
    return check


def _name_problems(names: list[str], wanted: Collection[str]) -> list[str]:
    """Return what is wrong with the names of the entries, one line per kind."""
    inside = [name for name in names if "/" in name or "\\" in name]
    plain = {name.replace("\\", "/").rpartition("/")[2] for name in names}
    doubled = [name for name, count in Counter(names).items() if count > 1]
    others = sorted(set(names) - set(inside) - set(wanted))
    problems = []
    if inside:
        problems.append(
            f"{len(inside)} of {len(names)} entries are in folders or are folders: {listed(inside)}"
            "; pack the files alone"
        )
    if doubled:
        problems.append(f"{len(doubled)} names occur more than once: {listed(doubled)}")
    if others:
        problems.append(f"{len(others)} entries belong to no test image: {listed(others)}")
    return problems + missing_masks(plain, wanted)


def _read_through(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Compare an entry with its checksum."""
    try:
        with archive.open(entry) as file:
            while file.read(1 << 20):
                pass
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{entry.filename}: cannot be unpacked: {error}") from error


def _check_mask(member: str, name: str, size: tuple[int, int], check: SubmissionCheck) -> None:
    """Read a mask, and add its pixels and its problems to those of the check."""
    try:
        # Another format could name files outside of the zip file.
        with gdal_quiet():
            dataset = rasterio.open(member, driver="GTiff")
    except GDAL_ERRORS as error:
        raise RasterError(f"{name}: is no TIFF that can be read: {reason(error)}") from error
    with dataset:
        problems = [f"{name}: {problem}" for problem in _format_problems(dataset, size)]
        check.problems += problems
        if problems:
            return
        target = 1 if _bits(dataset) == 1 else 255
        found = 0
        for window in strips(dataset.height, dataset.width, dataset.block_shapes[0][0]):
            pixels = read_window(dataset, window, [1])[..., 0]
            wrong = (pixels != 0) & (pixels != target)
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                raise RasterError(
                    f"{name}: has the value {pixels[row, column]} at row {window.row + row}, "
                    f"column {column}; 0 and {target} are allowed"
                )
            found += int(np.count_nonzero(pixels))
    check.masks += 1
    check.pixels += dataset.height * dataset.width
    check.target += found


def _format_problems(dataset: rasterio.DatasetReader, size: tuple[int, int]) -> Iterator[str]:
    """Yield what an open mask is otherwise than the contest asks."""
    yield from _size_problem(dataset, size)
    if dataset.count != 1:
        yield f"has {dataset.count} bands; it must have one"
        return
    bits, structure = _bits(dataset), dataset.tags(ns="IMAGE_STRUCTURE")
    if dataset.dtypes[0] != "uint8" or bits not in (1, 8):
        depth = dataset.dtypes[0] if bits == 8 else f"of {bits} bits"
        yield f"pixels are {depth}; they must be uint8"
    if bits != 1 and dataset.colorinterp[0] == ColorInterp.palette:
        yield "has a colour table; it must have grey values"
    if "MINISWHITE" in structure:
        yield "stores 0 as white; it must be black"
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        yield "has a mask of void pixels; the contest knows none"
    if "COMPRESSION" not in structure:
        yield "is not compressed"


def _size_problem(
    mask: RasterInfo | rasterio.DatasetReader, size: tuple[int, int]
) -> Iterator[str]:
    if (mask.height, mask.width) != size:
        yield f"has {mask.width} x {mask.height} pixels, its image {size[1]} x {size[0]}"


def _bits(dataset: rasterio.DatasetReader) -> int:
    """Return the bits of a pixel, where they are fewer than its type has; else 8."""
    return int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))


# Packing


def pack_masks(
    masks: Mapping[str, Path],
    path: Path,
    wanted: Sizes,
    compression: str = "lzw",
    overwrite: bool = False,
) -> SubmissionCheck:
    """Pack masks into a zip file, which appears once it is complete and checked.

    Memory stays flat. ``masks`` are files by their name in the zip file, labels as
    ``rasters.LabelReader`` takes them; void becomes background. They may lack some of the
    ``wanted``, see ``wanted_tiles``. ``compression`` is one of ``COMPRESSIONS``.

    Returns:
        What the check of the finished file found; its problems are what is missing.

    Raises:
        DatasetError: no masks, a name that is not wanted, or a mask of another size; before
            anything is written.
        RasterError, LabelError: a mask cannot be read, or is none.
        OutputError: the zip file exists or cannot be written.
    """
    refuse_existing(path, overwrite)
    if not masks:
        raise DatasetError(f"no masks to pack into {path}")
    for name, file in masks.items():
        if name not in wanted:
            raise DatasetError(f"{file}: the test images have no {name}")
        for problem in _size_problem(raster_info(file), wanted[name]):
            raise DatasetError(f"{file}: {problem}")
    with replacing(path, overwrite) as draft:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
            for name in tqdm(sorted(masks), desc="packing", unit="mask", disable=None):
                plain = draft.with_name("mask.tif")
                _write_plain(masks[name], plain, COMPRESSIONS[compression])
                entry = zipfile.ZipInfo(name, _TIME)
                entry.external_attr = 0o644 << 16
                with open(plain, "rb") as source, archive.open(entry, "w") as to:
                    shutil.copyfileobj(source, to)
        check = check_submission(draft, {name: wanted[name] for name in masks})
        if check.problems:
            raise OutputError(f"{path}: cannot be written: {check.problems[0]}")
    check.problems = missing_masks(masks, wanted)
    return check


def _write_plain(source: Path, path: Path, options: dict) -> None:
    """Write a label as a GeoTIFF of one band without mask, overviews or nodata."""
    with LabelReader(source) as label:
        info = label.info
        profile = {"height": info.height, "width": info.width, "count": 1, "dtype": "uint8"}
        if info.georeferenced:
            profile |= {"crs": info.crs, "transform": info.transform}
        target = 1 if options.get("nbits") == 1 else 255
        profile |= {"driver": "GTiff", "blockysize": _ROWS, **options}
        try:
            with gdal_quiet(), rasterio.open(path, "w", **profile) as file:
                for window in strips(info.height, info.width, _ROWS):
                    pixels = np.where(label.read(window) == 1, np.uint8(target), np.uint8(0))
                    file.write(pixels, 1, window=window.slices)
        except GDAL_ERRORS as error:
            raise cannot_write(path, error) from error
