"""What may be compared with what: pairing by scene, names, and what is missing."""

from pathlib import Path

import pytest

from jointnet.mask_comparison import mask_sets
from jointnet.run_comparison import is_run
from preprocessing.errors import DatasetError
from preprocessing.scenes import short_names


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names_in(files: dict[str, Path]) -> dict[str, str]:
    return {scene: file.name for scene, file in files.items()}


def test_folders_pair_by_stem_with_and_without_our_suffix(tmp_path):
    ours = touch(tmp_path / "ours", "b2_output.tif", "a1_output.tif", "a1_overlay.png")
    theirs = touch(tmp_path / "theirs", "a1.png", "b2.jpg")
    sets = mask_sets([ours], theirs)
    assert [one.name for one in sets] == ["ours", "theirs"]
    assert names_in(sets[0].files) == {"a1": "a1_output.tif", "b2": "b2_output.tif"}
    assert names_in(sets[1].files) == {"a1": "a1.png", "b2": "b2.jpg"}


def test_files_alone_are_one_scene_whatever_their_names(tmp_path):
    touch(tmp_path, "a_output.tif", "b.png", "c.jpg")
    sets = mask_sets([tmp_path / "a_output.tif", tmp_path / "b.png"], tmp_path / "c.jpg")
    assert [names_in(one.files) for one in sets] == [
        {"a": "a_output.tif"},
        {"a": "b.png"},
        {"a": "c.jpg"},
    ]


def test_a_file_takes_its_partner_of_a_folder(tmp_path):
    truth = touch(tmp_path / "gt", "a.tif", "b.tif")
    touch(tmp_path, "b_output.tif")
    sets = mask_sets([tmp_path / "b_output.tif"], truth)
    assert [names_in(one.files) for one in sets] == [{"b": "b_output.tif"}, {"b": "b.tif"}]
    touch(tmp_path, "c.tif")
    with pytest.raises(DatasetError, match="gt has no mask of c$"):
        mask_sets([tmp_path / "c.tif"], truth)


def test_all_that_is_missing_is_named(tmp_path):
    a = touch(tmp_path / "a", *(f"town{number}.tif" for number in range(1, 9)))
    b = touch(tmp_path / "b", "town8.tif", "other.tif")
    with pytest.raises(DatasetError) as error:
        mask_sets([a, b], None)
    assert (
        f"{a} has no mask of other; {b} has no mask of town1, town2, town3, town4, town5 and 2"
        in str(error.value)
    )


@pytest.mark.parametrize(
    ("files", "given", "words"),
    [
        (["a/x.tif"], ["a"], "got 1 input"),
        (["a/x.tif"], ["a", "b"], "b: no such file or folder"),
        (["a/x.tif", "b/x.txt"], ["a", "b"], "b holds no masks"),
        (["a/x.tif", "x.geojson"], ["a", "x.geojson"], "evaluate.py --labels takes polygons"),
        (["a/x.tif", "b/x.tif", "b/x.png"], ["a", "b"], "several masks of one name: x.png, x.tif"),
    ],
)
def test_what_is_refused(tmp_path, files, given, words):
    for file in files:
        touch((tmp_path / file).parent, Path(file).name)
    with pytest.raises(DatasetError, match=words):
        mask_sets([tmp_path / name for name in given], None)


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / name for name in ("x/masks", "y/masks", "z")]
    assert short_names(paths) == ["x/masks", "y/masks", "z"]
    assert short_names([paths[0], paths[0]]) == ["masks", "masks (2)"]


def test_a_run_has_a_config(tmp_path):
    assert is_run(touch(tmp_path / "run", "config.json"))
    assert not is_run(touch(tmp_path / "masks", "a.tif"))
    assert not is_run(tmp_path / "masks" / "a.tif")
