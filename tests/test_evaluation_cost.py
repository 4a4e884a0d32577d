"""The benchmark of measuring masks, on small tiles."""

import pytest

from experiments.evaluation_cost import evaluation


def test_tiles_of_all_cities_are_measured():
    found = evaluation(200, 6, True)
    assert found["pixels"] == 6 * 200**2
    assert 0 < found["processor_seconds_of_a_tile"] == pytest.approx(found["processor_seconds"] / 6)
    # A mask against itself, moved by a pixel.
    assert 0.4 < found["iou"] < 1 and 0.4 < found["f1"] <= 1
    assert found["true_objects"] > 6


def test_both_kinds_have_one_table():
    assert list(evaluation(200, 1, False)) == list(evaluation(200, 1, True))
