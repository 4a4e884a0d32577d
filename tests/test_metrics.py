"""Counts, relaxed counts, patches and differences, and what is divided from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jointnet.metrics import (
    BUFFER_PX,
    METRICS,
    Counts,
    Difference,
    PatchCounts,
    PatchGrid,
    RelaxedCounts,
    check_masks,
    count,
    count_relaxed,
    near,
    paired_difference,
    ratios,
    threshold_mask,
    weights,
)
from preprocessing.patches import load_pair
from preprocessing.rasters import read_label
from preprocessing.scenes import Scene

masks = arrays(np.uint8, 30, elements=st.sampled_from([0, 1, 255]))


def test_counts_by_hand():
    truth = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 255, 255]], np.uint8)
    prediction = np.array([[1, 1, 0, 1, 0], [0, 0, 255, 1, 255]], np.uint8)
    counts = count(truth, prediction)
    assert counts == Counts(true_positive=2, false_positive=1, false_negative=1, true_negative=3)
    assert counts.pixels == 7
    assert counts.metrics() == {
        "accuracy": 5 / 7,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 4 / 6,
        "iou": 2 / 4,
    }


@settings(deadline=None)
@given(masks, masks)
def test_metrics_are_those_of_the_sets_of_pixels(truth, prediction):
    valid = {i for i in range(30) if truth[i] != 255 and prediction[i] != 255}
    actual = {i for i in valid if truth[i] == 1}
    positive = {i for i in valid if prediction[i] == 1}
    metrics = count(truth, prediction).metrics()
    assert all(0 <= value <= 1 for value in metrics.values())
    if actual and positive:
        both = len(actual & positive)
        assert metrics["iou"] == both / len(actual | positive)
        assert metrics["precision"] == both / len(positive)
        assert metrics["recall"] == both / len(actual)
        f1 = 2 * both / (len(actual) + len(positive))
        assert metrics["f1"] == pytest.approx(f1)
        # Dice and IoU are two forms of one measure.
        assert metrics["iou"] == pytest.approx(f1 / (2 - f1))
    if valid:
        assert metrics["accuracy"] == pytest.approx(1 - len(actual ^ positive) / len(valid))


@settings(deadline=None)
@given(masks, masks, st.integers(0, 30))
def test_counts_of_parts_add_up_to_those_of_the_whole(truth, prediction, at):
    parts = count(truth[:at], prediction[:at]) + count(truth[at:], prediction[at:])
    assert parts == count(truth, prediction)
    assert sum([parts], Counts()) == parts


@settings(deadline=None)
@given(masks, masks)
def test_truth_and_prediction_exchange_precision_and_recall(truth, prediction):
    one, other = (count(*pair).metrics() for pair in ((truth, prediction), (prediction, truth)))
    assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])
    assert (one["iou"], one["f1"]) == (other["iou"], other["f1"])


def test_pooled_counts_are_not_the_mean_over_tiles():
    pooled = (Counts(true_positive=1) + Counts(90, 10, 0, 0)).metrics()["iou"]
    assert pooled == 91 / 101
    assert pooled != (1 + 0.9) / 2


def test_counts_stay_exact_integers_beyond_two_to_the_53():
    huge = Counts(true_positive=2**53) + Counts(true_positive=1)
    assert huge.true_positive == 2**53 + 1
    assert type(count(np.ones(3, np.uint8), np.ones(3, np.uint8)).true_positive) is int


@pytest.mark.parametrize(
    ("counts", "accuracy", "others"),
    [
        # Neither truth nor prediction has target: they agree.
        (Counts(), 1, 1),
        (Counts(true_negative=5), 1, 1),
        # One of them has.
        (Counts(false_positive=2, true_negative=2), 0.5, 0),
        (Counts(false_negative=2, true_negative=2), 0.5, 0),
        (Counts(true_positive=3), 1, 1),
    ],
)
def test_empty_classes_are_defined(counts, accuracy, others):
    metrics = counts.metrics()
    assert metrics.pop("accuracy") == accuracy
    assert set(metrics.values()) == {others}


def test_all_void_counts_nothing():
    void = np.full((2, 3), 255, np.uint8)
    assert count(void, np.ones((2, 3), np.uint8)) == Counts()
    assert count(np.ones((2, 3), np.uint8), void) == Counts()


def test_boolean_masks_count_as_well():
    truth, prediction = np.array([True, True, False]), np.array([True, False, False])
    assert count(truth, prediction) == Counts(1, 0, 1, 1)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"one shape; got truth \(2, 3\), prediction \(3, 2\)"),
        (np.array([0, 2]), np.array([0, 1]), "truth must hold 0, 1 and 255 only; got 2"),
        (np.array([0, 0]), np.array([0, 2]), "prediction must hold 0, 1 and 255 only; got 2"),
        (np.array([0, 1]), np.array([0.7, 1]), "prediction must hold .*; got 0.7"),
    ],
)
def test_what_cannot_be_counted_is_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        count(truth, prediction)


def test_any_number_of_masks_is_checked_by_name():
    mask = np.array([[0, 1, 255]], np.uint8)
    check_masks()
    check_masks(one=mask)
    check_masks(one=mask, two=mask > 0, three=mask.astype(float))
    with pytest.raises(
        ValueError, match=r"one shape; got one \(1, 3\), two \(1, 3\), three \(3, 1\)"
    ):
        check_masks(one=mask, two=mask, three=mask.T)
    with pytest.raises(ValueError, match="two must hold 0, 1 and 255 only; got 7"):
        check_masks(one=mask, two=mask // 2 + 7)
    with pytest.raises(ValueError, match="one must hold .* got nan"):
        check_masks(one=mask * np.nan)


def test_threshold_by_hand():
    probabilities = np.array([[0, 0.5, 0.6], [0.61, 1, np.nan]], np.float32)
    mask = threshold_mask(probabilities, 0.6)
    np.testing.assert_array_equal(mask, [[0, 0, 1], [1, 1, 255]])
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(threshold_mask(probabilities, 0), [[1, 1, 1], [1, 1, 255]])


def test_a_thresholded_map_counts_its_void_nowhere():
    probabilities = np.array([0.9, 0.1, np.nan, np.nan], np.float32)
    truth = np.array([1, 1, 1, 0], np.uint8)
    assert count(truth, threshold_mask(probabilities, 0.5)) == Counts(1, 0, 1, 0)


SHAPE = (9, 11)
relaxed_masks = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 0, 0, 1, 255]))
targets = arrays(np.bool_, SHAPE, elements=st.sampled_from([False] * 9 + [True]))


def line(column: int, height: int = 12, width: int = 30) -> np.ndarray:
    """A road one pixel wide from top to bottom."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, column] = 1
    return mask


