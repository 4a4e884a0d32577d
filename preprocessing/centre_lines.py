"""From outlines to centre lines: skeletons as a network of lines that meet at junctions.

Skeletons come from scikit-image, by the thinning of Lee, Kashyap and Chu (1994); that of Zhang and
Suen eats up diagonals two pixels wide. Connected pieces are thinned one after another, each in its
bounding box: memory holds the box of the largest, about five bytes a pixel, and the pixels of all
centre lines. skan would do what follows, but takes whole images, numba and networkx.

A point of a line is a pixel of the skeleton; where pixels of a junction touch each other, one
stands for all. When a spur is taken out of the network, the two lines that it parted become one.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from preprocessing.mask_outlines import numbered_pixels, numbered_vertices
from preprocessing.tiling import Window


@dataclass(frozen=True, eq=False)
class Network:
    """Lines that share their end points at junctions.

    Attributes:
        points: ``(n, 2)`` int64 of column and row, the pixels that the lines run through.
        lines: arrays of numbers of points, two at least each; a closed line ends where it begins.
    """

    points: np.ndarray
    lines: list[np.ndarray]

    def on_lines(self) -> tuple[np.ndarray, np.ndarray]:
        """Return points of all lines, int64 ``(m, 2)``, and the line of each, int ``(m,)``."""
        if not self.lines:
            return np.zeros((0, 2), np.int64), np.zeros(0, int)
        line = np.repeat(np.arange(len(self.lines)), [len(line) for line in self.lines])
        return self.points[np.concatenate(self.lines)], line

    def geometries(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the lines as LineStrings, an object array, from the points' coordinates."""
        if not self.lines:
            return np.zeros(0, object)
        vertices = coordinates[np.concatenate(self.lines)]
        return shapely.linestrings(vertices, indices=self.on_lines()[1])


