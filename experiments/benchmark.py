"""Measure speed and memory of inference, training and their parts on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from experiments.benchmark_rows import ROWS, Asked
from experiments.options import RESULTS, Command, data_option, model_option, overwrite_option
from jointnet.model import VARIANTS
from jointnet.runs import environment
from preprocessing.output_files import refuse_existing, replacing, write_json

PARTS = (
    *("inference", "memory", "batches", "normalisation"),
    *("training", "input", "profile", "windows", "mosaic", "inria", "evaluation"),
)
# The others need data, a large disk, or no network.
ALL = PARTS[:4]
GOALS = {
    "inference": "bare / end to end 0.95 or more; under 3,000 MB for 5000 x 5000 at full width",
    "memory": "peaks within 5 % over all numbers of rows",
    "batches": "batches 20 times as fast as full-width training",
    "normalisation": "none stated; keras.layers.GroupNormalization is what it stands beside",
    "training": "one setting 1.8 times as fast as keras.layers in float32, one with 0.35 of its "
    "memory; batches of 8 patches of 512 px in 16 GB",
    "input": "steps on real input within 5 % of those on a constant batch",
    "profile": "none stated; convolutions at the rate of a matrix product leave nothing to gain",
    "windows": "the default's IoU and steadiness worth its cost",
    "mosaic": "none stated; no footprint is cut at the border of a tile",
    "inria": "none stated; training in the memory of the machine, the time of the schedule known",
    "evaluation": "5000 x 5000 in 5 s, with objects in 60 s; 25 such tiles in 60 s and 1,000 MB",
}


def stem(part: str, asked: Asked) -> str:
    """Name of the files of a part: what it was measured with, where it depends on it."""
    if part in ("memory", "normalisation", "training", "profile", "inria", "evaluation"):
        return part
    if part in ("windows", "mosaic"):
        return f"{part}_{asked.model.resolve().name}_{asked.precision}"
    variant = "" if asked.variant == "jointnet" else f"_{asked.variant}"
    return f"{part}{variant}_{asked.precision}"


def as_markdown(part: str, content: dict) -> str:
    """The table of one part, with the machine and the command."""
    machine = content["machine"]
    return "\n".join(_lines(part, content["rows"], machine)) + "\n"


def _lines(part: str, rows: list[dict], machine: dict) -> Iterator[str]:
    versions = machine["packages"]
    backend = machine["backend"]
    yield f"# {part}"
    yield ""
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['devices'])}; "
        f"{backend} {versions.get(backend, '')}, keras {versions['keras']}, "
        f"python {machine['python']}"
    )
    yield ""
    yield f"`python experiments/{machine['command']}`, commit {machine['commit']}"
    yield ""
    yield f"Goal: {GOALS[part]}. Times are medians, in seconds."
    yield ""
    keys = [key for key, value in rows[0].items() if not isinstance(value, list) or key == "shape"]
    yield "| | " + " | ".join(str(number) for number in range(1, len(rows) + 1)) + " |"
    yield "|---|" + "---|" * len(rows)
    for key in keys:
        yield f"| {key.replace('_', ' ')} | " + " | ".join(_cell(row[key]) for row in rows) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("part", type=click.Choice([*PARTS, "all"]), default="all")
@click.option("--size", type=click.IntRange(64), default=5000, help="Side of the tile, pixels.")
@click.option("--variant", type=click.Choice(list(VARIANTS)), default="jointnet", help="Network.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "mixed_bfloat16"]),
    default="float32",
    help="Of inference and training.",
)
@click.option("--repeats", type=click.IntRange(1), default=7, help="Of what is timed.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=RESULTS / "benchmark",
    show_default="results/benchmark",
    help="Folder of the tables.",
)
@model_option
@data_option
@overwrite_option
def main(part: str, output: Path, overwrite: bool, **options: Any) -> None:
    """Measure a part, or the first four, and write tables of JSON and Markdown.

    \b
    inference      predict_raster on a generated tile against the bare network on as many
                   windows; peak memory of the process; machine hours of larger areas
    memory         predict_raster with a stand-in network on --size columns and as many rows,
                   four and twelve times as many; GDAL's cache is kept to 64 MB
    batches        batches with all augmentation, one thread, against training steps on them
    normalisation  this project's group normalisation against Keras'
    training       steps on patches of 512 px: JointNet of nothing but keras.layers, this one at
                   each setting, ResNetUNet, and the U-Net of segmentation-models-pytorch where
                   it is installed; time, memory, share of a large matrix product
    input          training steps by where their batches come from: a constant one, a store on
                   the disk, a store on the device
    profile        a training step in one thread, operation by operation (TensorFlow)
    windows        validation scenes of --model, in --data, by windows of several sizes and
                   overlaps: IoU, what changes if the windows are shifted, cost
    mosaic         the eight tiles of a town in --data as one raster, and alone
    inria          180 generated tiles in Inria's layout, cut and trained on by the settings of
                   inria_buildings; the time of its schedule. It takes 37 GB, under TMPDIR where
                   that is set
    evaluation     masks of generated tiles against labels, pixels and objects

    Files are named after the part, and after network and precision where they depend on these.
    But for windows and mosaic, networks have random weights; every measurement has a process of
    its own. At full width on two CPU cores the tile of 5000 x 5000 pixels takes ten minutes.
    """  # noqa: D301 (click takes the control character itself)
    # This process looks at the accelerator, and leaves its memory to those that measure.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    asked = Asked(**options)
    parts = ALL if part == "all" else (part,)
    stems = {name: stem(name, asked) for name in parts}
    files = {(p, kind): output / f"{stems[p]}.{kind}" for p in parts for kind in ("json", "md")}
    for path in files.values():
        refuse_existing(path, overwrite)
    machine = environment()
    output.mkdir(parents=True, exist_ok=True)
    for name in parts:
        rows = ROWS[name](asked)
        content = {"goal": GOALS[name], "machine": machine, "rows": rows}
        write_json(files[name, "json"], content)
        text = as_markdown(name, content)
        with replacing(files[name, "md"], overwrite=True) as beside:
            beside.write_text(text, encoding="utf-8")
        click.echo(text)


if __name__ == "__main__":
    main()
