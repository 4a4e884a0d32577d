"""Finished masks against labels: pairing, strips, rasters and polygons."""

import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

from jointnet.mask_evaluation import MaskMeasures, evaluate_masks
from jointnet.metrics import Counts, PatchCounts, PatchGrid, RelaxedCounts, count, count_relaxed
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.errors import DatasetError, LabelError, PolygonError, RasterError
from preprocessing.objects import count_objects
from preprocessing.polygons import PolygonCounts
from preprocessing.raster_access import raster_info
from preprocessing.raster_writers import MaskWriter
from preprocessing.tiling import Window
from tests.helpers import write_image

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], np.uint8)
COUNTS = Counts(3, 1, 1, 3)
# Of the rasters that write_image writes.
CRS, AFFINE = "EPSG:32633", Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)


def write_label(path: Path, mask: np.ndarray, scale: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, (mask * scale)[..., None])


def write_void(path: Path, mask: np.ndarray) -> None:
    """A mask of 0, 1 and 255 as infer.py writes it, over a raster that is there."""
    with MaskWriter(path, raster_info(path), overwrite=True) as file:
        file.write(Window(0, 0, *mask.shape), mask)


def folders(tmp_path: Path, *names: str, suffix: str = "_output") -> tuple[Path, Path]:
    """Predictions and labels of so many scenes, all with the same pixels."""
    for name in names:
        write_label(tmp_path / "found" / f"{name}{suffix}.tif", FOUND)
        write_label(tmp_path / "labels" / f"{name}.tif", TRUTH)
    return tmp_path / "found", tmp_path / "labels"


