"""Look into a trained network: first-layer filters, feature maps and Grad-CAM for a patch."""

from contextlib import ExitStack
from pathlib import Path

import click

from experiments.options import (
    Command,
    model_option,
    overwrite_option,
    parse_gsd,
    threshold_option,
)
from jointnet.figures import draw_feature_maps, draw_filters, draw_grad_cam
from jointnet.inspection import (
    channels_of,
    default_layer,
    find_layer,
    first_filters,
    grad_cam,
    observe,
)
from jointnet.network_input import read_patch
from jointnet.runs import load_run
from preprocessing.image_names import RasterName
from preprocessing.output_files import refuse_existing, replacing
from preprocessing.tiling import fill_void

# Of a layer, drawn at most.
CHANNELS = 64
FIGURES = ("filters.png", "feature_maps.png", "grad_cam.png")


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