def measures(*arguments) -> tuple[float, ...]:
    return tuple(count_relaxed(*arguments).metrics().values())


def near_by_definition(target: np.ndarray, buffer_px: int) -> np.ndarray:
    """Each pixel against each pixel of target, in integers."""
    rows, columns = np.indices(target.shape)
    found = np.zeros(target.shape, bool)
    for row, column in np.argwhere(target):
        found |= (rows - row) ** 2 + (columns - column) ** 2 <= buffer_px**2
    return found


# By eye


@pytest.mark.parametrize("shift", [-3, -1, 0, 1, 2, 3])
def test_a_line_up_to_three_pixels_off_is_matched_whole(shift):
    truth, prediction = line(10), line(10 + shift)
    assert count_relaxed(truth, prediction) == RelaxedCounts(12, 12, 12, 12)
    assert measures(truth, prediction) == (1, 1, 1)
    assert count(truth, prediction).metrics()["iou"] == (shift == 0)


@pytest.mark.parametrize("shift", [-4, 4, 19])
def test_a_line_four_pixels_off_is_not_matched_at_all(shift):
    assert count_relaxed(line(10), line(10 + shift)) == RelaxedCounts(0, 12, 0, 12)
    assert measures(line(10), line(10 + shift)) == (0, 0, 0)


