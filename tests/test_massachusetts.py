"""The Massachusetts layout and its void: white that reaches in from the border."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from preprocessing.errors import DatasetError
from preprocessing.inria import inria_scenes
from preprocessing.massachusetts import massachusetts_scenes, white_border
from preprocessing.patch_store import PatchSettings
from preprocessing.patches import build_store
from preprocessing.rasters import read_image, read_label
from preprocessing.scenes import folder_scenes, images_in
from tests.helpers import write_image
from tests.training_fixtures import load_scene

NAMES = {"train": ["a_15", "b_15"], "valid": ["c_15"], "test": ["d_15", "e_15"]}
NOWHERE = {"crs": None, "transform": None}


def picture(rows: str, white: int = 255, dtype: type = np.uint8) -> np.ndarray:
    """``w`` is white, ``s`` nearly, ``b`` just not; ``y`` in two bands; ``.`` is ground."""
    speck, bright = white - white // 51, white - white // 51 - 1
    bands = {"w": [white] * 3, "s": [speck, white, speck], "b": [white, bright, white]}
    bands |= {"y": [white, white, 70], ".": [90, 80, 70]}
    return np.array([[bands[c] for c in row] for row in rows.split()], dtype)


def void(rows: str) -> np.ndarray:
    return np.array([[c == "x" for c in row] for row in rows.split()])


def lay_out(root: Path, names: dict[str, list[str]] = NAMES) -> Path:
    """Tiles of ground with a white left margin and a white roof, roads everywhere at the top."""
    image = picture("www..... www..ww. www..ww. www.....")
    label = np.zeros((4, 8), np.uint8)
    label[0] = 255
    for number, (split, stems) in enumerate(names.items()):
        for kind in ("sat", "map"):
            (root / split / kind).mkdir(parents=True)
        for position, stem in enumerate(stems):
            # Every tile is another image.
            image[3, 4] = number, position, 0
            write_image(root / split / "sat" / f"{stem}.tiff", image, **NOWHERE)
            write_image(root / split / "map" / f"{stem}.tif", label[..., None], **NOWHERE)
    return root


# White


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # A margin goes, a white roof inside stays.
        ("ww... ww.w. ww... .....", "xx... xx... xx... ....."),
        # Corners of pixels do not connect.
        ("w.... .w... ..w..", "x.... ..... ..x.."),
        # A margin that winds into the image, and one that an inner one touches.
        (".w... .www. ...w. .....", ".x... .xxx. ...x. ....."),
        # From every side, each alone.
        ("..... w.... ..... ..w..", "..... x.... ..... ..x.."),
        ("....w ..... ..w.. .....", "....x ..... ..... ....."),
        # White in two bands only is a colour.
        ("yyy.. yww.. .....", "..... ..... ....."),
        # What is a little darker than white is imagery.
        ("wswww wwsbb wwsbb ..s..", "x.xxx xx... xx... ....."),
        # Ground enclosed by white is imagery.
        ("wwww w..w wwww", "xxxx x..x xxxx"),
        ("www www", "xxx xxx"),
        ("... ...", "... ..."),
        ("w", "x"),
        ("w.w.w", "x.x.x"),
    ],
)
def test_white_that_reaches_in_from_the_border_is_void(rows, expected):
    found = white_border(picture(rows))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, void(expected))
    np.testing.assert_array_equal(white_border(picture(rows, 65535, np.uint16)), void(expected))


def test_white_of_another_depth_is_its_highest_value():
    assert not white_border(picture("www www", 255, np.uint16)).any()
    np.testing.assert_array_equal(white_border(np.full((2, 2, 1), 255, np.uint8)), void("xx xx"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_white_of_real_numbers_is_that_of_8_bits_or_1(dtype):
    image = picture("ww... ww.w. wws.. .....").astype(dtype)
    expected = void("xx... xx... xx... .....")
    np.testing.assert_array_equal(white_border(image), expected)
    np.testing.assert_array_equal(white_border(image / 255), expected)
    # Of pixels up to 255, those of 1 are nearly black.
    assert not white_border(np.where(image == 255, 1, image).astype(dtype)).any()


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 5, 3), (5, 0, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_empty_image_has_no_white(shape, dtype):
    assert white_border(np.zeros(shape, dtype)).shape == shape[:2]


def flooded(white: np.ndarray) -> np.ndarray:
    """The same by its definition: what is reached from outside, step by step."""
    reached = np.zeros(np.add(white.shape, 2), bool)
    reached[[0, -1]] = reached[:, [0, -1]] = True
    inside = np.pad(white, 1)
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= inside | reached
        if (grown == reached).all():
            return reached[1:-1, 1:-1]
        reached = grown


@settings(deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_it_is_a_flood_from_outside(white):
    image = np.repeat(np.where(white, 255, 254).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(white_border(image), flooded(white))


# Scenes


def test_the_layout_gives_train_and_valid(tmp_path):
    scenes = massachusetts_scenes(lay_out(tmp_path / "roads"))
    assert [(s.name, s.split) for s in scenes] == [
        ("a_15", "train"),
        ("b_15", "train"),
        ("c_15", "validation"),
    ]
    assert {(s.place, s.source, s.index, s.gsd) for s in scenes} == {("roads", "roads", None, 1.0)}
    assert all(s.white_border and s.label_kind == "raster" for s in scenes)
    assert scenes[0].image == tmp_path / "roads" / "train" / "sat" / "a_15.tiff"
    assert scenes[0].label == tmp_path / "roads" / "train" / "map" / "a_15.tif"


def test_the_test_tiles_can_be_held_back_instead(tmp_path):
    scenes = massachusetts_scenes(str(lay_out(tmp_path)), "test")
    held_back = [s.name for s in scenes if s.split == "validation"]
    assert (len(scenes), held_back) == (4, ["d_15", "e_15"])


def test_the_split_that_is_not_asked_for_may_be_missing(tmp_path):
    root = lay_out(tmp_path, {"train": ["a"], "valid": ["b"]})
    assert len(massachusetts_scenes(root)) == 2
    with pytest.raises(
        DatasetError, match="it has no folder test/sat; expected train and valid \\(or test\\)"
    ):
        massachusetts_scenes(root, "test")


def test_only_valid_or_test_are_held_back(tmp_path):
    with pytest.raises(DatasetError, match="'train' cannot be held back: give valid or test"):
        massachusetts_scenes(lay_out(tmp_path), "train")


@pytest.mark.parametrize("missing", ["train/sat", "train/map", "valid/sat", "valid/map"])
def test_another_layout_names_the_folder_that_is_missing(tmp_path, missing):
    root = lay_out(tmp_path)
    (root / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=f"no folder {missing}; expected train and valid"):
        massachusetts_scenes(root)


def test_tiles_without_partner_are_named(tmp_path):
    root = lay_out(tmp_path)
    (root / "train" / "map" / "b_15.tif").unlink()
    with pytest.raises(DatasetError, match="1 image\\(s\\) without label: b_15"):
        massachusetts_scenes(root)


def test_a_split_without_tiles_is_said(tmp_path):
    root = lay_out(tmp_path, NAMES | {"valid": []})
    with pytest.raises(DatasetError, match="valid/sat holds no images"):
        massachusetts_scenes(root)


def test_a_tile_on_both_sides_is_refused(tmp_path):
    root = lay_out(tmp_path, {"train": ["a_15"], "valid": ["a_15"]})
    with pytest.raises(DatasetError, match="a_15 lies in train and in valid"):
        massachusetts_scenes(root)


def test_stray_files_are_left_alone(tmp_path):
    root = lay_out(tmp_path)
    for name in ("index.html", ".DS_Store", "a_15.tiff.aux.xml", "._a_15.tiff"):
        (root / "train" / "sat" / name).touch()
    assert len(massachusetts_scenes(root)) == 3


# Pixels


def test_a_tile_has_void_under_its_white_margin(tmp_path):
    image, mask, _ = load_scene(massachusetts_scenes(lay_out(tmp_path))[0], 3)
    expected = np.zeros((4, 8), np.uint8)
    expected[0] = 1
    expected[:, :3] = 255
    np.testing.assert_array_equal(mask, expected)
    # The pixels themselves are handed on as they are.
    assert (image[:, :3] == 255).all() and (image[1:3, 5:7] == 255).all()


def test_white_of_other_data_sets_is_imagery(tmp_path):
    train = lay_out(tmp_path / "m") / "train"
    (tmp_path / "i").mkdir()
    (train / "sat").rename(tmp_path / "i" / "images")
    (train / "map").rename(tmp_path / "i" / "gt")
    for side in ("images", "gt"):
        for number, path in enumerate(images_in(tmp_path / "i" / side)):
            path.rename(path.with_name(f"town{number}.tif"))
    inria = inria_scenes(tmp_path / "i", (1,))
    folders = folder_scenes(tmp_path / "i" / "images", tmp_path / "i" / "gt", "train", "x")
    for scene in (*inria, *folders):
        _, mask, _ = load_scene(scene, 3)
        assert not (mask == 255).any() and (mask[0] == 1).all()
    white = folder_scenes(
        tmp_path / "i" / "images", tmp_path / "i" / "gt", "train", "x", white_border=True
    )
    assert (load_scene(white[0], 3)[1] == 255).sum() == 12


def test_a_store_counts_no_pixel_of_the_margin(tmp_path):
    scenes = massachusetts_scenes(lay_out(tmp_path / "roads"))
    cutting = PatchSettings(patch_size=8, stride=8, validation_size=8, target="roads")
    store = build_store(tmp_path / "store", scenes, cutting)
    # 4 x 5 of 8 x 8 pixels lie in the scene and in no margin.
    np.testing.assert_allclose(store.train.valid_shares, 20 / 64)
    np.testing.assert_allclose(store.train.target_shares, 5 / 20)
    assert store.train.sources == ("roads", "roads")
    assert store.manifest["gsd"] == 1.0
    # White roofs count, margins do not: 8 of 40 training pixels are white.
    assert store.manifest["band_mean"][0] < 130


def test_the_real_tiles_are_void_as_stated_and_their_maps_go_on_there(real_data):
    scenes = massachusetts_scenes(real_data / "massachusetts_roads")
    assert [sum(s.split == split for s in scenes) for split in ("train", "validation")] == [25, 5]
    shares, drawn = [], 0
    for scene in scenes[::12]:
        image, _ = read_image(scene.image)
        white = white_border(image)
        shares.append(white.mean())
        drawn += int((read_label(scene.label)[white] == 1).sum())
        _, mask, _ = load_scene(scene, 3)
        np.testing.assert_array_equal(mask == 255, white)
        # The margin went in one piece, but for specks that are not exactly white.
        _, _, regions, _ = cv2.connectedComponentsWithStats((~white).astype(np.uint8), None, 4)
        sizes = regions[1:, cv2.CC_STAT_AREA]
        assert sizes[sizes < 64].sum() < 5000
    assert 0.2 < min(shares) and max(shares) < 0.71
    assert drawn > 100_000


def test_the_real_building_tiles_have_no_void(real_data):
    for scene in massachusetts_scenes(real_data / "massachusetts_buildings"):
        _, mask, _ = load_scene(scene, 3)
        assert (mask != 255).all() and 0.1 < (mask == 1).mean() < 0.3
