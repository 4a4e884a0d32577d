"""From a raster to its mask, overlay and footprints on disk, in one call.

Nothing here reads or writes rasters itself: ``preprocessing`` does, imported when called, so that
a machine that only trains needs no GDAL.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from jointnet.metrics import threshold_mask
from jointnet.prediction import batch_of, predict_strips
from jointnet.raster_checks import bands_of, check_raster
from jointnet.raster_outputs import (
    FOOTPRINTS,
    MASK,
    OVERLAY,
    PROBABILITIES,
    check_outputs,
    output_paths,
    publish_all,
)
from jointnet.runs import Run
from jointnet.window_bands import WindowGrid
from preprocessing.errors import OutputError, RunError
from preprocessing.outputs import folder_beside
from preprocessing.tiling import Window

if TYPE_CHECKING:
    from preprocessing.rasters import RasterReader


@dataclass(frozen=True)
class RasterPrediction:
    """What was predicted from one raster.

    Attributes:
        image: the raster.
        outputs: files written: mask, overlay, footprints and, if asked for, probabilities.
        notes: sentences worth reading, see ``raster_checks.check_raster``.
        footprints: number of footprints.
        pixels: pixels of the raster.
        valid_pixels: those that are not void.
        target_pixels: those of the target.
        seconds: time taken, outputs included.
    """

    image: Path
    outputs: tuple[Path, ...]
    notes: tuple[str, ...]
    footprints: int
    pixels: int
    valid_pixels: int
    target_pixels: int
    seconds: float

    @property
    def target_share(self) -> float:
        """Target among valid pixels, 0..1; 0 where all is void."""
        return self.target_pixels / max(self.valid_pixels, 1)


def predict_raster(
    run: Run,
    image: str | os.PathLike,
    folder: str | os.PathLike = "results",
    *,
    bands: Sequence[int] | None = None,
    threshold: float | None = None,
    probabilities: bool = False,
    overwrite: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
) -> RasterPrediction:
    """Predict a raster of any size in flat memory, and write what was found.

    ``<stem>_output.tif`` is the mask (uint8, 0 / 255, internal mask where there is void),
    ``<stem>_overlay.png`` a picture to look at, ``<stem>_footprints.geojson`` the outlines with
    their area. They appear together once all are complete; on any failure none does.

    Args:
        run: the network, from ``jointnet.runs.load_run``.
        image: anything GDAL reads, of any size, in the dtype that the network was trained on.
        folder: where the outputs go; made where it is missing.
        bands: 1-based bands to feed; None for those named in training, else by colour
            interpretation.
        threshold: probability from which a pixel is target, 0..1; None for the run's own.
        probabilities: write ``<stem>_probabilities.tif`` too, float32, NaN where void.
        overwrite: replace outputs that exist.
        batch_size: windows predicted at once; None for ``prediction.batch_of`` the run's window.
        progress: show a bar while predicting, if standard error is a terminal.

    Returns:
        What was written, and figures about it.

    Raises:
        RasterError: the raster cannot be read or fed, see ``raster_checks.check_raster``.
        OutputError: outputs exist, or cannot be written.
        RunError: the run cannot predict rasters.
    """
    from preprocessing.footprints import footprints, write_geojson
    from preprocessing.overlays import overlay, write_png
    from preprocessing.rasters import RasterReader

    began = time.perf_counter()
    image = Path(image)
    check_outputs([image], folder, probabilities, overwrite)
    notes = check_raster(run, image, bands)
    bands = bands_of(run, bands)
    threshold = run.config["threshold"] if threshold is None else threshold
    batch_size = batch_of(run.config["window"]) if batch_size is None else batch_size
    paths = output_paths(image, folder, probabilities)
    with (
        RasterReader(image, bands, run.config["bands"]) as reader,
        _hidden_folder(paths[MASK]) as hidden,
    ):
        drafts = output_paths(image, hidden, probabilities)
        valid, target = _write_rasters(run, reader, drafts, threshold, batch_size, progress)
        frame, _ = footprints(drafts[MASK])
        write_geojson(frame, drafts[FOOTPRINTS])
        write_png(overlay(reader, drafts[MASK]), drafts[OVERLAY])
        moves = [(drafts[kind], paths[kind]) for kind in paths]
        publish_all(moves, Path(tempfile.mkdtemp(dir=hidden)), overwrite)
    return RasterPrediction(
        image=image,
        outputs=tuple(paths.values()),
        notes=tuple(notes),
        footprints=len(frame),
        pixels=reader.height * reader.width,
        valid_pixels=valid,
        target_pixels=target,
        seconds=time.perf_counter() - began,
    )


@contextmanager
def _hidden_folder(path: Path) -> Iterator[Path]:
    """A ``folder_beside``; what goes wrong in it is told of the folder that the user named."""
    try:
        with folder_beside(path) as hidden:
            try:
                yield hidden
            except OutputError as error:
                raise OutputError(str(error).replace(str(hidden), str(path.parent))) from error
    except OSError as error:
        words = error.strerror or " ".join(str(error).split())
        raise OutputError(f"{path}: cannot be written: {words}") from error


def _write_rasters(
    run: Run,
    reader: "RasterReader",
    paths: dict[str, Path],
    threshold: float,
    batch_size: int,
    progress: bool,
) -> tuple[int, int]:
    """Predict strip by strip into the mask and, if wanted, the probabilities.

    Returns:
        Valid pixels and those of the target.
    """
    from preprocessing.raster_writers import MaskWriter, ProbabilityWriter

    grid = WindowGrid(reader.height, reader.width, run.config["window"], run.config["overlap"])
    reads = len(grid.windows()) + len(grid.starts(reader.height))
    valid_pixels = target_pixels = 0
    with ExitStack() as stack:
        mask_file = stack.enter_context(MaskWriter(paths[MASK], reader))
        probability_file: Any = None
        if PROBABILITIES in paths:
            writer = ProbabilityWriter(paths[PROBABILITIES], reader)
            probability_file = stack.enter_context(writer)
        # None: only on a terminal.
        bar = stack.enter_context(
            tqdm(
                total=reads,
                desc=reader.path.name,
                unit="window",
                leave=False,
                disable=None if progress else True,
            )
        )

        def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
            bar.update()
            return reader.read(window)

        def predict(images: np.ndarray) -> np.ndarray:
            results = run.model.predict_on_batch(images)
            if not np.isfinite(results).all():
                raise RunError(
                    f"{reader.path}: the network gives values that are not finite; are the "
                    "pixels in the range it was trained on?"
                )
            return results

        for first, strip in predict_strips(read, grid, predict, batch_size):
            window = Window(first, 0, *strip.shape)
            # A weighted mean may be above 1 by a rounding.
            strip = np.clip(strip, 0, 1)
            mask = threshold_mask(strip, threshold)
            mask_file.write(window, mask)
            if probability_file is not None:
                probability_file.write(window, strip)
            valid_pixels += int((mask <= 1).sum())
            target_pixels += int((mask == 1).sum())
    return valid_pixels, target_pixels
