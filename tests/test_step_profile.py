"""Where the time of a step goes: names of operations, and one real trace."""

import pytest
import tensorflow as tf

from experiments.step_profile import by_group, seconds_by_operation


def test_operations_are_grouped_and_what_encloses_them_is_left_out():
    seconds = {
        "_MklNativeConv2D": 1.0,
        "_MklNativeFusedConv2D": 2.0,
        "_MklNativeConv2DBackpropInput": 4.0,
        "_MklNativeConv2DBackpropFilterWithBias": 8.0,
        "SpaceToBatchND": 16.0,
        "ConcatV2": 32.0,
        "Slice": 64.0,
        "Mul": 128.0,
        "EagerExecute": 1000.0,
        "__inference_one_step_on_data_7": 1000.0,
    }
    assert by_group(seconds) == {
        "convolutions_and_gradients_of_inputs": 7.0,
        "gradients_of_weights": 8.0,
        "dilation": 16.0,
        "concatenation_and_its_gradients": 96.0,
        "all_else": 128.0,
    }


def test_a_trace_names_the_operations_of_a_function(tmp_path):
    @tf.function
    def product(a: tf.Tensor) -> tf.Tensor:
        return tf.exp(a @ a)

    matrix = tf.random.normal((300, 300))
    product(matrix)
    tf.profiler.experimental.start(str(tmp_path))
    product(matrix)
    tf.profiler.experimental.stop()
    found = seconds_by_operation(next(tmp_path.rglob("*.xplane.pb")).read_bytes())
    (multiplied,) = (value for name, value in found.items() if "MatMul" in name)
    assert found["Exp"] > 0 and multiplied > 0
    # The Python function, as one_step_on_data in a training.
    del found["product"]
    assert by_group(found)["all_else"] == pytest.approx(found["Exp"] + multiplied, rel=0.1)