def test_half_a_road_found_and_a_false_road():
    truth = line(10)
    prediction = np.maximum(line(12), line(25))
    prediction[5:, 12] = 0
    # Rows 0 to 4 are found outright, row 5 is (2, 1) and row 6 (2, 2) off; row 7 is (2, 3) off.
    counts = count_relaxed(truth, prediction)
    assert counts == RelaxedCounts(7, 12, 5, 17)
    completeness, correctness = 7 / 12, 5 / 17
    assert counts.metrics() == {
        "completeness": completeness,
        "correctness": correctness,
        "quality": completeness
        * correctness
        / (completeness + correctness - completeness * correctness),
    }


@pytest.mark.parametrize(
    ("rows", "columns", "matched"),
    [
        (0, 3, True),
        (3, 0, True),
        (2, 2, True),  # sqrt(8) = 2.83
        (1, 3, False),  # sqrt(10) = 3.16
        (3, 1, False),
        (3, 3, False),
        (0, 4, False),
    ],
)
def test_three_pixels_are_euclidean_and_inclusive(rows, columns, matched):
    truth, prediction = np.zeros((2, 9, 9), np.uint8)
    truth[4, 4] = prediction[4 + rows, 4 + columns] = 1
    assert BUFFER_PX == 3
    assert count_relaxed(truth, prediction) == RelaxedCounts(matched, 1, matched, 1)


def test_another_buffer():
    assert measures(line(10), line(14), 4) == (1, 1, 1)
    assert measures(line(10), line(13), 2) == (0, 0, 0)


# Distances


@settings(deadline=None, max_examples=60)
@given(targets, st.integers(0, 14))
def test_near_is_the_distance_to_the_nearest_target(target, buffer_px):
    np.testing.assert_array_equal(near(target, buffer_px), near_by_definition(target, buffer_px))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 40_000)])
def test_near_takes_any_size(shape):
    assert near(np.zeros(shape, bool), 3).shape == shape
    assert not near(np.zeros(shape, bool), 3).any()
    assert near(np.ones(shape, bool), 3).all()


def test_nothing_comes_in_from_the_other_side():
    target = np.zeros((3, 50_000), bool)
    target[1, -1] = True
    assert np.argwhere(near(target, 2)[1]).ravel().tolist() == [49_997, 49_998, 49_999]


# Counts


@settings(deadline=None, max_examples=60)
@given(relaxed_masks, relaxed_masks, relaxed_masks, st.integers(0, 5))
def test_counts_are_those_of_the_definition(truth, prediction, label, buffer_px):
    # As a scene has it: the truth is the label, but void where there is no imagery.
    truth = np.where(truth == 255, 255, label).astype(np.uint8)
    predicted = {(r, c) for r, c in np.argwhere(prediction == 1).tolist()}
    true = {(r, c) for r, c in np.argwhere(label == 1).tolist()}

    def reach(pixel, others):
        row, column = pixel
        return any((row - r) ** 2 + (column - c) ** 2 <= buffer_px**2 for r, c in others)

    valid = (truth != 255) & (prediction != 255)
    counted_true = [pixel for pixel in true if valid[pixel]]
    counted_predicted = [pixel for pixel in predicted if valid[pixel]]
    assert count_relaxed(truth, prediction, buffer_px, label) == RelaxedCounts(
        sum(reach(pixel, predicted) for pixel in counted_true),
        len(counted_true),
        sum(reach(pixel, true) for pixel in counted_predicted),
        len(counted_predicted),
    )


@settings(deadline=None)
@given(relaxed_masks, relaxed_masks)
def test_without_a_buffer_they_are_recall_precision_and_iou(truth, prediction):
    relaxed, strict = count_relaxed(truth, prediction, 0), count(truth, prediction)
    assert relaxed.true_found == relaxed.predicted_right == strict.true_positive
    plain = strict.metrics()
    assert relaxed.metrics() == pytest.approx(
        {
            "completeness": plain["recall"],
            "correctness": plain["precision"],
            "quality": plain["iou"],
        }
    )


@settings(deadline=None)
@given(relaxed_masks, relaxed_masks, st.integers(0, 5))
def test_truth_and_prediction_exchange_completeness_and_correctness(truth, prediction, buffer_px):
    one = count_relaxed(truth, prediction, buffer_px)
    other = count_relaxed(prediction, truth, buffer_px)
    assert (one.true_found, one.true_total) == (other.predicted_right, other.predicted_total)
    assert one.metrics()["quality"] == pytest.approx(other.metrics()["quality"])


