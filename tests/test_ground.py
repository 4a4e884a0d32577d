"""Ground metres of pixels, places made of control points, and areas on the ellipsoid."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import GCPTransformer

from preprocessing.ground import (
    apply_affine,
    fit_control_points,
    geodesic_areas,
    geographic_corners,
    grid_difference,
    ground_steps,
    metres_apart,
)
from tests.mask_files import UTM as HALF_METRES
from tests.mask_files import describe, ground_sample_distance, place_of

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


def test_a_pixel_in_degrees_is_higher_than_wide():
    meridian, across = _radii(math.radians(60))
    step = math.radians(1e-5)
    steps = ground_steps(CRS.from_epsg(4326), _centred(10, 60, 1e-5, 200), 200, 200)
    assert steps == pytest.approx(
        (step * meridian, step * across * math.cos(math.radians(60))), rel=1e-6
    )
    assert steps[0] / steps[1] == pytest.approx(2, rel=0.01)
    # On its side: rows now go east.
    turn = Affine.translation(100, 100) @ Affine.rotation(90) @ Affine.translation(-100, -100)
    turned = _centred(10, 60, 1e-5, 200) @ turn
    assert ground_steps(CRS.from_epsg(4326), turned, 200, 200) == pytest.approx(steps[::-1])
    assert ground_steps(None, turned, 200, 200) is None


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


# Ground control points

UTM = CRS.from_epsg(32633)
HEIGHT, WIDTH = 400, 600
CORNERS = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)]
GRID = [(c, r) for r in (0, 90, 210, 400) for c in (0, 200, 380, 600)]
TURNED = Affine(0.26, 0.15, 500_000, 0.15, -0.26, 5_000_000)


def points_at(pixels, place, off=0.0, seed=0):
    """Control points at (column, row), moved about by ``off`` in the units of the CRS."""
    random = np.random.default_rng(seed)
    places = [np.array(place(*pixel)) + off * random.normal(size=2) for pixel in pixels]
    return [
        GroundControlPoint(row=r, col=c, x=x, y=y)
        for (c, r), (x, y) in zip(pixels, places, strict=True)
    ]


def bent(column, row):
    """A place on ground that the affine alone would miss by up to 4 m, or 13 pixels."""
    x, y = TURNED @ (column, row)
    u, v = 2 * column / WIDTH - 1, 2 * row / HEIGHT - 1
    return x + 4 * u * v, y + 3 * u * u - 2 * v * v


@settings(max_examples=50, deadline=None)
@given(
    angle=st.floats(0, 360),
    pixel=st.floats(0.05, 50),
    oblong=st.floats(0.5, 2),
    south_up=st.booleans(),
    count=st.integers(3, 30),
    seed=st.integers(0, 99),
)
def test_points_of_an_affine_give_that_affine(angle, pixel, oblong, south_up, count, seed):
    turned = Affine.translation(400_000, 3_000_000) @ Affine.rotation(angle)
    transform = turned @ Affine.scale(pixel, oblong * pixel * (1 if south_up else -1))
    random = np.random.default_rng(seed)
    elsewhere = random.uniform((0, 0), (WIDTH, HEIGHT), (count - 3, 2))
    pixels = [*CORNERS[:3], *map(tuple, elsewhere)]
    fit = fit_control_points(points_at(pixels, lambda *p: transform @ p), UTM, HEIGHT, WIDTH)
    probes = random.uniform((0, 0), (WIDTH, HEIGHT), (20, 2))
    expected = [transform @ tuple(probe) for probe in probes]
    np.testing.assert_allclose(fit(probes), expected, atol=1e-4 * pixel, rtol=0)
    exact = ground_sample_distance(UTM, transform, HEIGHT, WIDTH)
    assert fit.gsd == pytest.approx(exact, rel=1e-6) and fit.points == count
    assert fit.residual_m is None or fit.residual_m < 1e-3 * pixel


@pytest.mark.parametrize(("pixels", "order"), [(CORNERS[:3], 1), (GRID[:5], 1), (GRID, 2)])
def test_equal_to_gdal_s_fit_of_the_same_order(pixels, order):
    points = points_at(pixels, bent, off=0.02)
    fit = fit_control_points(points, UTM, HEIGHT, WIDTH)
    assert fit.order == order
    probes = np.random.default_rng(1).uniform((0, 0), (WIDTH, HEIGHT), (50, 2))
    with GCPTransformer(points) as gdal:
        xs, ys = gdal.xy(probes[:, 1], probes[:, 0], offset="ul")
    np.testing.assert_allclose(fit(probes), np.stack([xs, ys], 1), atol=1e-4, rtol=0)


def test_order_2_where_the_ground_bends_and_only_there():
    curved = fit_control_points(points_at(GRID, bent), UTM, HEIGHT, WIDTH)
    assert curved.order == 2 and curved.residual_m < 1e-6
    np.testing.assert_allclose(curved(np.array(GRID)), [bent(*p) for p in GRID], atol=1e-6, rtol=0)
    # Points that are not exact: order 2 would follow their errors out to the corners.
    straight = points_at(GRID[1:9], lambda *p: TURNED @ p, off=0.5)
    assert fit_control_points(straight, UTM, HEIGHT, WIDTH).order == 1


def test_the_residual_is_that_of_points_left_out():
    points = points_at(GRID, bent, off=0.3)
    fit = fit_control_points(points, UTM, HEIGHT, WIDTH)
    squares = []
    for left_out in points:
        others = [point for point in points if point is not left_out]
        other = fit_control_points(others, UTM, HEIGHT, WIDTH)
        assert other.order == fit.order == 2
        (place,) = other(np.array([[left_out.col, left_out.row]]))
        squares.append(((place - (left_out.x, left_out.y)) ** 2).sum())
    assert fit.residual_m == pytest.approx(math.sqrt(np.mean(squares)), rel=2e-3)


@pytest.mark.parametrize(
    ("pixels", "off", "words"),
    [
        (CORNERS[:3], 0, ["an affine", "its 3 ground control points, too few to say how well"]),
        (CORNERS, 0.01, ["an affine", "its 4 ", "less than a pixel"]),
        (GRID, 2, ["its 16 ", " m off, ", " pixels; `gdalwarp -tps -t_srs EPSG:4326 IN OUT`"]),
    ],
)
def test_the_note_says_how_well_the_points_agree(pixels, off, words):
    fit = fit_control_points(points_at(pixels, lambda *p: TURNED @ p, off), UTM, HEIGHT, WIDTH)
    assert all(word in fit.note for word in words), fit.note
    assert "\n" not in fit.note and "e-" not in fit.note and fit.note.endswith(".")


@pytest.mark.parametrize(
    "points",
    [
        [],
        points_at(CORNERS[:2], bent),
        points_at([(p, p) for p in range(0, 400, 50)], bent),
        points_at(CORNERS, lambda c, r: (500_000 + c, 5_000_000)),
        points_at(GRID, bent, off=1000),
        points_at(CORNERS, lambda c, r: (500_000 + c, math.nan)),
        # Across the antimeridian in UTM's neighbour zones, or two files' points in one.
        [*points_at(GRID[:8], bent), *points_at(GRID[8:], lambda c, r: (c, r))],
    ],
)
def test_points_that_give_no_place(points):
    assert fit_control_points(points, UTM, HEIGHT, WIDTH) is None


def test_points_without_a_crs_give_no_place():
    site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
    points = points_at(GRID, bent)
    assert fit_control_points(points, None, HEIGHT, WIDTH) is None
    assert fit_control_points(points, site, HEIGHT, WIDTH) is None


def test_polynomials_that_fold_the_raster_are_not_taken():
    """Twice the width back over the same ground: points agree, and no affine comes near."""
    points = points_at(GRID, lambda c, r: (500_000 + (c - 300) ** 2 / 300, 5_000_000 - r))
    assert fit_control_points(points, UTM, HEIGHT, WIDTH) is None


def test_the_affine_that_is_asked_for_has_the_operators_that_are_used():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    needed = tomllib.loads(text)["project"]["dependencies"]
    (floor,) = [line.removeprefix("affine>=") for line in needed if line.startswith("affine")]
    assert int(floor.split(".")[0]) >= 3
    assert hasattr(Affine, "__matmul__")


def test_rasters_are_apart_by_metres_of_ground():
    utm = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    here = geographic_corners("EPSG:32633", utm, 100, 200)
    east = geographic_corners("EPSG:32633", utm @ Affine.translation(10, 0), 100, 200)
    pixel = metres_apart(here, east) / 10
    assert metres_apart(here, here) == 0
    assert pixel == pytest.approx(ground_sample_distance("EPSG:32633", utm, 100, 200), rel=1e-3)
    # On both sides of the antimeridian.
    assert metres_apart([[179.9999, 0]], [[-179.9999, 0]]) == pytest.approx(22.26, abs=0.01)


GEOD = pyproj.Geod(ellps="WGS84")


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3857", "EPSG:4326", "EPSG:2193"])
def test_local_metres_are_those_of_the_ground_and_lead_back(tmp_path, crs):
    centre = (175.0, -41.0) if crs == "EPSG:2193" else (15.0, 45.0)
    to_crs = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    x, y = to_crs.transform(*centre)
    pixel = 1e-5 if crs == "EPSG:4326" else 1.0
    place = place_of(tmp_path, (1000, 1000), Affine(pixel, 0, x, 0, -pixel, y), crs)
    pixels = np.array([[0, 0], [1000, 0], [1000, 1000], [3, 700]], float)
    coordinates = place.coordinates(pixels)
    metres = place.metres(coordinates)
    degrees = place.geographic(shapely.points(coordinates))
    for i, j in ((0, 1), (1, 2), (0, 3)):
        _, _, distance = GEOD.inv(*degrees[i].coords[0], *degrees[j].coords[0])
        assert np.hypot(*(metres[i] - metres[j])) == pytest.approx(distance, rel=1e-6)
    np.testing.assert_allclose(place.metres(metres, back=True), coordinates, rtol=0, atol=1e-6)


def test_lines_and_polygons_have_the_size_that_they_have_on_the_ground(tmp_path):
    place = place_of(tmp_path)
    ring = place.outlines(np.array([shapely.box(0, 0, 40, 20)], object))
    # Half metres, by the scale of UTM on its central meridian.
    assert place.areas(ring)[0] == pytest.approx(20 * 10 / 0.9996**2, rel=1e-5)
    line = shapely.linestrings([place.coordinates(np.array([[0, 0], [40, 0], [40, 20]]))])
    assert place.lengths(line)[0] == pytest.approx(30 / 0.9996, rel=1e-5)
    assert len(place.areas(ring[:0])) == len(place.lengths(line[:0])) == 0


def test_holes_count_off_whatever_turns_the_rings():
    outer, hole = shapely.box(10, 50, 10.01, 50.01), shapely.box(10.002, 50.002, 10.008, 50.008)
    ring = shapely.Polygon(outer.exterior, [hole.exterior])
    turned = shapely.Polygon(outer.exterior.reverse(), [hole.exterior])
    each = geodesic_areas(np.array([outer, hole, ring, turned], object))
    assert each[0] == pytest.approx(111_230 * 71_600 * 1e-4, rel=2e-3)
    np.testing.assert_allclose(each[2:], each[0] - each[1], rtol=1e-12)


def test_a_polygon_across_the_antimeridian_has_its_area():
    here = shapely.box(9.99, -16.01, 10.01, -16)
    across = shapely.Polygon([(179.99, -16), (-179.99, -16), (-179.99, -16.01), (179.99, -16.01)])
    areas = geodesic_areas(np.array([here, across], object))
    assert areas[0] == pytest.approx(areas[1], rel=1e-9) and areas[0] > 2e6


def test_without_ground_pixels_are_the_coordinates(tmp_path):
    place = place_of(tmp_path, (9, 9), HALF_METRES, None)
    assert place.crs is None and "no CRS" in place.note and "\n" not in place.note
    pixels = np.array([[0, 0], [3, 7]])
    np.testing.assert_array_equal(place.coordinates(pixels), pixels)
    outline = np.array([shapely.box(0, 0, 3, 3)], object)
    assert place.outlines(outline)[0].equals(outline[0])


def test_control_points_place_and_long_edges_get_vertices(tmp_path):
    grid = [(c, r) for r in (0, 50, 100) for c in range(0, 1001, 200)]
    gcps = tuple(
        GroundControlPoint(r, c, 500_000 + c / 2, 5_000_000 - r / 2 + 40 * (c / 500 - 1) ** 2)
        for c, r in grid
    )
    place = place_of(tmp_path, (100, 1000), Affine.identity(), gcps=gcps)
    assert "order 2" in place.note and place.fit is not None
    (outline,) = place.outlines(np.array([shapely.box(0, 10, 1000, 20)], object))
    assert shapely.get_num_coordinates(outline) > 30
    (x, y) = place.coordinates(np.array([[500, 50]]))[0]
    assert (x, y) == pytest.approx((500_250, 4_999_975), abs=0.01)


def test_an_affine_is_applied_as_affines_are():
    affine = Affine(0.4, 0.3, 5, 0.3, -0.4, 7)
    points = np.array([[0, 0], [3, 4], [-2, 9]])
    expected = [affine @ tuple(point) for point in points.tolist()]
    np.testing.assert_allclose(apply_affine(affine, points), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("shape", "transform", "crs", "words"),
    [
        ((40, 50), HALF_METRES, "EPSG:32633", None),
        ((40, 50), HALF_METRES @ Affine.translation(0.9, 0), "EPSG:32633", None),
        ((40, 50), Affine.identity(), None, None),
        ((40, 51), HALF_METRES, "EPSG:32633", "has 51 x 40 pixels, b.tif 50 x 40"),
        (
            (40, 50),
            HALF_METRES @ Affine.translation(0, -1),
            "EPSG:32633",
            "corners are up to 0.5 m apart",
        ),
        ((40, 50), HALF_METRES, "EPSG:32634", "lies elsewhere than b.tif: by CRS and affine"),
    ],
)
def test_two_rasters_on_one_grid_are_less_than_a_pixel_apart(shape, transform, crs, words):
    one, other = describe(shape, transform, crs), describe((40, 50), HALF_METRES)
    one, other = (replace(i, gsd=0.5 if i.georeferenced else None) for i in (one, other))
    found = grid_difference(one, other, "b.tif")
    assert found is None if words is None else words in found
