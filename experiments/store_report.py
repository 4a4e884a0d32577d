"""A patch store for the screen: what was cut, and what augmentation does to it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.figures import draw_augmentations
from preprocessing.augmentation import STRONG
from preprocessing.band_statistics import value_range
from preprocessing.output_files import replacing
from preprocessing.patch_store import SPLITS, PatchSet, PatchStore
from preprocessing.polygons import PolygonCounts


def describe(store: PatchStore) -> Iterator[str]:
    """What was cut, as lines for a screen."""
    manifest, settings = store.manifest, store.settings
    gsd = "of unknown size" if manifest["gsd"] is None else f"of {manifest['gsd']:.3g} m"
    yield (
        f"{store.folder}: {len(manifest['scenes'])} scenes, {manifest['bands']} bands of "
        f"{manifest['dtype']}, pixels {gsd}, target {settings.target}"
    )
    yield f"{'':<12}{'scenes':>7}{'patches':>9}{'size':>6}{'valid':>8}{'target':>8}"
    for split, patches in zip(SPLITS, (store.train, store.validation), strict=True):
        members = [scene for scene in manifest["scenes"] if scene["split"] == split]
        yield _row(split, patches, members)
        sources = sorted({scene.get("source") or "" for scene in members})
        for source in sources[1:] and sources:
            yield _row(f"  {source}", patches, members, source)
    limits = manifest.get("band_limits") or [None] * manifest["bands"]
    for number, (mean, std, limit) in enumerate(
        zip(manifest["band_mean"], manifest["band_std"], limits, strict=True), start=1
    ):
        clipped = "" if limit is None else f", clipped to {limit[0]:g} to {limit[1]:g}"
        yield f"band {number}: mean {mean:.4g}, standard deviation {std:.4g}{clipped}"
    counts = [scene["polygons"] for scene in manifest["scenes"] if scene.get("polygons")]
    if counts:
        total = PolygonCounts(**{name: sum(c[name] for c in counts) for name in counts[0]})
        yield f"vector labels of {len(counts)} scenes: {total}"


def draw_preview(store: PatchStore, path: Path, seed: int = 0) -> None:
    """Draw what strong augmentation does to the training patch that shows most of both classes.

    Args:
        store: an open store.
        path: the picture to write as PNG; replaced where it exists.
        seed: of everything random.

    Raises:
        OutputError: it cannot be written.
    """
    patches = store.train
    both = np.minimum(patches.target_shares, 1 - patches.target_shares)
    number = int((patches.valid_shares * both).argmax())
    augmentation = replace(STRONG, value_range=value_range(store.manifest))
    height, width = patches.extents[number]
    image = np.asarray(patches.images[number, :height, :width])
    mask = np.asarray(patches.masks[number, :height, :width])
    with replacing(path, overwrite=True) as target:
        draw_augmentations(image, mask, augmentation, target, seed)


def _row(name: str, patches: PatchSet, scenes: list[dict], source: str | None = None) -> str:
    """Figures of one split, or of one source in it."""
    if source is not None:
        scenes = [scene for scene in scenes if (scene.get("source") or "") == source]
    names = {scene["name"] for scene in scenes}
    chosen = np.array([scene in names for scene in patches.scenes], bool)
    valid = patches.valid_shares[chosen] * patches.size**2
    # Training patches may overlap; validation patches hold each pixel once, elsewhere void.
    pixels = patches.extents[chosen].prod(axis=1).sum()
    if scenes and scenes[0]["split"] == "validation":
        pixels = sum(scene["height"] * scene["width"] for scene in scenes)
    target = (valid * patches.target_shares[chosen]).sum() / max(valid.sum(), 1)
    return (
        f"{name:<12}{len(scenes):>7}{chosen.sum():>9}{patches.size:>6}"
        f"{valid.sum() / max(pixels, 1):>8.1%}{target:>8.1%}"
    )
