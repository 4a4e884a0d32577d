"""Predicting the bands of a raster in this process."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jointnet.band_cluster import predict_on_cluster
from jointnet.metrics import threshold_mask
from jointnet.network_input import check_raster
from jointnet.raster_job import (
    KEY_TAG,
    MASK,
    OVERLAY,
    PROBABILITIES,
    PredictionOptions,
    RasterJob,
    layer_of,
    output_paths,
)
from jointnet.runs import Run
from jointnet.workers import part_of, predict_bands, predict_with_workers
from preprocessing.errors import OutputError
from preprocessing.image_names import RasterName
from preprocessing.output_files import publish_all, refuse_existing
from preprocessing.tiling import Window


def check_outputs(
    images: Sequence[Path | RasterName],
    folder: str | os.PathLike,
    probabilities: bool = False,
    overwrite: bool = False,
    target: str = "buildings",
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
        for path in output_paths(image, folder, probabilities, target).values():
            if path.resolve() in sources:
                raise OutputError(f"{path}: is an input image; name another folder by --output")
            refuse_existing(path, overwrite)


class ProbabilitySpool:
    """Rows of float32 in a file without a format, four bytes a pixel.

    Features are complete in another order than rows are, and a long one needs rows of long ago:
    the file has them without the memory, and without the time that a GeoTIFF takes.

    Args:
        path: the file; it comes to be with the first rows.
        width: columns of the raster.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width

    def write(self, rows: np.ndarray) -> None:
        """Append rows, ``(n, width)`` float32.

        Raises:
            OSError: disk full.
        """
        with open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(rows, np.float32).data)

    def read(self, window: Window) -> np.ndarray:
        """A window of rows that were written, float64 ``(height, width)``.

        Raises:
            OSError: the file is gone, or ends before the window does.
        """
        offset = window.row * self.width * np.dtype(np.float32).itemsize
        count = window.height * self.width
        values = np.fromfile(self.path, np.float32, count, offset=offset)
        if len(values) < count:
            raise OSError(f"{self.path} ends before row {window.row + window.height}")
        columns = slice(window.column, window.column + window.width)
        return values.reshape(window.height, self.width)[:, columns].astype(np.float64)


@dataclass(frozen=True)
class RasterPrediction:
    """What was predicted from one raster.

    Attributes:
        image: the raster.
        outputs: files written: mask, overlay, layer, its style and, if asked for, probabilities.
        notes: sentences worth reading, see ``network_input.check_raster``.
        features: number of footprints or, of roads, centre lines.
        total: their area or length in all.
        unit: of that: "m2", "m", or "px" where the raster has no place on the ground.
        pixels: pixels of the raster.
        valid_pixels: those that are not void.
        target_pixels: those of the target.
        seconds: time taken, outputs included.
    """

    image: RasterName
    outputs: tuple[Path, ...]
    notes: tuple[str, ...]
    features: int
    total: float
    unit: str
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
    augment: bool = False,
    gsd: float | str | None = None,
    void_white: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> RasterPrediction:
    """Predict a raster of any size in flat memory, and write what was found.

    ``<stem>_output.tif`` is the mask (uint8, 0 / 255, internal mask where there is void),
    ``<stem>_overlay.png`` a picture to look at, ``<stem>_footprints.geojson`` the outlines with
    their area and mean probability or, of roads, ``<stem>_centre_lines.geojson`` their centre
    lines with length and mean probability, each as ``experiments/vectorise.py`` makes it by
    default, with a QGIS style (``.qml``). They appear together once all are complete; on any
    failure none does. Until then the disk holds the bands that are predicted and, while the
    outputs are made, four bytes a pixel more.

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
        augment: take the mean over the eight flips and rotations of every window, in eight times
            the time.
        gsd: ground metres per pixel, where the raster does not say; ``"native"`` for no resampling
            to the network's; see ``network_input.fed_steps``.
        void_white: white areas are void, see ``preprocessing.resampling``.
        workers: processes that share the work; each takes the memory of one.
        progress: show a bar while predicting, if standard error is a terminal.

    Returns:
        What was written, and figures about it.

    Raises:
        RasterError: the raster cannot be read or fed, see ``network_input.check_raster``.
        OutputError: outputs exist, or cannot be written.
        RunError: the run cannot predict rasters.
    """
    image, folder = RasterName(image), Path(folder)
    options = PredictionOptions(
        bands, threshold, probabilities, batch_size, augment, gsd, void_white
    )
    job = RasterJob(run, image, folder, options)
    check_outputs([image], folder, probabilities, overwrite or job.files.publishing, job.target)
    return run_job(job, overwrite=overwrite, workers=workers, progress=progress)


