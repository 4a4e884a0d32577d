"""Cutting scenes into patches: every pixel, on one side of the split, and written whole."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from experiments.recipes import open_buildings
from preprocessing import patches as patches_module
from preprocessing import scene_checks
from preprocessing.errors import DatasetError, LabelError, OutputError, PolygonError, RasterError
from preprocessing.ground import geographic_bounds, geographic_corners
from preprocessing.inria import inria_scenes
from preprocessing.massachusetts import massachusetts_scenes
from preprocessing.patch_store import PatchSettings, PatchStore
from preprocessing.patches import (
    build_store,
    load_label,
    load_pair,
    validation_patches,
)
from preprocessing.raster_access import raster_info
from preprocessing.tiling import Window, cover, cut, cut_mask
from tests.training_fixtures import (
    PATCHES,
    SIZES,
    ground,
    load_scene,
    read_tif,
    scene,
    squares,
    tiny_store,
    write_inria,
    write_scene,
)

NOWHERE = Affine.identity()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store and the folder of its data, to look at only."""
    folder = tmp_path_factory.mktemp("built")
    return tiny_store(folder), folder / "data"


@pytest.fixture
def two(tmp_path) -> list:
    """A training and a validation scene on ground of their own, as files."""
    for number, name in enumerate(("a", "b")):
        image, mask = squares(20, 24, seed=number)
        write_scene(tmp_path / "data", name, image, mask * 255, ground(number))
    return [
        scene(tmp_path / "data", "a", "train"),
        scene(tmp_path / "data", "b", "validation"),
    ]


def build(tmp_path: Path, scenes: list, cutting: PatchSettings = PATCHES) -> PatchStore:
    return build_store(tmp_path / "store", scenes, cutting)


def refusal(kind: type, tmp_path: Path, scenes: list) -> str:
    with pytest.raises(kind) as caught:
        build(tmp_path, scenes)
    assert not (tmp_path / "store").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Scenes


def test_a_scene_is_read_with_void_where_either_file_has_no_data(tmp_path):
    image, mask = squares(10, 12)
    image[:2] = 0
    label = mask * 255
    label[:, :3] = 77
    write_scene(tmp_path, "a", image, label, ground(0))
    with rasterio.open(tmp_path / "images" / "a.tif", "r+") as file:
        file.nodata = 0
    with rasterio.open(tmp_path / "gt" / "a.tif", "r+") as file:
        file.nodata = 77
    found, found_mask, counts = load_scene(scene(tmp_path, "a", "train"), 3)
    np.testing.assert_array_equal(found, image)
    expected = mask.copy()
    expected[:2], expected[:, :3] = 255, 255
    np.testing.assert_array_equal(found_mask, expected)
    assert found_mask.dtype == np.uint8
    assert counts is None


@pytest.mark.parametrize("scale", [1, 255])
def test_labels_of_0_and_1_are_those_of_0_and_255(tmp_path, scale):
    image, mask = squares(10, 12)
    write_scene(tmp_path, "a", image, mask * scale, ground(0))
    _, found, _ = load_scene(scene(tmp_path, "a", "train"), 3)
    np.testing.assert_array_equal(found, mask)


def test_a_label_of_another_size_names_both_files_and_sizes(tmp_path):
    image, mask = squares(10, 12)
    write_scene(tmp_path, "a", image, mask, ground(0))
    write_scene(tmp_path / "other", "a", image, mask[:9], ground(0))
    odd = scene(tmp_path, "a", "train", label=tmp_path / "other" / "gt" / "a.tif")
    with pytest.raises(LabelError, match=r"gt/a.tif has 12 x 9 pixels, its image .* 12 x 10"):
        load_scene(odd, 3)


def relabelled(root: Path, transform: Affine, crs: str | None = "EPSG:32633"):
    """A scene on ground 0 whose label, of the same size, says that it lies elsewhere."""
    image, mask = squares(10, 12)
    write_scene(root, "a", image, mask, ground(0))
    write_scene(root / "other", "a", image, mask, transform, crs=crs)
    return scene(root, "a", "train", label=root / "other" / "gt" / "a.tif")


@pytest.mark.parametrize(
    ("transform", "crs", "apart"),
    [
        (ground(1), "EPSG:32633", "400"),
        (ground(0) @ Affine.translation(1.1, 0), "EPSG:32633", "0.33"),
        # Turned over: the rows of one run north, of the other south, over the same ground.
        (ground(0) @ Affine.translation(0, 10) @ Affine.scale(1, -1), "EPSG:32633", "3"),
        (ground(0) @ Affine.scale(2), "EPSG:32633", "4.69"),
        (ground(0), "EPSG:32634", "4.7"),
    ],
)
def test_a_label_that_lies_elsewhere_is_refused(tmp_path, transform, crs, apart):
    with pytest.raises(LabelError, match=f"corners are up to {apart}.* m apart") as caught:
        load_scene(relabelled(tmp_path, transform, crs), 3)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'other' / 'gt' / 'a.tif'} lies elsewhere than its")
    assert "\n" not in message


