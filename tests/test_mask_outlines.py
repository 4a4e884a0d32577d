"""Outlines of masks: joined over strips, simplified, and turned to right angles."""

import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from preprocessing import mask_outlines
from preprocessing.errors import JointNetError, LabelError, RasterError
from preprocessing.ground import placement
from preprocessing.mask_outlines import (
    joined_at_corners,
    numbered_vertices,
    outline_batches,
    polygonise,
    require_right_angles,
    right_angled,
    simplify_polygons,
    with_numbered,
)
from preprocessing.raster_access import gdal_quiet, raster_info
from tests.mask_files import ROTATED, SOUTH_UP, UTM, burn, place_of, write

SQUARE = UTM.identity()


@settings(max_examples=60, deadline=None)
@given(mask=arrays(np.uint8, st.tuples(*[st.integers(1, 14)] * 2), elements=st.integers(0, 1)))
def test_groups_are_the_pieces_connected_by_corners_too(mask):
    outlines = np.array(polygonise(mask), object)
    groups = joined_at_corners(outlines)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    assert len(set(groups.tolist())) == count
    for group in range(count):
        burnt = burn(outlines[groups == group], mask.shape, SQUARE)
        np.testing.assert_array_equal(burnt > 0, labels == labels[burnt > 0][0])


def test_groups_are_numbered_as_they_appear():
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]], np.uint8)
    outlines = np.array(polygonise(mask), object)
    groups = joined_at_corners(outlines)
    assert groups.max() == 2
    _, first = np.unique(groups, return_index=True)
    assert first.tolist() == sorted(first.tolist())


masks = arrays(
    np.uint8, st.tuples(*[st.integers(1, 14)] * 2), elements=st.sampled_from([0, 1, 1, 255])
)
# A hole that spans strips, in it an island that touches its corner, and a hole in that.
NESTED = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0, 0, 1],
        [1, 0, 1, 1, 1, 0, 1],
        [1, 0, 1, 0, 1, 0, 1],
        [1, 0, 1, 1, 1, 0, 1],
        [1, 0, 0, 0, 0, 1, 1],
        [0, 1, 1, 1, 1, 1, 0],
    ],
    np.uint8,
)
COMB = np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 0, 1], [0, 0, 1, 1, 1]], np.uint8)


@pytest.fixture
def strips_of(monkeypatch):
    """Sets how many rows a strip has."""

    def rows(count, width):
        monkeypatch.setattr("preprocessing.tiling._STRIP_PIXELS", count * width)

    return rows


def batches_of(mask, **options):
    return list(outline_batches(lambda window: mask[window.slices], *mask.shape, **options))


def undivided(mask):
    """The outlines that GDAL gives of the whole mask, whatever vertex they begin with."""
    target = mask == 1
    with gdal_quiet():
        shapes = rasterio.features.shapes(target.astype(np.uint8), target, connectivity=4)
        rings = [shape["coordinates"] for shape, _ in shapes]
    return {shapely.normalize(shapely.Polygon(o, holes)).wkb for o, *holes in rings}


@settings(max_examples=150, deadline=None)
@given(
    mask=masks,
    rows=st.integers(1, 6),
    batch=st.integers(1, 5),
    corners=st.booleans(),
    enclosed=st.booleans(),
)
@example(NESTED, 1, 1, True, True)
@example(NESTED, 2, 1, False, False)
@example(COMB, 1, 1, False, True)
def test_strips_give_the_outlines_of_the_undivided_mask(mask, rows, batch, corners, enclosed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preprocessing.tiling._STRIP_PIXELS", rows * mask.shape[1])
        batches = batches_of(mask, batch=batch, corners=corners, enclosed=enclosed)
    polygons = [polygon for found in batches for polygon in found]
    assert len(polygons) == len({polygon.wkb for polygon in polygons})
    # To the last vertex.
    assert {polygon.wkb for polygon in polygons} == undivided(mask)
    assert all(polygon.is_valid for polygon in polygons)
    if not (corners or enclosed):
        assert all(len(found) == batch for found in batches[:-1])
        bottoms = [polygon.bounds[3] for polygon in polygons]
        assert bottoms == sorted(bottoms)


@settings(max_examples=100, deadline=None)
@given(mask=masks, rows=st.integers(1, 4))
@example(NESTED, 1)
def test_what_belongs_together_comes_in_one_batch(mask, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preprocessing.tiling._STRIP_PIXELS", rows * mask.shape[1])
        by_corners = batches_of(mask, batch=1, corners=True)
        enclosed = batches_of(mask, batch=1, enclosed=True)
    labels, _ = ndimage.label(mask == 1, np.ones((3, 3)))
    pieces = [{labels[own] for own in map(a_pixel, found)} for found in by_corners]
    assert sum(map(len, pieces)) == len(set().union(*pieces))
    number = {polygon.wkb: k for k, found in enumerate(enclosed) for polygon in found}
    polygons = [polygon for found in enclosed for polygon in found]
    for outer in polygons:
        filled = shapely.Polygon(outer.exterior)
        for inner in polygons:
            if filled.contains(inner):
                assert number[inner.wkb] == number[outer.wkb]


def a_pixel(polygon):
    """Row and column of a pixel of a polygon, the last of its first row."""
    top = polygon.bounds[1]
    inside = shapely.intersection(polygon, shapely.box(-1, top, 99, top + 1))
    return int(top), int(inside.bounds[2]) - 1


def test_the_order_does_not_depend_on_the_strips(strips_of):
    mask = np.random.default_rng(0).integers(0, 2, (60, 40), np.uint8)
    orders = []
    for rows in (1, 7, 60):
        strips_of(rows, 40)
        orders.append([polygon.wkb for found in batches_of(mask) for polygon in found])
    assert orders[0] == orders[1] == orders[2] and len(orders[0]) > 100


def test_a_shape_is_given_as_soon_as_it_is_complete(strips_of):
    """Of a house in the first rows nothing waits for the last."""
    strips_of(2, 10)
    mask = np.zeros((1000, 10), np.uint8)
    mask[1:5, 2:6] = mask[10:990, 8] = 1
    read = []

    def rows(window):
        read.append(window.row)
        return mask[window.slices]

    stream = outline_batches(rows, *mask.shape, batch=1)
    (house,) = next(stream)
    assert house.equals(shapely.box(2, 1, 6, 5)) and read[-1] <= 6
    ((long,),) = list(stream)
    assert shapely.get_num_coordinates(long) == 5 and long.equals(shapely.box(8, 10, 9, 990))


@pytest.mark.parametrize("fill", [0, 255])
def test_no_target_gives_no_batch(fill):
    assert batches_of(np.full((7, 5), fill, np.uint8)) == []


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


# Outlines that follow the pixels

RING = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], np.uint8)
CROSSING = np.array([[1, 0], [0, 1]], np.uint8)
# A hole that touches the outside, and another hole, at a corner only.
TOUCHING = np.array(
    [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], np.uint8
)
CORNER_HOLE = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


