import tracemalloc
import zipfile

import numpy as np
import pytest
import rasterio

from preprocessing.errors import DatasetError, RasterError
from preprocessing.inria_submission import (
    OFFICIAL_NAMES,
    check_submission,
    mask_name,
    missing_tiles,
    wanted_tiles,
)
from tests.helpers import write_image

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
        ({"pixels": np.zeros((*SIZE, 3), np.uint8)}, "has 3 bands, one is meant"),
        ({"pixels": np.zeros((*SIZE, 1), np.uint16)}, "pixels are uint16, uint8 is meant"),
        ({"pixels": np.zeros((*SIZE, 1), np.float32)}, "pixels are float32, uint8 is meant"),
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
    assert problem == f"a2.tif: has the value {value} at row 39, column 59; 0 and 255 are meant"


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
        "2 of 2 entries lie in folders or are some: up/a1.tif, up/a2.tif; pack the files alone"
    ]
    others = packed(tmp_path, [("a1.tif", file), ("a2.png", file), ("read.me", file)])
    assert check_submission(others, WANTED).problems == [
        "2 entries that are no test image's: a2.png, read.me",
        "1 of 2 masks missing: a2.tif",
    ]
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = packed(tmp_path, [("a1.tif", file), ("a1.tif", file), ("a2.tif", file)])
    assert check_submission(twice, WANTED).problems == [
        "1 names stand there more than once: a1.tif"
    ]
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


def test_missing_tiles_are_told_by_city():
    have = [name for name in OFFICIAL_NAMES if not name.startswith(("sfo", "innsbruck9."))]
    assert missing_tiles(have, OFFICIAL_NAMES) == [
        "innsbruck: 1 of 36 masks missing: innsbruck9.tif",
        "sfo: none of its 36 masks is there",
    ]
    assert missing_tiles(OFFICIAL_NAMES, OFFICIAL_NAMES) == []


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