def test_a_label_that_lies_on_its_image_is_taken_whatever_its_reference(tmp_path):
    expected = squares(10, 12)[1]
    west, north = geographic_corners("EPSG:32633", ground(0), 10, 12)[0]
    east, south = geographic_corners("EPSG:32633", ground(0), 10, 12)[2]
    degrees = Affine((east - west) / 12, 0, west, 0, (south - north) / 10, north)
    for number, (transform, crs) in enumerate(
        [
            (ground(0) @ Affine.translation(0.9, 0), "EPSG:32633"),
            (degrees, "EPSG:4326"),
            (ground(1), None),
            (NOWHERE, "EPSG:32633"),
        ]
    ):
        _, mask, _ = load_scene(relabelled(tmp_path / str(number), transform, crs), 3)
        np.testing.assert_array_equal(mask, expected)


def test_real_labels_lie_on_their_images(real_data):
    scenes = [*inria_scenes(real_data / "aerial_buildings", (1,))]
    scenes += massachusetts_scenes(real_data / "massachusetts_buildings")
    scenes += massachusetts_scenes(real_data / "massachusetts_roads")[::8]
    placed = 0
    for one in scenes:
        placed += raster_info(one.image).georeferenced and raster_info(one.label).georeferenced
        load_label(one, raster_info(one.image))
    assert placed > 0


@pytest.mark.parametrize("values", [(1, 255), (2,), (1, 3), (128,)])
def test_labels_of_other_values_are_refused_and_named(tmp_path, two, values):
    label = read_tif(two[0].label)[..., 0] * 0
    label[0, : len(values)] = values
    write_scene(two[0].image.parents[1], "a", read_tif(two[0].image), label, ground(0))
    message = refusal(LabelError, tmp_path, two)
    assert "a.tif" in message
    assert all(str(value) in message for value in values)


def test_too_few_bands_are_refused(tmp_path, two):
    grey = dataclasses.replace(two[0], image=two[0].label)
    assert "band" in refusal(RasterError, tmp_path, [grey, two[1]])


def square_of(path: Path, rows: slice, columns: slice) -> dict:
    """A GeoJSON feature around some pixels of a raster, in its CRS."""
    with rasterio.open(path) as file:
        corners = [
            file.transform @ (column, row)
            for column, row in (
                (columns.start, rows.start),
                (columns.stop, rows.start),
                (columns.stop, rows.stop),
                (columns.start, rows.stop),
                (columns.start, rows.start),
            )
        ]
    geometry = {"type": "Polygon", "coordinates": [[list(corner) for corner in corners]]}
    return {"type": "Feature", "properties": {"building": "yes"}, "geometry": geometry}


def test_polygons_become_masks_and_their_counts_stand_in_the_manifest(tmp_path, two):
    scenes = []
    for number, one in enumerate(two):
        features = [square_of(one.image, slice(2, 7), slice(3 + number, 15))]
        path = tmp_path / f"{one.name}.geojson"
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
        path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
        scenes.append(dataclasses.replace(one, label=path, label_kind="polygons"))
    _, mask, counts = load_scene(scenes[0], 3)
    expected = np.zeros((20, 24), np.uint8)
    expected[2:7, 3:15] = 1
    np.testing.assert_array_equal(mask, expected)
    store = build(tmp_path, scenes)
    np.testing.assert_array_equal(store.train.masks[0], cut_mask(expected, Window(0, 0, 32, 32)))
    assert counts["read"] == 1
    assert [s["polygons"]["read"] for s in store.manifest["scenes"]] == [1, 1]


# Windows


@settings(deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 40),
    share=st.floats(0.1, 1),
)
def test_training_windows_hold_every_pixel(height, width, size, share):
    seen = np.zeros((height, width), int)
    for window in cover(height, width, size, max(1, int(share * size))):
        assert (window.height, window.width) == (size, size)
        seen[window.clipped(height, width).slices] += 1
        # Only a scene smaller than a patch is exceeded.
        assert window.row + size <= max(height, size)
        assert window.column + size <= max(width, size)
    assert seen.min() >= 1


