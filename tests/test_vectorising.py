"""Footprints and centre lines of masks: sizes, probabilities, filled holes."""

import json

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.control import GroundControlPoint
from scipy import ndimage

from preprocessing import vectorising
from preprocessing.errors import LabelError, RasterError
from preprocessing.ground import placement
from preprocessing.mask_outlines import joined_at_corners, polygonise
from preprocessing.raster_access import raster_info
from preprocessing.rasters import ProbabilityReader, read_label
from preprocessing.tiling import Window, strips
from preprocessing.vector_writers import write_layers
from preprocessing.vectorising import fill_holes, holds_void, sums_at_points, sums_in_polygons
from tests.mask_files import (
    ROTATED,
    SOUTH_UP,
    UTM,
    burn,
    centre_line_layer,
    footprint_layer,
    write,
    write_probabilities,
)

METRES = UTM @ Affine.scale(2)


def town(size=60):
    """A house with a yard, another one, a shed, and a pixel."""
    mask = np.zeros((size, size), np.uint8)
    mask[5:25, 5:35] = 1
    mask[10:15, 10:15] = 0
    mask[35:50, 8:40] = 1
    mask[40:43, 50:53] = 1
    mask[57, 57] = 1
    return mask


def crossing():
    mask = np.zeros((80, 90), np.uint8)
    mask[37:44, 3:87] = mask[5:75, 40:47] = 1
    mask[44:52, 70:73] = 1
    mask[2:4, 2:4] = 1
    return mask


masks = arrays(
    np.uint8, st.tuples(*[st.integers(1, 14)] * 2), elements=st.sampled_from([0, 1, 1, 255])
)


# Footprints


@settings(max_examples=25, deadline=None)
@given(mask=masks, transform=st.sampled_from([UTM, Affine(0.4, 0.3, 5e5, 0.3, -0.4, 5e6)]))
def test_burning_the_footprints_gives_the_mask(tmp_path_factory, mask, transform):
    path = write(tmp_path_factory.mktemp("m") / "a.tif", mask, transform)
    frame = footprint_layer(path).frame
    assert frame.crs.to_epsg() == 32633 and frame.geometry.is_valid.all()
    np.testing.assert_array_equal(burn(list(frame.geometry), mask.shape, transform), mask == 1)


def test_a_layer_is_numbered_and_has_a_type(tmp_path):
    layer = footprint_layer(write(tmp_path / "a.tif", town()))
    assert layer.geometry_type == "Polygon" and layer.notes == ()
    assert list(layer.frame.columns) == ["id", "area_m2", "geometry"]
    assert layer.frame.id.tolist() == [1, 2, 3, 4]


def test_small_footprints_and_small_holes_go(tmp_path):
    path = write(tmp_path / "a.tif", town())
    frame = footprint_layer(path, min_area_m2=2.0, fill_holes_m2=10.0).frame
    expected = town()
    expected[10:15, 10:15], expected[57, 57] = 1, 0
    np.testing.assert_array_equal(burn(list(frame.geometry), (60, 60), UTM), expected)
    assert frame.id.tolist() == [1, 2, 3] and frame.area_m2.min() > 2
    # The yard of 25 pixels is larger than 6 m2.
    assert len(footprint_layer(path, fill_holes_m2=6.0).frame.geometry[0].interiors) == 1


def test_mean_probabilities_are_those_of_the_pixels(tmp_path):
    mask = town()
    path = write(tmp_path / "a.tif", mask)
    values = np.random.default_rng(1).random(mask.shape).astype(np.float32)
    values[36, 8:30] = values[57, 57] = np.nan
    probabilities = write_probabilities(tmp_path / "p.tif", values)
    frame = footprint_layer(path, probabilities).frame
    assert list(frame.columns) == ["id", "area_m2", "mean_probability", "geometry"]
    house = np.zeros(mask.shape, bool)
    house[5:25, 5:35] = mask[5:25, 5:35] == 1
    expected = [np.mean(values[house].astype(float)), np.nanmean(values[35:50, 8:40].astype(float))]
    expected += [np.mean(values[40:43, 50:53].astype(float)), np.nan]
    by_area = frame.sort_values("area_m2", ascending=False).mean_probability.to_numpy()
    np.testing.assert_allclose(by_area, np.array(expected)[[0, 1, 2, 3]], rtol=1e-12)
    # Simplifying moves no pixel from one to another.
    simplified = footprint_layer(path, probabilities, simplify_m=1.0).frame
    np.testing.assert_array_equal(simplified.mean_probability, frame.mean_probability)
    filled = footprint_layer(path, probabilities, fill_holes_m2=100.0).frame
    assert filled.mean_probability[0] == pytest.approx(values[5:25, 5:35].mean(dtype=float))


