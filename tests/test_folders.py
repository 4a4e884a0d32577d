"""Two folders, paired by name: any format, endings, one folder for both, one file for all."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocessing.errors import DatasetError
from preprocessing.layouts import folder_scenes, labelled_scenes
from preprocessing.patches import load_scene
from tests.helpers import write_image
from tests.training_fixtures import ground, squares


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
