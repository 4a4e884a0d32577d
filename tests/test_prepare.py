"""The command that cuts any layout into a patch store: what it writes, says and refuses."""

import json
import re
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner, Result

from experiments import recipes
from experiments.prepare import main, parse_patch_size
from experiments.train_jointnet import main as train_jointnet
from jointnet import recipe as recipe_module
from preprocessing.errors import OutputError
from preprocessing.patch_store import PatchSettings, open_store
from preprocessing.rasters import read_image
from tests.helpers import write_image
from tests.training_fixtures import ground, squares, write_inria, write_scene

SMALL = ("--patch-size", "32,21,16")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def error(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and not result.stdout
    return lines[0]


@pytest.fixture(autouse=True)
def no_preview(monkeypatch):
    """Stores without their picture, which takes a second each to draw."""
    monkeypatch.setattr("experiments.prepare.draw_preview", lambda store: store.folder / "a.png")


def untouched(folder: Path) -> bool:
    """Whether nothing half-written lies in a folder."""
    return not (folder / "store").exists() and not list(folder.glob(".*"))


@pytest.fixture
def masks(tmp_path) -> tuple[Path, Path]:
    """Two folders of JPEG images and PNG masks, as painting programs save them."""
    for number in range(6):
        image, mask = squares(40, 48, seed=number)
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"tile{number}.jpg"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / "masks" / f"tile{number}_mask.png"), mask * 255)
    return tmp_path / "images", tmp_path / "masks"


@pytest.fixture
def vectors(tmp_path) -> tuple[Path, Path]:
    """Three rasters, and one file in degrees with a house on each and a road through all."""
    shapes, kinds = [], []
    for number in range(3):
        image, _ = squares(40, 48, seed=number)
        (tmp_path / "images").mkdir(exist_ok=True)
        transform = ground(number)
        write_image(tmp_path / "images" / f"t{number}.tif", image, transform=transform)
        house = shapely.box(5, 8, 25, 20)
        shapes.append(shapely.affinity.affine_transform(house, transform.to_shapely()))
        kinds.append("yes" if number else "no")
    road = shapely.LineString([(500_000, 4_999_990), (500_900, 4_999_990)])
    frame = geopandas.GeoDataFrame(
        {"building": [*kinds, None]}, geometry=[*shapes, road], crs="EPSG:32633"
    )
    frame.to_crs(4326).to_file(tmp_path / "town.geojson")
    return tmp_path / "images", tmp_path / "town.geojson"


# What is written


def test_two_folders_become_a_store(masks, tmp_path):
    images, labels = masks
    printed = done("--images", images, "--labels", labels, "--output", tmp_path / "store", *SMALL)
    store = open_store(tmp_path / "store")
    expected = PatchSettings(patch_size=32, stride=21, validation_size=16)
    assert store.settings == expected
    held_back = [s["name"] for s in store.manifest["scenes"] if s["split"] == "validation"]
    assert held_back == ["tile0", "tile5"]
    # Validation patches hold every pixel once.
    assert (store.validation.masks[:] != 255).sum() == 2 * 40 * 48
    assert f"{len(store.train):>9}    32  100.0%" in printed
    assert "train on it: python experiments/train_jointnet.py --store" in printed
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_what_is_printed_is_what_was_cut(masks, tmp_path):
    images, labels = masks
    printed = done("--images", images, "--labels", labels, "--output", tmp_path / "store", *SMALL)
    truth = [squares(40, 48, seed=number)[1].mean() for number in (0, 5)]
    lines = printed.splitlines()
    assert lines[0].endswith("6 scenes, 3 bands of uint8, pixels of unknown size, target buildings")
    assert lines[1].split() == ["scenes", "patches", "size", "valid", "target"]
    assert lines[3].split() == ["validation", "2", "18", "16", "100.0%", f"{np.mean(truth):.1%}"]
    store = open_store(tmp_path / "store")
    mean, std = store.manifest["band_mean"][0], store.manifest["band_std"][0]
    assert lines[4] == f"band 1: mean {mean:.4g}, standard deviation {std:.4g}"