def test_what_is_kept_as_it_was_is_counted_in_a_note(tmp_path):
    path = write(tmp_path / "a.tif", town())
    plain = footprint_layer(path).frame
    layer = footprint_layer(path, simplify_m=2.0)
    assert layer.notes == ("Simplification would destroy 2: kept as they were.",)
    assert shapely.get_num_coordinates(layer.frame.geometry).max() <= 10
    assert layer.frame.geometry[3].equals_exact(plain.geometry[3])
    pytest.importorskip("buildingregulariser")
    layer = footprint_layer(path, right_angles=True)
    assert len(layer.frame) == 4 and layer.frame.geometry.is_valid.all()
    (note,) = layer.notes
    assert note.startswith("Right angles: ") and "kept as they were" in note


def test_no_written_area_is_below_the_smallest(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[5:20, 5:20] = mask[4, 10:13] = 1
    path = write(tmp_path / "a.tif", mask, METRES)
    (area,) = footprint_layer(path).frame.area_m2
    (simplified,) = footprint_layer(path, simplify_m=1.5).frame.area_m2
    assert simplified < area
    between = (area + simplified) / 2
    assert len(footprint_layer(path, min_area_m2=between).frame) == 1
    assert len(footprint_layer(path, min_area_m2=between, simplify_m=1.5).frame) == 0


@settings(max_examples=15, deadline=None)
@given(
    mask=masks,
    fill=st.sampled_from([0.0, 2.0, 1e6]),
    smallest=st.sampled_from([0.0, 3.0]),
    simplify=st.sampled_from([0.0, 0.4, 2.0]),
    turn=st.booleans(),
)
def test_written_polygons_are_valid(tmp_path_factory, mask, fill, smallest, simplify, turn):
    pytest.importorskip("buildingregulariser")
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("m")
    path = write(folder / "a.tif", mask)
    layer = footprint_layer(
        path, min_area_m2=smallest, fill_holes_m2=fill, simplify_m=simplify, right_angles=turn
    )
    files = [folder / f"a{ending}" for ending in (".gpkg", ".geojson", ".fgb", ".parquet")]
    write_layers(layer.frame, files, layer.geometry_type)
    for file in files:
        is_parquet = file.suffix == ".parquet"
        back = geopandas.read_parquet(file) if is_parquet else geopandas.read_file(file)
        assert len(back) == len(layer.frame) and back.geometry.is_valid.all()
        assert set(back.geom_type) <= {"Polygon"}
        if len(back):
            assert sorted(back.id) == list(range(1, len(back) + 1))
            assert (back.area_m2 >= smallest).all() and (back.area_m2 > 0).all()


# Centre lines


def test_lengths_are_those_of_the_ground(tmp_path):
    path = write(tmp_path / "a.tif", crossing(), METRES)
    layer = centre_line_layer(path, min_area_m2=10.0, prune_m=12.0)
    assert layer.geometry_type == "LineString" and layer.notes == ()
    frame = layer.frame
    assert list(frame.columns) == ["id", "length_m", "geometry"] and frame.crs.to_epsg() == 32633
    assert frame.id.tolist() == list(range(1, len(frame) + 1)) and 4 <= len(frame) <= 5
    np.testing.assert_allclose(frame.length_m, frame.length / 0.9996, rtol=1e-4)
    # 84 and 70 m, less half a width at each of the four ends.
    assert frame.length_m.sum() == pytest.approx(84 + 70, abs=15)
    longer = centre_line_layer(path, min_area_m2=10.0, prune_m=0.0).frame
    assert len(longer) > len(frame)
    assert len(centre_line_layer(path, prune_m=12.0).frame) == len(frame) + 1
    assert len(centre_line_layer(path, min_area_m2=1e6).frame) == 0


def test_ground_is_what_a_web_mercator_metre_is_not(tmp_path):
    x, y = 1_669_792, 8_399_738  # 60 degrees north
    path = write(tmp_path / "a.tif", crossing(), Affine(2, 0, x, 0, -2, y), "EPSG:3857")
    utm = write(tmp_path / "b.tif", crossing(), METRES)
    one = centre_line_layer(path, min_area_m2=10.0, prune_m=12.0).frame
    other = centre_line_layer(utm, min_area_m2=10.0, prune_m=12.0).frame
    assert len(one) == len(other)
    np.testing.assert_allclose(one.length_m, other.length_m, rtol=4e-3)


def test_lines_that_meet_share_the_point_to_the_last_bit(tmp_path):
    path = write(tmp_path / "a.tif", crossing(), Affine(0.7, 0.2, 5e5, 0.2, -0.7, 5e6))
    frame = centre_line_layer(path, min_area_m2=10.0, prune_m=6.0, simplify_m=3.0).frame
    assert len(shapely.line_merge(shapely.union_all(frame.geometry)).geoms) == len(frame)
    ends = [line.coords[end] for line in frame.geometry for end in (0, -1)]
    assert len(set(ends)) < len(ends) - 1
    assert shapely.union_all([line.buffer(0) for line in frame.geometry]).is_empty
    joined = shapely.union_all(frame.geometry.to_numpy())
    assert len(shapely.get_parts(shapely.buffer(joined, 1e-9))) == 1


def test_mean_probabilities_are_those_along_the_line(tmp_path):
    mask = np.zeros((20, 60), np.uint8)
    mask[7:12, 2:58] = 1
    path = write(tmp_path / "a.tif", mask, METRES)
    values = np.full(mask.shape, 0.25)
    values[9, :30], values[9, 30:40] = 0.75, np.nan
    probabilities = write_probabilities(tmp_path / "p.tif", values, METRES)
    (row,) = centre_line_layer(path, probabilities).frame.itertuples()
    start, end = sorted(x for x, _ in row.geometry.coords)
    left, right = (int((x - METRES.c) // 1) for x in (start, end))
    pixels = values[9, left : right + 1]
    assert row.mean_probability == pytest.approx(np.nanmean(pixels), abs=0.02)


# Masks without ground, without targets, with other faults


def test_without_a_crs_a_layer_is_in_pixels_and_a_note_says_so(tmp_path):
    path = write(tmp_path / "a.tif", town(), UTM, None)
    layer = footprint_layer(path)
    assert layer.frame.crs is None and list(layer.frame.columns) == ["id", "area_px", "geometry"]
    assert layer.frame.area_px.dtype == np.int64 and layer.frame.area_px.sum() == town().sum()
    (note,) = layer.notes
    assert "no CRS" in note and "pixels" in note and "\n" not in note and "metres" not in note
    burnt = burn(list(layer.frame.geometry), (60, 60), Affine.identity())
    np.testing.assert_array_equal(burnt, town())
    asked = footprint_layer(path, min_area_m2=1e9, simplify_m=5.0)
    assert len(asked.frame) == 4 and "in metres is done" in asked.notes[0]
    lines = centre_line_layer(write(tmp_path / "b.tif", crossing(), UTM, None))
    assert list(lines.frame.columns) == ["id", "length_px", "geometry"]
    assert lines.frame.crs is None and lines.frame.total_bounds.max() < 90
    np.testing.assert_allclose(lines.frame.length_px, lines.frame.length)


def test_control_points_place_a_layer_as_the_affine_does(tmp_path):
    corners = [(0, 0), (60, 0), (60, 60), (0, 60)]
    gcps = tuple(GroundControlPoint(r, c, *(UTM @ (c, r))) for c, r in corners)
    by_affine = footprint_layer(write(tmp_path / "a.tif", town()), simplify_m=1.0).frame
    placed = write(tmp_path / "b.tif", town(), Affine.identity(), gcps=gcps)
    layer = footprint_layer(placed, simplify_m=1.0)
    assert "an affine fitted to its 4 ground control points" in layer.notes[0]
    np.testing.assert_allclose(layer.frame.area_m2, by_affine.area_m2, rtol=1e-6)
    assert shapely.hausdorff_distance(layer.frame.geometry, by_affine.geometry).max() < 1e-6


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_nothing_is_a_layer_too(tmp_path, fill, crs):
    path = write(tmp_path / "a.tif", np.full((9, 9), fill, np.uint8), UTM, crs)
    values = write_probabilities(tmp_path / "p.tif", np.zeros((9, 9)), UTM, crs)
    layers = [
        footprint_layer(path, values, min_area_m2=1, fill_holes_m2=1, simplify_m=1),
        centre_line_layer(path, values, min_area_m2=1, fill_holes_m2=1),
    ]
    for layer, size in zip(layers, ("area", "length"), strict=True):
        unit = ("m2" if size == "area" else "m") if crs else "px"
        columns = ["id", f"{size}_{unit}", "mean_probability", "geometry"]
        assert len(layer.frame) == 0 and list(layer.frame.columns) == columns
        assert layer.frame.id.dtype == np.int64 and layer.frame.mean_probability.dtype == float


def test_a_target_of_one_colour_in_three_bands_is_seen(tmp_path):
    pixels = np.zeros((3, 20, 20), np.uint8)
    pixels[2, 5:9, 5:9] = 255
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 20, "width": 20}
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32633", transform=UTM, **profile) as file:
        file.write(pixels)
    assert len(footprint_layer(tmp_path / "a.tif").frame) == 1


def test_wrong_inputs_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", town())
    other = write_probabilities(tmp_path / "p.tif", np.zeros((9, 9)))
    for make in (footprint_layer, centre_line_layer):
        with pytest.raises(RasterError, match="same grid"):
            make(path, other)
        with pytest.raises(RasterError, match="no such file"):
            make(tmp_path / "b.tif")
        with pytest.raises(LabelError, match="values"):
            make(write_probabilities(tmp_path / f"{make.__name__}.tif", np.full((9, 9), 0.5)))


# Footprints on the ground


def on_earth(path, **chosen):
    """Footprints in longitude and latitude, or in pixels, and the note."""
    layer = footprint_layer(path, **chosen)
    frame = layer.frame if layer.frame.crs is None else layer.frame.to_crs("EPSG:4326")
    return frame, " ".join(layer.notes)


def square(size=40):
    """A 20 x 20 pixel square with a 10 x 10 hole, in the middle."""
    mask = np.zeros((size, size), np.uint8)
    mask[10:30, 10:30] = 1
    mask[15:25, 15:25] = 0
    return mask


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP, ROTATED])
def test_area_is_ground_and_holes_count_off(tmp_path, transform):
    frame, note = on_earth(write(tmp_path / "a.tif", square(), transform))
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
        areas.append(on_earth(path)[0].area_m2.sum() / pixel**2)
    # Squares of metres: 1 / 0.9996^2 in UTM; cos(latitude)^2 in Web Mercator, on the ellipsoid.
    assert areas[0] == pytest.approx(300 / 0.9996**2, rel=1e-4)
    assert areas[1] == pytest.approx(300 * np.cos(np.radians(60)) ** 2, rel=5e-3)
    assert areas[2] == pytest.approx(300 * 111_412 * 55_800, rel=1e-3)


