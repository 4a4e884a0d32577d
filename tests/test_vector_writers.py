import json
import os
import sqlite3

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import vector_writers
from preprocessing.errors import OutputError
from preprocessing.mask_outlines import polygonise
from preprocessing.vector_writers import DRIVERS, check_layers, style, write_layer, write_layers
from tests.mask_files import UTM, burn

pytest.importorskip("pyarrow")

ENDINGS = list(DRIVERS)


def footprints(mask=None, crs="EPSG:32633"):
    """A layer as ``mask_layers`` makes it."""
    mask = np.random.default_rng(0).integers(0, 2, (20, 30), np.uint8) if mask is None else mask
    polygons = polygonise(mask, UTM)
    columns = {
        "id": np.arange(1, len(polygons) + 1),
        "area_m2": np.array([p.area for p in polygons], float),
        "mean_probability": np.where(np.arange(len(polygons)) % 3, 0.75, np.nan),
    }
    return geopandas.GeoDataFrame(columns, geometry=polygons, crs=crs)


def read(path):
    frame = (
        geopandas.read_parquet(path) if path.suffix == ".parquet" else pyogrio.read_dataframe(path)
    )
    return frame.sort_values("id").reset_index(drop=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_again(tmp_path, ending):
    frame = footprints()
    path = tmp_path / "new" / f"town{ending}"
    assert write_layers(frame, [path], "Polygon") == [path, path.with_suffix(".qml")]
    assert sorted(os.listdir(path.parent)) == sorted([f"town{ending}", "town.qml"])
    assert path.with_suffix(".qml").read_text() == style("Polygon")
    back = read(path)
    assert list(back.columns) == list(frame.columns)
    assert back.id.tolist() == frame.id.tolist()
    np.testing.assert_array_equal(back.area_m2, frame.area_m2)
    np.testing.assert_array_equal(back.mean_probability.astype(float), frame.mean_probability)
    if ending == ".geojson":
        assert back.crs.to_epsg() == 4326
        moved = back.to_crs(frame.crs).geometry
        assert shapely.hausdorff_distance(moved, frame.geometry).max() < 2e-3
    else:
        assert back.crs.to_epsg() == 32633
        points = [{tuple(p) for p in shapely.get_coordinates(f.geometry)} for f in (back, frame)]
        assert points[0] == points[1] and back.geometry.geom_equals(frame.geometry).all()


@settings(max_examples=8, deadline=None)
@given(mask=arrays(np.uint8, st.tuples(*[st.integers(1, 12)] * 2), elements=st.integers(0, 1)))
def test_every_format_leads_back_to_the_mask(tmp_path_factory, mask):
    folder = tmp_path_factory.mktemp("layers")
    paths = [folder / f"a{ending}" for ending in ENDINGS]
    write_layers(footprints(mask), paths, "Polygon")
    for path in paths:
        if path.suffix == ".geojson" and not mask.any():
            assert json.loads(path.read_text())["features"] == []
            continue
        back = read(path)
        assert back.geometry.is_valid.all()
        polygons = back.to_crs("EPSG:32633").geometry
        np.testing.assert_array_equal(burn(list(polygons), mask.shape, UTM), mask)


@pytest.mark.parametrize("geometry_type", ["Polygon", "LineString"])
@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_no_rows_are_a_layer_with_columns_and_a_type(tmp_path, geometry_type, crs):
    frame = footprints(np.zeros((3, 3), np.uint8), crs)
    paths = [tmp_path / f"a{ending}" for ending in ENDINGS]
    write_layers(frame, paths, geometry_type)
    for path in paths[::2]:
        info = pyogrio.read_info(path, force_feature_count=True)
        assert info["features"] == 0 and info["geometry_type"] == geometry_type
        assert info["fields"].tolist() == ["id", "area_m2", "mean_probability"]
        assert info["dtypes"].tolist() == ["int64", "float64", "float64"]
        assert (info["crs"] is None) == (crs is None)
    assert json.loads(paths[1].read_text())["features"] == []
    from pyarrow import parquet

    geo = json.loads(parquet.read_metadata(paths[3]).metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == [geometry_type]
    back = geopandas.read_parquet(paths[3])
    assert len(back) == 0 and list(back.columns) == list(frame.columns) and back.crs == frame.crs


def test_geojson_is_what_the_standard_says(tmp_path):
    across = shapely.Polygon([(179.99, 1), (-179.99, 1), (-179.99, 2), (179.99, 2)])
    frame = geopandas.GeoDataFrame({"id": [1], "p": [np.nan]}, geometry=[across], crs=4326)
    write_layers(frame, [tmp_path / "a.geojson"], "Polygon")
    text = (tmp_path / "a.geojson").read_text()
    assert "NaN" not in text and "crs" not in json.loads(text)
    (feature,) = json.loads(text)["features"]
    assert feature["properties"] == {"id": 1, "p": None}
    shape = shapely.geometry.shape(feature["geometry"])
    # Cut at the antimeridian, rings anticlockwise.
    assert shape.geom_type == "MultiPolygon" and shape.area == pytest.approx(0.02)
    assert all(part.exterior.is_ccw for part in shape.geoms)


@pytest.mark.parametrize("turn", [-360, 0, 360])
@pytest.mark.parametrize("west", [-0.5, 20, 179.5])
def test_geojson_of_longitudes_that_run_on_loses_no_ground(tmp_path, turn, west):
    boxes = shapely.box(west + turn, [1, 3], west + turn + 1, [2, 4])
    frame = geopandas.GeoDataFrame({"id": [1, 2]}, geometry=boxes, crs=4326)
    write_layers(frame, [tmp_path / "a.geojson"], "Polygon")
    shapes = read(tmp_path / "a.geojson").geometry
    assert shapely.area(shapes.to_numpy()) == pytest.approx(1)
    assert (np.abs(shapes.bounds[["minx", "maxx"]]) <= 180).all(axis=None)
    inside = shapely.points((west + np.array([0.25, 0.75]) + 180) % 360 - 180, 1.5)
    assert shapes[0].intersects(inside).all() and not shapes[1].intersects(inside).any()


def test_pixels_are_written_as_they_are(tmp_path):
    frame = geopandas.GeoDataFrame({"id": [1]}, geometry=[shapely.box(0, 0, 700, 500)])
    paths = [tmp_path / f"a{ending}" for ending in ENDINGS]
    write_layers(frame, paths, "Polygon")
    for path in paths:
        assert read(path).geometry[0].equals(frame.geometry[0])


def test_layers_of_one_name_share_a_style_and_all_or_none_appear(tmp_path, monkeypatch):
    paths = [tmp_path / "a.gpkg", tmp_path / "a.fgb", tmp_path / "b" / "a.geojson"]
    files = write_layers(footprints(), paths, "Polygon")
    assert files == [*paths, tmp_path / "a.qml", tmp_path / "b" / "a.qml"]
    monkeypatch.setattr(
        vector_writers, "style", lambda kind: (_ for _ in ()).throw(OSError("no room"))
    )
    with pytest.raises(OutputError, match=r"c\.qml: cannot be written: no room"):
        write_layers(footprints(), [tmp_path / "c.gpkg"], "Polygon")
    assert sorted(os.listdir(tmp_path)) == ["a.fgb", "a.gpkg", "a.qml", "b"]


def test_a_geopackage_is_replaced_and_never_appended_to(tmp_path):
    path = tmp_path / "town.gpkg"
    write_layers(footprints(crs="EPSG:32634"), [path], "Polygon")
    with pytest.raises(OutputError, match="--overwrite"):
        write_layers(footprints(), [path], "Polygon")
    assert read(path).crs.to_epsg() == 32634
    write_layers(footprints(np.ones((2, 2), np.uint8)), [path], "Polygon", overwrite=True)
    assert pyogrio.list_layers(path).tolist() == [["town", "Polygon"]]
    assert len(read(path)) == 1 and read(path).crs.to_epsg() == 32633


def test_a_geopackage_that_is_open_is_left_alone(tmp_path):
    path = tmp_path / "town.gpkg"
    write_layers(footprints(), [path], "Polygon")
    with sqlite3.connect(path) as open_elsewhere:
        open_elsewhere.execute("PRAGMA journal_mode=WAL")
        open_elsewhere.execute("CREATE TABLE notes (text)")
        with pytest.raises(OutputError, match=r"open in another program \(town.gpkg-wal\)"):
            check_layers([path], overwrite=True)
    open_elsewhere.close()
    check_layers([path], overwrite=True)


def test_what_must_not_be_written_is_refused_first(tmp_path, monkeypatch):
    for name, words in (("a.shp", ".gpkg, .geojson, .fgb, .parquet are known"), ("a", "ending")):
        with pytest.raises(OutputError, match=words):
            check_layers([tmp_path / name])
    with pytest.raises(OutputError, match="twice"):
        check_layers([tmp_path / "a.gpkg", tmp_path / "." / "a.gpkg"])
    (tmp_path / "b.qml").write_text("my own style")
    with pytest.raises(OutputError, match=r"b\.qml: exists already"):
        check_layers([tmp_path / "b.fgb"])
    check_layers([tmp_path / "b.fgb"], overwrite=True)
    (tmp_path / "c.fgb").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_layers([tmp_path / "c.fgb"], overwrite=True)
    monkeypatch.setattr(vector_writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OutputError, match="pip install pyarrow"):
        check_layers([tmp_path / "d.parquet"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_lost_rows_does_not_appear(tmp_path, monkeypatch, ending):
    path = tmp_path / f"a{ending}"
    path.write_text("older")
    monkeypatch.setattr(vector_writers, "rows_in", lambda *arguments: 3)
    with pytest.raises(OutputError, match="3 of .* features arrived"):
        write_layers(footprints(), [path], "Polygon", overwrite=True)
    assert os.listdir(tmp_path) == [path.name] and path.read_text() == "older"


def test_one_layer_may_have_any_ending_and_no_style(tmp_path):
    write_layer(footprints(), tmp_path / "a.json", "Polygon", "GeoJSON")
    assert os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(OutputError, match="exists already"):
        write_layer(footprints(), tmp_path / "a.json", "Polygon", "GeoJSON")
