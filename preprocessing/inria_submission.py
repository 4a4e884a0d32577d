"""Masks packed into the zip file that the Inria contest takes, see ``inria_submission_check``."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window as Area
from tqdm import tqdm

from preprocessing.errors import DatasetError, OutputError
from preprocessing.inria_submission_check import (
    Sizes,
    SubmissionCheck,
    check_submission,
    missing_tiles,
)
from preprocessing.output_files import refuse_existing, replacing
from preprocessing.raster_access import GDAL_ERRORS, RasterInfo, gdal_quiet, raster_info, reason
from preprocessing.rasters import LabelReader
from preprocessing.tiling import strips

# The label of austin29 has 343 KB with the first and 115 KB with the second, zip file included.
COMPRESSIONS = {
    "lzw": {"compress": "LZW"},
    "ccittfax4": {"compress": "CCITTFAX4", "nbits": 1},
}
# Of a zip file, so that the same masks give the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)
_ROWS = 128


def pack_masks(
    masks: Mapping[str, Path],
    path: str | os.PathLike,
    wanted: Sizes,
    compression: str = "lzw",
    overwrite: bool = False,
) -> SubmissionCheck:
    """Pack masks into a zip file, which appears once it is complete and checked.

    Pixels are read and written by strips of rows, so memory stays flat.

    Args:
        masks: file of each name that the zip file shall hold: a label as ``rasters.LabelReader``
            takes it, such as the mask of a prediction; void becomes background.
        path: the zip file to write.
        wanted: names and sizes, see ``wanted_tiles``; masks may lack some of them.
        compression: one of ``COMPRESSIONS``.
        overwrite: replace a zip file that exists.

    Returns:
        What the check of the finished file found: no problems, but for what is missing.

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
        _refuse_size(file, raster_info(file), wanted[name])
    with replacing(path, overwrite) as draft:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
            for name in tqdm(sorted(masks), desc="packing", unit="mask", disable=None):
                plain = draft.with_name("mask.tif")
                _write_plain(masks[name], plain, COMPRESSIONS[compression])
                entry = zipfile.ZipInfo(name, _TIME)
                entry.external_attr = 0o644 << 16
                with open(plain, "rb") as source, archive.open(entry, "w") as to:
                    while block := source.read(1 << 20):
                        to.write(block)
        check = check_submission(draft, {name: wanted[name] for name in masks})
        if check.problems:
            raise OutputError(f"{path}: cannot be written: {check.problems[0]}")
    check.problems = missing_tiles(masks, wanted)
    return check


def _write_plain(source: Path, path: Path, options: dict) -> None:
    """A label as a GeoTIFF of one channel without mask, overviews or nodata."""
    with LabelReader(source) as label:
        info = label.info
        profile = {"height": info.height, "width": info.width, "count": 1, "dtype": "uint8"}
        if info.georeferenced:
            profile |= {"crs": info.crs, "transform": info.transform}
        target = 1 if options.get("nbits") == 1 else 255
        try:
            with (
                gdal_quiet(),
                rasterio.open(
                    path, "w", driver="GTiff", blockysize=_ROWS, **profile, **options
                ) as file,
            ):
                for window in strips(info.height, info.width, _ROWS):
                    pixels = np.where(label.read(window) == 1, np.uint8(target), np.uint8(0))
                    area = Area(window.column, window.row, window.width, window.height)
                    file.write(pixels, 1, window=area)
        except GDAL_ERRORS as error:
            raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


def _refuse_size(file: Path, info: RasterInfo, size: tuple[int, int]) -> None:
    """Refuse a mask that has not the size of its image."""
    if (info.height, info.width) != size:
        raise DatasetError(
            f"{file}: has {info.width} x {info.height} pixels, its image {size[1]} x {size[0]}"
        )