def test_options_say_how_to_cut(masks, tmp_path):
    images, labels = masks
    arguments = ("--images", images, "--labels", labels, "--output", tmp_path / "store")
    options = ("--target", "fields", "--bands", "3,1", "--gsd", 0.5, "--patch-size", "32,16,16")
    done(*arguments, *options, "--validation", "tile2,4")
    store = open_store(tmp_path / "store")
    assert store.settings == PatchSettings(32, 16, 16, 2, "fields", (3, 1))
    assert store.manifest["gsd"] == 0.5
    held_back = [s["name"] for s in store.manifest["scenes"] if s["split"] == "validation"]
    assert held_back == ["tile2", "tile4"]
    expected = read_image(images / "tile0.jpg")[0][:32, :32, [2, 0]]
    np.testing.assert_array_equal(store.train.images[0], expected)


def test_a_share_is_held_back(masks, tmp_path):
    images, labels = masks
    arguments = ("--images", images, "--labels", labels, "--output", tmp_path / "store")
    done(*arguments, *SMALL, "--validation", "0.5")
    scenes = open_store(tmp_path / "store").manifest["scenes"]
    assert [s["split"] for s in scenes] == ["validation", "train"] * 3


def test_one_vector_file_in_degrees_labels_all_rasters(vectors, tmp_path):
    images, town = vectors
    arguments = ("--images", images, "--labels", town, "--output", tmp_path / "store", *SMALL)
    printed = done(*arguments)
    store = open_store(tmp_path / "store")
    scene = store.manifest["scenes"][0]
    assert scene["polygons"] == {"read": 4, "repaired": 0, "dropped": 1, "outside": 2, "partly": 0}
    assert (store.validation.masks[:] == 1).sum() == 20 * 12
    assert "vector labels of 3 scenes: 3 of 12 polygons used (0 partly" in printed
    assert "pixels of 0.3 m" in printed


def test_features_are_filtered_and_lines_widened(vectors, tmp_path):
    images, town = vectors
    arguments = ("--images", images, "--labels", town, "--output", tmp_path / "store", *SMALL)
    done(*arguments, "--where", "building = 'yes'", "--buffer-m", 0.6)
    store = open_store(tmp_path / "store")
    assert not (store.validation.masks[:] == 1).any() and (store.train.masks[:] == 1).any()
    done(
        *arguments[:-3], tmp_path / "roads", *SMALL, "--where", "building IS NULL", "--buffer-m", 1
    )
    store = open_store(tmp_path / "roads")
    # 2 m of 12, in each of three scenes.
    assert (store.validation.masks[:] == 1).mean() == pytest.approx(2 / 12 * 40 / 48, abs=0.03)
    assert {s["buffer_m"] for s in store.manifest["scenes"]} == {1.0}


def test_several_data_sets_are_sources_of_one_store(vectors, tmp_path):
    for number in (7, 8):
        image, mask = squares(64, 64, seed=number)
        write_scene(tmp_path / "other", f"o{number}", image, mask * 255, ground(number))
    images, town = vectors
    printed = done(
        *("--images", images, "--labels", town),
        *("--images", tmp_path / "other" / "images", "--labels", tmp_path / "other" / "gt"),
        *("--output", tmp_path / "store", *SMALL, "--validation", "t0,o7"),
    )
    store = open_store(tmp_path / "store")
    base = f"{tmp_path.name}/images"
    assert set(store.train.sources) == {base, "other/images"}
    rows = [line.split()[:3] for line in printed.splitlines()[2:8]]
    assert [row[:2] for row in rows] == [
        *(["train", "3"], ["other/images", "1"], [base, "2"]),
        *(["validation", "2"], ["other/images", "1"], [base, "1"]),
    ]
    patches = [int(row[2]) for row in rows]
    assert patches[0] == patches[1] + patches[2] == len(store.train)


@pytest.mark.parametrize("validation", [(), ("--validation", "2")])
def test_an_inria_folder_becomes_a_store(tmp_path, validation):
    sizes = {f"{place}{n}": (20, 24) for place in ("ashby", "borth") for n in (2, 6, 7)}
    write_inria(tmp_path / "data" / "train", sizes)
    output = ("--output", tmp_path / "store", *SMALL)
    printed = done("--layout", "inria", "--data", tmp_path / "data", *output, *validation)
    store = open_store(tmp_path / "store")
    held_back = {s["name"] for s in store.manifest["scenes"] if s["split"] == "validation"}
    assert held_back == {"ashby2", "borth2"} and store.settings.target == "buildings"
    # Scenes are smaller than a patch: what lies outside of them counts nowhere.
    assert "train             4        4    32  100.0%" in printed


