"""Patches in the memory of the device that trains, cropped, flipped and turned there."""

from typing import Any

import keras
import numpy as np

from jointnet.backends import compiled, memory_errors
from preprocessing.augmentation import Augmentation
from preprocessing.errors import TrainingError
from preprocessing.patch_store import PatchSet


class DevicePatches:
    """A copy of all patches on the device, in the dtype of the store.

    A step then waits neither for a disk nor for a processor nor for a bus: of each batch only
    four numbers per sample travel. 15,500 patches of 512 px with three 8-bit bands take 16 GB.

    Args:
        patches: the patches to hold.
        crop_size: side of a sample in pixels, at most the side of a patch.

    Raises:
        TrainingError: they do not fit into the device's memory.
    """

    def __init__(self, patches: PatchSet, crop_size: int):
        self.crop_size = crop_size
        try:
            self._images = keras.ops.convert_to_tensor(np.asarray(patches.images))
            self._masks = keras.ops.convert_to_tensor(np.asarray(patches.masks)[..., None])
        except memory_errors() as error:
            gigabytes = (patches.images.nbytes + patches.masks.nbytes) / 1e9
            raise TrainingError(
                f"the {gigabytes:.1f} GB of patches cannot be held on the device "
                f"({type(error).__name__}); train without --store-on-device"
            ) from None
        self._cut = compiled(self._samples)

    def cut(self, draws: np.ndarray) -> tuple[Any, Any]:
        """Samples of a batch.

        Args:
            draws: ``(batch, 4)`` int32: number of the patch, first row and first column of the
                crop, and its symmetry, 0 to 7 as in ``preprocessing.warping.dihedral``.

        Returns:
            Images ``(batch, crop, crop, bands)`` in the store's dtype and masks
            ``(batch, crop, crop, 1)`` uint8, on the device.
        """
        return self._cut(self._images, self._masks, keras.ops.convert_to_tensor(draws))

    def _samples(
        self, images: keras.KerasTensor, masks: keras.KerasTensor, draws: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        return self._crops(images, draws), self._crops(masks, draws)

    def _crops(self, source: keras.KerasTensor, draws: keras.KerasTensor) -> keras.KerasTensor:
        side, bands = self.crop_size, source.shape[-1]
        crops = [
            keras.ops.slice(
                source, [draws[i, 0], draws[i, 1], draws[i, 2], 0], [1, side, side, bands]
            )
            for i in range(draws.shape[0])
        ]
        return symmetric(keras.ops.concatenate(crops), draws[:, 3])


def symmetric(images: keras.KerasTensor, symmetries: keras.KerasTensor) -> keras.KerasTensor:
    """Each image by its own symmetry of the square.

    Args:
        images: ``(batch, side, side, channels)``.
        symmetries: ``(batch,)`` int, 0 to 7, as in ``preprocessing.warping.dihedral``.

    Returns:
        ``(batch, side, side, channels)``, same dtype.
    """
    k = keras.ops.reshape(symmetries, (-1, 1, 1, 1))
    quarter = keras.ops.flip(keras.ops.transpose(images, (0, 2, 1, 3)), axis=1)
    images = keras.ops.where(k % 2 == 1, quarter, images)
    images = keras.ops.where(k % 4 >= 2, keras.ops.flip(images, axis=(1, 2)), images)
    return keras.ops.where(k >= 4, keras.ops.flip(images, axis=2), images)


def refuse_other_changes(augmentation: Augmentation) -> None:
    """Refuse what is not done on the device.

    Raises:
        TrainingError: the augmentation does more than flip and turn; names it.
    """
    if augmentation.changes:
        named = ", ".join(augmentation.changes)
        raise TrainingError(
            f"--store-on-device crops, flips and turns alone; this recipe's {named} is made on "
            "the processor: train it without --store-on-device"
        )
