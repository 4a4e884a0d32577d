"""Figures by matplotlib, read back as pictures; a report's charts as SVG."""

import re
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from jointnet import figures
from jointnet.figures import (
    coverage_chart,
    coverage_shares,
    displayable,
    draw_augmentations,
    draw_curves,
    draw_feature_maps,
    draw_filters,
    draw_grad_cam,
    draw_scene,
    error_map,
    threshold_charts,
    training_charts,
)
from jointnet.inspection import GradCam, Observation
from jointnet.metrics import Counts
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.augmentation import STRONG, Augmentation, Change
from preprocessing.errors import LabelError
from preprocessing.image_operations import ERROR_COLOURS, FALSE, FOUND, MISSED

TRUTH = np.array([[1, 1, 0, 0, 1, 255]], np.uint8)
PREDICTION = np.array([[1, 0, 1, 0, 255, 1]], np.uint8)


def history(epochs: int) -> list[dict]:
    names = ("loss", "validation_loss", "validation_iou", "validation_precision")
    return [
        {"epoch": epoch, **{name: 1 / epoch for name in (*names, "validation_recall")}}
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_are_drawn_and_drawn_again(tmp_path, epochs):
    path = tmp_path / "curves.png"
    path.write_bytes(b"older")
    draw_curves(history(epochs), path)
    picture = imread(path)
    assert picture.shape[0] > 300 and picture.shape[1] > 2 * picture.shape[0]
    # Something is drawn: curves are in colour, the rest is grey.
    assert (np.ptp(picture[..., :3], axis=2) > 0.3).sum() > (500 if epochs > 1 else 50)


def test_hits_false_alarms_and_misses_have_their_colours_and_void_has_none():
    image = np.full((1, 6, 3), 100, np.uint8)
    found = error_map(image, TRUTH, PREDICTION)
    assert found.shape == (1, 6, 3) and found.dtype == np.uint8
    colours = [ERROR_COLOURS[value] for value in (FOUND, MISSED, FALSE)]
    expected = [[int(35 + 0.65 * part) for part in colour] for colour in colours]
    assert found[0, :3].tolist() == expected
    assert (found[0, 3:] == 100).all()


def test_the_error_map_is_grey_where_nothing_is_found_or_missed():
    image = np.array([[[10, 20, 60], [200, 100, 0]]], np.uint8)
    nothing = np.zeros((1, 2), np.uint8)
    np.testing.assert_array_equal(
        error_map(image, nothing, nothing), [[[30, 30, 30], [100, 100, 100]]]
    )


def test_8_bits_are_shown_as_they_are():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(displayable(image), image)


def test_other_depths_are_stretched_between_their_2nd_and_98th_percentiles():
    ramp = np.linspace(1000, 2000, 101, dtype=np.uint16).reshape(1, -1, 1)
    shown = displayable(np.repeat(ramp, 3, axis=2))
    assert shown.dtype == np.uint8
    assert shown[0, 0].tolist() == [0, 0, 0] and shown[0, -1].tolist() == [255, 255, 255]
    assert shown[0, 50].tolist() == [127, 127, 127]
    assert (np.diff(shown[0, :, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(("bands", "expected"), [(1, [7, 7, 7]), (2, [7, 7, 7]), (4, [7, 8, 9])])
def test_there_are_three_bands_on_a_screen(bands, expected):
    image = np.broadcast_to(np.arange(7, 7 + bands, dtype=np.uint8), (2, 2, bands))
    assert displayable(image)[0, 0].tolist() == expected


def test_a_constant_image_is_no_division_by_zero():
    shown = displayable(np.full((4, 4, 3), 1234, np.uint16))
    assert len(np.unique(shown)) == 1


def test_a_scene_is_drawn_with_missing_folders_made(tmp_path):
    image = np.full((1, 6, 3), 100, np.uint8)
    path = tmp_path / "pictures" / "a.png"
    draw_scene(image, TRUTH, PREDICTION, "run: a", path)
    picture = (imread(path)[..., :3] * 255).round().astype(int)
    assert picture.shape[1] > 3 * picture.shape[0]
    # Void is grey in truth and prediction, target white.
    flat = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert {(128, 128, 128), (255, 255, 255), (0, 0, 0), (100, 100, 100)} <= flat


def sheet(path, image, mask, augmentation, **arguments) -> np.ndarray:
    draw_augmentations(image, mask, augmentation, path, **arguments)
    return (imread(path)[..., :3] * 255).round().astype(int)


def share_of(colour, picture) -> float:
    return (np.abs(picture - np.array(colour)).max(axis=2) < 12).mean()


def labelled_patch(dtype=np.uint8) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 1
    mask[:, 50:] = 255
    level = {np.uint8: 60, np.uint16: 900, np.float32: 0.3}[dtype]
    image = np.full((64, 64, 3), level, dtype)
    image[:4] = level * 2
    image[4:8] = 0
    return image, mask


def test_a_contact_sheet_shows_each_change_and_the_samples(tmp_path):
    image, mask = labelled_patch()
    few = Augmentation(
        dihedral=False, brightness=0.5, contrast=0, saturation=0, dropout=Change(1, 0.1)
    )
    path = tmp_path / "pictures" / "sheet.png"
    picture = sheet(path, image, mask, few, samples=1)
    # As it is, brighter, all dropped; then a sample.
    panels = np.array_split(picture, 4, axis=1)
    grey = [(value, value, value) for value in (60, 60 + 128, 0)]
    for panel, colour in zip(panels, grey, strict=False):
        assert share_of(colour, panel) > 0.4
    for panel in panels:
        assert share_of(figures.OUTLINE, panel) > 0.003
        assert share_of(figures.HATCHING, panel) > 0.01
    assert picture.shape[1] / picture.shape[0] == pytest.approx(4 * 2.4 / 2.65, rel=0.01)


def test_a_contact_sheet_is_repeated_by_its_seed(tmp_path):
    image, mask = labelled_patch()
    pictures = [
        sheet(tmp_path / "a.png", image, mask, Augmentation(), seed=seed, samples=2)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_depths_are_stretched_as_the_patch_itself(tmp_path, dtype):
    """Or brightness would not be seen."""
    image, mask = labelled_patch(dtype)
    brighter = Augmentation(
        dihedral=False, brightness=0.15, contrast=0, saturation=0, value_range=(0, image.max())
    )
    picture = sheet(tmp_path / "a.png", image, mask, brighter, samples=1)
    plain, bright, _ = np.array_split(picture, 3, axis=1)
    middle = slice(picture.shape[0] // 2, picture.shape[0] // 2 + 60), slice(50, 60)
    assert np.median(bright[middle]) > np.median(plain[middle]) + 20


def test_a_contact_sheet_of_everything_on_one_band_without_target(tmp_path):
    mask = np.full((20, 30), 255, np.uint8)
    image = np.full((20, 30, 1), 90, np.uint8)
    picture = sheet(tmp_path / "a.png", image, mask, STRONG, samples=4)
    assert share_of(figures.OUTLINE, picture) == 0
    assert share_of(figures.HATCHING, picture) > 0.05


def test_a_contact_sheet_that_does_not_fit_is_not_written(tmp_path):
    image, mask = labelled_patch()
    with pytest.raises(LabelError, match="does not fit"):
        draw_augmentations(image, mask[1:], STRONG, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def pixels_of(path, *colour, near=1):
    """How many pixels of a picture have a colour, or one near it."""
    picture = np.rint(imread(path)[..., :3] * 255)
    return int((np.abs(picture - colour) <= near).all(axis=-1).sum())


def colour_of(cmap, value):
    return [round(255 * part) for part in mpl.colormaps[cmap](value)[:3]]


def test_kernels_are_red_green_and_blue_around_grey(tmp_path):
    kernels = np.zeros((3, 3, 3, 3), np.float32)
    kernels[..., 0, 1] = 0.2
    kernels[..., 2, 2] = -5
    draw_filters(kernels, "title", tmp_path / "a.png")
    counts = [
        pixels_of(tmp_path / "a.png", *colour)
        for colour in ((127, 127, 127), (255, 127, 127), (127, 127, 0))
    ]
    # Each is a panel of one colour, whatever the size of its weights.
    assert min(counts) > 3000 and max(counts) < 1.1 * min(counts)


def test_kernels_of_one_band_are_grey_and_of_four_bands_the_first_three(tmp_path):
    draw_filters(np.full((3, 3, 1, 1), 2, np.float32), "title", tmp_path / "a.png")
    draw_filters(np.full((3, 3, 1, 1), -2, np.float32), "title", tmp_path / "b.png")
    # Text and frame are as black in the first.
    assert pixels_of(tmp_path / "b.png", 0, 0, 0) > 3000 + pixels_of(tmp_path / "a.png", 0, 0, 0)
    four = np.ones((3, 3, 4, 1), np.float32)
    four[:, :, 3] = -9
    draw_filters(four[:, :, :3], "title", tmp_path / "three.png")
    draw_filters(four, "title", tmp_path / "four.png")
    assert (tmp_path / "three.png").read_bytes() == (tmp_path / "four.png").read_bytes()


def test_channels_of_largest_magnitude_are_drawn_each_in_its_own_range(tmp_path):
    features = np.zeros((8, 8, 3), np.float32)
    features[:4, :, 0] = 1e-6
    features[:, :2, 1] = -10
    features[..., 2] = 0.5
    draw_feature_maps(features, "title", tmp_path / "a.png", 1)
    low, high = (pixels_of(tmp_path / "a.png", *colour_of("viridis", v)) for v in (0.0, 1.0))
    # Of channel 1 alone, a quarter is low.
    assert 2.5 < high / low < 3.5
    draw_feature_maps(features, "title", tmp_path / "a.png", 64)
    low, high = (pixels_of(tmp_path / "a.png", *colour_of("viridis", v)) for v in (0.0, 1.0))
    # A quarter, half, and all of the one that is constant.
    assert 0.6 < high / low < 0.8


def test_grad_cam_is_drawn_where_there_is_imagery(tmp_path):
    image = np.full((16, 16, 3), (200, 100, 0), np.uint8)
    valid = np.ones((16, 16), bool)
    valid[8:] = False
    coarse = np.zeros((2, 2), np.float32)
    coarse[0, 1] = 3
    heat = np.kron(coarse, np.ones((8, 8), np.float32)) / 3
    probabilities = np.full((16, 16), 0.25, np.float32)
    seen = Observation(coarse[..., None], probabilities, probabilities)
    cam = GradCam(heat, coarse, np.ones(1, np.float32))
    path = tmp_path / "a.png"
    draw_grad_cam(image, valid, seen, cam, 0.5, "title", path)
    panel = 2 * pixels_of(path, 200, 100, 0)
    assert panel > 50_000
    # Void is grey in the first two panels and left out in the others; of what is valid, half is
    # hottest, half coldest.
    assert 0.95 < pixels_of(path, 127, 127, 127) / panel < 1.05
    for value in (0.0, 1.0):
        assert 0.2 < pixels_of(path, *colour_of("inferno", value)) / panel < 0.35
    assert 0.45 < pixels_of(path, 64, 64, 64) / panel < 0.6
    # With an outline, where the threshold cuts.
    outline = (86, 180, 233)
    assert pixels_of(path, *outline, near=40) == 0
    probabilities[:, 5:9] = 0.75
    draw_grad_cam(image, valid, seen, cam, 0.5, "title", path)
    assert pixels_of(path, *outline, near=40) > 100


def svg_of(chart: str) -> ET.Element:
    """The drawing of a chart, whose colours are the page's and whose names stand nowhere else."""
    (text,) = re.findall("<svg.*</svg>", chart, re.DOTALL)
    assert not re.search(r"#0000|font-family|<style|xmlns|<!--|nan", text)
    drawing = ET.fromstring(text)
    names = [element.get("id") for element in drawing.iter() if element.get("id")]
    used = {use.get("href")[1:] for use in drawing.iter("use")}
    assert len(set(names)) == len(names) and used <= set(names)
    assert not any(tag.get("id") for tag in drawing.iter("g"))
    return drawing


def test_coverage_counts_nothing_apart_and_upper_ends_in():
    values = np.array([0, 1e-9, 0.1, 0.1 + 1e-6, 0.3, 1.0])
    shares = coverage_shares(np.stack([values, np.zeros(6)], axis=1))
    np.testing.assert_allclose(shares[:, 0] * 6, [1, 2, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(shares[:, 1], [1] + [0] * 10)


def test_bars_say_their_heights_where_the_pointer_rests():
    chart = coverage_chart(np.array([[0, 0.05], [0.1, 0.05], [0.3, 1.0], [0.3, 1.0]]))
    titles = [title.text for title in svg_of(chart).iter("title")]
    assert len(titles) == 22
    assert {"truth, 0: 25", "truth, 30: 50", "prediction, 10: 50", "prediction, 100: 50"} < {
        *titles
    }
    assert "4 windows" in chart and "17.5% target, 52.5% predicted" in chart
    assert "var(--truth)" in chart and "var(--prediction)" in chart


def test_curves_state_what_the_metrics_are():
    histogram = ProbabilityHistogram()
    histogram.add(np.array([[1, 0, 1, 0]]), np.array([[0.9, 0.2, 0.4, 0.45]]))
    described = histogram.describe([(0.5, Counts(1, 0, 1, 2))])
    over, precision, reliability = threshold_charts(described)
    assert f"{described['best']['threshold']:.3f}" in over and "IoU 0.667" in over
    assert "0.5 costs 0.167 (IoU 0.500)" in over
    words = [text.text.strip() for text in svg_of(over).iter("text")]
    assert {"IoU", "precision", "recall", "threshold", "0.5"} < {*words}
    assert f"best {described['best']['threshold']:.2f}" in words
    assert svg_of(precision).findall(".//path")
    assert f"{described['calibration']['ece']:.3f}" in reliability
    titles = [title.text for title in svg_of(reliability).iter("title")]
    assert len(titles) == len(described["calibration"]["bins"])
    assert titles[-1].startswith("probability 0.875 to 0.9375: mean 0.900, target 1.000, 1 px")


def test_empty_truth_still_has_curves():
    histogram = ProbabilityHistogram()
    histogram.add(np.zeros((2, 2), np.uint8), np.full((2, 2), 0.3))
    charts = threshold_charts(histogram.describe([(0.5, Counts(0, 0, 0, 4))]))
    assert [svg_of(chart).tag for chart in charts] == ["svg"] * 3


def test_a_chart_is_the_same_each_time():
    coverage = np.array([[0.1, 0.2]])
    assert coverage_chart(coverage) == coverage_chart(coverage)


@pytest.mark.parametrize("epochs", [1, 3])
def test_training_marks_the_epoch_that_was_kept(epochs):
    history = [
        {"epoch": epoch, "loss": 1 / epoch, "validation_loss": float("nan"), "validation_iou": 0.5}
        for epoch in range(1, epochs + 1)
    ]
    charts = training_charts(history, epochs)
    for chart in charts:
        assert f"kept: {epochs}" in [text.text.strip() for text in svg_of(chart).iter("text")]
