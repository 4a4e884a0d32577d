"""Files of vector layers and their styles, read back by GDAL and, where it is there, by QGIS."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import vector_writers
from preprocessing.errors import OutputError
from preprocessing.mask_outlines import polygonise
from preprocessing.raster_access import raster_info
from preprocessing.raster_writers import MaskWriter
from preprocessing.tiling import Window
from preprocessing.vector_writers import (
    DRIVERS,
    VectorFile,
    check_layers,
    rows_in,
    style,
    style_path,
    write_layers,
)
from tests.helpers import write_image
from tests.mask_files import UTM, burn, centre_line_layer, footprint_layer

pytest.importorskip("pyarrow")

ENDINGS = list(DRIVERS)


def footprints(mask=None, crs="EPSG:32633"):
    """A layer as ``vectorising`` makes it."""
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


LIMITED = """
import resource, signal, sys
import geopandas, shapely
from preprocessing.errors import OutputError
from preprocessing.vector_writers import write_layers

boxes = [shapely.box(x, 0, x + 1, 1) for x in range(100)]
frame = geopandas.GeoDataFrame({"id": range(100)}, geometry=boxes, crs=4326)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_layers(frame, [sys.argv[1]], "Polygon")
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


def layer(count, crs="EPSG:32633"):
    left = 500_000.0 + 3 * np.arange(count)
    columns = {
        "id": np.arange(1, count + 1),
        "area_m2": np.full(count, 2.0),
        "mean_probability": np.where(np.arange(count) % 3, 0.75, np.nan),
    }
    boxes = shapely.box(left, 5e6, left + 2, 5e6 + 1)
    return geopandas.GeoDataFrame(columns, geometry=boxes, crs=crs)


@pytest.mark.parametrize("ending", DRIVERS)
@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_batches_make_the_file_of_the_whole(tmp_path, ending, crs):
    whole = layer(25, crs)
    batches = [whole[:10], whole[10:11], whole[11:11], whole[11:]]
    paths = [tmp_path / f"{name}{ending}" for name in ("a", "b")]
    write_layers(whole, paths[:1], "Polygon")
    write_layers(iter(batches), paths[1:], "Polygon")
    one, other = map(read, paths)
    assert_geodataframe_equal(one, other)
    assert len(other) == 25 and other.id.tolist() == whole.id.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"a{ending}", "a.qml", f"b{ending}", "b.qml"]
    )


def test_geojson_in_batches_keeps_its_rows_in_order(tmp_path):
    whole = layer(25)
    write_layers([whole[:20], whole[20:]], [tmp_path / "a.geojson"], "Polygon")
    text = (tmp_path / "a.geojson").read_text()
    features = json.loads(text)["features"]
    assert [feature["properties"]["id"] for feature in features] == whole.id.tolist()
    assert features[0]["properties"]["mean_probability"] is None and "crs" not in json.loads(text)
    assert shapely.geometry.shape(features[0]["geometry"]).exterior.is_ccw


def test_geoparquet_in_batches_tells_of_the_whole(tmp_path):
    from pyarrow import parquet

    whole = layer(25)
    write_layers([whole[:20], whole[20:]], [tmp_path / "a.parquet"], "Polygon")
    file = parquet.ParquetFile(tmp_path / "a.parquet")
    assert file.num_row_groups == 2
    column = json.loads(file.metadata.metadata[b"geo"])["columns"]["geometry"]
    assert column["bbox"] == whole.total_bounds.tolist()
    assert column["geometry_types"] == ["Polygon"]
    box = 500_000, 5e6, 500_004, 5e6 + 1
    assert len(geopandas.read_parquet(tmp_path / "a.parquet", bbox=box)) == 2


def test_a_geopackage_in_batches_is_indexed_as_one_in_one_piece(tmp_path):
    whole = layer(25)
    write_layers([whole[:20], whole[20:]], [tmp_path / "a.gpkg"], "Polygon")
    write_layers(whole, [tmp_path / "b.gpkg"], "Polygon")
    # Where TensorFlow was loaded first, its SQLite is GDAL's, and knows no index of places.
    one, other = (pyogrio.read_info(tmp_path / name) for name in ("a.gpkg", "b.gpkg"))
    assert one["features"] == 25 and one["capabilities"] == other["capabilities"]
    found = pyogrio.read_dataframe(tmp_path / "a.gpkg", bbox=(500_060, 5e6, 500_070, 5e6 + 1))
    assert found.id.tolist() == [21, 22, 23, 24]


@pytest.mark.parametrize("ending", DRIVERS)
def test_rows_are_counted(tmp_path, ending):
    for count in (0, 7):
        write_layers(layer(count), [tmp_path / f"{count}{ending}"], "Polygon")
        assert rows_in(tmp_path / f"{count}{ending}", DRIVERS[ending]) == count


