"""Names that GDAL takes, kept letter by letter, and what is read off them."""

import os
from pathlib import Path

import pytest

from preprocessing.image_names import RasterName

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
