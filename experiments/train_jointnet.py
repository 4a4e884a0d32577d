"""Train JointNet by a recipe."""

from pathlib import Path

import click

from experiments import recipes, training_run


@click.command()
@click.option("--recipe", "name", default="open_buildings")
@click.option("--data", type=click.Path(path_type=Path), default="data")
@click.option("--store", type=click.Path(path_type=Path), default=None)
@click.option("--run", "run_name", default=None)
@click.option("--resume", is_flag=True)
def main(name: str, data: Path, store: Path | None, run_name: str | None, resume: bool) -> None:
    recipe = recipes.RECIPES[name]()
    training_run.run(
        recipe, data, store or Path("data/patches") / name, Path("results") / (run_name or name), resume
    )


if __name__ == "__main__":
    main()
