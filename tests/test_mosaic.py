"""Eight tiles of one town as one VRT: predicted as the tiles are, and no footprint is cut."""

from itertools import product
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from jointnet.raster_prediction import predict_raster
from preprocessing.mask_layers import footprint_layer
from tests.helpers import stand_in_run

ROWS, COLUMNS = 2, 4


def write_vrt(path: Path, tiles: list[Path], height: int, width: int) -> Path:
    """A VRT of tiles of one size without a place on the ground, read row by row."""
    bands = ""
    for band in (1, 2, 3):
        sources = "".join(
            f"<SimpleSource><SourceFilename>{tile}</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="{column * width}" yOff="{row * height}" xSize="{width}" '
            f'ySize="{height}"/></SimpleSource>'
            for (row, column), tile in zip(product(range(ROWS), range(COLUMNS)), tiles, strict=True)
        )
        kind = ("Red", "Green", "Blue")[band - 1]
        bands += (
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{kind}</ColorInterp>'
            f"{sources}</VRTRasterBand>"
        )
    size = f'rasterXSize="{COLUMNS * width}" rasterYSize="{ROWS * height}"'
    path.write_text(f"<VRTDataset {size}>{bands}</VRTDataset>")
    return path


def pairs_that_touch(frame: geopandas.GeoDataFrame) -> list[tuple]:
    shapes = frame.geometry.to_numpy()
    tree = shapely.STRtree(shapes)
    one, other = tree.query(shapes, predicate="touches")
    return [(shapes[a], shapes[b]) for a, b in zip(one, other, strict=True) if a < b]


def held(frame: geopandas.GeoDataFrame, columns: np.ndarray, rows: np.ndarray) -> bool:
    """Whether each point lies inside of a polygon, not on the edge of one."""
    tree = shapely.STRtree(frame.geometry.to_numpy())
    inside = tree.query(shapely.points(columns, rows), predicate="within")[0]
    return len(np.unique(inside)) == len(columns)


@pytest.mark.slow
def test_a_town_of_eight_tiles(real_data, tmp_path):
    folder = real_data / "aerial_buildings" / "train" / "images"
    tiles = [folder / f"barnarp{number}.tif" for number in range(1, ROWS * COLUMNS + 1)]
    with rasterio.open(tiles[0]) as tile:
        height, width = tile.shape
    town = write_vrt(tmp_path / "town.vrt", tiles, height, width)
    # Not the network: it sees whole windows, and they lie otherwise in a tile.
    run = stand_in_run(window=256, overlap=32, threshold=0.6)
    whole = predict_raster(run, town, tmp_path / "town")
    with rasterio.open(whole.outputs[0]) as file:
        mask = file.read(1)
    assert mask.shape == (ROWS * height, COLUMNS * width)
    for (row, column), tile in zip(product(range(ROWS), range(COLUMNS)), tiles, strict=True):
        done = predict_raster(run, tile, tmp_path / tile.stem)
        with rasterio.open(done.outputs[0]) as file:
            alone = file.read(1)
        part = mask[row * height : (row + 1) * height, column * width : (column + 1) * width]
        # At its border a tile is mirrored, where the town goes on.
        np.testing.assert_array_equal(part[1:-1, 1:-1], alone[1:-1, 1:-1])

    frame = footprint_layer(whole.outputs[0]).frame
    assert shapely.is_valid(frame.geometry).all()
    assert frame.area_px.sum() == (mask == 255).sum()
    # A footprint that was cut at a seam would have its other half on the far side of an edge.
    for first, second in pairs_that_touch(frame):
        assert shapely.intersection(first, second).length == 0
    written = geopandas.read_file(whole.outputs[2])
    assert written.geometry.is_valid.all() and len(written) == len(frame)
    assert written.area_px.sum() == frame.area_px.sum()
    # None ends at the border of a tile where the mask goes on.
    for seam in range(height, ROWS * height, height):
        across = ((mask[seam - 1] == 255) & (mask[seam] == 255)).nonzero()[0] + 0.5
        assert len(across) and held(written, across, np.full(len(across), seam))
    for seam in range(width, COLUMNS * width, width):
        across = ((mask[:, seam - 1] == 255) & (mask[:, seam] == 255)).nonzero()[0] + 0.5
        assert len(across) and held(written, np.full(len(across), seam), across)
