"""The curves of a report: thresholds, calibration, training, and how much masks cover."""

from collections.abc import Sequence
from html import escape

import numpy as np

from experiments.report_charts import Axis, Series, bar_chart, dot_chart, legend, line_chart
from experiments.report_tables import number
from jointnet.evaluation import OVERALL
from preprocessing.pictures import COVERAGE_WINDOW

UNIT = (0, 1)
_FIGURES = (("IoU", "iou"), ("precision", "precision"), ("recall", "recall"))
COVERAGE_STEPS = 10


def threshold_figures(report: dict | None, summary: Sequence[dict] = ()) -> list[str]:
    """Figures over the threshold, precision over recall, and calibration.

    Args:
        report: ``thresholds`` of ``describe_evaluation``; None where no probabilities were given.
        summary: ``summary`` of the same, whose thresholds are marked.
    """
    if report is None:
        return [
            absent(
                "Curves over the threshold and calibration need probabilities, which finished "
                "masks alone do not have."
            )
        ]
    curve, best = report["curve"], report["best"]
    series = [
        Series(words, name, [(point["threshold"], _measured(point, name)) for point in curve])
        for words, name in _FIGURES
    ]
    named = [cost for cost in report["cost"] if cost["threshold"] is not None]
    marks = [(best["threshold"], f"best {best['threshold']:.2f}")]
    marks += [(cost["threshold"], f"{cost['threshold']:g}") for cost in named]
    costs = "; ".join(
        f"{cost['threshold']:g} costs {cost['iou_lost']:.3f} (IoU {number(cost['iou'])})"
        for cost in named
    )
    over = figure(
        "Over the threshold",
        line_chart(
            "IoU, precision and recall over the threshold",
            Axis("threshold", *UNIT),
            Axis("pooled", *UNIT),
            series,
            marks,
        )
        + legend(series),
        f"Best on these scenes: {best['threshold']:.3f}, IoU {number(best['iou'])}"
        + (f"; {costs}." if costs else "."),
    )
    pairs = [(point["recall"], _measured(point, "precision")) for point in curve]
    points = [(best["recall"], best["precision"], f"best {best['threshold']:.2f}")]
    points += [
        (row["recall"], row["precision"], f"{row['threshold']:g}")
        for row in summary
        if row["place"] == OVERALL and row["threshold"] is not None
    ]
    precision = figure(
        "Precision over recall",
        line_chart(
            "Precision over recall",
            Axis("recall", *UNIT),
            Axis("precision", *UNIT),
            [Series("precision", "iou", pairs)],
            points=points,
        ),
        "Every 64th of the threshold; circles are the thresholds named.",
    )
    return [over, precision, _calibration(report["calibration"])]


def _measured(point: dict, name: str) -> float | None:
    """A figure; none for the precision of nothing found, which is a convention."""
    nothing = name == "precision" and point["recall"] == 0 and point["precision"] in (0, 1)
    return None if nothing else point[name]


def _calibration(calibration: dict) -> str:
    """The reliability diagram."""
    bins = calibration["bins"]
    largest = max((one["pixels"] for one in bins), default=1)
    dots = [
        (
            one["mean_probability"],
            one["target_share"],
            one["pixels"] / largest,
            _bin_words(one),
        )
        for one in bins
    ]
    chart = dot_chart(
        "Share of target over the mean probability",
        Axis("mean probability", *UNIT),
        Axis("share of target", *UNIT),
        dots,
    )
    words = (
        f"Expected calibration error {number(calibration['ece'])} over 16 bins; the larger a dot, "
        "the more pixels it stands for. Below the diagonal the network is too sure."
    )
    return figure("Reliability", chart, words)


def _bin_words(one: dict) -> str:
    return (
        f"probability {one['from']:g} to {one['to']:g}: mean {one['mean_probability']:.3f}, "
        f"target {one['target_share']:.3f}, {one['pixels']:,} px"
    )


