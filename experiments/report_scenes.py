"""Where a report's scenes come from, and the threads that write their layers meanwhile."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from experiments.figures import displayable
from jointnet.evaluation import LabelledImage
from jointnet.mask_evaluation import open_mask
from jointnet.metrics import threshold_mask
from preprocessing.errors import DatasetError, RasterError
from preprocessing.image_operations import scale
from preprocessing.pictures import TILE, SceneLayers, Strip, write_layers
from preprocessing.rasters import RasterInfo, RasterReader, raster_info
from preprocessing.scenes import NAMES_SHOWN, Scene, images_in
from preprocessing.tiling import VOID, Window

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
    layers: SceneLayers


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
            strips: called in a thread, see ``pictures.write_layers``.

        Raises:
            JointNetError, OSError: of an earlier scene.
        """
        while len(self._running) > self._workers:
            self._running.popleft().result()
        place = f"scenes/{len(self._added) + 1}"

        def write() -> ReportScene:
            folder = self._folder / place
            layers = write_layers(folder, info.height, info.width, strips())
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