def test_small_ones_are_left_out_and_ids_run_on(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[0, 0] = mask[5:15, 5:15] = mask[18:, 18:] = 1
    path = write(tmp_path / "a.tif", mask)
    assert len(on_earth(path)[0]) == 3
    frame, _ = on_earth(path, min_area_m2=1.0)
    assert frame.id.tolist() == [1, 2] and frame.area_m2.min() > 1


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_no_footprints_are_a_frame_too(tmp_path, fill, crs):
    frame, _ = on_earth(write(tmp_path / "a.tif", np.full((9, 9), fill, np.uint8), crs=crs))
    assert len(frame) == 0 and frame.id.dtype == np.int64
    write_layers(frame, [tmp_path / "a.geojson"], "Polygon")
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection" and content["features"] == []
    assert len(geopandas.read_file(tmp_path / "a.geojson")) == 0


def test_without_crs_footprints_are_in_pixels(tmp_path):
    frame, note = on_earth(write(tmp_path / "a.tif", square(), crs=None), min_area_m2=1e9)
    assert "no CRS" in note and "pixels" in note and "\n" not in note
    assert frame.crs is None and list(frame.columns) == ["id", "area_px", "geometry"]
    assert frame.area_px.tolist() == [300] and frame.area_px.dtype == np.int64
    assert frame.geometry[0].bounds == (10, 10, 30, 30)


def test_a_crs_without_an_affine_is_no_place(tmp_path):
    frame, note = on_earth(write(tmp_path / "a.tif", square(), Affine.identity()))
    assert "no affine" in note and frame.crs is None and frame.area_px.tolist() == [300]


def test_a_footprint_across_the_antimeridian_is_kept_with_its_area(tmp_path):
    # PDC Mercator, whose central meridian is 150 degrees east, at the equator.
    x, _ = pyproj.Transformer.from_crs(4326, 3832, always_xy=True).transform(180, 0)
    path = write(tmp_path / "a.tif", square(), Affine(1, 0, x - 20, 0, -1, 20), "EPSG:3832")
    frame, _ = on_earth(path)
    assert frame.area_m2.tolist() == [pytest.approx(300, rel=1e-2)]
    write_layers(frame, [tmp_path / "a.geojson"], "Polygon")
    back = geopandas.read_file(tmp_path / "a.geojson").geometry[0]
    assert back.geom_type == "MultiPolygon"
    assert back.area * 111_320 * 110_574 == pytest.approx(300, rel=1e-2)


# Ground control points


def control_points(pixels, place):
    return tuple(GroundControlPoint(r, c, *place(c, r)) for c, r in pixels)


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP, ROTATED])
def test_control_points_of_an_affine_place_as_the_affine_does(tmp_path, transform):
    by_affine, _ = on_earth(write(tmp_path / "a.tif", square(), transform))
    corners = [(0, 0), (40, 0), (40, 40), (0, 40)]
    gcps = control_points(corners, lambda c, r: transform @ (c, r))
    frame, note = on_earth(write(tmp_path / "b.tif", square(), gcps=gcps))
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
    frame, note = on_earth(path, min_area_m2=1)
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
    frame, note = on_earth(path)
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
    frame, note = on_earth(write(tmp_path / "a.tif", square(), crs=crs, gcps=gcps))
    assert words in note and "pixels" in note and "\n" not in note
    assert frame.crs is None and frame.area_px.tolist() == [300]


