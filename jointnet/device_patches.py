"""Patches in the memory of the device that trains, cropped, turned and recoloured there."""

from typing import Any

import keras
import numpy as np

from jointnet.distribution import compiled, memory_errors
from preprocessing.augmentation import COLOURS, Augmentation
from preprocessing.errors import TrainingError
from preprocessing.patch_store import PatchSet


class DevicePatches:
    """A copy of all patches on the device, in the dtype of the store.

    A step then waits neither for a disk nor for a processor nor for a bus: of each batch only
    a few numbers per sample travel. 15,500 patches of 512 px with three 8-bit bands take 16 GB.

    Args:
        patches: the patches to hold.
        crop_size: side of a sample in pixels, at most the side of a patch.
        limits: (low, high) of the values that changes of colour refer to.

    Raises:
        TrainingError: they do not fit into the device's memory.
    """

    def __init__(self, patches: PatchSet, crop_size: int, limits: tuple[float, float] = (0, 255)):
        self.crop_size = crop_size
        self.limits = limits
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

    def cut(
        self, places: np.ndarray, colours: np.ndarray, exponents: np.ndarray
    ) -> tuple[Any, Any]:
        """Samples of a batch.

        Args:
            places: ``(batch, 4)`` int32: number of the patch, first row and first column of the
                crop, and its symmetry, 0 to 7 as in ``preprocessing.image_operations.dihedral``.
            colours: ``(batch, bands, bands + 1)`` float32: matrix and, in the last column, offset
                of ``preprocessing.image_operations.affine_colours``.
            exponents: ``(batch,)`` float32: of the tone curve before that, ``gamma`` of
                ``preprocessing.image_operations.recolour``; 1 bends nothing.

        Returns:
            Images ``(batch, crop, crop, bands)`` in the store's dtype and masks
            ``(batch, crop, crop, 1)`` uint8, on the device. Integers are rounded, so that they may
            differ by 1 from what the processor makes.
        """
        arguments = map(keras.ops.convert_to_tensor, (places, colours, exponents))
        return self._cut(self._images, self._masks, *arguments)

    def _samples(
        self,
        images: keras.KerasTensor,
        masks: keras.KerasTensor,
        places: keras.KerasTensor,
        colours: keras.KerasTensor,
        exponents: keras.KerasTensor,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        crops = recoloured(self._crops(images, places), colours, exponents, self.limits)
        return crops, self._crops(masks, places)

    def _crops(self, source: keras.KerasTensor, places: keras.KerasTensor) -> keras.KerasTensor:
        side, bands = self.crop_size, source.shape[-1]
        crops = [
            keras.ops.slice(
                source, [places[i, 0], places[i, 1], places[i, 2], 0], [1, side, side, bands]
            )
            for i in range(places.shape[0])
        ]
        return symmetric(keras.ops.concatenate(crops), places[:, 3])


def symmetric(images: keras.KerasTensor, symmetries: keras.KerasTensor) -> keras.KerasTensor:
    """Each image by its own symmetry of the square.

    Args:
        images: ``(batch, side, side, channels)``.
        symmetries: ``(batch,)`` int, 0 to 7, as in ``preprocessing.image_operations.dihedral``.

    Returns:
        ``(batch, side, side, channels)``, same dtype.
    """
    k = keras.ops.reshape(symmetries, (-1, 1, 1, 1))
    quarter = keras.ops.flip(keras.ops.transpose(images, (0, 2, 1, 3)), axis=1)
    images = keras.ops.where(k % 2 == 1, quarter, images)
    images = keras.ops.where(k % 4 >= 2, keras.ops.flip(images, axis=(1, 2)), images)
    return keras.ops.where(k >= 4, keras.ops.flip(images, axis=2), images)


def recoloured(
    images: keras.KerasTensor,
    colours: keras.KerasTensor,
    exponents: keras.KerasTensor,
    limits: tuple[float, float],
) -> keras.KerasTensor:
    """Each image in its own colours, as ``preprocessing.image_operations.recolour`` does it.

    Args:
        images: ``(batch, height, width, bands)`` of a store's dtype.
        colours: see ``DevicePatches.cut``, as ``exponents``.
        exponents: of the tone curve.
        limits: (low, high) that the tone curve refers to.

    Returns:
        The same shape and dtype; integers rounded and clipped to their range.
    """
    dtype = keras.backend.standardize_dtype(images.dtype)
    low, high = limits
    values = keras.ops.cast(images, "float32")
    fraction = keras.ops.clip((values - low) / (high - low), 0, 1)
    bent = fraction ** keras.ops.reshape(exponents, (-1, 1, 1, 1)) - fraction
    values = values + (high - low) * bent
    # No matrix product: GPUs round what goes into one to 10 bits.
    matrix, offset = colours[:, None, None, :, :-1], colours[:, None, None, :, -1]
    values = keras.ops.sum(values[..., None, :] * matrix, axis=-1) + offset
    if dtype == "float32":
        return values
    ends = np.iinfo(dtype)
    return keras.ops.cast(keras.ops.clip(keras.ops.round(values), ends.min, ends.max), dtype)


def refuse_other_changes(augmentation: Augmentation) -> None:
    """Refuse what is not done on the device.

    Raises:
        TrainingError: the augmentation does more than flip, turn and recolour; names it.
    """
    others = [name for name in augmentation.changes if name not in (*COLOURS, "grayscale")]
    if others:
        raise TrainingError(
            f"--store-on-device crops, turns and recolours; this recipe's {', '.join(others)} is "
            "made on the processor: train it without --store-on-device"
        )
