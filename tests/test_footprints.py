import json
import os
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from preprocessing.errors import LabelError, OutputError, RasterError
from preprocessing.footprints import footprints, write_geojson
from preprocessing.mask_outlines import polygonise
from preprocessing.raster_access import RasterInfo
from preprocessing.raster_writers import MaskWriter
from preprocessing.rasters import read_label
from preprocessing.tiling import Window

UTM = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 5_000_000)
ROTATED = Affine(0.4, 0.3, 500_000, 0.3, -0.4, 5_000_000)

RING = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], np.uint8)
CROSSING = np.array([[1, 0], [0, 1]], np.uint8)
# A hole that touches the outside, and another hole, at a corner only.
TOUCHING = np.array(
    [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], np.uint8
)
CORNER_HOLE = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


def write(path, mask, transform=UTM, crs="EPSG:32633", gcps=()):
    crs = CRS.from_string(crs) if crs else None
    info = RasterInfo(*mask.shape, 1, "uint8", crs, transform, None, crs is not None, gcps)
    with MaskWriter(path, info) as file:
        file.write(Window(0, 0, *mask.shape), mask)
    return path


def burn(polygons, shape, transform):
    """Polygons back to a mask."""
    if not polygons:
        return np.zeros(shape, np.uint8)
    return rasterio.features.rasterize(polygons, shape, transform=transform, dtype=np.uint8)


# Outlines


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


# Footprints on the ground


def square(size=40, transform=UTM):
    """A 20 x 20 pixel square with a 10 x 10 hole, in the middle."""
    mask = np.zeros((size, size), np.uint8)
    mask[10:30, 10:30] = 1
    mask[15:25, 15:25] = 0
    return mask


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP, ROTATED])
def test_area_is_ground_and_holes_count_off(tmp_path, transform):
    frame, note = footprints(write(tmp_path / "a.tif", square(), transform))
    assert note == "" and list(frame.columns) == ["id", "area_m2", "geometry"]
    assert frame.crs.to_epsg() == 4326 and frame.id.tolist() == [1]
    # 300 pixels of 0.25 m2, by the scale of UTM on its central meridian.
    assert frame.area_m2[0] == pytest.approx(300 * 0.25 / 0.9996**2, rel=1e-5)
    assert frame.geometry[0].is_valid and len(frame.geometry[0].interiors) == 1
    x, y = frame.geometry[0].centroid.coords[0]
    assert (x, y) == pytest.approx((15, 45.15), abs=0.01)


def test_one_building_has_one_area_in_every_crs(tmp_path):
    areas = []
    centre = (15.0, 60.0)
    for crs, pixel in (("EPSG:32633", 0.5), ("EPSG:3857", 1.0), ("EPSG:4326", 8e-6)):
        x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(*centre)
        transform = Affine(pixel, 0, x - 20 * pixel, 0, -pixel, y + 20 * pixel)
        path = write(tmp_path / f"{crs[5:]}.tif", square(), transform, crs)
        areas.append(footprints(path)[0].area_m2.sum() / pixel**2)
    # Squares of metres: 1 / 0.9996^2 in UTM; cos(latitude)^2 in Web Mercator, on the ellipsoid.
    assert areas[0] == pytest.approx(300 / 0.9996**2, rel=1e-4)
    assert areas[1] == pytest.approx(300 * np.cos(np.radians(60)) ** 2, rel=5e-3)
    assert areas[2] == pytest.approx(300 * 111_412 * 55_800, rel=1e-3)


