import re
from pathlib import Path

import geopandas
import numpy as np
import pytest
from click.testing import CliRunner

from experiments.vectorise import main
from tests.mask_files import UTM, write, write_probabilities


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with masks and probabilities in it."""
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((60, 80), np.uint8)
    mask[5:25, 5:35] = mask[40:47, 3:77] = mask[55, 10] = 1
    write(tmp_path / "mask.tif", mask)
    write(tmp_path / "bare.tif", mask, UTM, None)
    write(tmp_path / "empty.tif", np.zeros((9, 9), np.uint8))
    write_probabilities(tmp_path / "p.tif", np.where(mask == 1, 0.75, 0.25))
    return tmp_path


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def fails(*words):
    """The one line that a call fails with; it changes nothing on disk."""
    before = names()
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert re.fullmatch("error: [^\n]+\n", result.stderr) and result.stdout == ""
    assert names() == before
    return result.stderr


def names():
    return {path: path.stat().st_mtime_ns for path in Path().rglob("*")}


def test_footprints_lie_beside_the_mask_with_a_style(folder):
    result = call("mask.tif", "--probabilities", "p.tif")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "mask.gpkg, mask.qml: 3 footprints, 280 m2 in all\n"
    frame = geopandas.read_file("mask.gpkg")
    assert frame.crs.to_epsg() == 32633 and frame.mean_probability.tolist() == [0.75] * 3
    assert 'class="SimpleFill"' in (folder / "mask.qml").read_text()


def test_roads_become_centre_lines_in_several_formats(folder):
    words = ["--target", "roads", "--min-area", "80", "--fill-holes", 5, "--simplify", 1]
    words += ["--prune", 5, "--output", "a/roads.geojson", "--output", "a/roads.fgb"]
    result = call("mask.tif", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    found = r"a/roads.geojson, a/roads.fgb, a/roads.qml: 2 centre lines, \d+ m in all\n"
    assert re.fullmatch(found, result.stdout)
    assert 'class="SimpleLine"' in (folder / "a" / "roads.qml").read_text()
    assert geopandas.read_file("a/roads.geojson").crs.to_epsg() == 4326
    assert geopandas.read_file("a/roads.fgb").geom_type.unique().tolist() == ["LineString"]


def test_all_that_can_be_asked_of_footprints(folder):
    pytest.importorskip("buildingregulariser")
    words = ["--min-area", 1, "--fill-holes", 1, "--simplify", 0.6, "--right-angles"]
    result = call("mask.tif", *words, "--output", "b.geojson")
    assert (result.exit_code, result.stderr) == (0, "")
    note, line = result.stdout.splitlines()
    assert note == "note: Right angles: 2 turned, 0 kept as they were."
    assert line.startswith("b.geojson, b.qml: 2 footprints, ")


def test_pixels_and_emptiness_are_said(folder):
    result = call("bare.tif", "--min-area", 5, "--output", "c.geojson")
    assert result.exit_code == 0 and result.stdout.startswith("note: The raster has no CRS")
    assert result.stdout.endswith("c.geojson, c.qml: 3 footprints, 1,119 px in all\n")
    result = call("empty.tif")
    assert result.stdout == "empty.gpkg, empty.qml: 0 footprints, 0 m2 in all\n"


def test_existing_files_are_refused_or_replaced(folder):
    (folder / "mask.gpkg").write_text("older")
    assert "mask.gpkg: exists already; --overwrite" in fails("mask.tif")
    assert call("mask.tif", "--overwrite").exit_code == 0
    assert len(geopandas.read_file("mask.gpkg")) == 3
    (folder / "mask.gpkg").unlink()
    assert "mask.qml: exists already" in fails("mask.tif")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.tif"], "none.tif: no such file"),
        (["."], "is a folder"),
        (["mask.tif", "--output", "a.shp"], ".gpkg, .geojson, .fgb, .parquet"),
        (["mask.tif", "--output", "a.gpkg", "--output", "./a.gpkg"], "twice"),
        (["mask.tif", "--probabilities", "empty.tif"], "same grid"),
        (["mask.tif", "--probabilities", "none.tif"], "none.tif: no such file"),
        (["p.tif"], "values"),
        (["mask.tif", "--min-area", "nan"], "--min-area"),
        (["mask.tif", "--simplify", "inf"], "--simplify"),
        (["mask.tif", "--fill-holes", "-1"], "--fill-holes"),
        (["mask.tif", "--target", "trees"], "--target"),
        (["mask.tif", "--target", "roads", "--right-angles"], "--right-angles goes with"),
        (["mask.tif", "--prune", "10"], "--prune goes with --target roads"),
        ([], "MASK"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(folder, words, said):
    assert said in fails(*words)


def test_an_input_is_not_written_over(folder):
    (folder / "mask.tif").rename(folder / "mask.gpkg")
    assert "is an input" in fails("mask.gpkg", "--overwrite")
