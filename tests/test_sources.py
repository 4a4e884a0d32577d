"""Ground on both sides of a split: neighbours of a grid share none, whatever the grid."""

import itertools

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import Polygon

from preprocessing.ground import geographic_bounds, geographic_corners
from preprocessing.scene_checks import share_ground

SIZE = 5000
# Austin and Tyrol: Inria tiles lie some degrees beside the meridian of their grid's north.
AUSTIN = 26914, Affine(0.3, 0, 616_500, 0, -0.3, 3_345_000)
TYROL = 31254, Affine(0.3, 0, 80_000, 0, -0.3, 230_000)
TURNED = 26914, AUSTIN[1] @ Affine.rotation(33)
GRIDS = [AUSTIN, TYROL, TURNED]


def corners(grid, east=0.0, south=0.0, size=SIZE):
    """Of a tile so many pixels from the grid's first."""
    epsg, transform = grid
    placed = transform @ Affine.translation(east, south)
    return geographic_corners(CRS.from_epsg(epsg), placed, size, size)


def boxes_overlap(grid, east, south):
    epsg, first = grid
    boxes = [
        geographic_bounds(CRS.from_epsg(epsg), transform, SIZE, SIZE)
        for transform in (first, first @ Affine.translation(east, south))
    ]
    (w, s, e, n), (west, south, east, north) = boxes
    return min(e, east) - max(w, west) > 1e-5 < min(n, north) - max(s, south)


NEIGHBOURS = [step for step in itertools.product((-SIZE, 0, SIZE), repeat=2) if any(step)]


@pytest.mark.parametrize("grid", GRIDS)
def test_tiles_that_touch_share_no_ground(grid):
    for east, south in NEIGHBOURS:
        assert not share_ground(corners(grid), corners(grid, east, south))
    # Edges that touch without common corners, as those of tiles of another size do.
    assert not share_ground(corners(grid), corners(grid, SIZE, SIZE / 3))
    assert not share_ground(corners(grid), corners(grid, SIZE, -SIZE / 3, 2 * SIZE))
    # Upright boxes in degrees do overlap, by more than a metre.
    assert any(boxes_overlap(grid, *step) for step in NEIGHBOURS)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("east", "south"), [(0, 0), (4800, 0), (0, -4800), (-4800, 4800), (10, 10), (-4800, 2000)]
)
def test_tiles_that_overlap_share_ground(grid, east, south):
    assert share_ground(corners(grid), corners(grid, east, south))
    assert share_ground(corners(grid, east, south), corners(grid))


def test_a_fiftieth_of_the_smaller_tile_s_width_may_be_shared():
    for pixels, shared in ((90, False), (110, True)):
        assert share_ground(corners(AUSTIN), corners(AUSTIN, SIZE - pixels)) == shared
    # Of a tile of 100 pixels, 6 are much; the order does not matter.
    small = corners(AUSTIN, SIZE - 6, 100, size=100)
    assert share_ground(corners(AUSTIN), small) and share_ground(small, corners(AUSTIN))
    # Two corners of 2.4 % each are 0.06 % of the ground.
    assert share_ground(corners(AUSTIN), corners(AUSTIN, SIZE - 120, SIZE - 120))
    assert not share_ground(corners(AUSTIN), corners(AUSTIN, SIZE - 90, SIZE - 90))


def test_a_strip_is_measured_by_its_own_width():
    strip = geographic_corners(CRS.from_epsg(26914), AUSTIN[1], 1, 20_000)
    below = geographic_corners(
        CRS.from_epsg(26914), AUSTIN[1] @ Affine.translation(0, 1), 1, 20_000
    )
    assert share_ground(strip, strip) and not share_ground(strip, below)


def test_upright_boxes_around_squares_of_a_projected_grid_are_neighbours():
    """As the chips of SpaceNet 1 over Rio de Janeiro, 200 m of UTM zone 23 south each."""
    first = Affine(0.5, 0, 680_000, 0, -0.5, 7_470_000)

    def box(east, south):
        west, low, right, north = geographic_bounds(
            CRS.from_epsg(32723), first @ Affine.translation(east, south), 400, 400
        )
        return [[west, north], [right, north], [right, low], [west, low]]

    overlaps = []
    for step in itertools.product((-400, 0, 400), repeat=2):
        if any(step):
            assert not share_ground(box(0, 0), box(*step))
            one, other = Polygon(box(0, 0)), Polygon(box(*step))
            overlaps.append(one.intersection(other).area / one.area)
    assert 0.005 < max(overlaps) < 0.015
    assert share_ground(box(0, 0), box(380, 0))


def test_a_tile_in_another_tile_shares_ground():
    assert share_ground(corners(AUSTIN), corners(AUSTIN, 2000, 2000, size=256))


def test_a_tile_in_the_empty_corner_of_a_turned_tile_s_box_shares_no_ground():
    # The turned tile's upper edge leads from (0, 0) down to (4193, 2723).
    assert not share_ground(corners(TURNED), corners(AUSTIN, 2700, 0, size=1000))
    assert share_ground(corners(TURNED), corners(AUSTIN, 2700, 1000, size=1000))


def test_tiles_in_different_references_are_compared():
    west, north = corners(AUSTIN)[0]
    degrees = 4326, Affine(3e-6, 0, west, 0, -3e-6, north)
    assert share_ground(corners(AUSTIN), corners(degrees))
    assert not share_ground(corners(AUSTIN), corners(degrees, east=-10_000))


def test_the_antimeridian_is_no_border():
    zone_60 = 32760, Affine(0.3, 0, 817_300, 0, -0.3, 8_010_000)
    tile = corners(zone_60)
    longitudes = np.array(tile)[:, 0]
    assert longitudes.max() > 179 and longitudes.min() < -179
    assert share_ground(tile, corners(zone_60, 2000))
    assert not share_ground(tile, corners(zone_60, SIZE))
    assert not share_ground(tile, corners(zone_60, -SIZE))
    assert share_ground(corners(zone_60, 4000), tile)
    # On the other side of the Earth, at the same latitudes.
    assert not share_ground(tile, [[longitude - 170, latitude] for longitude, latitude in tile])


@pytest.mark.parametrize("one", [None, corners(AUSTIN)])
def test_a_place_that_is_unknown_is_shared_with_nothing(one):
    assert not share_ground(one, None) and not share_ground(None, one)