@pytest.mark.parametrize("fill", [0, 255])
def test_no_footprints_by_control_points_are_a_frame_too(tmp_path, fill):
    gcps = control_points([(0, 0), (9, 0), (0, 9)], lambda c, r: UTM @ (c, r))
    frame, _ = on_earth(write(tmp_path / "a.tif", np.full((9, 9), fill, np.uint8), gcps=gcps))
    assert len(frame) == 0 and frame.crs.to_epsg() == 4326 and "area_m2" in frame


# Real masks


def test_a_full_tile_burns_back_to_the_pixel(real_data, tmp_path):
    path = real_data / "full_tile_masks" / "austin29_gt.png"
    mask = read_label(path)
    layer = footprint_layer(path)
    np.testing.assert_array_equal(
        burn(list(layer.frame.geometry), mask.shape, Affine.identity()), mask
    )
    assert layer.frame.geometry.is_valid.all() and len(layer.frame) > 2000


@pytest.mark.parametrize("name", ["nepal1", "zanzibar1"])
def test_real_footprints_burn_back_through_every_format(real_data, tmp_path, name):
    path = real_data / "aerial_buildings" / "train" / "gt" / f"{name}.tif"
    with rasterio.open(path) as file:
        transform, crs = file.transform, file.crs
    files = [tmp_path / "a.gpkg", tmp_path / "a.geojson", tmp_path / "a.fgb"]
    layer = footprint_layer(path)
    write_layers(layer.frame, files, "Polygon")
    mask = read_label(path) == 1
    for file in files:
        back = geopandas.read_file(file).to_crs(crs.to_wkt()).geometry
        np.testing.assert_array_equal(burn(list(back), mask.shape, transform), mask)
    assert json.loads(files[1].read_text())["features"]


