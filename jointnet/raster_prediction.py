"""From a raster to its mask, overlay and footprints on disk, in one call.

Nothing here reads or writes rasters itself: ``preprocessing`` does, imported when called, so that
a machine that only trains needs no GDAL.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from tqdm import tqdm

from jointnet.metrics import threshold_mask
from jointnet.prediction import Predict, WindowGrid, predict_strips
from jointnet.raster_checks import check_raster
from jointnet.runs import Run
from preprocessing.errors import OutputError, RunError
from preprocessing.outputs import folder_beside, refuse_existing
from preprocessing.tiling import Window

if TYPE_CHECKING:
    from preprocessing.rasters import RasterReader

MASK, OVERLAY = "_output.tif", "_overlay.png"
FOOTPRINTS, PROBABILITIES = "_footprints.geojson", "_probabilities.tif"
# What GDAL and QGIS leave beside a raster, and what would belong to another one once replaced.
_SIDE_FILES = (".aux.xml", ".msk", ".ovr")


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


def output_paths(
    image: str | os.PathLike, folder: str | os.PathLike, probabilities: bool = False
) -> dict[str, Path]:
    """Where the outputs of an image go, by kind: ``<stem>_output.tif`` and so on."""
    kinds = (MASK, OVERLAY, FOOTPRINTS, *((PROBABILITIES,) if probabilities else ()))
    return {kind: Path(folder) / f"{Path(image).stem}{kind}" for kind in kinds}


def check_outputs(
    images: Sequence[Path],
    folder: str | os.PathLike,
    probabilities: bool = False,
    overwrite: bool = False,
) -> None:
    """Refuse, before any work is done, outputs that must not or cannot be written.

    Raises:
        OutputError: outputs that exist while ``overwrite`` is off; images whose outputs would
            have the same names, or take the place of an image; ``folder`` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; --output names a folder")
    stems = Counter(image.stem for image in images)
    doubled = [str(image) for image in images if stems[image.stem] > 1]
    if doubled:
        raise OutputError(
            f"{', '.join(doubled[:4])}: images of one name would write the same outputs; "
            "predict them one by one, each with an --output of its own"
        )
    sources = {image.resolve() for image in images}
    for image in images:
        for path in output_paths(image, folder, probabilities).values():
            if path.resolve() in sources:
                raise OutputError(f"{path}: is an input image; name another folder by --output")
            refuse_existing(path, overwrite)


def batch_predictor(model: keras.Model) -> Predict:
    """The prediction of a batch of fixed shape, compiled once.

    On TensorFlow without XLA, which is slower than plain kernels on a CPU.

    Args:
        model: takes ``(batch, height, width, bands)``.

    Returns:
        ``model.predict_on_batch``, which refuses to hand on what is not a number.
    """
    if keras.backend.backend() == "tensorflow":
        model.jit_compile = False

    def predict(images: np.ndarray) -> np.ndarray:
        probabilities = model.predict_on_batch(images)
        if not np.isfinite(probabilities).all():
            raise RunError("the network's output is not finite; are the pixels in its range?")
        return probabilities

    return predict


def predict_raster(
    run: Run,
    image: str | os.PathLike,
    folder: str | os.PathLike = "results",
    *,
    bands: Sequence[int] | None = None,
    threshold: float | None = None,
    probabilities: bool = False,
    overwrite: bool = False,
    batch_size: int = 4,
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
        bands: 1-based bands to feed; None to choose by colour interpretation.
        threshold: probability from which a pixel is target, 0..1; None for the run's own.
        probabilities: write ``<stem>_probabilities.tif`` too, float32, NaN where void.
        overwrite: replace outputs that exist.
        batch_size: windows predicted at once.
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
    threshold = run.config["threshold"] if threshold is None else threshold
    paths = output_paths(image, folder, probabilities)
    try:
        with (
            RasterReader(image, bands, run.config["bands"]) as reader,
            folder_beside(paths[MASK]) as hidden,
        ):
            drafts = output_paths(image, hidden, probabilities)
            valid, target = _write_rasters(run, reader, drafts, threshold, batch_size, progress)
            frame, _ = footprints(drafts[MASK])
            write_geojson(frame, drafts[FOOTPRINTS])
            write_png(overlay(reader, drafts[MASK]), drafts[OVERLAY])
            _publish([(drafts[kind], paths[kind]) for kind in paths], hidden, overwrite)
    except OSError as error:
        words = error.strerror or " ".join(str(error).split())
        raise OutputError(f"{paths[MASK]}: cannot be written: {words}") from error
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

        for first, strip in predict_strips(read, grid, batch_predictor(run.model), batch_size):
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


def _publish(moves: Sequence[tuple[Path, Path]], hidden: Path, overwrite: bool) -> None:
    """Rename finished files to their places, all of them or none.

    What they replace is put aside in ``hidden`` until the last one is in its place.
    """
    for _, path in moves:
        refuse_existing(path, overwrite)
    aside = hidden / "replaced"
    aside.mkdir()
    done: list[tuple[Path, Path]] = []
    try:
        for draft, path in moves:
            for suffix in ("", *_SIDE_FILES):
                old = path.with_name(path.name + suffix)
                if old.exists():
                    os.replace(old, aside / old.name)
                    done.append((aside / old.name, old))
            os.replace(draft, path)
            done.append((draft, path))
    except BaseException:
        for before, after in reversed(done):
            if before == ...:
                pass
        raise
