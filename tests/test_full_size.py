"""The stand-in for Inria at full size: its layout, and the measurements on a small one."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from experiments import benchmark, benchmark_training
from preprocessing.inria import CITIES, OFFICIAL_VALIDATION, inria_scenes
from preprocessing.output_files import hash_file
from preprocessing.patch_store import open_store
from preprocessing.scene_checks import check_inria

pytestmark = pytest.mark.usefixtures("plain_graphs")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Six tiles of each city, with a side that is no multiple of what is rendered."""
    data = tmp_path_factory.mktemp("data")
    benchmark_training.write_stand_in(data, tiles=6, size=1100)
    return data


def test_files_are_those_of_inria(stand_in):
    scenes = inria_scenes(stand_in / "AerialImageDataset")
    assert {scene.place for scene in scenes} == set(CITIES)
    held_back = {scene.index for scene in scenes if scene.split == "validation"}
    assert held_back == set(OFFICIAL_VALIDATION)
    with rasterio.open(scenes[0].image) as image, rasterio.open(scenes[0].label) as label:
        assert (image.count, image.dtypes[0], image.res) == (3, "uint8", (0.3, 0.3))
        assert image.compression is None
        assert set(np.unique(label.read())) == {0, 255}


def test_no_two_tiles_are_equal_or_share_ground(stand_in):
    scenes = inria_scenes(stand_in / "AerialImageDataset")
    assert len({hash_file(scene.image) for scene in scenes}) == len(scenes)
    boxes = [rasterio.open(scene.image).bounds for scene in scenes]
    for number, one in enumerate(boxes):
        for other in boxes[:number]:
            apart = one.left >= other.right or other.left >= one.right
            assert apart or one.bottom >= other.top or other.bottom >= one.top


def test_only_sizes_and_numbers_differ_from_the_official_data_set(stand_in):
    problems = check_inria(stand_in / "AerialImageDataset").problems
    assert problems
    assert all("1100" in line or "tiles" in line for line in problems)


def test_labels_move_with_their_images(stand_in):
    scenes = inria_scenes(stand_in / "AerialImageDataset")
    one, other = (scene for scene in scenes if scene.name in ("austin1", "austin2"))
    for kind in ("image", "label"):
        first, second = (rasterio.open(getattr(scene, kind)).read() for scene in (one, other))
        assert np.array_equal(first[:, 200:500, 200:500], second[:, 207:507, 213:513])


def test_cutting_and_schedule_are_measured(stand_in, tmp_path):
    store = str(tmp_path / "store")
    cut = benchmark_training.cutting(str(stand_in), store)
    assert (cut["tiles"], cut["training_patches"]) == (30, 5 * 9)
    assert cut["validation_patches"] == len(open_store(tmp_path / "store").validation) == 25 * 9
    assert cut["store_gigabytes"] == pytest.approx(30 * 9 * 512**2 * 4 / 1e9, rel=0.02)
    found = benchmark_training.schedule(store, 1, "float32", "jointnet_quarter", 1)
    assert 0 < found["step_alone_seconds"] <= found["step_seconds"]
    assert found["epoch_hours"] == pytest.approx(45 * found["step_seconds"] / 3600)
    hours = found["epochs"] * (found["epoch_hours"] + found["validation_hours"])
    assert found["schedule_days"] == pytest.approx(hours / 24)


def test_the_table_has_a_column_for_each_batch(monkeypatch):
    def measure(name, **arguments):
        return {**arguments, "peak_megabytes": 5.0, "of": name}

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark_training, "write_stand_in", lambda folder, size: None)
    asked = benchmark.Asked(300, "jointnet", "float32", 3, Path("model"), Path("data"))
    rows = benchmark.inria_rows(asked)
    assert [row["batch"] for row in rows] == [1, 1, 2]
    assert [row["precision"] for row in rows] == ["float32", "mixed_bfloat16", "mixed_bfloat16"]
    assert all(row["cutting_peak_megabytes"] == 5.0 for row in rows)
    assert not any({"data", "store", "peak_megabytes"} & set(row) for row in rows)
