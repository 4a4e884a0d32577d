"""What stands and lies in a sample scene: roofs, crowns, cars, and flat things like roofs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from shapely import affinity
from shapely.geometry import Polygon, box

from preprocessing.sample_drawing import HIGHEST, Canvas, View, inside_box

SURFACES = np.array(
    [
        (0.64, 0.41, 0.32),
        (0.52, 0.34, 0.28),
        (0.46, 0.38, 0.32),
        (0.34, 0.35, 0.37),
        (0.50, 0.50, 0.51),
        (0.70, 0.68, 0.65),
        (0.63, 0.56, 0.45),
        (0.40, 0.41, 0.34),
    ]
)
"""Colours of roofs, and no less of paving, roads and bare soil: colour alone must not tell."""
TARPAULINS = np.array([(0.35, 0.48, 0.66), (0.78, 0.79, 0.78), (0.33, 0.45, 0.33)])
COURTS = np.array([(0.62, 0.38, 0.29), (0.33, 0.45, 0.36), (0.36, 0.43, 0.55)])
CAR_PAINTS = np.array(
    [(0.85, 0.85, 0.85), (0.62, 0.63, 0.65), (0.14, 0.14, 0.16), (0.55, 0.12, 0.11)]
    + [(0.18, 0.25, 0.45), (0.72, 0.72, 0.74), (0.30, 0.31, 0.33)]
)
BARE_CROWN, CROWN = (0.36, 0.33, 0.20), (0.22, 0.31, 0.14)


class Part(NamedTuple):
    """A rectangle of a building's plan: centre and half sides in metres, in its own axes."""

    u: float
    v: float
    half_u: float
    half_v: float


class Plan(NamedTuple):
    """A building's plan: overlapping rectangles, and a court cut out of them or None."""

    parts: tuple[Part, ...]
    court: Part | None = None


def surface(rng: np.random.Generator) -> np.ndarray:
    """A colour out of `SURFACES`, a little off."""
    return vary(SURFACES[rng.integers(len(SURFACES))], rng)


def vary(colour: np.ndarray, rng: np.random.Generator, by: float = 0.05) -> np.ndarray:
    """`colour` made lighter or darker, and a little of another hue."""
    return colour * rng.normal(1.0, 1.6 * by) * rng.normal(1.0, by / 2, 3)


def house_plan(rng: np.random.Generator, longest: float) -> Plan:
    """A rectangle, L or T at most `longest` metres along u; its front is at lower v."""
    length = rng.uniform(min(10.5, longest - 1), longest)
    depth = rng.uniform(7.6, 9.6)
    shape = rng.choice(["rectangle", "L", "T"], p=[0.45, 0.35, 0.2])
    if shape == "rectangle":
        return Plan((Part(0, 0, length / 2, rng.uniform(7.8, 11.0) / 2),))
    main = Part(0, 0, length / 2, depth / 2)
    width = rng.uniform(0.42, 0.55) * length
    reach = rng.uniform(3.0, 5.0)
    side = rng.choice([-1, 1]) if shape == "L" else rng.uniform(-0.2, 0.2)
    wing = Part(side * (length - width) / 2, reach / 2, width / 2, (depth + reach) / 2)
    return Plan((main, wing))


def hall_plan(rng: np.random.Generator, longest: float) -> Plan:
    """A larger building: a hall, or one around a court."""
    if rng.random() < 0.3:
        half_u, half_v = longest / 2, rng.uniform(7.8, 8.8)
        court = Part(0, 0, half_u - rng.uniform(5.2, 6.0), half_v - rng.uniform(4.8, 5.6))
        return Plan((Part(0, 0, half_u, half_v),), court)
    return Plan((Part(0, 0, rng.uniform(0.8, 1.0) * longest / 2, rng.uniform(5.5, 8.0)),))


def outline(plan: Plan, x: float, y: float, angle: float) -> Polygon:
    """The plan's outline, court as a hole, in metres at (x, y) turned by `angle` radians."""
    shape = box(0, 0, 0, 0)
    for part in plan.parts:
        shape = shape.union(_rectangle(part))
    if plan.court is not None:
        shape = shape.difference(_rectangle(plan.court))
    turned = affinity.rotate(shape, angle, origin=(0, 0), use_radians=True)
    return affinity.translate(turned, x, y)


def _rectangle(part: Part) -> Polygon:
    return box(
        part.u - part.half_u, part.v - part.half_v, part.u + part.half_u, part.v + part.half_v
    )


