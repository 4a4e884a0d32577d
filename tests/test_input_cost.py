"""The cost of the input: real steps of small batches."""

import pytest

from experiments.benchmark_training import Constant, input_cost


def test_a_constant_batch_is_given_out_so_often():
    constant = Constant([1, 2], 3)
    assert len(constant) == 3
    assert constant[2] == (1, 2)


@pytest.mark.slow
def test_every_source_is_timed_against_the_constant_batch():
    found = input_cost(crop=16, batch=1, precision="float32", repeats=2, rounds=1)
    for name in ("published", "augmented", "on_device"):
        ratio = found[f"{name}_step_seconds"] / found["constant_step_seconds"]
        assert found[f"{name}_over_constant"] == pytest.approx(ratio)
