"""Relaxed measures: small masks by eye, the exact distance, and void that is still looked into."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jointnet.metrics import BUFFER_PX, RelaxedCounts, count, count_relaxed, near
from preprocessing.patches import load_pair
from preprocessing.rasters import read_label
from preprocessing.scenes import Scene

SHAPE = (9, 11)
masks = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 0, 0, 1, 255]))
targets = arrays(np.bool_, SHAPE, elements=st.sampled_from([False] * 9 + [True]))


def line(column: int, height: int = 12, width: int = 30) -> np.ndarray:
    """A road one pixel wide from top to bottom."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, column] = 1
    return mask


def measures(*arguments) -> tuple[float, ...]:
    return tuple(count_relaxed(*arguments).measures().values())


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
    assert counts.measures() == {
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
@given(masks, masks, masks, st.integers(0, 5))
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
@given(masks, masks)
def test_without_a_buffer_they_are_recall_precision_and_iou(truth, prediction):
    relaxed, strict = count_relaxed(truth, prediction, 0), count(truth, prediction)
    assert relaxed.true_found == relaxed.predicted_right == strict.true_positive
    plain = strict.metrics()
    assert relaxed.measures() == pytest.approx(
        {
            "completeness": plain["recall"],
            "correctness": plain["precision"],
            "quality": plain["iou"],
        }
    )


@settings(deadline=None)
@given(masks, masks, st.integers(0, 5))
def test_truth_and_prediction_exchange_completeness_and_correctness(truth, prediction, buffer_px):
    one = count_relaxed(truth, prediction, buffer_px)
    other = count_relaxed(prediction, truth, buffer_px)
    assert (one.true_found, one.true_total) == (other.predicted_right, other.predicted_total)
    assert one.measures()["quality"] == pytest.approx(other.measures()["quality"])


@settings(deadline=None)
@given(masks, masks, st.integers(0, 4), st.integers(0, SHAPE[0]))
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
    assert pooled.measures()["completeness"] == 1 / 100
    assert pooled.measures()["correctness"] == 1 / 10
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
    assert tuple(counts.measures().values()) == pytest.approx(expected)


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


def test_boolean_masks_count_as_well():
    assert count_relaxed(line(3) > 0, line(5) > 0) == RelaxedCounts(12, 12, 12, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((line(3), line(3).T), r"one shape; got \(12, 30\), \(30, 12\) and \(12, 30\)"),
        ((line(3), line(3), 3, line(3)[1:]), r"one shape; .* and \(11, 30\)"),
        ((line(3) * 2, line(3)), "truth must hold 0, 1 and 255 only; got 2"),
        ((line(3), line(3) * 0.7), "prediction must hold 0, 1 and 255 only; got 0.7"),
        ((line(3), line(3), 3, line(3) * 9), "label must hold 0, 1 and 255 only; got 9"),
        ((line(3)[0], line(3)[0]), r"\(height, width\) and .* got \(30,\) and 3"),
        ((line(3), line(3), -1), "0 pixels or more; .* -1"),
    ],
)
def test_what_cannot_be_counted_is_refused(arguments, message):
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
        assert count_relaxed(label, prediction).measures()["correctness"] == 1
    assert 0.999 < total.measures()["completeness"] <= 1
    assert total.measures()["quality"] > 0.999
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
    assert honoured.measures()["correctness"] == 1
    assert honoured.predicted_right > put_in_before.predicted_right
