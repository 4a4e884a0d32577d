"""Outlines with fewer vertices, and with right angles: each falls back on what it was given.

Both work in metres on the ground; what they make of an outline counts only where it still is one
valid polygon that lies where the outline does.
"""

import importlib.util
import warnings

import geopandas
import numpy as np
import shapely

from preprocessing.errors import JointNetError
from preprocessing.placement import Placement

# Intersection over union with the outline, below which another shape has taken its place.
_SAME = 0.7


def simplify_polygons(
    polygons: np.ndarray, place: Placement, tolerance_m: float
) -> tuple[np.ndarray, int]:
    """Leave out vertices so that no outline moves by more than a tolerance.

    Douglas and Peucker (1973), holes kept, no ring crossing another of its polygon. The vertices
    that stay are the polygon's own to the last bit. A polygon that this destroys is kept as it
    was: what is left is empty, invalid, in several parts, or has an intersection over union with
    it below 0.7.

    Args:
        polygons: object array ``(n,)``, valid, in the CRS of ``place``.
        place: of the raster, with a CRS.
        tolerance_m: metres.

    Returns:
        Polygons ``(n,)``, and how many of them were kept as they were for that reason.
    """
    metric = shapely.transform(polygons, place.metres)
    original, numbered = shapely.get_coordinates(polygons), numbered_vertices(metric)
    simplified = shapely.simplify(numbered, tolerance_m)
    good = _takes_the_place_of(metric, simplified)
    result = with_numbered(simplified[good], original)
    good[good] = valid = shapely.is_valid(result)
    done = polygons.copy()
    done[good] = result[valid]
    return done, int((~good).sum())


def require_right_angles() -> None:
    """Refuse to begin without the library that makes right angles.

    Raises:
        JointNetError: buildingregulariser is not installed.
    """
    if importlib.util.find_spec("buildingregulariser") is None:
        raise JointNetError("right angles need `pip install buildingregulariser`")


def right_angled(
    polygons: np.ndarray, place: Placement, tolerance_m: float
) -> tuple[np.ndarray, int, int]:
    """Turn edges so that they stand at right angles to each other, by buildingregulariser.

    Diagonals at 45 degrees and near circles are kept as such. A polygon of which nothing like
    it came back (several parts, an invalid one, or an intersection over union with it below
    0.7), or on which the library failed, is kept as it was.

    Args:
        polygons: object array ``(n,)``, valid, in the CRS of ``place``.
        place: of the raster, with a CRS.
        tolerance_m: metres by which edges may be moved to straighten them first; about the side
            of a pixel, or steps remain.

    Returns:
        Polygons ``(n,)``; how many were kept as they were; on how many of these the library
        failed.
    """
    metric = shapely.transform(polygons, place.metres)
    turned, failed = _regularised(metric, tolerance_m)
    good = _takes_the_place_of(metric, turned)
    done = polygons.copy()
    result = shapely.transform(turned[good], lambda xy: place.metres(xy, back=True))
    good[good] = valid = shapely.is_valid(result)
    done[good] = result[valid]
    return done, int((~good).sum()), failed


def _regularised(polygons: np.ndarray, tolerance_m: float) -> tuple[np.ndarray, int]:
    """What the library makes of each polygon, None where that is not one; how often it failed."""
    from buildingregulariser import regularize_geodataframe

    made = np.full(len(polygons), None, object)
    failed, open_ranges = 0, [np.arange(len(polygons))] if len(polygons) else []
    while open_ranges:
        numbers = open_ranges.pop()
        frame = geopandas.GeoDataFrame({"number": numbers}, geometry=polygons[numbers])
        try:
            with warnings.catch_warnings():
                # It warns of each polygon that it gives back as it was.
                warnings.simplefilter("ignore")
                turned = regularize_geodataframe(
                    frame,
                    parallel_threshold=2 * tolerance_m,
                    simplify_tolerance=tolerance_m,
                    num_cores=1,
                )
        except Exception:  # noqa: BLE001 (whatever it is, the other polygons need not suffer)
            failed += len(numbers) == 1
            open_ranges += np.array_split(numbers, 2) if len(numbers) > 1 else []
            continue
        single = turned[~turned["number"].duplicated(keep=False)]
        made[single["number"].to_numpy()] = single.geometry.to_numpy()
    return made, failed


def _takes_the_place_of(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Where the new shape is one valid polygon that lies where the old one does; bool (n,)."""
    good = (shapely.get_type_id(new) == 3) & shapely.is_valid(new) & ~shapely.is_empty(new)
    common = shapely.area(shapely.intersection(old[good], new[good]))
    both = shapely.area(old[good]) + shapely.area(new[good]) - common
    good[good] = common >= _SAME * both
    return good


def numbered_vertices(geometries: np.ndarray) -> np.ndarray:
    """Copies whose heights are the numbers of the vertices, from 0 through all of them."""
    points = shapely.get_coordinates(geometries)
    numbered = np.column_stack([points, np.arange(len(points), dtype=float)])
    return shapely.set_coordinates(shapely.force_3d(geometries), numbered)


def with_numbered(geometries: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Copies, flat again, whose vertices are the points that their heights name.

    Args:
        geometries: what is left of geometries with ``numbered_vertices``, object array ``(n,)``.
        points: ``(m, 2)``.
    """
    number = shapely.get_coordinates(geometries, include_z=True)[:, 2].astype(int)
    return shapely.set_coordinates(shapely.force_2d(geometries), points[number])
