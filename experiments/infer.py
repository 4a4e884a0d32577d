"""Predict rasters with a trained network: masks, overlays and footprints."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from experiments.options import (
    SHIPPED,
    Command,
    augment_option,
    data_option,
    model_option,
    overwrite_option,
    parse_bands,
    parse_gsd,
    parse_part,
    threshold_option,
    workers_option,
)
from jointnet.network_input import check_raster
from jointnet.raster_job import MASK, PredictionOptions, RasterJob, outputs_of
from jointnet.raster_prediction import RasterPrediction, check_outputs, run_job
from jointnet.runs import load_run
from jointnet.workers import Leftover, leftovers
from preprocessing.errors import JointNetError
from preprocessing.image_names import find_images

COMMAND = "python experiments/infer.py"


def summary(done: RasterPrediction, target: str) -> str:
    """Say in one line what was written and found."""
    first, *others = done.outputs
    files = ", ".join([str(first), *(path.name for path in others)])
    noun = "centre line" if target == "roads" else "footprint"
    found = f"{done.features:,} {noun}{'s'[: done.features != 1]}"
    if target == "roads":
        found += f", {done.total / 1e3:,.1f} km" if done.unit == "m" else f", {done.total:,.0f} px"
    share = f"{done.target_share:.1%} {target}" if done.valid_pixels else "all void: outputs empty"
    speed = f"{done.seconds:.1f} s, {done.pixels / 1e6 / done.seconds:.2f} Mpx/s"
    return f"{files}: {found}, {share}, {speed}"


def waiting(job: RasterJob) -> str:
    """Say in one line that a part is done and what the outputs wait for."""
    if not job.files.folder.is_dir() and job.is_done():
        # Bands are taken away once they are outputs.
        return f"{job.paths[MASK]}: another part has written the outputs"
    missing, bands = len(job.files.missing()), len(job.files.bands)
    if not missing:
        return (
            f"{job.image.name}: all bands are there, another part writes the outputs (if it does "
            "not, the command without --part does)"
        )
    return f"{job.image.name}: this part is done, {missing} of {bands} bands are missing"


def left_behind(job: RasterJob, found: Leftover) -> str:
    """Say in one line what another prediction has left, and what can be done about it."""
    line = f"{job.image.name}: {found.folder} ({found.size / 1e6:.1f} MB) holds"
    command = None if found.options is None else _command(job, found)
    if command is None:
        return (
            f"{line} what was predicted of an image or with weights that have changed since, or "
            "from Python; delete it, unless another process is at work there"
        )
    return (
        f"{line} what was predicted with other options; `{command}` goes on with it, or delete it, "
        "unless another process is at work there"
    )


def _command(job: RasterJob, found: Leftover) -> str | None:
    """The command that goes on with bands; None where no command has such options."""
    options = PredictionOptions(**found.options)
    if options.batch_size not in (None, job.batch_size):
        return None
    words = ["--image", str(job.image)]
    if found.run.resolve() != SHIPPED["buildings"].resolve():
        words += ["--model", str(found.run)]
    if job.folder != Path("results"):
        words += ["--output", str(job.folder)]
    if options.bands:
        words += ["--bands", ",".join(map(str, options.bands))]
    for name in ("threshold", "gsd"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    for name in ("probabilities", "void_white", "augment"):
        words += ["--" + name.replace("_", "-")] * getattr(options, name)
    return f"{COMMAND} {shlex.join(words)}"


def predict_all(jobs: Sequence[RasterJob], overwrite: bool = False, **sharing: Any) -> int:
    """Predict what is missing of several rasters, all checked first, and print a line for each.

    Args:
        jobs: none of them done, of one network, folder and options.
        overwrite: replace outputs that exist.
        sharing: ``workers``, ``cluster`` and ``part`` of ``raster_prediction.run_job``.

    Returns:
        0, or 2 where a raster failed; it is named in a line on standard error, and the others are
        finished.

    Raises:
        RasterError, OutputError: what the checks find.
    """
    for job in jobs[:1]:
        begun = [other.image for other in jobs if not other.files.publishing]
        check_outputs(begun, job.folder, job.options.probabilities, overwrite, job.target)
    for job in jobs:
        for left in leftovers(job):
            click.echo(left_behind(job, left))
        for note in check_raster(job.run, job.image, job.options.bands, job.options.gsd):
            click.echo(f"{job.image.name}: {note}")
    failures = []
    for job in jobs:
        try:
            done = run_job(job, overwrite=overwrite, progress=True, **sharing)
        except JointNetError as error:
            failures.append(" ".join(str(error).split()))
        else:
            click.echo(summary(done, job.target) if done else waiting(job))
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return 2 if failures else 0


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  python experiments/infer.py --image bellingham15.tif
  python experiments/infer.py --image town/ --image harbour.jpg --output found/
  python experiments/infer.py --image scene.tif --bands 4,3,2 --model results/sample
  python experiments/infer.py --image tiles.txt --image https://host/town.tif
""",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    required=True,
    metavar="PATH",
    help="File, folder, glob pattern, text file (.txt) with a path a line, or what only GDAL "
    "opens: /vsicurl/https://..., s3://bucket/key, /vsizip/...; may be given several times. A bare "
    "name that is not in the working directory is sought in AerialImageDataset/test/images under "
    "--data.",
)
@click.argument("more_images", nargs=-1, metavar="")
@model_option
@click.option(
    "--bands",
    callback=parse_bands,
    metavar="N,N,N",
    show_default="red, green and blue as the file marks them, else its first bands",
    help="Bands to feed, counted from 1.",
)
@threshold_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="FOLDER",
    help="Where the outputs go; made if missing.",
)
@overwrite_option
@click.option("--probabilities", is_flag=True, help="Write the probabilities as well.")
@click.option(
    "--gsd",
    callback=parse_gsd,
    metavar="METRES",
    show_default="what the image says",
    help="Ground metres per pixel of the images. Where they differ from the model's by more than a "
    "quarter, or pixels are not about square, the image is resampled for it, and the mask back; "
    "'native' turns that off.",
)
@click.option(
    "--void-white",
    is_flag=True,
    help="White areas of 31 pixels a side or more are no imagery.",
)
@augment_option
@workers_option
@click.option(
    "--dask",
    "cluster",
    metavar="ADDRESS",
    help="Scheduler of a Dask cluster that predicts the bands, such as tcp://node1:8786; its "
    "workers see the same files.",
)
@click.option(
    "--part",
    callback=parse_part,
    metavar="K/N",
    help="Predict every Nth band only, from the Kth on, for N machines that share --output. "
    "Whoever finishes last writes the outputs.",
)
@data_option
def main(
    images: tuple[str, ...],
    more_images: tuple[str, ...],
    model: Path,
    bands: list[int] | None,
    threshold: float | None,
    output: Path,
    overwrite: bool,
    probabilities: bool,
    gsd: float | str | None,
    void_white: bool,
    augment: bool,
    workers: int,
    cluster: str | None,
    part: tuple[int, int] | None,
    data: Path,
) -> int:
    """Find buildings, or what else a network was trained on, in aerial images.

    Reads anything that GDAL reads (GeoTIFF, JPEG, PNG, ...), of any size, and writes for each
    image, all at once when they are complete:

    \b
      <image>_output.tif          mask: 255 target, 0 background, and a mask band
                                  where there is no imagery
      <image>_overlay.png         the image with what was found, to look at
      <image>_footprints.geojson  outlines with their area in m2 and mean probability
      <image>_centre_lines.geojson
                                  in place of them, if the model finds roads: centre
                                  lines with their length in m and mean probability
      <image>_probabilities.tif   with --probabilities: float32, 0 to 1

    The layer is the one that vectorise.py makes of mask and probabilities by default, with a
    QGIS style (.qml) beside it.

    All images are checked before the first is predicted. Where one fails all the same, the
    others are finished; the exit code is then 2. What was predicted of an image stays in a hidden
    folder beside the outputs until they are complete: the same command, given again after an
    interruption, goes on from there, and does nothing for an image that is done.
    """  # noqa: D301 (click takes the control character itself)
    if (part is not None) + (workers > 1) + (cluster is not None) > 1:
        raise click.UsageError("of --workers, --dask and --part only one can be given")
    # A shell turns --image *.tif into --image a.tif b.tif.
    paths = find_images([*images, *more_images], data, outputs_of)
    check_outputs(paths, output, probabilities, overwrite=True)
    run = load_run(model)
    options = PredictionOptions(
        bands, threshold, probabilities, augment=augment, gsd=gsd, void_white=void_white
    )
    jobs = [RasterJob(run, path, output, options) for path in paths]
    if not overwrite:
        for job in filter(RasterJob.is_done, jobs):
            # Left by a process that ended between the two.
            job.files.remove()
            click.echo(f"{job.paths[MASK]}: done already; --overwrite does it again")
        jobs = [job for job in jobs if not job.is_done()]
    return predict_all(jobs, overwrite, workers=workers, cluster=cluster, part=part)


if __name__ == "__main__":
    main()