@settings(deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(4, 24))
def test_validation_patches_hold_every_valid_pixel_once(height, width, size):
    image, mask = squares(height, width, seed=height)
    mask[::3, ::4] = 255
    counted = np.zeros((height, width), int)
    for window, patch, patch_mask in validation_patches(image, mask.copy(), size):
        np.testing.assert_array_equal(patch, cut(image, window))
        inside = window.clipped(height, width)
        part = patch_mask[: inside.height, : inside.width]
        counted[inside.slices] += part != 255
        assert (part[part != 255] == mask[inside.slices][part != 255]).all()
        # Nothing outside the scene counts.
        assert (patch_mask != 255).sum() == (part != 255).sum()
    np.testing.assert_array_equal(counted, mask != 255)


def test_validation_patches_leave_the_mask_as_it_was():
    image, mask = squares(20, 20)
    before = mask.copy()
    list(validation_patches(image, mask, 16))
    np.testing.assert_array_equal(mask, before)


# The store


def test_arrays_are_the_cuts_that_the_manifest_names(built):
    store, data = built
    for split, patches in (("train", store.train), ("validation", store.validation)):
        records = store.manifest["splits"][split]["patches"]
        assert len(records) == len(patches) > 0
        for position, record in enumerate(records):
            name = store.manifest["scenes"][record["scene"]]["name"]
            window = Window(*record["window"])
            image = read_tif(data / "images" / f"{name}.tif")
            np.testing.assert_array_equal(patches.images[position], cut(image, window))
            if split == "train":
                label = read_tif(data / "gt" / f"{name}.tif")[..., 0] // 255
                np.testing.assert_array_equal(patches.masks[position], cut_mask(label, window))


def test_a_patch_larger_than_its_scene_is_mirrored_and_void_outside(built):
    store, data = built
    position = store.train.scenes.index("borth2")
    assert SIZES["borth2"] == (20, 12)
    assert store.train.extents[position].tolist() == [20, 12]
    image = read_tif(data / "images" / "borth2.tif")
    patch, mask = store.train.images[position], store.train.masks[position]
    np.testing.assert_array_equal(patch[:20, :12], image)
    np.testing.assert_array_equal(patch[20], patch[18])
    np.testing.assert_array_equal(patch[:, 13], patch[:, 9])
    assert (mask[20:] == 255).all() and (mask[:, 12:] == 255).all()
    assert (mask[:20, :12] != 255).all()


