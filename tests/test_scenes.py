"""Scenes: listing of images, pairs by stem."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from preprocessing.errors import DatasetError
from preprocessing.scenes import Scene, images_in, pair_by_stem, short_names


def paths(*names: str) -> list[Path]:
    return [Path("folder") / name for name in names]


def test_images_are_known_by_suffix_in_any_case(tmp_path):
    rasters = ["a.tif", "b.TIF", "c.tiff", "d.png", "e.jpg", "f.JPEG", "g.jp2", "h.vrt"]
    others = ["a.tif.aux.xml", "a.tif.ovr", "a.tif.msk", "._a.tif", ".b.tif", "notes.txt", "tif"]
    for name in rasters + others:
        (tmp_path / name).touch()
    (tmp_path / "folder.tif").mkdir()
    assert [path.name for path in images_in(tmp_path)] == rasters
    assert images_in(str(tmp_path)) == images_in(tmp_path)


def test_an_empty_folder_has_no_images_and_a_missing_one_is_an_error(tmp_path):
    assert images_in(tmp_path) == []
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        images_in(tmp_path / "nowhere")


def test_pairs_go_by_stem_whatever_the_order_and_the_suffix():
    images = paths("austin2.tif", "austin10.tif", "austin1.tif")
    labels = paths("austin10.geojson", "austin1.png", "austin2.tif")
    named = [(image.name, label.name) for image, label in pair_by_stem(images, labels)]
    assert named == [
        ("austin1.tif", "austin1.png"),
        ("austin10.tif", "austin10.geojson"),
        ("austin2.tif", "austin2.tif"),
    ]


def test_nothing_pairs_with_nothing():
    assert pair_by_stem([], []) == []


def test_only_the_last_suffix_is_no_part_of_the_stem():
    [(image, label)] = pair_by_stem(paths("a.2019.tif"), paths("a.2019.gpkg"))
    assert (image.name, label.name) == ("a.2019.tif", "a.2019.gpkg")


def test_all_that_does_not_pair_is_named_in_one_error():
    images = paths("lonely.tif", "twin.tif", "twin.png", "good.tif")
    labels = paths("good.tif", "twin.tif", "orphan.tif", "stray.gpkg", "stray.geojson")
    with pytest.raises(DatasetError) as caught:
        pair_by_stem(images, labels)
    message = str(caught.value)
    assert "\n" not in message
    assert "1 image(s) without label: lonely" in message
    assert "2 label(s) without image: orphan, stray" in message
    assert "2 image(s) that share a name: twin.png, twin.tif" in message
    assert "2 label(s) that share a name: stray.geojson, stray.gpkg" in message
    assert "good" not in message


def test_a_long_list_is_cut_and_counted():
    with pytest.raises(DatasetError) as caught:
        pair_by_stem(paths(*(f"a{n}.tif" for n in range(9))), [])
    assert "9 image(s) without label: a0, a1, a2, a3, a4, ..." in str(caught.value)
    assert "a5" not in str(caught.value)


def test_a_scene_does_not_change():
    scene = Scene("a1", "a", 1, "train", Path("a1.tif"), Path("a1.gpkg"), "polygons")
    assert scene.gsd is None
    with pytest.raises(FrozenInstanceError):
        scene.split = "validation"


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / name for name in ("x/masks", "y/masks", "z")]
    assert short_names(paths) == ["x/masks", "y/masks", "z"]
    assert short_names([paths[0], paths[0]]) == ["masks", "masks (2)"]