def write_vector(path: Path, *shapes: shapely.Geometry, crs: str = CRS, **fields: list) -> Path:
    """Shapes in pixels (x, y), placed as write_image places rasters, in any CRS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = [shapely.affinity.affine_transform(s, AFFINE.to_shapely()) for s in shapes]
    geopandas.GeoDataFrame(fields, geometry=placed, crs=CRS).to_crs(crs).to_file(path)
    return path


# Rasters


@pytest.mark.parametrize("suffix", ["", "_output"])
def test_masks_pair_with_labels_by_stem_with_and_without_our_suffix(tmp_path, suffix):
    found, labels = folders(tmp_path, "austin1", "austin12", "vienna2", suffix=suffix)
    records = evaluate_masks(found, labels)
    assert [(r.name, r.place, r.threshold) for r in records] == [
        ("austin1", "austin", None),
        ("austin12", "austin", None),
        ("vienna2", "vienna", None),
    ]
    assert all(record.counts == COUNTS for record in records)


def test_a_stem_that_is_no_tile_name_is_its_own_place(tmp_path):
    (record,) = evaluate_masks(*folders(tmp_path, "my_town"))
    assert (record.name, record.place) == ("my_town", "my_town")


def test_what_infer_writes_beside_its_masks_is_left_alone(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    write_image(found / "austin1_overlay.png.tif", np.full((9, 9, 3), 77, np.uint8))
    write_image(found / "austin1_probabilities.tif", np.full((2, 4, 1), 0.3, np.float32))
    (found / "austin1_footprints.geojson").touch()
    (record,) = evaluate_masks(found, labels)
    assert record.counts == COUNTS


@pytest.mark.parametrize(("ours", "theirs"), [(1, 255), (255, 1), (1, 1)])
def test_0_and_1_is_as_good_as_0_and_255(tmp_path, ours, theirs):
    write_label(tmp_path / "found" / "a1.tif", FOUND, ours)
    write_label(tmp_path / "labels" / "a1.tif", TRUTH, theirs)
    assert evaluate_masks(tmp_path / "found", tmp_path / "labels")[0].counts == COUNTS


def test_void_of_either_file_counts_nowhere(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    void = FOUND.copy()
    # A false alarm and a miss are void in the prediction, ...
    void[0, 1] = void[1, 2] = 255
    write_void(found / "austin1_output.tif", void)
    assert evaluate_masks(found, labels)[0].counts == Counts(3, 0, 0, 3)
    # ... and a hit in the label.
    truth = np.where([[False] * 3 + [True], [False] * 4], 7, TRUTH * 255).astype(np.uint8)
    write_image(labels / "austin1.tif", truth[..., None], nodata=7)
    assert evaluate_masks(found, labels)[0].counts == Counts(2, 0, 0, 3)


def test_tall_files_are_counted_to_their_last_row(tmp_path, monkeypatch):
    monkeypatch.setattr("jointnet.mask_evaluation.STRIP_ROWS", 16)
    truth = np.zeros((41, 5), np.uint8)
    truth[::2] = 1
    write_label(tmp_path / "found" / "a1.tif", 1 - truth)
    write_label(tmp_path / "labels" / "a1.tif", truth)
    counts = evaluate_masks(tmp_path / "found", tmp_path / "labels")[0].counts
    assert counts == Counts(0, 100, 105, 0)


def test_masks_without_partner_are_all_named(tmp_path):
    found, labels = folders(tmp_path, "austin1", "austin2", "vienna1")
    (found / "austin1_output.tif").unlink()
    (labels / "vienna1.tif").unlink()
    with pytest.raises(DatasetError) as caught:
        evaluate_masks(found, labels)
    assert "without label: vienna1" in str(caught.value)
    assert "without image: austin1" in str(caught.value)


def test_two_empty_folders_are_no_data_set(tmp_path):
    for name in ("found", "labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="labels holds neither label rasters nor vector"):
        evaluate_masks(tmp_path / "found", tmp_path / "labels")


def test_labels_of_another_place_are_refused(tmp_path):
    found, labels = folders(tmp_path, "town")
    moved = Affine(0.3, 0, 500_300, 0, -0.3, 5_000_000)
    write_image(labels / "town.tif", (TRUTH * 255)[..., None], transform=moved)
    with pytest.raises(LabelError, match="elsewhere than .*labels/town.tif: .*up to 300 m apart"):
        evaluate_masks(found, labels)


def test_masks_of_another_size_are_refused(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    write_label(labels / "austin1.tif", TRUTH[:, :3])
    with pytest.raises(LabelError, match=r"has 4 x 2 pixels, .*labels/austin1.tif 3 x 2;"):
        evaluate_masks(found, labels)


@pytest.mark.parametrize("folder", ["found", "labels"])
def test_other_values_are_refused(tmp_path, folder):
    found, labels = folders(tmp_path, "austin1")
    path = next((tmp_path / folder).iterdir())
    write_label(path, TRUTH, 77)
    with pytest.raises(LabelError, match=f"{path.name}: has the values 77"):
        evaluate_masks(found, labels)


# Relaxed measures


def test_relaxed_measures_are_counted_only_when_asked_for(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    (record,) = evaluate_masks(found, labels)
    assert (record.relaxed, record.relaxed_buffer_px) == (RelaxedCounts(), None)
    (record,) = evaluate_masks(found, labels, measures=MaskMeasures(1))
    assert (record.counts, record.relaxed_buffer_px) == (COUNTS, 1)
    assert record.relaxed == RelaxedCounts(4, 4, 4, 4)


@pytest.mark.parametrize("buffer", [0, 1, 3, 20])
def test_strips_do_not_show_in_what_is_matched(tmp_path, monkeypatch, buffer):
    """Matches and void across the borders of strips, which are lower than the buffer too."""
    random = np.random.default_rng(buffer)
    chances = ([0, 1, 255], (41, 30), True, [0.9, 0.03, 0.07])
    truth, prediction = (random.choice(*chances).astype(np.uint8) for _ in range(2))
    for folder, mask in (("found", prediction), ("labels", truth)):
        write_label(tmp_path / folder / "a1.tif", mask)
        write_void(tmp_path / folder / "a1.tif", mask)
    monkeypatch.setattr("jointnet.mask_evaluation.STRIP_ROWS", 6)
    (record,) = evaluate_masks(
        tmp_path / "found", tmp_path / "labels", measures=MaskMeasures(buffer)
    )
    assert record.relaxed == count_relaxed(truth, prediction, buffer)
    assert record.counts == count(truth, prediction)


def test_a_road_of_the_label_under_the_void_of_the_mask_makes_a_prediction_right(tmp_path):
    road = np.zeros((8, 20), np.uint8)
    road[:, 15] = 1
    found = np.roll(road, -3, axis=1)
    found[:, 14:] = 255
    write_label(tmp_path / "labels" / "a1.tif", road)
    write_label(tmp_path / "found" / "a1.tif", road)
    write_void(tmp_path / "found" / "a1.tif", found)
    (record,) = evaluate_masks(tmp_path / "found", tmp_path / "labels", measures=MaskMeasures(3))
    assert record.relaxed == RelaxedCounts(0, 0, 8, 8)


# Patches, probabilities and objects


def test_strips_do_not_show_in_patches_and_objects(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    chances = ([0, 1, 255], (41, 30), True, [0.6, 0.37, 0.03])
    truth = random.choice(*chances).astype(np.uint8)
    found = np.where(random.random(truth.shape) < 0.1, 0, truth).astype(np.uint8)
    for folder, mask in (("found", found), ("labels", truth)):
        write_label(tmp_path / folder / "a1.tif", mask)
        write_void(tmp_path / folder / "a1.tif", mask)
    monkeypatch.setattr("jointnet.mask_evaluation.STRIP_ROWS", 6)
    measures = MaskMeasures(objects=True)
    (record,) = evaluate_masks(tmp_path / "found", tmp_path / "labels", measures=measures)
    grid = PatchGrid(41, 30)
    grid.add(0, truth, found)
    assert record.patches == grid.counts() == PatchCounts(1, 1, record.counts)
    wanted = count_objects(truth, found, info=raster_info(tmp_path / "found" / "a1.tif"))
    assert record.objects.metrics() == wanted.metrics()
    assert record.objects.matched > 5 and record.objects.pairs_on_ground > 5


def probabilities_of(tmp_path, values, *names) -> Path:
    for name in names:
        write_image(tmp_path / "p" / f"{name}.tif", np.float32(values)[..., None])
    return tmp_path / "p"


VALUES = np.array([[0.1, 0.7, 0.9, 0.8], [0.2, 0.1, 0.4, 0.6]], np.float32)


@pytest.mark.parametrize("suffix", ["", "_probabilities"])
def test_probabilities_fill_the_histogram_and_score_objects(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("jointnet.mask_evaluation.STRIP_ROWS", 1)
    found, labels = folders(tmp_path, "austin1", "austin2")
    (tmp_path / "p").mkdir()
    folder = probabilities_of(tmp_path, VALUES, *(f"austin{n}{suffix}" for n in (1, 2, 3)))
    histogram = ProbabilityHistogram()
    measures = MaskMeasures(probabilities=folder, histogram=histogram, objects=True)
    records = evaluate_masks(found, labels, measures=measures)
    assert histogram.pixels == 16
    # All four true pixels from 0.4 on, and the false one of 0.7.
    best = histogram.best()
    assert best["iou"] == 4 / 5 and 0.2 < best["threshold"] <= 0.4
    assert [record.objects.scores.tolist() for record in records] == [[0.75]] * 2


def test_what_is_wrong_with_probabilities_is_said(tmp_path):
    found, labels = folders(tmp_path, "austin1", "austin2")
    (tmp_path / "p").mkdir()
    folder = probabilities_of(tmp_path, VALUES * 2, "austin1")
    measures = MaskMeasures(probabilities=folder)
    with pytest.raises(DatasetError, match=r"no probabilities of 1 mask\(s\): austin2; they are"):
        evaluate_masks(found, labels, measures=measures)
    probabilities_of(tmp_path, VALUES * 2, "austin2")
    with pytest.raises(RasterError, match="probabilities from 0 to 1 are needed"):
        evaluate_masks(found, labels, measures=measures)
    probabilities_of(tmp_path, VALUES[:, :3], "austin1")
    with pytest.raises(RasterError, match="3 x 2 pixels, the mask 4 x 2"):
        evaluate_masks(found, labels, measures=measures)


# Aligning


def test_masks_that_lie_elsewhere_are_aligned_when_told_and_it_is_said(tmp_path):
    found, labels = folders(tmp_path, "town")
    coarse = np.kron(TRUTH, np.ones((2, 2), np.uint8))
    finer = AFFINE @ Affine.translation(0, -1) @ Affine.scale(0.5)
    # The same ground and a pixel more above, at twice the resolution.
    coarse = np.vstack([np.zeros((2, 8), np.uint8), coarse])
    write_image(labels / "town.tif", coarse[..., None] * 255, transform=finer)
    with pytest.raises(LabelError, match="has 4 x 2 pixels, .*town.tif 8 x 6; .*--align"):
        evaluate_masks(found, labels)
    (tmp_path / "p").mkdir()
    folder = probabilities_of(tmp_path, VALUES, "town")
    histogram = ProbabilityHistogram()
    measures = MaskMeasures(probabilities=folder, histogram=histogram, align=True)
    (record,) = evaluate_masks(found, labels, measures=measures)
    # Every pixel counts four times, and the row that was not predicted nowhere.
    assert record.counts == Counts(12, 4, 4, 12)
    assert histogram.pixels == 32
    assert record.aligned == (
        "aligned by nearest neighbour (4 x 2 pixels with the 8 x 6 of town.tif); 33.3% is void"
    )


def test_masks_in_place_are_left_alone_and_far_ones_refused(tmp_path):
    found, labels = folders(tmp_path, "town")
    measures = MaskMeasures(align=True)
    (record,) = evaluate_masks(found, labels, measures=measures)
    assert (record.aligned, record.counts) == (None, COUNTS)
    moved = Affine(0.3, 0, 500_300, 0, -0.3, 5_000_000)
    write_image(labels / "town.tif", (TRUTH * 255)[..., None], transform=moved)
    with pytest.raises(LabelError, match="share no ground"):
        evaluate_masks(found, labels, measures=measures)
    nowhere = {"crs": None, "transform": Affine.identity()}
    write_image(labels / "town.tif", (TRUTH * 255)[:, :3, None], **nowhere)
    with pytest.raises(RasterError, match="cannot be aligned"):
        evaluate_masks(found, labels, measures=measures)


# Polygons


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
@pytest.mark.parametrize("crs", [CRS, "EPSG:4326"])
def test_vector_files_pair_by_stem_and_are_filled_on_the_masks_pixels(tmp_path, suffix, crs):
    found, labels = folders(tmp_path, "austin1", "vienna2")
    shutil.rmtree(labels)
    for name in ("austin1", "vienna2"):
        # Half a pixel off is the same mask: the centres count.
        write_vector(labels / f"{name}{suffix}", shapely.box(1.6, -0.4, 4.4, 2.4), crs=crs)
    records = evaluate_masks(found, labels, measures=MaskMeasures(0))
    assert [(r.name, r.place, r.counts) for r in records] == [
        ("austin1", "austin", COUNTS),
        ("vienna2", "vienna", COUNTS),
    ]
    assert all(r.relaxed == RelaxedCounts(3, 4, 3, 4) for r in records)
    assert PolygonCounts(**records[0].polygons) == PolygonCounts(read=1, partly=1)


def test_one_vector_file_is_the_label_of_all_masks(tmp_path):
    found, _ = folders(tmp_path, "austin1", "vienna2")
    elsewhere = Affine(0.3, 0, 500_030, 0, -0.3, 5_000_000)
    write_image(found / "vienna2_output.tif", FOUND[..., None] * 255, transform=elsewhere)
    shapes = (shapely.box(2, 0, 4, 2), shapely.box(100, 0, 101, 2))
    town = write_vector(tmp_path / "town.gpkg", *shapes)
    records = evaluate_masks(found, town)
    assert [record.counts for record in records] == [COUNTS, Counts(0, 4, 2, 2)]
    assert [PolygonCounts(**record.polygons).outside for record in records] == [1, 1]


def test_lines_are_widened_and_features_chosen_as_in_training(tmp_path):
    road = np.zeros((20, 20), np.uint8)
    road[8:12] = 1
    write_label(tmp_path / "found" / "a1_output.tif", road)
    lines = [shapely.LineString([(-5, y), (25, y)]) for y in (10, 3)]
    path = write_vector(tmp_path / "labels" / "a1.geojson", *lines, kind=["road", "fence"])
    arguments = (tmp_path / "found", path.parent, "kind = 'road'")
    # Two pixels of 0.3 m to either side.
    (record,) = evaluate_masks(*arguments, 0.6)
    assert record.counts == Counts(80, 0, 0, 320)
    assert (record.polygons["read"], record.polygons["dropped"]) == (1, 0)
    with pytest.raises(PolygonError, match=r"a1_output.tif: .*holds 1 lines and no polygons"):
        evaluate_masks(*arguments)


def test_the_void_of_a_mask_counts_nowhere_under_polygons_either(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    shutil.rmtree(labels)
    write_vector(labels / "austin1.geojson", shapely.box(2, 0, 4, 2))
    void = FOUND.copy()
    void[0, 1] = void[1, 2] = 255
    write_void(found / "austin1_output.tif", void)
    assert evaluate_masks(found, labels)[0].counts == Counts(3, 0, 0, 3)


def test_polygons_are_for_masks_that_lie_on_the_ground(tmp_path):
    write_vector(tmp_path / "labels" / "a1.geojson", shapely.box(2, 0, 4, 2))
    (tmp_path / "found").mkdir()
    nowhere = {"crs": None, "transform": Affine.identity()}
    write_image(tmp_path / "found" / "a1.tif", FOUND[..., None], **nowhere)
    with pytest.raises(PolygonError, match=r"a1\.tif: .*no CRS or no affine"):
        evaluate_masks(tmp_path / "found", tmp_path / "labels")


def test_vector_files_without_partner_are_all_named(tmp_path):
    found, labels = folders(tmp_path, "austin1", "austin2")
    shutil.rmtree(labels)
    for name in ("austin2", "vienna1"):
        write_vector(labels / f"{name}.geojson", shapely.box(2, 0, 4, 2))
    with pytest.raises(DatasetError, match="without label: austin1.*without image: vienna1"):
        evaluate_masks(found, labels)


def test_rasters_in_the_folder_are_the_labels(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    (labels / "austin1.geojson").write_text(json.dumps({"type": "nonsense"}))
    assert evaluate_masks(found, labels)[0].counts == COUNTS
    for options in ({"where": "kind = 'road'"}, {"buffer_m": 2.0}):
        with pytest.raises(DatasetError, match="labels holds label rasters"):
            evaluate_masks(found, labels, **options)


def test_one_raster_is_no_label_of_all_masks(tmp_path):
    found, labels = folders(tmp_path, "austin1")
    with pytest.raises(DatasetError, match=r"austin1\.tif is one raster; give the folder"):
        evaluate_masks(found, labels / "austin1.tif")


def test_real_polygons_give_the_masks_that_were_made_of_them(tmp_path, real_data):
    folder = real_data / "oam_polygons" / "z19" / "polygons"
    for path in folder.iterdir():
        gt = real_data / "aerial_buildings" / "train" / "gt" / f"{path.stem}.tif"
        shutil.copy(gt, tmp_path / f"{path.stem}_output.tif")
    records = evaluate_masks(tmp_path, folder, measures=MaskMeasures(1))
    assert [(record.name, record.place) for record in records] == [
        (f"{place}{number}", place)
        for place in ("nairobi", "nepal", "philippines", "zanzibar")
        for number in (1, 2)
    ]
    for record in records:
        assert record.counts.true_positive > 1000
        assert record.counts.metrics()["iou"] > 0.999
        assert record.relaxed.metrics()["quality"] == 1
