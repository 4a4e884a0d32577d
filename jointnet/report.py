"""A report of an evaluation: measured, its scenes drawn, and how its numbers were made."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jointnet.evaluation import (
    LabelledImage,
    SceneCounts,
    describe_evaluation,
    evaluate_run,
    evaluation_notes,
)
from jointnet.figures import display_like
from jointnet.mask_evaluation import MaskMeasures, evaluate_masks, mask_scenes, open_mask
from jointnet.metrics import threshold_mask
from jointnet.report_page import SCRIPT, Origin, ReportScene, write_page
from jointnet.runs import WEIGHTS, Run, environment
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.errors import DatasetError, RasterError, listed
from preprocessing.output_files import hash_file, replacing_folder, write_json
from preprocessing.scenes import Scene, images_in
from preprocessing.tiling import VOID, Window

if TYPE_CHECKING:
    from preprocessing.pictures import Strip
    from preprocessing.raster_access import RasterInfo
    from preprocessing.rasters import RasterReader

Strips = Callable[[], "Iterator[Strip]"]
"""Gives the strips of a scene, see ``preprocessing.pictures.write_scene_pictures``."""

THREADS = 2
SCENES_LISTED = 40
# Every eighth row and column of an image of more than 8 bits decide how it is stretched.
_SAMPLED = (slice(None, None, 8),) * 2
_HELD_BACK = (
    "these scenes were held back from training; image and label of each have the SHA-256 that the "
    "training wrote down"
)
_NOT_KNOWN = "not known: whoever made the masks can say whether these scenes were trained on"


def report_run(
    run: Run,
    scenes: Iterable[Scene],
    folder: Path,
    relaxed_buffer: int | None = None,
    augment: bool = False,
    objects: bool = False,
    overwrite: bool = False,
) -> dict:
    """Predict scenes with a trained network, measure them and make a report in a folder.

    It counts at 0.5 and at the run's own threshold, which the pictures show. The other arguments
    are those of ``jointnet.evaluation.evaluate_run``; ``overwrite`` replaces an older report.
    Returns the content of ``evaluation.json``.
    """
    shown = run.config["threshold"]
    histogram = ProbabilityHistogram()
    with replacing_folder(folder, overwrite, SCRIPT) as made, SceneWriter(made) as writer:

        def watch(scene: LabelledImage, probabilities: np.ndarray) -> None:
            writer.add(scene.name, scene.info, predicted_strips(scene, probabilities, shown))

        at = sorted({0.5, shown})
        records = evaluate_run(run, scenes, at, relaxed_buffer, augment, histogram, objects, watch)
        names = list(dict.fromkeys(record.name for record in records))
        return _complete(made, writer, records, histogram, run_origin(run, names, augment))


def report_masks(
    predictions: Path,
    labels: Path,
    folder: Path,
    images: Path | None = None,
    where: str | None = None,
    buffer_m: float | None = None,
    measures: MaskMeasures | None = None,
    overwrite: bool = False,
) -> dict:
    """Measure finished masks and make a report in a folder.

    With ``images``, a folder of the images that the masks were made of, these lie beneath them.
    The other arguments are those of ``jointnet.mask_evaluation.evaluate_masks``; ``overwrite``
    replaces an older report. Returns the content of ``evaluation.json``.
    """
    from preprocessing.raster_access import raster_info

    measures = measures or MaskMeasures(histogram=ProbabilityHistogram())
    scenes = mask_scenes(predictions, labels, where, buffer_m)
    shown = images_of(scenes, images)
    with replacing_folder(folder, overwrite, SCRIPT) as made, SceneWriter(made) as writer:
        records = evaluate_masks(predictions, labels, where, buffer_m, measures=measures)
        for scene, record in zip(scenes, records, strict=True):
            # An aligned mask lies on the pixels of its label.
            grid = scene.label if record.aligned else scene.image
            strips = mask_strips(scene, measures.align, shown.get(scene.name))
            writer.add(scene.name, raster_info(grid), strips)
        names = [scene.name for scene in scenes]
        origin = mask_origin(predictions, labels, names, evaluation_notes(records))
        return _complete(made, writer, records, measures.histogram, origin)


def _complete(
    folder: Path,
    writer: "SceneWriter",
    records: Sequence[SceneCounts],
    histogram: ProbabilityHistogram | None,
    origin: Origin,
) -> dict:
    """Write the page and ``evaluation.json``, and return what the latter holds."""
    content = describe_evaluation(records, histogram)
    write_page(folder, content, writer.finish(), origin)
    write_json(folder / "evaluation.json", content)
    return content


# The pictures of scenes


class SceneWriter:
    """Writes the pictures of scenes to a report's folder, in threads; a context manager.

    OpenCV and zlib, which do most of the work, let other threads run meanwhile. ``add`` waits
    while too many scenes are held in memory. A later ``add``, or ``finish``, raises what a scene
    failed with.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(THREADS)
        self._added: list[Future] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Drop what has not begun, and wait for the rest."""
        self._pool.shutdown(cancel_futures=True)

    def add(self, name: str, info: "RasterInfo", strips: Strips) -> None:
        """Begin to write a scene; ``strips`` is called in a thread."""
        from preprocessing.pictures import write_scene_pictures

        for earlier in self._added[:-THREADS]:
            earlier.result()
        place = f"scenes/{len(self._added) + 1}"

        def write() -> ReportScene:
            folder = self._folder / place
            pictures = write_scene_pictures(folder, info.height, info.width, strips())
            return ReportScene(name, place, info.gsd, pictures)

        self._added.append(self._pool.submit(write))

    def finish(self) -> list[ReportScene]:
        """Wait, and return the scenes in the order in which they were added."""
        return [future.result() for future in self._added]


def predicted_strips(scene: LabelledImage, probabilities: np.ndarray, threshold: float) -> Strips:
    """Return the strips of a scene in memory, whose label is void where it has no imagery."""
    from preprocessing.pictures import TILE

    prediction = threshold_mask(probabilities, threshold)
    show = display_like(scene.image[_SAMPLED][scene.label[_SAMPLED] != VOID])

    def strips() -> "Iterator[Strip]":
        for row in range(0, len(prediction), TILE):
            rows = slice(row, row + TILE)
            yield show(scene.image[rows]), scene.label[rows], prediction[rows]

    return strips


def mask_strips(scene: Scene, align: bool, image: Path | None) -> Strips:
    """Return the strips of a finished mask, its label and its image, None for none.

    ``align`` is that of ``jointnet.mask_evaluation.MaskMeasures``. The strips raise a
    ``RasterError`` if the image has another size than the mask.
    """
    from preprocessing.pictures import TILE
    from preprocessing.raster_access import raster_info
    from preprocessing.rasters import RasterReader

    def strips() -> "Iterator[Strip]":
        with open_mask(scene, align) as files:
            height, width = files.info.height, files.info.width
            starts = range(0, height, TILE)
            windows = [Window(row, 0, min(TILE, height - row), width) for row in starts]
            if image is None:
                for window in windows:
                    yield None, files.read_label(window), files.read_mask(window)
                return
            bands = 3 if raster_info(image).band_count >= 3 else 1
            with RasterReader(image, band_count=bands) as reader:
                if (reader.height, reader.width) != (height, width):
                    raise RasterError(
                        f"{image} has {reader.width} x {reader.height} pixels, its mask "
                        f"{width} x {height}; give the image that the mask was made of"
                    )
                show = display_like(_sample(reader, windows))
                for window in windows:
                    pixels, _ = reader.read(window)
                    yield show(pixels), files.read_label(window), files.read_mask(window)

    return strips


def images_of(scenes: Sequence[Scene], folder: Path | None) -> dict[str, Path]:
    """Return the image of each scene of finished masks by name; none without a folder of them.

    Raises:
        DatasetError: a scene has no image of its stem.
    """
    if folder is None:
        return {}
    by_stem = {path.stem: path for path in images_in(folder)}
    missing = sorted({scene.name for scene in scenes} - by_stem.keys())
    if missing:
        raise DatasetError(
            f"{folder} has no image of {len(missing)} mask(s): {listed(missing)}; "
            "an image has the name of its label"
        )
    return {scene.name: by_stem[scene.name] for scene in scenes}


def _sample(reader: "RasterReader", windows: Sequence[Window]) -> np.ndarray:
    """Return some valid pixels, ``(pixels, bands)``; none of 8 bits, which are not stretched."""
    parts = [np.zeros((0, len(reader.bands)), reader.dtype)]
    for window in windows if reader.dtype != "uint8" else ():
        image, valid = reader.read(window)
        parts.append(image[_SAMPLED][valid[_SAMPLED]])
    return np.concatenate(parts)


# Where the numbers come from


def run_origin(run: Run, scenes: Sequence[str], augment: bool) -> Origin:
    """Return the origin of a report on a trained network; ``scenes`` are names."""
    config = run.config
    data, metrics, made = (
        _json(run.folder / f"{name}.json") for name in ("data", "metrics", "environment")
    )
    network = [config["network"]["class"]]
    network += [f"{config['parameters']:,} parameters"] if "parameters" in config else []
    network += [f"{config['bands']} bands of {config['dtype']}"]
    network += [f"made for {config['gsd']:g} m a pixel"] if config["gsd"] else []
    windows = f"windows of {config['window']} px that share {config['overlap']} px, blended"
    mean = "; mean over the eight flips and quarter turns of each" if augment else ""
    facts = {
        "network": ", ".join(network),
        "weights": f"SHA-256 {hash_file(run.folder / WEIGHTS)}",
        "prediction": f"{windows}{mean}; scenes on their own pixels, not resampled; "
        f"threshold {config['threshold']:g}",
        "scenes": _named(scenes),
        "split": _HELD_BACK,
    }
    best = (metrics.get("best_epoch") or {}).get("epoch")
    if best is not None:
        facts["weights kept"] = (
            f"epoch {best} of {metrics['epochs']}, which validated best on these same scenes: the "
            "numbers flatter it a little"
        )
    if "scenes" in data:
        trained = [scene["name"] for scene in data["scenes"] if scene["split"] == "train"]
        facts["trained on"] = _named(trained)
    if "patches" in data:
        train, validation = (data["patches"][split] for split in ("train", "validation"))
        facts["patches"] = f"{train:,} to train, {validation:,} to validate"
    if "manifest_sha256" in data:
        facts["patch store"] = f"manifest SHA-256 {data['manifest_sha256']}"
    return Origin(
        title=run.name,
        kind=f"{config['target']}: a trained network on its validation scenes",
        measured=" held back from training",
        threshold=config["threshold"],
        facts=[*facts.items(), *_machine("training", made), *_machine("report", environment())],
        history=read_history(run.folder / "history.csv"),
        best_epoch=best,
    )


def mask_origin(
    predictions: Path, labels: Path, scenes: Sequence[str], notes: Sequence[str]
) -> Origin:
    """Return the origin of a report on finished masks, of which only the files are known.

    The scenes are names, the notes those of ``jointnet.evaluation.evaluation_notes``.
    """
    masks, truth = predictions.resolve().name, labels.resolve().name
    facts = [("masks", f"folder {masks}"), ("labels", truth), ("scenes", _named(scenes))]
    facts += [("split", _NOT_KNOWN), *(("note", note) for note in notes)]
    return Origin(
        title=f"{masks} against {truth}",
        kind="finished masks against labels",
        measured="",
        threshold=None,
        facts=[*facts, *_machine("report", environment())],
    )


def read_history(path: Path) -> list[dict[str, float]]:
    """Return the numbers in each row of a ``history.csv``; no rows if it cannot be read."""

    def numbers(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
        for name, text in row.items():
            try:
                yield name, float(text)
            except (TypeError, ValueError):
                continue

    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(numbers(row)) for row in csv.DictReader(file)]
    except OSError:
        return []
    return [row for row in rows if "epoch" in row]


def _machine(what: str, described: dict) -> list[tuple[str, str]]:
    """Return the command, software, machine and commit of a training or of this report."""
    if not described:
        return [(f"{what}: machine", "not written down")]
    packages = [f"{name} {version}" for name, version in (described.get("packages") or {}).items()]
    machine = [described.get("backend"), *(described.get("devices") or [])]
    machine += [described.get("processor"), f"{described.get('cores', '?')} cores"]
    facts = {
        "command": described.get("command"),
        "software": ", ".join([f"Python {described.get('python', '?')}", *packages]),
        "machine": ", ".join(str(word) for word in machine if word),
        "commit": described.get("commit") or "not in a git checkout",
    }
    return [(f"{what}: {term}", words) for term, words in facts.items() if words]


def _named(scenes: Sequence[str]) -> str:
    return f"{len(scenes)}: {listed(scenes, SCENES_LISTED)}"


def _json(path: Path) -> dict:
    """Return the content of a run's file; nothing if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
