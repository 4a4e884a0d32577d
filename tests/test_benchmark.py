"""The benchmark's tables: real measurements of small things, and how failures are reported."""

import importlib
import inspect
import json
from itertools import product
from pathlib import Path

import geopandas
import keras
import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner

from experiments import benchmark, benchmark_prediction, benchmark_training, measurements
from experiments.benchmark import PARTS, as_markdown, main
from experiments.benchmark_training import (
    Constant,
    convolution_operations,
    generated_batch,
    input_cost,
    plain_jointnet,
    step_cost,
    training,
)
from experiments.measurements import blocks
from jointnet import JointNet
from jointnet.prediction import WindowGrid
from jointnet.raster_prediction import predict_raster
from jointnet.runs import Run
from preprocessing.errors import RunError
from preprocessing.tiling import VOID
from tests.helpers import CONFIG, error, stand_in_run

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
WITHOUT_DATA = ("inference", "memory", "training", "input", "evaluation")


def asked(**options) -> benchmark.Asked:
    defaults = {"size": 64, "variant": "jointnet", "precision": "float32", "repeats": 1}
    places = {"model": Path("results/town"), "data": Path("data")}
    return benchmark.Asked(**defaults | places | options)


# Each measurement in a process of its own


@pytest.fixture
def holding(tmp_path, monkeypatch):
    """A module for other processes, whose function holds some memory."""
    (tmp_path / "holding.py").write_text(
        "import os\n"
        "from experiments.measurements import peak_megabytes, restart_peak\n"
        "def hold(megabytes):\n"
        "    before = restart_peak()\n"
        "    held = b'x' * (megabytes * 2**20)\n"
        "    return {'grown': peak_megabytes() - before, 'some': os.environ.get('SOME')}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_measurement_runs_in_a_process_of_its_own(holding):
    found = measurements.measure("holding:hold", {"SOME": "thing"}, megabytes=64)
    assert found["megabytes"] == 64
    assert found["some"] == "thing"
    assert 60 < found["grown"] < 80
    # The interpreter besides.
    assert found["peak_megabytes"] > 64 + 5


def test_a_measurement_that_fails_is_one_line(holding):
    with pytest.raises(RunError, match=r"holding:hold with .* failed: .*TypeError") as e:
        measurements.measure("holding:hold", megabytes="many")
    assert "\n" not in str(e.value)


# Prediction


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


def pairs_that_touch(frame: geopandas.GeoDataFrame) -> list[tuple]:
    shapes = frame.geometry.to_numpy()
    tree = shapely.STRtree(shapes)
    one, other = tree.query(shapes, predicate="touches")
    return [(shapes[a], shapes[b]) for a, b in zip(one, other, strict=True) if a < b]


def held(frame: geopandas.GeoDataFrame, columns: np.ndarray, rows: np.ndarray) -> bool:
    """Whether each point lies inside of a polygon, not on the edge of one."""
    tree = shapely.STRtree(frame.geometry.to_numpy())
    inside = tree.query(shapely.points(columns, rows), predicate="within")[0]
    return len(np.unique(inside)) == len(columns)


@pytest.mark.slow
def test_four_tiles_of_a_town(real_data, tmp_path):
    folder = real_data / "aerial_buildings" / "train" / "images"
    tiles = [folder / f"barnarp{number}.tif" for number in (1, 2, 5, 6)]
    with rasterio.open(tiles[0]) as tile:
        height, width = tile.shape
    town = written_as_vrt(tmp_path / "town.vrt", tiles)
    # Not the network: it sees whole windows, and they lie otherwise in a tile.
    run = stand_in_run(window=256, overlap=32, threshold=0.6)
    whole = predict_raster(run, town, tmp_path / "town")
    with rasterio.open(whole.outputs[0]) as file:
        mask = file.read(1)
    assert mask.shape == (2 * height, 2 * width)
    for (row, column), tile in zip(product(range(2), range(2)), tiles, strict=True):
        done = predict_raster(run, tile, tmp_path / tile.stem)
        with rasterio.open(done.outputs[0]) as file:
            alone = file.read(1)
        part = mask[row * height : (row + 1) * height, column * width : (column + 1) * width]
        # At its border a tile is mirrored, where the town goes on.
        np.testing.assert_array_equal(part[1:-1, 1:-1], alone[1:-1, 1:-1])

    found = geopandas.read_file(whole.outputs[2])
    assert shapely.is_valid(found.geometry).all()
    assert found.area_px.sum() == (mask == 255).sum()
    # A footprint that was cut at a seam would have its other half on the far side of an edge.
    for first, second in pairs_that_touch(found):
        assert shapely.intersection(first, second).length == 0
    # None ends at the border of a tile where the mask goes on.
    across = ((mask[height - 1] == 255) & (mask[height] == 255)).nonzero()[0] + 0.5
    assert len(across) and held(found, across, np.full(len(across), height))
    across = ((mask[:, width - 1] == 255) & (mask[:, width] == 255)).nonzero()[0] + 0.5
    assert len(across) and held(found, np.full(len(across), width), across)


def written_as_vrt(path, tiles):
    """Write a VRT of tiles of three bands, two in a row, without a place on the ground."""
    with rasterio.open(tiles[0]) as tile:
        height, width = tile.shape
    bands = ""
    for band, colour in enumerate(("Red", "Green", "Blue"), start=1):
        bands += f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>'
        for number, tile in enumerate(tiles):
            row, column = divmod(number, 2)
            size = f'xSize="{width}" ySize="{height}"'
            bands += (
                f"<SimpleSource><SourceFilename>{tile}</SourceFilename>"
                f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" {size}/>'
                f'<DstRect xOff="{column * width}" yOff="{row * height}" {size}/></SimpleSource>'
            )
        bands += "</VRTRasterBand>"
    size = f'rasterXSize="{2 * width}" rasterYSize="{len(tiles) // 2 * height}"'
    path.write_text(f"<VRTDataset {size}>{bands}</VRTDataset>")
    return path


def grid_of(folder, pixels):
    """Eight uint8 tiles of a place, two rows of four, cut from ``(height, width, 3)`` pixels."""
    images = folder / "aerial_buildings" / "train" / "images"
    images.mkdir(parents=True)
    (images.parent / "gt").mkdir()
    columns = benchmark_prediction.COLUMNS
    height, width = pixels.shape[0] // 2, pixels.shape[1] // columns
    shape = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    for number, (row, column) in enumerate(product(range(2), range(columns)), start=1):
        part = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        with rasterio.open(images / f"barnarp{number}.tif", "w", driver="GTiff", **shape) as file:
            file.write(part.transpose(2, 0, 1))
    return folder


def test_the_measurement_of_a_town_of_squares(tmp_path, monkeypatch):
    pixels = np.full((256, 512, 3), 50, np.uint8)
    # One square inside of a tile, one over the border of two, one over the corner of four.
    for row, column in ((20, 20), (20, 118), (118, 246)):
        pixels[row : row + 20, column : column + 20] = 250
    run = stand_in_run(window=64, overlap=16, threshold=0.6)
    monkeypatch.setattr(benchmark_prediction, "load_run", lambda folder, dtype: run)
    found = benchmark_prediction.mosaic("run", str(grid_of(tmp_path, pixels)), "float32")
    assert found["tiles"] == 8 and found["pixels"] == pixels[..., 0].size
    assert (found["footprints"], found["footprints_over_borders"]) == (3, 2)
    assert found["valid_footprints"] == 3
    # The stand-in sees one pixel beyond a border.
    assert 0.999 < found["equal_pixels"] <= 1
    assert 0.95 < found["iou_of_the_masks"] <= 1


# Evaluation


def test_tiles_of_all_cities_are_measured():
    found = benchmark_prediction.evaluation(200, True, 6)
    assert found["pixels"] == 6 * 200**2
    assert 0 < found["processor_seconds_of_a_tile"] == pytest.approx(found["processor_seconds"] / 6)
    # A mask against itself, moved by a pixel.
    assert 0.4 < found["iou"] < 1 and 0.4 < found["f1"] <= 1
    assert found["true_objects"] > 6
    # Both kinds stand in one table.
    assert list(benchmark_prediction.evaluation(200, False, 1)) == list(found)


# Training


SMALL = {"growth_rates": (8, 8, 8), "bridge_filters": 8}


def by_kind(network: keras.Model) -> list[keras.Variable]:
    """Weights of the convolutions in order, then those of the normalisations."""
    return sorted(network.weights, key=lambda weight: weight.name in ("gamma", "beta"))


def test_the_network_of_keras_layers_is_the_same_function():
    ours = JointNet(**SMALL)
    plain = plain_jointnet(24, **SMALL)
    generator = np.random.default_rng(0)
    for mine, other in zip(by_kind(ours), by_kind(plain), strict=True):
        mine.assign(mine + generator.normal(0, 0.1, mine.shape))
        other.assign(mine)
    pixels = generator.integers(0, 256, (2, 24, 24, 3), np.uint8)
    expected = ours.predict_on_batch(pixels)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(plain.predict_on_batch(pixels), expected, atol=1e-5)


def test_operations_of_convolutions():
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.Conv2D(5, 1, strides=2),
        ]
    )
    assert convolution_operations(network, 8) == 2 * 3 * 4 * 9 + 2 * 4 * 5 / 4


