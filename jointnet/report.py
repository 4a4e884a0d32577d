"""How what a report shows was made: data, split, weights, commands and machines, as known."""

import csv
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from jointnet.evaluation import LabelledImage
from jointnet.figures import displayable
from jointnet.mask_evaluation import open_mask
from jointnet.metrics import threshold_mask
from jointnet.runs import WEIGHTS, Run, environment
from preprocessing.errors import DatasetError, RasterError
from preprocessing.image_operations import scale
from preprocessing.output_files import hash_file
from preprocessing.pictures import TILE, ScenePictures, Strip, write_scene_pictures
from preprocessing.raster_access import RasterInfo, raster_info
from preprocessing.rasters import RasterReader
from preprocessing.scenes import NAMES_SHOWN, Scene, images_in
from preprocessing.tiling import VOID, Window

SCENES_SHOWN = 40
_HELD_BACK = (
    "these scenes were held back from training; image and label of each have the SHA-256 that the "
    "training wrote down"
)
_NOT_KNOWN = "not known: whoever made the masks can say whether these scenes were trained on"


@dataclass(frozen=True)
class Origin:
    """What a report says of where its figures come from.

    Attributes:
        title: of the page.
        kind: one line above it.
        measured: what follows "25 scenes" in the lead.
        threshold: of the layers that are drawn; None for finished masks.
        facts: terms with what there is to say of each.
        history: rows of the run's ``history.csv``; empty where there is none.
        best_epoch: whose weights were kept; None where unknown.
    """

    title: str
    kind: str
    measured: str
    threshold: float | None
    facts: Sequence[tuple[str, str]]
    history: Sequence[dict[str, float]] = ()
    best_epoch: int | None = None


def run_origin(run: Run, threshold: float, scenes: Sequence[str], augment: bool) -> Origin:
    """The origin of what a trained network says of its validation scenes.

    Args:
        run: the network.
        threshold: of the layers.
        scenes: names of the scenes.
        augment: whether windows were predicted in eight positions.
    """
    config, data = run.config, _json(run.folder / "data.json")
    metrics = _json(run.folder / "metrics.json")
    best = (metrics.get("best_epoch") or {}).get("epoch")
    facts = [
        ("network", _network(config)),
        ("weights", f"SHA-256 {hash_file(run.folder / WEIGHTS)}"),
        ("prediction", _prediction(config, augment)),
        ("scenes", _listed(scenes)),
        ("split", _HELD_BACK),
    ]
    if best is not None:
        words = f"of {metrics['epochs']} epochs, that with the best validation on these same scenes"
        facts.append(("weights kept", f"epoch {best}, {words}: the figures flatter it a little"))
    facts += _training_data(data)
    facts += _environment("training", _json(run.folder / "environment.json"))
    facts += _environment("report", environment())
    return Origin(
        title=run.name,
        kind=f"{config['target']}: a trained network on its validation scenes",
        measured=" held back from training",
        threshold=threshold,
        facts=facts,
        history=read_history(run.folder / "history.csv"),
        best_epoch=best,
    )


def mask_origin(
    predictions: Path, labels: Path, scenes: Sequence[str], notes: Sequence[str]
) -> Origin:
    """The origin of finished masks, of which no more is known than their files.

    Args:
        predictions: folder of the masks.
        labels: of their labels.
        scenes: names of the scenes.
        notes: what became of polygons, and which masks were aligned.
    """
    predictions, labels = predictions.resolve(), labels.resolve()
    facts = [
        ("masks", f"folder {predictions.name}"),
        ("labels", f"{labels.name}"),
        ("scenes", _listed(scenes)),
        ("split", _NOT_KNOWN),
        *(("note", note) for note in notes),
        *_environment("report", environment()),
    ]
    return Origin(
        title=f"{predictions.name} against {labels.name}",
        kind="finished masks against labels",
        measured="",
        threshold=None,
        facts=facts,
    )


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a ``history.csv`` as numbers; none where it cannot be read.

    Cells that hold no number are left out of their row.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(_numbers(row)) for row in csv.DictReader(file)]
    except OSError:
        return []
    return [row for row in rows if "epoch" in row]


