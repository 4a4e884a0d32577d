"""The generated scenes: exact labels, the same every time, and not to be solved by colour."""

import hashlib

import numpy as np
import pytest
from rasterio.features import rasterize
from shapely.geometry import box

from preprocessing.errors import OutputError
from preprocessing.inria import inria_scenes
from preprocessing.layouts import polygon_scenes
from preprocessing.polygons import rasterise, read_polygons
from preprocessing.raster_access import raster_info
from preprocessing.rasters import read_image, read_label
from preprocessing.sample_scenes import render_scene, write_sample_scenes
from preprocessing.sample_towns import (
    DETAIL,
    GSD,
    MARGIN,
    Canvas,
    Spot,
    Sun,
    Town,
    Wing,
    cast_shadows,
    draw_building,
    draw_flat,
    hall_plan,
    house_plan,
    light,
    outline,
)


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(512, (0, number)) for number in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_sample_scenes(folder, scenes=4, size=256, seed=7)
    return folder


def colour_classifier(scenes, bins):
    """P(building | colour) from a histogram of `bins` per channel; a function of an image."""

    def cell(image):
        return (image.astype(int) * bins // 256) @ np.array([bins * bins, bins, 1])

    counts = np.zeros((2, bins**3))
    for image, _, mask in scenes:
        for target in (0, 1):
            counts[target] += np.bincount(cell(image)[mask == target], minlength=bins**3)
    share = counts[1] / np.maximum(counts.sum(axis=0), 1)
    return lambda image: share[cell(image)]


def best_iou(classify, scenes):
    """IoU pooled over the scenes, at the threshold that suits these very scenes best."""
    score = np.concatenate([classify(image).ravel() for image, _, _ in scenes])
    target = np.concatenate([mask.ravel() for _, _, mask in scenes]) == 1
    found = [score > threshold for threshold in np.linspace(0.02, 0.98, 49)]
    return max((f & target).sum() / (f | target).sum() for f in found)


@pytest.mark.parametrize("bins", [16, 32])
def test_colour_alone_does_not_find_the_buildings(scenes, bins):
    classify = colour_classifier(scenes[2:], bins)
    assert best_iou(classify, scenes[:2]) < 0.5
    # Not even on the scenes whose colours it has learned by heart.
    assert best_iou(classify, scenes[2:]) < 0.5


@pytest.mark.parametrize("bins", [16, 32])
def test_the_colour_classifier_would_find_buildings_that_differ_in_colour(scenes, bins):
    painted = [(np.where(m[..., None] == 1, 255 - i // 4, i // 4 * 3), p, m) for i, p, m in scenes]
    painted = [(image.astype(np.uint8), p, m) for image, p, m in painted]
    assert best_iou(colour_classifier(painted[4:], bins), painted[:4]) > 0.9


def test_a_scene_has_the_shapes_and_values_it_says(scenes):
    for image, polygons, mask in scenes:
        assert image.shape == (512, 512, 3) and image.dtype == np.uint8
        assert mask.shape == (512, 512) and mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1}
        assert 0.08 < mask.mean() < 0.35
        assert all(polygon.is_valid and polygon.geom_type == "Polygon" for polygon in polygons)
        frame = box(0, 0, 512, 512)
        assert all(polygon.intersects(frame) for polygon in polygons)
        # An exposure in which nothing can be seen would be of no use.
        assert image.std() > 20 and (image == 255).mean() < 0.05 and (image == 0).mean() < 0.05


def test_buildings_do_not_overlap_and_are_of_a_size_that_can_be_learned(scenes):
    for _, polygons, mask in scenes:
        whole = [polygon for polygon in polygons if polygon.within(box(0, 0, 512, 512))]
        assert sum(p.area for p in whole) <= mask.sum() + 4 * len(whole)
        for polygon in whole:
            sides = np.hypot(*np.diff(polygon.minimum_rotated_rectangle.exterior.xy))
            assert 24 < sides.min() and sides.max() < 65


def test_the_mask_is_the_polygons(scenes):
    for _, polygons, mask in scenes:
        np.testing.assert_array_equal(rasterize(polygons, (512, 512), dtype=np.uint8), mask)


def test_a_seed_gives_the_same_bytes_and_another_seed_others():
    def digest(seed):
        image, polygons, mask = render_scene(128, seed)
        outlines = b"".join(polygon.wkb for polygon in polygons)
        return hashlib.sha256(image.tobytes() + mask.tobytes() + outlines).hexdigest()

    assert digest(3) == digest(3)
    assert digest((3, 1)) == digest((3, 1))
    assert len({digest(3), digest(4), digest((3, 1)), digest((3, 2))}) == 4


@pytest.mark.parametrize("seed", range(12))
def test_the_smallest_scene_has_a_building(seed):
    image, polygons, mask = render_scene(128, seed)
    assert image.shape == (128, 128, 3)
    assert polygons and mask.any()


@pytest.mark.parametrize("size", [127, 0, -5])
def test_a_smaller_scene_is_refused(size):
    with pytest.raises(ValueError, match=f"size is {size}; .* 128 pixels"):
        render_scene(size)


def test_an_odd_size_is_kept():
    image, _, mask = render_scene(131, 1)
    assert image.shape == (131, 131, 3) and mask.shape == (131, 131)


def test_files_are_an_inria_layout_that_splits_by_index(folder):
    scenes = inria_scenes(folder, validation=(1,))
    assert [(s.name, s.place, s.index, s.split) for s in scenes] == [
        ("modelton1", "modelton", 1, "validation"),
        ("modelton2", "modelton", 2, "train"),
        ("sampleville1", "sampleville", 1, "validation"),
        ("sampleville2", "sampleville", 2, "train"),
    ]
    info = raster_info(scenes[0].image)
    assert (info.height, info.width, info.band_count, info.dtype) == (256, 256, 3, "uint8")
    assert info.crs.to_epsg() == 32633
    assert info.gsd == pytest.approx(0.3, rel=1e-3)
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    names = [scene.name for scene in scenes]
    assert files == sorted([f"{n}.tif" for n in names] * 2 + [f"{n}.geojson" for n in names])


def test_the_written_image_is_the_rendered_one(folder):
    image, _, mask = render_scene(256, (7, 3))
    written, valid = read_image(folder / "train" / "images" / "modelton2.tif")
    np.testing.assert_array_equal(written, image)
    assert valid.all()
    np.testing.assert_array_equal(read_label(folder / "train" / "gt" / "modelton2.tif"), mask)


def test_the_polygon_files_rasterise_to_the_very_labels(folder):
    train = folder / "train"
    scenes = polygon_scenes(train / "images", train / "polygons", validation=(1,))
    assert len(scenes) == 4
    for scene in scenes:
        info = raster_info(scene.image)
        label = read_label(train / "gt" / f"{scene.name}.tif")
        polygons, counts = read_polygons(scene.label, info, where="building = 'yes'")
        np.testing.assert_array_equal(rasterise(polygons, info), label)
        assert counts.used == counts.read > 0
        assert (counts.repaired, counts.dropped, counts.outside) == (0, 0, 0)


def test_no_two_scenes_share_ground(folder):
    ground = []
    for path in sorted((folder / "train" / "images").iterdir()):
        info = raster_info(path)
        west, north = info.transform.c, info.transform.f
        ground.append(box(west, north - 256 * GSD, west + 256 * GSD, north))
    assert len(ground) == 4
    for i, one in enumerate(ground):
        assert all(one.distance(other) > 10 for other in ground[:i])


def test_a_scene_does_not_depend_on_how_many_there_are_and_is_replaced(folder, tmp_path):
    for _ in range(2):
        write_sample_scenes(tmp_path, scenes=1, size=256, seed=7)
    for kind in ("images", "gt"):
        name = f"train/{kind}/sampleville1.tif"
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    polygons = "train/polygons/sampleville1.geojson"
    assert (tmp_path / polygons).read_text() == (folder / polygons).read_text()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    with pytest.raises(OutputError, match="blocked"):
        write_sample_scenes(blocked, scenes=1, size=128)
    assert [path.name for path in tmp_path.iterdir()] == ["blocked"]


def test_streets_and_plots_are_found_where_they_were_put():
    rng = np.random.default_rng(5)
    town, canvas = Town(256, rng), Canvas(256, rng)
    along, across = town.grid(canvas)
    for row, column in ((100, 200), (400, 50), (300, 500)):
        x, y, _ = town.place(float(along[row, column]), float(across[row, column]))
        assert x == pytest.approx(float(canvas.x[0, column]), abs=1e-2)
        assert y == pytest.approx(float(canvas.y[row, 0]), abs=1e-2)


@pytest.mark.parametrize("azimuth", [0, 45, 90, 180, 225, 270])
def test_a_shadow_lies_on_the_side_away_from_the_sun_and_is_as_long_as_it_should(azimuth):
    height = np.zeros((201, 201), np.float32)
    height[96:105, 96:105] = 6
    sun = Sun(np.deg2rad(azimuth), np.deg2rad(45))
    shadow = cast_shadows(height, sun, pixel=0.3)
    rows, columns = np.nonzero(shadow)
    east, south = sun.towards
    reach = (columns - 100) * east + (rows - 100) * south
    assert reach.mean() < -5
    # 6 m at 45 degrees are 6 m of shadow, 20 pixels beyond the block's far side or corner.
    far = 20 + (4 if azimuth % 90 == 0 else 4 * np.sqrt(2))
    assert -reach.min() == pytest.approx(far, abs=2)
    assert not shadow[height > 0].any()


def test_level_ground_without_anything_has_no_shadow():
    assert not cast_shadows(np.zeros((50, 50), np.float32), Sun(1.0, 0.7), 0.15).any()


def test_the_roof_is_bright_towards_the_sun_and_dark_on_the_other_side():
    canvas = Canvas(128, np.random.default_rng(0))
    canvas.albedo[:] = 0.5
    # A gable of slope 0.5 along x, its ridge in the middle row.
    depth = np.clip(6 - np.abs(canvas.y - 64 * GSD), 0, None)
    inside = (depth > 0) & (np.abs(canvas.x - 64 * GSD) < 10)
    canvas.height[:] = np.where(inside, 3 + 0.5 * depth, 0)
    lit = light(canvas, Sun(np.deg2rad(180), np.deg2rad(45))).mean(axis=2)
    middle = (MARGIN + 64) * DETAIL
    south, north = lit[middle + 20, middle], lit[middle - 20, middle]
    ground, shadow = lit[-10, middle], lit[middle - 48, middle]
    assert south > ground > north > shadow
    assert ground == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_building_is_drawn_where_its_outline_is(seed):
    rng = np.random.default_rng(seed)
    plan = hall_plan(rng, 18.0) if seed % 2 else house_plan(rng, 17.0)
    canvas = Canvas(128, rng)
    spot = Spot(19.0, 20.0, 0.3 * seed)
    shape = draw_building(canvas, plan, spot, rng)
    assert shape.equals(outline(plan, spot))
    n = canvas.height.shape[0]
    ring = [tuple(c / GSD * DETAIL + MARGIN * DETAIL for c in xy) for xy in shape.exterior.coords]
    filled = rasterize([{"type": "Polygon", "coordinates": [ring]}], (n, n), dtype=np.uint8)
    # float32 axes may put a pixel that the outline runs through on the other side.
    assert (filled != (canvas.height > 0)).sum() <= 4


def test_a_flat_thing_has_a_colour_and_no_height():
    canvas = Canvas(128, np.random.default_rng(0))
    draw_flat(canvas, Spot(19.0, 19.0, 0.5), 6.0, 4.0, (0.6, 0.4, 0.3))
    assert (canvas.albedo > 0).any()
    assert not canvas.height.any()


def test_drawing_outside_the_canvas_does_nothing():
    canvas = Canvas(128, np.random.default_rng(0))
    plan = (Wing(0, 0, 6, 4),)
    shape = draw_building(canvas, plan, Spot(500.0, -300.0, 0.1), np.random.default_rng(1))
    assert shape.area == pytest.approx(96)
    assert not canvas.height.any() and not canvas.albedo.any()
