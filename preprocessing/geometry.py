"""Where a raster lies on Earth, and how many metres of ground one of its pixels spans."""

import math
from typing import Any

import pyproj
from affine import Affine

_GEOD = pyproj.Geod(ellps="WGS84")


def to_longitude_latitude(crs: Any) -> pyproj.Transformer | None:
    """The transformer from a CRS to EPSG:4326 in x, y order; None if there is no such way.

    An engineering CRS (a site grid, a floor plan) has no place on Earth.
    """
    try:
        source = pyproj.CRS.from_user_input(crs)
        return pyproj.Transformer.from_crs(source, "EPSG:4326", always_xy=True)
    except pyproj.exceptions.ProjError:
        return None


def ground_sample_distance(crs: Any, transform: Affine, height: int, width: int) -> float | None:
    """Ground metres per pixel at the centre of a raster, along the WGS 84 ellipsoid.

    The pixel's step along a row and its step along a column are each measured as a geodesic,
    so that a "metre" of EPSG:3857, which shrinks with latitude, or a degree of EPSG:4326 ends
    as metres of ground, and a rotation changes nothing.

    Args:
        crs: anything pyproj takes as a CRS, a ``rasterio.crs.CRS`` too; None if unknown.
        transform: the affine from (column, row) to the CRS; may be rotated or south-up.
        height: rows of the raster.
        width: columns of the raster.

    Returns:
        The geometric mean of the two steps in metres (the side of a square pixel of the same
        area where they are at right angles), or None where the raster cannot be placed on
        Earth: no CRS, a CRS without a way to longitude and latitude, or a centre outside the
        CRS's domain.
    """
    transformer = None if crs is None else to_longitude_latitude(crs)
    if transformer is None:
        return None
    column, row = width / 2, height / 2
    # One pixel, centred: half a pixel to either side, along the row and along the column.
    ends = [(column - 0.5, row), (column + 0.5, row), (column, row - 0.5), (column, row + 0.5)]
    points = [
        transformer.transform(
            transform.a * x + transform.b * y + transform.c,
            transform.d * x + transform.e * y + transform.f,
        )
        for x, y in ends
    ]
    if not all(math.isfinite(value) for point in points for value in point):
        return None
    _, _, along_row = _GEOD.inv(*points[0], *points[1])
    _, _, along_column = _GEOD.inv(*points[2], *points[3])
    distance = math.sqrt(along_row * along_column)
    return distance if math.isfinite(distance) and distance > 0 else None


def geographic_bounds(crs: Any, transform: Affine, height: int, width: int) -> list[float] | None:
    """West, south, east and north of a raster in degrees (EPSG:4326).

    Args:
        crs: anything pyproj takes as a CRS; None if unknown.
        transform: the affine from (column, row) to the CRS; may be rotated or south-up.
        height: rows of the raster.
        width: columns of the raster.

    Returns:
        The box around the raster's edges, or None where the raster cannot be placed on Earth.
    """
    transformer = None if crs is None else to_longitude_latitude(crs)
    if transformer is None:
        return None
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = zip(*corners, strict=True)
    bounds = transformer.transform_bounds(min(xs), min(ys), max(xs), max(ys), errcheck=False)
    return list(bounds) if all(math.isfinite(value) for value in bounds) else None


def geographic_corners(
    crs: Any, transform: Affine, height: int, width: int
) -> list[list[float]] | None:
    """Longitude and latitude of a raster's four corners in degrees (EPSG:4326).

    Args:
        crs: anything pyproj takes as a CRS; None if unknown.
        transform: the affine from (column, row) to the CRS; may be rotated or south-up.
        height: rows of the raster.
        width: columns of the raster.

    Returns:
        Upper left, upper right, lower right and lower left as the raster's rows and columns go,
        each [longitude, latitude]; or None where the raster cannot be placed on Earth.
    """
    transformer = None if crs is None else to_longitude_latitude(crs)
    if transformer is None:
        return None
    pixels = ((0, 0), (width, 0), (width, height), (0, height))
    corners = [list(transformer.transform(*(transform @ corner))) for corner in pixels]
    return corners if all(math.isfinite(v) for corner in corners for v in corner) else None
