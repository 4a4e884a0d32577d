"""Patches on the device are cut there as they are on the processor."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from jointnet.batches import TrainingBatches
from jointnet.device_patches import DevicePatches, refuse_other_changes, symmetric
from jointnet.training import train
from preprocessing.augmentation import STRONG, Augmentation
from preprocessing.errors import TrainingError
from preprocessing.image_operations import dihedral
from tests.training_fixtures import (
    memory_store,
    patch_set,
    run_python,
    small_network,
    tiny_training,
)

PLAIN = Augmentation(brightness=0, contrast=0, saturation=0)


def numbered(patches: int, side: int, dtype: type) -> np.ndarray:
    """Every pixel and band has a value of its own."""
    return np.arange(patches * side * side * 3).reshape(patches, side, side, 3).astype(dtype)


def test_symmetries_are_those_of_the_processor():
    images = numbered(8, 4, np.uint16)
    turned = keras.ops.convert_to_numpy(symmetric(images, np.arange(8)))
    assert turned.dtype == np.uint16
    for k in range(8):
        np.testing.assert_array_equal(turned[k], dihedral(images[k], k))


def test_one_crop_by_eye():
    patches = patch_set(numbered(2, 4, np.uint8), np.arange(32, dtype=np.uint8).reshape(2, 4, 4))
    places = np.array([[1, 2, 1, 0], [0, 0, 0, 4]], np.int32)
    # The second loses its red, and 1 is added to its blue.
    colours = np.stack([np.eye(3, 4), np.diag([0.0, 1, 1]) @ np.eye(3, 4)]).astype(np.float32)
    colours[1, 2, 3] = 1
    images, masks = DevicePatches(patches, 2).cut(places, colours, np.ones(2, np.float32))
    # Of the second patch rows 2 and 3, columns 1 and 2; of the first the corner, mirrored.
    np.testing.assert_array_equal(masks[0, ..., 0], [[25, 26], [29, 30]])
    np.testing.assert_array_equal(masks[1, ..., 0], [[1, 0], [5, 4]])
    np.testing.assert_array_equal(images[0, 0, 0], [75, 76, 77])
    np.testing.assert_array_equal(images[1, 0, 1], [0, 1, 3])


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_batches_are_those_of_the_processor(dtype, flips):
    images = numbered(5, 12, dtype)
    masks = (images[..., 0] % 3 == 0).astype(np.uint8)
    masks[2, :, 6:] = 255
    patches = patch_set(images, masks)
    # One patch lies in its scene in part.
    patches.extents[1] = (9, 8)
    settings = {"epoch": 1, "seed": 3, "batch_size": 4, "crop_size": 8, "steps": 4}
    settings["augmentation"] = Augmentation(flips, brightness=0, contrast=0, saturation=0)
    expected = TrainingBatches(patches, micro_batch_size=2, **settings)
    on_device = DevicePatches(patches, 8)
    batches = TrainingBatches(patches, micro_batch_size=2, on_device=on_device, **settings)
    assert len(batches) == len(expected) == 8
    for index in range(8):
        for found, wanted in zip(batches[index], expected[index], strict=True):
            found = keras.ops.convert_to_numpy(found)
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)


COLOURFUL = Augmentation(
    brightness=0.3, contrast=0.5, saturation=0.8, hue=0.2, gamma=0.6, grayscale=0.5
)


@pytest.mark.parametrize(
    ("dtype", "limits"), [(np.uint8, None), (np.uint16, (0, 2047)), (np.float32, (0, 1))]
)
def test_colours_are_those_of_the_processor(dtype, limits):
    low, high = limits or (0, 255)
    random = np.random.default_rng(0)
    images = (low + (high - low) * random.random((6, 12, 12, 4))).astype(dtype)
    patches = patch_set(images, np.ones((6, 12, 12), np.uint8))
    augmentation = replace(COLOURFUL, value_range=limits)
    settings = {"epoch": 0, "seed": 5, "batch_size": 4, "crop_size": 8, "steps": 4}
    expected = TrainingBatches(patches, augmentation=augmentation, **settings)
    on_device = DevicePatches(patches, 8, (low, high))
    batches = TrainingBatches(patches, augmentation=augmentation, on_device=on_device, **settings)
    for index in range(4):
        found, wanted = (np.asarray(b[index][0]).astype(float) for b in (batches, expected))
        plain = TrainingBatches(patches, augmentation=PLAIN, **settings)[index][0]
        assert np.abs(wanted - plain).max() > 0.1 * (high - low)
        # Rounding may fall to either side.
        assert np.abs(found - wanted).max() <= (1e-5 if dtype == np.float32 else 1)
        assert (np.abs(found - wanted) > 1e-5).mean() < 0.01


ON_JAX = """
import numpy as np
from tests.test_device_patches import PLAIN
from tests.training_fixtures import memory_store, small_network, tiny_training
from jointnet.training import train
from pathlib import Path
for on_device in (False, True):
    network = small_network()
    settings = tiny_training(augmentation=PLAIN, store_on_device=on_device, epochs=1)
    train(network, memory_store(size=24), settings, Path(sys.argv[1]) / str(on_device))
    weights = [np.asarray(weight) for weight in network.get_weights()]
    if on_device:
        assert all(np.array_equal(a, b) for a, b in zip(weights, before)), "differ"
    before = weights
print("equal")
"""


def test_training_is_the_same(tmp_path):
    weights = []
    for on_device in (False, True):
        network = small_network()
        settings = tiny_training(augmentation=PLAIN, store_on_device=on_device)
        train(network, memory_store(size=24), settings, tmp_path / str(on_device))
        weights.append(network.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_is_the_same_on_jax(tmp_path):
    pytest.importorskip("jax")
    done = run_python(ON_JAX, tmp_path, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert "equal" in done.stdout, done.stderr[-2000:]


def test_other_changes_are_refused_by_name():
    refuse_other_changes(PLAIN)
    refuse_other_changes(COLOURFUL)
    with pytest.raises(TrainingError, match="rotation.* is made on the processor"):
        refuse_other_changes(STRONG)


def test_patches_that_do_not_fit_are_refused(monkeypatch):
    def full(array: np.ndarray) -> None:
        raise MemoryError

    monkeypatch.setattr(keras.ops, "convert_to_tensor", full)
    with pytest.raises(TrainingError, match=r"0\.0 GB of patches cannot be held .*MemoryError"):
        DevicePatches(memory_store().train, 16)