def test_real_roads_become_lines_in_the_middle_of_them(real_data, tmp_path):
    path = real_data / "massachusetts_roads" / "valid" / "map" / "23429170_15.png"
    mask = read_label(path)[:700, :700]
    place = METRES, "EPSG:26986"
    roads = write(tmp_path / "a.tif", mask, *place)
    frame = centre_line_layer(roads, min_area_m2=50.0).frame
    # The map drew roads seven pixels wide and a few wider; less where they meet.
    assert 6 < (mask == 1).sum() / frame.length_m.sum() < 10
    inside = burn(list(frame.geometry.buffer(1.5)), mask.shape, METRES) == 1
    assert (mask[inside] == 1).mean() > 0.97


def test_real_building_areas_agree_with_a_metric_crs(real_data):
    path = real_data / "aerial_buildings" / "train" / "gt" / "nepal1.tif"
    frame, note = on_earth(path)
    assert note == "" and len(frame) > 10
    # UTM's scale is within 0.04 % of 1 near its central meridian, 0.1 % at the zone's edge.
    metric = frame.to_crs(frame.estimate_utm_crs()).area
    np.testing.assert_allclose(frame.area_m2, metric, rtol=2.5e-3)


# Holes


def filled(folder, mask, largest_m2):
    path = write(folder / "mask.tif", mask)
    outlines = np.array(polygonise(path), object)
    return fill_holes(outlines, placement(raster_info(path)), largest_m2, path)


