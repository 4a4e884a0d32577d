"""Predict rasters with a trained network: masks, overlays and footprints."""

import glob
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.options import (
    Command,
    data_option,
    model_option,
    overwrite_option,
    threshold_option,
)
from jointnet.raster_checks import check_raster
from jointnet.raster_outputs import check_outputs
from jointnet.raster_prediction import RasterPrediction, predict_raster
from jointnet.runs import load_run
from preprocessing.errors import JointNetError, RasterError
from preprocessing.scenes import images_in

TEST_IMAGES = Path("AerialImageDataset", "test", "images")


def find_images(values: Sequence[str], data: Path) -> list[Path]:
    """Find the rasters that ``--image`` names.

    Args:
        values: files, folders (their rasters are taken, not those of folders in them) and glob
            patterns. A bare name that is not in the working directory is sought among the Inria
            test images.
        data: folder of the data sets.

    Returns:
        Each raster once, in the order named; those of a folder or pattern sorted by name.

    Raises:
        RasterError: nothing is there by that name.
    """
    found: dict[Path, Path] = {}
    for value in values:
        bare = Path(value).name == value
        places = [Path(value), *([data / TEST_IMAGES / value] if bare else [])]
        images = next(filter(None, map(_images_at, places)), [])
        if not images:
            also = f", nor in {data / TEST_IMAGES}" if bare else ""
            raise RasterError(f"{value}: no such image{also}; --image takes files, folders, globs")
        for image in images:
            found.setdefault(image.resolve(), image)
    return list(found.values())


def _images_at(place: Path) -> list[Path]:
    if place.is_dir():
        return images_in(place)
    if place.exists():
        return [place]
    return sorted(path for path in map(Path, glob.glob(str(place))) if path.is_file())


def parse_bands(context: click.Context, option: click.Parameter, value: str | None) -> list | None:
    """Turn ``"1,2,3"`` into a list of numbers."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no list of band numbers; write them as in 4,3,2"
        ) from None


def summary(done: RasterPrediction, target: str) -> str:
    """One line about a raster that was predicted."""
    first, *others = done.outputs
    files = ", ".join([str(first), *(path.name for path in others)])
    share = f"{done.target_share:.1%} {target}" if done.valid_pixels else "all void, outputs empty"
    return (
        f"{files}: {done.footprints:,} footprints, {share}, {done.seconds:.1f} s, "
        f"{done.pixels / 1e6 / done.seconds:.2f} Mpx/s"
    )


@click.command(cls=Command)
@click.option("--image", "images", multiple=True, required=True, metavar="PATH", help="Image.")
@model_option
@click.option("--bands", callback=parse_bands, metavar="N,N,N")
@threshold_option
@click.option("--output", type=click.Path(path_type=Path), default=Path("results"))
@overwrite_option
@click.option("--probabilities", is_flag=True)
@data_option
def main(
    images: tuple[str, ...],
    model: Path,
    bands: list[int] | None,
    threshold: float | None,
    output: Path,
    overwrite: bool,
    probabilities: bool,
    data: Path,
) -> int:
    """Predict rasters with a trained network."""
    paths = find_images(images, data)
    check_outputs(paths, output, probabilities, overwrite)
    run = load_run(model)
    for path in paths:
        for note in check_raster(run, path, bands):
            click.echo(f"{path.name}: {note}")
    failures = []
    for path in paths:
        try:
            done = predict_raster(
                run,
                path,
                output,
                bands=bands,
                threshold=threshold,
                probabilities=probabilities,
                overwrite=overwrite,
                progress=True,
            )
        except JointNetError as error:
            failures.append(str(error))
            continue
        click.echo(summary(done, run.config["target"]))
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return 2 if failures else 0


if __name__ == "__main__":
    main()
