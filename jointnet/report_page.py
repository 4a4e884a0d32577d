"""The charts of a report as inline SVG, whose colours its style sheet gives.

They need no script: a pointer that rests on a point gets its values.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from jointnet.evaluation import OBJECT_METRICS, OVERALL, UNITS
from jointnet.report import Origin, ReportScene
from preprocessing.pictures import COVERAGE_WINDOW, TILE

WIDTH, HEIGHT = 380, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 40
_LARGEST_DOT = 9


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: as the legend calls it.
        style: class of the style sheet.
        points: x and y; None for y is a gap.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Axis:
    """An axis: its name, the least and the greatest value."""

    name: str
    low: float
    high: float

    def ticks(self) -> list[float]:
        """Round values, four to eight of them."""
        span = self.high - self.low
        step = 10 ** np.floor(np.log10(span / 4))
        step *= max(factor for factor in (1, 2, 5) if span / (step * factor) >= 4)
        first = np.ceil(self.low / step - 1e-9)
        values = np.arange(first * step, self.high + step * 1e-6, step)
        return [float(round(value, 10)) + 0.0 for value in values]


def line_chart(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    marks: Sequence[tuple[float, str]] = (),
    points: Sequence[tuple[float, float, str]] = (),
) -> str:
    """Lines over an axis.

    Args:
        title: what a reader who does not see it is told.
        x: the axis below.
        y: the axis to the left.
        series: the lines.
        marks: values of x that get a vertical line, each with its words.
        points: x and y that get a circle, each with its words.
    """
    parts = [_frame(x, y)]
    for value, words in marks:
        at = _x(x, value)
        end = "end" if at > WIDTH * 0.7 else "start"
        shift = -4 if end == "end" else 4
        parts.append(
            f'<g class="mark"><line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" '
            f'y2="{HEIGHT - _BOTTOM}"/><text x="{at + shift:.1f}" y="{HEIGHT - _BOTTOM - 6}" '
            f'text-anchor="{end}">{escape(words)}</text></g>'
        )
    for line in series:
        parts.append(_line(line, x, y))
    for number, (a, b, words) in enumerate(points):
        cx, cy = _x(x, a), _y(y, b)
        # On either side of the line in turn, as neighbours may be close.
        side, end = (1, "start") if number % 2 else (-1, "end")
        parts.append(
            f'<circle class="point" cx="{cx:.1f}" cy="{cy:.1f}" r="4"/>'
            f'<text x="{cx + 8 * side:.1f}" y="{cy + 3 - 9 * side:.1f}" text-anchor="{end}">'
            f"{escape(words)}</text>"
        )
    return _svg(title, parts)


def dot_chart(title: str, x: Axis, y: Axis, dots: Sequence[tuple[float, float, float, str]]) -> str:
    """Dots of different weights beside the diagonal.

    Args:
        title: what a reader who does not see it is told.
        x: the axis below.
        y: the axis to the left.
        dots: x, y, weight from 0 to 1 (the area) and words.
    """
    diagonal = f'x1="{_x(x, x.low):.1f}" y1="{_y(y, y.low):.1f}" '
    diagonal += f'x2="{_x(x, x.high):.1f}" y2="{_y(y, y.high):.1f}"'
    path = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b, _, _ in dots)
    parts = [_frame(x, y), f'<line class="diagonal" {diagonal}/>']
    parts.append(f'<polyline class="iou" points="{path}"/>')
    for a, b, weight, words in dots:
        radius = 2 + (_LARGEST_DOT - 2) * weight**0.5
        parts.append(
            f'<circle class="dot iou" cx="{_x(x, a):.1f}" cy="{_y(y, b):.1f}" '
            f'r="{radius:.1f}"><title>{escape(words)}</title></circle>'
        )
    return _svg(title, parts)


def bar_chart(
    title: str, y: Axis, labels: Sequence[str], series: Sequence[Series], x_name: str
) -> str:
    """Groups of bars beside one another.

    Args:
        title: what a reader who does not see it is told.
        y: the axis to the left, from 0.
        labels: of the groups.
        series: a bar of each group; its points are the group's number and the height.
        x_name: below the labels.
    """
    x = Axis(x_name, -0.5, len(labels) - 0.5)
    group = (_x(x, 1) - _x(x, 0)) * 0.8
    width = group / max(len(series), 1)
    parts = [_frame(x, y, labels)]
    for number, bars in enumerate(series):
        for at, height in bars.points:
            left = _x(x, at) - group / 2 + number * width
            top = _y(y, height or 0)
            words = f"{bars.name}, {labels[int(at)]}: {height or 0:.3g}"
            parts.append(
                f'<rect class="bar {bars.style}" x="{left:.1f}" y="{top:.1f}" '
                f'width="{width:.1f}" height="{HEIGHT - _BOTTOM - top:.1f}">'
                f"<title>{escape(words)}</title></rect>"
            )
    return _svg(title, parts)


def legend(series: Sequence[Series]) -> str:
    """The names of lines or bars beside their colours."""
    items = (
        f'<span class="key"><i class="{line.style}"></i>{escape(line.name)}</span>'
        for line in series
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _line(line: Series, x: Axis, y: Axis) -> str:
    pieces: list[list[str]] = [[]]
    dots = []
    for a, b in line.points:
        if b is None or not np.isfinite(b):
            pieces.append([])
            continue
        place = f"{_x(x, a):.1f},{_y(y, b):.1f}"
        pieces[-1].append(place)
        cx, cy = place.split(",")
        words = f"{line.name} {b:.3f} at {x.name} {a:.3g}"
        dots.append(
            f'<circle class="hover {line.style}" cx="{cx}" cy="{cy}" r="4">'
            f"<title>{escape(words)}</title></circle>"
        )
    drawn = "".join(
        f'<polyline class="{line.style}" points="{" ".join(piece)}"/>' for piece in pieces if piece
    )
    return drawn + "".join(dots)


def _frame(x: Axis, y: Axis, labels: Sequence[str] | None = None) -> str:
    """Grid, ticks and names of both axes."""
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value in y.ticks():
        at = _y(y, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    ticks = [(v, f"{v:g}") for v in x.ticks()] if labels is None else list(enumerate(labels))
    for value, words in ticks:
        parts.append(
            f'<text x="{_x(x, value):.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{escape(words)}</text>"
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="name" x="{(_LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f'{escape(x.name)}</text><text class="name" x="12" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle})">{escape(y.name)}</text>'
    )
    return "".join(parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _x(axis: Axis, value: float) -> float:
    share = (value - axis.low) / (axis.high - axis.low)
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    share = (value - axis.low) / (axis.high - axis.low)
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


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


FIGURES = {
    "iou": "IoU",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
}
RELAXED = {name: name for name in ("completeness", "correctness", "quality")}
_OBJECTS = OBJECT_METRICS | {
    "f1": "F1",
    "ap50": "AP50",
    "boundary_iou": "boundary IoU",
    "polis_px": "PoLiS px",
    "polis_m": "PoLiS m",
}
_SIGNED = ("count_error", "area_error")


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals, or a dash where there is no figure."""
    if value is None:
        return "–"
    return f"{value:+.3f}".replace("-", "\u2212") if signed else f"{value:.3f}"


