"""How far a network's prediction of a mosaic agrees with that of its tiles alone.

The measurement behind ``experiments/benchmark.py mosaic``; it runs in a process of its own, see
``measurements``.
"""

import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jointnet.metrics import count
from jointnet.raster_prediction import predict_raster
from jointnet.runs import load_run
from preprocessing.inria import parse_stem, train_folder
from preprocessing.scenes import images_in

TOWN, COLUMNS = "barnarp", 4
"""A place whose tiles are a grid, read row by row, and the columns of that grid."""


def mosaic(model: str, data: str, precision: str) -> dict[str, Any]:
    """Predict the tiles of ``TOWN`` as one VRT and alone, as ``infer.py`` does, and compare.

    At a tile's border the network sees the tile mirrored, and in the VRT its neighbour; and the
    windows of both lie otherwise, of which the network sees each as a whole.

    Args:
        model: folder of the run.
        data: folder that holds ``aerial_buildings`` (``data`` of the recipe ``open_buildings``).
        precision: dtype policy.

    Returns:
        The share of pixels that are equal, the IoU of both masks, footprints of the mosaic, how
        many of them are valid, and how many reach over a border of two tiles.
    """
    import geopandas
    import rasterio
    import shapely

    run = load_run(Path(model), precision)
    images = images_in(train_folder(Path(data) / "aerial_buildings") / "images")
    tiles = [image for image in images if parse_stem(image.stem).place == TOWN]
    with rasterio.open(tiles[0]) as tile:
        height, width = tile.shape
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = predict_raster(run, write_mosaic(folder / "town.vrt", tiles, COLUMNS), folder)
        masks = [predict_raster(run, tile, folder).outputs[0] for tile in tiles]
        town = _mask(whole.outputs[0])
        alone = np.block(
            [
                [_mask(mask) for mask in masks[first : first + COLUMNS]]
                for first in range(0, len(masks), COLUMNS)
            ]
        )
        layer = next(path for path in whole.outputs if path.suffix == ".geojson")
        shapes = geopandas.read_file(layer).geometry.to_numpy()
    borders = shapely.multilinestrings(
        [[(0, y), (town.shape[1], y)] for y in range(height, len(town), height)]
        + [[(x, 0), (x, len(town))] for x in range(width, town.shape[1], width)]
    )
    return {
        "tiles": len(tiles),
        "pixels": town.size,
        "equal_pixels": float((town == alone).mean()),
        "iou_of_the_masks": count(alone, town).metrics()["iou"],
        "footprints": len(shapes),
        "valid_footprints": int(shapely.is_valid(shapes).sum()),
        "footprints_over_borders": int(shapely.crosses(shapes, borders).sum()),
    }


def write_mosaic(path: Path, tiles: Sequence[Path], columns: int) -> Path:
    """Write a VRT of tiles of three bands and one size, without a place on the ground.

    Args:
        path: the VRT.
        tiles: uint8 rasters, the rows of a grid one after the other.
        columns: of that grid.

    Returns:
        ``path``.
    """
    import rasterio

    with rasterio.open(tiles[0]) as tile:
        height, width = tile.shape
    rows = len(tiles) // columns
    grid = list(product(range(rows), range(columns)))
    bands = ""
    for band, colour in enumerate(("Red", "Green", "Blue"), start=1):
        sources = "".join(
            f"<SimpleSource><SourceFilename>{tile}</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="{column * width}" yOff="{row * height}" xSize="{width}" '
            f'ySize="{height}"/></SimpleSource>'
            for (row, column), tile in zip(grid, tiles, strict=True)
        )
        bands += (
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>'
            f"{sources}</VRTRasterBand>"
        )
    size = f'rasterXSize="{columns * width}" rasterYSize="{rows * height}"'
    path.write_text(f"<VRTDataset {size}>{bands}</VRTDataset>", encoding="utf-8")
    return path


def _mask(path: Path) -> np.ndarray:
    """A mask of ``infer.py`` as 0 and 1."""
    import rasterio

    with rasterio.open(path) as file:
        return (file.read(1) > 0).astype(np.uint8)