def draw_building(
    canvas: Canvas, plan: Plan, x: float, y: float, angle: float, rng: np.random.Generator
) -> Polygon:
    """Draw a building with its roof, and return its outline in metres."""
    reach = max(np.hypot(abs(p.u) + p.half_u, abs(p.v) + p.half_v) for p in plan.parts)
    view = canvas.view(x, y, float(reach) + 0.5, angle)
    flat = rng.random() < (0.4 if plan.court or plan.parts[0].half_v > 6 else 0.12)
    kind = "flat" if flat else rng.choice(["gable", "hip"])
    slope = 0.0 if flat else rng.uniform(0.5, 0.8)
    inner, rise, facet = _roof(view, plan, str(kind))
    inside = inner > 0
    roof = rng.uniform(3.2, 5.5) + slope * np.minimum(rise, 4.5)
    colour = surface(rng) * (1 + 0.03 * np.sin(facet * rng.uniform(2, 9)))[..., None]
    if flat:
        roof = roof + 0.5 * (inner < 0.45)
        strips = np.abs(view.u % rng.uniform(1.6, 2.4) - 0.8) < 0.12
        colour = colour * np.where(strips, 0.88, 1.0)[..., None]
        colour = np.where((inner < 0.45)[..., None], colour * rng.uniform(1.2, 1.4), colour)
    else:
        courses = np.sin(rise * (2 * np.pi / rng.uniform(0.8, 1.2)))
        colour = colour * (1 + 0.09 * courses)[..., None]
        ridge = rng.choice([0.75, 1.25])
        colour = colour * np.where(_ridge(rise, inner), ridge, 1.0)[..., None]
    canvas.paint(view.where, inside, colour, grain=0.035, wear=0.05)
    canvas.raise_to(view.where, inside, roof)
    _furnish(canvas, view, plan, flat, rng)
    return outline(plan, x, y, angle)


