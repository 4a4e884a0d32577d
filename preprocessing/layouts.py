"""Scenes of any layout: pairs of folders, and data sets of a known layout.

Of numbered chips, as SpaceNet has them, images that nobody labelled are left out and counted.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preprocessing.errors import DatasetError
from preprocessing.folders import labelled_scenes
from preprocessing.inria import GSD, inria_scenes, train_folder
from preprocessing.massachusetts import massachusetts_scenes
from preprocessing.scenes import Scene, images_in
from preprocessing.spacenet import spacenet_chips
from preprocessing.splits import hold_back

LAYOUTS = ("inria", "massachusetts", "spacenet")

Validation = list[int | str] | float | None


def folder_pairs(
    images: Sequence[Path], labels: Sequence[Path], validation: Validation, gsd: float | None
) -> tuple[list[Scene], int]:
    """Scenes of one or several pairs of folders, each of several a source of its own.

    Returns:
        The scenes, and how many images were left out because nobody labelled them.
    """
    names = _source_names(images) if len(images) > 1 else [None]
    scenes, unlabelled = [], 0
    for image_folder, label_folder, name in zip(images, labels, names, strict=True):
        pairs = labelled_scenes(image_folder, label_folder, name, gsd)
        if image_folder.resolve() != label_folder.resolve():
            unlabelled += len(images_in(image_folder)) - len(pairs)
        scenes += pairs
    return hold_back(scenes, validation, ", ".join(map(str, images))), unlabelled


def layout_scenes(
    layout: str, data: Path, target: str, validation: Validation
) -> tuple[list[Scene], int]:
    """Scenes of a data set in one of ``LAYOUTS``, and how many images nobody labelled."""
    if layout == "massachusetts":
        held_back = validation or ["valid"]
        if held_back not in (["valid"], ["test"]):
            raise DatasetError(f"{layout} holds back valid or test; got --validation {held_back}")
        return massachusetts_scenes(data, held_back[0]), 0
    if layout == "spacenet":
        chips = spacenet_chips(data, target)
        return hold_back(chips.scenes, validation, data), len(chips.unlabelled)
    if isinstance(validation, float):
        folder = train_folder(data)
        scenes = labelled_scenes(folder / "images", folder / "gt", gsd=GSD, kind="raster")
        return hold_back(scenes, validation, folder), 0
    return inria_scenes(data, **({} if validation is None else {"validation": validation})), 0


def choose_features(
    scenes: Sequence[Scene], where: str | None, buffer_m: float | None
) -> list[Scene]:
    """Scenes whose polygons are filtered and lines widened as asked.

    Raises:
        DatasetError: asked for, and a label is a raster.
    """
    if (where, buffer_m) == (None, None):
        return list(scenes)
    for scene in scenes:
        if scene.label_kind == "raster":
            raise DatasetError(
                f"{scene.label} is a raster; --where and --buffer-m are for vector files"
            )
    return [
        replace(
            scene,
            where=scene.where if where is None else where,
            buffer_m=scene.buffer_m if buffer_m is None else buffer_m,
        )
        for scene in scenes
    ]


def _source_names(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths that tell the folders apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise DatasetError(f"{folders[0]} is named twice; give each folder of images once")
