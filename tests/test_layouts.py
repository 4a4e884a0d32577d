"""Scenes of any layout: folders, data sets of a known layout, several sources at once."""

from pathlib import Path

import pytest

from preprocessing.errors import DatasetError
from preprocessing.layouts import choose_features, folder_pairs, layout_scenes
from preprocessing.scenes import Scene


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
