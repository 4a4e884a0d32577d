"""Generate scenes like aerial imagery, with their buildings, to try everything without a download.

Roofs share their colours with roads, paving and soil, and some plots hold something flat of a
roof's size and colour. So colour alone does not find the buildings; shape and shadows do.
"""

from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
from affine import Affine
from rasterio.features import rasterize
from shapely import affinity
from shapely.geometry import Polygon, box

from preprocessing.output_files import replacing
from preprocessing.raster_writers import write_raster
from preprocessing.sample_towns import (
    GSD,
    Canvas,
    Sun,
    Town,
    draw_greenery,
    draw_ground,
    draw_plots,
    light,
    photograph,
)

SMALLEST = 128
CRS = "EPSG:32633"
CORNER = (391_000.0, 5_820_000.0)
# Metres between scenes, so that none shares ground with another.
GAP = 60.0


def render_scene(
    size: int = 512, seed: int | Sequence[int] = 0
) -> tuple[np.ndarray, list[Polygon], np.ndarray]:
    """Generate a scene of 0.3 m pixels; the same size and seed give the same arrays.

    Returns:
        Image uint8 (size, size, 3), red, green, blue; at least one polygon, outlines of buildings
        in pixels, x to the right and y down from the upper left corner, which may reach beyond the
        scene; and mask uint8 (size, size), 1 where a pixel's centre lies in a building, else 0.

    Raises:
        ValueError: ``size`` is below 128.
    """
    if size < SMALLEST:
        raise ValueError(f"size is {size}; a sample scene has {SMALLEST} pixels a side or more")
    rng = np.random.default_rng(seed)
    town, canvas = Town(size, rng), Canvas(size, rng)
    draw_ground(canvas, town, rng)
    shapes = draw_plots(canvas, town, rng)
    draw_greenery(canvas, town, rng)
    sun = Sun(np.deg2rad(rng.uniform(100, 260)), np.deg2rad(rng.uniform(33, 52)))
    image = photograph(light(canvas, sun), rng)
    pixels = [affinity.scale(s, 1 / GSD, 1 / GSD, origin=(0, 0)) for s in shapes]
    frame = box(0, 0, size, size)
    # A building's corner that covers no pixel's centre is in no label.
    polygons = [p for p in pixels if p.intersects(frame) and rasterize([p], (size, size)).any()]
    return image, polygons, rasterize(polygons, (size, size), dtype=np.uint8)


def write_sample_scenes(
    folder: Path,
    scenes: int = 10,
    size: int = 512,
    seed: int = 0,
    places: Sequence[str] = ("sampleville", "modelton"),
) -> None:
    """Write generated scenes in the Inria layout, with their polygons.

    Writes ``train/images/<place><index>.tif`` (uint8 RGB, 0.3 m, EPSG:32633),
    ``train/gt/<place><index>.tif`` (uint8, 0 / 255) and ``train/polygons/<place><index>.geojson``
    (EPSG:4326); each file appears complete and replaces an older one. Scenes go to the places in
    turn, so that a split by index (from 1) takes some of every place; no two share ground. The
    pixels of a scene depend only on size, seed and its number. Names of places do not end in a
    digit.

    Raises:
        ValueError: ``size`` is below 128.
        OutputError: the folder cannot be written.
    """
    train = Path(folder) / "train"
    for number in range(scenes):
        place, index = places[number % len(places)], number // len(places) + 1
        image, polygons, mask = render_scene(size, (seed, number))
        step = size * GSD + GAP
        west = CORNER[0] + step * (index - 1)
        north = CORNER[1] - step * (number % len(places))
        transform = Affine(GSD, 0, west, 0, -GSD, north)
        name = f"{place}{index}"
        for kind, pixels in (("images", image), ("gt", mask[..., None] * np.uint8(255))):
            path = train / kind / f"{name}.tif"
            write_raster(path, pixels, crs=CRS, transform=transform, compress="deflate")
        placed = geopandas.GeoSeries(polygons, crs=CRS).affine_transform(transform.to_shapely())
        buildings = geopandas.GeoDataFrame({"building": "yes"}, placed.index, geometry=placed)
        with replacing(train / "polygons" / f"{name}.geojson", overwrite=True) as partial:
            # RFC 7946 rounds to about 1 cm: too coarse to rasterise to the very same pixels.
            buildings.to_crs("EPSG:4326").to_file(
                partial, driver="GeoJSON", RFC7946="YES", COORDINATE_PRECISION=12
            )
