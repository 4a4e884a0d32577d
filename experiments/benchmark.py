"""Measure speed and memory, and write the tables of ``results/benchmark``."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from experiments.measurements import measure
from experiments.options import (
    PROJECT_RESULTS,
    Command,
    data_option,
    model_option,
    overwrite_option,
)
from preprocessing.output_files import refuse_existing, replacing, write_json

PREDICTION, TRAINING = "experiments.benchmark_prediction", "experiments.benchmark_training"
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclass(frozen=True)
class Asked:
    """The options of the command that say what to measure."""

    size: int
    variant: str
    precision: str
    repeats: int
    model: Path
    data: Path


def inference_rows(asked: Asked) -> list[dict]:
    """Measure one tile, with windows of 512 as in the published recipes."""
    network = {"variant": asked.variant, "precision": asked.precision}
    return [measure(f"{PREDICTION}:inference", size=asked.size, **network, window=512)]


def memory_rows(asked: Asked) -> list[dict]:
    """Measure as many rows as columns, four times and twelve times as many."""
    # GDAL's cache of blocks, 256 MB by default, would be full in large rasters only.
    cache = {"GDAL_CACHEMAX": "64"}
    shape = {"width": asked.size, "window": 256}
    return [
        measure(f"{PREDICTION}:memory", cache, rows=asked.size * times, **shape)
        for times in (1, 4, 12)
    ]


def training_rows(asked: Asked) -> list[dict]:
    """Measure networks and settings in turn; speed and memory also as shares of the first's."""
    import keras

    tried: list[dict] = [{"network": "keras.layers", "precision": p} for p in PRECISIONS]
    tried += [
        {"network": "JointNet", "precision": precision, "rematerialise": again}
        for precision in PRECISIONS
        for again in (None, "concatenations", "blocks")
    ]
    if any(device.startswith("gpu") for device in keras.distribution.list_devices()):
        tried.append({"network": "JointNet", "precision": "mixed_float16"})
    elif keras.backend.backend() == "tensorflow":
        # Elsewhere XLA compiles the others.
        tried.append({"network": "JointNet", "precision": "mixed_bfloat16", "xla": True})
    thrifty = {"rematerialise": "concatenations", "batch": 8, "micro_batch": 1}
    tried += [{"network": "JointNet", "precision": p} | thrifty for p in PRECISIONS]
    tried += [{"network": "ResNetUNet", "precision": p} for p in PRECISIONS]
    rows = [_training_row(asked.repeats, **setting) for setting in tried]
    first = rows[0]
    for row in rows:
        row["speed_of_first"] = row["patches_per_second"] / first["patches_per_second"]
        row["processor_speed_of_first"] = (
            first["step_processor_seconds"] / row["step_processor_seconds"] * row["batch"]
        )
        row["memory_of_first"] = row["bytes_per_pixel"] / first["bytes_per_pixel"]
    return rows


def _training_row(repeats: int, **setting: Any) -> dict:
    """Measure one setting at two sizes; memory per pixel is what the larger takes more."""
    # In the order of the table's lines.
    order = ("network", "precision", "rematerialise", "xla", "batch", "micro_batch")
    setting = {**dict.fromkeys(order), "batch": 1, **setting}
    at_once = setting["micro_batch"] or setting["batch"]
    few = 1 if setting["batch"] > 1 else repeats
    large = measure(f"{TRAINING}:training", **setting, crop=512, repeats=few)
    small = measure(f"{TRAINING}:training", **setting, crop=256, repeats=0)
    large["bytes_per_pixel"] = (
        (large["megabytes"] - small["megabytes"]) * 2**20 / (at_once * (512**2 - 256**2))
    )
    # The peak of the whole process says little beside what the steps came to hold.
    return {key: large[key] for key in large if key not in ("repeats", "peak_megabytes")}


def input_rows(asked: Asked) -> list[dict]:
    """Measure batches of two crops of 256, which 8 GB of memory can train at full width."""
    sizes = {"crop": 256, "batch": 2, "precision": asked.precision}
    return [measure(f"{TRAINING}:input_cost", **sizes, repeats=asked.repeats, rounds=3)]


