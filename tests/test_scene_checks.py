"""Ground on both sides of a split: neighbours of a grid share none, whatever the grid."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import Polygon

from preprocessing import scene_checks
from preprocessing.errors import DatasetError
from preprocessing.ground import geographic_bounds, geographic_corners
from preprocessing.inria import CITIES
from preprocessing.scene_checks import COVERAGE_BINS, check_inria, check_report, share_ground
from tests.helpers import write_image
from tests.training_fixtures import ROOT, ground

TILE = 5000
# Austin and Tyrol: Inria tiles lie some degrees beside the meridian of their grid's north.
AUSTIN = 26914, Affine(0.3, 0, 616_500, 0, -0.3, 3_345_000)
TYROL = 31254, Affine(0.3, 0, 80_000, 0, -0.3, 230_000)
TURNED = 26914, AUSTIN[1] @ Affine.rotation(33)
GRIDS = [AUSTIN, TYROL, TURNED]


def corners(grid, east=0.0, south=0.0, size=TILE):
    """Of a tile so many pixels from the grid's first."""
    epsg, transform = grid
    placed = transform @ Affine.translation(east, south)
    return geographic_corners(CRS.from_epsg(epsg), placed, size, size)


def boxes_overlap(grid, east, south):
    epsg, first = grid
    boxes = [
        geographic_bounds(CRS.from_epsg(epsg), transform, TILE, TILE)
        for transform in (first, first @ Affine.translation(east, south))
    ]
    (w, s, e, n), (west, south, east, north) = boxes
    return min(e, east) - max(w, west) > 1e-5 < min(n, north) - max(s, south)


NEIGHBOURS = [step for step in itertools.product((-TILE, 0, TILE), repeat=2) if any(step)]


@pytest.mark.parametrize("grid", GRIDS)
def test_tiles_that_touch_share_no_ground(grid):
    for east, south in NEIGHBOURS:
        assert not share_ground(corners(grid), corners(grid, east, south))
    # Edges that touch without common corners, as those of tiles of another size do.
    assert not share_ground(corners(grid), corners(grid, TILE, TILE / 3))
    assert not share_ground(corners(grid), corners(grid, TILE, -TILE / 3, 2 * TILE))
    # Upright boxes in degrees do overlap, by more than a metre.
    assert any(boxes_overlap(grid, *step) for step in NEIGHBOURS)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("east", "south"), [(0, 0), (4800, 0), (0, -4800), (-4800, 4800), (10, 10), (-4800, 2000)]
)
def test_tiles_that_overlap_share_ground(grid, east, south):
    assert share_ground(corners(grid), corners(grid, east, south))
    assert share_ground(corners(grid, east, south), corners(grid))


def test_a_fiftieth_of_the_smaller_tile_s_width_may_be_shared():
    for pixels, shared in ((90, False), (110, True)):
        assert share_ground(corners(AUSTIN), corners(AUSTIN, TILE - pixels)) == shared
    # Of a tile of 100 pixels, 6 are much; the order does not matter.
    small = corners(AUSTIN, TILE - 6, 100, size=100)
    assert share_ground(corners(AUSTIN), small) and share_ground(small, corners(AUSTIN))
    # Two corners of 2.4 % each are 0.06 % of the ground.
    assert share_ground(corners(AUSTIN), corners(AUSTIN, TILE - 120, TILE - 120))
    assert not share_ground(corners(AUSTIN), corners(AUSTIN, TILE - 90, TILE - 90))


def test_a_strip_is_measured_by_its_own_width():
    strip = geographic_corners(CRS.from_epsg(26914), AUSTIN[1], 1, 20_000)
    below = geographic_corners(
        CRS.from_epsg(26914), AUSTIN[1] @ Affine.translation(0, 1), 1, 20_000
    )
    assert share_ground(strip, strip) and not share_ground(strip, below)


