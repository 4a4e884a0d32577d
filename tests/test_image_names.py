"""Names that GDAL takes, kept letter by letter, and what is read off them."""

import os
from pathlib import Path

import pytest

from jointnet.raster_job import outputs_of
from preprocessing.errors import RasterError
from preprocessing.image_names import RasterName, find_images, read_list

HTTP = "http://host/x/a.tif"
TOKEN = "?se=2026-01-01&sp=r&sig=ab%2Fc%3D"


@pytest.mark.parametrize(
    ("text", "name", "stem", "url", "virtual"),
    [
        ("a.tif", "a.tif", "a", "", False),
        ("/x//y/a.b.tif", "a.b.tif", "a.b", "", False),
        ("/vsicurl/" + HTTP, "a.tif", "a", HTTP, True),
        (HTTP, "a.tif", "a", HTTP, True),
        (HTTP + TOKEN, "a.tif", "a", HTTP + TOKEN, True),
        ("/vsicurl?max_retry=3&url=http%3A%2F%2Fhost%2Fx%2Fa.tif", "a.tif", "a", HTTP, True),
        ("/vsizip//abs/a.zip/in/b.tif", "b.tif", "b", "", True),
        ("/vsizip//vsicurl/http://host/x/a.tif", "a.tif", "a", HTTP, True),
        ("s3://bucket/key.tif", "key.tif", "key", "", True),
        ("zip:///abs/a.zip!b.tif", "a.zip!b.tif", "a.zip!b", "", True),
        ("GTIFF_DIR:1:/abs/a.tif", "a.tif", "a", "", False),
    ],
)
def test_what_a_name_says(text, name, stem, url, virtual):
    found = RasterName(text)
    assert found == text and str(found) == text and os.fspath(found) == text and f"{found}" == text
    assert (found.name, found.stem, found.url, found.is_virtual) == (name, stem, url, virtual)
    assert not found.is_file()
    assert found.resolve() == text


def test_a_file_is_told_from_others_by_where_it_leads(tmp_path):
    (tmp_path / "a.tif").touch()
    os.symlink("a.tif", tmp_path / "b.tif")
    name = RasterName(tmp_path / "b.tif")
    assert name.is_file() and name.name == "b.tif"
    assert name.resolve() == Path(tmp_path, "a.tif").resolve()


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", True),
        ("?id=5", True),
        ("?design=x&insig=2", True),
        (TOKEN, False),
        ("?X-Amz-Date=1&X-Amz-Signature=ab", False),
        ("?X-Goog-Signature=ab&id=5", False),
        ("?Expires=9&Signature=ab", False),
    ],
)
def test_a_signature_is_no_part_of_what_a_file_is(query, kept):
    assert RasterName(HTTP + query).unsigned_url == HTTP + query * kept


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tif").touch()
    return tmp_path


