"""Scenes of any layout: folders, data sets, several sources at once; and what is held back."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.errors import DatasetError
from preprocessing.layouts import (
    choose_features,
    folder_pairs,
    hold_back,
    labelled_scenes,
    layout_scenes,
    patch_note,
)
from preprocessing.scenes import Scene, folder_scenes
from tests.helpers import write_image
from tests.training_fixtures import ground, load_scene, squares


def lay_out(root: Path, **folders: list[str]) -> Path:
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / name).touch()
    return root


def held_back(scenes: list[Scene]) -> list[str]:
    return [scene.name for scene in scenes if scene.split == "validation"]


def pairs(*roots: Path, validation=None, gsd=None) -> tuple[list[Scene], int]:
    images, labels = ([root / kind for root in roots] for kind in ("images", "masks"))
    return folder_pairs(images, labels, validation, gsd)


# Folders


def test_one_pair_of_folders_is_no_source(tmp_path):
    root = lay_out(tmp_path, images=["a.tif", "b.tif"], masks=["a.png", "b.png"])
    scenes, unlabelled = pairs(root, gsd=0.5)
    assert {(scene.source, scene.gsd) for scene in scenes} == {(None, 0.5)}
    assert (held_back(scenes), unlabelled) == (["a"], 0)


def test_each_of_several_pairs_is_a_source_named_by_what_tells_them_apart(tmp_path):
    first = lay_out(tmp_path / "north", images=["a1.tif", "a2.tif"], masks=["a1.png", "a2.png"])
    second = lay_out(tmp_path / "south", images=["b1.tif"], masks=["b1.geojson"])
    scenes, _ = pairs(first, second, validation=["a2"])
    assert [(s.name, s.source, s.label_kind, s.split) for s in scenes] == [
        ("a1", "north/images", "raster", "train"),
        ("a2", "north/images", "raster", "validation"),
        ("b1", "south/images", "polygons", "train"),
    ]
    third = lay_out(tmp_path / "south", tiles=["c1.tif"], labels=["c1.png"])
    images, labels = [first / "images", third / "tiles"], [first / "masks", third / "labels"]
    scenes, _ = folder_pairs(images, labels, None, None)
    assert {scene.source for scene in scenes} == {"images", "tiles"}


def test_a_folder_named_twice_is_refused(tmp_path):
    root = lay_out(tmp_path, images=["a.tif", "b.tif"], masks=["a.png", "b.png"])
    with pytest.raises(DatasetError, match="images is named twice"):
        pairs(root, root)


def test_chips_without_label_are_counted(tmp_path):
    names = [f"RGB_AOI_2_Vegas_img{n}.tif" for n in range(5)]
    labels = [f"roads_AOI_2_Vegas_img{n}.geojson" for n in (0, 2, 3)]
    scenes, unlabelled = pairs(lay_out(tmp_path, images=names, masks=labels))
    assert (len(scenes), unlabelled) == (3, 2)


def test_images_beside_their_masks_are_not_counted(tmp_path):
    lay_out(tmp_path, both=["1_sat.jpg", "1_mask.png", "2_sat.jpg", "2_mask.png"])
    scenes, unlabelled = folder_pairs([tmp_path / "both"], [tmp_path / "both"], None, None)
    assert (len(scenes), unlabelled) == (2, 0)


# Layouts


def inria(root: Path) -> Path:
    names = [f"{city}{n}.tif" for city in ("austin", "vienna") for n in (1, 5, 6, 10)]
    return lay_out(root, **{"train/images": names, "train/gt": names})


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        (None, ["austin1", "austin5", "vienna1", "vienna5"]),
        ([6, "austin10"], ["austin10", "austin6", "vienna6"]),
        (0.25, ["austin1", "vienna1"]),
    ],
)
def test_inria_has_its_own_split_unless_another_is_asked_for(tmp_path, validation, expected):
    scenes, unlabelled = layout_scenes("inria", inria(tmp_path), "buildings", validation)
    assert sorted(held_back(scenes)) == expected
    assert ({s.gsd for s in scenes}, unlabelled, len(scenes)) == ({0.3}, 0, 8)


def massachusetts(root: Path) -> Path:
    for split in ("train", "valid", "test"):
        for kind in ("sat", "map"):
            lay_out(root / split, **{kind: [f"{split}1_15.tif"]})
    return root


@pytest.mark.parametrize(("validation", "expected"), [(None, "valid1_15"), (["test"], "test1_15")])
def test_massachusetts_holds_back_valid_or_test(tmp_path, validation, expected):
    scenes, _ = layout_scenes("massachusetts", massachusetts(tmp_path), "roads", validation)
    assert held_back(scenes) == [expected] and all(scene.white_border for scene in scenes)


@pytest.mark.parametrize("validation", [0.2, ["valid", "test"], [1], ["train"]])
def test_massachusetts_holds_back_nothing_else(tmp_path, validation):
    with pytest.raises(DatasetError, match="holds back valid or test; got --validation"):
        layout_scenes("massachusetts", massachusetts(tmp_path), "roads", validation)


def test_spacenet_chips_are_split_and_counted(tmp_path):
    images = [f"RGB-PanSharpen_AOI_2_Vegas_img{n}.tif" for n in range(1, 8)]
    labels = [f"buildings_AOI_2_Vegas_img{n}.geojson" for n in range(1, 7)]
    root = lay_out(tmp_path, **{"a/RGB-PanSharpen": images, "a/geojson/buildings": labels})
    scenes, unlabelled = layout_scenes("spacenet", root, "buildings", None)
    assert [name[-5:] for name in held_back(scenes)] == ["_img1", "_img6"]
    assert unlabelled == 1
    assert len(held_back(layout_scenes("spacenet", root, "buildings", [2, 3])[0])) == 2


# Features


def scene(kind: str, buffer_m: float | None = None) -> Scene:
    files = {"image": Path("a.tif"), "label": Path("a.label")}
    return Scene("a", "a", None, "train", label_kind=kind, buffer_m=buffer_m, **files)


def test_what_is_not_asked_for_stays():
    listed = [scene("polygons", 2.0), scene("raster")]
    assert choose_features(listed, None, None) == listed


def test_vector_labels_are_filtered_and_widened():
    listed = [scene("polygons", 2.0), scene("polygons")]
    found = choose_features(listed, "a = 1", None)
    assert [(s.where, s.buffer_m) for s in found] == [("a = 1", 2.0), ("a = 1", None)]
    found = choose_features(listed, None, 5.0)
    assert [(s.where, s.buffer_m) for s in found] == [(None, 5.0), (None, 5.0)]


@pytest.mark.parametrize("asked", [("a = 1", None), (None, 3.0)])
def test_rasters_have_no_features(asked):
    with pytest.raises(DatasetError, match="a.label is a raster; --where and --buffer-m are for"):
        choose_features([scene("polygons"), scene("raster")], *asked)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def named(scenes) -> list[tuple[str, str, str]]:
    return [(scene.name, scene.image.name, scene.label.name) for scene in scenes]


# Pairs


def test_formats_may_differ_within_a_folder_and_between_them(tmp_path):
    images = touch(tmp_path / "a", "north.jpg", "south.TIF", "town2.png", "notes.txt")
    labels = touch(tmp_path / "b", "town2.tif", "south.png", "north.png", "north.png.aux.xml")
    scenes = labelled_scenes(images, str(labels), "mine", gsd=0.5)
    assert named(scenes) == [
        ("north", "north.jpg", "north.png"),
        ("south", "south.TIF", "south.png"),
        ("town2", "town2.png", "town2.tif"),
    ]
    assert [(s.place, s.index) for s in scenes] == [("north", None), ("south", None), ("town", 2)]
    assert {(s.split, s.label_kind, s.gsd, s.source) for s in scenes} == {
        ("train", "raster", 0.5, "mine")
    }
    assert not any(scene.white_border for scene in scenes)


@pytest.mark.parametrize(
    ("images", "labels", "names"),
    [
        (["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"], ["a", "b"]),
        (["a.jpg", "b.jpg"], ["a_gt.tif", "b_gt.png"], ["a", "b"]),
        (["1_sat.jpg", "2_sat.jpg"], ["1_mask.png", "2_mask.png"], ["1", "2"]),
        (["1_sat.jpg", "2_sat.jpg"], ["1.png", "2.png"], ["1", "2"]),
        (["1_image.jpg"], ["1_label.png"], ["1"]),
        # Only what all have in common is an ending.
        (["a_mask.jpg", "b.jpg"], ["a_mask.png", "b.png"], ["a_mask", "b"]),
    ],
)
def test_an_ending_that_all_files_have_is_no_part_of_the_name(tmp_path, images, labels, names):
    scenes = labelled_scenes(touch(tmp_path / "i", *images), touch(tmp_path / "l", *labels))
    assert [scene.name for scene in scenes] == names
    assert [scene.image.name for scene in scenes] == images
    assert [scene.label.name for scene in scenes] == labels


def test_images_and_masks_may_lie_in_one_folder(tmp_path):
    folder = touch(tmp_path, "1_sat.jpg", "1_mask.png", "2_sat.jpg", "2_mask.png")
    assert named(labelled_scenes(folder, folder)) == [
        ("1", "1_sat.jpg", "1_mask.png"),
        ("2", "2_sat.jpg", "2_mask.png"),
    ]


def test_images_and_vector_files_may_lie_in_one_folder(tmp_path):
    folder = touch(tmp_path, "a.tif", "a.geojson", "b.tif", "b.gpkg")
    scenes = labelled_scenes(folder, folder)
    assert named(scenes) == [("a", "a.tif", "a.geojson"), ("b", "b.tif", "b.gpkg")]
    assert {scene.label_kind for scene in scenes} == {"polygons"}


def test_label_rasters_come_before_vector_files_unless_these_are_asked_for(tmp_path):
    images = touch(tmp_path / "i", "a.tif")
    labels = touch(tmp_path / "l", "a.png", "a.geojson")
    assert named(labelled_scenes(images, labels)) == [("a", "a.tif", "a.png")]
    assert named(labelled_scenes(images, labels, kind="polygons")) == [("a", "a.tif", "a.geojson")]


@pytest.mark.parametrize("given", ["town.gpkg", "town"])
def test_one_vector_file_serves_all_images(tmp_path, given):
    images = touch(tmp_path / "i", "a.tif", "b.jpg")
    touch(tmp_path, "town.gpkg")
    scenes = labelled_scenes(images, tmp_path / given)
    assert named(scenes) == [("a", "a.tif", "town.gpkg"), ("b", "b.jpg", "town.gpkg")]
    assert {scene.label_kind for scene in scenes} == {"polygons"}


def test_chips_pair_by_number_only_where_no_name_fits(tmp_path):
    images = touch(tmp_path / "i", "RGB_AOI_2_Vegas_img1.tif", "RGB_AOI_2_Vegas_img3.tif")
    labels = touch(tmp_path / "l", "roads_AOI_2_Vegas_img1.geojson")
    assert named(labelled_scenes(images, labels)) == [
        ("RGB_AOI_2_Vegas_img1", "RGB_AOI_2_Vegas_img1.tif", "roads_AOI_2_Vegas_img1.geojson")
    ]
    touch(labels, "RGB_AOI_2_Vegas_img3.geojson")
    with pytest.raises(DatasetError, match="without label: RGB_AOI_2_Vegas_img1"):
        labelled_scenes(images, labels)


# What cannot work


def test_what_does_not_pair_is_named_without_its_ending(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "b.jpg")
    labels = touch(tmp_path / "l", "a_mask.png", "c_mask.png")
    with pytest.raises(DatasetError) as caught:
        labelled_scenes(images, labels)
    assert "without label: b" in str(caught.value) and "without image: c" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [("a.png", "a.tif"), ("a_gt.png", "a_gt.tif")])
def test_two_labels_of_one_image_are_refused(tmp_path, labels):
    images = touch(tmp_path / "i", "a.jpg")
    with pytest.raises(DatasetError, match="2 label.s. that share a name: a.png, a.tif"):
        labelled_scenes(images, touch(tmp_path / "l", *labels))


def test_empty_and_missing_folders_are_said(tmp_path):
    images, labels = touch(tmp_path / "i", "a.jpg"), touch(tmp_path / "l", "a.csv")
    with pytest.raises(DatasetError, match="l holds neither label rasters nor vector files"):
        labelled_scenes(images, labels)
    with pytest.raises(DatasetError, match="l holds no images"):
        labelled_scenes(labels, images)
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        labelled_scenes(tmp_path / "nowhere", labels)
    with pytest.raises(DatasetError, match="nowhere: no such folder or file"):
        labelled_scenes(images, tmp_path / "nowhere")
    touch(tmp_path, "mask.png")
    with pytest.raises(DatasetError, match="mask.png is one raster; give the folder"):
        labelled_scenes(images, tmp_path / "mask.png")


# One side of a split


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_folder_stands_on_one_side(tmp_path, split):
    images, labels = touch(tmp_path / "i", "b1.jpg", "a.tif"), touch(tmp_path / "l", "a.png")
    with pytest.raises(DatasetError, match="without label: b1"):
        folder_scenes(images, labels, split, "crops")
    touch(labels, "b1.png")
    scenes = folder_scenes(images, labels, split, "crops", 1.0, white_border=True)
    assert named(scenes) == [("a", "a.tif", "a.png"), ("b1", "b1.jpg", "b1.png")]
    facts = {(s.split, s.place, s.index, s.source, s.gsd, s.white_border) for s in scenes}
    assert facts == {(split, "crops", None, "crops", 1.0, True)}


def test_two_empty_folders_are_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match="i holds no images"):
        folder_scenes(touch(tmp_path / "i"), touch(tmp_path / "l"), "train", "crops")


# Pixels


def test_png_masks_of_jpeg_images_are_read(tmp_path):
    image, mask = squares(24, 30)
    for kind in ("i", "l"):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / "i" / "a.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    # A grey picture of three bands, as painting programs save masks.
    cv2.imwrite(str(tmp_path / "l" / "a_mask.png"), np.repeat(mask[..., None] * 255, 3, axis=2))
    (scene,) = labelled_scenes(tmp_path / "i", tmp_path / "l")
    found, found_mask, counts = load_scene(scene, 3)
    np.testing.assert_array_equal(found_mask, mask)
    # Chroma is halved in a JPEG; luma is not.
    assert np.abs(found.mean(axis=2) - image.mean(axis=2)).mean() < 8 and counts is None


def test_the_real_crops_pair(real_data):
    folder = real_data / "massachusetts_roads_crops"
    scenes = labelled_scenes(folder / "images", folder / "labels", gsd=1.0)
    assert len(scenes) == 230
    assert {(s.image.suffix, s.label.suffix) for s in scenes} == {(".jpg", ".png")}
    _, mask, _ = load_scene(scenes[0], 3)
    assert mask.shape == (400, 400) and 0 < (mask == 1).mean() < 0.5


def test_images_that_say_their_resolution_are_believed(tmp_path):
    image, mask = squares(24, 30)
    for kind, pixels in (("i", image), ("l", mask[..., None])):
        (tmp_path / kind).mkdir()
        write_image(tmp_path / kind / "a.tif", pixels, transform=ground(0))
    (scene,) = labelled_scenes(tmp_path / "i", tmp_path / "l", gsd=7)
    assert scene.gsd == 7
    np.testing.assert_array_equal(load_scene(scene, 3)[1], mask)


def named_scenes(*names: str, source: str | None = None) -> list[Scene]:
    """Scenes of places of one letter: ``a1_7`` is patch 7 of tile a1 of place a."""
    return [
        Scene(
            name=name,
            place=name[0],
            index=int(name[1]) if name[1:2].isdigit() else None,
            split="train",
            image=Path(source or "folder") / f"{name}.tif",
            label=Path("labels") / f"{name}.tif",
            label_kind="raster",
            source=source,
        )
        for name in names
    ]


def names_held_back(listed: list[Scene], validation=None) -> list[str]:
    found = hold_back(listed, validation, "folder")
    assert [scene.name for scene in found] == [scene.name for scene in listed]
    return [scene.name for scene in found if scene.split == "validation"]


def test_every_fifth_tile_by_default_whatever_the_order():
    names = [f"a{number}" for number in range(1, 8)]
    assert names_held_back(named_scenes(*names)) == ["a1", "a6"]
    assert sorted(names_held_back(named_scenes(*reversed(names)))) == ["a1", "a6"]


@pytest.mark.parametrize("validation", [None, 0.34, ("a1",), (1,), ("a1_0",)])
def test_patches_of_a_tile_stay_together(validation):
    listed = named_scenes("a1_0", "a1_1", "a2_0", "a2_1", "a3")
    assert names_held_back(listed, validation) == ["a1_0", "a1_1"]


GRID = [f"{row}_{column}" for row in (0, 256, 512) for column in (0, 256)]


@pytest.mark.parametrize("validation", [None, 0.34, ("austin1",), ("austin1_256_0",)])
def test_patches_named_by_row_and_column_stay_with_their_tile(validation):
    listed = named_scenes(
        *(f"{tile}_{place}" for tile in ("austin1", "b_2", "c") for place in GRID)
    )
    assert names_held_back(listed, validation) == [f"austin1_{place}" for place in GRID]
    assert patch_note(listed) is None


@pytest.mark.parametrize("validation", [None, (10078660,)])
def test_tiles_of_row_and_column_may_be_numbers(validation):
    listed = named_scenes(*(f"{tile}_15_{n}" for tile in (10078660, 20078660) for n in range(3)))
    assert names_held_back(listed, validation) == [f"10078660_15_{n}" for n in range(3)]


def test_patches_of_the_only_tile_are_split_and_it_is_said():
    listed = named_scenes(*(f"ortho_{place}" for place in GRID))
    assert names_held_back(listed) == ["ortho_0_0", "ortho_512_256"]
    assert names_held_back(listed, ("ortho_256_0",)) == ["ortho_256_0"]
    note = patch_note(listed)
    assert note.startswith("by their names (ortho_0_0, ...) all scenes are patches of ortho: if")
    assert "\n" not in note
    # One of two sources stands on one side as a whole.
    other = named_scenes("ortho_0_0", "ortho_0_256", source="other")
    assert names_held_back(listed + other) == [scene.name for scene in listed]
    assert patch_note(listed + other) is None


@pytest.mark.parametrize(
    "names", [(), ("a1",), ("a1", "a2"), ("a1_0", "a1_1"), ("10078660_15", "10078675_15")]
)
def test_other_names_need_no_word(names):
    assert patch_note(named_scenes(*names)) is None


def test_a_name_that_is_a_number_can_be_named_by_it():
    listed = [replace(scene, index=None) for scene in named_scenes("1", "2", "007", "100034")]
    assert names_held_back(listed, [7, 100034]) == ["007", "100034"]
    assert names_held_back(listed, ["2"]) == ["2"]


def test_names_indices_and_places_may_be_mixed():
    listed = named_scenes("a1", "a2", "b1", "b2", "c1", "c2", "d")
    assert names_held_back(listed, ("a1", "c", 2)) == ["a1", "a2", "b2", "c1", "c2"]
    assert names_held_back(listed, ["d"]) == ["d"]
    assert names_held_back(listed, {2, 9}) == ["a2", "b2", "c2"]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.2, ["a0", "a5"]),
        (0.5, ["a0", "a2", "a4", "a6", "a8"]),
        (0.34, ["a0", "a3", "a6"]),
        (0.01, ["a0"]),
        (0.99, [f"a{n}" for n in range(10) if n != 9]),
    ],
)
def test_a_share_is_taken_at_even_distances(share, expected):
    assert names_held_back(named_scenes(*(f"a{n}" for n in range(10))), share) == expected


@settings(deadline=None)
@given(st.integers(2, 200), st.floats(0.001, 0.999))
def test_a_share_is_met_to_the_nearest_tile(count, share):
    listed = named_scenes(*(f"b{n:03}_0" for n in range(count)))
    found = names_held_back(listed, share)
    assert len(found) == min(max(1, round(share * count)), count - 1)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(DatasetError, match="lies between 0 and 1, such as 0.2"):
        hold_back(named_scenes("a1", "a2"), share, "folder")


def test_sources_are_counted_one_after_the_other():
    listed = named_scenes("z1", "z2", "z3", source="first") + named_scenes(
        "a1", "a2", "a3", source="second"
    )
    assert names_held_back(listed) == ["z1", "a3"]
    assert names_held_back(listed, 0.34) == ["z1", "a1"]


def test_tiles_of_one_name_in_two_sources_are_two_tiles():
    listed = named_scenes("a1_0", "a1_1", source="first") + named_scenes(
        "a1_2", "a2_0", source="second"
    )
    assert names_held_back(listed, ("a1_0",)) == ["a1_0", "a1_1"]
    assert names_held_back(listed, ("a1",)) == ["a1_0", "a1_1", "a1_2"]


def test_unknown_names_are_named_and_unknown_indices_are_not():
    with pytest.raises(DatasetError, match="names no raster of folder: A1, e"):
        hold_back(named_scenes("a1", "a2"), ("A1", "e", 1), "folder")


@pytest.mark.parametrize("validation", [(), (7,), ("a",), (1, 2)])
def test_a_side_without_scenes_is_an_error(validation):
    side = "training" if validation in (("a",), (1, 2)) else "validation"
    with pytest.raises(DatasetError, match=f"no {side} scene among 2 raster"):
        hold_back(named_scenes("a1", "a2"), validation, "folder")


@pytest.mark.parametrize("validation", [None, 0.5])
def test_one_raster_cannot_be_split(validation):
    with pytest.raises(DatasetError, match="no training scene among 1 raster"):
        hold_back(named_scenes("a1"), validation, "folder")


def test_nothing_cannot_be_split():
    with pytest.raises(DatasetError, match="no validation scene among 0 raster"):
        hold_back([], None, "folder")
