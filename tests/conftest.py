"""Fixtures shared by all tests."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

# What trains and predicts on arrays; the rest reads and writes files, or is about one backend.
CORE = {
    *("band_scaling", "bilinear_upsampling", "dense_atrous_block"),
    "group_normalization",
    *("losses", "model", "batches", "training", "checkpoints", "runs"),
    *("prediction", "metrics", "training_settings"),
}


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


@pytest.fixture
def on_tensorflow() -> None:
    """For what only TensorFlow has, such as graphs of free height and width."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("for TensorFlow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the core, which every backend is to pass (``pytest -m core``).

    Files with most slow tests first, so that no process is left with one of them at the end."""
    here = Path(__file__).parent
    gone = sorted(name for name in CORE if not (here / f"test_{name}.py").is_file())
    if gone:
        raise pytest.UsageError(f"conftest.CORE names {gone}, of which there is no test file")
    for item in items:
        if item.path.stem.removeprefix("test_") in CORE:
            item.add_marker("core")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