def threshold_words(threshold: float | None) -> str:
    """A threshold as a reader knows it."""
    return "finished masks" if threshold is None else f"threshold {threshold:g}"


def table(
    head: Sequence[str], rows: Iterable[str], caption: str, style: str = "", sortable: bool = False
) -> str:
    """A table.

    Args:
        head: names of the columns, the first that of the rows' names.
        rows: ``<tr>`` or ``<tbody>`` elements.
        caption: above the table; HTML.
        style: further classes.
        sortable: whether a click on a column's name sorts the rows.
    """
    cell = '<button type="button">{}</button>' if sortable else "{}"
    cells = "".join(f'<th scope="col">{cell.format(escape(name))}</th>' for name in head)
    kind = f"{style} sortable".strip() if sortable else style
    return (
        f'<div class="wide"><table class="{kind}"><caption>{caption}</caption>'
        f"<thead><tr>{cells}</tr></thead>{''.join(rows)}</table></div>"
    )


def summary_table(summary: Sequence[dict]) -> str:
    """Pooled figures per threshold and place, ``evaluation.summarise``."""
    columns = FIGURES | (RELAXED if summary[0].get("relaxed_buffer_px") is not None else {})
    bodies = []
    for threshold in dict.fromkeys(row["threshold"] for row in summary):
        rows = [
            f'<tr class="{"total" if row["place"] == OVERALL else ""}">'
            f'<th scope="row">{escape(row["place"])}</th>'
            f"<td>{row['scenes']:,}</td><td>{row['pixels'] / 1e6:,.2f}</td>"
            + "".join(_share(row[name]) if name == "iou" else _cell(row[name]) for name in columns)
            + "</tr>"
            for row in summary
            if row["threshold"] == threshold
        ]
        bodies.append(_group(threshold_words(threshold), len(columns) + 3, rows))
    caption = "Counts of all pixels added, then divided once; void pixels count nowhere."
    if columns.keys() & RELAXED.keys():
        buffer = summary[0]["relaxed_buffer_px"]
        caption += f" Completeness, correctness and quality match up to {buffer} px apart."
    return table(["place", "scenes", "Mpx", *columns.values()], bodies, caption)


