"""The benchmark of measuring masks, on small tiles."""

import pytest

from experiments.benchmark_prediction import evaluation, write_tiles


def test_tiles_of_all_cities_are_measured(tmp_path):
    found = evaluation(str(write_tiles(tmp_path, 200, 6)), True)
    assert (found["tiles"], found["pixels"]) == (6, 6 * 200**2)
    assert 0 < found["processor_seconds_of_a_tile"] == pytest.approx(found["processor_seconds"] / 6)
    # A mask against itself, moved by a pixel.
    assert 0.4 < found["iou"] < 1 and 0.4 < found["f1"] <= 1
    assert found["true_objects"] > 6
    # Both kinds stand in one table.
    assert list(evaluation(str(tmp_path), False)) == list(found)
