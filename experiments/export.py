"""Write a trained network as ONNX, SavedModel or LiteRT, and compare each with Keras."""

from pathlib import Path

import click

from experiments.options import Command, model_option, overwrite_option
from preprocessing.errors import OutputError
from preprocessing.output_files import refuse_existing, refuse_existing_folder
from preprocessing.tiling import fill_void

FORMATS = ("onnx", "saved_model", "litert")

# Other orders of addition change float32 by far less; a threshold notices only far more.
TOLERANCE = 1e-3


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
    type=click.Choice(FORMATS),
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
    output: Path | None,
    overwrite: bool,
) -> None:
    """Write a trained network in formats that run without this project.

    \b
      <run>.onnx         for ONNX Runtime and others
      <run>_saved_model  for TensorFlow and its servers
      <run>.tflite       for LiteRT, with <run>.tflite.json beside it

    Each takes raw pixels, (batch, height, width, bands) in the dtype of the training, and gives
    probabilities, (batch, height, width, 1). Batch, height and width are free; height and width
    must be multiples of 8 (JointNet) or 32 (ResNetUNet).

    Each is run beside Keras, and the greatest difference of a probability is printed.
    """  # noqa: D301 (click takes the control character itself)
    from jointnet import export
    from jointnet.network_input import read_patch
    from jointnet.runs import load_run

    run = load_run(model)
    name = Path(model).resolve().name
    folder = output or model / "export"
    paths = {key: folder / f"{name}{export.FORMATS[key].ending}" for key in formats or FORMATS}
    for key, path in paths.items():
        export.require(key)
        if key == "saved_model":
            refuse_existing_folder(path, overwrite, "saved_model.pb")
        else:
            refuse_existing(path, overwrite)
        if key == "litert":
            refuse_existing(export.contract_beside(path), overwrite)
    if image is None:
        patch, shown = export.sample_patch(run), "a generated scene"
    else:
        pixels, valid, place = read_patch(run, image)
        patch = fill_void(pixels, valid)
        shown = f"{image} from column {place[0]}, row {place[1]}"
    said = export.contract(run)
    click.echo(
        f"{said['dtype']} (batch, height, width, {said['bands']}) to float32 (batch, height, "
        f"width, 1), all free, height and width multiples of {said['multiple']}; "
        f"made for windows of {said['window']} px"
        + ("" if said["gsd"] is None else f" at {said['gsd']:g} m")
        + f", threshold {said['threshold']:g}"
    )
    for key, path in paths.items():
        form = export.FORMATS[key]
        form.export(run, path, overwrite)
        difference = export.greatest_difference(run, key, path, patch)
        size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        click.echo(
            f"{path}: {form.title}, {size / 1e6:.1f} MB, at most {difference:.1g} from "
            f"Keras on {shown}; these numbers are in {form.contract}"
        )
        if difference > TOLERANCE:
            raise OutputError(
                f"{path}: differs from Keras by {difference:.2g}, more than {TOLERANCE:g}; do not "
                "use it"
            )


if __name__ == "__main__":
    main()
