"""What a recipe is: a network, its data and its training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jointnet.settings import TrainingSettings
from preprocessing.patch_store import PatchSettings
from preprocessing.scenes import Scene

Validation = Sequence[int | str] | None


@dataclass(frozen=True)
class Recipe:
    """A network, its data and its training.

    Attributes:
        name: name of the recipe.
        scenes: lists the scenes under the data folder, given what is held back for validation
            (tile indices or names; None for the recipe's own split).
        variant: name of the network's variant, see ``jointnet.model.VARIANTS``; for a
            ``ResNetUNet`` that of its encoder, see ``jointnet.resnet.BACKBONES``.
        patches: how scenes are cut.
        training: how the network is trained.
        network: arguments of the network that differ from the variant's.
        validation: tile indices or names held back, None for the recipe's own split.
        initial: run folder whose network and weights the training begins with, in place of
            ``variant``, ``network`` and random weights; None for none.
        window: side of a window at prediction in pixels, of which neighbours share a quarter;
            None for the training's crop size.
    """

    name: str
    scenes: Callable[[Path, Validation], list[Scene]]
    variant: str
    patches: PatchSettings
    training: TrainingSettings
    network: dict[str, Any] = field(default_factory=dict)
    validation: Validation = None
    initial: Path | None = None
    window: int | None = None

    def with_training(self, **changes: Any) -> "Recipe":
        """The recipe with some training settings replaced."""
        return replace(self, training=replace(self.training, **changes))
