"""Predict the test images of Inria and pack the masks for its contest, or check such a file."""

from collections.abc import Sequence
from pathlib import Path

import click

from experiments.infer import predict_all
from experiments.options import (
    Command,
    augment_option,
    data_option,
    given,
    model_option,
    overwrite_option,
    threshold_option,
    workers_option,
)
from jointnet.raster_job import MASK, OVERLAY, PROBABILITIES, PredictionOptions, RasterJob
from jointnet.runs import load_run
from preprocessing.errors import DatasetError, RunError
from preprocessing.inria import test_images
from preprocessing.inria_submission import (
    COMPRESSIONS,
    SubmissionCheck,
    check_submission,
    mask_name,
    pack_masks,
    wanted_tiles,
)
from preprocessing.output_files import refuse_existing
from preprocessing.scenes import images_in


def prediction_jobs(
    images: Sequence[Path], model: Path, folder: Path, options: PredictionOptions
) -> list[RasterJob]:
    """A job for each test image, the same as ``infer.py`` would begin in that folder.

    Raises:
        RunError: not a run folder, or of a network that finds something else than buildings.
        RasterError: an image cannot be read.
    """
    run = load_run(model)
    if run.config["target"] != "buildings":
        raise RunError(f"{model} finds {run.config['target']}; the contest is about buildings")
    return [RasterJob(run, image, folder, options) for image in images]


def masks_in(folder: Path, wanted: Sequence[str]) -> tuple[dict[str, Path], int]:
    """The masks of a folder by the name that they get, and the number of other rasters there.

    ``austin1_output.tif``, as ``infer.py`` names a mask, stands for ``austin1.tif``, and so does
    ``austin1`` of any format.

    Raises:
        DatasetError: no such folder, no mask of a test image in it, or two of one.
    """
    names = {Path(name).stem: name for name in wanted}
    found: dict[str, Path] = {}
    others = 0
    for path in images_in(folder):
        if path.name.endswith((OVERLAY, PROBABILITIES)):
            continue
        stem = path.stem if path.stem in names else path.name.removesuffix(MASK)
        if stem not in names:
            others += 1
        elif names[stem] in found:
            raise DatasetError(f"{path}: another mask of {stem} is {found[names[stem]].name}")
        else:
            found[names[stem]] = path
    if not found:
        some = ", ".join([*names][:2])
        raise DatasetError(f"{folder}: no masks of test images, such as {some}, lie there")
    return found, others


def report(path: Path, check: SubmissionCheck) -> str:
    """Say in one line what a zip file holds."""
    share = check.target / max(check.pixels, 1)
    many = "mask" if check.masks == 1 else "masks"
    return f"{path}: {check.masks} {many}, {check.size / 1e6:.1f} MB, {share:.1%} buildings"


def _images(data: Path, needed: bool) -> list[Path]:
    """The test images; none where there are none and nobody asked for them."""
    try:
        return test_images(data)
    except DatasetError:
        if needed or given("data"):
            raise
        return []


_PATH = click.Path(path_type=Path)


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  python experiments/submit.py --model results/inria_buildings
  python experiments/submit.py --masks predicted/ --output upload.zip
  python experiments/submit.py --check upload.zip
""",
)
@model_option
@data_option
@threshold_option
@augment_option
@workers_option
@click.option(
    "--output",
    type=_PATH,
    metavar="ZIP",
    show_default="results/<run>_submission.zip",
    help="The file to write. Predictions stay in a folder beside it, of its name without .zip.",
)
@click.option(
    "--compression",
    type=click.Choice(list(COMPRESSIONS)),
    default="lzw",
    show_default=True,
    help="Of the masks. ccittfax4 has one bit a pixel, and is the smallest.",
)
@overwrite_option
@click.option("--masks", type=_PATH, metavar="FOLDER", help="Pack these masks, predict nothing.")
@click.option("--check", "checked", type=_PATH, metavar="ZIP", help="Check a file, write nothing.")
def main(
    model: Path,
    data: Path,
    threshold: float | None,
    augment: bool,
    workers: int,
    output: Path | None,
    compression: str,
    overwrite: bool,
    masks: Path | None,
    checked: Path | None,
) -> int:
    """Make the file that the Inria contest takes: a zip of a mask for each test image.

    The images lie in AerialImageDataset/test/images under --data. Each is predicted as infer.py
    does, so the same command, given again after an interruption, goes on from there; masks that
    are there already, made with the same weights and options, are taken as they are. The zip file
    has masks of the images' names, 0 and 255 in one band, void as background, in no folder.

    It is checked before it appears: names, sizes, bands, depth, compression and every value.
    --check does the same with any file. Without test images, it is held against the official
    list: 36 tiles of 5000 x 5000 pixels of each of five cities.
    """
    _refuse_together(masks, checked)
    images = _images(data, needed=masks is None and checked is None)
    wanted = wanted_tiles(images)
    if checked is not None:
        check = check_submission(checked, wanted)
        for problem in check.problems:
            click.echo(f"error: {checked}: {problem}", err=True)
        if not check.problems:
            click.echo(f"{report(checked, check)}: as the contest asks")
        return 2 if check.problems else 0
    name = model.resolve().name if masks is None else masks.resolve().name
    output = output or Path("results") / f"{name}_submission.zip"
    if output.suffix != ".zip":
        raise click.UsageError(f"--output {output}: name a file that ends in .zip")
    refuse_existing(output, overwrite)
    if masks is not None:
        found, others = masks_in(masks, list(wanted))
        if others:
            click.echo(f"{masks}: {others} other raster{'s'[: others != 1]} left out")
    else:
        folder = output.with_suffix("")
        options = PredictionOptions(threshold=threshold, augment=augment)
        jobs = prediction_jobs(images, model, folder, options)
        missing = [job for job in jobs if not job.is_done()]
        if len(missing) < len(jobs):
            click.echo(f"{folder}: {len(jobs) - len(missing)} of {len(jobs)} masks are there")
        if code := predict_all(missing, overwrite, workers=workers):
            return code
        found = {mask_name(image): job.paths[MASK] for image, job in zip(images, jobs, strict=True)}
    check = pack_masks(found, output, wanted, compression, overwrite)
    click.echo(report(output, check))
    for problem in check.problems:
        click.echo(f"warning: the contest wants all tiles; {problem}", err=True)
    return 0


def _refuse_together(masks: Path | None, checked: Path | None) -> None:
    """Refuse options that would do nothing."""
    predicting = ("model", "target", "threshold", "augment", "workers")
    packing = ("output", "compression", "overwrite")
    useless = predicting if masks is not None else ()
    chosen = "--masks"
    if checked is not None:
        useless, chosen = (*predicting, *packing, "masks"), "--check"
    names = [f"--{name}" for name in useless if given(name)]
    if names:
        raise click.UsageError(f"{', '.join(names)} would do nothing beside {chosen}")


if __name__ == "__main__":
    main()