def test_upright_boxes_around_squares_of_a_projected_grid_are_neighbours():
    """As the chips of SpaceNet 1 over Rio de Janeiro, 200 m of UTM zone 23 south each."""
    first = Affine(0.5, 0, 680_000, 0, -0.5, 7_470_000)

    def box(east, south):
        west, low, right, north = geographic_bounds(
            CRS.from_epsg(32723), first @ Affine.translation(east, south), 400, 400
        )
        return [[west, north], [right, north], [right, low], [west, low]]

    overlaps = []
    for step in itertools.product((-400, 0, 400), repeat=2):
        if any(step):
            assert not share_ground(box(0, 0), box(*step))
            one, other = Polygon(box(0, 0)), Polygon(box(*step))
            overlaps.append(one.intersection(other).area / one.area)
    assert 0.005 < max(overlaps) < 0.015
    assert share_ground(box(0, 0), box(380, 0))


def test_a_tile_in_another_tile_shares_ground():
    assert share_ground(corners(AUSTIN), corners(AUSTIN, 2000, 2000, size=256))


def test_a_tile_in_the_empty_corner_of_a_turned_tile_s_box_shares_no_ground():
    # The turned tile's upper edge leads from (0, 0) down to (4193, 2723).
    assert not share_ground(corners(TURNED), corners(AUSTIN, 2700, 0, size=1000))
    assert share_ground(corners(TURNED), corners(AUSTIN, 2700, 1000, size=1000))


def test_tiles_in_different_references_are_compared():
    west, north = corners(AUSTIN)[0]
    degrees = 4326, Affine(3e-6, 0, west, 0, -3e-6, north)
    assert share_ground(corners(AUSTIN), corners(degrees))
    assert not share_ground(corners(AUSTIN), corners(degrees, east=-10_000))


def test_the_antimeridian_is_no_border():
    zone_60 = 32760, Affine(0.3, 0, 817_300, 0, -0.3, 8_010_000)
    tile = corners(zone_60)
    longitudes = np.array(tile)[:, 0]
    assert longitudes.max() > 179 and longitudes.min() < -179
    assert share_ground(tile, corners(zone_60, 2000))
    assert not share_ground(tile, corners(zone_60, TILE))
    assert not share_ground(tile, corners(zone_60, -TILE))
    assert share_ground(corners(zone_60, 4000), tile)
    # On the other side of the Earth, at the same latitudes.
    assert not share_ground(tile, [[longitude - 170, latitude] for longitude, latitude in tile])


@pytest.mark.parametrize("one", [None, corners(AUSTIN)])
def test_a_place_that_is_unknown_is_shared_with_nothing(one):
    assert not share_ground(one, None) and not share_ground(None, one)


