"""Train the control, ResNetUNet, by a recipe, and write a run folder under results/."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from experiments.options import given
from experiments.training_command import train_by_options, training_command
from jointnet.training_settings import Recipe
from jointnet.resnet import BACKBONES, ResNetUNet


def parse_weights(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refuse a file that is not there, before any work is done."""
    if value not in (None, "imagenet") and not Path(value).is_file():
        raise click.BadParameter(f"{value!r} is no file; give imagenet or a weights file")
    return value


@training_command
@click.option("--backbone", type=click.Choice(list(BACKBONES)), default="ResNet50", help="Encoder.")
@click.option(
    "--weights",
    callback=parse_weights,
    help="Initial weights of the encoder: imagenet (downloaded once), or a weights file of "
    "keras.applications without the classifier.  [default: random]",
)
def main(backbone: str, weights: str | None, **options: Any) -> None:
    """Train ResNetUNet, the control, by a recipe, and write a run folder under results/.

    Recipes, data and options are those of train_jointnet.py, so that the two networks differ in
    nothing else; the run is called after the recipe and _resnet. infer.py and evaluate.py take it.

    \b
    python experiments/train_resnet.py
    python experiments/train_resnet.py --recipe polygons --data my_town --weights imagenet
    """  # noqa: D301 (click takes the control character itself)
    if options["initial"] is not None and (given("backbone") or weights is not None):
        raise click.UsageError(
            "--from takes the network of that run; leave it or --backbone and --weights out"
        )
    if weights == "imagenet":
        try:
            # Downloads them, or fails to, before patches are cut for a run that cannot begin.
            ResNetUNet(backbone=backbone, weights=weights)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def adapt(recipe: Recipe) -> Recipe:
        # Arguments that a recipe has for its network are JointNet's.
        return dataclasses.replace(recipe, variant=backbone, network={"weights": weights})

    train_by_options(ResNetUNet, adapt, suffix="_resnet", **options)


if __name__ == "__main__":
    main()