def test_small_holes_are_filled_and_large_ones_stay(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:18, 2:28] = 1
    mask[4:6, 4:6] = 0  # 1 m2
    mask[8:14, 10:20] = 0  # 15 m2
    (polygon,) = filled(tmp_path, mask, 2)
    assert polygon.is_valid and [shapely.Polygon(r).area for r in polygon.interiors] == [60]
    (polygon,) = filled(tmp_path, mask, 16)
    assert polygon.equals(shapely.box(2, 2, 28, 18))
    (polygon,) = filled(tmp_path, mask, 0.5)
    assert len(polygon.interiors) == 2


def test_what_lies_in_a_filled_hole_becomes_part_of_it(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[2:18, 2:18] = 1
    mask[5:15, 5:15] = 0
    mask[9:11, 9:11] = 1
    mask[19, 19] = 1
    large = filled(tmp_path, mask, 30)
    assert len(large) == 2
    expected = mask.copy()
    expected[2:18, 2:18] = 1
    np.testing.assert_array_equal(burn(large, mask.shape, Affine.identity()), expected)
    assert len(filled(tmp_path, mask, 10)) == 3


def test_void_is_not_filled_nor_what_is_around_it(tmp_path):
    mask = np.ones((30, 30), np.uint8)
    mask[3:6, 3:6] = 0
    mask[10:28, 10:28] = 0
    mask[13:25, 13:25] = 1
    mask[16:20, 16:20] = 0
    mask[17, 17] = 255
    polygons = filled(tmp_path, mask, 1000)
    assert len(polygons) == 2
    expected = (mask == 1).astype(np.uint8)
    expected[3:6, 3:6] = 1
    np.testing.assert_array_equal(burn(polygons, mask.shape, Affine.identity()), expected)


def test_no_outlines_are_a_case(tmp_path):
    assert len(filled(tmp_path, np.zeros((5, 5), np.uint8), 10)) == 0
    assert joined_at_corners(np.zeros(0, object)).tolist() == []


@settings(max_examples=60, deadline=None)
@given(mask=arrays(np.uint8, st.tuples(*[st.integers(1, 14)] * 2), elements=st.integers(0, 1)))
def test_filling_every_hole_leaves_valid_outlines_of_the_mask_without_holes(mask, tmp_path_factory):
    polygons = filled(tmp_path_factory.mktemp("m"), mask, 1e9)
    assert shapely.is_valid(polygons).all()
    # Background that is connected by edges alone, as outlines see it.
    background, _ = ndimage.label(np.pad(mask, 1) == 0, np.ones((3, 3)))
    expected = (background != background[0, 0])[1:-1, 1:-1]
    burnt = burn(polygons, mask.shape, Affine.identity())
    # A background pixel that only corners join to the outside may be a hole of one outline.
    assert (burnt[expected] == 1).all() and (burnt >= mask).all()
    assert all(len(polygon.interiors) == 0 for polygon in polygons)


# Sums of pixels


@pytest.fixture
def narrow_strips(monkeypatch):
    """Several strips to even the smallest raster."""
    monkeypatch.setattr(vectorising, "strips", lambda height, width: strips(height, width, 4))
    monkeypatch.setattr("preprocessing.tiling._STRIP_PIXELS", 40)


def reading(values):
    return lambda window: values[window.slices]


@pytest.mark.usefixtures("narrow_strips")
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    mask=arrays(np.uint8, st.tuples(*[st.integers(1, 15)] * 2), elements=st.integers(0, 1)),
    seed=st.integers(0, 99),
)
def test_sums_in_outlines_are_those_of_their_pixels(mask, seed):
    values = np.random.default_rng(seed).random(mask.shape)
    values[values < 0.1] = np.nan
    polygons = np.array(polygonise(mask), object)
    sums, counts = sums_in_polygons(polygons, *mask.shape, reading(values))
    assert sums.sum() == pytest.approx(np.nansum(values[mask == 1]))
    assert counts.sum() == np.isfinite(values[mask == 1]).sum()
    columns, rows = np.meshgrid(np.arange(mask.shape[1]) + 0.5, np.arange(mask.shape[0]) + 0.5)
    for polygon, total, count in zip(polygons, sums, counts, strict=True):
        inside = shapely.contains_xy(polygon, columns, rows)
        assert total == pytest.approx(np.nansum(values[inside]))
        assert count == np.isfinite(values[inside]).sum()


