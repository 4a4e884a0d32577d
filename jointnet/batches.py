"""Batches from a patch store, each a pure function of seed, epoch and index."""

from typing import Any

import keras
import numpy as np

from preprocessing.augmentation import Augmentation
from preprocessing.patch_store import PatchSet


class TrainingBatches(keras.utils.PyDataset):
    """The batches of one epoch.

    Samples are random crops, augmented, of the patches that have a valid pixel. Each epoch takes
    the patches in a new order, and starts over in another if they do not suffice. With
    ``target_weight`` they are drawn with replacement instead, for scenes that are mostly empty.
    With ``source_shares`` every batch mixes the sources, as nearly as whole samples allow. No draw
    depends on an earlier one, so a run that is resumed, or that loads with more workers, sees the
    same batches.

    Args:
        epoch: number of the epoch, from 0.
        crop_size: side of a sample in pixels, at most the side of a patch.
        steps: batches in the epoch; None for one pass over the patches.
        target_weight: share of the draws, 0..1, that favour patches in proportion to their share
            of target; the others are even.
        source_shares: share of each batch by source, summing to 1; None for all patches alike.
        micro_batch_size: samples of an item, a divisor of ``batch_size``; None for whole batches.
        share: number of this process, from 0, and number of processes; each gets an equal part
            of every item.
        **kwargs: ``workers``, ``use_multiprocessing``, ``max_queue_size`` of the base class.

    Raises:
        ValueError: there are no patches with valid pixels, a crop is larger than a patch, or the
            shares do not sum to 1 over the sources of the patches.
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
        source_shares: dict[str, float] | None = None,
        micro_batch_size: int | None = None,
        share: tuple[int, int] = (0, 1),
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
        self.micro_batch_size = micro_batch_size or batch_size
        self.share = share
        self.crop_size = crop_size
        self.augmentation = augmentation
        self.steps = steps or max(1, len(self._usable) // batch_size)
        generator = np.random.default_rng([seed, epoch])
        samples = self.steps * self.batch_size
        if source_shares is None:
            self._order = self._draw(self._usable, samples, target_weight, generator)
        else:
            self._order = self._draw_by_source(source_shares, samples, target_weight, generator)

    def _draw(
        self, usable: np.ndarray, samples: int, target_weight: float, generator: np.random.Generator
    ) -> np.ndarray:
        """Return the patch number of each sample, out of the usable ones."""
        patches = len(usable)
        if target_weight:
            shares = self.patches.target_shares[usable] + 1e-9
            chances = target_weight * shares / shares.sum() + (1 - target_weight) / patches
            return usable[generator.choice(patches, samples, p=chances)]
        passes = max(1, -(-samples // patches))
        order = np.concatenate([generator.permutation(patches) for _ in range(passes)])[:samples]
        return usable[order]

    def _draw_by_source(
        self,
        shares: dict[str, float],
        samples: int,
        target_weight: float,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """Return the patch number of each sample, with the sources mixed in each batch."""
        sources = np.array(self.patches.sources)[self._usable]
        found = sorted({str(source) for source in sources})
        if sorted(shares) != found or abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(
                f"source_shares must sum to 1 over the sources of the store, "
                f"{', '.join(found)}; got {shares}"
            )
        # Samples of each source up to the end of each batch, rounded; then those of each batch.
        ends = np.arange(0, samples + 1, self.batch_size)[:, None]
        limits = np.concatenate([[0.0], np.cumsum([shares[name] for name in found])])
        counts = np.diff(np.diff(np.rint(ends * limits).astype(int), axis=1), axis=0)
        order = np.empty((self.steps, self.batch_size), int)
        for number, name in enumerate(found):
            share = counts[:, number]
            usable = self._usable[sources == name]
            drawn = self._draw(usable, int(share.sum()), target_weight, generator)
            first = counts[:, :number].sum(axis=1)
            for batch, numbers in enumerate(np.split(drawn, np.cumsum(share)[:-1])):
                order[batch, first[batch] : first[batch] + share[batch]] = numbers
        return order.ravel()

    def __len__(self) -> int:
        """Return the number of micro-batches in the epoch."""
        return self.steps * self.batch_size // self.micro_batch_size

    def names(self, index: int) -> list[str]:
        """Name scene and patch of each sample of a micro-batch, over all processes."""
        size = self.micro_batch_size
        chosen = self._order[index * size : (index + 1) * size]
        return [f"{self.patches.scenes[number]} (patch {number})" for number in chosen]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images and masks of micro-batch ``index``, or of this process's part of it.

        Images are ``(samples, crop, crop, bands)`` raw pixels in the store's dtype, masks
        ``(samples, crop, crop, 1)`` uint8 of 0, 1 and 255.
        """
        process, processes = self.share
        size = self.micro_batch_size // processes
        first = index * self.micro_batch_size + process * size
        samples = [self._sample(position) for position in range(first, first + size)]
        images, masks = zip(*samples, strict=True)
        return np.stack(images), np.stack(masks)[..., None]

    def _sample(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng([self.seed, self.epoch, position])
        number = int(self._order[position])
        row, column = (
            int(generator.integers(0, max(int(extent) - self.crop_size, 0) + 1))
            for extent in self.patches.extents[number]
        )
        crop = number, slice(row, row + self.crop_size), slice(column, column + self.crop_size)
        image, mask = np.asarray(self.patches.images[crop]), np.asarray(self.patches.masks[crop])
        return self.augmentation.apply(image, mask, generator)