def run_job(
    job: RasterJob,
    *,
    overwrite: bool = False,
    workers: int = 1,
    cluster: str | None = None,
    part: tuple[int, int] | None = None,
    progress: bool = False,
) -> RasterPrediction | None:
    """Predict what is missing of a job, and make its outputs once nothing is.

    Args:
        job: what to predict, as far as it has not been.
        overwrite: replace outputs that exist.
        workers: processes that share the work.
        cluster: address of a Dask scheduler whose workers do it in their place.
        part: (k, n) predicts only every nth band, from the kth on; who finishes the last of all
            parts' bands makes the outputs.
        progress: show a bar while predicting, if standard error is a terminal.

    Returns:
        What was written, and figures about it; None where other parts are missing, or another
        part makes the outputs.

    Raises:
        RasterError, OutputError, RunError: see ``predict_raster``.
    """
    began = time.perf_counter()
    notes = check_raster(job.run, job.image, job.options.bands, job.options.gsd)
    try:
        missing = job.begin()
        if part is not None:
            predict_bands(job, part_of(missing, *part), progress)
            if job.files.missing():
                return None
        elif cluster is not None and missing:
            predict_on_cluster(job, cluster, progress)
        elif workers > 1 and len(missing) > 1:
            predict_with_workers(job, workers, progress)
        else:
            predict_bands(job, missing, progress)
        if not job.files.claim():
            if part is not None:
                return None
            words = f"another process is writing it; if none is, delete {job.files.claim_file}"
            raise OutputError(f"{job.paths[MASK]}: {words}")
        counts = finish(job, overwrite or job.files.publishing)
    except BaseException:
        job.files.release()
        if not job.resumable:
            job.files.remove()
        elif part is None:
            # Of several parts, another may be about to write the first band.
            job.files.remove_if_empty()
        raise
    return RasterPrediction(
        image=job.image,
        outputs=tuple(job.paths.values()),
        notes=tuple(notes),
        **counts,
        pixels=job.info.height * job.info.width,
        seconds=time.perf_counter() - began,
    )


def finish(job: RasterJob, overwrite: bool = False) -> dict[str, Any]:
    """Make the outputs of a raster of which all bands are predicted.

    Args:
        job: what was predicted.
        overwrite: replace outputs that exist.

    Returns:
        ``features``, ``total``, ``unit``, ``valid_pixels`` and ``target_pixels``, as
        ``RasterPrediction`` has them.

    Raises:
        RasterError: the raster has changed since it was predicted.
        OutputError: outputs exist or cannot be written, or a band is missing.
    """
    from preprocessing.pictures import overlay, write_png
    from preprocessing.vector_writers import write_layers
    from preprocessing.vectorising import features_of

    paths = job.paths
    with job.reader() as reader, _drafts(job) as hidden:
        drafts = {kind: hidden / path.name for kind, path in paths.items()}
        spool = ProbabilitySpool(hidden / "probabilities", job.info.width)
        valid, target = _write_rasters(job, drafts, spool)
        features = features_of(job.target, drafts[MASK], spool.read)
        write_layers(features, [drafts[layer_of(job.target)]], features.geometry_type)
        spool.path.unlink()
        write_png(overlay(reader, drafts[MASK]), drafts[OVERLAY])
        job.refuse_changed()
        job.files.begin_publishing()
        # The mask, which says by its tag that all is done, is the last to arrive.
        moves = [(drafts[kind], paths[kind]) for kind in paths if kind != MASK]
        moves.append((drafts[MASK], paths[MASK]))
        try:
            publish_all(moves, Path(tempfile.mkdtemp(dir=hidden)), overwrite)
        except BaseException:
            # All is as it was: another start must not take what lies there for its own.
            job.files.end_publishing()
            raise
    job.files.remove()
    return {
        "features": features.count,
        "total": features.total,
        "unit": features.unit,
        "valid_pixels": valid,
        "target_pixels": target,
    }


@contextmanager
def _drafts(job: RasterJob) -> Iterator[Path]:
    """A folder among the bands, so that a process that is killed leaves nothing else behind.

    What goes wrong in it is told of the folder that the user named.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="drafts-", dir=job.files.folder) as name:
            try:
                yield Path(name)
            except OutputError as error:
                raise OutputError(str(error).replace(name, str(job.folder))) from error
    except OSError as error:
        words = error.strerror or " ".join(str(error).split())
        raise OutputError(f"{job.paths[MASK]}: cannot be written: {words}") from error


def _write_rasters(
    job: RasterJob, paths: dict[str, Path], spool: ProbabilitySpool
) -> tuple[int, int]:
    """The mask and, if wanted, the probabilities; valid pixels and those of the target."""
    from preprocessing.raster_writers import MaskWriter, ProbabilityWriter

    valid_pixels = target_pixels = 0
    tags = {KEY_TAG: job.key}
    with ExitStack() as stack:
        mask_file = stack.enter_context(MaskWriter(paths[MASK], job.info, tags=tags))
        probability_file: Any = None
        if PROBABILITIES in paths:
            writer = ProbabilityWriter(paths[PROBABILITIES], job.info, tags=tags)
            probability_file = stack.enter_context(writer)
        for first, strip in job.strips():
            window = Window(first, 0, *strip.shape)
            # A weighted mean may be above 1 by a rounding.
            strip = np.clip(strip, 0, 1)
            mask = threshold_mask(strip, job.threshold)
            mask_file.write(window, mask)
            spool.write(strip)
            if probability_file is not None:
                probability_file.write(window, strip)
            valid_pixels += int((mask <= 1).sum())
            target_pixels += int((mask == 1).sum())
    return valid_pixels, target_pixels