@pytest.mark.usefixtures("narrow_strips")
def test_sums_at_points_by_hand():
    values = np.arange(200.0).reshape(20, 10)
    values[19, 9] = np.nan
    points = np.array([[9, 19], [0, 0], [5, 3], [0, 19]])
    sums, counts = sums_at_points(points, np.array([0, 0, 2, 2]), 3, 20, 10, reading(values))
    assert sums.tolist() == [0, 0, 35 + 190] and counts.tolist() == [1, 0, 2]


@pytest.mark.usefixtures("narrow_strips")
def test_nothing_sums_to_nothing():
    empty = np.zeros(0, object)
    values = np.ones((6, 6))
    assert [len(each) for each in sums_in_polygons(empty, 6, 6, reading(values))] == [0, 0]
    none = np.zeros((0, 2), int), np.zeros(0, int)
    assert [len(each) for each in sums_at_points(*none, 0, 6, 6, reading(values))] == [0, 0]


@pytest.mark.usefixtures("narrow_strips")
def test_void_is_found_in_the_polygon_and_in_those_around_it(tmp_path):
    mask = np.zeros((12, 12), np.uint8)
    mask[5, 5] = 255
    path = write(tmp_path / "a.tif", mask)
    boxes = [shapely.box(5, 5, 6, 6), shapely.box(0, 0, 4, 4), shapely.box(2, 2, 10, 10)]
    for order in ([0, 1, 2], [2, 1, 0]):
        found = holds_void(np.array(boxes, object)[order], path)
        assert found.tolist() == np.array([True, False, True])[order].tolist()
    assert holds_void(np.zeros(0, object), path).tolist() == []


def test_probabilities_are_read_with_void_as_nan(tmp_path):
    values = np.array([[0.25, np.nan], [1, 0]])
    path = write_probabilities(tmp_path / "p.tif", values)
    with ProbabilityReader(path, raster_info(path)) as reader:
        read = reader.read(Window(0, 0, 2, 2))
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, values)


def raw(path, pixels, **options):
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    with rasterio.open(path, "w", dtype=pixels.dtype, **profile, **options) as file:
        file.write(pixels)
    return path


def test_other_values_and_grids_are_refused(tmp_path):
    mask = raster_info(write(tmp_path / "mask.tif", np.zeros((4, 5), np.uint8)))
    same = {"crs": "EPSG:32633", "transform": UTM}
    percent = raw(tmp_path / "a.tif", np.full((1, 4, 5), 80, np.uint8), **same)
    with (
        ProbabilityReader(percent, mask) as reader,
        pytest.raises(RasterError, match="from 80 to 80; probabilities from 0 to 1"),
    ):
        reader.read(Window(0, 0, 4, 5))
    with pytest.raises(RasterError, match="3 bands"):
        ProbabilityReader(raw(tmp_path / "b.tif", np.zeros((3, 4, 5), np.float32), **same), mask)
    with pytest.raises(RasterError, match="4 x 4 pixels, the mask 5 x 4"):
        ProbabilityReader(raw(tmp_path / "c.tif", np.zeros((1, 4, 4), np.float32), **same), mask)
    moved = {"crs": "EPSG:32633", "transform": UTM @ UTM.translation(2, 0)}
    with pytest.raises(RasterError, match="than the mask: .* 1 m apart"):
        ProbabilityReader(raw(tmp_path / "d.tif", np.zeros((1, 4, 5), np.float32), **moved), mask)
    # Half a pixel is how differently two programs may say where the same grid lies.
    near = {"crs": "EPSG:32633", "transform": UTM @ UTM.translation(0.4, 0)}
    ProbabilityReader(
        raw(tmp_path / "e.tif", np.zeros((1, 4, 5), np.float32), **near), mask
    ).close()