def test_a_massachusetts_folder_has_void_in_its_margins(tmp_path):
    for number, split in enumerate(("train", "valid")):
        image, mask = squares(32, 32, seed=number)
        image[:, :8] = 255
        for kind, pixels in (("sat", image), ("map", mask[..., None] * 255)):
            (tmp_path / split / kind).mkdir(parents=True)
            path = tmp_path / split / kind / f"{number}_15.tif"
            write_image(path, pixels, crs=None, transform=None)
    output = ("--output", tmp_path / "store", *SMALL)
    arguments = ("--layout", "massachusetts", "--data", tmp_path, *output)
    assert "say by --target" in error(*arguments)
    printed = done(*arguments, "--target", "roads")
    store = open_store(tmp_path / "store")
    assert (store.train.masks[0][:, :8] == 255).all() and (store.train.masks[0][:, 8:] < 2).all()
    assert "75.0%" in printed and "pixels of 1 m" in printed


def test_spacenet_chips_become_a_store(tmp_path):
    area = tmp_path / "AOI_2_Vegas_Train"
    for folder in ("RGB-PanSharpen", "geojson/buildings"):
        (area / folder).mkdir(parents=True)
    for number in range(4):
        name = f"AOI_2_Vegas_img{number}"
        transform = Affine(2.7e-6, 0, -115.17 + 0.001 * number, 0, -2.7e-6, 36.24)
        image = (squares(40, 40, seed=number)[0].astype(np.uint16) * 8)[..., [0, 1, 2, 0]]
        path = area / "RGB-PanSharpen" / f"RGB-PanSharpen_{name}.tif"
        write_image(path, image, crs="EPSG:4326", transform=transform)
        if number == 3:
            continue
        box = shapely.affinity.affine_transform(shapely.box(4, 6, 20, 30), transform.to_shapely())
        feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(box)}
        content = {"type": "FeatureCollection", "features": [feature] if number else []}
        label = area / "geojson" / "buildings" / f"buildings_{name}.geojson"
        label.write_text(json.dumps(content))
    arguments = ("--layout", "spacenet", "--data", tmp_path, "--target", "buildings", *SMALL)
    printed = done(*arguments, "--output", tmp_path / "store", "--validation", "1")
    assert "1 images without a label were left out" in printed.splitlines()
    assert "vector labels of 3 scenes: 2 of 2 polygons used" in printed
    store = open_store(tmp_path / "store")
    assert (store.validation.masks[:] == 1).sum() == 16 * 24
    assert (store.train.masks[:] == 1).any() and store.manifest["dtype"] == "uint16"
    assert "error: SpaceNet has labels of" in error(
        *arguments, "--target", "trees", "--output", tmp_path / "other"
    )


def test_a_recipe_cuts_what_training_by_it_would(vectors, tmp_path):
    _, town = vectors
    town.rename(tmp_path / "polygons.geojson")
    arguments = ("--recipe", "polygons", "--data", tmp_path, "--output", tmp_path / "store")
    printed = done(*arguments, "--where", "building IS NOT NULL", "--validation", "1,t2")
    store = open_store(tmp_path / "store")
    assert store.settings == recipes.polygons().patches
    assert [s["split"] for s in store.manifest["scenes"]] == ["train", "validation", "validation"]
    assert {s["where"] for s in store.manifest["scenes"]} == {"building IS NOT NULL"}
    assert f"train_jointnet.py --recipe polygons --store {tmp_path / 'store'}" in printed


def test_the_recipe_of_polygons_takes_lines_for_roads_as_training_does(
    vectors, tmp_path, monkeypatch
):
    _, town = vectors
    town.rename(tmp_path / "polygons.geojson")
    arguments = ("--recipe", "polygons", "--data", tmp_path, "--output", tmp_path / "store")
    printed = done(*arguments, "--where", "building IS NULL", "--buffer-m", 1)
    store = open_store(tmp_path / "store")
    assert store.settings == recipes.polygons(buffer_m=1).patches
    assert store.settings.target == "roads"
    command = printed.splitlines()[-1].removeprefix("train on it: ")
    assert command == f"python experiments/train_jointnet.py --store {tmp_path / 'store'}"
    # The command opens the store by settings that fit it, and trains roads.
    trained = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        recipe_module, "train_recipe", lambda recipe, *_, **__: trained.append(recipe)
    )
    result = CliRunner().invoke(train_jointnet, command.split()[2:])
    assert result.exit_code == 0, result.output
    assert trained[0].training.target_weight == recipes.open_roads().training.target_weight
    assert trained[0].patches == store.settings


