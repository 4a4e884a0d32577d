"""Masks packed for the contest, and zip files checked as it would take them."""

import os
import tracemalloc
import zipfile

import numpy as np
import pytest
import rasterio

from preprocessing.errors import DatasetError, LabelError, OutputError, RasterError
from preprocessing.inria_submission import (
    COMPRESSIONS,
    OFFICIAL_NAMES,
    check_submission,
    mask_name,
    missing_masks,
    pack_masks,
    wanted_tiles,
)
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


SIZE = (40, 60)
WANTED = {"a1.tif": SIZE, "a2.tif": SIZE}


def tiff(path, pixels=None, **options):
    """A mask as the contest takes it, unless options differ."""
    if pixels is None:
        pixels = np.zeros((*SIZE, 1), np.uint8)
        pixels[10:20, 5:30] = 255
    return write_image(path, pixels, **{"compress": "LZW", **options})


def packed(folder, entries, name="up.zip", **options):
    """A zip file of files by name."""
    with zipfile.ZipFile(folder / name, "w", **options) as archive:
        for entry, file in entries:
            archive.write(file, entry)
    return folder / name


def problem_of(folder, file):
    """The one problem of a zip file whose second mask is the file."""
    good = tiff(folder / "good.tif")
    check = check_submission(packed(folder, [("a1.tif", good), ("a2.tif", file)]), WANTED)
    assert check.masks == 1, check.problems
    (problem,) = check.problems
    assert "\n" not in problem and str(folder) not in problem
    return problem


def test_what_the_contest_takes_has_no_problem(tmp_path):
    ones = np.zeros((*SIZE, 1), np.uint8)
    ones[:3] = 1
    bits = tiff(tmp_path / "bits.tif", ones, compress="CCITTFAX4", nbits=1)
    path = packed(tmp_path, [("a1.tif", tiff(tmp_path / "a.tif")), ("a2.tif", bits)])
    check = check_submission(path, WANTED)
    assert (check.problems, check.masks, check.size) == ([], 2, path.stat().st_size)
    assert (check.pixels, check.target) == (2 * 40 * 60, 10 * 25 + 3 * 60)
    # Whatever the file is called, and however its entries are packed.
    path = packed(
        tmp_path,
        [(name, tmp_path / "a.tif") for name in WANTED],
        "upload",
        compression=zipfile.ZIP_DEFLATED,
    )
    assert check_submission(path, WANTED).problems == []


def test_one_bit_as_gdal_translate_makes_it(tmp_path):
    with rasterio.open(tiff(tmp_path / "a.tif")) as file:
        options = {"driver": "GTiff", "COMPRESS": "CCITTFAX4", "NBITS": 1}
        rasterio.shutil.copy(file, tmp_path / "bits.tif", **options)
    path = packed(tmp_path, [("a1.tif", tmp_path / "bits.tif")])
    check = check_submission(path, {"a1.tif": SIZE})
    assert (check.problems, check.target) == ([], 250)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pixels": np.zeros((*SIZE, 3), np.uint8)}, "has 3 bands; it must have one"),
        ({"pixels": np.zeros((*SIZE, 1), np.uint16)}, "pixels are uint16; they must be uint8"),
        ({"pixels": np.zeros((*SIZE, 1), np.float32)}, "pixels are float32; they must be uint8"),
        ({"nbits": 4, "pixels": np.zeros((*SIZE, 1), np.uint8)}, "pixels are of 4 bits"),
        ({"pixels": np.zeros((60, 40, 1), np.uint8)}, "has 40 x 60 pixels, its image 60 x 40"),
        ({"compress": "NONE"}, "is not compressed"),
        ({"photometric": "MINISWHITE"}, "stores 0 as white"),
        ({"photometric": "PALETTE"}, "has a colour table"),
    ],
)
def test_another_format_is_named(tmp_path, options, words):
    assert problem_of(tmp_path, tiff(tmp_path / "x.tif", **options)).startswith(f"a2.tif: {words}")


@pytest.mark.parametrize("value", [1, 254, 128])
def test_another_value_is_named_with_its_place(tmp_path, value):
    pixels = np.zeros((*SIZE, 1), np.uint8)
    pixels[39, 58:] = [[255], [value]]
    problem = problem_of(tmp_path, tiff(tmp_path / "x.tif", pixels))
    assert problem == f"a2.tif: has the value {value} at row 39, column 59; 0 and 255 are allowed"


def test_a_mask_of_void_is_named(tmp_path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = tiff(tmp_path / "x.tif")
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(40 * 60).reshape(SIZE) > 5)
    assert "has a mask of void pixels" in problem_of(tmp_path, path)


