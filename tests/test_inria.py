"""The Inria layout: stems, folders, splits."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import inria
from preprocessing.errors import DatasetError
from preprocessing.inria import TileName, inria_scenes, parse_stem


def lay_out(root: Path, names: list[str], inner: str = "") -> Path:
    for part in ("images", "gt"):
        folder = root / inner / part
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.tif").touch()
    return root


def validation_names(root: Path, validation: tuple = (1,)) -> list[str]:
    return [s.name for s in inria_scenes(root, validation) if s.split == "validation"]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("austin1", TileName("austin1", "austin", 1, None)),
        ("austin36", TileName("austin36", "austin", 36, None)),
        ("tyrol-w12", TileName("tyrol-w12", "tyrol-w", 12, None)),
        ("austin1_7", TileName("austin1", "austin", 1, 7)),
        ("austin01_007", TileName("austin01", "austin", 1, 7)),
        ("sector7-12", TileName("sector7-12", "sector7-", 12, None)),
        ("new_york3_0", TileName("new_york3", "new_york", 3, 0)),
        ("Łódź2", TileName("Łódź2", "Łódź", 2, None)),
    ],
)
def test_a_stem_says_place_index_and_patch(stem, expected):
    assert parse_stem(stem) == expected


@pytest.mark.parametrize("stem", ["austin", "12", "austin_7", "austin1_", "austin1_a", "", "7_1"])
def test_a_stem_without_place_or_index_is_named(stem):
    with pytest.raises(DatasetError, match=f"'{stem}' is no tile name"):
        parse_stem(stem)


@given(
    place=st.tuples(st.text("abz09_-", max_size=8), st.sampled_from("az-")).map("".join),
    index=st.integers(0, 10**6),
    patch=st.none() | st.integers(0, 10**6),
)
def test_reading_a_stem_undoes_writing_it(place, index, patch):
    tile = f"{place}{index}"
    stem = tile if patch is None else f"{tile}_{patch}"
    assert parse_stem(stem) == TileName(tile, place, index, patch)


@pytest.mark.parametrize("inner", ["", "train", "AerialImageDataset/train"])
def test_the_data_set_is_found_from_three_folders(tmp_path, inner):
    lay_out(tmp_path, ["austin1", "austin6"], inner)
    for root in (tmp_path, str(tmp_path)):
        assert [s.name for s in inria_scenes(root)] == ["austin1", "austin6"]


def test_a_folder_of_another_layout_says_what_was_looked_for(tmp_path):
    (tmp_path / "train" / "images").mkdir(parents=True)
    with pytest.raises(DatasetError) as caught:
        inria_scenes(tmp_path)
    for looked_for in (tmp_path / "train", tmp_path / "AerialImageDataset" / "train"):
        assert str(looked_for) in str(caught.value)
    assert "images and gt" in str(caught.value)


def test_place_and_index_come_from_the_stem_and_not_from_parent_folders(tmp_path):
    root = lay_out(tmp_path / "vienna3" / "chicago1", ["austin2", "austin7"])
    second, seventh = inria_scenes(root)
    assert (second.place, second.index, second.split) == ("austin", 2, "validation")
    assert (seventh.place, seventh.index, seventh.split) == ("austin", 7, "train")


def test_a_scene_holds_all_that_is_known(tmp_path):
    lay_out(tmp_path, ["kitsap1", "kitsap8_3"])
    scene = inria_scenes(tmp_path)[1]
    assert (scene.name, scene.place, scene.index) == ("kitsap8_3", "kitsap", 8)
    assert scene.image == tmp_path / "images" / "kitsap8_3.tif"
    assert scene.label == tmp_path / "gt" / "kitsap8_3.tif"
    assert (scene.label_kind, scene.gsd) == ("raster", 0.3)
    assert inria_scenes(tmp_path, gsd=None)[1].gsd is None


def test_the_official_split_holds_back_tiles_one_to_five(tmp_path):
    cities = ["austin", "chicago", "kitsap", "tyrol-w", "vienna"]
    lay_out(tmp_path, [f"{city}{n}" for city in cities for n in range(1, 37)])
    scenes = inria_scenes(tmp_path)
    held_back = [s for s in scenes if s.split == "validation"]
    assert (len(scenes), len(held_back)) == (180, 25)
    assert {s.index for s in held_back} == {1, 2, 3, 4, 5}
    assert {s.place for s in held_back} == set(cities)


def test_a_tile_name_counts_for_all_its_patches_and_for_no_other_tile(tmp_path):
    lay_out(tmp_path, ["austin1_0", "austin1_1", "austin10_0", "austin10", "chicago1_0"])
    assert validation_names(tmp_path, ("austin1",)) == ["austin1_0", "austin1_1"]
    assert validation_names(tmp_path, ("austin10",)) == ["austin10", "austin10_0"]


def test_names_and_indices_may_be_mixed(tmp_path):
    lay_out(tmp_path, ["austin1", "austin2", "chicago1", "chicago2", "vienna3"])
    names = validation_names(tmp_path, (2, "vienna3"))
    assert names == ["austin2", "chicago2", "vienna3"]


def test_a_single_patch_cannot_be_held_back(tmp_path):
    lay_out(tmp_path, ["austin1_0", "austin1_1", "chicago2_0"])
    with pytest.raises(DatasetError, match="austin1_0; its tiles are austin1, chicago2"):
        inria_scenes(tmp_path, ("austin1_0",))


def test_a_place_counts_for_all_its_tiles(tmp_path):
    lay_out(tmp_path, ["austin1", "austin2_0", "vienna1", "vienna7"])
    assert validation_names(tmp_path, ("austin",)) == ["austin1", "austin2_0"]
    assert validation_names(tmp_path, ("austin", 7)) == ["austin1", "austin2_0", "vienna7"]


def test_unknown_names_are_named(tmp_path):
    lay_out(tmp_path, ["austin1", "austin2"])
    with pytest.raises(DatasetError, match="no tile of .*: boston1, Austin1; its tiles"):
        inria_scenes(tmp_path, ("boston1", 1, "Austin1"))


@pytest.mark.parametrize(
    ("names", "validation", "side"),
    [
        (["austin6", "austin7"], (1, 2), "validation"),
        (["austin1", "austin2"], (1, 2), "training"),
        (["austin1", "austin2"], (), "validation"),
        ([], (1,), "validation"),
    ],
)
def test_a_side_without_scenes_is_an_error(tmp_path, names, validation, side):
    lay_out(tmp_path, names)
    with pytest.raises(DatasetError, match=f"no {side} scene"):
        inria_scenes(tmp_path, validation)


def test_missing_labels_and_odd_names_are_errors(tmp_path):
    lay_out(tmp_path, ["austin1", "austin6"])
    (tmp_path / "gt" / "austin6.tif").unlink()
    with pytest.raises(DatasetError, match="without label: austin6"):
        inria_scenes(tmp_path)
    (tmp_path / "gt" / "austin6.tif").touch()
    for part in ("images", "gt"):
        (tmp_path / part / "mosaic.tif").touch()
    with pytest.raises(DatasetError, match="'mosaic' is no tile name"):
        inria_scenes(tmp_path)


@pytest.mark.parametrize("inner", ["", "AerialImageDataset"])
def test_the_official_test_images_are_found(tmp_path, inner):
    folder = tmp_path / inner / "test" / "images"
    folder.mkdir(parents=True)
    with pytest.raises(DatasetError, match="no test images"):
        inria.test_images(tmp_path)
    for name in ("sfo2.tif", "bellingham1.tif"):
        (folder / name).touch()
    assert [p.name for p in inria.test_images(tmp_path)] == ["bellingham1.tif", "sfo2.tif"]


def test_the_stated_split_of_the_real_tiles_comes_out(real_data):
    root = real_data / "aerial_buildings"
    held_back = ["barnarp1", "nairobi1", "nepal1", "philippines1", "zanzibar1"]
    assert validation_names(root) == held_back
    assert validation_names(root, tuple(held_back)) == held_back
    assert len(inria_scenes(root, (1,))) == 16


def test_the_stated_split_of_the_real_patches_comes_out(real_data):
    scenes = inria_scenes(real_data / "inria_patches", ("chicago1",))
    assert len(scenes) == 41
    assert {(s.place, s.split) for s in scenes} == {("austin", "train"), ("chicago", "validation")}
    assert {s.index for s in scenes} == {1}