def test_the_manifest_names_sources_with_size_hash_split_and_resolution(built):
    store, data = built
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest == store.manifest
    assert [s["name"] for s in manifest["scenes"]] == sorted(SIZES)
    for described in manifest["scenes"]:
        for kind, folder in (("image", "images"), ("label", "gt")):
            path = data / folder / f"{described['name']}.tif"
            assert described[kind] == {
                "path": str(path.resolve()),
                "bytes": path.stat().st_size,
                "mtime_ns": path.stat().st_mtime_ns,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        assert (described["height"], described["width"]) == SIZES[described["name"]]
        assert described["split"] == ("validation" if described["index"] == 1 else "train")
        assert described["place"] == described["name"][:-1]
        # The rasters' own; UTM's scale on its central meridian is 0.9996.
        assert described["gsd"] == pytest.approx(0.3 / 0.9996, rel=1e-6)
        west, south, east, north = described["bounds"]
        # 500,000 m east in zone 33 is 15 degrees; a degree there is 79 km wide.
        assert 14.999 < west < east < 15.03 and 45.1 < south < north < 45.2
        assert east - west == pytest.approx(0.3 * described["width"] / 78_900, rel=0.03)
    assert manifest["settings"] == dataclasses.asdict(PATCHES)
    assert manifest["bands"] == 3 and manifest["dtype"] == "uint8"
    assert manifest["target"] == "buildings" and manifest["gsd"] == pytest.approx(0.3, rel=1e-3)


def test_shares_of_a_patch_are_those_of_its_mask(built):
    store, _ = built
    for split, patches in (("train", store.train), ("validation", store.validation)):
        for mask, record in zip(
            patches.masks, store.manifest["splits"][split]["patches"], strict=True
        ):
            valid = (mask != 255).sum()
            assert record["valid_share"] == pytest.approx(valid / mask.size, abs=1e-6)
            assert record["target_share"] == pytest.approx((mask == 1).sum() / valid, abs=1e-6)
    # Borth2: 20 x 12 of 32 x 32 pixels are there.
    last = store.manifest["splits"]["train"]["patches"][-1]
    assert last["valid_share"] == pytest.approx(240 / 1024, abs=1e-6)


def test_a_patch_without_valid_pixels_has_no_target(tmp_path, two):
    path = two[0].image
    image = read_tif(path) * 0
    write_scene(path.parents[1], "a", image, image[..., 0], ground(0))
    with rasterio.open(path, "r+") as file:
        file.nodata = 0
    write_scene(path.parents[1], "c", *squares(20, 24), ground(2))
    store = build(tmp_path, [*two, scene(path.parents[1], "c", "train")])
    assert (store.train.masks[0] == 255).all()
    assert store.train.target_shares[0] == store.train.valid_shares[0] == 0
    assert store.train.valid_shares[1] == pytest.approx(20 * 24 / 32**2, abs=1e-6)


def test_training_scenes_without_any_valid_pixel_are_refused(tmp_path, two):
    with rasterio.open(two[0].image, "r+") as file:
        file.write(np.zeros((3, 20, 24), np.uint8))
        file.nodata = 0
    assert "no pixel of the training scenes is valid" in refusal(DatasetError, tmp_path, two)


def test_band_statistics_are_of_valid_training_pixels_each_once(tmp_path, two):
    path = two[0].image
    image = read_tif(path)
    image[:5] = 0
    write_scene(path.parents[1], "a", image, read_tif(two[0].label)[..., 0], ground(0))
    with rasterio.open(path, "r+") as file:
        file.nodata = 0
    # Overlapping patches, so that counting patches would count pixels twice.
    store = build(tmp_path, two, PatchSettings(16, 4, 16))
    pixels = image[5:].reshape(-1, 3).astype(float)
    assert store.manifest["band_mean"] == pytest.approx(pixels.mean(0).tolist())
    assert store.manifest["band_std"] == pytest.approx(pixels.std(0).tolist())


def test_a_band_s_limits_and_percentiles_stand_in_the_manifest(tmp_path, two):
    percentiles = build(tmp_path, two).manifest["band_percentiles"]
    pixels = read_tif(two[0].image).reshape(-1, 3).astype(float)
    assert list(percentiles) == ["0", "0.1", "2", "50", "98", "99.9", "100"]
    for share, found in percentiles.items():
        assert found == pytest.approx(np.percentile(pixels, float(share), axis=0).tolist())


@pytest.mark.parametrize(
    ("dtype", "factor", "origin"),
    [(np.uint16, 8, 0), (np.int16, 100, -9000), (np.float32, 1 / 255, 0), (np.float32, 30, -400)],
)
def test_rasters_of_any_depth_stay_as_they_are(tmp_path, dtype, factor, origin):
    for number, name in enumerate("ab"):
        image, mask = squares(20, 20, seed=number)
        deep = (image.astype(np.float64) * factor + origin).astype(dtype)
        write_scene(tmp_path, name, deep, mask, ground(number))
    scenes = [scene(tmp_path, "a", "train"), scene(tmp_path, "b", "validation")]
    store = build(tmp_path, scenes)
    assert store.manifest["dtype"] == np.dtype(dtype).name
    for patches in (store.train, store.validation):
        assert isinstance(patches.images, np.memmap) and patches.images.dtype == dtype
    np.testing.assert_array_equal(store.train.images[0][:20, :20], read_tif(scenes[0].image))
    # Noise about two levels: all of it lies inside of the limits.
    pixels = read_tif(scenes[0].image).reshape(-1, 3).astype(np.float64)
    low, high = np.array(store.manifest["band_limits"]).T
    assert (low < pixels.min(0)).all() and (high > pixels.max(0)).all()
    assert store.manifest["band_mean"] == pytest.approx(pixels.mean(0).tolist(), rel=1e-4)
    assert store.manifest["band_std"] == pytest.approx(pixels.std(0).tolist(), rel=1e-4)


def test_a_fill_value_that_is_not_declared_leaves_nothing(tmp_path, two):
    for number, one in enumerate(two):
        image, mask = squares(20, 24, seed=number)
        image = image.astype(np.float32)
        image[:3] = -9999
        write_scene(one.image.parents[1], one.name, image, mask, ground(number))
    assert "are -9999, a fill value" in refusal(RasterError, tmp_path, two)
    for one in two:
        with rasterio.open(one.image, "r+") as file:
            file.nodata = -9999
    store = build(tmp_path, two)
    assert (store.train.masks[0][:3] == 255).all() and store.train.images.min() >= 0


def five_bands(tmp_path: Path) -> list:
    """Two scenes whose bands are 1 to 5 times a picture's first, with zeros in the fourth."""
    for number, name in enumerate("ab"):
        image, mask = squares(20, 20, seed=number)
        image = image[..., :1] // 6 * np.arange(1, 6, dtype=np.uint8)
        image[2:5, 2:5, 3] = 0
        write_scene(tmp_path, name, image, mask * 255, ground(number), ALPHA="NO")
    return [scene(tmp_path, "a", "train"), scene(tmp_path, "b", "validation")]


@pytest.mark.parametrize("numbers", [(5,), (3, 1), (4, 4, 2, 1, 3, 5)])
def test_named_bands_are_cut_in_the_order_named(tmp_path, numbers):
    scenes = five_bands(tmp_path)
    cutting = PatchSettings(16, 16, 16, bands=len(numbers), band_numbers=numbers)
    store = build(tmp_path, scenes, cutting)
    image = read_tif(scenes[0].image)[..., [number - 1 for number in numbers]]
    np.testing.assert_array_equal(store.train.images[0], image[:16, :16])
    assert store.manifest["bands"] == len(numbers) == len(store.manifest["band_mean"])
    assert store.settings == cutting
    found, _, _ = load_scene(scenes[0], len(numbers), numbers)
    np.testing.assert_array_equal(found, image)


def test_a_named_band_that_is_tagged_alpha_is_imagery(tmp_path):
    """Near infrared, whose zeros are water and no void."""
    scenes = five_bands(tmp_path)
    for one in scenes:
        with rasterio.open(one.image, "r+") as file:
            file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha] + [
                rasterio.enums.ColorInterp.undefined
            ]
    named = PatchSettings(16, 16, 16, bands=4, band_numbers=(1, 2, 3, 4))
    store = build(tmp_path, scenes, named)
    assert (store.train.images[0][2:5, 2:5, 3] == 0).all()
    assert (store.train.masks[0] != 255).all()
    # By colour interpretation, it is where there is imagery.
    chosen = build_store(tmp_path / "other", scenes, PatchSettings(16, 16, 16))
    assert (chosen.train.masks[0][2:5, 2:5] == 255).all()


