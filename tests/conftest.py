"""Fixtures shared by all tests."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real imagery; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("JOINTNET_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real imagery: set JOINTNET_DATA to its folder")
    return folder


@pytest.fixture(scope="module")
def plain_graphs() -> Iterator[None]:
    """TensorFlow without its graph optimiser, which takes longer than the few steps of a test.

    Not for what is to equal another process to the bit, where the optimiser is at work.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture
def eager() -> Iterator[None]:
    """Keras' steps without graphs, in tests that train or predict a step or two."""
    from tests.training_fixtures import eagerly

    with eagerly():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with most slow tests first, so that no process is left with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