def _numbers(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        try:
            yield name, float(text)
        except (TypeError, ValueError):
            continue


def _network(config: dict) -> str:
    words = [config["network"]["class"]]
    if "parameters" in config:
        words.append(f"{config['parameters']:,} parameters")
    words.append(f"{config['bands']} bands of {config['dtype']}")
    if config["gsd"]:
        words.append(f"made for {config['gsd']:g} m a pixel")
    return ", ".join(words)


def _prediction(config: dict, augment: bool) -> str:
    words = f"windows of {config['window']} px that share {config['overlap']} px, blended"
    if augment:
        words += "; mean over the eight flips and quarter turns of each"
    return f"{words}; scenes on their own pixels, not resampled; threshold {config['threshold']:g}"


def _training_data(data: dict) -> Iterator[tuple[str, str]]:
    if "scenes" in data:
        sides = [scene["split"] for scene in data["scenes"]]
        names = [scene["name"] for scene in data["scenes"] if scene["split"] == "train"]
        yield "trained on", f"{sides.count('train')} scenes: {_listed(names)}"
    if "patches" in data:
        patches = data["patches"]
        yield "patches", f"{patches['train']:,} to train, {patches['validation']:,} to validate"
    if "manifest_sha256" in data:
        yield "patch store", f"manifest SHA-256 {data['manifest_sha256']}"


def _environment(what: str, described: dict) -> Iterator[tuple[str, str]]:
    """Command and machine of a training or of this report."""
    if not described:
        yield f"{what}: machine", "not written down"
        return
    if described.get("command"):
        yield f"{what}: command", described["command"]
    packages = described.get("packages") or {}
    versions = [f"{name} {version}" for name, version in packages.items()]
    words = [f"Python {described.get('python', '?')}", *versions]
    yield f"{what}: software", ", ".join(words)
    machine = [described.get("backend"), *(described.get("devices") or [])]
    machine += [described.get("processor"), f"{described.get('cores', '?')} cores"]
    yield f"{what}: machine", ", ".join(str(word) for word in machine if word)
    yield f"{what}: commit", described.get("commit") or "not in a git checkout"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SCENES_SHOWN} more" if len(names) > SCENES_SHOWN else ""
    return ", ".join(names[:SCENES_SHOWN]) + more


def _json(path: Path) -> dict:
    """What a file of a run says; nothing where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


WORKERS = 2
# Of an image whose depth is not 8 bits, every so many rows and columns say how it is shown.
_SAMPLED = 8


@dataclass(frozen=True)
class ReportScene:
    """A scene of a report.

    Attributes:
        name: the scene.
        folder: of its layers, below the report's.
        gsd: ground metres per pixel; None where unknown.
        layers: what was written.
    """

    name: str
    folder: str
    gsd: float | None
    layers: ScenePictures


class SceneWriter:
    """Writes scenes in threads, a few at a time; a context manager.

    OpenCV and zlib do most of the work, and let other threads run meanwhile. ``add`` waits where
    too many scenes would have to be held.

    Args:
        folder: of the report.
        workers: number of threads.
    """

    def __init__(self, folder: Path, workers: int = WORKERS) -> None:
        self._folder, self._workers = folder, workers
        self._pool = ThreadPoolExecutor(workers)
        self._running: deque[Future] = deque()
        self._added: list[Future] = []

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave what has not begun, and wait for the rest."""
        self._pool.shutdown(cancel_futures=True)

    def add(self, name: str, info: RasterInfo, strips: Callable[[], Iterator[Strip]]) -> None:
        """Begin to write a scene.

        Args:
            name: the scene.
            info: of its raster.
            strips: called in a thread, see ``pictures.write_scene_pictures``.

        Raises:
            JointNetError, OSError: of an earlier scene.
        """
        while len(self._running) > self._workers:
            self._running.popleft().result()
        place = f"scenes/{len(self._added) + 1}"

        def write() -> ReportScene:
            folder = self._folder / place
            layers = write_scene_pictures(folder, info.height, info.width, strips())
            return ReportScene(name, place, info.gsd, layers)

        future = self._pool.submit(write)
        self._running.append(future)
        self._added.append(future)

    def finish(self) -> list[ReportScene]:
        """All scenes, in the order in which they came.

        Raises:
            JointNetError, OSError: of a scene.
        """
        return [future.result() for future in self._added]


