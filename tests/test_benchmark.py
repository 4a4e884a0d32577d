"""The benchmark's tables: real measurements of small things, and what is said of failures."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import benchmark, benchmark_prediction, measurements
from experiments.benchmark import ALL, GOALS, as_markdown, main
from experiments.measurements import blocks
from jointnet.prediction import WindowGrid
from jointnet.runs import Run
from preprocessing.errors import RunError
from preprocessing.tiling import VOID
from tests.helpers import CONFIG

pytestmark = pytest.mark.usefixtures("plain_graphs")

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
    found = benchmark_prediction.inference(160, "jointnet_quarter", "float32", 64)
    assert found["windows"] == len(WindowGrid(160, 160, 64, 16).windows())
    assert found["pixels"] == 160**2
    assert found["footprints"] > 0
    assert 0 < found["seconds_in_network"] < found["seconds_end_to_end"]
    assert found["network_share"] == pytest.approx(
        found["seconds_in_network"] / found["seconds_end_to_end"]
    )
    assert len(found["bare_batch_seconds"]) == 6


def test_a_square_kilometre_is_eleven_megapixels_and_a_ninth():
    hours = benchmark_prediction.planned_hours(1e6 / 0.09 / 3600)
    assert hours == pytest.approx(
        {
            "machine_hours_city_of_200_km2": 200,
            "machine_hours_county_of_2500_km2": 2500,
            "machine_hours_country_of_100000_km2": 100_000,
        }
    )


def test_memory_of_a_raster_of_its_own():
    found = benchmark_prediction.memory(rows=300, width=200, window=64)
    assert found["pixels"] == 300 * 200
    assert found["footprints"] > 0
    assert found["held_megabytes"] > 50
    assert found["megabytes_beyond"] >= 0


@pytest.fixture
def brightness(monkeypatch):
    """In place of a run: a stand-in network, one scene that it finds exactly, half of one void."""
    image = np.repeat(blocks(160, 0)[..., None], 3, axis=2)
    truth = (image[..., 0] > 170).astype(np.uint8)
    half = truth.copy()
    half[:80] = VOID
    run = Run(Path("run"), PixelNetwork(), CONFIG)
    monkeypatch.setattr(benchmark_prediction, "load_run", lambda folder, dtype: run)
    monkeypatch.setattr(
        benchmark_prediction, "_scenes", lambda run, data: [(image, truth), (image, half)]
    )


class PixelNetwork:
    def predict_on_batch(self, images):
        return np.where(images[..., :1] > 170, np.float32(1), np.float32(0))


class RowNetwork:
    """Answers with how far down in its window a pixel lies."""

    def predict_on_batch(self, images):
        rows = np.linspace(0, 1, images.shape[1], dtype=np.float32)
        return np.broadcast_to(rows[:, None, None], (*images.shape[:3], 1))


def test_windows_do_not_matter_to_a_network_of_single_pixels(brightness):
    for window, overlap, augment in ((32, 0, False), (32, 8, False), (64, 32, True)):
        found = benchmark_prediction.windows(
            "run", "data", "float32", window, overlap, augment, True
        )
        assert found["iou"] == 1
        assert found["changed_by_shift"] == 0
        assert found["mean_change_by_shift"] == 0
        assert found["seconds_per_megapixel"] > 0
    assert found["windows_per_megapixel"] == len(WindowGrid(160, 160, 64, 32).windows()) / 0.0256


def test_what_depends_on_the_window_changes_with_it(brightness, monkeypatch):
    run = Run(Path("run"), RowNetwork(), CONFIG)
    monkeypatch.setattr(benchmark_prediction, "load_run", lambda folder, dtype: run)
    found = benchmark_prediction.windows("run", "data", "float32", 32, 0, False, True)
    # Half a window further down every row is half a window off, but for the last windows of both,
    # which lie at the image's end.
    assert 0.7 * 16 / 31 < found["mean_change_by_shift"] < 16 / 31
    assert 0.7 < found["changed_by_shift"] < 1
    assert (
        benchmark_prediction.windows("run", "data", "float32", 128, 0, False, True)[
            "changed_by_shift"
        ]
        is None
    )


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
        stem = part if part in ("memory", "normalisation") else f"{part}_float32"
        content = json.loads((output / f"{stem}.json").read_text())
        assert content["goal"] == GOALS[part]
        assert content["rows"][0]["name"] == part
        text = (output / f"{stem}.md").read_text()
        assert "Some CPU, 2 cores" in text
        assert "`python experiments/benchmark.py all`, commit abc" in text
    assert len(json.loads((output / "normalisation.json").read_text())["rows"]) == 4


def test_files_are_named_after_what_was_measured(tmp_path):
    asked = benchmark.Asked(64, "jointnet_half", "float32", 1, Path("results/town"), tmp_path)
    assert benchmark.stem("inference", asked) == "inference_jointnet_half_float32"
    assert benchmark.stem("windows", asked) == "windows_town_float32"
    assert {benchmark.stem(part, asked) for part in benchmark.ROWS} > {"memory", "inria"}


def test_training_is_measured_at_each_setting_against_the_first(monkeypatch):
    def measure(name: str, crop: int, repeats: int, **setting) -> dict:
        fast = 2 if setting["precision"] == "mixed_bfloat16" else 1
        held = 100 + crop**2 * setting.get("micro_batch", 1) * 4 / fast / 2**20
        row = {"name": name, "crop": crop, "repeats": repeats, "megabytes": held, **setting}
        batch = setting.get("batch", 1)
        timed = {"patches_per_second": fast * 3.0, "step_processor_seconds": batch / fast}
        return row | (timed if repeats else {})

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark, "at_hand", lambda: True)
    rows = benchmark.training_rows(
        benchmark.Asked(64, "jointnet", "float32", 5, Path("town"), Path("data"))
    )
    assert [row["network"] for row in rows[:3]] == ["keras.layers", "keras.layers", "JointNet"]
    settings = {(row["precision"], row["rematerialise"]) for row in rows[2:8]}
    assert len(settings) == 6
    for row in rows:
        times = 2 if row["precision"] == "mixed_bfloat16" else 1
        assert row["bytes_per_pixel"] == pytest.approx(4 / times)
        assert row["memory_of_first"] == pytest.approx(1 / times)
        assert row["speed_of_first"] == row["processor_speed_of_first"] == times
        # Markdown has a line for every key of the first row.
        assert set(rows[0]) == set(row)


def test_windows_are_tried_from_no_overlap_to_half(monkeypatch):
    monkeypatch.setattr(benchmark, "load_run", lambda folder: Run(folder, None, CONFIG))
    monkeypatch.setattr(benchmark, "measure", lambda name, **arguments: arguments)
    asked = benchmark.Asked(64, "jointnet", "float32", 1, Path("town"), Path("data"))
    rows = benchmark.windows_rows(asked)
    assert [row["overlap"] for row in rows[:5]] == [0, 4, 8, 12, 16]
    assert [row["window"] for row in rows] == [32] * 5 + [48, 64, 32]
    assert [row["augment"] for row in rows] == [False] * 7 + [True]
    assert not any("data" in row or "model" in row for row in rows)


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