@settings(max_examples=200, deadline=None)
@given(
    mask=arrays(
        np.uint8, st.tuples(*[st.integers(1, 12)] * 2), elements=st.sampled_from([0, 1, 255])
    ),
    transform=st.sampled_from([Affine.identity(), UTM, SOUTH_UP, ROTATED]),
)
@example(mask=RING, transform=ROTATED)
@example(mask=CROSSING, transform=UTM)
@example(mask=TOUCHING, transform=UTM)
@example(mask=CORNER_HOLE, transform=UTM)
def test_burning_the_outlines_gives_the_mask(mask, transform):
    polygons = polygonise(mask, transform)
    target = mask == 1
    np.testing.assert_array_equal(burn(polygons, mask.shape, transform), target)
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for polygon in polygons)
    pixel = abs(transform.determinant)
    assert sum(polygon.area for polygon in polygons) == pytest.approx(target.sum() * pixel)


def test_a_square_by_hand():
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3, 2:5] = 1
    (polygon,) = polygonise(mask)
    assert polygon.equals(shapely.box(2, 1, 5, 3))
    (on_ground,) = polygonise(mask, UTM)
    assert on_ground.equals(shapely.box(500_001, 4_999_998.5, 500_002.5, 4_999_999.5))


def test_holes_are_kept_and_corners_do_not_join():
    (ring,) = polygonise(RING)
    assert len(ring.interiors) == 1 and ring.area == 12
    assert sorted(p.area for p in polygonise(CROSSING)) == [1, 1]
    (touching,) = polygonise(TOUCHING)
    assert touching.area == 22
    (corner,) = polygonise(CORNER_HOLE)
    assert corner.area == 7 and corner.is_valid


@pytest.mark.parametrize("fill", [0, 255])
def test_nothing_gives_nothing(tmp_path, fill):
    mask = np.full((6, 6), fill, np.uint8)
    assert polygonise(mask) == polygonise(write(tmp_path / "a.tif", mask)) == []


def test_a_file_and_its_mask_agree(tmp_path):
    mask = np.random.default_rng(0).integers(0, 2, (60, 70), np.uint8)
    mask[:9, :20] = 255
    path = write(tmp_path / "a.tif", mask)
    for transform in (UTM, ROTATED, None):
        from_file, from_array = polygonise(path, transform), polygonise(mask, transform)
        assert [p.wkb for p in from_file] == [p.wkb for p in from_array] and len(from_file) > 100


def test_targets_under_void_are_void(tmp_path):
    pixels = np.array([[1, 1, 255], [0, 255, 0]], np.uint8)
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 2, "width": 3}
    with rasterio.open(path, "w", nodata=255, transform=UTM, **profile) as file:
        file.write(pixels, 1)
    np.testing.assert_array_equal(burn(polygonise(path), (2, 3), Affine.identity()), pixels == 1)


def test_targets_of_one_colour_in_three_bands_are_seen(tmp_path):
    pixels = np.zeros((3, 4, 5), np.uint8)
    pixels[2, 1:3, 2:5] = 255
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 4, "width": 5}
    with rasterio.open(tmp_path / "a.tif", "w", transform=UTM, **profile) as file:
        file.write(pixels)
    (polygon,) = polygonise(tmp_path / "a.tif")
    assert polygon.equals(shapely.box(2, 1, 5, 3))


def test_other_masks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        polygonise(np.zeros((3, 3)))
    with pytest.raises(RasterError, match="no such file"):
        polygonise(tmp_path / "a.tif")
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 1, "width": 3}
    with rasterio.open(tmp_path / "b.tif", "w", transform=UTM, **profile) as file:
        file.write(np.array([[[0, 7, 9]]], np.uint8))
    with pytest.raises(LabelError, match="7, 9"):
        polygonise(tmp_path / "b.tif")