def predicted_strips(
    scene: LabelledImage, probabilities: np.ndarray, threshold: float
) -> Callable[[], Iterator[Strip]]:
    """The strips of a scene in memory, and of what a network says of it.

    Args:
        scene: with its label void where it has no imagery.
        probabilities: ``(height, width)`` float32.
        threshold: probability from which a pixel is target.
    """
    prediction = threshold_mask(probabilities, threshold)
    step = (slice(None, None, _SAMPLED),) * 2
    show = _display(scene.image[step][scene.label[step] != VOID][None])

    def strips() -> Iterator[Strip]:
        for row in range(0, len(prediction), TILE):
            rows = slice(row, row + TILE)
            yield show(scene.image[rows]), scene.label[rows], prediction[rows]

    return strips


def mask_strips(scene: Scene, align: bool, image: Path | None) -> Callable[[], Iterator[Strip]]:
    """The strips of a finished mask, its label and, if there is one, its image.

    Args:
        scene: of ``jointnet.mask_evaluation.mask_scenes``.
        align: as in ``jointnet.mask_evaluation.MaskMeasures``.
        image: raster of the mask's size.

    Raises:
        RasterError: the image has another size.
    """

    def strips() -> Iterator[Strip]:
        with open_mask(scene, align) as files:
            height, width = files.info.height, files.info.width
            windows = [
                Window(row, 0, min(TILE, height - row), width) for row in range(0, height, TILE)
            ]
            if image is None:
                for window in windows:
                    yield None, files.read_label(window), files.read_mask(window)
                return
            with RasterReader(image, band_count=_shown_bands(image)) as reader:
                if (reader.height, reader.width) != (height, width):
                    raise RasterError(
                        f"{image} has {reader.width} x {reader.height} pixels, its mask "
                        f"{width} x {height}; give the image that the mask was made of"
                    )
                show = _display(_sample(reader, windows))
                for window in windows:
                    pixels, _ = reader.read(window)
                    yield show(pixels), files.read_label(window), files.read_mask(window)

    return strips


def images_of(scenes: list[Scene], folder: Path | None) -> dict[str, Path]:
    """The image of each scene of finished masks, by name; none without a folder of them.

    Raises:
        DatasetError: scenes without an image of their stem.
    """
    if folder is None:
        return {}
    by_stem = {path.stem: path for path in images_in(folder)}
    missing = sorted({scene.name for scene in scenes} - by_stem.keys())
    if missing:
        more = ", ..." if len(missing) > NAMES_SHOWN else ""
        raise DatasetError(
            f"{folder} has no image of {len(missing)} mask(s): "
            f"{', '.join(missing[:NAMES_SHOWN])}{more}; they have the names of the labels"
        )
    return {scene.name: by_stem[scene.name] for scene in scenes}


def _shown_bands(image: Path) -> int:
    return 3 if raster_info(image).band_count >= 3 else 1


def _sample(reader: RasterReader, windows: list[Window]) -> np.ndarray:
    """Some valid pixels of an image, ``(1, pixels, bands)``; none where 8 bits need no look."""
    parts = [np.zeros((0, len(reader.bands)), reader.dtype)]
    for window in windows if reader.dtype != "uint8" else ():
        image, valid = reader.read(window)
        step = (slice(None, None, _SAMPLED),) * 2
        parts.append(image[step][valid[step]])
    return np.concatenate(parts)[None]


def _display(sample: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What makes pixels ``(rows, columns, bands)`` fit for the screen, uint8 of three bands.

    Args:
        sample: pixels of the scene, of which those of other depths than 8 bits are stretched from
            the 2nd to the 98th percentile.
    """
    if sample.dtype == np.uint8:
        return displayable
    finite = sample[..., :3][np.isfinite(sample[..., :3])]
    low, high = np.percentile(finite, (2, 98)) if finite.size else (0, 1)
    return lambda pixels: displayable(scale(pixels, low, high).astype(np.uint8))
