import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint

from preprocessing.ground import apply_affine, geodesic_areas
from tests.mask_files import UTM, place_of

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
    place = place_of(tmp_path, (9, 9), UTM, None)
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
