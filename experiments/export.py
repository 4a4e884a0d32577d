"""Write a trained network as ONNX, SavedModel or LiteRT, and compare each with Keras."""

from pathlib import Path

import click
import numpy as np

from experiments.options import Command, model_option, overwrite_option, parse_gsd
from jointnet.export import FORMATS, contract, contract_beside, greatest_difference, require
from jointnet.network_input import read_patch
from jointnet.runs import Run, load_run
from preprocessing.errors import OutputError
from preprocessing.output_files import refuse_existing, refuse_existing_folder
from preprocessing.sample_scenes import SMALLEST, render_scene
from preprocessing.tiling import fill_void

# Far above what other orders of addition do to float32, far below what a threshold notices.
TOLERANCE = 1e-3


def sample_patch(run: Run) -> np.ndarray:
    """A patch of a generated scene, in the range of values that a network was trained on.

    Returns:
        ``(window, window, bands)`` pixels of the run's dtype: the scene's brightness with the mean
        and the deviation of each of the network's bands.
    """
    side, network, dtype = run.config["window"], run.model, np.dtype(run.config["dtype"])
    image, *_ = render_scene(max(side, SMALLEST))
    grey = image[:side, :side].mean(axis=2, keepdims=True)
    grey = (grey - grey.mean()) / (grey.std() or 1)
    pixels = grey * np.array(network.band_scale) + np.array(network.band_offset)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    return pixels.astype(dtype)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  python experiments/export.py --format onnx
  python experiments/export.py --model results/my_run --format litert --image my_town.tif
""",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(list(FORMATS)),
    multiple=True,
    show_default="all three",
    help="May be given several times.",
)
@click.option(
    "--image",
    metavar="PATH",
    show_default="a generated scene",
    help="Raster in whose middle the exported networks are compared with Keras.",
)
@model_option
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
    show_default="results/<run>/export",
    help="Where the networks go; made if missing.",
)
@overwrite_option
def main(
    formats: tuple[str, ...],
    image: str | None,
    model: Path,
    gsd: float | str | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Write a trained network in formats that run without this project.

    \b
      <run>.onnx         for ONNX Runtime and what else reads ONNX
      <run>_saved_model  for TensorFlow and its servers
      <run>.tflite       for LiteRT, with <run>.tflite.json beside it

    Each takes raw pixels, (batch, height, width, bands) of the dtype that the network was trained
    on, and gives probabilities, (batch, height, width, 1). Batch, height and width are free,
    height and width as multiples of 8 (JointNet) or 32 (ResNetUNet).

    Each is run once beside Keras, and the greatest difference of a probability is printed.
    """  # noqa: D301 (click takes the control character itself)
    if gsd is not None and image is None:
        raise click.UsageError("--gsd goes with --image")
    formats = tuple(dict.fromkeys(formats)) or tuple(FORMATS)
    run = load_run(model)
    name = Path(model).resolve().name
    folder = output or model / "export"
    paths = {key: folder / f"{name}{FORMATS[key].ending}" for key in formats}
    for key, path in paths.items():
        require(key)
        if key == "saved_model":
            refuse_existing_folder(path, overwrite, "saved_model.pb")
        else:
            refuse_existing(path, overwrite)
        if key == "litert":
            refuse_existing(contract_beside(path), overwrite)
    if image is None:
        patch, shown = sample_patch(run), "a generated scene"
    else:
        pixels, valid, place = read_patch(run, image, gsd=gsd)
        patch, shown = fill_void(pixels, valid), f"{image} from column {place[0]}, row {place[1]}"
    said = contract(run)
    click.echo(
        f"{said['dtype']} (batch, height, width, {said['bands']}) to float32 (batch, height, "
        f"width, 1), all free, height and width multiples of {said['multiple']}; "
        f"made for windows of {said['window']} px"
        + ("" if said["gsd"] is None else f" at {said['gsd']:g} m")
        + f", threshold {said['threshold']:g}"
    )
    for key, path in paths.items():
        FORMATS[key].export(run, path, overwrite)
        difference = greatest_difference(run, key, path, patch)
        click.echo(
            f"{path}: {FORMATS[key].title}, {size_of(path) / 1e6:.1f} MB, at most "
            f"{difference:.1g} from Keras on {shown}; these numbers are in {FORMATS[key].contract}"
        )
        if difference > TOLERANCE:
            raise OutputError(
                f"{path}: differs from Keras by {difference:.2g}, more than {TOLERANCE:g}; do not "
                "use it"
            )


if __name__ == "__main__":
    main()
