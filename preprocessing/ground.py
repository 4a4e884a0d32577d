"""Where a raster lies on Earth, and how many metres of ground one of its pixels spans.

Functions take a CRS as anything that pyproj takes (a ``rasterio.crs.CRS`` too), None if unknown,
and an affine from (column, row) to it, which may be rotated or south-up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from affine import Affine

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo

_GEOD = pyproj.Geod(ellps="WGS84")
# Control points that are further off than this share of the raster's diagonal contradict
# each other: a place made of them would be none.
_CONTRADICTION = 0.1
# Pixels along an edge: what is straight in the raster is none on ground that control points bend.
_STRAIGHT = 64


def to_longitude_latitude(crs: Any) -> pyproj.Transformer | None:
    """Return the transformer to EPSG:4326 in x, y order; None if there is no such way.

    A CRS that is None, or an engineering CRS (a site grid, a floor plan), has no place on Earth.
    """
    if crs is None:
        return None
    try:
        source = pyproj.CRS.from_user_input(crs)
        return pyproj.Transformer.from_crs(source, "EPSG:4326", always_xy=True)
    except pyproj.exceptions.ProjError:
        return None


def ground_steps(
    crs: Any, transform: Affine, height: int, width: int
) -> tuple[float, float] | None:
    """Return metres of ground from a row to the next and from a column to the next.

    Both are measured at the raster's centre as geodesics of the WGS 84 ellipsoid. So a "metre" of
    EPSG:3857, which shrinks with latitude, or a degree of EPSG:4326 ends as metres of ground, and
    a rotation changes nothing. None where the raster cannot be placed on Earth: no CRS, a CRS
    without a way to longitude and latitude, or a centre outside the CRS's domain.
    """
    transformer = to_longitude_latitude(crs)
    if transformer is None:
        return None
    # One pixel, centred: half a pixel to either side, along the column and along the row.
    ends = np.array([[0, -0.5], [0, 0.5], [-0.5, 0], [0.5, 0]]) + (width / 2, height / 2)
    longitude, latitude = transformer.transform(*apply_affine(transform, ends).T)
    if not np.isfinite([longitude, latitude]).all():
        return None
    _, _, steps = _GEOD.inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])
    from_row, from_column = map(float, steps)
    good = 0 < from_row < math.inf and 0 < from_column < math.inf
    return (from_row, from_column) if good else None


def mean_step(steps: tuple[float, float]) -> float:
    """Return the geometric mean: the side of a square pixel of the same area."""
    return math.sqrt(steps[0] * steps[1])


def geographic_bounds(crs: Any, transform: Affine, height: int, width: int) -> list[float] | None:
    """Return west, south, east and north of a raster's edges in degrees (EPSG:4326).

    None where the raster cannot be placed on Earth.
    """
    transformer = to_longitude_latitude(crs)
    if transformer is None:
        return None
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = zip(*corners, strict=True)
    bounds = transformer.transform_bounds(min(xs), min(ys), max(xs), max(ys), errcheck=False)
    return list(bounds) if all(math.isfinite(value) for value in bounds) else None


def geographic_corners(
    crs: Any, transform: Affine, height: int, width: int
) -> list[list[float]] | None:
    """Return [longitude, latitude] of a raster's four corners in degrees (EPSG:4326).

    In the raster's rows and columns they are upper left, upper right, lower right, lower left.
    None where the raster cannot be placed on Earth.
    """
    transformer = to_longitude_latitude(crs)
    if transformer is None:
        return None
    pixels = ((0, 0), (width, 0), (width, height), (0, height))
    corners = [list(transformer.transform(*(transform @ corner))) for corner in pixels]
    return corners if all(math.isfinite(v) for corner in corners for v in corner) else None


def metres_apart(one: Sequence, other: Sequence) -> float:
    """Return the largest distance between two rasters' ``geographic_corners``, geodesic metres."""
    (longitude, latitude), (east, north) = np.array(one).T, np.array(other).T
    return float(np.max(_GEOD.inv(longitude, latitude, east, north)[2]))


