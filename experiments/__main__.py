"""The console command ``jointnet``, with a subcommand for each script of this folder."""

import importlib

import click

from experiments.options import Command

SUBCOMMANDS = {
    "infer": "Find buildings or roads in rasters, and write masks and vector layers.",
    "vectorise": "Turn a mask into footprints of buildings or centre lines of roads.",
    "train_jointnet": "Train JointNet by a recipe.",
    "train_resnet": "Train the control network, a ResNet encoder-decoder, by a recipe.",
    "prepare": "Check a data set, and cut it into a patch store.",
    "evaluate": "Measure a network or finished masks against labels.",
    "compare": "Compare runs or finished masks with each other.",
    "report": "Write a page of figures and pictures about a run or finished masks.",
    "submit": "Make the zip file of masks that the Inria contest takes, or check one.",
    "export": "Export a network as ONNX, SavedModel or LiteRT.",
    "inspect_network": "Draw filters, activations and Grad-CAM of a network.",
    "benchmark": "Measure speed and memory of this machine.",
}


class Subcommands(Command, click.Group):
    """Scripts by name; each is imported only when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(SUBCOMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the script's command, None for a name that is none; ``-`` counts as ``_``."""
        name = name.replace("-", "_")
        if name not in SUBCOMMANDS:
            return None
        return importlib.import_module(f"experiments.{name}").main

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.command(cls=Subcommands)
@click.version_option(package_name="jointnet")
def main() -> None:
    """Find roads and buildings in aerial imagery with JointNet."""


if __name__ == "__main__":
    main()
