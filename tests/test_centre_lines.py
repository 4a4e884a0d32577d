import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from preprocessing.centre_lines import (
    Network,
    network,
    simplify_network,
    skeleton,
)
from preprocessing.mask_outlines import joined_at_corners, polygonise

EIGHT = np.ones((3, 3))


def centre_lines_of(mask, prune=0.0, tolerance=0.0):
    """The network of a mask, in pixels."""
    outlines = np.array(polygonise(mask.astype(np.uint8)), object)
    pixels = skeleton(outlines, joined_at_corners(outlines))
    net = network(pixels, pixels + 0.5, prune)
    return simplify_network(net, net.points + 0.5, tolerance) if tolerance else net


def ends(net):
    """End points of lines, with how many lines end there; a closed line ends twice."""
    points = np.array([net.points[line[end]] for line in net.lines for end in (0, -1)])
    places, counts = np.unique(points.reshape(-1, 2), axis=0, return_counts=True)
    return dict(zip(map(tuple, places.tolist()), counts.tolist(), strict=True))


def bar(mask, rows, columns):
    mask[slice(*rows), slice(*columns)] = 1
    return mask


def t_junction():
    mask = np.zeros((60, 60), np.uint8)
    return bar(bar(mask, (10, 17), (3, 57)), (10, 55), (27, 34))


def roundabout(arms=3):
    y, x = np.mgrid[:80, :80]
    radius = np.hypot(y - 40, x - 40)
    mask = ((radius > 13) & (radius < 19)).astype(np.uint8)
    for place in [((37, 43), (2, 24)), ((37, 43), (57, 78)), ((57, 78), (37, 43))][:arms]:
        bar(mask, *place)
    return mask


def test_a_straight_road_is_one_line_along_its_middle():
    mask = bar(np.zeros((20, 60), np.uint8), (8, 13), (3, 57))
    net = centre_lines_of(mask, tolerance=1.0)
    (line,) = net.lines
    (x0, y0), (x1, y1) = sorted(net.points[line].tolist())
    assert len(line) == 2 and (y0, y1) == (10, 10) and x0 <= 6 and x1 >= 53


def test_three_roads_meet_in_one_point_of_a_t_junction():
    net = centre_lines_of(t_junction(), tolerance=1.0)
    assert len(net.lines) == 3 and sorted(ends(net).values()) == [1, 1, 1, 3]
    ((x, y),) = [place for place, count in ends(net).items() if count == 3]
    assert abs(x - 30) <= 1 and abs(y - 13) <= 1
    # Straight arms: what is left is an end and the junction.
    assert sum(map(len, net.lines)) <= 7


def test_a_roundabout_is_a_ring_of_arcs_with_its_arms():
    net = centre_lines_of(roundabout(), tolerance=1.0)
    assert len(net.lines) == 6 and sorted(ends(net).values()) == [1, 1, 1, 3, 3, 3]
    (ring,) = shapely.polygonize(net.geometries(net.points)).geoms
    assert ring.area == pytest.approx(np.pi * 16**2, rel=0.05)
    alone = centre_lines_of(roundabout(arms=0), tolerance=1.0)
    (closed,) = alone.geometries(alone.points)
    assert closed.is_ring and closed.length == pytest.approx(2 * np.pi * 16, rel=0.03)


@pytest.mark.parametrize("arms", [0, 1, 2, 3])
def test_a_roundabout_stays_one_however_much_is_simplified(arms):
    plain = centre_lines_of(roundabout(arms))
    net = centre_lines_of(roundabout(arms), tolerance=500.0)
    assert ends(net) == ends(plain) and len(net.lines) == len(plain.lines)
    # Arcs between the same two ends do not become the same line twice.
    drawn = net.geometries(net.points)
    assert shapely.is_valid(drawn).all() and shapely.length(drawn).min() > 5
    if arms < 3:
        assert len(shapely.polygonize(drawn).geoms) == 1


def spurred():
    mask = bar(np.zeros((50, 140), np.uint8), (20, 27), (5, 135))
    bar(mask, (10, 20), (40, 44))
    bar(mask, (27, 36), (80, 84))
    return mask


def test_spurs_go_and_leave_one_line():
    assert len(centre_lines_of(spurred()).lines) == 5
    net = centre_lines_of(spurred(), prune=16.0, tolerance=1.0)
    assert len(net.lines) == 1 and sorted(ends(net).values()) == [1, 1]
    (line,) = net.geometries(net.points)
    assert line.length > 118
    # A side street that is longer stays.
    longer = spurred()
    bar(longer, (0, 20), (40, 44))
    assert len(centre_lines_of(longer, prune=16.0).lines) == 3


def test_spurs_of_spurs_go_too():
    mask = spurred()
    # Two twigs at the end of a branch that is long enough only with them.
    bar(mask, (6, 10), (32, 52))
    assert len(centre_lines_of(mask, prune=3.0).lines) >= 5
    assert len(centre_lines_of(mask, prune=30.0).lines) == 1