def test_full_jointnet_takes_2_2_million_operations_per_pixel():
    ours = convolution_operations(JointNet(), 64)
    assert ours == pytest.approx(2.2e6, rel=0.02)
    assert convolution_operations(plain_jointnet(64), 64) == ours


def test_the_cost_of_a_step():
    calls = []
    found = step_cost(lambda: calls.append(0), 3, 2, 512, 1e6, lambda: 1e15)
    assert len(calls) == 4
    assert found["patches_per_second"] == pytest.approx(2 / found["step_seconds"])
    assert found["teraflops"] * 1e12 == pytest.approx(
        3 * 1e6 * 512**2 * found["patches_per_second"]
    )
    assert found["share_of_peak"] == pytest.approx(found["teraflops"] / 1e3)
    assert found["inria_epoch_hours"] == pytest.approx(15_500 / found["patches_per_second"] / 3600)
    assert set(step_cost(lambda: None, 0, 1, 8, 1.0, lambda: 1.0)) == {"megabytes"}


def test_patches_show_both_classes():
    images, masks = generated_batch(2, 64)
    assert images.shape == (2, 64, 64, 3) and masks.shape == (2, 64, 64, 1)
    assert set(np.unique(masks)) == {0, 1}
    assert not np.array_equal(images[0], images[1])


