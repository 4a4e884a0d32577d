"""Look into a trained network: filters of its first layer, feature maps, Grad-CAM of a patch."""

from contextlib import ExitStack
from pathlib import Path

import click

from experiments.options import Command, model_option, overwrite_option, parse_gsd
from preprocessing.image_names import RasterName
from preprocessing.output_files import refuse_existing, replacing
from preprocessing.tiling import fill_void

# Most channels of a layer that are drawn.
CHANNELS = 64
FIGURES = ("filters.png", "feature_maps.png", "grad_cam.png")


def parse_corner(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Return the numbers of ``"1024,512"``."""
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
    help="First pixel of the patch, which is as large as a window of prediction.",
)
@click.option(
    "--layer",
    metavar="NAME",
    show_default="the last before the decoder",
    help="Layer to look at; inside a block as encoder_1/convolution_3.",
)
@click.option("--list-layers", is_flag=True, help="Print the layers, and draw nothing.")
@click.option(
    "--pixels",
    type=click.Choice(["target", "all"]),
    default="target",
    show_default=True,
    help="Pixels that Grad-CAM explains: those found as target, or all.",
)
@model_option
@click.option(
    "--gsd",
    callback=parse_gsd,
    metavar="METRES",
    show_default="what the image says",
    help="Ground metres per pixel of the image; 'native' feeds it as it is.",
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
    gsd: float | str | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Draw what a network learned, and what it sees in a patch of an image.

    \b
      filters.png       the kernels of its first convolution
      feature_maps.png  the channels of a layer
      grad_cam.png      where that layer speaks for the target

    Grad-CAM (Selvaraju et al. 2017; for segmentation Vinogradova et al. 2020) is the positive part
    of the sum of the layer's channels, each weighted by the mean gradient of the target's logits
    with respect to it. Where nothing is found as target it explains all pixels.
    """  # noqa: D301 (click takes the control character itself)
    from jointnet import figures, inspection
    from jointnet.network_input import read_patch
    from jointnet.runs import load_run

    if list_layers:
        for name, channels in inspection.channels_of(load_run(model).model).items():
            click.echo(f"{name}  {channels}")
        return
    if image is None:
        raise click.UsageError("--image names what to look at; --list-layers needs none")
    folder = output or model / "inspection"
    for name in FIGURES:
        refuse_existing(folder / name, overwrite)
    run = load_run(model)
    layer = layer or inspection.default_layer(run.model)
    inspection.find_layer(run.model, layer)
    patch, valid, (column, row) = read_patch(run, image, corner, gsd)
    fed = fill_void(patch, valid)
    seen = inspection.observe(run.model, fed, layer)
    found = valid & (seen.probabilities >= run.config["threshold"])
    explains_found = pixels == "target" and bool(found.any())
    cam = inspection.grad_cam(run.model, fed, layer, found if explains_found else valid)
    first, kernels = inspection.first_filters(run.model)
    place = f"{run.name}, {RasterName(image).stem} from column {column}, row {row}"
    channels = seen.activations.shape[-1]
    drawn = f"{CHANNELS} of {channels}" if channels > CHANNELS else channels
    score = f"the {found.sum():,} pixels found" if explains_found else "all pixels"
    with ExitStack() as stack:
        filters, maps, heat = (
            stack.enter_context(replacing(folder / name, overwrite)) for name in FIGURES
        )
        title = f"{run.name}: kernels of {first}, with their largest weight"
        figures.draw_filters(kernels, title, filters)
        title = f"{place}: {layer}, {drawn} channels by mean magnitude (number: mean)"
        figures.draw_feature_maps(seen.activations, title, maps, CHANNELS)
        title = f"{place}: Grad-CAM of {layer}, for the logits of {score}"
        figures.draw_grad_cam(patch, valid, seen, cam, run.config["threshold"], title, heat)
    files = ", ".join([str(folder / FIGURES[0]), *FIGURES[1:]])
    click.echo(f"{files}: {layer}, {channels} channels, for the logits of {score}")


if __name__ == "__main__":
    main()