@pytest.mark.parametrize(
    ("recipe", "validation"), [("inria_buildings", "0.2"), ("sample", "0.5"), ("open_roads", "0.2")]
)
def test_shares_are_no_split_of_a_recipe(tmp_path, recipe, validation):
    arguments = ("--recipe", recipe, "--data", tmp_path, "--output", tmp_path / "store")
    message = error(*arguments, "--validation", validation)
    assert f"--validation {validation}: --recipe {recipe} takes tiles, such as 1,2" in message
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_of_polygons_takes_a_share(vectors, tmp_path):
    _, town = vectors
    town.rename(tmp_path / "polygons.geojson")
    arguments = ("--recipe", "polygons", "--data", tmp_path, "--output", tmp_path / "store")
    printed = done(*arguments, "--validation", "0.34")
    scenes = open_store(tmp_path / "store").manifest["scenes"]
    assert [s["split"] for s in scenes] == ["validation", "train", "train"]
    assert "note: " not in printed


def test_rasters_named_by_numbers_are_held_back_by_them(masks, tmp_path):
    for path in sorted(masks[0].iterdir()):
        path.rename(path.with_name(f"1000{path.stem[-1]}.jpg"))
    for path in sorted(masks[1].iterdir()):
        path.rename(path.with_name(f"1000{path.stem[4]}.png"))
    arguments = ("--images", masks[0], "--labels", masks[1], "--output", tmp_path / "store")
    done(*arguments, *SMALL, "--validation", "10003,10005")
    scenes = open_store(tmp_path / "store").manifest["scenes"]
    held_back = [s["name"] for s in scenes if s["split"] == "validation"]
    assert held_back == ["10003", "10005"]


def test_patches_of_one_tile_are_said_to_be_such(masks, tmp_path):
    for folder, suffix in zip(masks, ("jpg", "png"), strict=True):
        for path in sorted(folder.iterdir()):
            path.rename(path.with_name(f"ortho_0_{path.stem[4]}.{suffix}"))
    arguments = ("--images", masks[0], "--labels", masks[1], "--output", tmp_path / "store")
    lines = done(*arguments, *SMALL).splitlines()
    (note,) = [line for line in lines if line.startswith("note: ")]
    assert "all scenes are patches of ortho: if they overlap" in note


def test_a_place_of_an_inria_folder_can_be_held_back(tmp_path):
    sizes = {f"{place}{n}": (20, 24) for place in ("ashby", "borth") for n in (1, 2)}
    write_inria(tmp_path / "data" / "train", sizes)
    output = ("--output", tmp_path / "store", *SMALL)
    done("--layout", "inria", "--data", tmp_path / "data", *output, "--validation", "borth")
    scenes = open_store(tmp_path / "store").manifest["scenes"]
    assert {s["name"] for s in scenes if s["split"] == "validation"} == {"borth1", "borth2"}


# A store that exists


def test_a_store_is_described_without_its_data(masks, tmp_path):
    images, labels = masks
    store = tmp_path / "store"
    first = done("--images", images, "--labels", labels, "--output", store, *SMALL)
    images.rename(tmp_path / "elsewhere")
    assert done("--output", store) == first