def skeleton(outlines: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the pixels of the skeletons of connected pieces, ``(m, 2)`` int64 of column and row.

    Outlines ``(n,)`` are in pixels; ``mask_outlines.joined_at_corners`` says the piece of each.
    """
    from skimage.morphology import skeletonize

    order = np.argsort(group, kind="stable")
    pieces = np.split(outlines[order], np.flatnonzero(np.diff(group[order])) + 1)
    found = [np.zeros((0, 2), np.int64)]
    for piece in pieces if len(outlines) else ():
        left, top, right, bottom = shapely.total_bounds(piece).astype(int).tolist()
        box = Window(top, left, bottom - top, right - left)
        inside = numbered_pixels(piece, np.ones(len(piece), int), box, np.uint8)
        rows, columns = np.nonzero(skeletonize(inside.astype(bool), method="lee"))
        found.append(np.stack([columns + left, rows + top], axis=1))
    return np.concatenate(found)


def network(pixels: np.ndarray, metres: np.ndarray, prune_m: float) -> Network:
    """Connect the pixels of skeletons to lines, without spurs.

    A spur is a line that ends in nothing and is shorter than ``prune_m``. Each round takes out the
    shortest spur at each junction; the two lines that it parted are one in the next round. So a
    road keeps the longer of two spurs at its end, and no piece vanishes as a whole. Pixels without
    a neighbour are in no line.

    Args:
        pixels: ``(m, 2)`` int64 of column and row, each once.
        metres: where they are, ``(m, 2)`` in local metres; pixels do where ``prune_m`` is 0.
        prune_m: metres.
    """
    pixels, metres, links = _merged_junctions(pixels, metres)
    while True:
        lines = _decomposed(links)
        spurs = _spurs(lines, np.diff(links.indptr), metres, prune_m)
        if not spurs:
            return Network(pixels, lines)
        keep = np.ones(len(pixels), bool)
        keep[np.concatenate(spurs)] = False
        pixels, metres, links = pixels[keep], metres[keep], links[keep][:, keep]


def _merged_junctions(pixels: np.ndarray, metres: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """Make one point of junctions that touch each other; pixels, metres and who touches whom."""
    from scipy import sparse

    links = _touching(pixels)
    at_junctions = sparse.diags_array((np.diff(links.indptr) > 2).astype(float))
    among = at_junctions @ links @ at_junctions
    number, merged = sparse.csgraph.connected_components(among, directed=False)
    # The pixel nearest to the middle stands for all, so that lines stay on the skeleton.
    size = np.bincount(merged, minlength=number)
    middle = np.stack([np.bincount(merged, axis, number) / size for axis in pixels.T], axis=1)
    off = ((pixels - middle[merged]) ** 2).sum(axis=1)
    order = np.lexsort((off, merged))
    chosen = order[np.searchsorted(merged[order], np.arange(number))]
    links = links.tocoo()
    one, other = merged[links.row], merged[links.col]
    apart = one != other
    values = np.ones(apart.sum())
    links = sparse.coo_array((values, (one[apart], other[apart])), (number, number)).tocsr()
    return pixels[chosen], metres[chosen], links


def _touching(pixels: np.ndarray) -> Any:
    """Return a symmetric matrix, 1 where pixels share an edge, or a corner and no neighbour.

    If those with a neighbour between them counted, every step of a stair would be a junction.
    """
    from scipy import sparse

    count = len(pixels)
    # Room for a column at either side, so that no row runs on into the next.
    stride = int(pixels[:, 0].max()) + 3 if count else 1
    key = pixels[:, 1] * stride + pixels[:, 0] + 1
    order = np.argsort(key)

    def at(step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which pixel lies a step further, and whether there is one."""
        place = np.searchsorted(key, key + step, sorter=order).clip(max=max(count - 1, 0))
        return order[place], key[order[place]] == key + step

    left, right, below = at(-1), at(1), at(stride)
    pairs = [right, below]
    for beside, diagonal in ((left, at(stride - 1)), (right, at(stride + 1))):
        pairs.append((diagonal[0], diagonal[1] & ~beside[1] & ~below[1]))
    one = np.concatenate([np.flatnonzero(there) for _, there in pairs])
    other = np.concatenate([pixel[there] for pixel, there in pairs])
    both = np.r_[one, other], np.r_[other, one]
    return sparse.coo_array((np.ones(2 * len(one)), both), (count, count)).tocsr()


def _decomposed(links: Any) -> list[np.ndarray]:
    """Return the lines between junctions and ends, and closed ones, as numbers of points."""
    first, beside = links.indptr.tolist(), links.indices.tolist()
    degree = np.diff(links.indptr)
    # Lists, because single items of arrays take ten times as long to read.
    between = (degree == 2).tolist()
    done = [False] * len(between)
    lines = []

    def walk(start: int, point: int) -> None:
        line = [start, point]
        while between[point] and point != start:
            done[point] = True
            one, other = beside[first[point] : first[point] + 2]
            point = other if one == line[-2] else one
            line.append(point)
        lines.append(np.array(line))

    for start in np.flatnonzero((degree > 0) & (degree != 2)).tolist():
        for point in beside[first[start] : first[start + 1]]:
            if not done[point] if between[point] else point > start:
                walk(start, point)
    # What is left are closed lines without a junction.
    for start in np.flatnonzero(degree == 2).tolist():
        if not done[start]:
            done[start] = True
            walk(start, beside[first[start]])
    return lines


def _spurs(
    lines: list[np.ndarray], degree: np.ndarray, metres: np.ndarray, prune_m: float
) -> list[np.ndarray]:
    """Return the points of the shortest spur at each junction, without the junction."""
    found = []
    for line in lines:
        ends = degree[line[[0, -1]]]
        if ends.min() != 1 or ends.max() < 3:
            continue
        length = np.hypot(*np.diff(metres[line], axis=0).T).sum()
        if length < prune_m:
            free = line[::-1] if ends[0] > 1 else line
            found.append((length, free))
    shortest: dict[int, np.ndarray] = {}
    for _, free in sorted(found, key=lambda spur: (spur[0], spur[1][0])):
        shortest.setdefault(int(free[-1]), free[:-1])
    return list(shortest.values())


def simplify_network(net: Network, metres: np.ndarray, tolerance_m: float) -> Network:
    """Leave out points so that no line moves by more than a tolerance; ends stay.

    Lines that meet still do, as they share the point. A closed line keeps four points. Lines that
    would all become the same straight one are not simplified. ``metres`` is where the points are,
    ``(n, 2)``, as for ``network``.
    """
    if not net.lines:
        return net
    flat = np.concatenate(net.lines)
    simplified = shapely.simplify(numbered_vertices(net.geometries(metres)), tolerance_m)
    left, line = shapely.get_coordinates(simplified, include_z=True, return_index=True)
    lines = np.split(flat[left[:, 2].astype(int)], np.flatnonzero(np.diff(line)) + 1)
    between = Counter(frozenset(line.tolist()) for line in lines if len(line) == 2)
    kept = [
        whole if len(line) == 2 and between[frozenset(line.tolist())] > 1 else line
        for whole, line in zip(net.lines, lines, strict=True)
    ]
    return Network(net.points, kept)