def test_bands_that_are_not_there_are_refused_before_any_hashing(tmp_path, two, monkeypatch):
    monkeypatch.setattr(scene_checks, "hash_file", lambda path: pytest.fail(f"hashed {path}"))
    with pytest.raises(RasterError, match=r"bands \(1, 2, 4\) named, the file has 1 to 3"):
        build(tmp_path, two, PatchSettings(16, 16, 16, band_numbers=(1, 2, 4)))
    with pytest.raises(RasterError, match="has 3 bands, the model takes 4"):
        build(tmp_path, two, PatchSettings(16, 16, 16, bands=4))


def test_scenes_of_one_name_are_refused_and_both_named(tmp_path, two):
    write_scene(tmp_path / "other", "a", *squares(20, 24, seed=7), ground(7))
    other = scene(tmp_path / "other", "a", "train")
    message = refusal(DatasetError, tmp_path, [*two, other])
    assert message.startswith("two scenes are named a: ")
    assert str(two[0].image) in message and str(other.image) in message


def test_the_stated_resolution_is_used_for_rasters_without_one(tmp_path):
    for number, name in enumerate("ab"):
        image, mask = squares(20, 20, seed=number)
        write_scene(tmp_path, name, image, mask, NOWHERE, crs=None)
    scenes = [scene(tmp_path, "a", "train", gsd=0.5), scene(tmp_path, "b", "validation")]
    manifest = build(tmp_path, scenes).manifest
    assert [s["gsd"] for s in manifest["scenes"]] == [0.5, None]
    assert [s["bounds"] for s in manifest["scenes"]] == [None, None]
    assert manifest["gsd"] == 0.5


def test_others_may_enter_the_store(built):
    """As far as the user's umask lets them; a temporary folder is its owner's alone."""
    store, _ = built
    assert store.folder.stat().st_mode & 0o777 == (store.folder / "train").stat().st_mode & 0o777


# Leaks


def leaks(manifest: dict) -> list[tuple[str, str]]:
    """Pairs of a training and a validation scene of one image file, or that share ground."""
    sides = {
        side: [s for s in manifest["scenes"] if s["split"] == side]
        for side in ("train", "validation")
    }
    found = []
    for one in sides["train"]:
        for other in sides["validation"]:
            shared = one["image"]["sha256"] == other["image"]["sha256"]
            if one["corners"] and other["corners"]:
                here, there = Polygon(one["corners"]), Polygon(other["corners"])
                # Neighbours may touch: corners are known to a metre or so.
                shared |= here.intersection(there).area > 1e-3 * min(here.area, there.area)
            if shared:
                found.append((one["name"], other["name"]))
    return found


def test_no_image_and_no_ground_is_on_both_sides(built):
    store, _ = built
    assert {s["split"] for s in store.manifest["scenes"]} == {"train", "validation"}
    assert all(s["bounds"] and s["corners"] for s in store.manifest["scenes"])
    assert leaks(store.manifest) == []
    # The proof finds a leak where one is made.
    moved = json.loads(json.dumps(store.manifest))
    moved["scenes"][1]["corners"] = moved["scenes"][0]["corners"]
    assert leaks(moved) == [("ashby2", "ashby1")]


