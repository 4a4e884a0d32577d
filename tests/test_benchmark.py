"""The benchmark's tables: real measurements of small things, and what is said of failures."""

import json

import pytest
from click.testing import CliRunner

from experiments import benchmark, measurements
from experiments.benchmark import ALL, GOALS, as_markdown, main
from jointnet.window_bands import WindowGrid
from preprocessing.errors import RunError

MACHINE = {
    "processor": "Some CPU",
    "cores": 2,
    "devices": ["cpu:0"],
    "backend": "tensorflow",
    "packages": {"keras": "3.15.1", "tensorflow": "2.21.0"},
    "python": "3.11.7",
    "command": "benchmark.py all",
    "commit": "abc",
}


def test_inference_counts_every_window_of_the_grid():
    found = measurements.inference(160, "jointnet_quarter", "float32", 64)
    assert found["windows"] == len(WindowGrid(160, 160, 64, 16).windows())
    assert found["pixels"] == 160**2
    assert found["footprints"] > 0
    assert 0 < found["seconds_in_network"] < found["seconds_end_to_end"]
    assert found["network_share"] == pytest.approx(
        found["seconds_in_network"] / found["seconds_end_to_end"]
    )
    assert len(found["bare_batch_seconds"]) == 6


def test_batches_are_faster_than_training():
    found = measurements.batches(64, 2, "jointnet_quarter", "float32", 2)
    assert found["ratio"] == pytest.approx(found["step_seconds"] / found["batch_seconds"])
    assert found["ratio"] > 1
    low, high = found["batch_seconds_range"]
    assert 0 < low <= found["batch_seconds"] <= high


@pytest.mark.parametrize("layer", measurements.LAYERS)
def test_the_gradient_takes_longer_than_the_forward_pass_alone(layer):
    found = measurements.normalisation(layer, [2, 128, 128, 16], 2, "float32", 5)
    assert 0 < found["forward_seconds"] < found["gradient_seconds"]


def test_a_measurement_runs_in_a_process_of_its_own():
    arguments = {"layer": "keras", "shape": [2, 256, 256, 32], "depth": 1}
    arguments |= {"dtype": "float32", "repeats": 1}
    found = benchmark.measure("normalisation", **arguments)
    assert found["shape"] == [2, 256, 256, 32]
    # At least the output of 17 MB, and less than what two dozen copies would take.
    assert 16 < found["gradient_megabytes"] < 400
    # The interpreter with Keras and its backend in memory.
    assert found["peak_megabytes"] > 100


def test_a_measurement_that_fails_is_one_line():
    with pytest.raises(RunError, match=r"measurement of normalisation .* failed: .*KeyError") as e:
        benchmark.measure(
            "normalisation", layer="none", shape=[1], depth=1, dtype="float32", repeats=1
        )
    assert "\n" not in str(e.value)


def test_tables_name_machine_command_and_goal(tmp_path, monkeypatch):
    row = {"shape": [2, 3], "seconds": 0.12345, "windows": 1234, "layer": "keras", "all": [1.0]}
    monkeypatch.setattr(benchmark, "measure", lambda name, **arguments: row | {"name": name})
    monkeypatch.setattr(benchmark, "environment", lambda: MACHINE)
    output = tmp_path / "tables"
    done = CliRunner().invoke(main, ["all", "--output", str(output)])
    assert done.exit_code == 0, done.output
    for part in ALL:
        stem = part if part == "normalisation" else f"{part}_float32"
        content = json.loads((output / f"{stem}.json").read_text())
        assert content["goal"] == GOALS[part]
        assert content["rows"][0]["name"] == part
        text = (output / f"{stem}.md").read_text()
        assert "Some CPU, 2 cores" in text
        assert "`python experiments/benchmark.py all`, commit abc" in text
    assert len(json.loads((output / "normalisation.json").read_text())["rows"]) == 4


def test_markdown_has_a_line_per_quantity_and_a_column_per_row():
    row = {"shape": [2, 3], "seconds": 0.12345, "windows": 1234, "megabytes": 2345.6, "raw": [1.0]}
    lines = as_markdown("inference", {"rows": [row, row], "machine": MACHINE}).splitlines()
    assert "| shape | 2 x 3 | 2 x 3 |" in lines
    assert "| seconds | 0.123 | 0.123 |" in lines
    assert "| windows | 1,234 | 1,234 |" in lines
    assert "| megabytes | 2,346 | 2,346 |" in lines
    assert not any(line.startswith("| raw") for line in lines)


def test_tables_that_exist_stay(tmp_path):
    (tmp_path / "inference_float32.md").write_text("kept")
    done = CliRunner().invoke(main, ["inference", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert "inference_float32.md" in done.stderr
    assert (tmp_path / "inference_float32.md").read_text() == "kept"
