"""Which curves a report shows, and what stands in place of those that it cannot."""

import numpy as np
import pytest

from jointnet.metrics import Counts
from jointnet.report_page import (
    coverage_figure,
    coverage_shares,
    threshold_figures,
    training_figures,
)
from jointnet.thresholds import ProbabilityHistogram


def test_coverage_counts_nothing_apart_and_upper_ends_in():
    values = np.array([0, 1e-9, 0.1, 0.1 + 1e-6, 0.3, 1.0])
    shares = coverage_shares(np.stack([values, np.zeros(6)], axis=1))
    np.testing.assert_allclose(shares[:, 0] * 6, [1, 2, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(shares[:, 1], [1] + [0] * 10)


def test_curves_state_what_the_figures_are():
    histogram = ProbabilityHistogram()
    histogram.add(np.array([[1, 0, 1, 0]]), np.array([[0.9, 0.2, 0.4, 0.45]]))
    report = histogram.report([(0.5, Counts(1, 0, 1, 2))])
    over, precision, reliability = threshold_figures(report)
    assert f"{report['best']['threshold']:.3f}" in over and "IoU 0.667" in over
    assert "0.5 costs 0.167 (IoU 0.500)" in over
    assert "polyline" in precision
    assert f"{report['calibration']['ece']:.3f}" in reliability


def test_empty_truth_still_has_curves():
    histogram = ProbabilityHistogram()
    histogram.add(np.zeros((2, 2), np.uint8), np.full((2, 2), 0.3))
    figures = threshold_figures(histogram.report([(0.5, Counts(0, 0, 0, 4))]))
    assert len(figures) == 3 and "nan" not in "".join(figures)


def test_what_cannot_be_shown_is_a_sentence():
    (sentence,) = threshold_figures(None)
    assert "need probabilities" in sentence
    (sentence,) = training_figures([], None)
    assert "No history" in sentence
    assert "No window" in coverage_figure(np.zeros((0, 2)))


@pytest.mark.parametrize("epochs", [1, 3])
def test_training_marks_the_epoch_that_was_kept(epochs):
    history = [
        {"epoch": epoch, "loss": 1 / epoch, "validation_loss": float("nan"), "validation_iou": 0.5}
        for epoch in range(1, epochs + 1)
    ]
    figures = "".join(training_figures(history, epochs))
    assert f"kept: {epochs}" in figures and "nan" not in figures