def test_one_image_under_two_names_is_refused(tmp_path, two):
    shutil.copy(two[0].image, two[1].image)
    message = refusal(DatasetError, tmp_path, two)
    assert message.startswith("a (train) and b (validation) are the same image")


@pytest.mark.parametrize(("east", "south"), [(0, 0), (5, 0), (-5, 6), (17.9, 13.9)])
def test_shared_ground_is_refused(tmp_path, two, east, south):
    image, mask = squares(20, 24, seed=9)
    shift = ground(0) @ Affine.translation(east, south)
    write_scene(two[1].image.parents[1], "b", image, mask, shift)
    message = refusal(DatasetError, tmp_path, two)
    assert message.startswith("a (train) and b (validation) show the same ground")


@pytest.mark.parametrize(("east", "south"), [(24, 0), (0, 20), (-24, -20)])
def test_neighbours_that_touch_are_no_leak(tmp_path, two, east, south):
    image, mask = squares(20, 24, seed=9)
    shift = ground(0) @ Affine.translation(east, south)
    write_scene(two[1].image.parents[1], "b", image, mask, shift)
    assert leaks(build(tmp_path, two).manifest) == []


def test_ground_is_compared_in_one_reference_whatever_the_files_have(tmp_path, two):
    image, mask = squares(20, 24, seed=9)
    # About the centre of scene a, in degrees.
    degrees = Affine(2e-6, 0, 15.00003, 0, -2e-6, 45.15347)
    info = raster_info(two[0].image)
    west, south, east, north = geographic_bounds(info.crs, info.transform, info.height, info.width)
    assert west < 15.00005 < east and south < 45.15345 < north
    write_scene(two[1].image.parents[1], "b", image, mask, degrees, crs="EPSG:4326")
    assert "show the same ground" in refusal(DatasetError, tmp_path, two)


def test_a_crs_without_an_affine_places_nothing_on_the_ground(tmp_path, two):
    """Two such scenes would both lie on the CRS's origin."""
    for number, one in enumerate(two):
        image, mask = squares(20, 24, seed=number)
        write_scene(one.image.parents[1], one.name, image, mask, NOWHERE)
        assert raster_info(one.image).crs is not None
    manifest = build(tmp_path, two).manifest
    assert [s["bounds"] for s in manifest["scenes"]] == [None, None]
    assert [s["corners"] for s in manifest["scenes"]] == [None, None]


def runs_of(image: np.ndarray, length: int) -> np.ndarray:
    """A number for each run of so many pixels along a row, equal runs having equal numbers."""
    shifts = np.arange(image.shape[2], dtype=np.uint64) * np.uint64(8)
    pixels = (image.astype(np.uint64) << shifts).sum(axis=2, dtype=np.uint64)
    width = pixels.shape[1] - length + 1
    numbers = np.zeros((len(pixels), width), np.uint64)
    for offset in range(length):
        # Multiplication modulo 2^64; the constant is that of Knuth's MMIX generator.
        numbers = numbers * np.uint64(6364136223846793005) + pixels[:, offset : offset + width]
    return numbers


def test_runs_are_found_again_wherever_they_stand():
    image, _ = squares(6, 40)
    there, here = runs_of(image, 24), runs_of(image[2:, 5:], 24)
    np.testing.assert_array_equal(here, there[2:, 5:])
    assert not np.isin(runs_of(squares(6, 40, seed=5)[0], 24), there).any()


def test_no_pixel_and_no_ground_of_the_real_imagery_is_on_both_sides(real_data, tmp_path):
    """The stated split: by file, by ground, and by what the pixels show."""
    recipe = open_buildings()
    # Patches that do not overlap hold the same pixels.
    patches = dataclasses.replace(recipe.patches, stride=recipe.patches.patch_size)
    store = build_store(tmp_path / "store", recipe.scenes(real_data, None), patches)
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    places = ("barnarp", "zanzibar", "nepal", "philippines", "nairobi")
    for described in manifest["scenes"]:
        first = described["name"] in {f"{place}1" for place in places}
        held_back = first or described["name"].startswith("chicago1_")
        assert (described["split"] == "validation") == held_back
    assert len(manifest["scenes"]) == 16 + 41
    assert leaks(manifest) == []
    # What has no georeferencing is compared by its pixels: no 24 of them in a row recur, flat
    # areas (water, saturation) aside.
    held_back, textured = [], []
    for image in store.validation.images:
        some_rows = np.asarray(image)[::16]
        brightness = np.lib.stride_tricks.sliding_window_view(some_rows[..., 1], 24, axis=1)
        held_back.append(runs_of(some_rows, 24).ravel())
        textured.append((brightness.std(axis=2) > 4).ravel())
    wanted = np.unique(np.concatenate(held_back)[np.concatenate(textured)])
    assert len(wanted) > 100_000
    ends = np.zeros(2**24, bool)
    ends[wanted % len(ends)] = True
    for image in store.train.images:
        numbers = runs_of(np.asarray(image), 24).ravel()
        # A look-up in a table leaves few to be searched for.
        numbers = numbers[ends[numbers % len(ends)]]
        places = np.searchsorted(wanted, numbers).clip(max=len(wanted) - 1)
        assert not (wanted[places] == numbers).any()


