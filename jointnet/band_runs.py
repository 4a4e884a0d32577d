"""Predicting the bands of a raster in this process."""

from collections.abc import Iterable

from tqdm import tqdm

from jointnet.raster_job import RasterJob
from jointnet.window_bands import Band
from preprocessing.errors import RasterError


def predict_bands(job: RasterJob, bands: Iterable[Band], progress: bool = False) -> None:
    """Predict bands one after the other; one that cannot be read does not stop the others.

    Args:
        job: what to predict.
        bands: some of ``job.files.bands``.
        progress: show a bar, if standard error is a terminal.

    Raises:
        RasterError: bands cannot be read; those that were finished stay for another start.
        RunError, OutputError: at once, what was finished stays.
    """
    bands = list(bands)
    failures: list[tuple[Band, RasterError]] = []
    windows = sum(len(band.tops) for band in bands) * len(job.grid.starts(job.grid.width))
    with tqdm(
        total=windows,
        desc=job.image.name,
        unit="window",
        leave=False,
        # None: only on a terminal.
        disable=None if progress else True,
    ) as bar:
        for band in bands:
            try:
                job.predict(band, bar.update)
            except RasterError as error:
                # Of a raster that has changed, nothing that follows is of use.
                job.refuse_changed()
                failures.append((band, error))
    if failures:
        raise RasterError(_failed(job, failures))


def _failed(job: RasterJob, failures: list[tuple[Band, RasterError]]) -> str:
    """One line on what could not be read, and what is kept."""
    all_bands, line = len(job.files.bands), str(failures[0][1])
    kept = all_bands - len(job.files.missing())
    if all_bands == 1:
        return line
    # Of the raster's own grid, where the network saw another.
    scale = job.info.height / job.size[0]
    rows = ", ".join(
        f"{round(band.first * scale)} to {round(band.last * scale)}" for band, _ in failures[:4]
    )
    more = ", ..." if len(failures) > 4 else ""
    line = f"{line.rstrip('.')}; rows {rows}{more} are missing"
    if not kept:
        return line
    kept_bands = f"{kept} of {all_bands} bands are kept"
    return (
        f"{line}, {kept_bands}: while the file stays as it is, the same command goes on from them"
    )