def windows_rows(asked: Asked) -> list[dict]:
    """Measure overlaps from none to half a window, larger windows, and all symmetries."""
    from jointnet.runs import load_run

    config = load_run(asked.model).config
    side, overlap = config["window"], config["overlap"]
    plain = {"augment": False, "shift": True}
    tried = [{"window": side, "overlap": side * eighths // 8, **plain} for eighths in range(5)]
    tried += [
        {"window": larger, "overlap": larger // 4, "augment": False, "shift": False}
        for larger in (side * 3 // 2, side * 2)
    ]
    tried.append({"window": side, "overlap": overlap, "augment": True, "shift": False})
    return [_on_scenes("windows", asked, **one) for one in tried]


def _on_scenes(name: str, asked: Asked, **arguments: Any) -> dict:
    """Measure a trained network on imagery; where the two lie is left out of the row."""
    places = {"model": str(asked.model.resolve()), "data": str(asked.data.resolve())}
    row = measure(f"{PREDICTION}:{name}", **places, precision=asked.precision, **arguments)
    return {key: value for key, value in row.items() if key not in places}


def evaluation_rows(asked: Asked) -> list[dict]:
    """Measure one tile, as many as Inria's validation has, and one with objects."""
    return [
        measure(f"{PREDICTION}:evaluation", size=asked.size, objects=objects, tiles=tiles)
        for objects, tiles in ((False, 1), (False, 25), (True, 1))
    ]


@dataclass(frozen=True)
class Part:
    """One table: what measures its rows, and the goal.

    Its files are named after the fields ``named_after`` of ``Asked``. With ``needs_data`` it needs
    a trained network and imagery.
    """

    rows: Callable[[Asked], list[dict]]
    goal: str
    named_after: tuple[str, ...] = ()
    needs_data: bool = False


PARTS = {
    "inference": Part(
        inference_rows,
        "bare / end to end 0.95 or more; under 3,000 MB for 5000 x 5000 at full width",
        ("variant", "precision"),
    ),
    "memory": Part(memory_rows, "peaks within 5 % over all numbers of rows"),
    "training": Part(
        training_rows,
        "one setting 1.8 times as fast as keras.layers in float32, one with 0.35 of its memory; "
        "batches of 8 patches of 512 px in 16 GB",
    ),
    "input": Part(
        input_rows, "steps on real input within 5 % of those on a constant batch", ("precision",)
    ),
    "evaluation": Part(
        evaluation_rows,
        "5000 x 5000 in 5 s, with objects in 60 s; 25 such tiles in 60 s and 1,000 MB",
    ),
    "windows": Part(
        windows_rows,
        "the default's IoU and steadiness worth its cost",
        ("model", "precision"),
        needs_data=True,
    ),
    "mosaic": Part(
        lambda asked: [_on_scenes("mosaic", asked)],
        "none stated; no footprint is cut at the border of a tile",
        ("model", "precision"),
        needs_data=True,
    ),
}


def stem(part: str, asked: Asked) -> str:
    """Return the name of a part's files without its ending."""
    words = {field: getattr(asked, field) for field in PARTS[part].named_after}
    if words.get("variant") == "jointnet":
        del words["variant"]
    return "_".join([part, *(Path(word).resolve().name for word in words.values())])


def as_markdown(part: str, content: dict) -> str:
    """Return the table of one part, with the machine and the command."""
    rows, machine = content["rows"], content["machine"]
    versions, backend = machine["packages"], machine["backend"]
    where = f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['devices'])}"
    python = f"python {machine['python']}"
    lines = [
        f"# {part}",
        f"{where}; {backend} {versions.get(backend, '')}, keras {versions['keras']}, {python}",
        f"`python experiments/{machine['command']}`, commit {machine['commit']}",
        f"Goal: {PARTS[part].goal}. Times are medians, in seconds.",
    ]
    table = ["| | " + " | ".join(str(number) for number in range(1, len(rows) + 1)) + " |"]
    table.append("|---|" + "---|" * len(rows))
    for key in (key for key, value in rows[0].items() if not isinstance(value, list)):
        cells = " | ".join(_cell(row[key]) for row in rows)
        table.append(f"| {key.replace('_', ' ')} | {cells} |")
    return "\n\n".join([*lines, "\n".join(table)]) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _known_variant(context: click.Context, option: click.Parameter, value: str) -> str:
    # Not a click.Choice: that would load Keras for --help.
    from jointnet.model import VARIANTS

    if value not in VARIANTS:
        raise click.BadParameter(f"{value!r} is no variant; there are {', '.join(VARIANTS)}")
    return value


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("part", type=click.Choice([*PARTS, "all"]), default="all")
@click.option("--size", type=click.IntRange(64), default=5000, help="Side of the tile, pixels.")
@click.option(
    "--variant",
    default="jointnet",
    callback=_known_variant,
    help="Network of the part inference, such as jointnet_half.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    help="Precision of inference, input, windows and mosaic; training tries both.",
)
@click.option("--repeats", type=click.IntRange(1), default=7, help="Training steps that are timed.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=PROJECT_RESULTS / "benchmark",
    show_default="results/benchmark",
    help="Folder of the tables.",
)
@model_option
@data_option
@overwrite_option
def main(part: str, output: Path, overwrite: bool, **options: Any) -> None:
    """Measure one part, or all that need no data, and write tables as JSON and Markdown.

    \b
    inference   predict_raster on a generated tile, and the bare network on as many windows;
                peak memory of the process; machine hours of larger areas
    memory      predict_raster with a stand-in network on --size columns and as many rows, four
                and twelve times as many; GDAL's cache is kept to 64 MB
    training    steps on patches of 512 px: JointNet of nothing but keras.layers, this one at
                each setting, ResNetUNet; time, memory, share of a large matrix product
    input       training steps on a constant batch and on those of a patch store
    evaluation  masks of generated tiles against labels, pixels and objects
    windows     validation scenes of --model, in --data, by windows of several sizes and
                overlaps: IoU, what changes if the windows are shifted, cost
    mosaic      the eight tiles of a town in --data as one raster, and alone

    Files are named after the part, and after network and precision where the part depends on
    them. Networks have random weights except for windows and mosaic. Each measurement runs in a
    process of its own. At full width on two CPU cores the tile of 5000 x 5000 pixels takes ten
    minutes, training hours.
    """  # noqa: D301 (click takes the control character itself)
    from jointnet.runs import environment

    # This process looks at the accelerator, and leaves its memory to those that measure.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    asked = Asked(**options)
    parts = [name for name in PARTS if not PARTS[name].needs_data] if part == "all" else [part]
    files = {(p, end): output / f"{stem(p, asked)}.{end}" for p in parts for end in ("json", "md")}
    for path in files.values():
        refuse_existing(path, overwrite)
    machine = environment()
    output.mkdir(parents=True, exist_ok=True)
    for name in parts:
        content = {"goal": PARTS[name].goal, "machine": machine, "rows": PARTS[name].rows(asked)}
        write_json(files[name, "json"], content)
        text = as_markdown(name, content)
        with replacing(files[name, "md"], overwrite=True) as beside:
            beside.write_text(text, encoding="utf-8")
        click.echo(text)


if __name__ == "__main__":
    main()
