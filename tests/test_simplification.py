import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import mask_outlines
from preprocessing.errors import JointNetError
from preprocessing.ground import placement
from preprocessing.mask_outlines import (
    numbered_vertices,
    polygonise,
    require_right_angles,
    right_angled,
    simplify_polygons,
    with_numbered,
)
from preprocessing.raster_access import raster_info
from tests.mask_files import place_of

buildingregulariser = pytest.importorskip("buildingregulariser")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Half metres to a pixel."""
    return place_of(tmp_path_factory.mktemp("place"), (400, 400))


def rotated(degrees, height=40, width=60, size=120):
    """A rectangle of pixels, turned."""
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    a = np.radians(degrees)
    u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    return ((abs(u) < width / 2) & (abs(v) < height / 2)).astype(np.uint8)


def on_ground(place, mask):
    return place.outlines(np.array(polygonise(mask), object))


def iou(one, other):
    return shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other))


def test_vertices_keep_their_numbers():
    boxes = np.array(
        [shapely.box(0, 0, 1, 1), shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 5, 5))]
    )
    points = shapely.get_coordinates(boxes)
    back = with_numbered(numbered_vertices(boxes), points + 7)
    assert not shapely.has_z(back).any()
    np.testing.assert_array_equal(shapely.get_coordinates(back), points + 7)


def test_a_turned_rectangle_gets_four_corners_of_the_outline(place):
    outline = on_ground(place, rotated(20))
    simplified, kept = simplify_polygons(outline, place, 0.6)
    assert kept == 0 and shapely.get_num_coordinates(simplified)[0] <= 8
    assert shapely.hausdorff_distance(outline, simplified)[0] <= 0.6 / 0.999
    # To the last bit: they are vertices of the outline.
    corners = {tuple(p) for p in shapely.get_coordinates(outline).tolist()}
    assert {tuple(p) for p in shapely.get_coordinates(simplified).tolist()} <= corners


def test_tolerances_are_metres_of_the_ground_in_any_crs(tmp_path):
    left = []
    for crs, pixel in (("EPSG:32633", 0.5), ("EPSG:3857", 1.0)):
        # At 60 degrees north a metre of EPSG:3857 is half a metre of ground.
        x, y = (500_000, 6_651_411) if crs == "EPSG:32633" else (1_669_792, 8_399_738)
        place = place_of(tmp_path, (400, 400), Affine(pixel, 0, x, 0, -pixel, y), crs)
        simplified, _ = simplify_polygons(on_ground(place, rotated(20)), place, 0.6)
        left.append(shapely.get_num_coordinates(simplified)[0])
    assert left[0] == left[1]


def test_holes_stay(place):
    mask = rotated(20)
    mask[55:65, 55:65] = 0
    (polygon,), kept = simplify_polygons(on_ground(place, mask), place, 0.6)
    assert kept == 0 and len(polygon.interiors) == 1 and polygon.is_valid


def test_what_would_be_destroyed_is_kept_and_counted(place):
    mask = np.zeros((60, 60), np.uint8)
    mask[5:9, 5:9] = 1
    mask[20:55, 20:55] = 1
    outlines = on_ground(place, mask)
    simplified, kept = simplify_polygons(outlines, place, 3.0)
    assert kept == 1 and simplified[0].equals_exact(outlines[0])
    assert simplified[1].equals(outlines[1])
    simplified, kept = simplify_polygons(outlines, place, 1e6)
    assert kept == 2 and all(map(shapely.Polygon.equals_exact, simplified, outlines))


@settings(max_examples=60, deadline=None)
@given(
    mask=arrays(np.uint8, st.tuples(*[st.integers(1, 16)] * 2), elements=st.integers(0, 1)),
    tolerance=st.sampled_from([0.2, 0.6, 1.0, 3.0, 50.0]),
)
def test_every_polygon_stays_a_valid_one_where_it_was(place, mask, tolerance):
    outlines = on_ground(place, mask)
    before = [polygon.wkb for polygon in outlines]
    simplified, kept = simplify_polygons(outlines, place, tolerance)
    assert [polygon.wkb for polygon in outlines] == before
    assert len(simplified) == len(outlines) and 0 <= kept <= len(outlines)
    assert shapely.is_valid(simplified).all() and (shapely.get_type_id(simplified) == 3).all()
    assert (iou(outlines, simplified) >= 0.7 - 1e-6).all()


# Right angles


def test_edges_of_a_turned_rectangle_stand_at_right_angles(place):
    outlines = on_ground(place, rotated(20))
    turned, kept, failed = right_angled(outlines, place, 0.5)
    assert (kept, failed) == (0, 0) and iou(outlines, turned)[0] > 0.9
    points = place.metres(shapely.get_coordinates(turned))
    edges = np.diff(points, axis=0)
    directions = np.degrees(np.arctan2(*edges.T)) % 90
    assert len(edges) == 4 and np.ptp(directions) < 0.5
    # Rows run down: 20 degrees clockwise on the ground.
    assert directions[0] == pytest.approx(20, abs=1.5)


def test_polygons_stay_in_their_order_with_one_that_is_lost(place, monkeypatch):
    mask = np.zeros((120, 120), np.uint8)
    mask[10:30, 10:40] = mask[50:80, 10:40] = mask[10:40, 60:110] = 1
    outlines = on_ground(place, mask)

    def losing(frame, **options):
        turned = frame.iloc[::-1].copy()
        turned = turned[turned["number"] != 1]
        turned.geometry = turned.geometry.buffer(0.1, join_style="mitre")
        return turned

    monkeypatch.setattr(buildingregulariser, "regularize_geodataframe", losing)
    turned, kept, failed = right_angled(outlines, place, 0.5)
    assert (kept, failed) == (1, 0) and turned[1].equals_exact(outlines[1])
    assert (iou(outlines, turned) > 0.9).all() and turned[0].area > outlines[0].area


def test_failures_cost_only_the_polygon_that_they_are_of(place, monkeypatch):
    mask = np.zeros((60, 60), np.uint8)
    mask[5:50:9, 5:50] = 1
    mask[6:50:9, 5:50] = 1
    outlines = on_ground(place, mask)

    def failing(frame, **options):
        if (frame["number"] == 2).any():
            raise ZeroDivisionError
        return frame.assign(geometry=frame.geometry.buffer(0.01, join_style="mitre"))

    monkeypatch.setattr(buildingregulariser, "regularize_geodataframe", failing)
    turned, kept, failed = right_angled(outlines, place, 0.5)
    assert (kept, failed) == (1, 1) and len(outlines) == 5
    grown = shapely.area(turned) > shapely.area(outlines)
    assert grown.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    "other",
    [
        lambda polygon: shapely.affinity.translate(polygon, 30, 0),
        lambda polygon: polygon.buffer(-1),
        lambda polygon: shapely.union_all([polygon, shapely.affinity.translate(polygon, 80, 0)]),
        lambda polygon: shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]),
        lambda polygon: shapely.Polygon(),
    ],
)
def test_another_shape_does_not_take_the_place_of_the_outline(place, monkeypatch, other):
    outlines = on_ground(place, np.pad(np.ones((12, 20), np.uint8), 3))
    monkeypatch.setattr(
        buildingregulariser,
        "regularize_geodataframe",
        lambda frame, **options: frame.assign(geometry=[other(g) for g in frame.geometry]),
    )
    turned, kept, failed = right_angled(outlines, place, 0.5)
    assert (kept, failed) == (1, 0) and turned[0].equals_exact(outlines[0])


@settings(max_examples=25, deadline=None)
@given(mask=arrays(np.uint8, (14, 14), elements=st.integers(0, 1)))
def test_right_angles_leave_valid_polygons_where_they_were(place, mask):
    outlines = on_ground(place, np.kron(mask, np.ones((4, 4), np.uint8)))
    turned, kept, failed = right_angled(outlines, place, 0.5)
    assert failed <= kept <= len(outlines) == len(turned)
    assert shapely.is_valid(turned).all() and (shapely.get_type_id(turned) == 3).all()
    assert (iou(outlines, turned) >= 0.7 - 1e-6).all()


def test_nothing_stays_nothing(place):
    empty = np.zeros(0, object)
    assert len(simplify_polygons(empty, place, 1.0)[0]) == 0
    turned, kept, failed = right_angled(empty, place, 1.0)
    assert (len(turned), kept, failed) == (0, 0, 0)


def test_without_the_library_one_line_says_so(monkeypatch):
    monkeypatch.setattr(mask_outlines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JointNetError, match="pip install buildingregulariser"):
        require_right_angles()


def test_real_buildings_get_right_angles(real_data):
    path = real_data / "aerial_buildings" / "train" / "gt" / "nepal1.tif"
    place = placement(raster_info(path))
    outlines = place.outlines(np.array(polygonise(path), object))
    turned, kept, failed = right_angled(outlines, place, place.info.gsd)
    assert failed == 0 and kept < 0.2 * len(outlines)
    vertices = shapely.get_num_coordinates([outlines, turned]).sum(axis=1)
    assert vertices[1] < vertices[0] / 3
