"""Batches from a patch store, each a pure function of seed, epoch and index."""

from typing import Any

import keras
import numpy as np

from preprocessing.augmentation import Augmentation
from preprocessing.patch_store import PatchSet


class TrainingBatches(keras.utils.PyDataset):
    """The batches of one epoch.

    An epoch walks through the patches in a new order, those without a valid pixel left out; where
    it needs more samples than there are patches, it starts over in another order. With
    ``target_weight`` above 0 the patches are drawn with replacement instead, that share of them
    in proportion to the target they show and the rest evenly, for scenes that are mostly empty.
    Every sample is a random crop of its
    patch, augmented. Nothing depends on what was drawn before, so a run that is resumed, or that
    loads with more workers, sees the same batches.

    Args:
        patches: the patches to draw from.
        epoch: number of the epoch, from 0.
        seed: seed of the run.
        batch_size: samples in a batch.
        crop_size: side of a sample in pixels, at most the side of a patch.
        augmentation: what is done to each sample.
        steps: batches in the epoch; None for as many as one pass over the patches fills.
        target_weight: share of the draws, 0..1, in proportion to the patches' target shares.
        **kwargs: ``workers``, ``use_multiprocessing``, ``max_queue_size`` of the base class.

    Raises:
        ValueError: no patches with valid pixels, or a crop larger than a patch.
    """

    def __init__(
        self,
        patches: PatchSet,
        epoch: int,
        seed: int,
        batch_size: int,
        crop_size: int,
        augmentation: Augmentation,
        steps: int | None = None,
        target_weight: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._usable = np.flatnonzero(patches.valid_shares > 0)
        if not len(self._usable):
            raise ValueError("no training patches with valid pixels")
        if crop_size > patches.size:
            raise ValueError(
                f"crop_size {crop_size} is larger than the patches of the store ({patches.size})"
            )
        self.patches = patches
        self.epoch = epoch
        self.seed = seed
        self.batch_size = batch_size
        self.crop_size = crop_size
        self.augmentation = augmentation
        self.steps = steps or max(1, len(self._usable) // batch_size)
        self._order = self._draw(target_weight)

    def _draw(self, target_weight: float) -> np.ndarray:
        """Patch number of each sample of the epoch."""
        generator = np.random.default_rng([self.seed, self.epoch])
        samples, patches = self.steps * self.batch_size, len(self._usable)
        if target_weight:
            shares = self.patches.target_shares[self._usable] + 1e-9
            chances = target_weight * shares / shares.sum() + (1 - target_weight) / patches
            return self._usable[generator.choice(patches, samples, p=chances)]
        passes = -(-samples // patches)
        order = np.concatenate([generator.permutation(patches) for _ in range(passes)])[:samples]
        return self._usable[order]

    def __len__(self) -> int:
        return self.steps

    def names(self, index: int) -> list[str]:
        """Scene names and patch numbers of one batch, for messages."""
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        return [f"{self.patches.scenes[number]} (patch {number})" for number in chosen]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch ``index`` of the epoch.

        Returns:
            Images ``(batch, crop, crop, bands)`` in the store's dtype, raw pixels, and masks
            ``(batch, crop, crop, 1)`` uint8 of 0, 1 and 255.
        """
        first = index * self.batch_size
        samples = [self._sample(position) for position in range(first, first + self.batch_size)]
        images, masks = zip(*samples, strict=True)
        return np.stack(images), np.stack(masks)[..., None]

    def _sample(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng([self.seed, self.epoch, position])
        number = self._order[position]
        row, column = (
            int(generator.integers(0, max(int(extent) - self.crop_size, 0) + 1))
            for extent in self.patches.extents[number]
        )
        rows = slice(row, row + self.crop_size)
        columns = slice(column, column + self.crop_size)
        image = np.asarray(self.patches.images[number, rows, columns])
        mask = np.asarray(self.patches.masks[number, rows, columns])
        return self.augmentation.apply(image, mask, generator)