def test_what_is_no_tiff_is_named(tmp_path):
    text, picture = tmp_path / "x.tif", tmp_path / "x.png"
    text.write_text("no raster")
    assert "a2.tif: is no TIFF that can be read" in problem_of(tmp_path, text)
    with rasterio.open(tiff(tmp_path / "a.tif")) as file:
        rasterio.shutil.copy(file, picture, driver="PNG")
        rasterio.shutil.copy(file, tmp_path / "x.vrt", driver="VRT")
    assert "a2.tif: is no TIFF that can be read" in problem_of(tmp_path, picture)
    # It would read what is not in the zip file.
    assert "a2.tif: is no TIFF that can be read" in problem_of(tmp_path, tmp_path / "x.vrt")


def test_a_cut_tiff_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (*SIZE, 1)).astype(np.uint8) * 255
    path = tiff(tmp_path / "x.tif", noise)
    path.write_bytes(path.read_bytes()[:-100])
    assert problem_of(tmp_path, path).startswith("a2.tif: ")


def test_names_are_told_by_kind(tmp_path):
    file = tiff(tmp_path / "a.tif")
    folders = packed(tmp_path, [(f"up/{name}", file) for name in WANTED])
    assert check_submission(folders, WANTED).problems == [
        "2 of 2 entries are in folders or are folders: up/a1.tif, up/a2.tif; pack the files alone"
    ]
    others = packed(tmp_path, [("a1.tif", file), ("a2.png", file), ("read.me", file)])
    assert check_submission(others, WANTED).problems == [
        "2 entries belong to no test image: a2.png, read.me",
        "1 of 2 masks missing: a2.tif",
    ]
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = packed(tmp_path, [("a1.tif", file), ("a1.tif", file), ("a2.tif", file)])
    assert check_submission(twice, WANTED).problems == ["1 names occur more than once: a1.tif"]
    nothing = packed(tmp_path, [])
    assert check_submission(nothing, WANTED).problems == ["2 of 2 masks missing: a1.tif, a2.tif"]


def test_a_damaged_zip_file_is_named(tmp_path):
    path = packed(tmp_path, [(name, tiff(tmp_path / "a.tif")) for name in WANTED])
    content = bytearray(path.read_bytes())
    # Within the first entry.
    content[200] ^= 255
    (tmp_path / "bad.zip").write_bytes(content)
    (problem,) = check_submission(tmp_path / "bad.zip", WANTED).problems
    assert problem.startswith("a1.tif: cannot be unpacked: Bad CRC-32")
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-60])
    for name, words in (("cut.zip", "no zip file"), ("none.zip", "No such file")):
        with pytest.raises(DatasetError, match=words):
            check_submission(tmp_path / name, WANTED)


def test_official_names_are_wanted_whole_and_others_as_they_are(tmp_path):
    assert len(set(OFFICIAL_NAMES)) == 180
    assert wanted_tiles([]) == dict.fromkeys(OFFICIAL_NAMES, (5000, 5000))
    one = tiff(tmp_path / "sfo7.tif")
    wanted = wanted_tiles([one])
    assert wanted["sfo7.tif"] == SIZE and len(wanted) == 180
    assert wanted["tyrol-e36.tif"] == (5000, 5000)
    other = tiff(tmp_path / "town7.TIF")
    assert wanted_tiles([one, other]) == {"sfo7.tif": SIZE, "town7.TIF": SIZE}
    assert mask_name(tmp_path / "a.jp2") == "a.tif"
    with pytest.raises(RasterError):
        wanted_tiles([tmp_path / "sfo8.tif"])


def test_missing_masks_are_told_by_city():
    have = [name for name in OFFICIAL_NAMES if not name.startswith(("sfo", "innsbruck9."))]
    assert missing_masks(have, OFFICIAL_NAMES) == [
        "innsbruck: 1 of 36 masks missing: innsbruck9.tif",
        "sfo: none of its 36 masks is there",
    ]
    assert missing_masks(OFFICIAL_NAMES, OFFICIAL_NAMES) == []


def test_memory_does_not_grow_with_the_mask(tmp_path):
    peaks = []
    for height in (8_000, 24_000):
        path = tiff(tmp_path / f"{height}.tif", np.zeros((height, 1000, 1), np.uint8))
        archive = packed(tmp_path, [("a1.tif", path)])
        tracemalloc.start()
        assert check_submission(archive, {"a1.tif": (height, 1000)}).problems == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
