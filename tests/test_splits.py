"""What is held back: names, indices, shares; never a part of a tile, never a whole side."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.errors import DatasetError
from preprocessing.layouts import hold_back, patch_note
from preprocessing.scenes import Scene


def scenes(*names: str, source: str | None = None) -> list[Scene]:
    """Scenes of places of one letter: ``a1_7`` is patch 7 of tile a1 of place a."""
    return [
        Scene(
            name=name,
            place=name[0],
            index=int(name[1]) if name[1:2].isdigit() else None,
            split="train",
            image=Path(source or "folder") / f"{name}.tif",
            label=Path("labels") / f"{name}.tif",
            label_kind="raster",
            source=source,
        )
        for name in names
    ]


def held_back(listed: list[Scene], validation=None) -> list[str]:
    found = hold_back(listed, validation, "folder")
    assert [scene.name for scene in found] == [scene.name for scene in listed]
    return [scene.name for scene in found if scene.split == "validation"]


def test_every_fifth_tile_by_default_whatever_the_order():
    names = [f"a{number}" for number in range(1, 8)]
    assert held_back(scenes(*names)) == ["a1", "a6"]
    assert sorted(held_back(scenes(*reversed(names)))) == ["a1", "a6"]


@pytest.mark.parametrize("validation", [None, 0.34, ("a1",), (1,), ("a1_0",)])
def test_patches_of_a_tile_stay_together(validation):
    listed = scenes("a1_0", "a1_1", "a2_0", "a2_1", "a3")
    assert held_back(listed, validation) == ["a1_0", "a1_1"]


GRID = [f"{row}_{column}" for row in (0, 256, 512) for column in (0, 256)]


@pytest.mark.parametrize("validation", [None, 0.34, ("austin1",), ("austin1_256_0",)])
def test_patches_named_by_row_and_column_stay_with_their_tile(validation):
    listed = scenes(*(f"{tile}_{place}" for tile in ("austin1", "b_2", "c") for place in GRID))
    assert held_back(listed, validation) == [f"austin1_{place}" for place in GRID]
    assert patch_note(listed) is None


@pytest.mark.parametrize("validation", [None, (10078660,)])
def test_tiles_of_row_and_column_may_be_numbers(validation):
    listed = scenes(*(f"{tile}_15_{n}" for tile in (10078660, 20078660) for n in range(3)))
    assert held_back(listed, validation) == [f"10078660_15_{n}" for n in range(3)]


def test_patches_of_the_only_tile_are_split_and_it_is_said():
    listed = scenes(*(f"ortho_{place}" for place in GRID))
    assert held_back(listed) == ["ortho_0_0", "ortho_512_256"]
    assert held_back(listed, ("ortho_256_0",)) == ["ortho_256_0"]
    note = patch_note(listed)
    assert note.startswith("by their names (ortho_0_0, ...) all scenes are patches of ortho: if")
    assert "\n" not in note
    # One of two sources stands on one side as a whole.
    other = scenes("ortho_0_0", "ortho_0_256", source="other")
    assert held_back(listed + other) == [scene.name for scene in listed]
    assert patch_note(listed + other) is None


@pytest.mark.parametrize(
    "names", [(), ("a1",), ("a1", "a2"), ("a1_0", "a1_1"), ("10078660_15", "10078675_15")]
)
def test_other_names_need_no_word(names):
    assert patch_note(scenes(*names)) is None


def test_a_name_that_is_a_number_can_be_named_by_it():
    listed = [replace(scene, index=None) for scene in scenes("1", "2", "007", "100034")]
    assert held_back(listed, [7, 100034]) == ["007", "100034"]
    assert held_back(listed, ["2"]) == ["2"]


def test_names_indices_and_places_may_be_mixed():
    listed = scenes("a1", "a2", "b1", "b2", "c1", "c2", "d")
    assert held_back(listed, ("a1", "c", 2)) == ["a1", "a2", "b2", "c1", "c2"]
    assert held_back(listed, ["d"]) == ["d"]
    assert held_back(listed, {2, 9}) == ["a2", "b2", "c2"]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.2, ["a0", "a5"]),
        (0.5, ["a0", "a2", "a4", "a6", "a8"]),
        (0.34, ["a0", "a3", "a6"]),
        (0.01, ["a0"]),
        (0.99, [f"a{n}" for n in range(10) if n != 9]),
    ],
)
def test_a_share_is_taken_at_even_distances(share, expected):
    assert held_back(scenes(*(f"a{n}" for n in range(10))), share) == expected


@settings(deadline=None)
@given(st.integers(2, 200), st.floats(0.001, 0.999))
def test_a_share_is_met_to_the_nearest_tile(count, share):
    listed = scenes(*(f"b{n:03}_0" for n in range(count)))
    found = held_back(listed, share)
    assert len(found) == min(max(1, round(share * count)), count - 1)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(DatasetError, match="lies between 0 and 1, such as 0.2"):
        hold_back(scenes("a1", "a2"), share, "folder")


def test_sources_are_counted_one_after_the_other():
    listed = scenes("z1", "z2", "z3", source="first") + scenes("a1", "a2", "a3", source="second")
    assert held_back(listed) == ["z1", "a3"]
    assert held_back(listed, 0.34) == ["z1", "a1"]


def test_tiles_of_one_name_in_two_sources_are_two_tiles():
    listed = scenes("a1_0", "a1_1", source="first") + scenes("a1_2", "a2_0", source="second")
    assert held_back(listed, ("a1_0",)) == ["a1_0", "a1_1"]
    assert held_back(listed, ("a1",)) == ["a1_0", "a1_1", "a1_2"]


def test_unknown_names_are_named_and_unknown_indices_are_not():
    with pytest.raises(DatasetError, match="names no raster of folder: A1, e"):
        hold_back(scenes("a1", "a2"), ("A1", "e", 1), "folder")


@pytest.mark.parametrize("validation", [(), (7,), ("a",), (1, 2)])
def test_a_side_without_scenes_is_an_error(validation):
    side = "training" if validation in (("a",), (1, 2)) else "validation"
    with pytest.raises(DatasetError, match=f"no {side} scene among 2 raster"):
        hold_back(scenes("a1", "a2"), validation, "folder")


@pytest.mark.parametrize("validation", [None, 0.5])
def test_one_raster_cannot_be_split(validation):
    with pytest.raises(DatasetError, match="no training scene among 1 raster"):
        hold_back(scenes("a1"), validation, "folder")


def test_nothing_cannot_be_split():
    with pytest.raises(DatasetError, match="no validation scene among 0 raster"):
        hold_back([], None, "folder")