@settings(deadline=None)
@given(relaxed_masks, relaxed_masks, st.integers(0, 4), st.integers(0, SHAPE[0]))
def test_strips_with_a_halo_of_the_buffer_add_up_to_the_whole(truth, prediction, buffer_px, at):
    total = RelaxedCounts()
    for first, end in ((0, at), (at, SHAPE[0])):
        strip = slice(max(first - buffer_px, 0), min(end + buffer_px, SHAPE[0]))
        counted = np.full_like(truth, 255)
        counted[first:end] = truth[first:end]
        total += count_relaxed(counted[strip], prediction[strip], buffer_px, truth[strip])
    assert total == count_relaxed(truth, prediction, buffer_px)


def test_counts_are_pooled_and_divided_once():
    pooled = RelaxedCounts(1, 1, 1, 1) + RelaxedCounts(0, 99, 0, 9)
    assert pooled == RelaxedCounts(1, 100, 1, 10)
    assert pooled.metrics()["completeness"] == 1 / 100
    assert pooled.metrics()["correctness"] == 1 / 10
    assert sum([pooled], RelaxedCounts()) == pooled


def test_counts_are_integers_of_any_size():
    counts = count_relaxed(line(3), line(4))
    assert {type(value) for value in vars(counts).values()} == {int}
    assert (RelaxedCounts(2**53) + RelaxedCounts(1)).true_found == 2**53 + 1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Neither has target: they agree.
        (RelaxedCounts(), (1, 1, 1)),
        # One of them has.
        (RelaxedCounts(0, 5, 0, 0), (0, 0, 0)),
        (RelaxedCounts(0, 0, 0, 5), (0, 0, 0)),
        # All that is predicted lies beside a road that runs in the void.
        (RelaxedCounts(0, 0, 5, 5), (1, 1, 1)),
        (RelaxedCounts(0, 0, 4, 5), (0, 4 / 5, 0)),
        (RelaxedCounts(5, 5, 0, 0), (1, 1, 1)),
        (RelaxedCounts(5, 5, 7, 7), (1, 1, 1)),
        (RelaxedCounts(5, 5, 1, 4), (1, 1 / 4, 1 / 4)),
        (RelaxedCounts(1, 4, 5, 5), (1 / 4, 1, 1 / 4)),
        (RelaxedCounts(1, 2, 3, 6), (1 / 2, 1 / 2, 1 / 3)),
        (RelaxedCounts(0, 2, 0, 6), (0, 0, 0)),
    ],
)
def test_special_cases_of_the_measures(counts, expected):
    assert tuple(counts.metrics().values()) == pytest.approx(expected)


# Void


def test_void_is_left_out_after_the_distances():
    """A road on the last valid column but one; the map draws it two pixels on, in the void."""
    label, prediction = line(20), line(18)
    truth = label.copy()
    truth[:, 19:] = 255
    assert count_relaxed(truth, prediction, 3, label) == RelaxedCounts(0, 0, 12, 12)
    # Void put in before would make a right prediction wrong.
    assert count_relaxed(truth, prediction, 3) == RelaxedCounts(0, 0, 0, 12)
    # Four pixels off it is wrong either way.
    assert count_relaxed(truth, line(16), 3, label) == RelaxedCounts(0, 0, 0, 12)


def test_a_road_at_the_border_is_found_by_a_prediction_in_the_void():
    truth, prediction = line(18), line(20)
    truth[:, 19:] = 255
    assert count_relaxed(truth, prediction) == RelaxedCounts(12, 12, 0, 0)


def test_nothing_is_predicted_where_the_prediction_is_void():
    truth, prediction = line(18), line(20)
    prediction[:, 19:] = 255
    assert count_relaxed(truth, prediction) == RelaxedCounts(0, 12, 0, 0)
    # Nor does a road count there.
    assert count_relaxed(line(25), prediction) == RelaxedCounts()


