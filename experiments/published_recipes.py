"""Recipes with the published settings, on the data sets that others report on; for GPUs."""

from pathlib import Path

from experiments.recipe import Recipe, Validation
from jointnet.settings import TrainingSettings
from preprocessing.errors import DatasetError
from preprocessing.inria import OFFICIAL_VALIDATION, inria_scenes
from preprocessing.patch_store import PatchSettings
from preprocessing.scenes import Scene

LOSS_OF_TARGET = {"buildings": "dice", "roads": "focal"}
"""Losses of the public implementation, which switches them by target."""


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
    Time: 15,500 training patches an epoch; 28 hours an epoch on 2 cores in bfloat16
    (``results/benchmark/inria.md``), so for a GPU.
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
            loss=LOSS_OF_TARGET["buildings"],
            early_stopping=10,
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
