"""Masks against each other: counts of common pixels, agreement, grids that differ."""

import json

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jointnet import mask_comparison
from jointnet.mask_comparison import (
    ComparedScene,
    agreement,
    compare_masks,
    count_patterns,
    describe_comparison,
    mask_sets,
)
from jointnet.metrics import Counts, count
from preprocessing.errors import LabelError, RasterError
from preprocessing.tiling import VOID
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
    return compare_masks(sets, align=align), sets


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
    content = describe_comparison(compare_masks(sets, has_truth=True), sets, has_truth=True)
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
    content = describe_comparison(compare_masks(sets, has_truth=True), sets, has_truth=True)
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
    (scene,) = compare_masks(mask_sets(paths, None))
    assert scene.counts(0, 1) == count(TRUTH[1], FOUND[1])
    assert scene.notes == ("void in some masks, so left out of all (50.00%)",)


def test_all_void_is_a_case(tmp_path):
    path = write_image(tmp_path / "v.tif", np.full((2, 4, 1), 9, np.uint8), nodata=9)
    sets = mask_sets([path], write(tmp_path / "t.tif", TRUTH))
    content = describe_comparison(compare_masks(sets, has_truth=True), sets, has_truth=True)
    assert content["metrics"][0]["pixels"] == 0
    assert content["metrics"][0]["iou"] == 1


@pytest.mark.parametrize(("found", "iou"), [(0, 1), (1, 0)])
def test_empty_truth(tmp_path, found, iou):
    mask = np.full((2, 4), found, np.uint8)
    sets = mask_sets([write(tmp_path / "m.tif", mask)], write(tmp_path / "t.tif", 0 * TRUTH))
    content = describe_comparison(compare_masks(sets, has_truth=True), sets, has_truth=True)
    assert content["metrics"][0]["iou"] == iou


def test_another_size_is_refused_and_aligned(tmp_path):
    """A finer mask of the same ground: every pixel of it four times."""
    coarse = write(tmp_path / "coarse.tif", TRUTH)
    transform = Affine(0.15, 0, 500_000, 0, -0.15, 5_000_000)
    finer = write(tmp_path / "finer.tif", np.kron(FOUND, np.ones((2, 2))), transform=transform)
    sets = mask_sets([finer], coarse)
    with pytest.raises(LabelError, match=r"8 x 4 pixels, .*coarse.tif 4 x 2; .*--align"):
        compare_masks(sets, has_truth=True)
    (scene,) = compare_masks(sets, has_truth=True, align=True)
    assert scene.counts(1, 0) == count(TRUTH, FOUND)
    assert scene.notes == (
        "finer.tif: aligned by nearest neighbour (8 x 4 pixels with the 4 x 2 of coarse.tif)",
    )


def test_another_place_is_refused(tmp_path):
    here = write(tmp_path / "here.tif", TRUTH)
    apart = Affine(0.3, 0, 500_300, 0, -0.3, 5_000_000)
    sets = mask_sets([here, write(tmp_path / "there.tif", TRUTH, transform=apart)], None)
    with pytest.raises(LabelError, match="there.tif lies elsewhere .* 300 m apart"):
        compare_masks(sets)
    with pytest.raises(LabelError, match=r"there.tif and .*here.tif share no ground"):
        compare_masks(sets, align=True)


def test_alignment_needs_a_place(tmp_path):
    plain = {"crs": None, "transform": Affine.identity()}
    sets = mask_sets(
        [write(tmp_path / "a.tif", TRUTH), write(tmp_path / "b.tif", TRUTH[:1], **plain)], None
    )
    with pytest.raises(RasterError, match="cannot be aligned"):
        compare_masks(sets, align=True)
