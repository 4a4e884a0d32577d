"""Predict rasters, and publish each one's outputs together once all are complete."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jointnet.metrics import threshold_mask
from jointnet.prediction import Swath
from jointnet.raster_job import (
    KEY_TAG,
    MASK,
    OVERLAY,
    PROBABILITIES,
    PredictionOptions,
    RasterJob,
    features_ending,
    output_paths,
)
from jointnet.runs import Run
from jointnet.workers import Workers
from preprocessing.errors import JointNetError, OutputError, RasterError, listed, one_line
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
    """Refuse outputs that must not or cannot be written, before any work is done.

    Raises:
        OutputError: ``folder`` is a file; outputs exist and ``overwrite`` is off, would have the
            same names, or would replace an image.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; --output names a folder")
    stems = Counter(image.stem for image in images)
    doubled = [image for image in images if stems[image.stem] > 1]
    if doubled:
        raise OutputError(
            f"{listed(doubled)}: images of one name would write the same outputs; "
            "predict them one by one, each with an --output of its own"
        )
    sources = {image.resolve() for image in images}
    for image in images:
        for path in output_paths(image, folder, probabilities, target).values():
            if path.resolve() in sources:
                raise OutputError(f"{path}: is an input image; name another folder by --output")
            refuse_existing(path, overwrite)


@dataclass(frozen=True)
class RasterPrediction:
    """What was predicted from one raster.

    Attributes:
        target: what the network finds, such as "buildings".
        outputs: mask, overlay, vector layer, its style and, if asked for, probabilities.
        notes: see ``NetworkInput``.
        features: number of footprints or, of roads, centre lines.
        total: their total area or length in ``unit``: "m2", "m", or "px" if the raster has no
            place on the ground.
        pixels: of the raster; ``valid_pixels`` are not void, ``target_pixels`` are target.
        seconds: time taken, outputs included.
    """

    image: RasterName
    target: str
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
        """The share of target among valid pixels, 0..1; 0 if all is void."""
        return self.target_pixels / max(self.valid_pixels, 1)

    def describe(self) -> str:
        """Say in one line what was written and found."""
        first, *others = self.outputs
        files = ", ".join([str(first), *(path.name for path in others)])
        roads = self.target == "roads"
        found = f"{self.features:,} {'centre line' if roads else 'footprint'}"
        found += "s"[: self.features != 1]
        if roads:
            metres = self.unit == "m"
            found += f", {self.total / 1e3:,.1f} km" if metres else f", {self.total:,.0f} px"
        empty = "all void: outputs empty"
        share = f"{self.target_share:.1%} {self.target}" if self.valid_pixels else empty
        speed = f"{self.seconds:.1f} s, {self.pixels / 1e6 / self.seconds:.2f} Mpx/s"
        return f"{files}: {found}, {share}, {speed}"


def predict_raster(
    run: Run,
    image: str | os.PathLike,
    folder: str | os.PathLike = "results",
    *,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = False,
    **options: Any,
) -> RasterPrediction:
    """Predict a raster of any size in flat memory, and write the outputs to a folder.

    ``<stem>_output.tif`` is the mask (uint8, 0 / 255, internal mask if there is void),
    ``<stem>_overlay.png`` a picture, and ``<stem>_footprints.geojson`` the outlines with area and
    mean probability or, of roads, ``<stem>_centre_lines.geojson`` with length and mean probability,
    as ``experiments/vectorise.py`` makes them by default, with a QGIS style (``.qml``). All
    appear together once complete, or none does. Until then the disk holds the predicted swaths
    and, while the outputs are made, four more bytes a pixel.

    Args:
        run: the network, from ``jointnet.runs.load_run``.
        image: anything GDAL reads, in the dtype that the network was trained on.
        folder: made if missing.
        overwrite: replace outputs that exist.
        workers: processes that share the work; each takes as much memory as one alone. In a
            script, call with several only below ``if __name__ == "__main__":``.
        progress: show a bar while predicting, if standard error is a terminal.
        options: fields of ``PredictionOptions``.

    Raises:
        RasterError: the raster cannot be read or fed, see ``NetworkInput``.
        OutputError: outputs exist or cannot be written, or another process is at work on them.
        RunError: the run cannot predict rasters.
    """
    job = RasterJob(run, image, Path(folder), PredictionOptions(**options))
    overwrite = overwrite or job.files.publishing
    check_outputs([job.image], folder, job.options.probabilities, overwrite, job.target)
    with _shared(workers, None) as others:
        return _predict(job, others, overwrite, progress)


