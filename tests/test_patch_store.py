"""The patch store on disk: what it holds, what it needs to be read, what it refuses."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from shapely.geometry import box

from preprocessing import patch_store
from preprocessing.errors import StoreError
from preprocessing.output_files import hash_file
from preprocessing.patch_store import PatchSet, PatchSettings, open_store, stored_scenes
from preprocessing.patches import build_store
from tests.training_fixtures import (
    SIZES,
    ground,
    read_tif,
    run_python,
    scene,
    squares,
    tiny_store,
    write_scene,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A folder with data and the store cut from it; tests work on copies."""
    folder = tmp_path_factory.mktemp("original")
    tiny_store(folder)
    return folder


@pytest.fixture
def store(original, tmp_path) -> Path:
    """A copy of the store, whose sources are the originals."""
    return shutil.copytree(original / "store", tmp_path / "store")


@pytest.fixture
def with_data(original, tmp_path) -> Path:
    """A copy of store and data; the manifest names the copied files, all older than it."""
    folder = shutil.copytree(original, tmp_path / "both")
    path = folder / "store" / "manifest.json"
    path.write_text(path.read_text().replace(str(original), str(folder)))
    for file in (folder / "data").rglob("*.tif"):
        os.utime(file, (1e9, 1e9))
    return folder