def test_a_piece_never_vanishes_as_a_whole():
    star = np.zeros((41, 41), np.uint8)
    bar(star, (18, 23), (8, 33)), bar(star, (8, 33), (18, 23))
    net = centre_lines_of(star, prune=1000.0)
    assert len(net.lines) == 1 and len(net.lines[0]) > 10


def test_roads_that_touch_at_a_corner_are_connected():
    mask = bar(bar(np.zeros((12, 40), np.uint8), (3, 6), (2, 20)), (6, 9), (20, 38))
    (line,) = centre_lines_of(mask).lines
    assert len(line) > 25


@pytest.mark.parametrize("shift", [1, -1, 0])
def test_thin_diagonals_keep_their_length(shift):
    mask = np.eye(30, dtype=np.uint8) | np.eye(30, k=shift, dtype=np.uint8)
    net = centre_lines_of(mask, tolerance=1.0)
    (line,) = net.geometries(net.points)
    assert line.length > 26 * np.sqrt(2)


def test_nothing_and_single_pixels_have_no_lines():
    assert centre_lines_of(np.zeros((9, 9))).lines == []
    dots = np.zeros((9, 9), np.uint8)
    dots[2, 2] = dots[6, 6] = 1
    net = centre_lines_of(dots, prune=5.0, tolerance=1.0)
    assert net.lines == [] and len(net.on_lines()[0]) == 0 and len(net.geometries(net.points)) == 0


def test_points_on_lines_say_whose_they_are():
    points = np.array([[0, 0], [1, 0], [2, 1], [2, 2]])
    net = Network(points, [np.array([0, 1, 2]), np.array([2, 3])])
    on, line = net.on_lines()
    assert on.tolist() == [[0, 0], [1, 0], [2, 1], [2, 1], [2, 2]]
    assert line.tolist() == [0, 0, 0, 1, 1]
    assert [g.wkt for g in net.geometries(points)] == [
        "LINESTRING (0 0, 1 0, 2 1)",
        "LINESTRING (2 1, 2 2)",
    ]


masks = arrays(np.uint8, st.tuples(*[st.integers(1, 18)] * 2), elements=st.integers(0, 1))


def drawn(net, shape):
    """Pixels of the lines' points."""
    picture = np.zeros(shape, bool)
    points, _ = net.on_lines()
    picture[points[:, 1], points[:, 0]] = True
    return picture


@settings(max_examples=80, deadline=None)
@given(mask=masks, size=st.sampled_from([1, 3]))
def test_lines_run_through_the_mask_and_connect_what_it_connects(mask, size):
    mask = np.kron(mask, np.ones((size, size), np.uint8))
    net = centre_lines_of(mask)
    on = drawn(net, mask.shape)
    assert not (on & (mask == 0)).any()
    labels, count = ndimage.label(mask, EIGHT)
    points, line = net.on_lines()
    # Lines that share a point are connected; each piece has one such group, or thins to a point.
    links = [
        (label, number)
        for label, number in zip(labels[points[:, 1], points[:, 0]], line, strict=True)
    ]
    pieces = {}
    for piece, number in links:
        pieces.setdefault(piece, set()).add(number)
    for numbers in pieces.values():
        seen, todo = set(), [min(numbers)]
        while todo:
            number = todo.pop()
            if number in seen:
                continue
            seen.add(number)
            own = {*net.lines[number][[0, -1]].tolist()}
            todo += [n for n in numbers if own & {*net.lines[n][[0, -1]].tolist()}]
        assert seen == numbers
    assert len(pieces) <= count


@settings(max_examples=80, deadline=None)
@given(
    mask=masks,
    prune=st.sampled_from([0.0, 2.0, 5.0, 100.0]),
    tolerance=st.sampled_from([0.5, 1.0, 4.0, 100.0]),
)
def test_simplified_lines_end_where_they_did_and_are_valid(mask, prune, tolerance):
    net = centre_lines_of(np.kron(mask, np.ones((3, 3), np.uint8)), prune)
    short = simplify_network(net, net.points + 0.5, tolerance)
    assert ends(short) == ends(net) and len(short.lines) == len(net.lines)
    lines = short.geometries(short.points + 0.5)
    assert shapely.is_valid(lines).all() and (shapely.length(lines) > 0).all()
    whole = net.geometries(net.points + 0.5)
    assert (shapely.hausdorff_distance(lines, whole) <= tolerance * 1.5 + 1e-9).all()
    # Pruned: no spur is left that is too short.
    places = ends(net)
    for line, length in zip(net.lines, shapely.length(whole), strict=True):
        degree = sorted(places[tuple(net.points[line[end]].tolist())] for end in (0, -1))
        assert not (degree[0] == 1 and degree[1] >= 3 and length < prune)
