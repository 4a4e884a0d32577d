"""What a comparison leaves on disk: tables, maps, all or nothing."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from jointnet.mask_comparison import compare, comparison_text
from preprocessing.errors import LabelError, OutputError, RunError
from tests.helpers import write_image
from tests.test_run_comparison import BETTER, WORSE, make

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], np.uint8)


def folders(tmp_path: Path, *names: str) -> tuple[Path, Path, Path]:
    """Masks a and b, and a truth, of so many scenes; b is the truth itself."""
    for name in names:
        for folder, mask in (("a", FOUND), ("b", TRUTH), ("gt", TRUTH)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{name}.tif", mask[..., None] * np.uint8(255))
    return tmp_path / "a", tmp_path / "b", tmp_path / "gt"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_tables_and_maps(tmp_path):
    a, b, truth = folders(tmp_path, "x1", "y1")
    content = compare([a, b], truth, output=tmp_path / "out")
    assert files_in(tmp_path / "out") == {
        "comparison.json",
        "comparison.csv",
        *(f"errors/{mask}/{scene}.tif" for mask in "ab" for scene in ("x1", "y1")),
    }
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == content
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["table"] for row in rows} == {"metrics", "agreement", "differences"}
    overall = [
        r for r in rows if (r["table"], r["mask"], r["place"]) == ("metrics", "a", "overall")
    ]
    assert [(row["iou"], row["true_positive"]) for row in overall] == [("0.6", "6")]
    with rasterio.open(tmp_path / "out" / "errors" / "a" / "x1.tif") as file:
        assert file.read(1).tolist() == [[0, 2, 3, 3], [0, 0, 1, 3]]
        assert file.crs.to_epsg() == 32633


def test_without_a_truth_the_first_takes_its_part(tmp_path):
    a, b, _ = folders(tmp_path, "x1")
    content = compare([a, b], output=tmp_path / "out")
    assert "metrics" not in content
    with rasterio.open(tmp_path / "out" / "differences" / "b" / "x1.tif") as file:
        assert file.read(1).tolist() == [[0, 1, 3, 3], [0, 0, 2, 3]]


def test_nothing_is_written_without_an_output_and_no_maps_if_not_wanted(tmp_path):
    a, b, truth = folders(tmp_path, "x1")
    before = files_in(tmp_path)
    content = compare([a, b], truth)
    assert files_in(tmp_path) == before
    assert compare([a, b], truth, output=tmp_path / "out", maps=False) == content
    assert files_in(tmp_path / "out") == {"comparison.json", "comparison.csv"}


@pytest.mark.parametrize("name", ["comparison.csv", "errors/b/x1.tif"])
def test_what_exists_stays_unless_it_shall_not(tmp_path, name):
    a, b, truth = folders(tmp_path, "x1")
    existing = tmp_path / "out" / name
    existing.parent.mkdir(parents=True)
    existing.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        compare([a, b], truth, output=tmp_path / "out")
    assert files_in(tmp_path / "out") == {name}
    assert existing.read_text() == "mine"
    compare([a, b], truth, output=tmp_path / "out", overwrite=True)
    assert existing.read_bytes() != b"mine"


def test_a_failure_at_the_last_scene_leaves_nothing(tmp_path):
    a, b, truth = folders(tmp_path, "x1", "y1")
    write_image(b / "y1.tif", TRUTH[:1, :, None])
    with pytest.raises(LabelError, match="4 x 1 pixels"):
        compare([a, b], truth, output=tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == []


def test_runs_are_listed(tmp_path):
    runs = [make(tmp_path / "a", WORSE, epochs=1), make(tmp_path / "b", BETTER, epochs=2)]
    content = compare([*runs, tmp_path / "none"], output=tmp_path / "out")
    assert files_in(tmp_path / "out") == {"comparison.json", "comparison.csv"}
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["name"], r["place"]) for r in rows if r["place"] == "overall"] == [
        ("a", "overall"),
        ("b", "overall"),
    ]
    text = comparison_text(content)
    assert "Skipped: none: no such file or folder" in text
    assert "epochs   1  2" in text
    assert "b - a              0.6  higher   +0.080  +0.080 to +0.080  7 scenes" in text


def test_a_run_takes_no_truth(tmp_path):
    with pytest.raises(RunError, match="a truth and --align are for masks"):
        compare([make(tmp_path / "a", WORSE)], tmp_path)


def test_text_says_what_was_found(tmp_path):
    a, b, truth = folders(tmp_path, "x1", "x2", "y1")
    text = comparison_text(compare([a, b], truth))
    assert "a, b   overall       3      24  0.750  0.600  0.500" in text
    assert "a     x             2      16  0.600" in text
    assert (
        "b - a              too few to tell (6 needed)  +0.400  +0.400 to +0.400  3 tiles" in text
    )
