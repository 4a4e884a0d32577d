"""Train the control, ResNetUNet, by a recipe, and write a run folder under results/."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.training_command import train_by_options, training_command

if TYPE_CHECKING:
    from jointnet.training_settings import Recipe


@training_command(
    "Begin with another run, with imagenet (downloaded once), or with a weights file of "
    "keras.applications without the classifier."
)
def main(initial: Path | None, **options: Any) -> None:
    """Train ResNetUNet, the control, by a recipe, and write a run folder under results/.

    Recipes, data and options are those of train_jointnet.py, so that the two networks differ in
    nothing else; the variants are encoders, of which ResNet50 is the default. The run is named
    after the recipe and _resnet. infer.py and evaluate.py take it.

    \b
    python experiments/train_resnet.py
    python experiments/train_resnet.py --recipe polygons --data my_town --from imagenet
    """  # noqa: D301 (click takes the control character itself)
    from jointnet import ResNetUNet

    weights = None
    if initial is not None and (str(initial) == "imagenet" or initial.is_file()):
        weights, initial = str(initial), None
    backbone = options["settings"].get("variant", "ResNet50")
    if weights == "imagenet":
        try:
            # Fails before patches are cut for a run that cannot begin.
            ResNetUNet(backbone=backbone, weights=weights)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def adapt(recipe: "Recipe") -> "Recipe":
        # A recipe's own variant and arguments are JointNet's.
        return dataclasses.replace(recipe, variant=backbone, network={"weights": weights})

    train_by_options(ResNetUNet, initial, adapt, suffix="_resnet", **options)


if __name__ == "__main__":
    main()
