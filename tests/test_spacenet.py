"""SpaceNet chips: paired by area and number, in any of its layouts, with lines and polygons."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.warp import transform_geom

from preprocessing.errors import DatasetError
from preprocessing.layouts import hold_back, labelled_scenes
from preprocessing.patch_store import PatchSettings
from preprocessing.patches import build_store
from preprocessing.polygons import read_polygons
from preprocessing.raster_access import raster_info
from preprocessing.rasters import read_image
from preprocessing.spacenet import are_chips, pair_chips, spacenet_chips
from tests.helpers import write_image
from tests.training_fixtures import load_scene

SIZE = 48
CRS84 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}


def paths(*names: str) -> list[Path]:
    return [Path("folder") / name for name in names]


def chip_ground(number: int) -> Affine:
    """Pixels of 2.7e-6 degrees, as SpaceNet's; no two numbers share ground."""
    return Affine(2.7e-6, 0, -115.17 + 0.001 * number, 0, -2.7e-6, 36.24)


def write_label(path: Path, shapes: list, transform: Affine, crs: dict | None = CRS84) -> None:
    """Write shapes in pixels as GeoJSON in degrees; ``crs`` its legacy member, None for none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = [shapely.affinity.affine_transform(s, transform.to_shapely()) for s in shapes]
    features = [
        {"type": "Feature", "properties": {"id": n}, "geometry": shapely.geometry.mapping(s)}
        for n, s in enumerate(placed)
    ]
    content = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(content if crs is None else content | {"crs": crs}))


def write_chip(path: Path, number: int, bands: int = 3, dtype: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(20, 200, (SIZE, SIZE, bands))
    scale = 1 if dtype == np.uint8 else 10
    write_image(path, (noise * scale).astype(dtype), crs="EPSG:4326", transform=chip_ground(number))


BOX = shapely.box(10, 12, 30, 20)


def vegas(root: Path, numbers=(1, 2, 10), unlabelled=(), empty=(10,), **chip) -> Path:
    """The layout of SpaceNet 2 as first published, with one empty label."""
    area = root / "AOI_2_Vegas_Train"
    for number in (*numbers, *unlabelled):
        name = f"AOI_2_Vegas_img{number}"
        write_chip(area / "RGB-PanSharpen" / f"RGB-PanSharpen_{name}.tif", number, **chip)
        if number not in unlabelled:
            label = area / "geojson" / "buildings" / f"buildings_{name}.geojson"
            write_label(label, [] if number in empty else [BOX], chip_ground(number))
    return area


def paris(root: Path, numbers=(1, 2)) -> Path:
    """The layout of SpaceNet 3 as published since."""
    name = "SN3_roads_train_AOI_3_Paris"
    for number in numbers:
        write_chip(root / name / "PS-RGB" / f"{name}_PS-RGB_img{number}.tif", 50 + number)
        label = root / name / "geojson_roads" / f"{name}_geojson_roads_img{number}.geojson"
        line = shapely.LineString([(0, 24), (48, 24)])
        write_label(label, [line], chip_ground(50 + number), crs=None)
    return root / name


# Pairs


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("RGB-PanSharpen_AOI_2_Vegas_img1.tif", "buildings_AOI_2_Vegas_img1.geojson"),
        ("RGB-PanSharpen_AOI_2_Vegas_img0.tif", "AOI_2_Vegas_img0.geojson"),
        ("RGB-PanSharpen_img1447.tif", "OSMroads_img1447.geojson"),
        ("3band_AOI_1_RIO_img12.tif", "Geo_AOI_1_RIO_img12.geojson"),
        (
            "SN3_roads_train_AOI_5_Khartoum_PS-MS_img7.tif",
            "SN3_roads_train_AOI_5_Khartoum_geojson_roads_img7.geojson",
        ),
        (
            "SN5_roads_train_AOI_7_Moscow_PS-RGB_chip996.tif",
            "SN5_roads_train_AOI_7_Moscow_geojson_roads_speed_chip996.geojson",
        ),
        (
            "SN6_Train_AOI_11_Rotterdam_PS-RGB_20190804111224_20190804111453_tile_4.tif",
            "SN6_Train_AOI_11_Rotterdam_Buildings_20190804111224_20190804111453_tile_4.geojson",
        ),
    ],
)
def test_image_and_label_of_a_chip_pair(image, label):
    assert are_chips(paths(image, label))
    assert pair_chips(paths(image), paths(label)) == ([tuple(paths(image, label))], [])


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("x_AOI_2_Vegas_img1.tif", "x_AOI_2_Vegas_img11.geojson"),
        ("x_AOI_2_Vegas_img1.tif", "x_AOI_3_Paris_img1.geojson"),
        ("x_AOI_2_Vegas_img1.tif", "x_img1.geojson"),
        ("x_AOI_7_Moscow_img1.tif", "x_AOI_7_Moscow_chip1.geojson"),
        ("x_20190804111224_tile_4.tif", "x_20190804999999_tile_4.geojson"),
    ],
)
def test_other_chips_do_not_pair(image, label):
    with pytest.raises(DatasetError, match=f"1 label.* without the image .*: {label}; images and"):
        pair_chips(paths(image), paths(label))


def test_pairs_do_not_depend_on_the_order_of_files():
    images = paths(*(f"RGB_AOI_2_Vegas_img{n}.tif" for n in range(1, 13)))
    labels = paths(*(f"buildings_AOI_2_Vegas_img{n}.geojson" for n in range(1, 13)))
    random.Random(0).shuffle(labels)
    pairs, unlabelled = pair_chips(images, labels)
    assert unlabelled == [] and [image for image, _ in pairs] == sorted(images)
    for image, label in pairs:
        assert image.stem.split("_img")[1] == label.stem.split("_img")[1]


def test_images_without_label_are_told_apart_and_labels_without_image_are_an_error():
    images = paths("a_img1.tif", "a_img2.tif", "a_img3.tif")
    pairs, unlabelled = pair_chips(images, paths("b_img2.geojson"))
    assert [image.name for image, _ in pairs] == ["a_img2.tif"]
    assert [image.name for image in unlabelled] == ["a_img1.tif", "a_img3.tif"]
    with pytest.raises(DatasetError, match="8 label.*: b_img10.geojson, .*, ...;") as caught:
        pair_chips(images, paths(*(f"b_img{n}.geojson" for n in range(4, 12))))
    assert "\n" not in str(caught.value)


def test_two_files_of_one_chip_are_refused():
    with pytest.raises(DatasetError, match="a_img1.tif and .*b_img1.tif are of one chip"):
        pair_chips(paths("a_img1.tif", "b_img1.tif"), [])


@pytest.mark.parametrize("name", ["town", "img", "a_img1_x", "img1b", "myimg1x", "himg1"])
def test_what_has_no_chip_number_is_refused(name):
    assert not are_chips(paths("a_img1.tif", f"{name}.tif"))
    with pytest.raises(DatasetError, match=f"{name}.tif: its name ends in no chip number"):
        pair_chips(paths(f"{name}.tif"), [])


# Layouts


def test_buildings_of_an_area(tmp_path):
    area = vegas(tmp_path, unlabelled=(7,))
    for root in (area, tmp_path, str(tmp_path)):
        scenes, unlabelled = spacenet_chips(root, "buildings")
        assert [s.name[-5:] for s in scenes] == ["_img1", "img10", "_img2"]
        assert [path.name for path in unlabelled] == ["RGB-PanSharpen_AOI_2_Vegas_img7.tif"]
    scene = scenes[1]
    assert (scene.place, scene.index, scene.split) == ("AOI_2_Vegas", 10, "train")
    assert (scene.label_kind, scene.buffer_m, scene.source) == ("polygons", None, None)
    assert scene.label == area / "geojson/buildings/buildings_AOI_2_Vegas_img10.geojson"


def test_hidden_files_are_no_labels_and_suffixes_have_any_case(tmp_path):
    area = vegas(tmp_path)
    labels = area / "geojson" / "buildings"
    first, *_ = sorted(labels.iterdir())
    first.rename(first.with_suffix(".GeoJSON"))
    for name in ("._buildings_AOI_2_Vegas_img1.geojson", ".DS_Store", "index.html"):
        (labels / name).write_bytes(b"\0")
    scenes, unlabelled = spacenet_chips(area, "buildings")
    assert (len(scenes), unlabelled) == (3, [])
    assert first.with_suffix(".GeoJSON") in [scene.label for scene in scenes]


def test_roads_are_widened_by_two_metres(tmp_path):
    scenes, unlabelled = spacenet_chips(paris(tmp_path), "roads", source="spacenet")
    assert unlabelled == []
    assert {(s.place, s.buffer_m, s.source) for s in scenes} == {("AOI_3_Paris", 2.0, "spacenet")}
    image, mask, counts = load_scene(scenes[0], 3)
    # 4 m of ground, of which a row spans 2.7e-6 degrees of latitude, are 13.3 rows.
    rows = 4 / (2.7e-6 * 110_960)
    assert (mask == 1).mean() * SIZE == pytest.approx(rows, abs=0.7)
    assert mask[24].all() and not mask[:15].any() and counts["read"] == 1
    assert image.shape == (SIZE, SIZE, 3)


def test_several_areas_and_products(tmp_path):
    vegas(tmp_path)
    root = paris(tmp_path).parent
    assert len(spacenet_chips(root, "buildings").scenes) == 3
    assert len(spacenet_chips(root, "roads").scenes) == 2
    for number in (1, 2):
        name = "SN3_roads_train_AOI_3_Paris"
        write_chip(root / name / "PS-MS" / f"{name}_PS-MS_img{number}.tif", 50 + number, bands=8)
    assert {s.image.parent.name for s in spacenet_chips(root, "roads").scenes} == {"PS-RGB"}
    scenes = spacenet_chips(root, "roads", "PS-MS").scenes
    assert {s.image.parent.name for s in scenes} == {"PS-MS"}
    assert load_scene(scenes[0], 8)[0].shape == (SIZE, SIZE, 8)


def test_an_area_can_be_held_back(tmp_path):
    for city in ("AOI_3_Paris", "AOI_4_Shanghai"):
        for number in (1, 2):
            folder = tmp_path / f"SN2_buildings_train_{city}"
            write_chip(folder / "PS-RGB" / f"{folder.name}_PS-RGB_img{number}.tif", number)
            name = f"{folder.name}_geojson_buildings_img{number}.geojson"
            write_label(folder / "geojson_buildings" / name, [BOX], chip_ground(number))
    scenes = spacenet_chips(tmp_path, "buildings").scenes
    split = hold_back(scenes, ["AOI_4_Shanghai"], tmp_path)
    assert {s.place for s in split if s.split == "validation"} == {"AOI_4_Shanghai"}
    assert {s.place for s in split if s.split == "train"} == {"AOI_3_Paris"}
    assert [s.index for s in hold_back(scenes, [2], tmp_path) if s.split == "validation"] == [2, 2]


def test_what_is_no_spacenet_says_what_was_looked_for(tmp_path):
    vegas(tmp_path)
    with pytest.raises(DatasetError, match="named PS-RGB or .* beside .* geojson_roads or") as e:
        spacenet_chips(tmp_path, "roads")
    assert "\n" not in str(e.value)
    with pytest.raises(DatasetError, match="folders of images named MUL beside"):
        spacenet_chips(tmp_path, "buildings", "MUL")
    with pytest.raises(DatasetError, match="labels of buildings and roads, not 'trees'"):
        spacenet_chips(tmp_path, "trees")
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        spacenet_chips(tmp_path / "nowhere", "roads")


# Pixels


def test_masks_sit_where_the_polygons_are_and_an_empty_label_is_background(tmp_path):
    scenes = spacenet_chips(vegas(tmp_path), "buildings").scenes
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[12:20, 10:30] = 1
    for scene in scenes:
        _, mask, counts = load_scene(scene, 3)
        empty = scene.index == 10
        np.testing.assert_array_equal(mask, expected * 0 if empty else expected)
        assert counts["read"] == (0 if empty else 1)


@pytest.mark.parametrize(
    "stray", [shapely.LineString([(5, 5), (9, 20)]), shapely.Point(3, 3), shapely.box(4, 4, 4, 9)]
)
def test_a_chip_of_which_the_only_feature_has_no_area_is_background(tmp_path, stray):
    area = vegas(tmp_path)
    label = area / "geojson" / "buildings" / "buildings_AOI_2_Vegas_img2.geojson"
    write_label(label, [stray], chip_ground(2))
    scenes = hold_back(spacenet_chips(area, "buildings").scenes, [1], area)
    settings = PatchSettings(patch_size=32, stride=32, validation_size=32)
    store = build_store(tmp_path / "store", scenes, settings)
    counts = {s["index"]: s["polygons"] for s in store.manifest["scenes"]}
    assert (counts[2]["read"], counts[2]["dropped"]) == (1, 1)
    assert not store.train.target_shares.any() and store.validation.target_shares.any()


@pytest.mark.parametrize("where", ["id = 7", "id < 1"])
def test_a_filter_leaves_chips_without_such_features_background(tmp_path, where):
    scenes = spacenet_chips(vegas(tmp_path), "buildings").scenes
    found = [load_scene(replace(s, where=where), 3)[1].any() for s in scenes]
    assert found == ([False] * 3 if where == "id = 7" else [True, False, True])


@pytest.mark.parametrize(
    "crs", [None, CRS84, {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}]
)
def test_a_label_is_in_degrees_unless_it_says_otherwise(tmp_path, crs):
    area = vegas(tmp_path, numbers=(1,))
    path = area / "geojson" / "buildings" / "buildings_AOI_2_Vegas_img1.geojson"
    write_label(path, [BOX], chip_ground(1), crs)
    if crs not in (None, CRS84):
        content = json.loads(path.read_text())
        feature = content["features"][0]
        feature["geometry"] = transform_geom("EPSG:4326", "EPSG:3857", feature["geometry"])
        path.write_text(json.dumps(content))
    _, mask, _ = load_scene(spacenet_chips(area, "buildings").scenes[0], 3)
    assert mask.sum() == 160 and mask[12:20, 10:30].all()


@pytest.mark.parametrize(("bands", "dtype"), [(4, np.uint16), (8, np.uint16), (3, np.uint8)])
def test_chips_of_any_depth_become_a_store(tmp_path, bands, dtype):
    area = vegas(tmp_path, bands=bands, dtype=dtype, empty=())
    scenes = hold_back(spacenet_chips(area, "buildings").scenes, None, area)
    settings = PatchSettings(patch_size=32, stride=32, validation_size=32, bands=bands)
    store = build_store(tmp_path / "store", scenes, settings)
    assert store.train.images.shape == (8, 32, 32, bands)
    assert store.train.images.dtype == dtype
    found, _ = read_image(next(s.image for s in scenes if s.split == "train"), band_count=bands)
    np.testing.assert_array_equal(store.train.images[0], found[:32, :32])
    assert store.manifest["scenes"][0]["polygons"]["read"] == 1


def test_the_real_chips_pair_and_their_lines_become_roads(real_data):
    folder = real_data / "geo_cases" / "apls_roads"
    scenes = labelled_scenes(folder / "images", folder / "geojson")
    assert [(s.image.name, s.label.name) for s in scenes] == [
        ("RGB-PanSharpen_AOI_2_Vegas_img0.tif", "AOI_2_Vegas_img0.geojson"),
        ("RGB-PanSharpen_img1447.tif", "OSMroads_img1447.geojson"),
    ]
    for scene, share in zip(scenes, (0.142, 0.110), strict=True):
        _, mask, counts = load_scene(replace(scene, buffer_m=2.0), 3)
        assert (mask == 1).mean() == pytest.approx(share, abs=0.005)
        assert counts["dropped"] == counts["outside"] == 0
        # The mask has the lines' length times their width, but for crossings and ends.
        info = raster_info(scene.image)
        polygons, _ = read_polygons(scene.label, info, buffer_m=2.0)
        inside = shapely.box(*transform_bounds(info))
        area = shapely.union_all(polygons).intersection(inside)
        pixel = abs(info.transform.determinant)
        assert (mask == 1).sum() == pytest.approx(area.area / pixel, rel=0.01)


def transform_bounds(info) -> tuple[float, float, float, float]:
    return (*(info.transform @ (0, info.height)), *(info.transform @ (info.width, 0)))