def training_figures(history: Sequence[dict[str, float]], best_epoch: int | None) -> list[str]:
    """Loss and validation figures over the epochs.

    Args:
        history: rows of ``history.csv``; empty where there are none.
        best_epoch: whose weights were kept; None where unknown.
    """
    if not history:
        return [absent("No history of a training is known for what was measured.")]
    epochs = Axis("epoch", *_spread([row["epoch"] for row in history]))
    marks = [] if best_epoch is None else [(best_epoch, f"kept: {best_epoch:g}")]

    def line(words: str, style: str, name: str) -> Series:
        return Series(words, style, [(row["epoch"], row.get(name)) for row in history])

    losses = [line("training", "iou", "loss"), line("validation", "precision", "validation_loss")]
    values = [value for series in losses for _, value in series.points if value is not None]
    values = [value for value in values if np.isfinite(value)] or [0.0]
    scores = [line(words, name, f"validation_{name}") for words, name in _FIGURES]
    top = Axis("loss", min(0.0, *values), max(1e-9, *values) * 1.05)
    return [
        figure(
            "Training: loss",
            line_chart("Loss over the epochs", epochs, top, losses, marks) + legend(losses),
            "",
        ),
        figure(
            "Training: validation",
            line_chart(
                "Validation figures over the epochs",
                epochs,
                Axis("pooled over patches", *UNIT),
                scores,
                marks,
            )
            + legend(scores),
            "Measured on the validation patches after every epoch, at the network's threshold.",
        ),
    ]


def coverage_figure(coverage: np.ndarray) -> str:
    """How much of windows the masks cover.

    Args:
        coverage: ``(windows, 2)``, see ``pictures.window_shares``.
    """
    if not len(coverage):
        return absent("No window has a valid pixel, so there is no coverage to show.")
    shares = coverage_shares(coverage)
    labels = ["0", *(f"{10 * step}" for step in range(1, COVERAGE_STEPS + 1))]
    series = [
        Series(name, style, list(enumerate((100 * shares[:, column]).tolist())))
        for column, (name, style) in enumerate((("truth", "truth"), ("prediction", "prediction")))
    ]
    top = min(100.0, 110 * float(shares.max()))
    chart = bar_chart(
        "Windows by how much of them the masks cover",
        Axis("% of windows", 0, top),
        labels,
        series,
        "target in the window, up to so many %",
    )
    true, predicted = coverage.mean(axis=0)
    words = (
        f"{len(coverage):,} windows of {COVERAGE_WINDOW} px, those at the far edges smaller; the "
        f"first pair of bars is windows without any. A mean window has {true:.1%} target, "
        f"{predicted:.1%} predicted."
    )
    return figure("Mask coverage", chart + legend(series), words)


def coverage_shares(coverage: np.ndarray) -> np.ndarray:
    """Shares of the windows by coverage: none, then steps of 10 %, their upper ends included.

    Args:
        coverage: ``(windows, 2)`` in 0..1, at least one.

    Returns:
        ``(11, 2)`` float64; each column adds to 1.
    """
    # A share of exactly 0.3 must not fall above 0.3 by rounding.
    steps = np.ceil(np.round(coverage * COVERAGE_STEPS, 9)).astype(int)
    steps = np.where(coverage > 0, np.maximum(steps, 1), 0)
    counts = [np.bincount(column, minlength=COVERAGE_STEPS + 1) for column in steps.T]
    return np.stack(counts, axis=1) / len(coverage)


def figure(title: str, content: str, words: str) -> str:
    """A chart with its title and what is to be said of it."""
    caption = f"<figcaption>{escape(words)}</figcaption>" if words else ""
    return f"<figure><h3>{escape(title)}</h3>{content}{caption}</figure>"


def absent(words: str) -> str:
    """A sentence in place of what cannot be shown."""
    return f'<p class="absent">{escape(words)}</p>'


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest value, apart even where there is one."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