def small_jointnet(crop: int = 0, dtype: str = "float32") -> JointNet:
    return JointNet(dtype=dtype, **SMALL)


def test_a_step_in_parts(monkeypatch, eager):
    monkeypatch.setitem(benchmark_training.NETWORKS, "JointNet", small_jointnet)
    monkeypatch.setattr(benchmark_training, "matrix_product", lambda precision: 1e12)
    found = training("JointNet", "float32", 64, 1, batch=2, micro_batch=1, rematerialise="blocks")
    assert found["share_of_peak"] == found["teraflops"] > 0
    assert found["megabytes"] > 0


def test_the_rate_of_a_matrix_product():
    assert benchmark_training.matrix_product("mixed_bfloat16", 64) > 0


def test_a_constant_batch_is_given_out_so_often():
    constant = Constant((1, 2), 3)
    assert len(constant) == 3
    assert constant[2] == (1, 2)


def test_every_source_is_timed_against_the_constant_batch(monkeypatch, eager):
    pixel = keras.layers.Conv2D(1, 1, activation="sigmoid")
    network = keras.Sequential([keras.Input((None, None, 3)), pixel])
    monkeypatch.setattr(benchmark_training, "JointNet", lambda dtype: network)
    found = input_cost(crop=16, batch=1, precision="float32", repeats=2, rounds=1)
    for name in ("published", "augmented"):
        ratio = found[f"{name}_step_seconds"] / found["constant_step_seconds"]
        assert found[f"{name}_over_constant"] == pytest.approx(ratio)


# Tables


def as_told(function, environment=None, **arguments):
    """In place of ``measure``: the arguments, and what training's ratios are made of."""
    timed = {"patches_per_second": 1.0, "step_processor_seconds": 1.0}
    return {**arguments, "megabytes": arguments.get("crop", 0), **timed}