def test_small_ones_are_left_out_and_ids_run_on(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[0, 0] = mask[5:15, 5:15] = mask[18:, 18:] = 1
    path = write(tmp_path / "a.tif", mask)
    assert len(footprints(path)[0]) == 3
    frame, _ = footprints(path, min_area_m2=1.0)
    assert frame.id.tolist() == [1, 2] and frame.area_m2.min() > 1


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_no_footprints_are_a_frame_too(tmp_path, fill, crs):
    frame, _ = footprints(write(tmp_path / "a.tif", np.full((9, 9), fill, np.uint8), crs=crs))
    assert len(frame) == 0 and frame.id.dtype == np.int64
    write_geojson(frame, tmp_path / "a.geojson")
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection" and content["features"] == []
    assert len(geopandas.read_file(tmp_path / "a.geojson")) == 0


def test_without_crs_footprints_are_in_pixels(tmp_path):
    frame, note = footprints(write(tmp_path / "a.tif", square(), crs=None), min_area_m2=1e9)
    assert "no CRS" in note and "pixels" in note and "\n" not in note
    assert frame.crs is None and list(frame.columns) == ["id", "area_px", "geometry"]
    assert frame.area_px.tolist() == [300] and frame.area_px.dtype == np.int64
    assert frame.geometry[0].bounds == (10, 10, 30, 30)


def test_a_crs_without_an_affine_is_no_place(tmp_path):
    frame, note = footprints(write(tmp_path / "a.tif", square(), Affine.identity()))
    assert "no affine" in note and frame.crs is None and frame.area_px.tolist() == [300]


def test_a_footprint_across_the_antimeridian_is_kept_with_its_area(tmp_path):
    # PDC Mercator, whose central meridian is 150 degrees east, at the equator.
    x, _ = pyproj.Transformer.from_crs(4326, 3832, always_xy=True).transform(180, 0)
    path = write(tmp_path / "a.tif", square(), Affine(1, 0, x - 20, 0, -1, 20), "EPSG:3832")
    frame, _ = footprints(path)
    assert frame.area_m2.tolist() == [pytest.approx(300, rel=1e-2)]
    write_geojson(frame, tmp_path / "a.geojson")
    back = geopandas.read_file(tmp_path / "a.geojson").geometry[0]
    assert back.geom_type == "MultiPolygon"
    assert back.area * 111_320 * 110_574 == pytest.approx(300, rel=1e-2)


# Ground control points


def control_points(pixels, place):
    return tuple(GroundControlPoint(r, c, *place(c, r)) for c, r in pixels)


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP, ROTATED])
def test_control_points_of_an_affine_place_as_the_affine_does(tmp_path, transform):
    by_affine, _ = footprints(write(tmp_path / "a.tif", square(), transform))
    corners = [(0, 0), (40, 0), (40, 40), (0, 40)]
    gcps = control_points(corners, lambda c, r: transform @ (c, r))
    frame, note = footprints(write(tmp_path / "b.tif", square(), gcps=gcps))
    assert "an affine fitted to its 4 ground control points" in note
    assert frame.crs.to_epsg() == 4326 and list(frame.columns) == list(by_affine.columns)
    assert frame.area_m2[0] == pytest.approx(by_affine.area_m2[0], rel=1e-6)
    # Degrees: a tenth of a millimetre.
    assert frame.geometry[0].hausdorff_distance(by_affine.geometry[0]) < 1e-9


def test_long_edges_follow_ground_that_bends(tmp_path):
    def place(column, row):
        return 500_000 + column / 2, 5_000_000 - row / 2 + 40 * (column / 500 - 1) ** 2

    grid = [(c, r) for r in (0, 20, 40) for c in range(0, 1001, 200)]
    mask = np.zeros((40, 1000), np.uint8)
    mask[10:30] = 1
    path = write(tmp_path / "a.tif", mask, gcps=control_points(grid, place))
    frame, note = footprints(path, min_area_m2=1)
    assert "order 2" in note and len(frame) == 1
    x, y = np.array(frame.to_crs("EPSG:32633").geometry[0].exterior.coords).T
    # The ends lie 40 m, 80 pixels, above the middle; no edge takes the short cut.
    top = 5_000_000 - 5 + 40 * ((x - 500_000) / 250 - 1) ** 2
    assert len(x) > 30 and np.minimum(abs(y - top), abs(y - top + 10)).max() < 1e-2
    # Sheared, so 1000 x 20 pixels of 0.25 m2 still, but for UTM's scale.
    assert frame.area_m2[0] == pytest.approx(5000 / 0.9996**2, rel=1e-3)


def test_outlines_stay_valid_on_ground_that_bends(tmp_path):
    def place(column, row):
        u, v = column / 30 - 1, row / 30 - 1
        return 500_000 + 15 * u + 2 * u * u + u * v, 5_000_000 - 15 * v + 2 * v * v

    grid = [(c, r) for r in range(0, 61, 15) for c in range(0, 61, 15)]
    mask = np.random.default_rng(0).integers(0, 2, (60, 60), np.uint8)
    path = write(tmp_path / "a.tif", mask, gcps=control_points(grid, place))
    frame, note = footprints(path)
    assert "order 2" in note and len(frame) > 100
    assert frame.geometry.is_valid.all() and (frame.area_m2 > 0).all()
    assert frame.geometry.geom_type.unique().tolist() == ["Polygon"]


@pytest.mark.parametrize(
    ("places", "crs", "words"),
    [
        ([(0, 0), (40, 40)], "EPSG:32633", "control points that give it no place"),
        ([(0, 0), (20, 20), (40, 40)], "EPSG:32633", "control points that give it no place"),
        ([(0, 0), (40, 0), (0, 40)], None, "no CRS"),
    ],
)
def test_control_points_that_place_nothing_leave_pixels(tmp_path, places, crs, words):
    gcps = control_points(places, lambda c, r: UTM @ (c, r))
    frame, note = footprints(write(tmp_path / "a.tif", square(), crs=crs, gcps=gcps))
    assert words in note and "pixels" in note and "\n" not in note
    assert frame.crs is None and frame.area_px.tolist() == [300]


