"""Train JointNet by a recipe, and write a run folder under results/."""

from pathlib import Path
from typing import Any

from experiments.training_command import train_by_options, training_command


@training_command(
    "Begin with the network and weights of another run, such as results/open_buildings."
)
def main(initial: Path | None, **options: Any) -> None:
    """Train JointNet by a recipe, and write a run folder under results/.

    Without options it trains on Inria where data/AerialImageDataset is, and otherwise on
    generated scenes, in minutes. Recipes and what to expect of them: experiments/recipes.py.

    \b
    python experiments/train_jointnet.py
    python experiments/train_jointnet.py --recipe polygons --data my_town
    python experiments/train_jointnet.py --recipe open_buildings --from results/open_buildings
    python experiments/train_jointnet.py --recipe sample --set epochs=3 --set variant=jointnet
    """  # noqa: D301 (click takes the control character itself)
    from jointnet import JointNet

    train_by_options(JointNet, initial, **options)


if __name__ == "__main__":
    main()
