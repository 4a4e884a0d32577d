"""Charts as SVG: where values come to lie, and that words are escaped."""

import re
from xml.etree import ElementTree as ET

import pytest

from jointnet.report_page import (
    HEIGHT,
    WIDTH,
    Axis,
    Series,
    bar_chart,
    dot_chart,
    legend,
    line_chart,
)

UNIT = Axis("share", 0, 1)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 17, [2, 4, 6, 8, 10, 12, 14, 16]),
        (0, 0.04, [0, 0.01, 0.02, 0.03, 0.04]),
    ],
)
def test_ticks_are_round_and_inside(low, high, ticks):
    assert Axis("x", low, high).ticks() == pytest.approx(ticks)


def test_a_line_goes_from_corner_to_corner_and_breaks_where_nothing_is():
    points = [(0, 0), (0.25, 0.25), (0.5, None), (0.75, float("nan")), (1, 1)]
    svg = parsed(line_chart("t", UNIT, UNIT, [Series("a", "iou", points)]))
    first, second = (line.get("points") for line in svg.iter("polyline"))
    start, end = first.split()[0], second
    left, bottom = map(float, start.split(","))
    right, top = map(float, end.split(","))
    assert left < right and top < bottom
    axis = next(line for line in svg.iter("line") if line.get("class") == "axis")
    assert (left, right) == (float(axis.get("x1")), float(axis.get("x2")))
    assert bottom == float(axis.get("y1"))
    assert 0 < top < bottom < HEIGHT and right < WIDTH


def test_marks_dots_and_bars_are_drawn():
    marked = line_chart("t", UNIT, UNIT, [], [(0.6, "chosen")])
    assert "chosen" in marked and marked.count('class="mark"') == 1
    dots = parsed(dot_chart("t", UNIT, UNIT, [(0.1, 0.1, 1, "all"), (0.5, 0.4, 0.25, "few")]))
    large, small = (float(dot.get("r")) for dot in dots.iter("circle"))
    # The area, above a least size, is the weight.
    assert large - 2 == pytest.approx(2 * (small - 2))
    bars = parsed(bar_chart("t", UNIT, ["0", "10"], [Series("a", "b", [(0, 1), (1, 0.5)])], "x"))
    whole, half = (float(bar.get("height")) for bar in bars.iter("rect"))
    assert whole == pytest.approx(2 * half)


def test_words_are_escaped():
    bad = "<b>&\"'"
    for svg in (
        line_chart(bad, Axis(bad, 0, 1), UNIT, [Series(bad, "iou", [(0, 0)])], [(0, bad)]),
        dot_chart(bad, UNIT, UNIT, [(0, 0, 1, bad)]),
        bar_chart(bad, UNIT, [bad], [Series(bad, "x", [(0, 1)])], bad),
        legend([Series(bad, "x", [])]),
    ):
        assert "<b>" not in svg
        assert not re.search(r"&(?!amp;|lt;|gt;|quot;|#x27;)", svg)
