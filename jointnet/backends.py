"""The few things that every Keras backend has its own name for."""

from collections.abc import Callable

import keras


def compiled(function: Callable) -> Callable:
    """A function of arrays, compiled by the backend; another than these computes step by step.

    Args:
        function: of arrays, and lists of arrays, by ``keras.ops`` alone.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def memory_errors() -> tuple[type[Exception], ...]:
    """What the engines raise where memory is short; JAX's is a RuntimeError."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return (MemoryError, RuntimeError, tf.errors.ResourceExhaustedError)
    return (MemoryError, RuntimeError)