def protocol_table(rows: Sequence[dict], names: dict[str, str]) -> str:
    """Overall figures by every protocol, ``evaluation.protocol_rows``."""
    bodies = []
    for threshold in dict.fromkeys(row["threshold"] for row in rows):
        lines = [
            f'<tr><th scope="row">{escape(names[row["protocol"]])}</th>'
            f"<td>{row['units']:,} {UNITS[row['protocol']]}</td>"
            + "".join(_cell(row[name]) for name in FIGURES)
            + "</tr>"
            for row in rows
            if row["threshold"] == threshold and row["place"] == OVERALL
        ]
        bodies.append(_group(threshold_words(threshold), len(FIGURES) + 2, lines))
    caption = "The same predictions by the protocols that publications mix; do not compare across."
    return table(["protocol", "over", *FIGURES.values()], bodies, caption, "words")


def object_table(rows: Sequence[dict]) -> str:
    """Figures of objects per threshold and place, ``evaluation.object_rows``."""
    bodies = []
    for threshold in dict.fromkeys(row["threshold"] for row in rows):
        lines = [
            f'<tr class="{"total" if row["place"] == OVERALL else ""}">'
            f'<th scope="row">{escape(row["place"])}</th>'
            f"<td>{row['true_objects']:,}</td><td>{row['predicted_objects']:,}</td>"
            + "".join(_cell(row[name], name in _SIGNED) for name in _OBJECTS)
            + "</tr>"
            for row in rows
            if row["threshold"] == threshold
        ]
        bodies.append(_group(threshold_words(threshold), len(_OBJECTS) + 3, lines))
    caption = (
        "Objects are pieces connected by edges, matched one to one from an IoU of 0.5; boundaries "
        f"{rows[0]['boundary_px']} px wide; PoLiS of matched pairs."
    )
    return table(["place", "true", "found", *_OBJECTS.values()], bodies, caption)


