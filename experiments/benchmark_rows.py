"""The rows of the benchmark's tables, each measured in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from experiments.torch_cost import at_hand
from jointnet.runs import load_run
from preprocessing.errors import RunError

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
    from experiments.full_size import write_stand_in

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
    from experiments.evaluation_cost import write_tiles

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
