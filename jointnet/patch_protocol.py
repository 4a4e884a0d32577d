"""Counts over the 512 px patches on which much of the literature reports Inria.

Source: Wang, Fang, Meng and Li 2022, "Building Extraction With Vision Transformer" (BuildFormer),
whose code many later papers share. Its ``inria_patch_split.py`` pads a tile of 5000 x 5000 pixels
around its middle to 5120 x 5120, cuts it into 10 x 10 patches that do not overlap, and keeps those
of which more than 5 % is building, for training and for validation (tiles 1 to 5 of each city)
alike. The padding is ``albumentations.PadIfNeeded`` by its defaults: at that time the mirror image
without the edge itself (``BORDER_REFLECT_101``), of image and mask; from albumentations 2 on,
black. The network sees one patch at a time. ``building_seg_test.py`` adds one confusion matrix
over all patches and divides once: the figure is pooled over the patches that are left, and
mirrored pixels count again. Patches without building, where every mark is a mistake, are not
among them, so the figure is not the contest's.

Here the same pixels count, with the same weights, of a prediction of the whole scene.
"""

from dataclasses import dataclass, field

import numpy as np

from jointnet.metrics import Counts
from preprocessing.tiling import VOID

PATCH = 512
SHARE = 0.05


@dataclass(frozen=True)
class PatchCounts:
    """What the patches that are left hold together.

    Attributes:
        kept: patches with more than so much target.
        patches: all patches that hold a valid pixel.
        counts: the confusion matrix over the kept ones, mirrored pixels counted again.
    """

    kept: int = 0
    patches: int = 0
    counts: Counts = field(default_factory=Counts)

    def __add__(self, other: "PatchCounts") -> "PatchCounts":
        return PatchCounts(
            self.kept + other.kept, self.patches + other.patches, self.counts + other.counts
        )


def weights(length: int, patch: int = PATCH) -> np.ndarray:
    """How often each pixel of one axis counts in each patch.

    An axis longer than a patch is padded to whole patches by its mirror image on both sides (by
    one pixel more at the end, where the padding is odd); a shorter one is one patch as it is.

    Args:
        length: pixels of the axis, 1 or more.
        patch: pixels of a patch.

    Returns:
        ``(patches, length)`` int64 of 0, 1 and 2.
    """
    padding = -length % patch if length > patch else 0
    # Up to 511 pixels on an axis of 513 or more: mirrored once is enough.
    pixel = np.pad(np.arange(length), (padding // 2, padding - padding // 2), mode="reflect")
    number = np.arange(len(pixel)) // patch
    counted = np.zeros((number[-1] + 1, length), np.int64)
    np.add.at(counted, (number, pixel), 1)
    return counted


class PatchGrid:
    """Adds up the confusion matrix of every patch of a scene that is read in strips of rows.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        patch: side of a patch in pixels.
    """

    def __init__(self, height: int, width: int, patch: int = PATCH):
        self._rows, self._columns = weights(height, patch), weights(width, patch)
        # Of valid, true, predicted, and both of the latter.
        self._sums = np.zeros((4, len(self._rows), len(self._columns)), np.int64)

    def add(self, row: int, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count a strip.

        Args:
            row: of the scene, the strip's first.
            truth: ``(rows, width)`` uint8 mask of 0, 1 and 255 (void).
            prediction: mask of the same shape and values.
        """
        valid = (truth != VOID) & (prediction != VOID)
        true, found = valid & (truth == 1), valid & (prediction == 1)
        classes = [pixels.view(np.uint8) for pixels in (valid, true, found, true & found)]
        weight = self._rows[:, row : row + len(truth)]
        # Runs of rows that count alike; within one, sums stay far below what uint16 holds.
        first = np.flatnonzero(np.r_[True, (weight[:, 1:] != weight[:, :-1]).any(axis=0)])
        for start, stop in zip(first, np.r_[first[1:], len(truth)], strict=True):
            sums = [np.add.reduce(one[start:stop], axis=0, dtype=np.uint16) for one in classes]
            by_column = np.array(sums, np.int64) @ self._columns.T
            self._sums += by_column[:, None, :] * weight[None, :, start, None]

    def counts(self, share: float = SHARE) -> PatchCounts:
        """The patches with more than a share of target among their valid pixels.

        Args:
            share: 0..1; patches that have exactly it are left out. Patches without a valid pixel
                always are.
        """
        valid, true, found, both = self._sums
        kept = true / np.maximum(valid, 1) > share
        valid_sum, true, found, both = (int(sums[kept].sum()) for sums in self._sums)
        counts = Counts(both, found - both, true - both, valid_sum - true - found + both)
        return PatchCounts(int(kept.sum()), int(np.count_nonzero(valid)), counts)
