"""The rows of the benchmark's tables, each measured in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import keras

from experiments.options import RESULTS, Command, data_option, model_option, overwrite_option
from experiments.torch_cost import at_hand
from jointnet.model import VARIANTS
from jointnet.runs import environment, load_run
from preprocessing.errors import RunError
from preprocessing.output_files import refuse_existing, replacing, write_json

# GDAL's cache of blocks, 256 MB by default, would be full in large rasters only.
ENVIRONMENT = {"memory": {"GDAL_CACHEMAX": "64"}}
ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("float32", "mixed_bfloat16")


def measure(name: str, **arguments: Any) -> dict[str, Any]:
    """Run one function of ``experiments.measurements`` in a process of its own.

    Raises:
        RunError: it failed, by not enough memory for example.
    """
    words = [sys.executable, "-m", "experiments.measurements", name, json.dumps(arguments)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", **ENVIRONMENT.get(name, {})}
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"stopped with code {done.returncode}"
        raise RunError(f"the measurement of {name} with {arguments} failed: {reason}")
    return {**arguments, **json.loads(done.stdout.splitlines()[-1])}


@dataclass(frozen=True)
class Asked:
    """What the command was asked to measure: its options of the same names."""

    size: int
    variant: str
    precision: str
    repeats: int
    model: Path
    data: Path

    @property
    def network(self) -> dict[str, str]:
        """Variant and precision."""
        return {"variant": self.variant, "precision": self.precision}


def inference_rows(asked: Asked) -> list[dict]:
    """One run over a tile, with windows of 512 as in the published recipes."""
    return [measure("inference", size=asked.size, **asked.network, window=512)]


def memory_rows(asked: Asked) -> list[dict]:
    """A stand-in network over as many rows as columns, four and twelve times as many."""
    sizes = {"width": asked.size, "window": 256}
    return [measure("memory", rows=asked.size * times, **sizes) for times in (1, 4, 12)]


def batches_rows(asked: Asked) -> list[dict]:
    """Batches of two crops of 256, which 8 GB of memory can train at full width."""
    return [measure("batches", **asked.network, repeats=asked.repeats, crop=256, batch=2)]


def training_rows(asked: Asked) -> list[dict]:
    """Networks and settings in turn; speed and memory also as shares of the first's."""
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
    rows = [_training_row("training", asked.repeats, **one) for one in tried]
    if at_hand():
        rows += [_training_row("torch_training", asked.repeats, precision=p) for p in PRECISIONS]
    first = rows[0]
    for row in rows:
        row["speed_of_first"] = row["patches_per_second"] / first["patches_per_second"]
        row["processor_speed_of_first"] = (
            first["step_processor_seconds"] / row["step_processor_seconds"] * row["batch"]
        )
        row["memory_of_first"] = row["bytes_per_pixel"] / first["bytes_per_pixel"]
    return rows


def input_rows(asked: Asked) -> list[dict]:
    """Batches of two crops of 256, as for ``batches``."""
    sizes = {"crop": 256, "batch": 2, "precision": asked.precision}
    return [measure("input", **sizes, repeats=asked.repeats, rounds=3)]


def profile_rows(asked: Asked) -> list[dict]:
    """One step of each; speed against JointNet of nothing but ``keras.layers`` in float32."""
    settings = [("keras.layers", "float32", None)]
    settings += [("JointNet", precision, None) for precision in PRECISIONS]
    settings.append(("JointNet", "mixed_bfloat16", "concatenations"))
    rows = [
        measure("profile", crop=256, network=network, precision=precision, rematerialise=again)
        for network, precision, again in settings
    ]
    return [row | {"speed_of_first": rows[0]["sum_seconds"] / row["sum_seconds"]} for row in rows]


def _training_row(name: str, repeats: int, **setting: Any) -> dict:
    """One setting, in two sizes: what grows with the pixels is what they take."""
    at_once = setting.get("micro_batch") or setting.get("batch", 1)
    few = 1 if setting.get("batch", 1) > 1 else repeats
    large = measure(name, crop=512, repeats=few, **setting)
    small = measure(name, crop=256, repeats=0, **setting)
    large["bytes_per_pixel"] = (
        (large["megabytes"] - small["megabytes"]) * 2**20 / (at_once * (512**2 - 256**2))
    )
    described = {"network": "smp.Unet resnet34 (torch)", "precision": None, "rematerialise": None}
    described |= {"xla": None, "batch": 1, "micro_batch": None}
    # The greatest memory of the whole process says little beside what the steps came to hold.
    left_out = ("repeats", "peak_megabytes")
    return {key: value for key, value in (described | large).items() if key not in left_out}


def windows_rows(asked: Asked) -> list[dict]:
    """Overlaps from none to half a window; larger windows; all symmetries of the default's."""
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


def mosaic_rows(asked: Asked) -> list[dict]:
    """The tiles of one town as one raster, and alone."""
    return [_on_scenes("mosaic", asked)]


def _on_scenes(name: str, asked: Asked, **arguments: Any) -> dict:
    """A measurement of a trained network on imagery, without the places where both lie."""
    places = {"model": str(asked.model.resolve()), "data": str(asked.data.resolve())}
    row = measure(name, **places, precision=asked.precision, **arguments)
    return {key: value for key, value in row.items() if key not in places}


def normalisation_rows(asked: Asked) -> list[dict]:
    """Ours and Keras' as in the first block at full width, without its convolutions."""
    block = {"shape": [2, 256, 256, 32], "depth": 6}
    return [
        measure("normalisation", layer=layer, **block, dtype=dtype, repeats=asked.repeats)
        for dtype in ("float32", "bfloat16")
        for layer in ("project", "keras")
    ]


def inria_rows(asked: Asked) -> list[dict]:
    """Generated tiles in Inria's layout, cut and trained on by the recipe's settings."""
    from experiments.benchmark_training import write_stand_in

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        write_stand_in(Path(folder), size=asked.size)
        written = {"size": asked.size, "writing_seconds": time.perf_counter() - began}
        store = str(Path(folder) / "patches")
        cut = measure("cutting", data=folder, store=store)
        cut["cutting_peak_megabytes"] = cut.pop("peak_megabytes")
        arguments = {"store": store, "variant": asked.variant, "repeats": asked.repeats}
        # Two patches in float32 would take more than 20 GB.
        rows = [
            measure("schedule", batch=batch, precision=precision, **arguments)
            for batch, precision in ((1, "float32"), (1, "mixed_bfloat16"), (2, "mixed_bfloat16"))
        ]
    places = ("data", "store", "peak_megabytes")
    return [
        {key: value for key, value in (written | cut | row).items() if key not in places}
        for row in rows
    ]


def evaluation_rows(asked: Asked) -> list[dict]:
    """One tile, as many as Inria's validation has, and one with objects."""
    from experiments.benchmark_prediction import write_tiles

    with tempfile.TemporaryDirectory() as folder:
        sets = {n: str(write_tiles(Path(folder) / str(n), asked.size, n)) for n in (1, 25)}
        rows = [
            measure("evaluation", folder=sets[tiles], objects=objects)
            for tiles, objects in ((1, False), (25, False), (1, True))
        ]
    for row in rows:
        del row["folder"]
    return [{"size": asked.size, **row} for row in rows]


ROWS = {
    "inference": inference_rows,
    "memory": memory_rows,
    "batches": batches_rows,
    "normalisation": normalisation_rows,
    "training": training_rows,
    "input": input_rows,
    "profile": profile_rows,
    "windows": windows_rows,
    "mosaic": mosaic_rows,
    "inria": inria_rows,
    "evaluation": evaluation_rows,
}


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
