"""Turn a mask into vector layers for a GIS: footprints, or the centre lines of roads."""

import math
from pathlib import Path

import click

from experiments.options import Command, given, overwrite_option
from preprocessing.errors import OutputError
from preprocessing.raster_access import raster_info
from preprocessing.vector_writers import DRIVERS, check_layers, write_layers
from preprocessing.vectorising import PRUNE_M, FeatureSettings, features_of

_PATH = click.Path(path_type=Path)
_ENDINGS = ", ".join(DRIVERS)


def _size(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value < math.inf:
        raise click.BadParameter(f"{value} is no size; give a number from 0")
    return value


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  python experiments/vectorise.py results/my_town_output.tif
  python experiments/vectorise.py mask.tif --min-area 10 --simplify 0.5 --output town.geojson
  python experiments/vectorise.py roads.tif --target roads --output a.gpkg --output a.parquet
""",
)
@click.argument("mask", type=_PATH)
@click.option(
    "--probabilities",
    type=_PATH,
    metavar="RASTER",
    help="Probabilities on the mask's grid; each feature gets their mean.",
)
@click.option(
    "--target",
    type=click.Choice(["buildings", "roads"]),
    default="buildings",
    show_default=True,
    help="Footprints of buildings (or of anything), or centre lines of roads.",
)
@click.option(
    "--output",
    "outputs",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    show_default="MASK with the ending .gpkg",
    help=f"File to write, its format by its ending: {_ENDINGS}. May be given several times.",
)
@click.option(
    "--min-area",
    type=float,
    callback=_size,
    default=0.0,
    metavar="M2",
    help="Leave out footprints, or connected pieces of road, smaller than this in m2.",
)
@click.option(
    "--fill-holes",
    type=float,
    callback=_size,
    default=0.0,
    metavar="M2",
    help="Fill holes smaller than this in m2, unless there is no imagery in them.",
)
@click.option(
    "--simplify",
    type=float,
    callback=_size,
    metavar="METRES",
    show_default="0 for buildings, a pixel for roads",
    help="How far outlines and lines may move to have fewer vertices.",
)
@click.option("--right-angles", is_flag=True, help="Turn edges of footprints to right angles.")
@click.option(
    "--prune",
    type=float,
    callback=_size,
    default=PRUNE_M,
    show_default=True,
    metavar="METRES",
    help="Remove side branches of centre lines that end in nothing and are shorter than this.",
)
@overwrite_option
def main(
    mask: Path,
    probabilities: Path | None,
    target: str,
    outputs: tuple[Path, ...],
    min_area: float,
    fill_holes: float,
    simplify: float | None,
    right_angles: bool,
    prune: float,
    overwrite: bool,
) -> None:
    """Turn a mask into vector layers that open in a GIS, each with a QGIS style (.qml) beside it.

    Buildings become footprints with their geodesic area, roads centre lines with their length.
    Coordinates are those of the mask's CRS (GeoJSON: longitude and latitude), or pixels where it
    has none. A feature that simplifying or right angles would destroy stays as it was.
    """
    if target == "roads" and right_angles:
        raise click.UsageError("--right-angles goes with footprints, not with --target roads")
    if target == "buildings" and given("prune"):
        raise click.UsageError("--prune goes with --target roads")
    # Before the name of an output is made of that of a folder.
    raster_info(mask)
    paths = list(outputs) or [mask.with_suffix(".gpkg")]
    for path in paths:
        if path.resolve() in {one.resolve() for one in (mask, probabilities) if one is not None}:
            raise OutputError(f"{path}: is an input; name another --output")
    check_layers(paths, overwrite)
    settings = FeatureSettings(min_area, fill_holes, simplify, right_angles, prune)
    features = features_of(target, mask, probabilities, settings)
    files = write_layers(features, paths, features.geometry_type, overwrite)
    for note in features.notes:
        click.echo(f"note: {note}")
    found = f"{features.count:,} {features.noun}{'s'[: features.count != 1]}"
    total = f"{features.total:,.0f} {features.unit} in all"
    click.echo(f"{', '.join(map(str, files))}: {found}, {total}")


if __name__ == "__main__":
    main()