def test_augmentation_is_drawn_into_the_store_once_and_shows_16_bits(tmp_path, monkeypatch):
    monkeypatch.undo()
    for number in range(2):
        image, mask = squares(32, 32, seed=number)
        deep = image.astype(np.uint16) * 8
        write_scene(tmp_path, f"a{number}", deep, mask * 255, ground(number))
    arguments = ("--images", tmp_path / "images", "--labels", tmp_path / "gt", *SMALL)
    sheet = tmp_path / "store" / "augmentation.png"
    printed = done(*arguments, "--output", tmp_path / "store")
    assert printed.splitlines()[-2] == f"augmentation of one patch: {sheet}"
    picture = cv2.imread(str(sheet))
    assert min(picture.shape[:2]) > 300
    # Values up to 2,040 of 65,535, stretched to the screen, are neither black nor white.
    assert 30 < picture[60:200].mean() < 225
    before = sheet.read_bytes()
    assert done("--output", tmp_path / "store") == printed
    sheet.unlink()
    assert done("--output", tmp_path / "store") == printed
    assert sheet.read_bytes() == before
    assert not list((tmp_path / "store").glob(".*"))


def test_a_store_that_cannot_be_written_is_described(masks, tmp_path, monkeypatch):
    images, labels = masks
    store = tmp_path / "store"
    first = done("--images", images, "--labels", labels, "--output", store, *SMALL)

    def refuse(store):
        raise OutputError("read-only")

    monkeypatch.setattr("experiments.prepare.draw_preview", refuse)
    lines = first.splitlines()
    assert done("--output", store).splitlines() == [*lines[:-2], lines[-1]]


def test_an_existing_store_is_not_replaced(masks, tmp_path):
    images, labels = masks
    arguments = ("--images", images, "--labels", labels, "--output", tmp_path / "store", *SMALL)
    done(*arguments)
    before = (tmp_path / "store" / "manifest.json").read_bytes()
    assert "store exists; delete it or name another folder" in error(*arguments)
    assert (tmp_path / "store" / "manifest.json").read_bytes() == before


# What cannot work


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --images with --labels, --layout or --recipe; or"),
        (("--where", "a = 1"), "give --images with --labels"),
        (("--output", "x", "--layout", "inria", "--images", "a"), "give --images with --labels"),
        (("--output", "x", "--images", "a"), "--images and --labels go together"),
        (("--images", "a"), "--images and --labels go together"),
        (("--output", "x", "--labels", "a"), "--images and --labels go together"),
        (("--output", "x"), "x is not a patch store"),
        (("--output", "x", "--layout", "spacenet"), "say by --target"),
        (("--layout", "massachusetts"), "say by --target"),
        (
            ("--output", "x", "--recipe", "sample", "--patch-size", "9"),
            "a patch of 9, a stride of 6: at least 16 and 1",
        ),
        (
            ("--output", "x", "--recipe", "sample", "--patch-size", "384"),
            "says itself what --patch-size would",
        ),
        (("--patch-size", "384,200,512"), "at most the patch, 384"),
        (("--patch-size", "384,400"), "at most the patch, 384"),
        (("--patch-size", "32"), "a window of 256 are to be at most the patch, 32"),
        (("--patch-size", "384,256,100"), "no multiple of 8"),
        (("--patch-size", "384,256,8"), "no multiple of 8 from 16 on"),
        (("--patch-size", "384,0"), "a stride of 0"),
        (("--patch-size", "384,x"), "is no size; write"),
        (("--patch-size", "1,2,3,4"), "is no size; write"),
        (("--output", "x", "--layout", "inria", "--bands", "0,1"), "no band numbers from 1"),
        (("--output", "x", "--layout", "inria", "--validation", ","), "tile numbers or names"),
        (("--output", "x", "--layout", "inria", "--buffer-m", 0), "--buffer-m"),
        (("--output", "x", "--layout", "mine"), "'mine' is not one of 'inria'"),
        (("--output", "x", "--images", "a", "--labels", "b", "--data", "c"), "--data goes with"),
        (("--output", "x", "--layout", "inria", "--gsd", 1), "--gsd goes with --images"),
        (("--output", "x", "--layout", "inria", "--data", "nowhere"), "no data set of the Inria"),
    ],
)
def test_what_cannot_work_is_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in error(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validation", "town9"), "validation names no raster of .*: town9"),
        (("--validation", "1.0"), "lies between 0 and 1"),
        (("--where", "a = 1"), "tile0_mask.png is a raster; --where and"),
        (("--bands", "4"), "the file has 1 to 3"),
    ],
)
def test_nothing_is_left_of_a_store_that_cannot_be(masks, tmp_path, options, message):
    images, labels = masks
    arguments = ("--images", images, "--labels", labels, "--output", tmp_path / "store", *SMALL)
    assert re.search(message, error(*arguments, *options))
    assert untouched(tmp_path)