SIZE = 40


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Official tiles of 40 pixels, two of each city, and patches of 16."""
    monkeypatch.setattr(scene_checks, "TILE_SIZE", SIZE)
    monkeypatch.setattr(scene_checks, "TILES_PER_CITY", 2)
    monkeypatch.setattr(scene_checks, "PATCH_SIZE", 16)


def write_tile(root: Path, name: str, number: int = 0, size: int = SIZE, **image) -> None:
    """Noise, and a label whose upper left quarter is target."""
    random = np.random.default_rng(number)
    options = {"dtype": np.uint8, "bands": 3, "transform": ground(number)} | image
    dtype, bands = options.pop("dtype"), options.pop("bands")
    pixels = random.integers(1, 255, (size, size, bands)).astype(dtype)
    label = np.zeros((size, size, 1), np.uint8)
    label[: size // 2, : size // 2] = 255
    for folder, content in (("images", pixels), ("gt", label)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_image(root / folder / f"{name}.tif", content, **options)


def write_official(root: Path) -> Path:
    for number, city in enumerate(CITIES):
        for tile in (1, 2):
            write_tile(root, f"{city}{tile}", 2 * number + tile)
    return root


@pytest.fixture
def official(tmp_path) -> Path:
    return write_official(tmp_path / "AerialImageDataset" / "train")


def problems(root: Path) -> list[str]:
    check = check_inria(root)
    assert all("\n" not in line for line in (*check.problems, *check.notes))
    return check.problems


# Whole


@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_whole_data_set_has_no_problem(official, above):
    check = check_inria([official, *official.parents][above])
    assert check.official and not check.problems and not check.notes
    assert (check.images, check.labels, check.folder) == (10, 10, official)
    assert check.tiles == dict.fromkeys(CITIES, 2)
    assert check.target == dict.fromkeys(CITIES, 800)
    assert check.valid == dict.fromkeys(CITIES, 3200)


def test_coverage_is_counted_by_patch(official):
    # Of 40 pixels: patches of 16, 16 and 8. The quarter of 20 fills the first patch, and 4 of 16
    # columns of the next: shares 1, 1/4, 0, 1/4, 1/16, and four times 0.
    check = check_inria(official)
    expected = {1.0: 1, 0.3: 2, 0.1: 1, 0.0: 5}
    assert check.coverage.tolist() == [10 * expected.get(edge, 0) for edge in COVERAGE_BINS]


def test_void_counts_nowhere(tmp_path):
    write_tile(tmp_path, "town1")
    label = np.full((SIZE, SIZE, 1), 7, np.uint8)
    label[:8, :8] = [[[255]] * 2 + [[0]] * 6] * 8
    write_image(tmp_path / "gt" / "town1.tif", label, transform=ground(0), nodata=7)
    check = check_inria(tmp_path)
    assert (check.target, check.valid) == ({"town": 16}, {"town": 64})
    assert check.coverage.tolist() == [0, 0, 0, 0, 1, 0, 0]


def test_the_report_shows_shares_and_a_histogram(official):
    lines = check_report(check_inria(official))
    assert lines[0] == f"10 images and 10 labels in {official}"
    assert "austin       2    25.0%" in lines and "overall     10    25.0%" in lines
    assert lines[-len(COVERAGE_BINS) :] == [
        "           none      50  55.6%  ######################",
        "       0% to 5%       0   0.0%",
        "      5% to 10%      10  11.1%  ####",
        "     10% to 20%       0   0.0%",
        "     20% to 30%      20  22.2%  #########",
        "     30% to 50%       0   0.0%",
        "    50% to 100%      10  11.1%  ####",
    ]


def test_a_report_of_nothing_readable_is_short(tmp_path):
    write_tile(tmp_path, "town1")
    for folder in ("images", "gt"):
        (tmp_path / folder / "town1.tif").write_bytes(b"II*\0")
    check = check_inria(tmp_path)
    assert len(check.problems) == 2 and len(check_report(check)) == 1


def test_all_void_labels_have_no_share(tmp_path):
    write_tile(tmp_path, "town1")
    write_image(
        tmp_path / "gt" / "town1.tif",
        np.full((SIZE, SIZE, 1), 7, np.uint8),
        nodata=7,
    )
    check = check_inria(tmp_path)
    assert not check.problems and not check.coverage.any() and len(check_report(check)) == 1


# Missing


def test_missing_tiles_are_all_named(official):
    for folder in ("images", "gt"):
        for name in ("austin2", "vienna1", "vienna2"):
            (official / folder / f"{name}.tif").unlink()
    assert problems(official) == [
        "austin: 1 of 2 tiles missing: austin2",
        "vienna: none of its 2 tiles is there",
    ]


def test_images_without_label_and_the_reverse(official):
    (official / "gt" / "austin1.tif").unlink()
    (official / "images" / "kitsap2.tif").unlink()
    assert problems(official) == [
        f"{official / 'images' / 'austin1.tif'}: has no label of its name",
        f"{official / 'gt' / 'kitsap2.tif'}: has no image of its name",
    ]


def test_names_that_are_none_and_names_that_are_shared(official):
    (official / "images" / "austin1.tif").rename(official / "images" / "austin.tif")
    cv2.imwrite(
        str(official / "gt" / "kitsap1.png"),
        np.zeros((SIZE, SIZE), np.uint8),
    )
    found = problems(official)
    assert f"{official / 'images' / 'austin.tif'}: is no tile name" in found[0]
    assert f"{official / 'gt' / 'austin1.tif'}: has no image of its name" in found
    assert any("kitsap1.tif: shares its name with kitsap1.png" in line for line in found)


def test_another_layout_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(DatasetError, match="looked for the folders images and gt"):
        check_inria(tmp_path)
    for folder in ("images", "gt"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DatasetError, match="images and gt hold no rasters"):
        check_inria(tmp_path)


# Wrong, in the official data set


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 32}, "austin1.tif: has 32 x 32 pixels, an official tile 40 x 40"),
        ({"bands": 4}, "austin1.tif: has 4 band(s) of uint8, an official tile 3 of uint8"),
        ({"bands": 1}, "austin1.tif: has 1 band(s) of uint8, an official tile 3 of uint8"),
        ({"dtype": np.uint16}, "austin1.tif: has 3 band(s) of uint16, an official tile 3 of"),
        (
            {"transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)},
            "austin1.tif: a pixel spans 0.5 m, of an official tile 0.3 m",
        ),
    ],
)
def test_a_tile_unlike_the_official_ones_is_a_problem(official, changed, message):
    write_tile(official, "austin1", **changed)
    (found,) = problems(official)
    assert str(official / "images") in found and message in found


def test_tiles_without_georeferencing_are_none(official):
    write_tile(official, "austin1", crs=None, transform=None)
    assert problems(official) == []


# Wrong everywhere


def test_sizes_of_image_and_label(tmp_path):
    write_tile(tmp_path, "town1")
    write_image(tmp_path / "gt" / "town1.tif", np.zeros((SIZE, 30, 1), np.uint8))
    (found,) = problems(tmp_path)
    assert found.endswith("gt/town1.tif: has 30 x 40 pixels, its image 40 x 40")


@pytest.mark.parametrize(
    ("placed", "apart"),
    [
        ({"transform": ground(1)}, True),
        ({"crs": "EPSG:32634"}, True),
        ({"transform": ground(0) @ Affine.translation(1, 0)}, True),
        ({"transform": ground(0) @ Affine.scale(1.02)}, True),
        ({"transform": ground(0) @ Affine.translation(0.2, 0.2)}, False),
        ({"crs": None, "transform": None}, False),
    ],
)
def test_a_label_that_lies_elsewhere(tmp_path, placed, apart):
    write_tile(tmp_path, "town1", 0)
    label = np.zeros((SIZE, SIZE, 1), np.uint8)
    write_image(tmp_path / "gt" / "town1.tif", label, **{"transform": ground(0)} | placed)
    found = problems(tmp_path)
    assert len(found) == apart
    if apart:
        assert "gt/town1.tif: lies elsewhere than its image: by CRS and affine" in found[0]


@pytest.mark.parametrize("values", [(0, 128), (0, 1, 255), (3, 7)])
def test_values_that_are_no_label(tmp_path, values):
    write_tile(tmp_path, "town1")
    label = np.resize(np.array(values, np.uint8), (SIZE, SIZE, 1))
    write_image(tmp_path / "gt" / "town1.tif", label, transform=ground(0))
    (found,) = problems(tmp_path)
    assert "gt/town1.tif: has the values" in found


@pytest.mark.parametrize("folder", ["images", "gt"])
@pytest.mark.parametrize("compress", ["NONE", "DEFLATE"])
def test_truncated_files_are_found_wherever_they_end(official, folder, compress):
    """A file whose last blocks are missing opens, and reads well at its beginning."""
    path = official / folder / "tyrol-w2.tif"
    with rasterio.open(path) as file:
        content, profile = file.read(), file.profile
    # Rows one by one, whose places stand at the beginning of the file.
    profile.update(compress=compress, blockysize=1, tiled=False, interleave="pixel")
    with rasterio.open(path, "w", **profile) as file:
        file.write(content)
    path.write_bytes(path.read_bytes()[:-9])
    with rasterio.open(path) as file:
        file.read(window=((0, 5), (0, SIZE)))
    (found,) = problems(official)
    assert found.startswith(f"{path}: corrupt or truncated") and "row" in found


def test_a_tile_of_zeros_is_a_problem(official):
    zeros = np.zeros((SIZE, SIZE, 3), np.uint8)
    write_image(official / "images" / "austin1.tif", zeros, transform=ground(1))
    assert problems(official) == [f"{official / 'images' / 'austin1.tif'}: all its pixels are 0"]


def test_a_depth_that_cannot_be_trained_on(tmp_path):
    write_tile(tmp_path, "town1", dtype=np.float64)
    (found,) = problems(tmp_path)
    assert "images/town1.tif: pixels are float64" in found


def test_every_file_has_its_own_line(official):
    for name in ("austin1", "chicago2"):
        (official / "images" / f"{name}.tif").write_bytes(b"II*\0")
        write_image(
            official / "gt" / f"{name}.tif",
            np.full((SIZE, SIZE, 1), 9, np.uint8),
        )
    found = problems(official)
    assert len(found) == 4
    for name in ("images/austin1", "images/chicago2", "gt/austin1", "gt/chicago2"):
        assert sum(name in line for line in found) == 1


# Other data sets


def test_other_places_and_sizes_are_notes(tmp_path):
    write_tile(tmp_path, "town1", 1, size=20, transform=Affine(1, 0, 500_000, 0, -1, 5_000_000))
    write_tile(tmp_path, "austin2", 2, size=30, crs=None, transform=None, dtype=np.uint16)
    check = check_inria(tmp_path)
    assert not check.official and not check.problems
    assert check.notes == [
        f"not the official data set (2 tiles of {', '.join(CITIES)}): austin 1, town 1",
        "tiles have 20 x 20 to 30 x 30 pixels, official ones 40 x 40",
        "some have 3 of uint16 bands, official ones 3 of uint8",
        "pixels span 1 to 1 m, official ones 0.3 m",
        "1 of 2 images are not georeferenced",
    ]


def test_patches_of_official_tiles_are_another_data_set(tmp_path):
    write_tile(tmp_path, "austin1_3")
    check = check_inria(tmp_path)
    assert not check.official and not check.problems and check.tiles == {"austin": 1}


def test_the_real_folders_are_whole(real_data):
    for name, images in (("aerial_buildings", 16), ("inria_patches", 41)):
        check = check_inria(real_data / name)
        assert (check.images, check.problems, check.official) == (images, [], False)
        assert sum(check.tiles.values()) == images
    assert check.target["austin"] / check.valid["austin"] == pytest.approx(0.147, abs=0.001)


@pytest.mark.slow
def test_memory_stays_flat_for_tiles_of_full_size(tmp_path):
    code = (
        "import sys, json, resource\n"
        "from preprocessing.scene_checks import check_inria\n"
        "check = check_inria(sys.argv[1])\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps([check.problems, check.valid, peak]))"
    )

    def peak(size: int) -> int:
        root = tmp_path / str(size)
        write_tile(root, "town1", size=size)
        done = subprocess.run(
            [sys.executable, "-c", code, str(root)],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "GDAL_CACHEMAX": "16"},
            capture_output=True,
            text=True,
            check=True,
        )
        found, valid, most = json.loads(done.stdout)
        assert found == [] and valid == {"town": size**2}
        return most

    # The image alone has 75 MB.
    assert peak(5000) - peak(500) < 60_000