def _roof(view: View, plan: Plan, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Metres inside the outline, metres inside that part's eaves, and a number per facet."""
    inner = np.full(view.u.shape, -np.inf, np.float32)
    rise, facet = inner.copy(), np.zeros_like(inner)
    for number, part in enumerate(plan.parts):
        u, v = view.u - np.float32(part.u), view.v - np.float32(part.v)
        depth = inside_box(u, v, part.half_u, part.half_v)
        along_u = part.half_u > part.half_v
        across, half = (v, part.half_v) if along_u else (u, part.half_u)
        up = half - np.abs(across) if kind == "gable" and plan.court is None else depth
        higher = (depth > 0) & (up > rise)
        side = 2 * number + (across > 0) + 0.5 * (depth < half - np.abs(across))
        rise, facet = np.where(higher, up, rise), np.where(higher, side, facet)
        inner = np.maximum(inner, depth)
    if plan.court is not None:
        court = plan.court
        u, v = view.u - np.float32(court.u), view.v - np.float32(court.v)
        inner = np.minimum(inner, -inside_box(u, v, court.half_u, court.half_v))
        rise = inner
    return inner, np.where(np.isfinite(rise), rise, 0).astype(np.float32), facet


def _ridge(rise: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The line along the top of a roof."""
    top = rise.max(initial=0.0, where=inner > 0)
    return (inner > 0) & (rise > top - 0.2)


def _furnish(canvas: Canvas, view: View, plan: Plan, flat: bool, rng: np.random.Generator) -> None:
    """Chimneys and skylights, or on a flat roof the machines of its ventilation."""
    for _ in range(rng.integers(1, 4)):
        part = plan.parts[rng.integers(len(plan.parts))]
        u = np.float32(part.u + rng.uniform(-0.6, 0.6) * part.half_u)
        v = np.float32(part.v + rng.uniform(-0.6, 0.6) * part.half_v)
        half = rng.uniform(0.6, 1.2) if flat else 0.45
        spot = inside_box(view.u - u, view.v - v, half, half * rng.uniform(0.8, 1.4)) > 0
        if plan.court is not None:
            court = plan.court
            spot &= inside_box(view.u, view.v, court.half_u + 0.5, court.half_v + 0.5) < 0
        if not flat and rng.random() < 0.5:
            canvas.paint(view.where, spot, vary(np.array((0.42, 0.47, 0.54)), rng, 0.15))
            continue
        canvas.paint(view.where, spot, vary(np.array((0.58, 0.55, 0.53)), rng, 0.1))
        canvas.raise_to(view.where, spot, canvas.height[view.where] + 0.9)


def draw_tree(canvas: Canvas, x: float, y: float, radius: float, rng: np.random.Generator) -> None:
    """Draw a crown of several lobes, unless its trunk would stand in a building."""
    view = canvas.view(x, y, 1.4 * radius)
    if view.u.size == 0:
        return
    trunk = np.hypot(view.u, view.v) < 0.8
    if np.any(trunk & (canvas.height[view.where] > 1.5)):
        return
    crown = np.zeros_like(view.u)
    for _ in range(rng.integers(5, 9)):
        bearing, out = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.1, 0.6)
        lobe = radius * rng.uniform(0.35, 0.65)
        du, dv = view.u - out * np.cos(bearing), view.v - out * np.sin(bearing)
        top = np.sqrt(np.clip(lobe**2 - du**2 - dv**2, 0, None)) + 0.4 * (radius - out)
        crown = np.maximum(crown, np.where(top > 0.4 * (radius - out), top, 0))
    height = np.minimum(1.0 + radius * 0.9 + crown + 0.22 * canvas.speckle[view.where], HIGHEST)
    inside = (crown > 0) & (height > canvas.height[view.where])
    green = np.array(CROWN) + rng.uniform(0, 0.45) * (np.array(BARE_CROWN) - np.array(CROWN))
    canvas.paint(view.where, inside, vary(green, rng, 0.08), grain=0.14, wear=0.08)
    canvas.raise_to(view.where, inside, height)


def draw_car(canvas: Canvas, x: float, y: float, angle: float, rng: np.random.Generator) -> None:
    """Draw a car of about 4.4 m by 1.8 m."""
    view = canvas.view(x, y, 3.0, angle)
    body = inside_box(view.u, view.v, rng.uniform(2.0, 2.4), 0.9) > 0
    canvas.paint(view.where, body, vary(CAR_PAINTS[rng.integers(len(CAR_PAINTS))], rng), 0.01)
    canvas.raise_to(view.where, body, 1.0)
    cabin = inside_box(view.u + 0.2, view.v, 1.3, 0.75) > 0
    glass = cabin & (np.abs(view.u + 0.2) > 0.75)
    canvas.paint(view.where, glass, (0.17, 0.19, 0.22), 0.01)
    canvas.raise_to(view.where, cabin, 1.5)


def draw_flat(
    canvas: Canvas,
    x: float,
    y: float,
    angle: float,
    half_u: float,
    half_v: float,
    colour: Sequence[float] | np.ndarray,
) -> None:
    """Draw a level rectangle: paving, a tarpaulin. It has a roof's colour and no height."""
    view = canvas.view(x, y, float(np.hypot(half_u, half_v)), angle)
    inside = inside_box(view.u, view.v, half_u, half_v) > 0
    canvas.paint(view.where, inside, colour, grain=0.04, wear=0.06)
    canvas.raise_to(view.where, inside, 0.0)


def draw_court(canvas: Canvas, x: float, y: float, angle: float, rng: np.random.Generator) -> None:
    """Draw a tennis court with its lines, smaller than a real one to fit a plot."""
    half_u, half_v = 8.0, 5.0
    ground = vary(COURTS[rng.integers(len(COURTS))], rng)
    draw_flat(canvas, x, y, angle, half_u, half_v, ground)
    view = canvas.view(x, y, 10.0, angle)
    field = inside_box(view.u, view.v, half_u - 1.6, half_v - 1.2)
    box_line = (np.abs(view.v) < 0.12) & (np.abs(view.u) < 3.4)
    lines = (np.abs(field) < 0.12) | ((field > 0) & ((np.abs(view.u) < 0.1) | box_line))
    lines |= (field > 0) & (np.abs(np.abs(view.u) - 3.4) < 0.12)
    canvas.paint(view.where, lines, (0.85, 0.85, 0.83))


def draw_pool(canvas: Canvas, x: float, y: float, angle: float, rng: np.random.Generator) -> None:
    """Draw a swimming pool with its rim."""
    half_u, half_v = rng.uniform(2.2, 4.0), rng.uniform(1.4, 2.2)
    draw_flat(canvas, x, y, angle, half_u + 1, half_v + 1, surface(rng))
    draw_flat(canvas, x, y, angle, half_u, half_v, vary(np.array((0.33, 0.62, 0.70)), rng))