def test_all_void_and_empty_masks_count_nothing():
    void, road = np.full((6, 6), 255, np.uint8), np.ones((6, 6), np.uint8)
    assert count_relaxed(void, road) == count_relaxed(road, void) == RelaxedCounts()
    assert count_relaxed(void, road, 3, road) == RelaxedCounts()
    assert count_relaxed(*np.zeros((2, 0, 6), np.uint8)) == RelaxedCounts()


def test_boolean_masks_have_relaxed_counts_as_well():
    assert count_relaxed(line(3) > 0, line(5) > 0) == RelaxedCounts(12, 12, 12, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((line(3), line(3).T), r"got truth \(12, 30\), prediction \(30, 12\), label \(12, 30\)"),
        ((line(3), line(3), 3, line(3)[1:]), r"one shape; .* label \(11, 30\)"),
        ((line(3) * 2, line(3)), "truth must hold 0, 1 and 255 only; got 2"),
        ((line(3), line(3) * 0.7), "prediction must hold 0, 1 and 255 only; got 0.7"),
        ((line(3), line(3), 3, line(3) * 9), "label must hold 0, 1 and 255 only; got 9"),
        ((line(3)[0], line(3)[0]), r"\(height, width\) and .* got \(30,\) and 3"),
        ((line(3), line(3), -1), "0 pixels or more; .* -1"),
    ],
)
def test_what_has_no_relaxed_counts_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        count_relaxed(*arguments)


# Real maps


def tiles(real_data) -> list[Scene]:
    folder = real_data / "massachusetts_roads" / "valid"
    fields = {"place": "", "index": None, "split": "validation", "label_kind": "raster"}
    return [
        Scene(path.stem, image=folder / "sat" / path.name, label=path, white_border=True, **fields)
        for path in sorted((folder / "map").iterdir())
    ]


def shifted_right(mask: np.ndarray, pixels: int) -> np.ndarray:
    shifted = np.zeros_like(mask)
    shifted[:, pixels:] = mask[:, :-pixels]
    return shifted


def test_a_real_map_two_pixels_off_is_complete_and_correct(real_data):
    total, strict = RelaxedCounts(), []
    for scene in tiles(real_data):
        label = read_label(scene.label)
        prediction = shifted_right(label, 2)
        total += count_relaxed(label, prediction)
        strict.append(count(label, prediction).metrics()["iou"])
        # All of it comes from two pixels to the left.
        assert count_relaxed(label, prediction).metrics()["correctness"] == 1
    assert 0.999 < total.metrics()["completeness"] <= 1
    assert total.metrics()["quality"] > 0.999
    assert max(strict) < 0.8


def test_a_real_margin_without_imagery_makes_no_prediction_wrong(real_data):
    """The prediction is void in the margin, as the image is; the map goes on there."""
    honoured, put_in_before = RelaxedCounts(), RelaxedCounts()
    for scene in tiles(real_data):
        _, label, valid, _ = load_pair(scene, 3)
        truth = np.where(valid, label, np.uint8(255))
        prediction = np.where(valid, shifted_right(label, 3), np.uint8(255))
        honoured += count_relaxed(truth, prediction, 3, label)
        put_in_before += count_relaxed(truth, prediction, 3)
    assert 0 < honoured.true_total == put_in_before.true_total
    assert honoured.metrics()["correctness"] == 1
    assert honoured.predicted_right > put_in_before.predicted_right