def make(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def found(*values, data=Path("data")):
    return [str(image) for image in find_images(values, data, outputs_of)]


def test_a_file_a_folder_and_a_pattern(folder):
    make(folder / "many", "b.tif", "c.PNG", "d.jpg", "e.vrt", "notes.txt", ".e.tif", "b.tif.ovr")
    (folder / "many" / "below.tif").mkdir()
    assert found("a.tif") == ["a.tif"]
    assert found("many") == ["many/b.tif", "many/c.PNG", "many/d.jpg", "many/e.vrt"]
    assert found("many/*.vrt") == ["many/e.vrt"]
    assert found("many/[b-d]*") == ["many/b.tif", "many/b.tif.ovr", "many/c.PNG", "many/d.jpg"]
    assert found("many/d.jpg", "a.tif", str(folder / "many" / "[a-d]*[gG]")) == [
        "many/d.jpg",
        "a.tif",
        str(folder / "many" / "c.PNG"),
    ]


def test_a_pattern_reaches_folders_in_folders(folder):
    make(folder / "x" / "y", "b.tif")
    make(folder / "x", "c.tif")
    assert found("x/**/*.tif") == ["x/c.tif", "x/y/b.tif"]


def test_what_an_earlier_prediction_wrote_is_no_image(folder):
    written = ["_output.tif", "_overlay.png", "_probabilities.tif", "_footprints.geojson"]
    written += ["_footprints.qml", "_centre_lines.geojson", "_centre_lines.qml"]
    make(folder / "x", "b.tif", "c_output.tif", *(f"b{kind}" for kind in written))
    assert found("x") == found("x/*") == ["x/b.tif", "x/c_output.tif"]


def test_a_bare_name_is_sought_among_the_test_images(folder):
    images = folder / "data" / "AerialImageDataset" / "test" / "images"
    make(images, "a.tif", "sfo1.tif", "sfo2.tif")
    assert find_images(["sfo1.tif"], Path("data"))[0].resolve() == images / "sfo1.tif"
    assert found("a.tif") == ["a.tif"]
    assert [Path(name).name for name in found("sfo*")] == ["sfo1.tif", "sfo2.tif"]
    with pytest.raises(RasterError, match=r"^\./sfo1\.tif: no such image;"):
        found("./sfo1.tif")


def test_a_name_with_pattern_signs_is_a_file_first(folder):
    make(folder, "x[1].tif", "x1.tif")
    assert found("x[1].tif") == ["x[1].tif"]


def test_what_only_gdal_opens_is_kept_as_it_was_given(folder):
    names = [
        "/vsicurl/https://host/a.tif",
        f"/vsizip/{folder}/a.zip/in/b.tif",
        "s3://bucket//c.tif",
        "https://host/d.tif?x=a//b",
        'NETCDF:"/abs//e.nc":red',
    ]
    assert found(*names, names[0]) == names


# Lists


def listed(folder, text, name="list.txt", **options):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text, **options)
    return name


def test_a_list_names_one_a_line_from_its_own_folder(folder):
    make(folder / "town", "b.tif", "c.tif")
    make(folder, "b.tif")
    text = f"# of May\n\n b.tif \n/vsicurl/https://host/a.tif\n{folder}/a.tif\n  # b\nc*\n"
    name = listed(folder, text, "town/list.txt")
    expected = [
        "town/b.tif",
        "/vsicurl/https://host/a.tif",
        f"{folder}/a.tif",
        "town/c.tif",
    ]
    assert found(name) == expected
    # Beside others; each raster once.
    assert found("a.tif", name) == ["a.tif", expected[0], expected[1], expected[3]]


def test_patterns_from_a_folder_with_pattern_signs_in_its_name(folder):
    make(folder / "x[1]", "b.tif", "c.tif")
    name = listed(folder, "*.tif\n", "x[1]/list.txt")
    assert found(name) == ["x[1]/b.tif", "x[1]/c.tif"]
    make(folder / "data[1]" / "AerialImageDataset" / "test" / "images", "sfo1.tif")
    assert [Path(name).name for name in found("sfo*", data=Path("data[1]"))] == ["sfo1.tif"]


def test_a_list_made_on_windows(folder):
    make(folder, "ä.tif")
    name = listed(folder, "a.tif\r\nä.tif\r\n", encoding="utf-8-sig", newline="")
    assert found(name) == ["a.tif", "ä.tif"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a.tif\n\nb.tif\n", r"^list\.txt, line 3: b\.tif: no such image \(paths start at"),
        (b"", r"^list\.txt: names no image"),
        (b"# a.tif\n \n", r"^list\.txt: names no image"),
        (b"\xff\xd8\x00", r"^list\.txt: a list is text with a path a line"),
    ],
)
def test_lists_that_name_nothing(folder, content, words):
    (folder / "list.txt").write_bytes(content)
    with pytest.raises(RasterError, match=words) as caught:
        found("a.tif", "list.txt")
    assert "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read_is_one_line(folder):
    with pytest.raises(RasterError, match=r"none\.txt: a list is text"):
        read_list(folder / "none.txt", outputs_of)
    with pytest.raises(RasterError, match=r"^none\.txt: no such image, neither here"):
        found("none.txt")


def test_links_to_one_file_are_one_raster(folder):
    os.symlink("a.tif", "link.tif")
    assert find_images(["link.tif", "a.tif"], folder) == [RasterName("link.tif")]
