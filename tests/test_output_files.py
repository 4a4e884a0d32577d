import os

import pytest

from preprocessing.errors import OutputError
from preprocessing.output_files import replacing, replacing_folder


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as target:
        target.write_text("all")
        target.with_suffix(".aux").write_text("helper")
        assert not path.exists()
    assert path.read_text() == "all"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_everything_is_as_before(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path, overwrite=True) as target:
        target.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_existing_file_is_refused_before_the_work(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match="--overwrite"), replacing(path):
        raise AssertionError
    with replacing(path, overwrite=True) as target:
        target.write_text("new")
    assert path.read_text() == "new"


def test_a_file_that_another_wrote_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OutputError, match="exists"), replacing(path) as target:
        target.write_text("mine")
        path.write_text("theirs")
    assert path.read_text() == "theirs"


def test_a_folder_in_the_way_is_refused(tmp_path):
    with pytest.raises(OutputError, match="folder"), replacing(tmp_path, overwrite=True):
        raise AssertionError


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "f").write_text("")
    path = tmp_path / "f" / "a.txt"
    with pytest.raises(OutputError, match=r"a\.txt: cannot") as error, replacing(path):
        raise AssertionError
    assert "\n" not in str(error.value)


def test_a_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a"
    with replacing_folder(path) as made:
        (made / "b").mkdir()
        (made / "b" / "c.txt").write_text("all")
        assert not path.exists()
    assert (path / "b" / "c.txt").read_text() == "all"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_older_folder_stays_after_an_exception(tmp_path, error):
    path = tmp_path / "a"
    path.mkdir()
    (path / "mark").write_text("old")
    with pytest.raises(error), replacing_folder(path, True, "mark") as made:
        (made / "mark").write_text("half")
        raise error
    assert (path / "mark").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_only_a_folder_of_its_kind_is_replaced(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    with replacing_folder(path, holds="mark") as made:
        (made / "mark").write_text("first")
    with pytest.raises(OutputError, match="--overwrite"), replacing_folder(path, False, "mark"):
        raise AssertionError
    with replacing_folder(path, True, "mark") as made:
        (made / "other").write_text("second")
    assert os.listdir(path) == ["other"]
    with pytest.raises(OutputError, match="other things"), replacing_folder(path, True, "mark"):
        raise AssertionError
    with pytest.raises(OutputError, match="is a file"), replacing_folder(path / "other", True, ""):
        raise AssertionError