# What is refused, and what is left behind


def test_a_split_without_scenes_is_refused(tmp_path, two):
    both = [dataclasses.replace(one, split="train") for one in two]
    assert "no validation scene among 2" in refusal(DatasetError, tmp_path, both)
    both = [dataclasses.replace(one, split="validation") for one in two]
    assert "no train scene among 2" in refusal(DatasetError, tmp_path, both)


def test_scenes_of_different_dtypes_are_refused_and_named(tmp_path, two):
    image, mask = squares(20, 24, seed=9)
    write_scene(two[1].image.parents[1], "b", image.astype(np.uint16), mask, ground(1))
    message = refusal(DatasetError, tmp_path, two)
    assert "b is uint16, a is uint8" in message or "a is uint8, b is uint16" in message


def test_a_store_is_never_overwritten(tmp_path, two):
    build(tmp_path, two)
    before = (tmp_path / "store" / "manifest.json").read_bytes()
    with pytest.raises(OutputError, match="store exists"):
        build(tmp_path, two)
    assert (tmp_path / "store" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_half_way_leaves_nothing(tmp_path, two, monkeypatch, error):
    read = []

    def fail_at_the_second(one, *bands):
        if read:
            raise error("half-way")
        read.append(one)
        return load_pair(one, *bands)

    monkeypatch.setattr(patches_module, "load_pair", fail_at_the_second)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error):
        build(tmp_path, two)
    assert read and sorted(tmp_path.rglob("*")) == before


