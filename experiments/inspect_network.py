"""Look into a trained network: first-layer filters, feature maps and Grad-CAM for a patch."""

import os
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from experiments.inspection_figures import draw_feature_maps, draw_filters, draw_grad_cam
from experiments.options import (
    Command,
    model_option,
    overwrite_option,
    parse_gsd,
    threshold_option,
)
from jointnet.inspection import (
    channels_of,
    default_layer,
    find_layer,
    first_filters,
    grad_cam,
    observe,
)
from jointnet.raster_checks import bands_of, check_raster, fed_steps
from jointnet.runs import Run, load_run
from preprocessing.errors import RasterError
from preprocessing.output_files import refuse_existing, replacing
from preprocessing.raster_names import RasterName
from preprocessing.rasters import RasterReader
from preprocessing.resampling import ResampledReader, size_at
from preprocessing.tiling import Window, cut, fill_void

# Of a layer, drawn at most.
CHANNELS = 64
FIGURES = ("filters.png", "feature_maps.png", "grad_cam.png")


def read_patch(
    run: Run,
    image: str | os.PathLike,
    corner: tuple[int, int] | None = None,
    gsd: float | str | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Read a patch of a raster as the network is fed it in prediction.

    Args:
        run: the network.
        image: anything GDAL reads; resampled where its ground resolution is another, as
            ``infer.py`` does (``raster_checks.fed_steps``).
        corner: column and row of the patch's first pixel in the raster; it is moved back where the
            patch would reach outside. None for the patch in the middle.
        gsd: ground metres per pixel of the raster, where it does not say, or ``"native"``.

    Returns:
        ``(window, window, bands)`` raw pixels of the run's window, mirrored where the raster is
        smaller; where they are imagery, ``(window, window)`` bool; and column and row of the first
        pixel in the raster.

    Raises:
        RasterError: the raster cannot be read or fed, the corner lies outside of it, or the patch
            is void.
    """
    check_raster(run, image, gsd=gsd)
    side = run.config["window"]
    with RasterReader(image, bands_of(run, None), run.config["bands"]) as reader:
        own, fed, source = (reader.height, reader.width), (reader.height, reader.width), reader
        if (steps := fed_steps(run, reader.info.steps, gsd)) is not None:
            fed = size_at(*own, steps, run.config["gsd"])
            source = ResampledReader(reader, *fed)
        if corner is None:
            first = [(length - side) // 2 for length in fed]
        else:
            if not (0 <= corner[0] < own[1] and 0 <= corner[1] < own[0]):
                raise RasterError(
                    f"{image}: has no column {corner[0]} and row {corner[1]}; it has {own[1]} "
                    f"columns and {own[0]} rows"
                )
            moves = zip(corner[::-1], fed, own, strict=True)
            first = [round(start * new / old) for start, new, old in moves]
        row, column = (
            max(min(start, length - side), 0) for start, length in zip(first, fed, strict=True)
        )
        pixels, valid = source.read(Window(row, column, min(side, fed[0]), min(side, fed[1])))
    place = (round(column * own[1] / fed[1]), round(row * own[0] / fed[0]))
    if not valid.any():
        raise RasterError(
            f"{image}: the {side} x {side} pixels from column {place[0]}, row {place[1]} on are "
            "void; name others by --window COLUMN,ROW"
        )
    whole = Window(0, 0, side, side)
    return cut(pixels, whole), cut(valid, whole), place


def parse_corner(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Turn ``"1024,512"`` into numbers.

    Raises:
        click.BadParameter: not two whole numbers from 0.
    """
    if value is None:
        return None
    column, _, row = (part.strip() for part in value.partition(","))
    if not (column.isdecimal() and row.isdecimal()):
        raise click.BadParameter(f"{value!r} is no column and row; write them as in 1024,512")
    return int(column), int(row)


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  python experiments/inspect_network.py --image bellingham15.tif
  python experiments/inspect_network.py --image town.tif --window 1024,512 --layer encoder_2
  python experiments/inspect_network.py --list-layers --model results/my_run
""",
)
@click.option("--image", metavar="PATH", help="Anything that GDAL reads.")
@click.option(
    "--window",
    "corner",
    callback=parse_corner,
    metavar="COLUMN,ROW",
    show_default="in the middle",
    help="First pixel of the patch; it is as large as the windows of the model's predictions.",
)
@click.option(
    "--layer",
    metavar="NAME",
    show_default="the last before the decoder",
    help="Whose feature maps and Grad-CAM; within a block as in encoder_1/convolution_3.",
)
@click.option("--list-layers", is_flag=True, help="Print the layers, and draw nothing.")
@click.option(
    "--pixels",
    type=click.Choice(["target", "all"]),
    default="target",
    show_default=True,
    help="Whose logits Grad-CAM explains: those that the threshold takes for target (all, where "
    "there are none), or all.",
)
@model_option
@threshold_option
@click.option(
    "--gsd",
    callback=parse_gsd,
    metavar="METRES",
    show_default="what the image says",
    help="Ground metres per pixel of the image, see infer.py; 'native' feeds it as it is.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    show_default="results/<run>/inspection",
    help="Where the pictures go; made if missing.",
)
@overwrite_option
def main(
    image: str | None,
    corner: tuple[int, int] | None,
    layer: str | None,
    list_layers: bool,
    pixels: str,
    model: Path,
    threshold: float | None,
    gsd: float | str | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Draw what a network learned, and what it sees in a patch of an image.

    \b
      filters.png       the kernels of its first convolution
      feature_maps.png  what a layer gives, channel by channel
      grad_cam.png      where that layer found what speaks for the target

    Grad-CAM (Selvaraju et al. 2017; for segmentation Vinogradova et al. 2020) is the sum of the
    layer's channels, each multiplied by the mean gradient that the target's logits have with
    respect to it, as far as it is positive.
    """  # noqa: D301 (click takes the control character itself)
    if list_layers:
        for name, channels in channels_of(load_run(model).model).items():
            click.echo(f"{name}  {channels}")
        return
    if image is None:
        raise click.UsageError("--image names what to look at; --list-layers needs none")
    folder = output or model / "inspection"
    for name in FIGURES:
        refuse_existing(folder / name, overwrite)
    run = load_run(model)
    network, threshold = run.model, run.config["threshold"] if threshold is None else threshold
    layer = layer or default_layer(network)
    find_layer(network, layer)
    patch, valid, place = read_patch(run, image, corner, gsd)
    fed = fill_void(patch, valid)
    seen = observe(network, fed, layer)
    found = valid & (seen.probabilities >= threshold)
    explains_found = pixels == "target" and bool(found.any())
    cam = grad_cam(network, fed, layer, found if explains_found else valid)
    first, kernels = first_filters(network)
    stem = RasterName(image).stem
    patch_title = f"{run.name}, {stem} from column {place[0]}, row {place[1]}"
    channels = seen.features.shape[-1]
    drawn = f"{CHANNELS} of {channels}" if channels > CHANNELS else channels
    score = f"the {found.sum():,} pixels found" if explains_found else "all pixels"
    with ExitStack() as stack:
        paths = [stack.enter_context(replacing(folder / name, overwrite)) for name in FIGURES]
        draw_filters(
            kernels, f"{run.name}: kernels of {first}, with their largest weight", paths[0]
        )
        title = f"{patch_title}: {layer}, {drawn} channels by mean magnitude (number: mean)"
        draw_feature_maps(seen.features, title, paths[1], CHANNELS)
        title = f"{patch_title}: Grad-CAM of {layer}, for the logits of {score}"
        draw_grad_cam(patch, valid, seen, cam, threshold, title, paths[2])
    files = ", ".join([str(folder / FIGURES[0]), *FIGURES[1:]])
    click.echo(f"{files}: {layer}, {channels} channels, for the logits of {score}")


if __name__ == "__main__":
    main()
