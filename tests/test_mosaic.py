"""Eight tiles of one town as one VRT: predicted as the tiles are, and no footprint is cut."""

from itertools import product

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from experiments import benchmark_prediction
from experiments.benchmark_prediction import write_mosaic
from jointnet.raster_prediction import predict_raster
from preprocessing.vectorising import footprint_layer
from tests.helpers import stand_in_run

ROWS, COLUMNS = 2, 4


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
    town = write_mosaic(tmp_path / "town.vrt", tiles, COLUMNS)
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


def grid_of(folder, pixels):
    """Eight uint8 tiles of a place, two rows of four, cut from ``(height, width, 3)`` pixels."""
    images = folder / "aerial_buildings" / "train" / "images"
    images.mkdir(parents=True)
    (images.parent / "gt").mkdir()
    height, width = pixels.shape[0] // ROWS, pixels.shape[1] // COLUMNS
    shape = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    for number, (row, column) in enumerate(product(range(ROWS), range(COLUMNS)), start=1):
        part = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        with rasterio.open(images / f"barnarp{number}.tif", "w", driver="GTiff", **shape) as file:
            file.write(part.transpose(2, 0, 1))
    return folder


def test_the_measurement_of_a_town_of_squares(tmp_path, monkeypatch):
    pixels = np.full((256, 512, 3), 50, np.uint8)
    # One square inside of a tile, one over the border of two, one over the corner of four.
    for row, column in ((20, 20), (20, 118), (118, 246)):
        pixels[row : row + 20, column : column + 20] = 250
    run = stand_in_run(window=64, overlap=16, threshold=0.6)
    monkeypatch.setattr(benchmark_prediction, "load_run", lambda folder, dtype: run)
    found = benchmark_prediction.mosaic("run", str(grid_of(tmp_path, pixels)), "float32")
    assert found["tiles"] == 8 and found["pixels"] == pixels[..., 0].size
    assert (found["footprints"], found["footprints_over_borders"]) == (3, 2)
    assert found["valid_footprints"] == 3
    # The stand-in sees one pixel beyond a border.
    assert 0.999 < found["equal_pixels"] <= 1
    assert 0.95 < found["iou_of_the_masks"] <= 1
