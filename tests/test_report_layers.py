"""The layers of a scene: classes of errors, coverage, and what the files show."""

import cv2
import numpy as np

from jointnet.figures import FALSELY_FOUND, FOUND, MISSED
from preprocessing.pictures import (
    COLOURS,
    COVERAGE_WINDOW,
    NO_DATA,
    TILE,
    error_classes,
    window_shares,
    write_layers,
)

TRUTH = np.array([[0, 0, 1, 1, 255, 1]], np.uint8)
FOUND_MASK = np.array([[0, 1, 0, 1, 1, 255]], np.uint8)


def strips(image, truth, prediction):
    for row in range(0, len(truth), TILE):
        rows = slice(row, row + TILE)
        yield (None if image is None else image[rows]), truth[rows], prediction[rows]


def read(path):
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def test_every_pair_of_truth_and_prediction_has_its_class():
    np.testing.assert_array_equal(
        error_classes(TRUTH, FOUND_MASK), np.array([[0, 3, 2, 1, 255, 255]])
    )


def test_tiles_show_each_pixel_as_what_it_is(tmp_path):
    write_layers(tmp_path, 1, 6, strips(None, TRUTH, FOUND_MASK))
    clear = (0, 0, 0, 0)
    solid = [(*colour, 255) for colour in (FALSELY_FOUND, MISSED, FOUND, NO_DATA)]
    errors = read(tmp_path / "errors" / "0" / "0_0.png")[0]
    expected = [clear, *solid, solid[-1]]
    assert [tuple(pixel) for pixel in errors.tolist()] == expected
    truth = read(tmp_path / "truth" / "0" / "0_0.png")[0]
    assert tuple(truth[2]) == (*COLOURS["truth"][1], 255)
    assert tuple(truth[0]) == clear and tuple(truth[4]) == (*NO_DATA, 255)


def test_all_four_layers_of_a_scene_have_the_same_levels(tmp_path):
    random = np.random.default_rng(0)
    shape = (TILE + 40, 2 * TILE + 1)
    truth, prediction = random.integers(0, 2, (2, *shape), np.uint8)
    image = random.integers(0, 256, (*shape, 3), np.uint8)
    layers = write_layers(tmp_path, *shape, strips(image, truth, prediction))
    assert layers.imagery and layers.levels == 3
    names = {
        name: sorted(str(p.relative_to(tmp_path / name).with_suffix("")) for p in files)
        for name in ("image", "truth", "prediction", "errors")
        for files in [(tmp_path / name).rglob("*_*")]
    }
    assert len(names["image"]) == 6 + 2 + 1
    assert names["image"] == names["truth"] == names["prediction"] == names["errors"]
    assert (tmp_path / "thumb.jpg").is_file() and (tmp_path / "sheet.jpg").is_file()
    found = np.vstack(
        [
            np.hstack([read(tmp_path / f"prediction/0/{c}_{r}.png")[..., 3] for c in range(3)])
            for r in range(2)
        ]
    )
    np.testing.assert_array_equal(found == 255, prediction == 1)


def test_coverage_is_of_the_valid_pixels_of_a_window():
    truth, prediction = np.zeros((2, 2, 8), np.uint8)
    truth[:, :2], truth[:, 4:] = 1, 255
    truth[0, 4], prediction[0] = 0, 1
    # Of the windows of 2 x 4 pixels, the second has one that is valid.
    np.testing.assert_array_equal(window_shares(truth, prediction, 4), [[0.5, 0.5], [0, 1]])


def test_void_alone_has_no_coverage_and_is_drawn_as_such(tmp_path):
    void = np.full((5, 7), 255, np.uint8)
    layers = write_layers(tmp_path, 5, 7, strips(None, void, np.zeros_like(void)))
    assert layers.coverage.shape == (0, 2) and not layers.imagery
    errors = read(tmp_path / "errors" / "0" / "0_0.png")
    assert (errors == (*NO_DATA, 255)).all()


def test_empty_truth_and_prediction_are_transparent(tmp_path):
    nothing = np.zeros((COVERAGE_WINDOW + 1, 9), np.uint8)
    layers = write_layers(tmp_path, *nothing.shape, strips(None, nothing, nothing))
    np.testing.assert_array_equal(layers.coverage, np.zeros((2, 2)))
    assert not read(tmp_path / "errors" / "0" / "0_0.png")[..., 3].any()