def test_a_bad_label_in_the_middle_leaves_nothing(masks, tmp_path):
    images, labels = masks
    cv2.imwrite(str(labels / "tile3_mask.png"), np.full((40, 48), 77, np.uint8))
    arguments = ("--images", images, "--labels", labels, "--output", tmp_path / "store", *SMALL)
    assert "tile3_mask.png: has the values 77" in error(*arguments)
    assert untouched(tmp_path)


def test_labels_without_any_target_are_refused(masks, vectors, tmp_path):
    images, labels = masks
    for path in labels.iterdir():
        cv2.imwrite(str(path), np.zeros((40, 48), np.uint8))
    for path in images.glob("*.tif"):
        path.unlink()
    output = ("--output", tmp_path / "store", *SMALL)
    message = error("--images", images, "--labels", labels, *output)
    assert "no pixel of the training scenes is buildings" in message
    assert untouched(tmp_path)


def test_a_filter_that_nothing_passes_anywhere_is_refused(vectors, tmp_path):
    images, town = vectors
    arguments = ("--images", images, "--labels", town, "--output", tmp_path / "store", *SMALL)
    message = error(*arguments, "--where", "building = 'maybe'")
    assert "there is nothing to learn; are these the right labels (and --where" in message
    assert untouched(tmp_path)


# Checking


def test_a_whole_folder_ends_with_0_and_says_what_differs(tmp_path):
    write_inria(tmp_path)
    printed = done("--layout", "inria", "--data", tmp_path)
    assert printed.splitlines()[0] == f"4 images and 4 labels in {tmp_path}"
    assert "note: not the official data set (36 tiles of austin, " in printed
    assert re.search("^overall +4 +[0-9.]+%$", printed, re.MULTILINE)


def test_problems_end_with_2_and_a_line_each(tmp_path):
    write_inria(tmp_path)
    (tmp_path / "gt" / "ashby1.tif").unlink()
    (tmp_path / "images" / "borth1.tif").write_bytes(b"II*\0")
    result = run("--layout", "inria", "--data", tmp_path)
    assert result.exit_code == 2
    first, second, *others = result.stderr.splitlines()
    assert first == f"problem: {tmp_path / 'images' / 'ashby1.tif'}: has no label of its name"
    assert second.startswith(f"problem: {tmp_path / 'images' / 'borth1.tif'}: not a raster")
    assert not [line for line in others if "borth1.tif" not in line]
    assert "share of target" in result.stdout


def test_a_folder_that_is_none_is_one_line(tmp_path):
    assert "no data set of the Inria layout" in error("--layout", "inria", "--data", tmp_path)


def test_other_sources_are_checked_without_being_cut(masks, tmp_path):
    images, labels = masks
    before = sorted(tmp_path.rglob("*"))
    lines = done("--images", images, "--labels", labels, *SMALL).splitlines()
    assert lines[0].split()[:3] == ["train", "4", "scenes"]
    assert lines[1].split()[:3] == ["validation", "2", "scenes"]
    assert lines[2].startswith("pixels are uint8; nothing was cut")
    cv2.imwrite(str(images / "tile3.jpg"), np.zeros((4, 4), np.uint8))
    assert "tile3.jpg" in error("--images", images, "--labels", labels, *SMALL)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("value", ["384", "384,256", "384,256,256"])
def test_stride_and_window_follow_the_patch(value):
    assert parse_patch_size(None, None, value) == (384, 256, 256)


# Real imagery


def test_a_drone_image_and_road_chips_become_stores(real_data, tmp_path):
    chips = real_data / "geo_cases" / "apls_roads"
    printed = done(
        *("--images", chips / "images", "--labels", chips / "geojson", "--target", "roads"),
        *("--buffer-m", 2, "--output", tmp_path / "roads"),
    )
    assert "vector labels of 2 scenes: 48 of 48 polygons used (18 partly" in printed
    assert "9.9%" in printed and "14.2%" in printed
    drone = real_data / "geo_cases" / "tanzania_uav"
    message = error(
        *("--images", drone, "--labels", drone / "tanzania_sample.geojson"),
        *("--output", tmp_path / "drone"),
    )
    assert "no training scene among 1 raster" in message
