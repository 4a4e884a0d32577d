"""From the pixels of a raster to the ground: its CRS, local metres, and geodesic areas and lengths.

Three kinds of coordinates meet here: pixels (column, row), counted from the upper left corner of
the raster; those of the raster's CRS, in which layers are written; and metres around the raster's
centre, in which tolerances are meant. Neither degrees nor the metres of EPSG:3857 are ground.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
import shapely

from preprocessing.geometry import ControlPointFit, fit_control_points
from preprocessing.raster_access import RasterInfo

_GEOD = pyproj.Geod(ellps="WGS84")
# Pixels along an edge: what is straight in the raster is none on ground that control points bend.
_STRAIGHT = 64


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the pixels of one raster lie; made by ``placement``.

    Attributes:
        crs: CRS of the ground coordinates, None where the raster has no place on the ground:
            pixels are then the only coordinates, and nothing is known in metres.
        note: one sentence on what control points are worth, or on why there is no ground; else
            empty.
        info: the raster.
        fit: what control points give in place of an affine, else None.
    """

    crs: pyproj.CRS | None
    note: str
    info: RasterInfo
    fit: ControlPointFit | None = None

    def coordinates(self, pixels: np.ndarray) -> np.ndarray:
        """Coordinates in the CRS, or pixels as they are where there is none.

        Args:
            pixels: ``(n, 2)`` of column and row.

        Returns:
            ``(n, 2)`` float64 of x and y.
        """
        if self.crs is None:
            return np.asarray(pixels, float)
        if self.fit is not None:
            return self.fit(pixels)
        return apply_affine(self.info.transform, pixels)

    def outlines(self, polygons: np.ndarray) -> np.ndarray:
        """Polygons in the CRS from those in pixels, with more vertices where the ground bends.

        Args:
            polygons: object array ``(n,)``.
        """
        if self.fit is not None:
            polygons = shapely.segmentize(polygons, _STRAIGHT)
        return shapely.transform(polygons, self.coordinates)

    def metres(self, coordinates: np.ndarray, back: bool = False) -> np.ndarray:
        """Local metres from coordinates in the CRS, or ``back``.

        The azimuthal equidistant projection around the raster's centre: 50 km from there distances
        are right to 1 in 100,000, at any latitude.

        Args:
            coordinates: ``(n, 2)`` float64.
            back: from local metres to the CRS.

        Returns:
            ``(n, 2)`` float64.
        """
        direction = "INVERSE" if back else "FORWARD"
        return np.stack(self._to_metres.transform(*coordinates.T, direction=direction), axis=1)

    def geographic(self, geometries: np.ndarray) -> np.ndarray:
        """Geometries in EPSG:4326, longitude first, from those in the CRS.

        Args:
            geometries: object array ``(n,)``.
        """
        return shapely.transform(
            geometries, lambda xy: np.stack(self._to_degrees.transform(*xy.T), axis=1)
        )

    def areas(self, polygons: np.ndarray) -> np.ndarray:
        """Geodesic areas of polygons in the CRS, square metres; see ``geodesic_areas``."""
        return geodesic_areas(self.geographic(polygons))

    def lengths(self, lines: np.ndarray) -> np.ndarray:
        """Geodesic lengths of lines in the CRS: metres, float64 ``(n,)``."""
        return np.array([_GEOD.geometry_length(line) for line in self.geographic(lines)], float)

    @cached_property
    def _to_degrees(self) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)

    @cached_property
    def _to_metres(self) -> pyproj.Transformer:
        centre = np.array([[self.info.width / 2, self.info.height / 2]])
        (x, y) = self.coordinates(centre)[0]
        longitude, latitude = self._to_degrees.transform(x, y)
        local = f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m"
        return pyproj.Transformer.from_crs(self.crs, local, always_xy=True)


def placement(info: RasterInfo) -> Placement:
    """Find the way from a raster's pixels to the ground.

    Args:
        info: of the raster. Ground control points count where it has no affine, see
            ``geometry.fit_control_points``; RPCs are not used.
    """
    if info.gsd is None:
        return Placement(None, _lacking(info), info)
    crs = pyproj.CRS.from_wkt(info.crs.to_wkt())
    if not info.gcps:
        return Placement(crs, "", info)
    fit = fit_control_points(info.gcps, info.crs, info.height, info.width)
    return Placement(crs, fit.note, info, fit)


def _lacking(info: RasterInfo) -> str:
    """Why a raster has no place on the ground, and what that leads to."""
    if info.gcps and info.crs is not None:
        lacking = "control points that give it no place"
    elif info.rpcs:
        lacking = "only RPCs, which are not used"
    else:
        lacking = "no CRS" if info.crs is None else "no affine of its own that leads to the ground"
    return f"The raster has {lacking}: coordinates are in pixels (column, row), sizes too."


def apply_affine(affine: Any, points: np.ndarray) -> np.ndarray:
    """Points through an affine.

    Args:
        affine: an ``Affine``.
        points: ``(n, 2)``.

    Returns:
        ``(n, 2)`` float64.
    """
    x, y = points[:, 0], points[:, 1]
    a, b, c, d, e, f = affine[:6]
    # In the order in which GDAL adds: its outlines are then the same to the last bit.
    return np.stack([c + a * x + b * y, f + d * x + e * y], axis=1)


def geodesic_areas(polygons: np.ndarray) -> np.ndarray:
    """Areas on the WGS 84 ellipsoid, between the vertices, holes subtracted.

    Args:
        polygons: object array ``(n,)`` of polygons in EPSG:4326, rings in any orientation.

    Returns:
        Square metres, float64 ``(n,)``.
    """
    rings, owner = shapely.get_rings(polygons, return_index=True)
    areas = np.array([abs(_GEOD.geometry_area_perimeter(ring)[0]) for ring in rings], float)
    # No sign says which ring is a hole: a south-up raster or the antimeridian would turn it.
    outer = np.r_[True, owner[1:] != owner[:-1]][: len(owner)]
    return np.bincount(owner, np.where(outer, areas, -areas), len(polygons))