@pytest.mark.parametrize("ending", DRIVERS)
def test_what_is_given_up_leaves_nothing_open(tmp_path, ending):
    (tmp_path / "drafts").mkdir()
    with (
        pytest.raises(RuntimeError),
        VectorFile(tmp_path / "drafts" / f"a{ending}", "Polygon", DRIVERS[ending]) as file,
    ):
        file.write(layer(3))
        raise RuntimeError
    for path in (tmp_path / "drafts").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("geometry_type", "symbol", "layer", "number", "colour"),
    [
        ("Polygon", "fill", "SimpleFill", "2", "outline_color"),
        ("LineString", "line", "SimpleLine", "1", "line_color"),
    ],
)
def test_a_style_is_one_symbol_of_the_right_kind(geometry_type, symbol, layer, number, colour):
    text = style(geometry_type)
    # QGIS parses it as a document of this type.
    assert text.startswith("<!DOCTYPE qgis PUBLIC")
    root = ET.fromstring(text)
    assert root.tag == "qgis" and root.findtext("layerGeometryType") == number
    assert root.find("renderer-v2").get("type") == "singleSymbol"
    (drawn,) = root.findall("renderer-v2/symbols/symbol")
    assert (drawn.get("type"), drawn.get("name")) == (symbol, "0")
    (inside,) = drawn.findall("layer")
    assert inside.get("class") == layer
    props = {prop.get("k"): prop.get("v") for prop in inside.findall("prop")}
    assert props[colour] == "255,0,200,255"


def test_the_fill_lets_the_image_through():
    root = ET.fromstring(style("Polygon"))
    (fill,) = [prop.get("v") for prop in root.iter("prop") if prop.get("k") == "color"]
    assert 0 < int(fill.split(",")[3]) < 128


def test_the_style_has_the_name_of_the_layer():
    assert style_path(Path("a/town.v2.gpkg")) == Path("a/town.v2.qml")


# QGIS brings its own modules, for the Python of the system.
PYTHON = "/usr/bin/python3"
SCRIPT = """
import json, sys
from qgis.core import QgsApplication, QgsVectorLayer, QgsWkbTypes
application = QgsApplication([], False)
application.initQgis()
found = []
for path in sys.argv[1:]:
    layer = QgsVectorLayer(path, "layer", "ogr")
    shapes = [feature.geometry() for feature in layer.getFeatures()]
    symbol = layer.renderer().symbol().symbolLayer(0)
    found.append({
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "features": len(shapes),
        "sound": all(shape.isGeosValid() for shape in shapes),
        "size": sum(shape.area() or shape.length() for shape in shapes),
        "fields": [field.name() for field in layer.fields() if field.name() != "fid"],
        "kind": QgsWkbTypes.displayString(layer.wkbType()),
        "symbol": symbol.layerType(),
        "colour": symbol.color().name(),
    })
print(json.dumps(found))
sys.stdout.flush()
# Its own clearing up crashes in some versions.
import os
os._exit(0)
"""


def in_qgis(*paths: Path) -> list[dict]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    environment |= {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, *map(str, paths)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    """A block with a yard, and a crossing of two roads of 6 m."""
    pixels = np.zeros((200, 300), np.uint8)
    pixels[20:60, 20:80] = 1
    pixels[30:40, 30:40] = 0
    pixels[100:120, 10:290] = 1
    pixels[70:190, 150:170] = 1
    folder = tmp_path_factory.mktemp("mask")
    image = write_image(folder / "image.tif", np.ones((*pixels.shape, 3), np.uint8))
    with MaskWriter(folder / "mask.tif", raster_info(image)) as writer:
        writer.write(Window(0, 0, *pixels.shape), pixels)
    return folder / "mask.tif"


@pytest.mark.slow
def test_layers_open_with_their_style(mask, tmp_path):
    probe = [PYTHON, "-c", "import qgis.core"]
    missing = shutil.which(PYTHON) is None
    if missing or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no QGIS for the system's Python")
    footprints, lines = footprint_layer(mask), centre_line_layer(mask)
    written = []
    for layer, name in ((footprints, "footprints"), (lines, "lines")):
        paths = [tmp_path / f"{name}{ending}" for ending in (".gpkg", ".fgb", ".geojson")]
        write_layers(layer.frame, paths, layer.geometry_type)
        written += paths
    found = in_qgis(*written)
    assert all(one["valid"] and one["sound"] for one in found)
    assert [one["crs"] for one in found] == ["EPSG:32633", "EPSG:32633", "EPSG:4326"] * 2
    assert [one["features"] for one in found] == [2] * 3 + [4] * 3
    assert [one["kind"] for one in found] == ["Polygon"] * 3 + ["LineString"] * 3
    assert [one["symbol"] for one in found] == ["SimpleFill"] * 3 + ["SimpleLine"] * 3
    # The colour of the style, not the one that QGIS draws by lot.
    assert len({one["colour"] for one in found[:3]}) == 1
    assert found[0]["fields"] == ["id", "area_m2"]
    assert found[3]["fields"] == ["id", "length_m"]
    # 2,300 pixels of the block, 280 x 20 + 120 x 20 - 20 x 20 of the crossing, of 0.09 m2 each.
    for one in found[:2]:
        assert one["size"] == pytest.approx((2300 + 7600) * 0.09)
    # The arms of the crossing, to half a road's width at their ends.
    assert found[3]["size"] == pytest.approx((280 + 120) * 0.3, abs=4 * 10 * 0.3 + 1)
