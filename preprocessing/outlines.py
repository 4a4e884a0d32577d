"""Outlines of a mask before they become footprints or centre lines: holes filled, corners joined.

All outlines here are in pixels (column, row), as ``footprints.polygonise`` gives them.
"""

import os

import numpy as np
import shapely

from preprocessing.pixel_sums import holds_void
from preprocessing.placement import Placement


def fill_holes(
    outlines: np.ndarray, place: Placement, largest_m2: float, mask: str | os.PathLike
) -> np.ndarray:
    """Fill the small holes of outlines.

    A hole that holds void stays, as nothing is known there. Outlines that lie in a hole that is
    filled become part of what surrounds them.

    Args:
        outlines: object array ``(n,)`` of the polygons of one mask, in pixels.
        place: of the mask, with a CRS.
        largest_m2: holes smaller than this are filled, geodesic square metres.
        mask: path of the mask.

    Returns:
        Object array ``(m,)``, in the order given; ``outlines`` itself where no hole is filled.

    Raises:
        RasterError: the mask is corrupt.
    """
    rings, owner = shapely.get_rings(outlines, return_index=True)
    # Of each polygon, the first ring is the outer one.
    inner = np.r_[False, owner[1:] == owner[:-1]] if len(rings) else np.zeros(0, bool)
    holes, owner = shapely.polygons(rings[inner]), owner[inner]
    small = place.areas(place.outlines(holes)) < largest_m2
    if small.any():
        small[small] = ~holds_void(holes[small], mask)
    if not small.any():
        return outlines
    filled = outlines.copy()
    for number in np.unique(owner[small]):
        own = slice(*np.searchsorted(owner, (number, number + 1)))
        kept = shapely.get_exterior_ring(holes[own][~small[own]])
        filled[number] = shapely.Polygon(outlines[number].exterior, list(kept))
    apart = np.ones(len(filled), bool)
    tree = shapely.STRtree(shapely.point_on_surface(outlines))
    apart[tree.query(holes[small], predicate="contains")[1]] = False
    return filled[apart]


def joined_at_corners(outlines: np.ndarray) -> np.ndarray:
    """Number the groups of outlines that touch each other, if only at a corner.

    A skeleton runs on from pixel to pixel through corners, where outlines end.

    Args:
        outlines: object array ``(n,)`` of the polygons of one mask, in pixels.

    Returns:
        The group of each, int ``(n,)`` from 0, in the order in which the groups first appear.
    """
    from scipy import sparse

    # Polygons of one mask share no edge, so those that intersect touch.
    pairs = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    links = sparse.coo_matrix((np.ones(pairs.shape[1], bool), pairs), [len(outlines)] * 2)
    _, group = sparse.csgraph.connected_components(links, directed=False)
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]