def grid_difference(one: "RasterInfo", other: "RasterInfo", named: str) -> str | None:
    """Say how a raster differs in size or place from another; None where both lie on one grid.

    Place is compared where both have a CRS and an affine that lead to longitude and latitude.
    Corners less than a pixel of the other apart count as one place. The words end a sentence that
    begins with the name of the first raster; ``named`` is what they call the other, such as "its
    image a.tif".
    """
    if (one.height, one.width) != (other.height, other.width):
        return f"has {one.width} x {one.height} pixels, {named} {other.width} x {other.height}"
    if not (one.georeferenced and other.georeferenced) or other.gsd is None:
        return None
    corners = [geographic_corners(i.crs, i.transform, i.height, i.width) for i in (one, other)]
    # Rounded, so that a shift by exactly one pixel is one, whatever the projection.
    if None in corners or round((apart := metres_apart(*corners)) / other.gsd, 3) < 1:
        return None
    return (
        f"lies elsewhere than {named}: by CRS and affine their corners are up to {apart:.3g} m "
        f"apart, a pixel spans {other.gsd:.3g} m"
    )


# Ground control points. GDAL's GCPTransformer fits the same polynomials but takes order 2 from six
# points on, up to 8 m off; to choose by points left out would be a fit for each point.


@dataclass(frozen=True, eq=False)
class ControlPointFit:
    """Polynomials from pixels to the ground, fitted to ground control points.

    Attributes:
        order: 1, an affine, or 2.
        points: how many there were.
        residual_m: metres by which the points lie off the polynomials that all the others give
            (root mean square), None where there are too few points to leave one out.
        gsd: ground metres per pixel at the raster's centre.
        steps: metres of ground from row to row and from column to column there.
        coefficients: ``(terms, 2)`` float64, of x and y.
    """

    crs: Any
    order: int
    points: int
    residual_m: float | None
    gsd: float
    steps: tuple[float, float]
    size: tuple[int, int]
    coefficients: np.ndarray

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the coordinates ``(n, 2)`` float64 of pixels ``(n, 2)`` of column and row."""
        return _terms(pixels, self.size, self.order) @ self.coefficients

    @property
    def note(self) -> str:
        """One sentence: what places the raster, and how well."""
        shape = "an affine" if self.order == 1 else "polynomials of order 2"
        note = f"Placed by {shape} fitted to its {self.points} ground control points"
        if self.residual_m is None:
            return f"{note}, too few to say how well."
        note += f", which lie {_two_digits(self.residual_m)} m off"
        if self.residual_m <= self.gsd:
            return f"{note}, less than a pixel."
        return (
            f"{note}, {_two_digits(self.residual_m / self.gsd)} pixels; "
            "`gdalwarp -tps -t_srs EPSG:4326 IN OUT` bends the raster to each of them."
        )


def fit_control_points(
    gcps: Sequence[Any], crs: Any, height: int, width: int
) -> ControlPointFit | None:
    """Fit the way from pixels to the ground to a raster's ground control points.

    Least squares, of order 2 where that predicts points left out better than an affine does, as
    it may for a swath or a tilted photograph; with few points, or bad ones, it does not.
    Points (``rasterio.control.GroundControlPoint``) are counted as GDAL counts them, from the upper
    left corner of the upper left pixel. Their heights are not used.

    Returns:
        The fit, or None where the points give no place: fewer than three, in one line, in no
        CRS that leads to longitude and latitude, or so far from any one fit (a tenth of the
        raster's diagonal) that they contradict each other.
    """
    transformer = to_longitude_latitude(crs)
    if transformer is None or len(gcps) < 3:
        return None
    pixels = np.array([(point.col, point.row) for point in gcps], float)
    ground = np.array([(point.x, point.y) for point in gcps], float)
    if not np.isfinite(pixels).all() or not np.isfinite(ground).all():
        return None
    size, fits = (height, width), []
    for order in (1, 2):
        design = _terms(pixels, size, order)
        if len(gcps) < design.shape[1] or np.linalg.matrix_rank(design, 1e-6) < design.shape[1]:
            continue
        # The mean aside, or its size would cost the small differences their digits.
        mean = ground.mean(axis=0)
        coefficients = np.linalg.lstsq(design, ground - mean, rcond=None)[0]
        coefficients[0] += mean
        steps = ground_steps(crs, _affine_at_centre(coefficients, *size), *size)
        if steps is None or not _keeps_orientation(coefficients):
            continue
        residual = _left_out(design, ground, coefficients, transformer)
        placed = mean_step(steps), steps, size, coefficients
        fits.append(ControlPointFit(crs, order, len(gcps), residual, *placed))
    if not fits:
        return None
    # An order that says nothing of points left out comes last, the affine before order 2.
    best = min(fits, key=lambda fit: math.inf if fit.residual_m is None else fit.residual_m)
    limit = _CONTRADICTION * best.gsd * math.hypot(height, width)
    return best if best.residual_m is None or best.residual_m <= limit else None


def _terms(pixels: np.ndarray, size: tuple[int, int], order: int) -> np.ndarray:
    """Return the polynomials' terms, of columns and rows that run from -1 to 1 over the raster."""
    height, width = size
    u, v = 2 * pixels[:, 0] / width - 1, 2 * pixels[:, 1] / height - 1
    terms = [np.ones_like(u), u, v]
    return np.stack(terms if order == 1 else [*terms, u * u, u * v, v * v], axis=1)


def _affine_at_centre(coefficients: np.ndarray, height: int, width: int) -> Affine:
    """Return the affine that touches the polynomials at the raster's centre."""
    corner, along_row, along_column = coefficients[:3]
    corner = corner - along_row - along_column
    columns = np.stack([2 * along_row / width, 2 * along_column / height, corner], axis=1)
    return Affine(*columns.ravel())


def _keeps_orientation(coefficients: np.ndarray) -> bool:
    """Return whether the raster is nowhere folded or collapsed, seen at 81 of its places."""
    u, v = (axis.ravel() for axis in np.meshgrid(*[np.linspace(-1, 1, 9)] * 2))
    padded = np.zeros((6, 2))
    padded[: len(coefficients)] = coefficients
    _, along_u, along_v, uu, uv, vv = padded[:, :, None]
    by_u, by_v = along_u + 2 * uu * u + uv * v, along_v + uv * u + 2 * vv * v
    area = by_u[0] * by_v[1] - by_u[1] * by_v[0]
    least = 1e-6 * np.hypot(*by_u) * np.hypot(*by_v)
    return bool((area > least).all() or (area < -least).all())


def _left_out(
    design: np.ndarray, ground: np.ndarray, coefficients: np.ndarray, transformer: Any
) -> float | None:
    """Return metres (root mean square) between each point and the fit to all the others.

    The residual of the fit to all over 1 minus the point's leverage: exact, without refitting.
    """
    basis, _ = np.linalg.qr(design)
    free = 1 - (basis**2).sum(axis=1)
    if (free < 1e-6).any():
        return None
    predicted = ground - (ground - design @ coefficients) / free[:, None]
    places = [transformer.transform(*points.T) for points in (ground, predicted)]
    _, _, distances = _GEOD.inv(*places[0], *places[1])
    residual = float(np.sqrt(np.mean(np.square(distances))))
    return residual if math.isfinite(residual) else math.inf


def _two_digits(value: float) -> str:
    """Return a number with two significant digits, without an exponent."""
    return np.format_float_positional(value, 2, fractional=False, trim="-")


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the pixels of one raster lie; made by ``placement``.

    Attributes:
        crs: CRS of the ground coordinates, None where the raster has no place on the ground:
            pixels are then the only coordinates, and nothing is known in metres.
        note: one sentence on how good control points are, or on why there is no ground; else
            empty.
        fit: what control points give in place of an affine, else None.
    """

    crs: pyproj.CRS | None
    note: str
    info: "RasterInfo"
    fit: ControlPointFit | None = None

    def coordinates(self, pixels: np.ndarray) -> np.ndarray:
        """Return x and y in the CRS, or pixels as they are where there is none.

        Pixels are ``(n, 2)`` of column and row, the result is ``(n, 2)`` float64.
        """
        if self.crs is None:
            return np.asarray(pixels, float)
        if self.fit is not None:
            return self.fit(pixels)
        return apply_affine(self.info.transform, pixels)

    def outlines(self, polygons: np.ndarray) -> np.ndarray:
        """Return polygons ``(n,)`` in the CRS from those in pixels.

        They have more vertices where control points bend the ground.
        """
        if self.fit is not None:
            polygons = shapely.segmentize(polygons, _STRAIGHT)
        return shapely.transform(polygons, self.coordinates)

    def metres(self, coordinates: np.ndarray, back: bool = False) -> np.ndarray:
        """Return local metres ``(n, 2)`` from coordinates in the CRS, or coordinates ``back``.

        The azimuthal equidistant projection around the raster's centre: 50 km from there distances
        are right to 1 in 100,000, at any latitude.
        """
        direction = "INVERSE" if back else "FORWARD"
        return np.stack(self._to_metres.transform(*coordinates.T, direction=direction), axis=1)

    def geographic(self, geometries: np.ndarray) -> np.ndarray:
        """Return geometries ``(n,)`` in EPSG:4326, longitude first, from those in the CRS."""
        return shapely.transform(
            geometries, lambda xy: np.stack(self._to_degrees.transform(*xy.T), axis=1)
        )

    def areas(self, polygons: np.ndarray) -> np.ndarray:
        """Return geodesic areas of polygons in the CRS, square metres; see ``geodesic_areas``."""
        return geodesic_areas(self.geographic(polygons))

    def lengths(self, lines: np.ndarray) -> np.ndarray:
        """Return geodesic lengths of lines in the CRS: metres, float64 ``(n,)``."""
        return np.array([_GEOD.geometry_length(line) for line in self.geographic(lines)], float)

    @cached_property
    def _to_degrees(self) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)

    @cached_property
    def _to_metres(self) -> pyproj.Transformer:
        centre = np.array([[self.info.width / 2, self.info.height / 2]])
        metres = local_metres(*self._to_degrees.transform(*self.coordinates(centre)[0]))
        return pyproj.Transformer.from_crs(self.crs, metres, always_xy=True)


def placement(info: "RasterInfo") -> Placement:
    """Find the way from a raster's pixels to the ground.

    Its affine counts, else its ground control points (see ``fit_control_points``). RPCs are not
    used.
    """
    if info.gsd is None:
        return Placement(None, _lacking(info), info)
    crs = pyproj.CRS.from_wkt(info.crs.to_wkt())
    if not info.gcps:
        return Placement(crs, "", info)
    fit = fit_control_points(info.gcps, info.crs, info.height, info.width)
    return Placement(crs, fit.note, info, fit)


def _lacking(info: "RasterInfo") -> str:
    """Say why a raster has no place on the ground, and what that leads to."""
    if info.gcps and info.crs is not None:
        lacking = "control points that give it no place"
    elif info.rpcs:
        lacking = "only RPCs, which are not used"
    else:
        lacking = "no CRS" if info.crs is None else "no affine of its own that leads to the ground"
    return f"The raster has {lacking}: coordinates are in pixels (column, row), sizes too."


def local_metres(longitude: float, latitude: float) -> str:
    """Return a CRS whose metres are metres of ground around a place, at any latitude."""
    return f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m"


def apply_affine(affine: Affine, points: np.ndarray) -> np.ndarray:
    """Return points ``(n, 2)`` of column and row through an affine: ``(n, 2)`` float64."""
    x, y = points[:, 0], points[:, 1]
    a, b, c, d, e, f = affine[:6]
    # In the order in which GDAL adds: its outlines are then the same to the last bit.
    return np.stack([c + a * x + b * y, f + d * x + e * y], axis=1)


def geodesic_areas(polygons: np.ndarray) -> np.ndarray:
    """Return areas on the WGS 84 ellipsoid in square metres, float64 ``(n,)``, without holes.

    Polygons are an object array ``(n,)`` in EPSG:4326, with rings in any orientation.
    """
    rings, owner = shapely.get_rings(polygons, return_index=True)
    areas = np.array([abs(_GEOD.geometry_area_perimeter(ring)[0]) for ring in rings], float)
    # No sign says which ring is a hole: a south-up raster or the antimeridian would turn it.
    outer = np.r_[True, owner[1:] != owner[:-1]][: len(owner)]
    return np.bincount(owner, np.where(outer, areas, -areas), len(polygons))
