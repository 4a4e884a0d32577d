"""Recipes: what to train on what and how, as functions whose docstrings say what to expect.

A recipe is run by ``experiments/train_jointnet.py --recipe NAME``, or from Python by
``experiments.training_run.run(recipes.NAME(), ...)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jointnet.settings import TrainingSettings
from preprocessing.augmentation import Augmentation
from preprocessing.errors import DatasetError
from preprocessing.folders import folder_scenes
from preprocessing.inria import OFFICIAL_VALIDATION, inria_scenes
from preprocessing.outputs import folder_beside
from preprocessing.patch_store import PatchSettings
from preprocessing.scenes import Scene

Validation = Sequence[int | str] | None

LOSS_OF_TARGET = {"buildings": "dice", "roads": "focal"}
"""Losses of the public implementation, in the published settings' recipes."""


@dataclass(frozen=True)
class Recipe:
    """A network, its data and its training.

    Attributes:
        name: name of the recipe.
        scenes: lists the scenes under the data folder, given what is held back for validation
            (tile indices or names; None for the recipe's own split).
        variant: name of the network's variant, see ``jointnet.model.VARIANTS``.
        patches: how scenes are cut.
        training: how the network is trained.
        network: arguments of the network that differ from the variant's.
        validation: tile indices or names held back, None for the recipe's own split.
    """

    name: str
    scenes: Callable[[Path, Validation], list[Scene]]
    variant: str
    patches: PatchSettings
    training: TrainingSettings
    network: dict[str, Any] = field(default_factory=dict)
    validation: Validation = None

    def with_training(self, **changes: Any) -> "Recipe":
        """The recipe with some training settings replaced."""
        return replace(self, training=replace(self.training, **changes))


def sample() -> Recipe:
    """Generated scenes, to see everything work in minutes on a CPU.

    Source: ``preprocessing.sample_scenes``; the network is JointNet at a quarter of its width.
    Data: 12 scenes of 512 x 512 pixels, generated into ``<data>/sample_scenes`` where they are
    missing; scene 1 of both places is held back.
    Command: ``python experiments/train_jointnet.py --recipe sample``
    Time: under 8 minutes on 2 cores. Score: validation IoU above 0.75 at 0.6.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        folder = data / "sample_scenes"
        if not folder.exists():
            from preprocessing.sample_scenes import write_sample_scenes

            # All scenes or none: a folder with some of them would pass for the whole.
            with folder_beside(folder) as beside:
                write_sample_scenes(beside / "scenes", scenes=12, size=512, seed=0)
                (beside / "scenes").rename(folder)
        return inria_scenes(folder, validation or (1,))

    return Recipe(
        name="sample",
        scenes=scenes,
        variant="jointnet_quarter",
        patches=PatchSettings(patch_size=256, stride=128, validation_size=128),
        training=TrainingSettings(
            crop_size=128,
            batch_size=8,
            epochs=11,
            steps_per_epoch=60,
            learning_rate=3e-3,
            schedule="cosine",
            warmup_steps=30,
            loss="cross_entropy+dice",
            precision="mixed_bfloat16",
        ),
    )


def inria_buildings() -> Recipe:
    """Buildings on the Inria Aerial Image Labeling data set.

    Source: the public Keras implementation of JointNet, which extends Zhang and Wang 2019 to
    Inria: full width, 512 px patches, Adam 1e-4, dice loss, flips and rotations, threshold 0.6.
    The paper has no figure for Inria. Tiles 1 to 5 of every city are held back (the official
    validation).
    Data: ``<data>/AerialImageDataset/train/{images,gt}``, 180 tiles of 5000 x 5000 pixels;
    the patch store takes 19 GB of disk.
    Command: ``python experiments/train_jointnet.py --recipe inria_buildings``; on a GPU add
    ``--precision mixed_bfloat16 --batch-size 8``.
    Time: 15,500 training patches an epoch; more than a day per epoch on 2 cores, so for a GPU.
    Score: not measured yet on the full data set.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        return inria_scenes(data / "AerialImageDataset", validation or OFFICIAL_VALIDATION)

    return Recipe(
        name="inria_buildings",
        scenes=scenes,
        variant="jointnet",
        patches=PatchSettings(patch_size=512, stride=512, validation_size=512),
        training=TrainingSettings(
            crop_size=512,
            batch_size=4,
            epochs=60,
            learning_rate=1e-4,
            loss="dice",
            early_stopping=10,
        ),
    )