def confusion_table(row: dict) -> str:
    """The four counts of a row of the summary, with their shares of all and of the truth."""
    pixels = max(row["pixels"], 1)

    def cell(name: str, style: str, words: str, of: int) -> str:
        count = row[name]
        return (
            f'<td class="{style}"><b>{count:,}</b><span>{words}</span>'
            f"<span>{count / pixels:.1%} of all, {count / max(of, 1):.1%} of the row</span></td>"
        )

    true = row["true_positive"] + row["false_negative"]
    false = row["false_positive"] + row["true_negative"]
    rows = [
        f'<tr><th scope="row">target<span>{true:,} px</span></th>'
        + cell("true_positive", "found", "found", true)
        + cell("false_negative", "missed", "missed", true)
        + "</tr>",
        f'<tr><th scope="row">background<span>{false:,} px</span></th>'
        + cell("false_positive", "false", "false alarm", false)
        + cell("true_negative", "nothing", "rightly nothing", false)
        + "</tr>",
    ]
    caption = f"All valid pixels, {threshold_words(row['threshold'])}; rows are the truth."
    head = ["truth", "predicted target", "predicted background"]
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"], caption, "confusion")


def scene_table(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """Figures of each scene at one threshold, those with most wrong pixels first.

    Args:
        rows: of ``scenes`` in ``describe_evaluation``, at that threshold.
        scenes: the same, in this order.
    """
    lines = []
    columns = {name: words for name, words in FIGURES.items() if name != "accuracy"}
    for at in worst_first(rows):
        row, layers = rows[at], scenes[at].layers
        pixels = sum(row[name] for name in COUNTS)
        true, found = row["true_positive"] + row["false_negative"], row["true_positive"]
        found += row["false_positive"]
        lines.append(
            f'<tr><th scope="row"><a href="#scene-{at + 1}">{escape(row["name"])}</a></th>'
            f'<td class="text">{escape(row["place"])}</td>'
            + "".join(_share(row[name]) if name == "iou" else _cell(row[name]) for name in columns)
            + "".join(f"<td>{row[name]:,}</td>" for name in ("false_negative", "false_positive"))
            + f"<td>{true / max(pixels, 1):.1%}</td><td>{found / max(pixels, 1):.1%}</td>"
            f"<td>{layers.height:,} × {layers.width:,}</td></tr>"
        )
    head = [
        "scene",
        "place",
        *columns.values(),
        "missed px",
        "false px",
        "target share",
        "predicted share",
    ]
    caption = "A name opens the scene in the viewer; the name of a column sorts."
    body = [f"<tbody>{''.join(lines)}</tbody>"]
    return table([*head, "rows × columns"], body, caption, "scenes", sortable=True)


COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")


def worst_first(rows: Sequence[dict]) -> list[int]:
    """Numbers of the rows, those first that cost the pooled figures most: by wrong pixels.

    Not by IoU, which is 0 wherever a scene without target has one false pixel. Scenes without a
    valid pixel come last.
    """

    def key(at: int) -> tuple:
        row = rows[at]
        empty = not sum(row[name] for name in COUNTS)
        return empty, -row["false_negative"] - row["false_positive"], row["name"]

    return sorted(range(len(rows)), key=key)


def _group(title: str, columns: int, rows: Sequence[str]) -> str:
    head = f'<tr class="group"><th colspan="{columns}" scope="rowgroup">{escape(title)}</th></tr>'
    return f"<tbody>{head}{''.join(rows)}</tbody>"


def _cell(value: float | None, signed: bool = False) -> str:
    return f"<td>{number(value, signed)}</td>"


def _share(value: float) -> str:
    """A figure in 0..1 with a bar of its length below."""
    return f'<td class="share" style="--share:{value:.4f}">{number(value)}</td>'


ASSETS = Path(__file__).parent / "report_assets"
COPIED = (
    "report.css",
    "theme.js",
    "report.js",
    "openseadragon.min.js",
    "openseadragon.LICENSE.txt",
)
PAGE = "index.html"
SCRIPT = "assets/report.js"
"""What a folder holds that is a report."""
WORST_NAMED = 3
# So that imagery is not committed with the folder that a report happens to lie in.
_IGNORE = "# Reports show imagery, which has a licence of its own.\n*\n"


def write_page(folder: Path, content: dict, scenes: Sequence[ReportScene], origin: Origin) -> None:
    """Write the page of a report beside the layers of its scenes.

    Args:
        folder: of the report.
        content: of ``evaluation.describe_evaluation``.
        scenes: in the order of ``content["scenes"]``.
        origin: where the figures come from.

    Raises:
        OSError: a file cannot be written.
    """
    (folder / "assets").mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(ASSETS / name, folder / "assets" / name)
    (folder / ".gitignore").write_text(_IGNORE, encoding="utf-8")
    (folder / PAGE).write_text(render(content, scenes, origin), encoding="utf-8")


def render(content: dict, scenes: Sequence[ReportScene], origin: Origin) -> str:
    """The page as HTML; see ``write_page``."""
    rows = [row for row in content["scenes"] if row["threshold"] == origin.threshold]
    overall = next(
        row
        for row in content["summary"]
        if row["place"] == OVERALL and row["threshold"] == origin.threshold
    )
    sections = {
        "places": ("Places", _places(rows, scenes, content["summary"], origin.threshold)),
        "figures": ("Figures", _figures(content, overall)),
        "curves": ("Curves", _curves(content, scenes, origin)),
        "scenes": ("Scenes", scene_table(rows, scenes) + _sheets(rows, scenes)),
        "origin": ("How this was made", _facts(origin)),
    }
    titles = {"viewer": "Viewer"} | {name: title for name, (title, _) in sections.items()}
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in titles.items())
    template = Template((ASSETS / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(origin.title),
        kind=escape(origin.kind),
        lead=_lead(rows, overall, origin),
        headline=_headline(overall),
        nav=f"<ul>{links}</ul>",
        sections="".join(
            f'<section id="{name}"><h2>{title}</h2>{body}</section>'
            for name, (title, body) in sections.items()
        ),
        footer="Pictures show imagery whose licence is its own: mind it before you pass them on. "
        "The viewer is OpenSeadragon (BSD-3-Clause, licence in <code>assets</code>).",
        data=_data(rows, scenes),
    )


def _lead(rows: Sequence[dict], overall: dict, origin: Origin) -> str:
    """What was measured, and where to look first."""
    scenes = "1 scene" if len(rows) == 1 else f"{len(rows)} scenes"
    words = f"{scenes}{escape(origin.measured)}, {overall['pixels'] / 1e6:,.2f} Mpx with truth; "
    at = "" if origin.threshold is None else f" at {threshold_words(origin.threshold)}"
    words += f"counts pooled{at}."
    named = [at for at in worst_first(rows) if _pixels(rows[at])][:WORST_NAMED]
    links = (
        f'<a href="#scene-{at + 1}">{escape(rows[at]["name"])}</a> (IoU {number(rows[at]["iou"])})'
        for at in named
    )
    return (
        f"{words} Most wrong pixels: {', '.join(links)}." if named else f"{words} Nothing is valid."
    )


def _headline(overall: dict) -> str:
    return "".join(
        f'<div class="{name}"><dt>{words}</dt><dd>{number(overall[name])}</dd></div>'
        for name, words in FIGURES.items()
    )


def _places(
    rows: Sequence[dict],
    scenes: Sequence[ReportScene],
    summary: Sequence[dict],
    threshold: float | None,
) -> str:
    """Small multiples: the errors of every scene, by place, most wrong pixels first."""
    blocks = []
    order = worst_first(rows)
    # Places of many scenes first: those of one then share a line.
    for place in sorted(summary, key=lambda row: -row["scenes"]):
        if place["threshold"] != threshold or place["place"] == OVERALL:
            continue
        members = [at for at in order if rows[at]["place"] == place["place"]]
        thumbs = "".join(
            f'<li><a class="thumb" href="#scene-{at + 1}"><img loading="lazy" '
            f'src="{scenes[at].folder}/thumb.jpg" alt="Errors of {escape(rows[at]["name"])}">'
            f"<span><em>{escape(rows[at]['name'])}</em>{number(rows[at]['iou'])}</span></a></li>"
            for at in members
        )
        blocks.append(
            f'<div class="place"><h3>{escape(place["place"])} <span>IoU {number(place["iou"])}'
            f"</span></h3><ul>{thumbs}</ul></div>"
        )
    note = (
        '<p class="legend"><span class="key"><i class="found"></i>found</span>'
        '<span class="key"><i class="missed"></i>missed</span>'
        '<span class="key"><i class="false"></i>false alarm</span></p>'
    )
    return f'<div class="places">{"".join(blocks)}</div>{note}'


def _figures(content: dict, overall: dict) -> str:
    parts = [
        summary_table(content["summary"]),
        "<h3>Confusion matrix</h3>",
        confusion_table(overall),
        "<h3>Protocols</h3>",
        protocol_table(content["protocols"], content["protocol_names"]),
        "<h3>Objects</h3>",
        object_table(content["objects"])
        if "objects" in content
        else absent("Objects were not counted; --objects does."),
    ]
    return "".join(parts)


def _curves(content: dict, scenes: Sequence[ReportScene], origin: Origin) -> str:
    coverage = np.concatenate([scene.layers.coverage for scene in scenes])
    figures = [
        *threshold_figures(content.get("thresholds"), content["summary"]),
        coverage_figure(coverage),
        *training_figures(origin.history, origin.best_epoch),
    ]
    # Sentences on what is missing stand below what is there.
    figures.sort(key=lambda part: not part.startswith("<figure"))
    return f'<div class="charts">{"".join(figures)}</div>'


def _sheets(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """What a print has in place of the viewer: the layers of every scene side by side."""
    figures = "".join(
        f'<figure class="sheet"><img src="{scenes[at].folder}/sheet.jpg" '
        f'alt="Layers of {escape(rows[at]["name"])}"><figcaption>'
        f"<b>{escape(rows[at]['name'])}</b>, IoU {number(rows[at]['iou'])}, precision "
        f"{number(rows[at]['precision'])}, recall {number(rows[at]['recall'])}"
        "</figcaption></figure>"
        for at in worst_first(rows)
    )
    words = "the image, " if scenes[0].layers.imagery else ""
    words += "truth (yellow), prediction (purple) and errors: green found, blue missed, orange"
    words = f"<p>From left to right: {words} false alarm, grey no data.</p>"
    return f'<div class="print-only sheets">{words}{figures}</div>'


def _facts(origin: Origin) -> str:
    facts = "".join(
        f"<dt>{escape(term)}</dt><dd>{_code(term, words)}</dd>" for term, words in origin.facts
    )
    return f'<dl class="facts">{facts}</dl>'


def _code(term: str, words: str) -> str:
    plain = escape(words)
    return f"<code>{plain}</code>" if term.endswith(("command", "commit")) else plain


def _data(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """What the script needs of every scene, as JSON that no name can end early."""
    listed = [
        {
            "name": row["name"],
            "folder": scene.folder,
            "height": scene.layers.height,
            "width": scene.layers.width,
            "levels": scene.layers.levels,
            "imagery": scene.layers.imagery,
            "gsd": scene.gsd,
            "empty": not _pixels(row),
            "iou": row["iou"],
            "precision": row["precision"],
            "recall": row["recall"],
            "missed": row["false_negative"],
            "false": row["false_positive"],
            "note": row.get("aligned"),
        }
        for row, scene in zip(rows, scenes, strict=True)
    ]
    text = json.dumps({"tile": TILE, "scenes": listed}, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _pixels(row: dict) -> int:
    return sum(row[name] for name in COUNTS)
