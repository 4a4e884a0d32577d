import math

import pytest
from affine import Affine
from rasterio.crs import CRS

from preprocessing.geometry import geographic_corners, ground_sample_distance

A = 6378137.0
E2 = 0.00669437999014


def _radii(latitude: float) -> tuple[float, float]:
    """Radii of curvature of WGS 84 along the meridian and across it."""
    w = 1 - E2 * math.sin(latitude) ** 2
    return A * (1 - E2) / w**1.5, A / math.sqrt(w)


def _centred(x: float, y: float, pixel: float, size: int) -> Affine:
    """North-up pixels around a centre."""
    half = size / 2 * pixel
    return Affine(pixel, 0, x - half, 0, -pixel, y + half)


def test_utm_on_its_central_meridian_has_the_scale_of_its_definition():
    transform = _centred(500_000, 5_000_000, 0.3, 1000)
    gsd = ground_sample_distance(CRS.from_epsg(32633), transform, 1000, 1000)
    assert gsd == pytest.approx(0.3 / 0.9996, rel=1e-6)


@pytest.mark.parametrize("degrees", [0, 28, 57.8, -43])
def test_web_mercator_shrinks_with_latitude(degrees):
    latitude = math.radians(degrees)
    y = A * math.asinh(math.tan(latitude))
    meridian, across = _radii(latitude)
    by_hand = 0.3 * math.cos(latitude) * math.sqrt(meridian * across) / A
    gsd = ground_sample_distance(CRS.from_epsg(3857), _centred(1e6, y, 0.3, 600), 600, 600)
    assert gsd == pytest.approx(by_hand, rel=1e-5)


def test_degrees_become_metres():
    meridian, across = _radii(math.radians(60))
    step = math.radians(1e-5)
    by_hand = step * math.sqrt(meridian * across * math.cos(math.radians(60)))
    gsd = ground_sample_distance(CRS.from_epsg(4326), _centred(10, 60, 1e-5, 200), 200, 200)
    assert gsd == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("angle", [30, 90, 180, 211])
def test_a_rotation_changes_nothing(angle):
    upright = _centred(400_000, 3_000_000, 0.5, 100)
    # The same centre, (50, 50), with both axes turned about it.
    c, s = 0.5 * math.cos(math.radians(angle)), 0.5 * math.sin(math.radians(angle))
    turned = Affine(c, s, 400_000 - 50 * (c + s), s, -c, 3_000_000 - 50 * (s - c))
    crs = CRS.from_epsg(32736)
    expected = ground_sample_distance(crs, upright, 100, 100)
    assert ground_sample_distance(crs, turned, 100, 100) == pytest.approx(expected, rel=1e-6)


def test_south_up_is_north_up():
    crs = CRS.from_epsg(32633)
    up = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_030)
    down = Affine(0.3, 0, 500_000, 0, 0.3, 5_000_000)
    north, south = (ground_sample_distance(crs, t, 100, 100) for t in (up, down))
    assert north == pytest.approx(south, rel=1e-9)


def test_oblong_pixels_have_the_side_of_a_square_of_their_area():
    transform = Affine(0.2, 0, 500_000, 0, -0.8, 5_000_000)
    gsd = ground_sample_distance(CRS.from_epsg(32633), transform, 10, 10)
    assert gsd == pytest.approx(0.4 / 0.9996, rel=1e-5)


def test_feet_are_not_metres():
    # Oregon North, international feet.
    transform = Affine(1, 0, 8_202_099, 0, -1, 600_000)
    gsd = ground_sample_distance(CRS.from_epsg(2913), transform, 10, 10)
    assert gsd == pytest.approx(0.3048, rel=2e-4)


def test_no_place_on_earth_has_no_gsd():
    transform = _centred(0, 0, 0.3, 10)
    site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
    assert ground_sample_distance(None, transform, 10, 10) is None
    assert ground_sample_distance(site, transform, 10, 10) is None
    beyond = _centred(1e13, 1e13, 0.3, 10)
    assert ground_sample_distance(CRS.from_epsg(32633), beyond, 10, 10) is None


def test_corners_of_degrees_are_the_affine_s_own_in_the_order_of_the_pixels():
    transform = Affine(0.01, 0.002, 10, 0.002, -0.01, 60)
    expected = [[10, 60], [10.3, 60.06], [10.34, 59.86], [10.04, 59.8]]
    corners = geographic_corners(CRS.from_epsg(4326), transform, 20, 30)
    assert corners == [pytest.approx(corner, abs=1e-9) for corner in expected]


def test_corners_on_the_equator_and_the_central_meridian():
    corners = geographic_corners(CRS.from_epsg(32633), _centred(500_000, 0, 0.3, 1000), 1000, 1000)
    (west, north), (east, _), _, (_, south) = corners
    assert (west + east) / 2 == pytest.approx(15, abs=1e-9) and north == pytest.approx(-south)
    assert math.radians(east - west) * A == pytest.approx(300 / 0.9996, rel=1e-5)


def test_no_place_on_earth_has_no_corners():
    site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
    transform = _centred(0, 0, 0.3, 10)
    assert geographic_corners(None, transform, 10, 10) is None
    assert geographic_corners(site, transform, 10, 10) is None
    beyond = _centred(1e13, 1e13, 0.3, 10)
    assert geographic_corners(CRS.from_epsg(32633), beyond, 10, 10) is None
