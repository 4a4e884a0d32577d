"""Training on a patch store as it was cut, without the data set's recipe."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from experiments.recipes import Recipe, Validation, open_buildings, open_roads
from preprocessing.band_statistics import value_range
from preprocessing.errors import DatasetError
from preprocessing.patch_store import PatchStore

STORED = "store"
"""Name of the recipe, and of its run folders."""

PIXELS_PER_BATCH = 4 * 256**2
"""Of ``open_buildings``: what two CPU cores and 4 GB of memory can do."""


def stored_recipe(store: PatchStore) -> Recipe:
    """What to train on a store, as ``experiments/prepare.py`` makes them.

    Source: settings of ``open_roads`` where the target is roads, else of ``open_buildings``.
    Crops have the size of the validation patches, a batch as many pixels as there. Several
    sources have equal shares of each batch, however many patches they have, but for those of
    which no pixel is valid. The strengths of the
    augmentation refer to the values that the store holds, where these are not of 8 bits.
    Data: the store alone.
    Command: ``python experiments/train_jointnet.py --store STORE``
    Time: about 100 minutes on 2 cores. Score: depends on the data.

    Args:
        store: an open store.
    """
    settings = store.settings
    base = open_roads() if settings.target == "roads" else open_buildings()
    patches = zip(store.train.sources, store.train.valid_shares, strict=True)
    sources = sorted({source for source, valid in patches if source is not None and valid})
    crop = settings.validation_size
    return replace(
        base,
        name=STORED,
        scenes=_no_scenes,
        patches=settings,
        training=replace(
            base.training,
            crop_size=crop,
            batch_size=max(1, PIXELS_PER_BATCH // crop**2),
            source_shares={name: 1 / len(sources) for name in sources} if sources[1:] else None,
            augmentation=replace(
                base.training.augmentation, value_range=value_range(store.manifest)
            ),
        ),
    )


def _no_scenes(data: Path, validation: Validation) -> NoReturn:
    raise DatasetError("a run on a store takes its scenes from there; give it by --store")