def test_a_disk_without_room_is_refused_before_the_work(tmp_path, two, monkeypatch):
    """A memory map on a full disk would end the process by a signal."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("preprocessing.output_files.shutil.disk_usage", lambda path: usage)
    # 32 x 32 for training and 4 x 16 x 16 for validation, of 3 bands and the mask, one byte each.
    message = refusal(OutputError, tmp_path, two)
    assert "cannot be written: needs up to 0.0 MB free" in message
    usage = usage._replace(free=(32 * 32 + 4 * 16 * 16) * 4)
    assert build(tmp_path, two).train.images.nbytes == 32 * 32 * 3


def test_a_folder_without_the_right_to_write_is_refused(tmp_path, two):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        build_store(tmp_path / "file" / "store", two, PATCHES)


def test_inria_scenes_are_cut_by_the_split_that_is_asked_for(tmp_path):
    scenes = inria_scenes(write_inria(tmp_path / "data"), ("borth2",))
    store = build(tmp_path, scenes)
    assert set(store.validation.scenes) == {"borth2"}
    assert set(store.train.scenes) == {"ashby1", "ashby2", "borth1"}


def test_a_raster_s_own_resolution_comes_before_the_stated_one(tmp_path, two):
    stated = [dataclasses.replace(one, gsd=0.5) for one in two]
    manifest = build(tmp_path, stated).manifest
    assert [s["gsd"] for s in manifest["scenes"]] == [pytest.approx(0.3 / 0.9996, rel=1e-5)] * 2


def test_a_polygon_error_names_the_scene_and_the_file_once(tmp_path, two):
    path = tmp_path / "all.geojson"
    path.write_text('{"type": "FeatureCollection", "features": [')
    odd = dataclasses.replace(two[0], label=path, label_kind="polygons")
    message = refusal(PolygonError, tmp_path, [odd, two[1]])
    assert message.count(str(odd.image)) == 1 and message.count(str(path)) == 1


def geojson(path: Path, *features: dict) -> Path:
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    content = {"type": "FeatureCollection", "crs": crs, "features": features}
    path.write_text(json.dumps(content))
    return path


def test_one_label_of_all_scenes_is_hashed_once(tmp_path, two, monkeypatch):
    hashed = []
    monkeypatch.setattr(scene_checks, "hash_file", lambda p: hashed.append(p.name) or str(p))
    squares_of = [square_of(one.image, slice(2, 7), slice(3, 9)) for one in two]
    path = geojson(tmp_path / "town.geojson", *squares_of)
    scenes = [dataclasses.replace(one, label=path, label_kind="polygons") for one in two]
    manifest = build(tmp_path, scenes).manifest
    assert sorted(hashed) == ["a.tif", "b.tif", "town.geojson"]
    assert manifest["scenes"][0]["label"] == manifest["scenes"][1]["label"]
    assert [s["polygons"]["outside"] for s in manifest["scenes"]] == [1, 1]


def test_the_last_vector_label_is_read_before_any_hashing(tmp_path, two, monkeypatch):
    monkeypatch.setattr(scene_checks, "hash_file", lambda path: pytest.fail(f"hashed {path}"))
    good = geojson(tmp_path / "a.geojson", square_of(two[0].image, slice(2, 7), slice(3, 9)))
    bad = tmp_path / "b.geojson"
    bad.write_text('{"type": "FeatureCollection", "features": [')
    scenes = [
        dataclasses.replace(one, label=path, label_kind="polygons")
        for one, path in zip(two, (good, bad), strict=True)
    ]
    assert "b.geojson: not a vector file" in refusal(PolygonError, tmp_path, scenes)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint32])
def test_dtypes_that_cannot_be_trained_on_are_refused_before_any_hashing(
    tmp_path, two, monkeypatch, dtype
):
    monkeypatch.setattr(scene_checks, "hash_file", lambda path: pytest.fail(f"hashed {path}"))
    for number, one in enumerate(two):
        image, mask = squares(20, 24, seed=number)
        write_scene(one.image.parents[1], one.name, image.astype(dtype), mask, ground(number))
    message = refusal(DatasetError, tmp_path, two)
    assert message.startswith(
        f"{two[0].image}: pixels are {np.dtype(dtype)}, uint8, uint16, int16 and float32 can be"
    )
    assert f"`gdal_translate -ot Float32 {two[0].image} OUT.tif`" in message


def test_a_folder_that_cannot_be_written_is_found_before_any_hashing(tmp_path, two, monkeypatch):
    monkeypatch.setattr(scene_checks, "hash_file", lambda path: pytest.fail(f"hashed {path}"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        build_store(tmp_path / "file" / "store", two, PATCHES)


def test_a_source_that_cannot_be_read_is_named(tmp_path, two):
    gone = dataclasses.replace(two[0], label=tmp_path / "gone.tif")
    message = refusal(DatasetError, tmp_path, [gone, two[1]])
    assert message.startswith(f"{tmp_path / 'gone.tif'}: cannot be read: No such file")


def test_hashing_shows_a_bar_on_a_terminal(tmp_path, two, monkeypatch):
    bars = []

    def bar(scenes, **options):
        bars.append((options["desc"], len(scenes), options["disable"]))
        return scenes

    monkeypatch.setattr(scene_checks, "tqdm", bar)
    build(tmp_path, two)
    assert bars == [("hashing scenes", 2, None)]


@pytest.mark.parametrize("nodata", [np.nan, -3.4e38])
def test_void_of_a_float_raster_holds_nothing_that_spreads(tmp_path, nodata):
    """NaN in one pixel would run through a network's sums over the whole window."""
    image, mask = squares(10, 12)
    image = image.astype(np.float32)
    image[2, 3] = nodata
    write_scene(tmp_path, "a", image, mask.astype(np.float32), ground(0), nodata=nodata)
    found, found_mask, _ = load_scene(scene(tmp_path, "a", "train"), 3)
    assert found[2, 3].tolist() == [0, 0, 0] and np.abs(found).max() < 256
    assert np.argwhere(found_mask == 255).tolist() == [[2, 3]]


def test_void_imagery_is_stored_as_the_mean_of_its_patch_and_void_labels_as_they_are(tmp_path):
    """A black margin would shift what a network normalises over; see tiling.fill_void."""
    scenes = []
    for number, split in enumerate(("train", "validation")):
        image, mask = squares(8, 8, seed=number)
        image = np.maximum(image, 1)
        image[:3], label = 0, mask * 255
        label[:, 6:] = 77
        write_scene(tmp_path, split, image, label, ground(number), nodata=0)
        with rasterio.open(tmp_path / "gt" / f"{split}.tif", "r+") as file:
            file.nodata = 77
        scenes.append(scene(tmp_path, split, split))
    settings = PatchSettings(patch_size=8, stride=8, validation_size=8)
    store = build_store(tmp_path / "store", scenes, settings)
    for one, patches in zip(scenes, (store.train, store.validation), strict=True):
        image = read_tif(one.image)
        np.testing.assert_array_equal(patches.images[0, 3:], image[3:])
        mean = np.rint(image[3:].reshape(-1, 3).mean(axis=0))
        np.testing.assert_array_equal(patches.images[0, :3], np.tile(mean, (3, 8, 1)))
        void = np.zeros((8, 8), bool)
        void[:3], void[:, 6:] = True, True
        np.testing.assert_array_equal(patches.masks[0] == 255, void)
