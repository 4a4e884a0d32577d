"""Predict rasters with a trained network: masks, overlays, and footprints or centre lines."""

from pathlib import Path

import click

from experiments.options import (
    Command,
    augment_option,
    model_option,
    overwrite_option,
    parse_bands,
    parse_gsd,
    sharing_options,
    threshold_option,
)


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
    help="File, folder, glob pattern, text file (.txt) with a path a line, or what GDAL opens: "
    "https://..., s3://bucket/key, /vsizip/...; may be given several times. A bare name that is "
    "not here is looked up in data/AerialImageDataset/test/images.",
)
@click.argument("more_images", nargs=-1, metavar="")
@model_option
@click.option(
    "--bands",
    callback=parse_bands,
    metavar="N,N,N",
    show_default="red, green, blue as marked, else the first",
    help="Bands to use, counted from 1.",
)
@click.option(
    "--gsd",
    callback=parse_gsd,
    metavar="METRES",
    show_default="what the image says",
    help="Ground metres per pixel of the images. An image that differs from the model's by more "
    "than a quarter is resampled for it, and the mask back; 'native' turns that off.",
)
@click.option(
    "--void-white",
    is_flag=True,
    help="Treat white areas of 31 x 31 pixels or more as void.",
)
@threshold_option
@augment_option
@click.option("--probabilities", is_flag=True, help="Write the probabilities too.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="FOLDER",
    help="Where the outputs go; made if missing.",
)
@overwrite_option
@sharing_options
def main(
    images: tuple[str, ...],
    more_images: tuple[str, ...],
    model: Path,
    bands: list[int] | None,
    gsd: float | str | None,
    void_white: bool,
    threshold: float | None,
    augment: bool,
    probabilities: bool,
    output: Path,
    overwrite: bool,
    workers: int,
    cluster: str | None,
) -> int:
    """Find buildings or roads, whichever a network was trained on, in aerial images.

    Reads anything that GDAL reads (GeoTIFF, JPEG, PNG, ...), of any size. The outputs of an image
    appear together once they are complete:

    \b
      <image>_output.tif          mask: 255 target, 0 background, and a mask band
                                  where there is no imagery
      <image>_overlay.png         the image with the mask drawn over it
      <image>_footprints.geojson  outlines with their area in m2 and mean probability
      <image>_centre_lines.geojson
                                  instead, if the model finds roads: centre lines
                                  with their length in m and mean probability
      <image>_probabilities.tif   with --probabilities: float32, 0 to 1

    The vector layer is what vectorise.py makes by default, with a QGIS style (.qml) beside it.

    All images are checked before the first is predicted. If one fails later, the others are still
    finished, and the exit code is 2. Finished work stays in a hidden folder beside the outputs
    until they are complete: after an interruption, give the same command again to go on from
    there. It skips images that are done.
    """  # noqa: D301 (click takes the control character itself)
    from jointnet.raster_job import MASK, PredictionOptions, RasterJob, outputs_of
    from jointnet.raster_prediction import predict_rasters
    from jointnet.runs import load_run
    from preprocessing.image_names import find_images

    # A shell turns --image *.tif into --image a.tif b.tif.
    paths = find_images([*images, *more_images], Path("data"), outputs_of)
    run = load_run(model)
    options = PredictionOptions(
        bands, threshold, probabilities, augment=augment, gsd=gsd, void_white=void_white
    )
    jobs = []
    for job in (RasterJob(run, path, output, options) for path in paths):
        if overwrite or not job.is_done():
            jobs.append(job)
        else:
            # Swaths are left if a process ended after publishing and before deleting them.
            job.files.remove()
            click.echo(f"{job.paths[MASK]}: done already; --overwrite does it again")
    failures = predict_rasters(
        jobs, overwrite=overwrite, workers=workers, cluster=cluster, say=click.echo
    )
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return 2 if failures else 0


if __name__ == "__main__":
    main()
