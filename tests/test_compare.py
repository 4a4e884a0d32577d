"""The command that compares: masks, runs, and a figure on a real mask."""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from experiments.compare import main
from jointnet.mask_comparison import compare
from preprocessing.rasters import GreyMaskReader
from preprocessing.tiling import Window
from tests.helpers import write_image
from tests.test_comparison_files import files_in, folders

RESULTS = Path(__file__).resolve().parents[1] / "results"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_masks_against_a_truth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b, truth = folders(tmp_path, "x1", "y1")
    done = run(a, b, "--truth", truth, "--no-maps")
    assert done.exit_code == 0, done.output
    assert f"Against {truth}" in done.output
    assert done.output.endswith(f"written to {Path('results', 'comparison')}\n")
    assert files_in(tmp_path / "results") == {
        "comparison/comparison.json",
        "comparison/comparison.csv",
    }
    assert run(a, b, "--truth", truth, "--no-maps").exit_code == 2
    assert run(a, b, "--truth", truth, "--no-maps", "--overwrite").exit_code == 0


def test_runs_are_printed_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*sorted(RESULTS.iterdir()))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("Skipped, no runs: README.md, benchmark")
    assert any(line.split()[:2] == ["network.class", "JointNet"] for line in lines)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "Missing argument"),
        (["gone"], "got 1 input(s)"),
        (["gone", "gone"], "no such file or folder"),
        ([RESULTS / "open_roads", "--truth", "gone"], "are for masks"),
    ],
)
def test_errors_are_one_line(words, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2
    assert error in done.output
    assert len(done.output.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_a_real_mask_and_itself_a_pixel_aside(real_data, tmp_path):
    """What one pixel costs: figures taken with numpy from the whole arrays."""
    jpeg = real_data / "full_tile_masks" / "bellingham15_output.jpg"
    with GreyMaskReader(jpeg) as reader:
        mask = reader.read(Window(0, 0, 5000, 5000))
    paths = [
        write_image(tmp_path / name, cut[..., None])
        for name, cut in (("here.tif", mask[:, :-1]), ("shifted.tif", mask[:, 1:]))
    ]
    content = compare(paths)
    here, there = mask[:, :-1] == 1, mask[:, 1:] == 1
    found = content["agreement"][0]
    assert found["pixels"] == 4999 * 5000
    assert found["equal"] == np.mean(here == there)
    assert found["iou"] == np.sum(here & there) / np.sum(here | there)
    assert round(found["equal"], 3) == 0.995
    assert round(found["iou"], 3) == 0.939
    # The JPEG itself is as good as its thresholded copy.
    whole = write_image(tmp_path / "whole.tif", mask[..., None])
    content = compare([jpeg], whole)
    assert content["metrics"][0]["iou"] == 1
    assert "thresholded at 128" in content["scenes"][0]["notes"][0]
