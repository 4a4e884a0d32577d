"""Recipes: what to train on what and how, as functions whose docstrings say what to expect.

A recipe is run by ``experiments/train_jointnet.py --recipe NAME``, or from Python by
``experiments.training_run.run(recipes.NAME(), ...)``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jointnet.settings import TrainingSettings
from preprocessing.augmentation import Augmentation
from preprocessing.inria import inria_scenes
from preprocessing.patches import PatchSettings
from preprocessing.scenes import Scene


@dataclass(frozen=True)
class Recipe:
    """A network, its data and its training.

    Attributes:
        name: name of the recipe.
        scenes: lists the scenes under the data folder.
        variant: name of the network's variant, see ``jointnet.model.VARIANTS``.
        network: arguments of the network that differ from the variant's.
        patches: how scenes are cut.
        training: how the network is trained.
    """

    name: str
    scenes: Callable[[Path], list[Scene]]
    variant: str
    patches: PatchSettings
    training: TrainingSettings
    network: dict[str, Any]

    def with_training(self, **changes: Any) -> "Recipe":
        """The recipe with some training settings replaced."""
        return replace(self, training=replace(self.training, **changes))


def open_buildings() -> Recipe:
    """Buildings at 0.3 m from open imagery: the recipe behind the weights of ``infer.py``.

    Source: architecture of Zhang and Wang 2019 at half width; training set up for two CPU cores.
    Data: ``aerial_buildings`` (16 tiles of five places, Inria layout) and ``inria_patches``
    (41 patches of two Inria tiles) beside each other in the data folder. Tiles of index 1 and
    all patches of chicago1 are held back for validation.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings --data DATA``
    Time: about 100 minutes on 2 cores. Score: see results/README.md.
    """

    def scenes(data: Path) -> list[Scene]:
        return [
            *inria_scenes(data / "aerial_buildings", validation=(1,)),
            *inria_scenes(data / "inria_patches", validation=("chicago1",)),
        ]

    return Recipe(
        name="open_buildings",
        scenes=scenes,
        variant="jointnet_half",
        network={},
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


RECIPES: dict[str, Callable[..., Recipe]] = {"open_buildings": open_buildings}