def predict_rasters(
    jobs: Sequence[RasterJob],
    *,
    overwrite: bool = False,
    workers: int = 1,
    cluster: str | None = None,
    say: Callable[[str], Any] = print,
) -> list[str]:
    """Predict several rasters, and return a line for each that failed; the others are finished.

    Args:
        jobs: none of them done; all of one network, folder and options.
        overwrite: replace outputs that exist.
        workers: processes of this machine that share each raster.
        cluster: scheduler of a Dask cluster to use instead of them.
        say: called with a line for each note and each finished raster.

    Raises:
        OutputError: before any is predicted, see ``check_outputs``.
    """
    for job in jobs[:1]:
        begun = [other.image for other in jobs if not other.files.publishing]
        check_outputs(begun, job.folder, job.options.probabilities, overwrite, job.target)
    for job in jobs:
        for note in job.input.notes:
            say(f"{job.image.name}: {note}")
    failures = []
    with _shared(workers, cluster) as others:
        for job in jobs:
            try:
                done = _predict(job, others, overwrite or job.files.publishing, progress=True)
            except JointNetError as error:
                failures.append(one_line(error))
            else:
                say(done.describe())
    return failures


def _shared(workers: int, cluster: str | None) -> AbstractContextManager[Workers | None]:
    """Return the processes that share the work; None for this one alone."""
    return Workers(workers, cluster) if cluster or workers > 1 else nullcontext()


def _predict(
    job: RasterJob, others: Workers | None, overwrite: bool, progress: bool
) -> RasterPrediction:
    """Predict the missing swaths of a job, and make its outputs."""
    began = time.perf_counter()
    with job.files.locked():
        try:
            predict_swaths(job, job.begin(), others, progress)
            counts = finish(job, overwrite)
        except BaseException:
            if job.resumable:
                job.files.remove_if_empty()
            else:
                job.files.remove()
            raise
    height, width = job.input.own_size
    return RasterPrediction(
        image=job.image,
        target=job.target,
        outputs=tuple(job.paths.values()),
        notes=tuple(job.input.notes),
        **counts,
        pixels=height * width,
        seconds=time.perf_counter() - began,
    )


def predict_swaths(
    job: RasterJob,
    swaths: Sequence[Swath],
    others: Workers | None = None,
    progress: bool = False,
) -> None:
    """Predict swaths of a job that has begun, alone or with others.

    Raises:
        RasterError: some swaths cannot be read; the others are finished.
        RunError, OutputError: at once; finished swaths stay.
    """
    if others is not None and not others.address and len(swaths) == 1:
        others = None
    windows = sum(len(swath.tops) for swath in swaths) * len(job.grid.starts(job.grid.width))
    bar = tqdm(
        total=windows if others is None else len(swaths),
        desc=job.image.name,
        unit="window" if others is None else "swath",
        leave=False,
        # None: only on a terminal.
        disable=None if progress else True,
    )
    predict = _predict_here if others is None else others.predict
    failures = []
    with bar, closing(predict(job, swaths, bar.update)) as failing:
        for swath, error in failing:
            if not isinstance(error, RasterError):
                raise error
            # Once the raster has changed, no further swath is of use.
            job.refuse_changed()
            failures.append((swath, error))
    if failures:
        raise RasterError(_lost(job, sorted(failures, key=lambda failure: failure[0].number)))


def _predict_here(
    job: RasterJob, swaths: Sequence[Swath], advance: Callable[[], Any]
) -> Iterator[tuple[Swath, JointNetError]]:
    """Predict swaths in this process; yield those that failed."""
    for swath in swaths:
        try:
            job.predict(swath, advance)
        except JointNetError as error:
            yield swath, error


