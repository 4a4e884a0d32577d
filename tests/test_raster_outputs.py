import os
from pathlib import Path

import pytest

from jointnet.raster_job import FOOTPRINTS, MASK, OVERLAY, PROBABILITIES, output_paths, style_of
from jointnet.raster_prediction import check_outputs
from preprocessing.errors import OutputError
from preprocessing.output_files import publish_all


def test_names_begin_with_the_stem():
    assert output_paths("a/b.c.tif", "out") == {
        MASK: Path("out/b.c_output.tif"),
        OVERLAY: Path("out/b.c_overlay.png"),
        FOOTPRINTS: Path("out/b.c_footprints.geojson"),
        style_of(FOOTPRINTS): Path("out/b.c_footprints.qml"),
    }
    assert [str(path) for path in output_paths("b.tif", "out", target="roads").values()] == [
        "out/b_output.tif",
        "out/b_overlay.png",
        "out/b_centre_lines.geojson",
        "out/b_centre_lines.qml",
    ]
    assert output_paths("b.tif", "out", True)[PROBABILITIES] == Path("out/b_probabilities.tif")


def test_what_is_free_passes(tmp_path):
    check_outputs([Path("a.tif"), Path("b.tif")], tmp_path / "not" / "there")


@pytest.mark.parametrize("kind", [MASK, OVERLAY, FOOTPRINTS, "_footprints.qml", PROBABILITIES])
def test_each_existing_output_is_refused(tmp_path, kind):
    (tmp_path / f"b{kind}").touch()
    images = [Path("a.tif"), Path("b.tif")]
    with pytest.raises(OutputError, match=f"b{kind}.*--overwrite"):
        check_outputs(images, tmp_path, probabilities=True)
    check_outputs(images, tmp_path, probabilities=True, overwrite=True)


def test_an_output_that_is_not_asked_for_is_in_no_way(tmp_path):
    (tmp_path / f"a{PROBABILITIES}").touch()
    check_outputs([Path("a.tif")], tmp_path)


def test_images_of_one_stem_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"x/a\.tif, y/a\.jpg.*--output"):
        check_outputs([Path("x/a.tif"), Path("b.tif"), Path("y/a.jpg")], tmp_path, overwrite=True)


def test_an_image_is_never_overwritten_by_the_outputs_of_another(tmp_path):
    images = [tmp_path / "a.tif", tmp_path / "a_output.tif"]
    with pytest.raises(OutputError, match="input image"):
        check_outputs(images, tmp_path, overwrite=True)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="--output names a folder"):
        check_outputs([Path("a.tif")], tmp_path / "out")


@pytest.fixture
def moves(tmp_path):
    """Two finished files, the places they go to, and an empty folder."""
    for folder in ("finished", "places", "aside"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / "finished" / name).write_text(f"new {name}")
    return [(tmp_path / "finished" / name, tmp_path / "places" / name) for name in ("a", "b")]


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_arrive(tmp_path, moves):
    publish_all(moves, tmp_path / "aside")
    assert contents(tmp_path / "places") == {"a": "new a", "b": "new b"}


def test_older_files_go_with_their_side_files(tmp_path, moves):
    for name in ("a", "a.aux.xml", "b", "b.ovr", "c.ovr"):
        (tmp_path / "places" / name).write_text("old")
    publish_all(moves, tmp_path / "aside", overwrite=True)
    assert contents(tmp_path / "places") == {"a": "new a", "b": "new b", "c.ovr": "old"}


def test_what_came_to_be_in_the_meantime_stays(tmp_path, moves):
    (tmp_path / "places" / "b").write_text("old")
    with pytest.raises(OutputError, match="exists"):
        publish_all(moves, tmp_path / "aside")
    assert contents(tmp_path / "places") == {"b": "old"}


@pytest.mark.parametrize("failure", [OSError("disk"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [{}, {"a": "old", "a.msk": "old", "b": "old"}])
@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
def test_all_or_none(tmp_path, moves, monkeypatch, failure, old, failing):
    """Whichever rename fails, the places are as they were."""
    for name, text in old.items():
        (tmp_path / "places" / name).write_text(text)
    replace, calls = os.replace, []
    renames = len(moves) + len(old)

    def fails(source, path):
        calls.append(path)
        if len(calls) == min(failing, renames):
            raise failure
        replace(source, path)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(type(failure)):
        publish_all(moves, tmp_path / "aside", overwrite=True)
    assert contents(tmp_path / "places") == old
