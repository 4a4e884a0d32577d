"""Train JointNet by a recipe, and write a run folder under results/."""

import dataclasses
from typing import Any

import click

from experiments.training_command import train_by_options, training_command
from jointnet.model import VARIANTS, JointNet
from jointnet.training_settings import Recipe


@training_command
@click.option("--variant", type=click.Choice(list(VARIANTS)), help="Another width or variant.")
def main(variant: str | None, **options: Any) -> None:
    """Train JointNet by a recipe, and write a run folder under results/.

    Without options it trains on Inria where data/AerialImageDataset is, and otherwise on
    generated scenes, in minutes. Recipes and what to expect of them: experiments/recipes.py.

    \b
    python experiments/train_jointnet.py
    python experiments/train_jointnet.py --recipe polygons --data my_town
    python experiments/train_jointnet.py --recipe open_buildings --from results/open_buildings
    """  # noqa: D301 (click takes the control character itself)
    if variant is not None and options["initial"] is not None:
        raise click.UsageError("--from takes the network of that run; leave it or --variant out")

    def adapt(recipe: Recipe) -> Recipe:
        return recipe if variant is None else dataclasses.replace(recipe, variant=variant)

    train_by_options(JointNet, adapt, **options)


if __name__ == "__main__":
    main()