def test_tables_name_machine_command_and_goal(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "measure", as_told)
    monkeypatch.setattr("jointnet.runs.environment", lambda: MACHINE)
    output = tmp_path / "tables"
    done = CliRunner().invoke(main, ["all", "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert len(list(output.iterdir())) == 2 * len(WITHOUT_DATA)
    for part in WITHOUT_DATA:
        stem = f"{part}_float32" if part in ("inference", "input") else part
        content = json.loads((output / f"{stem}.json").read_text())
        assert content["goal"] == PARTS[part].goal
        text = (output / f"{stem}.md").read_text()
        assert "Some CPU, 2 cores" in text
        assert "`python experiments/benchmark.py all`, commit abc" in text
    assert len(json.loads((output / "memory.json").read_text())["rows"]) == 3


def test_files_are_named_after_what_was_measured():
    half = asked(variant="jointnet_half")
    assert benchmark.stem("inference", half) == "inference_jointnet_half_float32"
    assert benchmark.stem("inference", asked()) == "inference_float32"
    assert benchmark.stem("windows", half) == "windows_town_float32"
    assert benchmark.stem("windows", asked(model=Path("jointnet"))) == "windows_jointnet_float32"
    assert benchmark.stem("memory", half) == "memory"


def test_every_function_that_is_measured_exists(monkeypatch):
    called = {}

    def measure(function, environment=None, **arguments):
        called.setdefault(function, arguments)
        return as_told(function, **arguments)

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: Run(folder, None, CONFIG))
    for part in PARTS.values():
        part.rows(asked())
    assert len(called) == len(PARTS)
    for function, arguments in called.items():
        module, name = function.split(":")
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        signature.bind(**arguments)


def test_training_is_measured_at_each_setting_against_the_first(monkeypatch):
    def measure(name: str, crop: int, repeats: int, **setting) -> dict:
        fast = 2 if setting["precision"] == "mixed_bfloat16" else 1
        held = 100 + crop**2 * (setting["micro_batch"] or 1) * 4 / fast / 2**20
        row = {**setting, "crop": crop, "repeats": repeats, "megabytes": held}
        timed = {
            "patches_per_second": fast * 3.0,
            "step_processor_seconds": setting["batch"] / fast,
        }
        return row | (timed if repeats else {})

    monkeypatch.setattr(benchmark, "measure", measure)
    rows = benchmark.training_rows(asked(repeats=5))
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
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: Run(folder, None, CONFIG))
    monkeypatch.setattr(benchmark, "measure", lambda name, **arguments: arguments)
    rows = benchmark.windows_rows(asked())
    assert [row["overlap"] for row in rows[:5]] == [0, 4, 8, 12, 16]
    assert [row["window"] for row in rows] == [32] * 5 + [48, 64, 32]
    assert [row["augment"] for row in rows] == [False] * 7 + [True]
    assert not any("data" in row or "model" in row for row in rows)


@pytest.mark.parametrize("part", ["training", "memory", "evaluation", "windows", "mosaic"])
def test_tables_written_earlier_have_the_same_form(part):
    """The Markdown of ``results/benchmark`` is made of its JSON, line by line."""
    (path,) = (measurements.ROOT / "results" / "benchmark").glob(f"{part}*.json")
    content = json.loads(path.read_text())
    lines = path.with_suffix(".md").read_text().splitlines()
    assert as_markdown(part, content).splitlines()[8:] == lines[8:]


def test_markdown_has_a_line_per_quantity_and_a_column_per_row():
    row = {"seconds": 0.12345, "windows": 1234, "megabytes": 2345.6, "raw": [1.0]}
    lines = as_markdown("inference", {"rows": [row, row], "machine": MACHINE}).splitlines()
    assert "| seconds | 0.123 | 0.123 |" in lines
    assert "| windows | 1,234 | 1,234 |" in lines
    assert "| megabytes | 2,346 | 2,346 |" in lines
    assert not any(line.startswith("| raw") for line in lines)


def test_tables_that_exist_stay(tmp_path):
    (tmp_path / "inference_float32.md").write_text("kept")
    done = CliRunner().invoke(main, ["inference", "--output", str(tmp_path)])
    assert "inference_float32.md" in error(done)
    assert (tmp_path / "inference_float32.md").read_text() == "kept"


def test_an_unknown_variant_is_one_line():
    done = CliRunner().invoke(main, ["inference", "--variant", "jointnet_third"])
    assert "'jointnet_third'" in error(done) and "jointnet_half" in error(done)
