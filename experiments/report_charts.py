"""The charts of a report as inline SVG, whose colours its style sheet gives.

They need no script: a pointer that rests on a point gets its values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

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
