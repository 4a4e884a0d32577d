"""Masks against each other: counts of common pixels, agreement, grids that differ."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from experiments.compare import main
from jointnet import mask_comparison
from jointnet.mask_comparison import (
    ComparedScene,
    agreement,
    compare_masks,
    count_masks,
    count_patterns,
    describe_comparison,
    mask_sets,
    mask_text,
    notes_text,
)
from jointnet.metrics import Counts, count
from preprocessing.errors import DatasetError, LabelError, OutputError, RasterError
from preprocessing.rasters import GreyMaskReader
from preprocessing.tiling import VOID, Window
from tests.helpers import write_image

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], np.uint8)
OTHER = np.array([[0, 0, 1, 1], [0, 0, 0, 0]], np.uint8)
MASKS = arrays(np.uint8, (3, 5), elements=st.sampled_from([0, 1, VOID]))


def write(path, mask, **profile):
    path.parent.mkdir(exist_ok=True)
    return write_image(path, np.where(mask == 1, 255, mask).astype(np.uint8)[..., None], **profile)


def compared(tmp_path, masks, align=False, **profile):
    """Scenes and sets of single files, written with one profile."""
    paths = [write(tmp_path / f"{n}.tif", mask, **profile) for n, mask in enumerate(masks)]
    sets = mask_sets(paths, None)
    return count_masks(sets, align=align), sets


def test_patterns_by_hand():
    void = TRUTH.copy()
    void[0, 0] = void[1, 3] = VOID
    patterns, dropped, in_some = count_patterns([TRUTH, FOUND, void])
    # Neither of them; FOUND alone; TRUTH and its copy; all three.
    assert patterns.tolist() == [2, 0, 1, 0, 0, 1, 0, 2]
    assert (dropped, in_some) == (2, 2)
    assert count_patterns([void, void])[1:] == (2, 0)


@given(MASKS, MASKS, MASKS)
def test_any_two_masks_are_counted_on_what_all_have(first, second, third):
    void = (first == VOID) | (second == VOID) | (third == VOID)
    scene = ComparedScene("a", "a", *count_patterns([first, second, third]))
    for i, j in [(0, 1), (2, 0)]:
        masks = [np.where(void, VOID, mask).astype(np.uint8) for mask in (first, second, third)]
        assert scene.counts(i, j) == count(masks[i], masks[j])


def test_ten_masks_have_their_own_bits():
    masks = [np.eye(10, dtype=np.uint8)[i] for i in range(10)]
    scene = ComparedScene("a", "a", *count_patterns(masks))
    assert scene.counts(9, 9) == Counts(1, 0, 0, 9)
    assert scene.counts(9, 8) == Counts(0, 1, 1, 8)


def test_agreement_by_hand():
    # 6 of 8 equal; by chance (4 * 4 + 4 * 4) / 64 = half of them.
    assert agreement(Counts(3, 1, 1, 3)) == {"equal": 0.75, "iou": 0.6, "kappa": 0.5}
    assert agreement(Counts(0, 4, 4, 0)) == {"equal": 0.0, "iou": 0.0, "kappa": -1.0}


@pytest.mark.parametrize("counts", [Counts(), Counts(true_negative=7), Counts(true_positive=7)])
def test_masks_of_one_kind_agree(counts):
    assert agreement(counts) == {"equal": 1.0, "iou": 1.0, "kappa": 1.0}


def test_full_against_empty_agrees_in_nothing():
    assert agreement(Counts(false_positive=9)) == {"equal": 0.0, "iou": 0.0, "kappa": 0.0}


def test_two_masks_against_a_truth_and_each_other(tmp_path):
    for name in ("austin1", "austin2", "vienna1"):
        for folder, mask in (("a", FOUND), ("b", OTHER), ("gt", TRUTH)):
            write(tmp_path / folder / f"{name}.tif", mask)
    sets = mask_sets([tmp_path / "a", tmp_path / "b"], tmp_path / "gt")
    content = describe_comparison(count_masks(sets, has_truth=True), sets, has_truth=True)
    json.dumps(content)
    rows = {(row["mask"], row["place"]): row for row in content["metrics"]}
    assert list(rows) == [(m, p) for m in "ab" for p in ("austin", "vienna", "overall")]
    assert rows["a", "overall"] | {"scenes": 3, "pixels": 24, "iou": 0.6} == rows["a", "overall"]
    assert rows["b", "austin"] | {"scenes": 2, "iou": 0.5, "recall": 0.5} == rows["b", "austin"]
    equal = [row for row in content["agreement"] if row["place"] == "overall"]
    # Of eight pixels two differ; two of four targets are shared.
    assert [(row["equal"], row["iou"]) for row in equal] == [(0.75, 0.5)]
    iou = next(row for row in content["differences"] if row["metric"] == "iou")
    assert (iou["first"], iou["second"], iou["number"]) == ("a", "b", 3)
    assert [iou[key] for key in ("value", "low", "high")] == pytest.approx([-0.1] * 3)
    assert iou["verdict"] == "too few to tell (6 needed)"
    assert [scene["name"] for scene in content["scenes"]] == ["austin1", "austin2", "vienna1"]
    assert content["scenes"][0]["metrics"]["a"]["true_positive"] == 3


def test_a_mask_and_itself(tmp_path):
    path = write(tmp_path / "a.tif", FOUND)
    sets = mask_sets([path, path], write(tmp_path / "t.tif", TRUTH))
    content = describe_comparison(count_masks(sets, has_truth=True), sets, has_truth=True)
    assert content["agreement"][0]["equal"] == content["agreement"][0]["kappa"] == 1
    assert {row["value"] for row in content["differences"]} == {0}
    assert content["differences"][0]["verdict"] == "only one with pixels: no interval"


def test_strips_count_as_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_comparison, "_CHUNK", 100)
    random = np.random.default_rng(1)
    masks = [random.integers(0, 2, (700, 40)).astype(np.uint8) for _ in range(2)]
    (scene,), _ = compared(tmp_path, masks)
    assert scene.counts(0, 1) == count(*masks)


def test_void_counts_nowhere_and_is_said(tmp_path):
    paths = [write(tmp_path / "0.tif", TRUTH)]
    gaps = np.where(FOUND == 1, 255, FOUND).astype(np.uint8)
    gaps[0] = 7
    paths.append(write_image(tmp_path / "1.tif", gaps[..., None], nodata=7))
    (scene,) = count_masks(mask_sets(paths, None))
    assert scene.counts(0, 1) == count(TRUTH[1], FOUND[1])
    assert scene.notes == ("void in some masks, so left out of all (50.00%)",)


def test_all_void_is_a_case(tmp_path):
    path = write_image(tmp_path / "v.tif", np.full((2, 4, 1), 9, np.uint8), nodata=9)
    sets = mask_sets([path], write(tmp_path / "t.tif", TRUTH))
    content = describe_comparison(count_masks(sets, has_truth=True), sets, has_truth=True)
    assert content["metrics"][0]["pixels"] == 0
    assert content["metrics"][0]["iou"] == 1


@pytest.mark.parametrize(("found", "iou"), [(0, 1), (1, 0)])
def test_empty_truth(tmp_path, found, iou):
    mask = np.full((2, 4), found, np.uint8)
    sets = mask_sets([write(tmp_path / "m.tif", mask)], write(tmp_path / "t.tif", 0 * TRUTH))
    content = describe_comparison(count_masks(sets, has_truth=True), sets, has_truth=True)
    assert content["metrics"][0]["iou"] == iou


def test_another_size_is_refused_and_aligned(tmp_path):
    """A finer mask of the same ground: every pixel of it four times."""
    coarse = write(tmp_path / "coarse.tif", TRUTH)
    transform = Affine(0.15, 0, 500_000, 0, -0.15, 5_000_000)
    finer = write(tmp_path / "finer.tif", np.kron(FOUND, np.ones((2, 2))), transform=transform)
    sets = mask_sets([finer], coarse)
    with pytest.raises(LabelError, match=r"8 x 4 pixels, .*coarse.tif 4 x 2; .*--align"):
        count_masks(sets, has_truth=True)
    (scene,) = count_masks(sets, has_truth=True, align=True)
    assert scene.counts(1, 0) == count(TRUTH, FOUND)
    assert scene.notes == (
        "finer.tif: aligned by nearest neighbour (8 x 4 pixels with the 4 x 2 of coarse.tif)",
    )


def test_another_place_is_refused(tmp_path):
    here = write(tmp_path / "here.tif", TRUTH)
    apart = Affine(0.3, 0, 500_300, 0, -0.3, 5_000_000)
    sets = mask_sets([here, write(tmp_path / "there.tif", TRUTH, transform=apart)], None)
    with pytest.raises(LabelError, match="there.tif lies elsewhere .* 300 m apart"):
        count_masks(sets)
    with pytest.raises(LabelError, match=r"there.tif and .*here.tif share no ground"):
        count_masks(sets, align=True)


def test_alignment_needs_a_place(tmp_path):
    plain = {"crs": None, "transform": Affine.identity()}
    sets = mask_sets(
        [write(tmp_path / "a.tif", TRUTH), write(tmp_path / "b.tif", TRUTH[:1], **plain)], None
    )
    with pytest.raises(RasterError, match="cannot be aligned"):
        count_masks(sets, align=True)


# Pairing


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names_in(files: dict[str, Path]) -> dict[str, str]:
    return {scene: file.name for scene, file in files.items()}


def test_folders_pair_by_stem_with_and_without_our_suffix(tmp_path):
    ours = touch(tmp_path / "ours", "b2_output.tif", "a1_output.tif", "a1_overlay.png")
    theirs = touch(tmp_path / "theirs", "a1.png", "b2.jpg")
    sets = mask_sets([ours], theirs)
    assert [one.name for one in sets] == ["ours", "theirs"]
    assert names_in(sets[0].files) == {"a1": "a1_output.tif", "b2": "b2_output.tif"}
    assert names_in(sets[1].files) == {"a1": "a1.png", "b2": "b2.jpg"}


def test_files_alone_are_one_scene_whatever_their_names(tmp_path):
    touch(tmp_path, "a_output.tif", "b.png", "c.jpg")
    sets = mask_sets([tmp_path / "a_output.tif", tmp_path / "b.png"], tmp_path / "c.jpg")
    assert [names_in(one.files) for one in sets] == [
        {"a": "a_output.tif"},
        {"a": "b.png"},
        {"a": "c.jpg"},
    ]


def test_a_file_takes_its_partner_of_a_folder(tmp_path):
    truth = touch(tmp_path / "gt", "a.tif", "b.tif")
    touch(tmp_path, "b_output.tif")
    sets = mask_sets([tmp_path / "b_output.tif"], truth)
    assert [names_in(one.files) for one in sets] == [{"b": "b_output.tif"}, {"b": "b.tif"}]
    touch(tmp_path, "c.tif")
    with pytest.raises(DatasetError, match="gt lacks 1 of 1 masks: c$"):
        mask_sets([tmp_path / "c.tif"], truth)


def test_all_that_is_missing_is_named(tmp_path):
    a = touch(tmp_path / "a", *(f"town{number}.tif" for number in range(1, 9)))
    b = touch(tmp_path / "b", "town8.tif", "other.tif")
    with pytest.raises(DatasetError) as error:
        mask_sets([a, b], None)
    assert str(error.value).endswith(
        f"{a} lacks 1 of 9 masks: other; "
        f"{b} lacks 7 of 9 masks: town1, town2, town3, town4, town5, ..."
    )


@pytest.mark.parametrize(
    ("files", "given", "words"),
    [
        (["a/x.tif"], ["a"], "got 1 input"),
        (["a/x.tif"], ["a", "b"], "b: no such file or folder"),
        (["a/x.tif", "b/x.txt"], ["a", "b"], "b holds no masks"),
        (["a/x.tif", "x.geojson"], ["a", "x.geojson"], "evaluate.py --labels takes polygons"),
        (["a/x.tif", "b/x.tif", "b/x.png"], ["a", "b"], "several masks of one name: x.png, x.tif"),
    ],
)
def test_what_is_refused(tmp_path, files, given, words):
    for file in files:
        touch((tmp_path / file).parent, Path(file).name)
    with pytest.raises(DatasetError, match=words):
        mask_sets([tmp_path / name for name in given], None)


# Files and text


def folders(tmp_path: Path, *names: str) -> tuple[Path, Path, Path]:
    """Masks a and b, and a truth, of so many scenes; b is the truth itself."""
    for name in names:
        for folder, mask in (("a", FOUND), ("b", TRUTH), ("gt", TRUTH)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{name}.tif", mask[..., None] * np.uint8(255))
    return tmp_path / "a", tmp_path / "b", tmp_path / "gt"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_tables_and_maps(tmp_path):
    a, b, truth = folders(tmp_path, "x1", "y1")
    content = compare_masks([a, b], truth, output=tmp_path / "out")
    assert files_in(tmp_path / "out") == {
        "comparison.json",
        "comparison.csv",
        *(f"errors/{mask}/{scene}.tif" for mask in "ab" for scene in ("x1", "y1")),
    }
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == content
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["table"] for row in rows} == {"metrics", "agreement", "differences"}
    overall = [
        r for r in rows if (r["table"], r["mask"], r["place"]) == ("metrics", "a", "overall")
    ]
    assert [(row["iou"], row["true_positive"]) for row in overall] == [("0.6", "6")]
    with rasterio.open(tmp_path / "out" / "errors" / "a" / "x1.tif") as file:
        assert file.read(1).tolist() == [[0, 2, 3, 3], [0, 0, 1, 3]]
        assert file.crs.to_epsg() == 32633


def test_without_a_truth_the_first_takes_its_part(tmp_path):
    a, b, _ = folders(tmp_path, "x1")
    content = compare_masks([a, b], output=tmp_path / "out")
    assert "metrics" not in content
    with rasterio.open(tmp_path / "out" / "differences" / "b" / "x1.tif") as file:
        assert file.read(1).tolist() == [[0, 1, 3, 3], [0, 0, 2, 3]]


def test_nothing_is_written_without_an_output_and_no_maps_if_not_wanted(tmp_path):
    a, b, truth = folders(tmp_path, "x1")
    before = files_in(tmp_path)
    content = compare_masks([a, b], truth)
    assert files_in(tmp_path) == before
    assert compare_masks([a, b], truth, output=tmp_path / "out", maps=False) == content
    assert files_in(tmp_path / "out") == {"comparison.json", "comparison.csv"}


@pytest.mark.parametrize("name", ["comparison.csv", "errors/b/x1.tif"])
def test_what_exists_stays_unless_it_shall_not(tmp_path, name):
    a, b, truth = folders(tmp_path, "x1")
    existing = tmp_path / "out" / name
    existing.parent.mkdir(parents=True)
    existing.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        compare_masks([a, b], truth, output=tmp_path / "out")
    assert files_in(tmp_path / "out") == {name}
    assert existing.read_text() == "mine"
    compare_masks([a, b], truth, output=tmp_path / "out", overwrite=True)
    assert existing.read_bytes() != b"mine"


def test_a_failure_at_the_last_scene_leaves_nothing(tmp_path):
    a, b, truth = folders(tmp_path, "x1", "y1")
    write_image(b / "y1.tif", TRUTH[:1, :, None])
    with pytest.raises(LabelError, match="4 x 1 pixels"):
        compare_masks([a, b], truth, output=tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == []


def test_text_says_what_was_found(tmp_path):
    a, b, truth = folders(tmp_path, "x1", "x2", "y1")
    text = mask_text(compare_masks([a, b], truth))
    assert "a, b   overall       3      24  0.750  0.600  0.500" in text
    assert "a     x             2      16  0.600" in text
    assert (
        "b - a              too few to tell (6 needed)  +0.400  +0.400 to +0.400  3 tiles" in text
    )


RESULTS = Path(__file__).resolve().parents[1] / "results"


def test_what_was_done_to_many_is_one_line():
    scenes = [{"notes": ["m: greyed (3)"]}, {"notes": ["m: greyed (5)", "n: turned (9)"]}, {}]
    assert notes_text(scenes) == "m: greyed (2 of 3 scenes)\nn: turned (9)"


# The command


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_masks_against_a_truth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b, truth = folders(tmp_path, "x1", "y1")
    done = run(a, b, "--truth", truth, "--no-maps")
    assert done.exit_code == 0, done.output
    assert f"Against {truth}" in done.output
    assert done.output.endswith(f"written to {Path('results', 'comparison')}\n")
    assert files_in(tmp_path / "results") == {
        "comparison/comparison.json",
        "comparison/comparison.csv",
    }
    assert run(a, b, "--truth", truth, "--no-maps").exit_code == 2
    assert run(a, b, "--truth", truth, "--no-maps", "--overwrite").exit_code == 0


def test_runs_are_printed_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*sorted(RESULTS.iterdir()))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("Skipped, no runs: README.md, benchmark")
    assert any(line.split()[:2] == ["network.class", "JointNet"] for line in lines)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "Missing argument"),
        (["gone"], "got 1 input(s)"),
        (["gone", "gone"], "no such file or folder"),
        ([RESULTS / "open_roads", "--truth", "gone"], "--truth and --align are for masks"),
        ([RESULTS / "open_roads", "--align"], "--truth and --align are for masks"),
    ],
)
def test_errors_are_one_line(words, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2
    assert error in done.output
    assert len(done.output.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_a_real_mask_and_itself_a_pixel_aside(real_data, tmp_path):
    """What one pixel costs: figures taken with numpy from the whole arrays."""
    jpeg = real_data / "full_tile_masks" / "bellingham15_output.jpg"
    with GreyMaskReader(jpeg) as reader:
        mask = reader.read(Window(0, 0, 5000, 5000))
    paths = [
        write_image(tmp_path / name, cut[..., None])
        for name, cut in (("here.tif", mask[:, :-1]), ("shifted.tif", mask[:, 1:]))
    ]
    content = compare_masks(paths)
    here, there = mask[:, :-1] == 1, mask[:, 1:] == 1
    found = content["agreement"][0]
    assert found["pixels"] == 4999 * 5000
    assert found["equal"] == np.mean(here == there)
    assert found["iou"] == np.sum(here & there) / np.sum(here | there)
    assert round(found["equal"], 3) == 0.995
    assert round(found["iou"], 3) == 0.939
    # The JPEG itself is as good as its thresholded copy.
    whole = write_image(tmp_path / "whole.tif", mask[..., None])
    content = compare_masks([jpeg], whole)
    assert content["metrics"][0]["iou"] == 1
    assert "thresholded at 128" in content["scenes"][0]["notes"][0]
