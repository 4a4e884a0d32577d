"""Polygons to masks: exact on small grids, in any CRS, and one line for what cannot work."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from shapely.geometry import (
    GeometryCollection,
    LineString,
    MultiPolygon,
    Point,
    Polygon,
    box,
    shape,
)

from preprocessing import polygons as polygons_module
from preprocessing import vectors
from preprocessing.errors import DatasetError, PolygonError
from preprocessing.layouts import polygon_scenes
from preprocessing.polygons import PolygonCounts, rasterise, read_polygons
from preprocessing.raster_access import RasterInfo, raster_info
from preprocessing.rasters import read_label
from preprocessing.vectors import read_features
from tests.mask_files import ground_sample_distance

UTM = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 4_999_990)
ROTATED = Affine(0.4, 0.3, 500_000, 0.3, -0.4, 5_000_000)
MERCATOR = Affine(0.5, 0, 1_110_000, 0, -0.5, 8_400_000)
DEGREES = Affine(1e-5, 0, 10, 0, -1e-5, 60)

BOW = Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])


def info_of(height=20, width=30, transform=UTM, crs="EPSG:32633"):
    crs = None if crs is None else CRS.from_user_input(crs)
    gsd = None if crs is None else ground_sample_distance(crs, transform, height, width)
    return RasterInfo(height, width, 3, "uint8", crs, transform, gsd, crs is not None)


def place(geometry, transform=UTM):
    """A geometry in pixels (x, y) in the CRS of the affine."""
    return shapely.affinity.affine_transform(geometry, transform.to_shapely())


def write(path, geometries, crs="EPSG:32633", layer=None, **columns):
    frame = geopandas.GeoDataFrame(columns, geometry=list(geometries), crs=crs)
    frame.to_file(path, layer=layer, mode="a" if Path(path).exists() else "w")
    return path


def rasterise_file(path, info, **options):
    return rasterise(read_polygons(path, info, **options)[0], info)


def mask_of(rows):
    return np.array([[int(c) for c in row] for row in rows.split()], np.uint8)


# Filling.


def test_a_pixel_is_target_where_its_centre_lies_inside():
    info = info_of(4, 5)
    inside = place(box(1.4, 1.4, 3.6, 2.6))
    expected = mask_of("00000 01110 01110 00000")
    np.testing.assert_array_equal(rasterise([inside], info), expected)
    np.testing.assert_array_equal(
        rasterise([place(box(1.6, 1.4, 3.4, 2.4))], info), mask_of("00000 00100 00000 00000")
    )


def test_a_concave_outline_is_not_filled_as_a_convex_one():
    shape_u = Polygon([(0, 0), (5, 0), (5, 4), (4, 4), (4, 1), (1, 1), (1, 4), (0, 4)])
    expected = mask_of("11111 10001 10001 10001")
    np.testing.assert_array_equal(rasterise([place(shape_u)], info_of(4, 5)), expected)


def test_holes_stay_open_and_an_island_in_a_hole_is_target():
    ring = Polygon(box(0, 0, 7, 5).exterior, [box(1, 1, 6, 4).exterior])
    island = box(3, 2, 4, 3)
    mask = rasterise([place(MultiPolygon([ring, island]))], info_of(5, 7))
    np.testing.assert_array_equal(mask, mask_of("1111111 1000001 1001001 1000001 1111111"))


def test_overlapping_polygons_are_one_target():
    polygons = [place(box(0, 0, 3, 2)), place(box(1, 0, 4, 2))]
    np.testing.assert_array_equal(rasterise(polygons, info_of(2, 5)), mask_of("11110 11110"))


def test_no_polygons_are_an_empty_mask():
    mask = rasterise([], info_of(3, 4))
    assert mask.dtype == np.uint8 and mask.shape == (3, 4) and not mask.any()


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP, ROTATED, DEGREES])
def test_any_affine_gives_the_same_pixels(transform):
    outline = Polygon([(2.2, 1.1), (11.3, 4.2), (8.1, 12.4), (4.4, 8.3)])
    expected = rasterise([outline], info_of(15, 14, Affine.identity()))
    assert expected.sum() > 20
    placed = rasterise([place(outline, transform)], info_of(15, 14, transform))
    np.testing.assert_array_equal(placed, expected)


def test_area_is_kept_on_the_average():
    rng = np.random.default_rng(0)
    area = filled = 0.0
    for _ in range(200):
        turned = shapely.affinity.rotate(box(0, 0, 6, 4), rng.uniform(0, 90))
        moved = shapely.affinity.translate(turned, *rng.uniform(5, 8, 2))
        area += moved.area
        filled += rasterise([place(moved)], info_of(20, 20)).sum()
    assert filled / area == pytest.approx(1, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)),
    st.sampled_from([UTM, SOUTH_UP, ROTATED]),
)
def test_outlines_of_a_mask_rasterise_to_it(mask, transform):
    shapes = rasterio.features.shapes(mask, mask == 1, connectivity=4, transform=transform)
    polygons = [shape(outline) for outline, _ in shapes]
    np.testing.assert_array_equal(rasterise(polygons, info_of(*mask.shape, transform)), mask)


# Reading: formats and CRS.


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp", "a.fgb"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:32632", "EPSG:3857"])
def test_every_format_in_every_crs_comes_to_the_same_pixels(tmp_path, name, crs):
    info = info_of()
    outline = place(Polygon([(3.2, 2.1), (20.3, 5.2), (18.1, 15.4), (6.4, 12.3)]))
    there = geopandas.GeoSeries([outline], crs="EPSG:32633").to_crs(crs)
    path = write(tmp_path / name, there, crs)
    polygons, counts = read_polygons(path, info)
    assert (counts.read, counts.used, counts.partly) == (1, 1, 0)
    assert polygons[0].symmetric_difference(outline).area < 0.01
    expected = rasterise([outline], info)
    assert (rasterise_file(path, info) != expected).sum() <= 1
    assert expected.sum() > 100


def test_geojson_without_a_crs_is_in_degrees(tmp_path):
    info = info_of(20, 30, DEGREES, "EPSG:4326")
    ring = [list(c) for c in place(box(2, 3, 8, 9), DEGREES).exterior.coords]
    feature = {"type": "Polygon", "coordinates": [ring]}
    path = tmp_path / "bare.geojson"
    path.write_text(json.dumps(feature))
    mask = rasterise_file(path, info)
    assert mask[3:9, 2:8].all() and mask.sum() == 36


def test_a_third_dimension_is_ignored(tmp_path):
    flat = place(box(1, 1, 5, 4))
    path = write(tmp_path / "a.gpkg", [shapely.force_3d(flat, 7.0)])
    np.testing.assert_array_equal(rasterise_file(path, info_of()), rasterise([flat], info_of()))


def test_polygons_on_the_other_side_of_the_equator_are_where_they_are(real_data):
    folder = real_data / "oam_polygons" / "z19"
    names = sorted(path.stem for path in (folder / "images").glob("*.tif"))
    assert len(names) == 8
    for name in names:
        info = raster_info(folder / "images" / f"{name}.tif")
        mask = rasterise_file(folder / "polygons" / f"{name}.geojson", info) == 1
        label = read_label(real_data / "aerial_buildings" / "train" / "gt" / f"{name}.tif") == 1
        assert (mask & label).sum() / (mask | label).sum() > 0.999, name


def test_a_drone_image_takes_the_few_of_many_polygons_that_meet_it(real_data):
    folder = real_data / "geo_cases" / "tanzania_uav"
    info = raster_info(folder / "tanzania_sample.tif")
    polygons, counts = read_polygons(folder / "tanzania_sample.geojson", info)
    assert (counts.read, counts.used, counts.partly) == (4440, 7, 5)
    assert (counts.repaired, counts.dropped, counts.outside) == (8, 1, 4432)
    assert rasterise(polygons, info).mean() == pytest.approx(0.099, abs=0.002)


# Reading: kinds of geometry.


def test_parts_and_holes_of_all_kinds_of_features_are_kept(tmp_path):
    ring = Polygon(box(0, 0, 5, 5).exterior, [box(1, 1, 4, 4).exterior])
    several = MultiPolygon([box(10, 0, 12, 2), box(14, 0, 16, 2)])
    mixed = GeometryCollection([Point(1, 1), box(20, 0, 22, 2), LineString([(0, 0), (9, 9)])])
    nested = GeometryCollection([GeometryCollection([MultiPolygon([box(24, 0, 26, 2)])])])
    features = [place(g) for g in (ring, several, mixed, nested)]
    path = write(tmp_path / "a.gpkg", features)
    mask = rasterise_file(path, info_of())
    expected = np.zeros_like(mask)
    expected[:5, :5] = 1
    expected[1:4, 1:4] = 0
    for column in (10, 14, 20, 24):
        expected[:2, column : column + 2] = 1
    np.testing.assert_array_equal(mask, expected)
    _, counts = read_polygons(path, info_of())
    assert (counts.read, counts.used, counts.repaired, counts.dropped) == (4, 4, 0, 0)


def test_outlines_that_cross_themselves_are_repaired_and_counted(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(BOW), place(box(10, 0, 12, 2))])
    polygons, counts = read_polygons(path, info_of())
    assert (counts.read, counts.used, counts.repaired) == (2, 2, 1)
    assert all(polygon.is_valid for polygon in polygons)
    mask = rasterise(polygons, info_of(4, 4))
    # Both loops of the bow tie; its centre line at the diagonals.
    assert mask[1:3, 0].all() and mask[1:3, 3].all() and not mask[0, 1:3].any()


def test_what_two_loops_of_an_outline_cover_is_no_hole(tmp_path):
    twice = Polygon([(0, 0), (6, 0), (6, 4), (2, 4), (2, 1), (8, 1), (8, 6), (0, 6)])
    assert not twice.is_valid
    mask = rasterise_file(write(tmp_path / "a.gpkg", [place(twice)]), info_of(6, 8))
    assert mask[1:4, 2:6].any()


def test_features_without_an_area_are_dropped_and_counted(tmp_path):
    features = [
        place(box(1, 1, 4, 4)),
        place(Point(2, 2)),
        place(LineString([(0, 0), (5, 5)])),
        None,
        Polygon(),
        place(Polygon([(0, 0), (3, 0), (6, 0)])),
    ]
    path = write(tmp_path / "a.geojson", features)
    polygons, counts = read_polygons(path, info_of())
    assert (counts.read, counts.used, counts.dropped) == (6, 1, 5)
    assert len(polygons) == 1


def test_an_unclosed_ring_is_closed(tmp_path):
    ring = [list(c) for c in place(box(2, 3, 8, 9), DEGREES).exterior.coords][:-1]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    mask = rasterise_file(path, info_of(20, 30, DEGREES, "EPSG:4326"))
    assert mask.sum() == 36


def test_features_outside_and_partly_outside_are_counted(tmp_path):
    features = [box(1, 1, 4, 4), box(-5, 2, 3, 6), box(25, 15, 99, 99), box(200, 0, 210, 5)]
    path = write(tmp_path / "a.gpkg", [place(g) for g in features])
    polygons, counts = read_polygons(path, info_of())
    assert (counts.read, counts.used, counts.outside, counts.partly) == (4, 3, 1, 2)
    assert len(polygons) == 3
    assert str(counts).startswith("3 of 4 polygons used (2 partly outside the raster)")


def test_a_rotated_raster_meets_only_what_lies_in_its_outline(tmp_path):
    info = info_of(20, 20, ROTATED)
    corner = shapely.box(*place(box(0, 0, 20, 20), ROTATED).bounds)
    empty = corner.difference(place(box(0, 0, 20, 20), ROTATED)).buffer(-0.5)
    path = write(tmp_path / "a.gpkg", [empty, place(box(3, 3, 9, 9), ROTATED)])
    _, counts = read_polygons(path, info)
    assert (counts.used, counts.outside, counts.partly) == (1, 1, 0)


# Attributes and layers.


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp"])
def test_a_filter_takes_the_features_that_pass(tmp_path, name):
    features = [place(box(1, 1, 4, 4)), place(box(10, 1, 14, 4)), place(box(20, 1, 22, 3))]
    path = write(tmp_path / name, features, building=["yes", "no", "yes"], levels=[1, 2, 3])
    assert read_polygons(path, info_of())[1].read == 3
    assert read_polygons(path, info_of(), where="building = 'yes'")[1].read == 2
    mask = rasterise_file(path, info_of(), where="building = 'yes' AND levels > 1")
    assert mask[1:3, 20:22].all() and mask.sum() == 4


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp"])
@pytest.mark.parametrize("where", ["building=yes", "height > 3", "building ==="])
def test_a_filter_that_does_not_work_is_one_line(tmp_path, name, where):
    path = write(tmp_path / name, [place(box(1, 1, 4, 4))], building=["yes"])
    with pytest.raises(PolygonError, match="the filter .* the fields are building$") as caught:
        read_polygons(path, info_of(), where=where)
    assert "\n" not in str(caught.value) and where in str(caught.value)


def test_a_filter_that_nothing_passes_leaves_background(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(box(1, 1, 4, 4))], building=["yes"])
    polygons, counts = read_polygons(path, info_of(), where="building = 'no'")
    assert len(polygons) == 0 and (counts.read, counts.used) == (0, 0)


def test_one_of_several_layers_has_to_be_named(tmp_path):
    path = tmp_path / "town.gpkg"
    write(path, [place(box(1, 1, 4, 4))], layer="houses")
    write(path, [place(box(10, 1, 13, 3))], layer="sheds")
    with pytest.raises(PolygonError, match=r"several layers \(houses, sheds\)") as caught:
        read_polygons(path, info_of())
    # No command takes the name of a layer, so it has to say how a file of one is made.
    command = re.search("`(.*)`", str(caught.value))[1]
    assert shlex.split(command) == ["ogr2ogr", "OUT.gpkg", str(path), "houses"]
    if shutil.which("ogr2ogr"):
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
        assert rasterise_file(tmp_path / "OUT.gpkg", info_of()).sum() == 9
    with pytest.raises(PolygonError, match="no layer 'barns'; name one of houses, sheds"):
        read_polygons(path, info_of(), layer="barns")
    assert rasterise_file(path, info_of(), layer="sheds").sum() == 6


# Lines.


@pytest.mark.parametrize(
    ("transform", "crs"),
    [(UTM, "EPSG:32633"), (MERCATOR, "EPSG:3857"), (DEGREES, "EPSG:4326")],
)
def test_lines_are_widened_by_metres_of_ground_in_any_crs(tmp_path, transform, crs):
    info = info_of(200, 300, transform, crs)
    # Up and down: along a meridian, a degree or mercator metre of width is not that of length.
    line = place(LineString([(150, 20), (150, 180)]), transform)
    path = write(tmp_path / "a.geojson", geopandas.GeoSeries([line], crs=crs).to_crs(4326), 4326)
    polygons, counts = read_polygons(path, info, buffer_m=4)
    assert (counts.read, counts.used) == (1, 1)
    ground = geopandas.GeoSeries(polygons, crs=crs).to_crs(4326)
    area = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(
        shapely.orient_polygons(ground.iloc[0])
    )[0]
    lengths = geopandas.GeoSeries([line], crs=crs).to_crs(4326)
    length = pyproj.Geod(ellps="WGS84").geometry_length(lengths.iloc[0])
    # A band 8 m wide with two half discs at its ends.
    assert area == pytest.approx(8 * length + np.pi * 4**2, rel=0.005)


def test_polygons_beside_lines_are_left_as_they_are(tmp_path):
    square = place(box(2, 2, 6, 6))
    path = write(tmp_path / "a.geojson", [square, place(LineString([(10, 10), (20, 10)]))])
    alone = rasterise_file(path, info_of())
    both = rasterise_file(path, info_of(), buffer_m=1.0)
    assert alone.sum() == 16
    assert both[2:6, 2:6].all() and both[:8, :8].sum() == 16
    assert both[8:12, 10:20].all() and not both[13:].any()


def test_lines_without_a_width_are_refused(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(LineString([(1, 1), (9, 9)]))] * 3)
    with pytest.raises(PolygonError, match="3 lines and no polygons; buffer_m"):
        read_polygons(path, info_of())


@pytest.mark.parametrize("buffer_m", [0, -1.5, float("nan")])
def test_a_width_is_above_zero(tmp_path, buffer_m):
    with pytest.raises(PolygonError, match="buffer_m is"):
        read_polygons(tmp_path / "a.gpkg", info_of(), buffer_m=buffer_m)


def test_road_lines_on_real_images(real_data):
    folder = real_data / "geo_cases" / "apls_roads"
    info = raster_info(folder / "images" / "RGB-PanSharpen_AOI_2_Vegas_img0.tif")
    path = folder / "geojson" / "AOI_2_Vegas_img0.geojson"
    with pytest.raises(PolygonError, match="38 lines"):
        read_polygons(path, info)
    polygons, counts = read_polygons(path, info, buffer_m=4)
    assert (counts.read, counts.used) == (38, 38)
    assert 0.2 < rasterise(polygons, info).mean() < 0.35


# One file for many rasters.


def town(seed=0, count=400):
    """Houses, crossed and collapsed outlines, lanes and a point around 3 x 3 rasters."""
    rng = np.random.default_rng(seed)
    shapes = []
    for number in range(count):
        x, y = rng.uniform(-60, 180, 2)
        turned = shapely.affinity.rotate(box(0, 0, 6, 3), rng.uniform(0, 90))
        kinds = [turned, BOW, LineString([(0, 0), tuple(rng.uniform(-40, 40, 2))])]
        kinds.append(MultiPolygon([turned, shapely.affinity.translate(turned, 70, 0)]))
        kinds.append([Point(0, 0), Polygon(), Polygon([(0, 0), (3, 0), (6, 0)])][number % 3])
        shapes.append(shapely.affinity.translate(kinds[number % 5], x, y))
    return shapes


@pytest.mark.parametrize("buffer_m", [None, 2.5])
@pytest.mark.parametrize(
    ("transform", "crs", "there"),
    [
        (UTM, "EPSG:32633", "EPSG:32633"),
        (UTM, "EPSG:32633", "EPSG:4326"),
        (ROTATED, "EPSG:32633", "EPSG:3857"),
        (SOUTH_UP, "EPSG:32633", "EPSG:32632"),
        (DEGREES, "EPSG:4326", "EPSG:32632"),
    ],
)
def test_what_lies_far_from_a_raster_makes_no_difference(
    tmp_path, monkeypatch, transform, crs, there, buffer_m
):
    shapes = geopandas.GeoSeries([place(s, transform) for s in town()], crs=crs).to_crs(there)
    path = write(tmp_path / "town.gpkg", shapes, there)
    tiles = [transform @ Affine.translation(40 * x, 40 * y) for x in range(3) for y in range(3)]
    infos = [info_of(40, 40, tile, crs) for tile in tiles]
    found = [read_polygons(path, info, buffer_m=buffer_m) for info in infos]
    brought = [polygons_module.nearby(read_features(path, None, None), i, buffer_m) for i in infos]
    assert all(around and near.mean() < 0.6 for near, around in brought)
    monkeypatch.setattr(polygons_module, "nearby", lambda f, _, b: (f.with_area(b), False))
    for info, (polygons, counts) in zip(infos, found, strict=True):
        expected, expected_counts = read_polygons(path, info, buffer_m=buffer_m)
        assert counts == expected_counts and counts.used > 5
        assert list(polygons) == list(expected)


def test_a_file_is_read_once_for_many_rasters_and_again_when_it_changes(tmp_path, monkeypatch):
    reads, brought = [], []
    read, to_crs = vectors._read, polygons_module._to_crs
    monkeypatch.setattr(vectors, "_read", lambda *a: reads.append(a) or read(*a))
    monkeypatch.setattr(
        polygons_module,
        "_to_crs",
        lambda shapes, *a: brought.append(len(shapes)) or to_crs(shapes, *a),
    )
    path = write(tmp_path / "a.geojson", [place(box(x, 2, x + 5, 8)) for x in range(0, 30_000, 10)])
    for shift in (0, 90, 9000):
        info = info_of(transform=UTM @ Affine.translation(shift, 0))
        assert read_polygons(path, info)[1].read == 3000
    assert len(reads) == 1 and max(brought) < 10
    path.unlink()
    write(path, [place(box(2, 2, 8, 8))])
    assert read_polygons(path, info_of())[1] == PolygonCounts(read=1)
    assert len(reads) == 2


def test_rasters_of_one_file_may_lie_across_and_beside_the_antimeridian(tmp_path):
    info = info_of(400, 400, Affine(10, 0, 832_000, 0, -10, 100_000), "EPSG:32660")
    longitude = pyproj.Transformer.from_crs(32660, 4326, always_xy=True).transform
    west, east = longitude(832_000, 98_000)[0], longitude(836_000, 98_000)[0]
    assert west > 179 and east < -179
    far = [box(170, 0, 171, 1), box(-179.9999, 2, -179.9, 3)]
    for shift in (0, 360):
        # The same houses east of it, at longitudes of -180 on and of 180 on.
        boxes = [box(-179.998 + shift, 0.885, -179.996 + shift, 0.887)] * 2
        boxes.append(box(179.996, 0.885, 179.998, 0.887))
        path = write(tmp_path / f"{shift}.geojson", [*boxes, *far], "EPSG:4326")
        polygons, counts = read_polygons(path, info)
        assert (counts.used, counts.outside, len(polygons)) == (3, 2, 3)
        x, y = pyproj.Transformer.from_crs(4326, 32660, always_xy=True).transform(-179.999, 0.888)
        beside = info_of(400, 400, Affine(1, 0, x, 0, -1, y), "EPSG:32660")
        polygons, counts = read_polygons(path, beside)
        assert (counts.used, counts.outside, len(polygons)) == (2, 3, 2)


# What cannot work.


def test_polygons_of_another_place_are_refused_with_both_extents(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(box(1000, 0, 1010, 10))])
    with pytest.raises(PolygonError) as caught:
        read_polygons(path, info_of())
    message = str(caught.value)
    assert "x 500500 to 500505 and y 4999995 to 5000000" in message
    assert "x 500000 to 500015 and y 4999990 to 5000000" in message
    assert "EPSG:32633" in message and "\n" not in message


def test_a_raster_between_the_polygons_of_a_town_is_an_empty_scene(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(box(-90, -90, -80, -80)), place(box(80, 80, 90, 90))])
    polygons, counts = read_polygons(path, info_of())
    assert len(polygons) == 0 and (counts.used, counts.outside) == (0, 2)
    assert not rasterise_file(path, info_of()).any()


def test_what_passes_a_filter_may_lie_in_other_rasters_of_the_file(tmp_path):
    shapes = [place(box(1, 1, 4, 4)), place(box(1000, 0, 1010, 10))]
    path = write(tmp_path / "a.gpkg", shapes, building=["no", "yes"])
    polygons, counts = read_polygons(path, info_of(), where="building = 'yes'")
    assert len(polygons) == 0 and (counts.read, counts.outside) == (1, 1)
    path = write(tmp_path / "b.gpkg", [place(box(1000, 0, 1010, 10))] * 2, building=["no", "yes"])
    with pytest.raises(PolygonError, match="all 2 polygons lie outside the raster"):
        read_polygons(path, info_of(), where="building = 'yes'")


def test_a_shapefile_without_crs_is_refused_and_says_what_works(tmp_path):
    path = write(tmp_path / "a.shp", [place(box(1, 1, 4, 4))])
    (tmp_path / "a.prj").unlink()
    with pytest.raises(PolygonError, match=r"no CRS is known .*\.prj.*ogr2ogr -a_srs"):
        read_polygons(path, info_of())


def test_metres_in_a_geojson_without_crs_are_refused(tmp_path):
    ring = [list(c) for c in place(box(1, 1, 4, 4)).exterior.coords]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    with pytest.raises(PolygonError, match="degrees of longitude and latitude"):
        read_polygons(path, info_of())


@pytest.mark.parametrize("where", [None, "building = 'yes'"])
@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp", "a.fgb"])
def test_a_file_without_features_is_background(tmp_path, name, where):
    path = tmp_path / name
    frame = geopandas.GeoDataFrame({"building": []}, geometry=[], crs="EPSG:32633")
    frame.to_file(path, geometry_type="Polygon")
    polygons, counts = read_polygons(path, info_of(), where)
    assert len(polygons) == 0 and counts == PolygonCounts(read=0)
    assert not rasterise(polygons, info_of()).any()


@pytest.mark.parametrize("geometry", [None, LineString(), Polygon(), GeometryCollection()])
def test_features_without_geometry_are_background(tmp_path, geometry):
    path = tmp_path / "a.geojson"
    mapping = None if geometry is None else shapely.geometry.mapping(geometry)
    feature = {"type": "Feature", "properties": {}, "geometry": mapping}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 2}))
    polygons, counts = read_polygons(path, info_of())
    assert len(polygons) == 0 and (counts.read, counts.dropped, counts.used) == (2, 2, 0)


@pytest.mark.parametrize(
    ("name", "epsg"),
    [
        ("urn:ogc:def:crs:OGC:1.3:CRS84", 4326),
        ("urn:ogc:def:crs:EPSG::4326", 4326),
        ("urn:ogc:def:crs:EPSG::3857", 3857),
        ("EPSG:3857", 3857),
        (None, 4326),
    ],
)
def test_the_crs_that_an_old_geojson_names_is_believed(tmp_path, name, epsg):
    info = info_of(20, 30, MERCATOR, "EPSG:3857")
    square = geopandas.GeoSeries([place(box(2, 3, 8, 9), MERCATOR)], crs=3857).to_crs(epsg)
    member = None if name is None else {"type": "name", "properties": {"name": name}}
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(square[0])}
    content = {"type": "FeatureCollection", "crs": member, "features": [feature]}
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    mask = rasterise_file(tmp_path / "a.geojson", info)
    assert mask[3:9, 2:8].all() and mask.sum() == 36


def test_collapsed_outlines_alone_have_no_area(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(Polygon([(0, 0), (3, 0), (6, 0)]))])
    with pytest.raises(PolygonError, match="1 feature.* none has an area"):
        read_polygons(path, info_of())


@pytest.mark.parametrize(
    "stray",
    [
        [Point(1, 1)],
        [Point(1, 1), Point(3, 3)],
        [LineString([(0, 0), (5, 5)])],
        [Polygon([(0, 0), (3, 0), (6, 0)])],
    ],
)
def test_where_no_areas_are_needed_stray_features_are_background(tmp_path, stray):
    path = write(tmp_path / "a.gpkg", [place(geometry) for geometry in stray])
    polygons, counts = read_polygons(path, info_of(), areas_needed=False)
    assert len(polygons) == 0
    assert counts == PolygonCounts(read=len(stray), dropped=len(stray))


def test_lines_without_a_width_are_refused_even_there(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(LineString([(1, 1), (9, 9)]))] * 3)
    with pytest.raises(PolygonError, match="3 lines and no polygons; buffer_m"):
        read_polygons(path, info_of(), areas_needed=False)


def test_points_are_refused(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(Point(1, 1)), place(Point(2, 2))])
    with pytest.raises(PolygonError, match="2 feature.*none has an area"):
        read_polygons(path, info_of(), buffer_m=3)


@pytest.mark.parametrize("content", [b"", b"hello", b'{"type": "FeatureCollection", "fea'])
@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp"])
def test_what_is_no_vector_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PolygonError, match="not a vector file") as caught:
        read_polygons(path, info_of())
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_table_is_no_vector_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(PolygonError, match="table without geometries"):
        read_polygons(path, info_of())


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(PolygonError, match="no such file"):
        read_polygons(tmp_path / "a.gpkg", info_of())


def test_a_raster_without_crs_takes_no_polygons(tmp_path):
    path = write(tmp_path / "a.gpkg", [place(box(1, 1, 4, 4))])
    with pytest.raises(PolygonError, match="the raster has no CRS or no affine"):
        read_polygons(path, info_of(crs=None))


# Folders.


def folder_of(path, names):
    path.mkdir()
    for name in names:
        (path / name).touch()
    return path


def test_rasters_and_vector_files_pair_by_stem(tmp_path):
    images = folder_of(tmp_path / "images", ["town2.tif", "town1.tif", "hill1.png", "farm.tif"])
    labels = ["town1.geojson", "town2.gpkg", "hill1.shp", "hill1.dbf", "hill1.shx", "farm.fgb"]
    polygons = folder_of(tmp_path / "polygons", labels)
    scenes = polygon_scenes(images, polygons, validation=("farm", 2))
    found = [(s.name, s.place, s.index, s.split, s.label.name) for s in scenes]
    assert found == [
        ("farm", "farm", None, "validation", "farm.fgb"),
        ("hill1", "hill", 1, "train", "hill1.shp"),
        ("town1", "town", 1, "train", "town1.geojson"),
        ("town2", "town", 2, "validation", "town2.gpkg"),
    ]
    assert {(s.label_kind, s.gsd) for s in scenes} == {("polygons", None)}
    assert all(s.image.parent == images for s in scenes)


def test_all_that_is_missing_or_doubled_is_named_in_one_error(tmp_path):
    images = folder_of(tmp_path / "images", ["a.tif", "b.tif", "c.tif"])
    polygons = folder_of(tmp_path / "polygons", ["a.geojson", "a.gpkg", "d.shp", "b.gpkg"])
    with pytest.raises(DatasetError) as caught:
        polygon_scenes(images, polygons)
    message = str(caught.value)
    assert "c" in message.split("image(s) without label: ")[1].split(";")[0]
    assert "d" in message.split("label(s) without image: ")[1].split(";")[0]
    assert "a.geojson, a.gpkg" in message


@pytest.mark.parametrize("given", ["town.gpkg", "town"])
def test_one_file_serves_all_rasters(tmp_path, given):
    images = folder_of(tmp_path / "images", ["a.tif", "b.tif"])
    (tmp_path / "town.gpkg").touch()
    scenes = polygon_scenes(images, tmp_path / given, validation=("b",))
    assert [(s.name, s.label.name, s.split) for s in scenes] == [
        ("a", "town.gpkg", "train"),
        ("b", "town.gpkg", "validation"),
    ]


def test_one_file_for_all_has_to_be_one(tmp_path):
    images = folder_of(tmp_path / "images", ["a.tif", "b.tif"])
    with pytest.raises(DatasetError, match="no such folder or file"):
        polygon_scenes(images, tmp_path / "town")
    for name in ("town.gpkg", "town.geojson"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"town\.geojson.*town\.gpkg: several"):
        polygon_scenes(images, tmp_path / "town")


def test_every_fifth_raster_is_held_back_and_patches_stay_together(tmp_path):
    names = [f"t{tile}_{patch}" for tile in range(1, 8) for patch in (1, 2)]
    images = folder_of(tmp_path / "images", [f"{name}.tif" for name in names])
    polygons = folder_of(tmp_path / "polygons", [f"{name}.gpkg" for name in names])
    scenes = polygon_scenes(images, polygons)
    held_back = [scene.name for scene in scenes if scene.split == "validation"]
    assert held_back == ["t1_1", "t1_2", "t6_1", "t6_2"]


@pytest.mark.parametrize("validation", [None, ("a",), (), (3,)])
def test_both_sides_of_the_split_need_a_scene(tmp_path, validation):
    images = folder_of(tmp_path / "images", ["a.tif"])
    polygons = folder_of(tmp_path / "polygons", ["a.gpkg"])
    with pytest.raises(DatasetError, match="no (training|validation) scene among 1"):
        polygon_scenes(images, polygons, validation)


def test_a_name_for_validation_that_is_not_there_is_said(tmp_path):
    images = folder_of(tmp_path / "images", ["a.tif", "b.tif"])
    polygons = folder_of(tmp_path / "polygons", ["a.gpkg", "b.gpkg"])
    with pytest.raises(DatasetError, match="validation names no raster of .*: c, d"):
        polygon_scenes(images, polygons, ("a", "c", "d"))
