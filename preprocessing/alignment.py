"""A mask brought onto the pixels of another raster, by nearest neighbour, as a virtual raster."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio.shutil
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from preprocessing.errors import RasterError
from preprocessing.raster_access import GDAL_ERRORS, RasterInfo, gdal_quiet, open_raster, reason


@contextmanager
def aligned(path: str | os.PathLike, onto: RasterInfo) -> Iterator[Path]:
    """A virtual raster of a mask, or of probabilities, on the grid of another raster.

    Each pixel gets the value of the pixel that its centre lies in, to an eighth of a pixel; values
    are never mixed. What the source does not cover, and what is void in it, is void. No pixel is
    read before it is asked for.

    Args:
        path: a raster that has a CRS and an affine.
        onto: the other raster, which has both too.

    Yields:
        Path of a VRT file, gone when the block ends.

    Raises:
        RasterError: no such file, no raster, one of the two has no place on the ground, or there
            is no way from one CRS to the other.
    """
    with open_raster(path) as source, tempfile.TemporaryDirectory() as folder, gdal_quiet():
        if source.crs is None or source.transform.is_identity or not onto.georeferenced:
            raise RasterError(
                f"{path}: cannot be aligned, as it or what it is to be aligned with has no CRS or "
                "no affine; give rasters of one size"
            )
        grid = {"crs": onto.crs, "transform": onto.transform}
        grid |= {"height": onto.height, "width": onto.width, "resampling": Resampling.nearest}
        # What is void is said by nodata, which goes with the band, by NaN, or by an alpha band.
        if not {MaskFlags.nodata, MaskFlags.alpha} & {*source.mask_flag_enums[0]}:
            real = source.dtypes[0].startswith("float")
            grid |= {"nodata": float("nan")} if real else {"add_alpha": True}
        target = Path(folder) / f"{Path(path).stem}.vrt"
        try:
            with WarpedVRT(source, **grid) as warped:
                rasterio.shutil.copy(warped, target, driver="VRT")
        except GDAL_ERRORS as error:
            raise RasterError(f"{path}: cannot be aligned: {reason(error)}") from error
        yield target