def change(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    content[key] = value
    path.write_text(json.dumps(content))


def test_hash_of_a_file_is_the_published_test_vector(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_store_opens_without_reading_its_arrays(store):
    opened = open_store(store)
    for patches, size in ((opened.train, 32), (opened.validation, 16)):
        assert isinstance(patches.images, np.memmap) and isinstance(patches.masks, np.memmap)
        assert not patches.images.flags.writeable
        assert patches.size == size
        assert patches.images.shape == (len(patches), size, size, 3)
        assert patches.masks.shape == (len(patches), size, size)
        assert patches.extents.shape == (len(patches), 2)
        assert patches.target_shares.shape == (len(patches),)
        assert len(patches.scenes) == len(patches)
    # 40 x 25: 3 x 2 patches of 16 that do not overlap but at the far edges; 12 x 20: 1 x 2.
    assert opened.validation.scenes == ("ashby1",) * 6 + ("borth1",) * 2
    assert opened.validation.extents.tolist() == [[16, 16]] * 6 + [[12, 16]] * 2
    # 48 x 33 with patches of 32 every 16 pixels: 2 x 2; 20 x 12: one, mirrored.
    assert opened.train.scenes == ("ashby2",) * 4 + ("borth2",)
    assert opened.train.extents.tolist() == [[32, 32]] * 4 + [[20, 12]]


def test_the_hash_of_a_store_is_that_of_its_manifest(store):
    opened = open_store(store)
    assert opened.sha256 == hashlib.sha256((store / "manifest.json").read_bytes()).hexdigest()
    before = opened.sha256
    change(store / "manifest.json", "target", "roads")
    assert open_store(store).sha256 != before


def test_a_store_is_read_with_numpy_alone(store):
    code = """
import json, sys
from pathlib import Path
import numpy as np
from preprocessing.patch_store import open_store, stored_scenes
store = open_store(Path(sys.argv[1]))
scenes = list(stored_scenes(store))
plain = np.load(Path(sys.argv[1]) / "train" / "images.npy", mmap_mode="r")
assert (plain == store.train.images).all()
print(json.dumps([int(store.train.images.sum()), [s.name for s in scenes]]))
"""
    blocked = ("keras", "tensorflow", "jax", "rasterio", "shapely", "geopandas", "pyogrio")
    done = run_python(code, store, blocked=(*blocked, "pyproj", "affine", "cv2", "tqdm", "h5py"))
    assert done.returncode == 0, done.stderr
    total = int(open_store(store).train.images.sum())
    assert json.loads(done.stdout) == [total, ["ashby1", "borth1"]]


def test_whole_validation_scenes_come_back_from_their_patches(original):
    scenes = list(stored_scenes(open_store(original / "store")))
    assert [(s.name, s.place) for s in scenes] == [("ashby1", "ashby"), ("borth1", "borth")]
    for found in scenes:
        data = original / "data"
        assert found.path == data / "images" / f"{found.name}.tif"
        assert found.image.shape[:2] == SIZES[found.name]
        assert found.image.dtype == np.uint8
        np.testing.assert_array_equal(found.image, read_tif(found.path))
        label = read_tif(data / "gt" / f"{found.name}.tif")[..., 0]
        np.testing.assert_array_equal(found.mask, label // 255)


def test_void_of_a_validation_scene_comes_back_as_void(tmp_path):
    for number, name in enumerate("ab"):
        image, mask = squares(20, 20, seed=number)
        image[3:9, 5:18] = 0
        write_scene(tmp_path, name, image, mask * 255, ground(number))
        # Of the image alone: a label that declares 0 as nodata is refused.
        with rasterio.open(tmp_path / "images" / f"{name}.tif", "r+") as file:
            file.nodata = 0
    scenes = [scene(tmp_path, "a", "train"), scene(tmp_path, "b", "validation")]
    store = build_store(tmp_path / "store", scenes, PatchSettings(16, 16, 16))
    (found,) = stored_scenes(store)
    expected = mask.copy()
    expected[3:9, 5:18] = 255
    np.testing.assert_array_equal(found.mask, expected)


def test_a_split_may_have_no_patches(store):
    """A manifest of training scenes only, as one may write by hand."""
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["splits"]["validation"]["patches"] = []
    (store / "manifest.json").write_text(json.dumps(manifest))
    np.save(store / "validation" / "images.npy", np.zeros((0, 16, 16, 3), np.uint8))
    np.save(store / "validation" / "masks.npy", np.zeros((0, 16, 16), np.uint8))
    opened = open_store(store)
    assert len(opened.validation) == 0 and opened.validation.extents.shape == (0, 2)


def test_the_settings_of_a_store_of_an_earlier_version_are_complete(store):
    expected = dataclasses.asdict(PatchSettings(32, 16, 16))
    assert open_store(store).manifest["settings"] == expected
    manifest = json.loads((store / "manifest.json").read_text())
    # It knew of no band numbers, limits and percentiles.
    for key in ("band_limits", "band_percentiles"):
        del manifest[key]
    del manifest["settings"]["band_numbers"]
    (store / "manifest.json").write_text(json.dumps(manifest))
    assert open_store(store).manifest["settings"] == expected


@pytest.mark.parametrize(
    ("bands", "numbers"), [(3, (1, 2)), (1, (0,)), (2, (1, -1)), (0, ()), (1, ())]
)
def test_band_numbers_that_cannot_be_are_refused(bands, numbers):
    with pytest.raises(ValueError, match=f"band_numbers must be {bands} numbers from 1"):
        PatchSettings(bands=bands, band_numbers=numbers)


def test_band_numbers_survive_json():
    settings = PatchSettings(bands=2, band_numbers=(4, 1))
    assert PatchSettings(**json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


# What is refused


def refusal(store: Path) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(store)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_without_manifest_is_no_store(tmp_path):
    assert "is not a patch store: it has no manifest.json" in refusal(tmp_path)
    assert "is not a patch store" in refusal(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{", '{"format": "jointnet'])
def test_a_damaged_manifest_is_refused(store, text):
    (store / "manifest.json").write_text(text)
    assert "manifest.json is damaged" in refusal(store)


@pytest.mark.parametrize("found", ["jointnet patch store 0", None, 1])
def test_another_format_is_refused(store, found):
    change(store / "manifest.json", "format", found)
    message = refusal(store)
    assert repr(found) in message and "delete the store and make it again" in message


def test_a_manifest_that_is_no_object_is_refused(store):
    (store / "manifest.json").write_text("[1, 2]")
    assert "is of format None" in refusal(store)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_array_is_refused(store, split, name, share):
    path = store / split / name
    os.truncate(path, int(path.stat().st_size * share))
    message = refusal(store)
    assert str(path) in message and "missing or truncated" in message


def test_a_missing_array_is_refused(store):
    (store / "train" / "masks.npy").unlink()
    assert "masks.npy is missing or truncated" in refusal(store)


def test_an_array_of_another_shape_than_the_manifest_says_is_refused(store):
    path = store / "train" / "images.npy"
    np.save(path, np.load(path)[:-1])
    assert "has shape (4, 32, 32, 3), its manifest says (5, 32, 32, 3)" in refusal(store)


# Stale


@pytest.mark.parametrize("kind", ["images", "gt"])
def test_a_source_that_grew_is_stale_whatever_its_time(with_data, kind):
    path = with_data / "data" / kind / "ashby2.tif"
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, (1e9, 1e9))
    message = refusal(with_data / "store")
    assert "is stale" in message and f"{kind}/ashby2.tif has changed" in message


def alter(path: Path) -> None:
    """Other content of the same size."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["images", "gt"])
def test_a_younger_source_of_other_content_is_stale(with_data, kind):
    path = with_data / "data" / kind / "borth1.tif"
    alter(path)
    future = (with_data / "store" / "manifest.json").stat().st_mtime + 60
    os.utime(path, (future, future))
    assert f"{kind}/borth1.tif has changed" in refusal(with_data / "store")


def test_a_source_that_was_touched_only_is_not_stale(with_data):
    future = (with_data / "store" / "manifest.json").stat().st_mtime + 60
    for path in (with_data / "data").rglob("*.tif"):
        os.utime(path, (future, future))
    assert isinstance(open_store(with_data / "store").train, PatchSet)


def test_sources_that_are_elsewhere_are_not_looked_for(with_data):
    shutil.rmtree(with_data / "data")
    assert len(open_store(with_data / "store").train) == 5


def test_a_store_moved_with_its_folder_still_opens(with_data):
    moved = with_data / "moved"
    (with_data / "store").rename(moved)
    assert len(open_store(moved).train) == 5


def test_a_source_of_another_time_and_content_is_stale_though_older_than_the_store(with_data):
    """As one that was restored from an archive, or replaced by ``cp -p``."""
    path = with_data / "data" / "gt" / "ashby2.tif"
    alter(path)
    os.utime(path, (1e9, 1e9))
    assert "gt/ashby2.tif has changed" in refusal(with_data / "store")


def recorded(folder: Path, edit) -> None:
    """Edit each file that the manifest records."""
    path = folder / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    for scene_ in manifest["scenes"]:
        for source in (scene_["image"], scene_["label"], *scene_["sidecars"]):
            edit(source)
    path.write_text(json.dumps(manifest))


def test_sources_of_the_same_size_and_time_are_not_read_again(with_data, monkeypatch):
    recorded(with_data, lambda source: source.update(mtime_ns=10**18))
    hashed = []
    monkeypatch.setattr(
        patch_store, "hash_file", lambda path: hashed.append(path) or hash_file(path)
    )
    open_store(with_data / "store")
    assert hashed == []
    os.utime(with_data / "data" / "gt" / "ashby1.tif")
    open_store(with_data / "store")
    assert [path.name for path in hashed] == ["ashby1.tif"]


def test_a_store_of_before_times_and_sidecars_is_compared_by_hash(with_data):
    path = with_data / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    for scene_ in manifest["scenes"]:
        del scene_["sidecars"], scene_["corners"]
        del scene_["image"]["mtime_ns"], scene_["label"]["mtime_ns"]
    path.write_text(json.dumps(manifest))
    assert len(open_store(with_data / "store").train) == 5
    altered = with_data / "data" / "gt" / "ashby2.tif"
    alter(altered)
    os.utime(altered, (1e9, 1e9))
    assert "gt/ashby2.tif has changed" in refusal(with_data / "store")


@pytest.fixture
def shapefiles(tmp_path) -> Path:
    """A store whose labels are Shapefiles, one with a suffix in capitals beside it."""
    scenes = []
    for number, name in enumerate("ab"):
        image, mask = squares(20, 20, seed=number)
        write_scene(tmp_path, name, image, mask * 255, ground(number))
        west, north = ground(number) @ (2, 2)
        frame = geopandas.GeoDataFrame(
            {"building": ["yes"]}, geometry=[box(west, north - 2, west + 2, north)], crs=32633
        )
        frame.to_file(tmp_path / f"{name}.shp")
        split = ("train", "validation")[number]
        polygons = {"label": tmp_path / f"{name}.shp", "label_kind": "polygons"}
        scenes.append(scene(tmp_path, name, split, **polygons))
    (tmp_path / "b.dbf").rename(tmp_path / "b.DBF")
    (tmp_path / "b.notes.prj").touch()
    build_store(tmp_path / "store", scenes, PatchSettings(16, 16, 16))
    return tmp_path


def test_files_beside_a_shapefile_are_recorded(shapefiles):
    scenes = open_store(shapefiles / "store").manifest["scenes"]
    names = [[Path(source["path"]).name for source in s["sidecars"]] for s in scenes]
    assert names == [["a.dbf", "a.prj", "a.shx"], ["b.DBF", "b.prj", "b.shx"]]
    first = scenes[0]["sidecars"][0]
    assert first["sha256"] == hash_file(shapefiles / "a.dbf")


@pytest.mark.parametrize("name", ["a.dbf", "a.prj", "b.shx"])
def test_a_changed_file_beside_a_shapefile_makes_the_store_stale(shapefiles, name):
    alter(shapefiles / name)
    os.utime(shapefiles / name, (1e9, 1e9))
    assert f"{name} has changed" in refusal(shapefiles / "store")


def test_a_raster_label_has_no_sidecars(store):
    assert [s["sidecars"] for s in open_store(store).manifest["scenes"]] == [[]] * 4


# Damaged


def lacking(manifest: dict, *route) -> None:
    *route, key = route
    for step in route:
        manifest = manifest[step]
    del manifest[key]


@pytest.mark.parametrize(
    "route",
    [
        *[(key,) for key in ("scenes", "splits", "bands", "dtype", "settings", "band_mean", "gsd")],
        *[("scenes", 0, key) for key in ("name", "split", "height", "image")],
        ("scenes", 0, "image", "path"),
        ("scenes", 0, "label", "bytes"),
        ("splits", "train"),
        ("splits", "validation", "patch_size"),
        ("splits", "train", "patches", 1, "extent"),
        ("splits", "train", "patches", 1, "valid_share"),
        ("splits", "train", "patches", 1, "extent", 0),
    ],
)
def test_a_manifest_that_lacks_something_is_damaged(store, route):
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    lacking(manifest, *route)
    path.write_text(json.dumps(manifest))
    message = refusal(store)
    assert "manifest.json is damaged" in message and "delete the store and make it again" in message
    if isinstance(route[-1], str):
        assert route[-1] in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scenes", None),
        ("splits", []),
        ("scenes", [1]),
        ("dtype", "colour"),
        ("settings", {"patches": 3}),
    ],
)
def test_a_manifest_of_other_kinds_of_values_is_damaged(store, key, value):
    change(store / "manifest.json", key, value)
    assert "manifest.json is damaged" in refusal(store)


@pytest.mark.parametrize(("name", "said"), [("images.npy", "uint8"), ("masks.npy", "uint8")])
def test_an_array_of_another_dtype_than_the_manifest_says_is_refused(store, name, said):
    path = store / "train" / name
    np.save(path, np.load(path).astype(np.int16))
    assert f"{name} is of dtype int16, it should be {said}" in refusal(store)
