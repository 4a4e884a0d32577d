"""Predict the test images of Inria and pack the masks for its contest, or check such a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.options import (
    Command,
    augment_option,
    data_option,
    given,
    model_option,
    overwrite_option,
    sharing_options,
    threshold_option,
)
from preprocessing.errors import DatasetError, RunError, listed
from preprocessing.output_files import refuse_existing

if TYPE_CHECKING:
    from preprocessing.inria_submission import SubmissionCheck


def masks_in(folder: Path, wanted: Sequence[str]) -> tuple[dict[str, Path], int]:
    """Return the masks of a folder by their names in the zip, and the number of other rasters.

    ``austin1_output.tif`` (from ``infer.py``) and ``austin1`` of any format become ``austin1.tif``.

    Raises:
        DatasetError: no such folder, no mask of a test image in it, or two of one image.
    """
    from jointnet.raster_job import MASK, OVERLAY, PROBABILITIES
    from preprocessing.scenes import images_in

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
        raise DatasetError(f"{folder}: holds no masks of test images, such as {listed(names, 2)}")
    return found, others


def describe(path: Path, check: "SubmissionCheck") -> str:
    """Say in one line what a zip file holds."""
    share = check.target / max(check.pixels, 1)
    many = "mask" if check.masks == 1 else "masks"
    return f"{path}: {check.masks} {many}, {check.size / 1e6:.1f} MB, {share:.1%} buildings"


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
@sharing_options
@click.option(
    "--output",
    type=_PATH,
    metavar="ZIP",
    show_default="results/<run>_submission.zip",
    help="The file to write. Predictions stay in a folder beside it, of its name without .zip.",
)
@click.option(
    "--compression",
    type=click.Choice(["lzw", "ccittfax4"]),
    default="lzw",
    show_default=True,
    help="Compression of the masks; ccittfax4 has one bit a pixel and is the smallest.",
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
    cluster: str | None,
    output: Path | None,
    compression: str,
    overwrite: bool,
    masks: Path | None,
    checked: Path | None,
) -> int:
    """Make the zip file that the Inria contest takes, with a mask for each test image.

    The images lie in AerialImageDataset/test/images under --data. They are predicted as by
    infer.py: the same command goes on after an interruption, and uses masks that were made with
    the same weights and options. The zip has no folders; its masks have the images' names, one
    band of 0 and 255, and void as background.

    The file is checked before it appears: names, sizes, bands, depth, compression and every value.
    --check does the same with any file. Without test images it is checked against the official
    list: 36 tiles of 5000 x 5000 pixels of each of five cities.
    """
    from preprocessing.inria import test_images
    from preprocessing.inria_submission import mask_name, pack_masks, wanted_tiles

    _refuse_useless(masks, checked)
    try:
        images = test_images(data)
    except DatasetError:
        # Only a prediction needs the images.
        if given("data") or (masks is None and checked is None):
            raise
        images = []
    wanted = wanted_tiles(images)
    if checked is not None:
        return _check(checked, wanted)
    output = output or Path("results") / f"{(masks or model).resolve().name}_submission.zip"
    if output.suffix != ".zip":
        raise click.UsageError(f"--output {output}: name a file that ends in .zip")
    refuse_existing(output, overwrite)
    if masks is not None:
        found, others = masks_in(masks, list(wanted))
        if others:
            click.echo(f"{masks}: {others} other raster{'s'[: others != 1]} left out")
    else:
        from jointnet.raster_job import MASK, PredictionOptions, RasterJob
        from jointnet.raster_prediction import predict_rasters
        from jointnet.runs import load_run

        run, folder = load_run(model), output.with_suffix("")
        if run.config["target"] != "buildings":
            raise RunError(f"{model} finds {run.config['target']}; the contest is about buildings")
        options = PredictionOptions(threshold=threshold, augment=augment)
        # The jobs that infer.py would begin in that folder.
        jobs = [RasterJob(run, image, folder, options) for image in images]
        missing = [job for job in jobs if not job.is_done()]
        if len(missing) < len(jobs):
            click.echo(f"{folder}: {len(jobs) - len(missing)} of {len(jobs)} masks are there")
        failures = predict_rasters(
            missing, overwrite=overwrite, workers=workers, cluster=cluster, say=click.echo
        )
        for failure in failures:
            click.echo(f"error: {failure}", err=True)
        if failures:
            return 2
        found = {mask_name(image): job.paths[MASK] for image, job in zip(images, jobs, strict=True)}
    check = pack_masks(found, output, wanted, compression, overwrite)
    click.echo(describe(output, check))
    for problem in check.problems:
        click.echo(f"warning: the contest wants all tiles; {problem}", err=True)
    return 0


def _check(path: Path, wanted: dict[str, tuple[int, int]]) -> int:
    """Check a file and print what is wrong with it."""
    from preprocessing.inria_submission import check_submission

    check = check_submission(path, wanted)
    for problem in check.problems:
        click.echo(f"error: {path}: {problem}", err=True)
    if check.problems:
        return 2
    click.echo(f"{describe(path, check)}: as the contest asks")
    return 0


def _refuse_useless(masks: Path | None, checked: Path | None) -> None:
    """Refuse options that would do nothing beside --check or --masks."""
    if checked is not None:
        chosen, useful = "--check", {"checked", "data"}
    elif masks is not None:
        chosen, useful = "--masks", {"masks", "data", "output", "compression", "overwrite"}
    else:
        return
    options = click.get_current_context().command.params
    useless = [one.opts[0] for one in options if one.name not in useful and given(one.name)]
    if useless:
        raise click.UsageError(f"{', '.join(useless)} would do nothing beside {chosen}")


if __name__ == "__main__":
    main()