def polygons(where: str | None = None, buffer_m: float | None = None) -> Recipe:
    """Your own rasters with your own polygons.

    Source: settings of ``open_buildings``; with lines those of ``open_roads``.
    Data: ``<data>/images`` with georeferenced rasters and ``<data>/polygons`` with a GeoJSON,
    GeoPackage or Shapefile of the same stem for each, in any CRS. Every fifth raster is held
    back unless ``--validation`` names others.
    Command: ``python experiments/train_jointnet.py --recipe polygons --data FOLDER``
    Time: 2,520 steps, about 100 minutes on 2 cores. Score: depends on the data.

    Args:
        where: which features count, as an SQL condition such as ``building = 'yes'``.
        buffer_m: metres by which lines are widened to either side; needed for lines, which
            are taken for roads.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        from preprocessing.polygons import polygon_scenes

        found = polygon_scenes(data / "images", data / "polygons", validation)
        return [replace(scene, where=where, buffer_m=buffer_m) for scene in found]

    if buffer_m is None:
        return replace(open_buildings(), name="polygons", scenes=scenes)
    roads = replace(open_roads(), name="polygons", scenes=scenes).with_training(source_shares=None)
    return replace(roads, patches=replace(open_buildings().patches, target="roads"))


def open_buildings() -> Recipe:
    """Buildings at 0.3 m from open imagery: the recipe behind the weights of ``infer.py``.

    Source: architecture of Zhang and Wang 2019 at half width; training set up for two CPU cores.
    Data: ``aerial_buildings`` (16 tiles of five places, Inria layout) and ``inria_patches``
    (41 patches of two Inria tiles) beside each other in the data folder. Tiles of index 1 and
    all patches of chicago1 are held back for validation.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings --data DATA``
    Time: about 100 minutes on 2 cores. Score: see README.md.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        if validation is not None:
            raise DatasetError("the split of open_buildings is fixed; leave --validation out")
        return [
            *inria_scenes(data / "aerial_buildings", validation=(1,)),
            *inria_scenes(data / "inria_patches", validation=("chicago1",)),
        ]

    return Recipe(
        name="open_buildings",
        scenes=scenes,
        variant="jointnet_half",
        # Patches larger than the crops give every epoch other crops of the few scenes.
        patches=PatchSettings(patch_size=384, stride=256, validation_size=256),
        training=TrainingSettings(
            crop_size=256,
            batch_size=4,
            epochs=36,
            steps_per_epoch=70,
            learning_rate=1e-3,
            schedule="cosine",
            warmup_steps=140,
            weight_decay=1e-2,
            loss="cross_entropy+dice",
            target_weight=0.5,
            augmentation=Augmentation(
                brightness=0.15, contrast=0.3, saturation=0.4, hue=0.04, gamma=0.3
            ),
            precision="mixed_bfloat16",
        ),
    )


def massachusetts_roads() -> Recipe:
    """Roads on the Massachusetts Roads data set.

    Source: Zhang and Wang 2019, who evaluate on it, with the settings of the public Keras
    implementation: full width, 512 px patches, Adam 1e-4, focal loss (gamma 2, alpha 0.25),
    flips and rotations. The valid tiles are held back; ``--validation test`` holds back the test
    tiles instead.
    Data: ``<data>/massachusetts_roads/{train,valid,test}/{sat,map}``, 1108, 14 and 49 tiles of
    1500 x 1500 pixels; white margins are void. The patch store takes 11 GB of disk.
    Command: ``python experiments/train_jointnet.py --recipe massachusetts_roads``; on a GPU add
    ``--precision mixed_bfloat16 --batch-size 8``.
    Time: 10,000 training patches an epoch, for a GPU. Score: not measured yet on the full set.
    """
    return _massachusetts("roads")


def massachusetts_buildings() -> Recipe:
    """Buildings on the Massachusetts Buildings data set.

    Source: as ``massachusetts_roads``, with the dice loss.
    Data: ``<data>/massachusetts_buildings/{train,valid,test}/{sat,map}``, 137, 4 and 10 tiles of
    1500 x 1500 pixels.
    Command: ``python experiments/train_jointnet.py --recipe massachusetts_buildings``; on a GPU
    add ``--precision mixed_bfloat16 --batch-size 8``.
    Time: 1,200 training patches an epoch, for a GPU. Score: not measured yet on the full set.
    """
    return _massachusetts("buildings")


def _massachusetts(target: str) -> Recipe:
    name = f"massachusetts_{target}"

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        from preprocessing.massachusetts import massachusetts_scenes

        folders = list(validation or ("valid",))
        if len(folders) > 1 or folders[0] not in ("valid", "test"):
            raise DatasetError(f"{name} holds back valid or test; got --validation {folders}")
        return massachusetts_scenes(data / name, folders[0])

    return Recipe(
        name=name,
        scenes=scenes,
        variant="jointnet",
        patches=PatchSettings(patch_size=512, stride=512, validation_size=512, target=target),
        training=TrainingSettings(
            crop_size=512,
            batch_size=4,
            epochs=100,
            learning_rate=1e-4,
            loss=LOSS_OF_TARGET[target],
            early_stopping=10,
        ),
    )


def open_roads() -> Recipe:
    """Roads at 1 m from a sample of Massachusetts: the recipe behind the road weights.

    Source: architecture of Zhang and Wang 2019 at half width; training set up for two CPU cores.
    Data: ``massachusetts_roads`` (25 training and 5 valid tiles of 1500 px, white margins void)
    and ``massachusetts_roads_crops/{images,labels}`` (230 crops of 400 px of other tiles) beside
    each other in the data folder. The valid tiles are held back; half of each batch comes from
    the tiles, half from the crops. The loss is that of ``open_buildings``: with the focal loss
    few pixels reach the threshold of 0.6 (results/README.md).
    Command: ``python experiments/train_jointnet.py --recipe open_roads --data DATA``
    Time: about 100 minutes on 2 cores. Score: see README.md.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        from preprocessing.massachusetts import GSD, massachusetts_scenes

        if validation is not None:
            raise DatasetError("the split of open_roads is fixed; leave --validation out")
        crops = data / "massachusetts_roads_crops"
        return [
            *massachusetts_scenes(data / "massachusetts_roads"),
            *folder_scenes(
                crops / "images", crops / "labels", "train", "massachusetts_roads_crops", GSD
            ),
        ]

    buildings = open_buildings()
    return replace(
        buildings,
        name="open_roads",
        scenes=scenes,
        patches=PatchSettings(patch_size=400, stride=400, validation_size=256, target="roads"),
        training=replace(
            buildings.training,
            epochs=10,
            steps_per_epoch=210,
            source_shares={"massachusetts_roads": 0.5, "massachusetts_roads_crops": 0.5},
        ),
    )


RECIPES: dict[str, Callable[..., Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        sample,
        inria_buildings,
        massachusetts_roads,
        massachusetts_buildings,
        polygons,
        open_buildings,
        open_roads,
    )
}
