import json

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from preprocessing.vector_writers import DRIVERS, LayerFile, rows_in, write_layers

pytest.importorskip("pyarrow")


def layer(count, crs="EPSG:32633"):
    left = 500_000.0 + 3 * np.arange(count)
    columns = {
        "id": np.arange(1, count + 1),
        "area_m2": np.full(count, 2.0),
        "mean_probability": np.where(np.arange(count) % 3, 0.75, np.nan),
    }
    boxes = shapely.box(left, 5e6, left + 2, 5e6 + 1)
    return geopandas.GeoDataFrame(columns, geometry=boxes, crs=crs)


def read(path):
    is_parquet = path.suffix == ".parquet"
    frame = geopandas.read_parquet(path) if is_parquet else pyogrio.read_dataframe(path)
    return frame.sort_values("id").reset_index(drop=True)


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
        LayerFile(tmp_path / "drafts" / f"a{ending}", "Polygon", DRIVERS[ending]) as file,
    ):
        file.write(layer(3))
        raise RuntimeError
    for path in (tmp_path / "drafts").iterdir():
        path.unlink()
