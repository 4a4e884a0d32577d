"""Sums of a raster's pixels inside of polygons and along lines, strip by strip.

Polygons and points are in pixels (column, row) of the raster. A pixel belongs to a polygon where
its centre does: to an outline that follows the edges of pixels, exactly those it was drawn around.
Memory holds one strip of about four million pixels beside the polygons.
"""

import os
from collections.abc import Callable

import numpy as np
import rasterio.features
import shapely
from affine import Affine

from preprocessing.errors import RasterError
from preprocessing.geometry import geographic_corners, metres_apart
from preprocessing.raster_access import ClosedOnExit, RasterInfo, gdal_quiet, raster_info
from preprocessing.rasters import LabelReader, RasterReader
from preprocessing.tiling import VOID, Window, strips


class ProbabilityReader(ClosedOnExit):
    """Probabilities on the grid of a mask, opened for reading windows; a context manager.

    Args:
        path: a raster of one band, 0 to 1, void where it is NaN or nodata.
        mask: the mask's raster.

    Raises:
        RasterError: no such file, no raster, several bands, or another grid than the mask's.
    """

    def __init__(self, path: str | os.PathLike, mask: RasterInfo) -> None:
        """Open the raster and compare the grids."""
        check_grid(path, mask)
        self.path = path
        self._reader = RasterReader(path, [1], 1)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def read(self, window: Window) -> np.ndarray:
        """Read one window: float64 ``(height, width)``, NaN where there is void.

        Raises:
            RasterError: corrupt, or values that are no probabilities.
        """
        image, valid = self._reader.read(window)
        values = np.where(valid, image[..., 0].astype(np.float64), np.nan)
        if ((values < 0) | (values > 1)).any():
            raise RasterError(
                f"{self.path}: has values from {np.nanmin(values):g} to {np.nanmax(values):g}; "
                "probabilities from 0 to 1 are needed, as infer.py --probabilities writes them"
            )
        return values


def check_grid(path: str | os.PathLike, mask: RasterInfo) -> None:
    """Refuse a raster of probabilities that does not lie on the pixels of a mask.

    Raises:
        RasterError: no such file, no raster, several bands, another size or, where both are
            placed, corners that lie a pixel or more apart.
    """
    info = raster_info(path)
    if info.band_count != 1:
        raise RasterError(f"{path}: has {info.band_count} bands; probabilities have one")
    if (info.height, info.width) != (mask.height, mask.width):
        raise RasterError(
            f"{path}: {info.width} x {info.height} pixels, the mask has {mask.width} x "
            f"{mask.height}; probabilities of the same grid are needed"
        )
    if not (info.georeferenced and mask.georeferenced):
        return
    placed = [
        geographic_corners(one.crs, one.transform, one.height, one.width) for one in (info, mask)
    ]
    if None not in placed and (apart := metres_apart(*placed)) >= (mask.gsd or 0):
        raise RasterError(
            f"{path}: lies up to {apart:.3g} m off the mask; probabilities of the same grid are "
            "needed"
        )


def sums_in_polygons(
    polygons: np.ndarray, height: int, width: int, read: Callable[[Window], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Add up, for each polygon, the pixels inside that are not NaN.

    Args:
        polygons: object array ``(n,)``, in pixels; where they overlap, a pixel belongs to the
            last.
        height: rows of the raster.
        width: columns of the raster.
        read: gives a window's values, float64 ``(height, width)``, NaN where there is none.

    Returns:
        Sums, float64 ``(n,)``, and how many pixels were added, int64 ``(n,)``.
    """
    sums, counts = np.zeros(len(polygons)), np.zeros(len(polygons), np.int64)
    tree = shapely.STRtree(polygons)
    for strip in strips(height, width) if len(polygons) else ():
        inside = np.sort(tree.query(shapely.box(0, strip.row, width, strip.row + strip.height)))
        if not inside.size:
            continue
        with gdal_quiet():
            number = rasterio.features.rasterize(
                zip(polygons[inside], range(1, len(inside) + 1), strict=True),
                (strip.height, strip.width),
                transform=Affine.translation(0, strip.row),
                dtype=np.int32,
            )
        values = read(strip)
        counted = (number > 0) & ~np.isnan(values)
        number, values = number[counted] - 1, values[counted]
        sums[inside] += np.bincount(number, values, len(inside))
        counts[inside] += np.bincount(number, minlength=len(inside))
    return sums, counts


def sums_at_points(
    points: np.ndarray,
    group: np.ndarray,
    groups: int,
    height: int,
    width: int,
    read: Callable[[Window], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Add up, for each group of points, the pixels under them that are not NaN.

    Args:
        points: ``(n, 2)`` int of column and row.
        group: the group of each, int ``(n,)`` from 0.
        groups: how many there are.
        height: rows of the raster.
        width: columns of the raster.
        read: as for ``sums_in_polygons``.

    Returns:
        Sums, float64 ``(groups,)``, and how many pixels were added, int64 ``(groups,)``.
    """
    sums, counts = np.zeros(groups), np.zeros(groups, np.int64)
    order = np.argsort(points[:, 1], kind="stable")
    columns, rows, group = *points[order].T, group[order]
    for strip in strips(height, width):
        first, last = np.searchsorted(rows, (strip.row, strip.row + strip.height))
        if first == last:
            continue
        values = read(strip)[rows[first:last] - strip.row, columns[first:last]]
        counted = ~np.isnan(values)
        number = group[first:last][counted]
        sums += np.bincount(number, values[counted], groups)
        counts += np.bincount(number, minlength=groups)
    return sums, counts


def holds_void(polygons: np.ndarray, mask: str | os.PathLike) -> np.ndarray:
    """Which polygons hold void pixels of a mask: bool ``(n,)``.

    Args:
        polygons: object array ``(n,)``, in pixels; apart or one inside of another.
        mask: path of the mask.

    Raises:
        RasterError: corrupt.
    """
    # The inner ones last: each void pixel then tells of the smallest polygon around it.
    order = np.argsort(-shapely.area(polygons), kind="stable")
    polygons = polygons[order]
    with LabelReader(mask) as reader:

        def void(window: Window) -> np.ndarray:
            return (reader.read(window) == VOID).astype(np.float64)

        sums, _ = sums_in_polygons(polygons, reader.height, reader.width, void)
    inner = shapely.point_on_surface(polygons[sums > 0])
    found = np.zeros(len(polygons), bool)
    found[order[shapely.STRtree(polygons).query(inner, predicate="within")[1]]] = True
    return found