def by_hand(truth, prediction, patch, share) -> PatchCounts:
    """As BuildFormer's script does it: pad by the mirror image, cut, keep, add up."""
    pads = []
    for length in truth.shape:
        padding = -length % patch if length > patch else 0
        pads.append((padding // 2, padding - padding // 2))
    truth, prediction = (np.pad(mask, pads, mode="reflect") for mask in (truth, prediction))
    kept, patches, counts = 0, 0, Counts()
    for row in range(0, truth.shape[0], patch):
        for column in range(0, truth.shape[1], patch):
            part = slice(row, row + patch), slice(column, column + patch)
            valid = (truth[part] != 255) & (prediction[part] != 255)
            patches += bool(valid.any())
            if valid.any() and (truth[part][valid] == 1).mean() > share:
                kept += 1
                counts += count(truth[part], prediction[part])
    return PatchCounts(kept, patches, counts)


def test_a_tile_of_inria_gets_ten_patches_a_side_with_60_pixels_mirrored():
    counted = weights(5000)
    assert counted.shape == (10, 5000)
    assert counted.sum(axis=1).tolist() == [512] * 10
    # The edge itself is not mirrored; the pixel beside it counts twice.
    assert counted[0, :62].tolist() == [1] + [2] * 60 + [1]
    assert counted[9, -62:].tolist() == [1] + [2] * 60 + [1]
    assert counted[0].nonzero()[0][-1] == 451
    assert counted[4].nonzero()[0].tolist() == list(range(4 * 512 - 60, 5 * 512 - 60))


@pytest.mark.parametrize("length", [1, 300, 512])
def test_what_is_not_larger_than_a_patch_is_one_patch_as_it_is(length):
    assert weights(length).tolist() == [[1] * length]


def test_whole_patches_are_not_mirrored():
    assert weights(4, 2).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_an_odd_padding_is_longer_at_the_end():
    # abc de[d]: at the end alone, where one pixel is needed ...
    assert weights(5, 3).tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 2, 1]]
    # ... and of three pixels one stands before, two behind: [b]abc de[dc].
    assert weights(5, 4).tolist() == [[1, 2, 1, 0, 0], [0, 0, 1, 2, 1]]


def test_the_filter_keeps_patches_with_more_than_the_share():
    truth = np.zeros((20, 40), np.uint8)
    truth[0] = truth[1, 20] = 1
    grid = PatchGrid(20, 40, 20)
    grid.add(0, truth, np.zeros_like(truth))
    # 20 of 400 pixels are 5 % exactly, 21 are more.
    assert grid.counts() == PatchCounts(1, 2, Counts(0, 0, 21, 379))
    assert grid.counts(0.0) == PatchCounts(2, 2, Counts(0, 0, 41, 759))
    assert grid.counts(0.9) == PatchCounts(0, 2, Counts())


def test_the_share_is_one_of_valid_pixels_and_void_patches_are_none():
    truth = np.full((10, 20), 255, np.uint8)
    truth[:2, :10] = 0
    truth[0, :2] = 1
    grid = PatchGrid(10, 20, 10)
    grid.add(0, truth, np.ones_like(truth))
    assert grid.counts() == PatchCounts(1, 1, Counts(2, 18, 0, 0))
    empty = PatchGrid(10, 20, 10)
    empty.add(0, np.full((10, 20), 255, np.uint8), truth)
    assert empty.counts() == PatchCounts()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(2, 9), st.integers(1, 30), st.integers(0)
)
def test_strips_give_what_padding_and_cutting_gives(height, width, patch, rows, seed):
    random = np.random.default_rng(seed)
    truth, prediction = random.choice([0, 1, 255], (2, height, width), p=[0.7, 0.2, 0.1]).astype(
        np.uint8
    )
    grid = PatchGrid(height, width, patch)
    for row in range(0, height, rows):
        grid.add(row, truth[row : row + rows], prediction[row : row + rows])
    assert grid.counts(0.2) == by_hand(truth, prediction, patch, 0.2)


def test_a_real_tile(real_data):
    truth = read_label(real_data / "full_tile_masks" / "austin29_gt.png")
    found = np.roll(truth, 1, axis=(0, 1))
    grid = PatchGrid(5000, 5000)
    for row in range(0, 5000, 1024):
        grid.add(row, truth[row : row + 1024], found[row : row + 1024])
    assert grid.counts() == by_hand(truth, found, 512, 0.05)
    assert (grid.counts().kept, grid.counts().patches) == (86, 100)


def test_counts_are_added():
    one = PatchCounts(1, 2, Counts(1, 2, 3, 4))
    assert one + one == PatchCounts(2, 4, Counts(2, 4, 6, 8))


NUMBERS = st.integers(0, 5)
COUNTS = st.builds(Counts, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


def scenes(seed: int, number: int) -> list[Counts]:
    draws = np.random.default_rng(seed).integers(1, 100, (number, 4))
    return [Counts(*row) for row in draws.tolist()]


@pytest.mark.parametrize("metric", METRICS)
def test_equal_inputs_differ_by_nothing(metric):
    found = paired_difference(scenes(1, 9), scenes(1, 9), metric)
    assert found == Difference(0.0, 0.0, 0.0, 9)
    assert found.verdict == "not distinguishable"


def test_one_scene_has_no_interval():
    # IoU 6/10 and 8/10.
    found = paired_difference([Counts(6, 2, 2, 9)], [Counts(8, 1, 1, 9)])
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high, found.number) == (None, None, 1)
    assert found.verdict == "only one with pixels: no interval"


