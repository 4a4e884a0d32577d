import os
import zipfile

import numpy as np
import pytest
import rasterio

from preprocessing.errors import DatasetError, LabelError, OutputError
from preprocessing.inria_submission import COMPRESSIONS, check_submission, pack_masks
from preprocessing.rasters import LabelReader, read_label
from tests.helpers import write_image
from tests.mask_files import UTM, write


def noise(height=300, width=200, seed=0):
    """A mask of all three values; strips of 128 rows cut it."""
    return np.random.default_rng(seed).choice([0, 1, 255], (height, width)).astype(np.uint8)


def unpacked(archive, name):
    with rasterio.open(f"/vsizip/{archive}/{name}") as file:
        return file.read(), file.profile, file.mask_flag_enums


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_packed_mask_has_the_pixels_and_place_of_its_file(tmp_path, compression):
    mask = noise()
    masks = {"a1.tif": write(tmp_path / "whatever.tif", mask)}
    check = pack_masks(masks, tmp_path / "up.zip", {"a1.tif": mask.shape}, compression)
    pixels, profile, flags = unpacked(tmp_path / "up.zip", "a1.tif")
    white = 1 if compression == "ccittfax4" else 255
    # Void is background, and no mask says that it was void.
    assert np.array_equal(pixels[0], np.where(mask == 1, white, 0))
    assert flags == ([rasterio.enums.MaskFlags.all_valid],)
    assert (profile["count"], profile["dtype"], profile["driver"]) == (1, "uint8", "GTiff")
    assert profile["crs"] == "EPSG:32633" and profile["transform"] == UTM
    assert profile["compress"].upper() == compression.upper()
    assert check.problems == [] and check.masks == 1
    assert (check.pixels, check.target) == (mask.size, (mask == 1).sum())
    assert check.size == os.path.getsize(tmp_path / "up.zip")


def test_names_are_kept_flat_and_in_order_and_bytes_do_not_depend_on_time(tmp_path):
    masks = {f"t{n}.tif": write(tmp_path / f"m{n}.tif", noise(seed=n)) for n in (2, 1)}
    wanted = dict.fromkeys(masks, (300, 200))
    for name in ("one.zip", "two.zip"):
        pack_masks(masks, tmp_path / name, wanted)
    assert zipfile.ZipFile(tmp_path / "one.zip").namelist() == ["t1.tif", "t2.tif"]
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []


def test_labels_of_other_tools_are_taken(tmp_path):
    target = (noise() == 1).astype(np.uint8)
    kinds = {"a.tif": target[..., None], "b.tif": 255 * np.dstack([target] * 3)}
    masks = {name: write_image(tmp_path / name, image) for name, image in kinds.items()}
    pack_masks(masks, tmp_path / "up.zip", dict.fromkeys(masks, target.shape))
    for name in masks:
        assert np.array_equal(unpacked(tmp_path / "up.zip", name)[0][0], 255 * target)
        assert np.array_equal(read_label(f"/vsizip/{tmp_path}/up.zip/{name}"), target)


def test_tiles_that_are_missing_are_told_and_the_rest_is_packed(tmp_path):
    masks = {"a1.tif": write(tmp_path / "a1.tif", noise())}
    wanted = {"a1.tif": (300, 200), "a2.tif": (300, 200)}
    check = pack_masks(masks, tmp_path / "up.zip", wanted)
    assert check.problems == ["1 of 2 masks missing: a2.tif"] and check.masks == 1
    # The check does not let it pass.
    assert check_submission(tmp_path / "up.zip", wanted).problems == check.problems


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path):
    mask = write(tmp_path / "a.tif", noise())
    grey = write_image(tmp_path / "grey.tif", np.full((300, 200, 1), 7, np.uint8))
    for masks, error, words in (
        ({}, DatasetError, "no masks to pack"),
        ({"b.tif": mask}, DatasetError, "test images have no b.tif"),
        ({"c.tif": mask}, DatasetError, "200 x 300 pixels, its image 300 x 200"),
        ({"a.tif": grey}, LabelError, "grey.tif"),
    ):
        wanted = {"a.tif": (300, 200), "c.tif": (200, 300)}
        with pytest.raises(error, match=words):
            pack_masks(masks, tmp_path / "up.zip", wanted)
    (tmp_path / "up.zip").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        pack_masks({"a.tif": mask}, tmp_path / "up.zip", {"a.tif": (300, 200)})
    assert (tmp_path / "up.zip").read_bytes() == b"mine"
    pack_masks({"a.tif": mask}, tmp_path / "up.zip", {"a.tif": (300, 200)}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "grey.tif", "up.zip"]


def test_a_file_that_came_out_wrong_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setitem(COMPRESSIONS, "none", {})
    masks = {"a.tif": write(tmp_path / "a.tif", noise())}
    with pytest.raises(OutputError, match="cannot be written: a.tif: is not compressed"):
        pack_masks(masks, tmp_path / "up.zip", {"a.tif": (300, 200)}, "none")
    assert not (tmp_path / "up.zip").exists()


def test_a_full_tile_packs_small(tmp_path, real_data):
    source = real_data / "full_tile_masks" / "austin29_gt.png"
    check = pack_masks({"a.tif": source}, tmp_path / "up.zip", {"a.tif": (5000, 5000)})
    assert check.problems == [] and 0.144 < check.target / check.pixels < 0.146
    assert check.size < 400_000
    with LabelReader(source) as one, LabelReader(f"/vsizip/{tmp_path}/up.zip/a.tif") as other:
        from preprocessing.tiling import Window

        window = Window(4600, 100, 400, 4900)
        assert np.array_equal(one.read(window), other.read(window))