def _lost(job: RasterJob, failures: list[tuple[Swath, RasterError]]) -> str:
    """Say in one line which rows could not be read, and what is kept."""
    swaths, line = len(job.files.swaths), str(failures[0][1])
    if swaths == 1:
        return line
    # Rows of the raster; the network may have seen it resampled.
    scale = job.input.own_size[0] / job.input.size[0]
    spans = [
        f"{round(swath.first * scale)} to {round(swath.last * scale)}" for swath, _ in failures
    ]
    line = f"{line.rstrip('.')}; rows {listed(spans)} are missing"
    if not (kept := swaths - len(job.files.missing())):
        return line
    return (
        f"{line}, {kept} of {swaths} swaths are kept: while the file stays as it is, the same "
        "command goes on from them"
    )


def finish(job: RasterJob, overwrite: bool = False) -> dict[str, Any]:
    """Make the outputs once all swaths are predicted; return the counts for ``RasterPrediction``.

    Raises:
        RasterError: the raster has changed since it was predicted.
        OutputError: outputs exist or cannot be written, or a swath is missing.
    """
    from preprocessing.pictures import overlay, write_png
    from preprocessing.vector_writers import write_layers
    from preprocessing.vectorising import features_of

    paths = job.paths
    with job.input.open() as reader, job.files.drafts() as folder:
        drafts = {ending: folder / path.name for ending, path in paths.items()}
        spool = ProbabilitySpool(folder / "probabilities", job.input.info.width)
        try:
            valid, target = _write_rasters(job, drafts, spool)
            features = features_of(job.target, drafts[MASK], spool.read)
            write_layers(features, [drafts[features_ending(job.target)]], features.geometry_type)
            spool.path.unlink()
            write_png(overlay(reader, drafts[MASK]), drafts[OVERLAY])
        except OutputError as error:
            # The user does not know the hidden folder.
            raise OutputError(str(error).replace(str(folder), str(job.folder))) from error
        job.refuse_changed()
        # From here on outputs may be in place. If this process is killed, the next run may replace
        # them; on any exception they are removed, and so is this folder.
        replaced = folder / "replaced"
        replaced.mkdir()
        # The mask comes last, as its tag says that all is done.
        moves = [(drafts[ending], paths[ending]) for ending in paths if ending != MASK]
        publish_all([*moves, (drafts[MASK], paths[MASK])], replaced, overwrite)
    job.files.remove()
    return {
        "features": features.count,
        "total": features.total,
        "unit": features.unit,
        "valid_pixels": valid,
        "target_pixels": target,
    }


def _write_rasters(
    job: RasterJob, paths: dict[str, Path], spool: "ProbabilitySpool"
) -> tuple[int, int]:
    """Write mask and, if wanted, probabilities; return how many pixels are valid and target."""
    from preprocessing.raster_writers import MaskWriter, ProbabilityWriter

    valid_pixels = target_pixels = 0
    tags = {KEY_TAG: job.key}
    with ExitStack() as stack:
        mask_file = stack.enter_context(MaskWriter(paths[MASK], job.input.info, tags=tags))
        probability_file = None
        if PROBABILITIES in paths:
            writer = ProbabilityWriter(paths[PROBABILITIES], job.input.info, tags=tags)
            probability_file = stack.enter_context(writer)
        for first, strip in job.strips():
            window = Window(first, 0, *strip.shape)
            # Rounding may lift a weighted mean above 1.
            strip = np.clip(strip, 0, 1)
            mask = threshold_mask(strip, job.threshold)
            mask_file.write(window, mask)
            spool.write(strip)
            if probability_file is not None:
                probability_file.write(window, strip)
            valid_pixels += int((mask <= 1).sum())
            target_pixels += int((mask == 1).sum())
    return valid_pixels, target_pixels


class ProbabilitySpool:
    """Rows of float32 in a plain file, as a feature may need rows written long before."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width

    def write(self, rows: np.ndarray) -> None:
        """Append rows, ``(n, width)`` float32."""
        with open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(rows, np.float32).data)

    def read(self, window: Window) -> np.ndarray:
        """Read a window, float64 ``(height, width)``.

        Raises:
            OSError: the file is missing, or ends before the window does.
        """
        offset = window.row * self.width * np.dtype(np.float32).itemsize
        values = np.fromfile(self.path, np.float32, window.height * self.width, offset=offset)
        if len(values) < window.height * self.width:
            raise OSError(f"{self.path} ends before row {window.row + window.height}")
        columns = slice(window.column, window.column + window.width)
        return values.reshape(window.height, self.width)[:, columns].astype(np.float64)