def test_no_scene_with_pixels():
    found = paired_difference([Counts()], [Counts()])
    assert (found.value, found.low, found.verdict) == (0, None, "none with pixels: no interval")
    assert paired_difference([], []).number == 0


def test_scenes_without_pixels_are_left_out():
    a, b = scenes(1, 7), scenes(2, 7)
    assert paired_difference([*a, Counts()], [*b, Counts()]) == paired_difference(a, b)


def test_two_scenes_have_three_outcomes():
    """Both scenes, or one of them twice: a quarter each, so the interval has these for ends."""
    a = [Counts(5, 5, 0, 0), Counts(8, 2, 0, 0)]
    b = [Counts(6, 4, 0, 0), Counts(8, 2, 0, 0)]
    found = paired_difference(a, b)
    assert found.value == pytest.approx(0.05)
    assert (found.low, found.high) == (pytest.approx(0.0), pytest.approx(0.1))


def test_the_other_way_round_it_is_the_other_sign():
    one = paired_difference(scenes(1, 8), scenes(2, 8))
    back = paired_difference(scenes(2, 8), scenes(1, 8))
    assert (back.value, back.low, back.high) == pytest.approx((-one.value, -one.high, -one.low))


@pytest.mark.parametrize("metric", METRICS)
def test_plain_resampling_gives_the_same_ends(metric):
    a, b, generator = scenes(3, 12), scenes(4, 12), np.random.default_rng(9)
    differences = []
    for _ in range(3000):
        drawn = generator.integers(0, 12, 12)
        pooled = [sum((side[i] for i in drawn), Counts()).metrics()[metric] for side in (a, b)]
        differences.append(pooled[1] - pooled[0])
    found = paired_difference(a, b, metric)
    ends = np.percentile(differences, [2.5, 97.5])
    assert [found.low, found.high] == pytest.approx(ends, abs=0.08 * np.ptp(ends))


def test_the_interval_of_a_mean_is_that_of_theory():
    """Accuracies of equal scenes pool to their mean: 1.96 standard errors to either side."""
    gains = np.random.default_rng(5).normal(20, 60, 400).astype(int).tolist()
    a = [Counts(500, 500, 0, 0)] * 400
    b = [Counts(500 + gain, 500 - gain, 0, 0) for gain in gains]
    found = paired_difference(a, b, "accuracy")
    half = 1.96 * np.std(gains) / 1000 / np.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


@pytest.mark.parametrize(("number", "verdict"), [(5, "too few to tell (6 needed)"), (6, "higher")])
def test_a_verdict_needs_six_scenes(number, verdict):
    a, b = [Counts(5, 5, 0, 0)] * number, [Counts(6, 4, 0, 0)] * number
    assert paired_difference(a, b).verdict == verdict
    assert paired_difference(b, a).verdict == verdict.replace("higher", "lower")


@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_ratios_of_many_are_the_metrics_of_each(counts):
    table = np.array([list(vars(one).values()) for one in counts])
    for metric in METRICS:
        assert ratios(*table.T)[metric].tolist() == [one.metrics()[metric] for one in counts]


def test_many_scenes_are_drawn_in_pieces(monkeypatch):
    whole = paired_difference(scenes(1, 20), scenes(2, 20))
    monkeypatch.setattr("jointnet.metrics._CHUNK_ELEMENTS", 1000)
    assert paired_difference(scenes(1, 20), scenes(2, 20)) == whole


def test_other_scenes_and_metrics_are_refused():
    with pytest.raises(ValueError, match="2 and 3 scenes"):
        paired_difference(scenes(1, 2), scenes(1, 3))
    with pytest.raises(ValueError, match="'quality'"):
        paired_difference(scenes(1, 2), scenes(1, 2), "quality")