@pytest.mark.parametrize("fill", [0, 255])
def test_no_footprints_by_control_points_are_a_frame_too(tmp_path, fill):
    gcps = control_points([(0, 0), (9, 0), (0, 9)], lambda c, r: UTM @ (c, r))
    frame, _ = footprints(write(tmp_path / "a.tif", np.full((9, 9), fill, np.uint8), gcps=gcps))
    assert len(frame) == 0 and frame.crs.to_epsg() == 4326 and "area_m2" in frame


# GeoJSON


def test_geojson_is_what_the_standard_says(tmp_path):
    frame, _ = footprints(write(tmp_path / "a.tif", square()))
    write_geojson(frame, tmp_path / "a.geojson")
    assert sorted(os.listdir(tmp_path)) == ["a.geojson", "a.tif"]
    content = json.loads((tmp_path / "a.geojson").read_text())
    (feature,) = content["features"]
    outer, hole = (shapely.LinearRing(r) for r in feature["geometry"]["coordinates"])
    assert outer.is_ccw and not hole.is_ccw and "crs" not in content
    assert feature["properties"]["id"] == 1
    assert feature["properties"]["area_m2"] == pytest.approx(frame.area_m2[0])
    back = geopandas.read_file(tmp_path / "a.geojson")
    assert back.crs.to_epsg() == 4326
    assert back.geometry[0].symmetric_difference(frame.geometry[0]).area < 1e-3 * outer_area(frame)


def outer_area(frame):
    """Square degrees of the first footprint without its hole."""
    return shapely.Polygon(frame.geometry[0].exterior).area


def test_geojson_leads_back_to_the_mask(tmp_path):
    mask = np.random.default_rng(1).integers(0, 2, (50, 50), np.uint8)
    path = write(tmp_path / "a.tif", mask)
    write_geojson(footprints(path)[0], tmp_path / "a.geojson")
    back = geopandas.read_file(tmp_path / "a.geojson").to_crs("EPSG:32633")
    np.testing.assert_array_equal(burn(list(back.geometry), mask.shape, UTM), mask)
    np.testing.assert_array_equal(read_label(path), mask)


def test_pixel_coordinates_are_written_as_they_are(tmp_path):
    frame, _ = footprints(write(tmp_path / "a.tif", square(), crs=None))
    write_geojson(frame, tmp_path / "a.geojson")
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert sorted(feature["geometry"]["coordinates"][0][:4]) == [
        [10, 10],
        [10, 30],
        [30, 10],
        [30, 30],
    ]


def test_an_existing_file_is_refused_or_replaced(tmp_path):
    frame, _ = footprints(write(tmp_path / "a.tif", square()))
    path = tmp_path / "a.geojson"
    path.write_text("old")
    with pytest.raises(OutputError, match="--overwrite"):
        write_geojson(frame, path)
    assert path.read_text() == "old"
    write_geojson(frame, path, overwrite=True)
    assert len(geopandas.read_file(path)) == 1


def test_another_crs_is_refused(tmp_path):
    frame, _ = footprints(write(tmp_path / "a.tif", square()))
    with pytest.raises(ValueError, match="4326"):
        write_geojson(frame.to_crs(32633), tmp_path / "a.geojson")


LIMITED = """
import resource, signal, sys
import geopandas, shapely
from preprocessing.errors import OutputError
from preprocessing.footprints import write_geojson

boxes = [shapely.box(x, 0, x + 1, 1) for x in range(100)]
frame = geopandas.GeoDataFrame({"id": range(100)}, geometry=boxes, crs=4326)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_geojson(frame, sys.argv[1])
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_no_room_leaves_one_line_and_no_file(tmp_path):
    path = tmp_path / "a.geojson"
    command = [sys.executable, "-c", LIMITED, str(path)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written: ") and done.stderr == ""
    assert len(done.stdout.splitlines()) == 1 and os.listdir(tmp_path) == []


def test_real_building_areas_agree_with_a_metric_crs(real_data):
    path = real_data / "aerial_buildings" / "train" / "gt" / "nepal1.tif"
    frame, note = footprints(path)
    assert note == "" and len(frame) > 10
    # UTM's scale is within 0.04 % of 1 near its central meridian, 0.1 % at the zone's edge.
    metric = frame.to_crs(frame.estimate_utm_crs()).area
    np.testing.assert_allclose(frame.area_m2, metric, rtol=2.5e-3)
