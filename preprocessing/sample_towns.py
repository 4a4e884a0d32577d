"""The canvas of the sample scenes: what the ground looks like, how high it is, how it is lit.

Things are drawn as albedo (colour without light) and height. Shading, cast shadows and the
camera come afterwards and read both, so that a roof's bright side, its shadow and the shadow
of the tree that stands beside it always agree about where the sun is.
Lengths are metres, x to the right and y down from the scene's upper left corner.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from shapely import affinity
from shapely.geometry import Polygon, box

GSD = 0.3
DETAIL = 2
"""Canvas pixels per image pixel along a side: the image is their mean, hence antialiased."""
MARGIN = 16
"""Image pixels drawn beyond every side, so that shadows and crowns reach in from outside."""
HIGHEST = 16.0
"""Metres: nothing is drawn higher, which bounds how far a shadow can reach."""

Slices = tuple[slice, slice]


class View(NamedTuple):
    """A rectangle of the canvas with coordinates in metres along and across an object."""

    where: Slices
    u: np.ndarray
    v: np.ndarray


class Sun(NamedTuple):
    """Where the light comes from: azimuth clockwise from up, and elevation, in radians."""

    azimuth: float
    elevation: float

    @property
    def towards(self) -> tuple[float, float]:
        """Unit vector (x, y) on the ground towards the sun."""
        return float(np.sin(self.azimuth)), float(-np.cos(self.azimuth))


def value_noise(rng: np.random.Generator, size: int, cell: int) -> np.ndarray:
    """Smooth noise, float32 (size, size), about standard normal, features of `cell` pixels."""
    count = size // cell + 3
    coarse = rng.standard_normal((count, count), dtype=np.float32)
    smooth = cv2.resize(coarse, (count * cell, count * cell), interpolation=cv2.INTER_CUBIC)
    return smooth[cell : cell + size, cell : cell + size] * np.float32(1.4)


def inside_box(u: np.ndarray, v: np.ndarray, half_u: float, half_v: float) -> np.ndarray:
    """Metres from each point to the nearest side of a box around the origin, inside positive."""
    return np.minimum(half_u - np.abs(u), half_v - np.abs(v))


class Canvas:
    """Albedo float32 (n, n, 3) in 0..1 and height float32 (n, n) in metres, to be drawn on.

    Args:
        size: side of the image in pixels; the canvas is finer and has a margin.
        rng: source of the textures.

    Attributes:
        x, y: metres of every canvas pixel's centre, float32, shapes (1, n) and (n, 1).
        speckle: fine noise (n, n), about standard normal: grain of every surface.
        clouds: noise of several sizes (n, n): worn, dry and damp places.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        n = (size + 2 * MARGIN) * DETAIL
        axis = ((np.arange(n) + 0.5) / DETAIL - MARGIN) * GSD
        self.x = axis.astype(np.float32)[None, :]
        self.y = axis.astype(np.float32)[:, None]
        self.albedo = np.zeros((n, n, 3), np.float32)
        self.height = np.zeros((n, n), np.float32)
        fine = rng.standard_normal((n, n), dtype=np.float32)
        self.speckle = 0.6 * fine + 0.8 * value_noise(rng, n, 5)
        self.clouds = sum(
            share * value_noise(rng, n, cell)
            for share, cell in ((0.7, 160), (0.55, 60), (0.45, 20))
        )

    def view(self, x: float, y: float, reach: float, angle: float = 0.0) -> View:
        """The pixels within `reach` metres of a point, in axes turned by `angle` radians.

        Outside the canvas the view is empty, and drawing on it does nothing.
        """
        columns = slice(*np.searchsorted(self.x[0], (x - reach, x + reach)).tolist())
        rows = slice(*np.searchsorted(self.y[:, 0], (y - reach, y + reach)).tolist())
        dx, dy = self.x[:, columns] - np.float32(x), self.y[rows] - np.float32(y)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return View((rows, columns), dx * cos + dy * sin, dy * cos - dx * sin)

    def paint(
        self,
        where: Slices,
        inside: np.ndarray,
        colour: Sequence[float] | np.ndarray,
        grain: float = 0.04,
        wear: float = 0.03,
    ) -> None:
        """Give `inside` (bool, the shape of `where`) a colour with the surface's texture.

        Args:
            where: rows and columns of the canvas.
            inside: which of them to paint.
            colour: RGB in 0..1, one for all or one per pixel (h, w, 3).
            grain: strength of the fine texture, as a share of the colour.
            wear: strength of the coarse texture, likewise.
        """
        texture = 1 + grain * self.speckle[where] + wear * self.clouds[where]
        painted = np.asarray(colour, np.float32) * texture[..., None]
        np.copyto(self.albedo[where], painted, where=inside[..., None])

    def raise_to(self, where: Slices, inside: np.ndarray, height: np.ndarray | float) -> None:
        """Set the height in metres where `inside` holds."""
        np.copyto(self.height[where], np.float32(height), where=inside)


def cast_shadows(height: np.ndarray, sun: Sun, pixel: float) -> np.ndarray:
    """Which pixels the sun does not reach: bool, the shape of `height` (metres).

    A pixel lies in shadow where, some distance towards the sun, the ground is higher than the
    ray. The highest obstacle over 2^k steps is the higher of two of 2^(k - 1) steps, so that a
    few shifted maxima replace a march along every ray.
    """
    fall = np.float32(np.tan(sun.elevation) * pixel)
    steps = HIGHEST / fall
    obstacle, length = height, 1
    while length < steps:
        dx, dy = (round(part * length) for part in sun.towards)
        run = np.float32(np.hypot(dx, dy)) * fall
        obstacle = np.maximum(obstacle, _shifted(obstacle, dx, dy) - run)
        length *= 2
    return obstacle > height + np.float32(0.15)


def _shifted(values: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """`values` read dx columns and dy rows further; beyond the edge there is level ground."""
    rows, columns = values.shape
    out = np.zeros_like(values)
    if abs(dy) < rows and abs(dx) < columns:
        to_rows = slice(max(0, -dy), min(rows, rows - dy))
        to_columns = slice(max(0, -dx), min(columns, columns - dx))
        from_rows = slice(max(0, dy), min(rows, rows + dy))
        from_columns = slice(max(0, dx), min(columns, columns + dx))
        out[to_rows, to_columns] = values[from_rows, from_columns]
    return out


def light(canvas: Canvas, sun: Sun) -> np.ndarray:
    """The canvas under the sun and the sky: float32 (n, n, 3), level sunlit ground = albedo."""
    pixel = GSD / DETAIL
    slope_x = cv2.Sobel(canvas.height, cv2.CV_32F, 1, 0, ksize=3) / np.float32(8 * pixel)
    slope_y = cv2.Sobel(canvas.height, cv2.CV_32F, 0, 1, ksize=3) / np.float32(8 * pixel)
    # Walls are seen from above, as a line: without a limit they would be black or burnt out.
    np.clip(slope_x, -1.5, 1.5, out=slope_x)
    np.clip(slope_y, -1.5, 1.5, out=slope_y)
    east, south = sun.towards
    level = np.float32(np.tan(sun.elevation))
    facing = (level - east * slope_x - south * slope_y) / level
    facing /= np.sqrt(1 + slope_x**2 + slope_y**2)
    lit = np.clip(facing, 0, 1.7) * ~cast_shadows(canvas.height, sun, pixel)
    sky = np.array([0.31, 0.35, 0.41], np.float32)
    return canvas.albedo * (sky + (1 - sky) * lit[..., None].astype(np.float32))


def photograph(lit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera makes of the lit canvas: uint8 (size, size, 3).

    Margin cut off, area mean to the image's pixels, colour cast, haze, exposure, a slightly
    soft lens and sensor noise; all but the first two differ from scene to scene.
    """
    edge = MARGIN * DETAIL
    inner = lit[edge:-edge, edge:-edge]
    size = inner.shape[0] // DETAIL
    image = cv2.resize(inner, (size, size), interpolation=cv2.INTER_AREA)
    cast = rng.normal(1.0, 0.03, 3) * rng.uniform(0.88, 1.08)
    haze = rng.uniform(0.0, 0.12)
    veil = np.array([0.72, 0.78, 0.85])
    image = image * (cast * (1 - haze)).astype(np.float32) + (veil * haze).astype(np.float32)
    image = np.clip(image, 0, None) ** np.float32(rng.uniform(0.9, 1.1))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.65))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image * 255 + noise * np.float32(rng.uniform(2.0, 4.5))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


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


PLOT = 20.0
DEPTH = 25.0
STREET = 3.2
WALK = 1.7
LAWN, DRY, SOIL = (0.31, 0.38, 0.21), (0.45, 0.44, 0.29), (0.52, 0.42, 0.32)


class Town:
    """The grid under a scene: where a point lies along and across the streets.

    Plots are PLOT metres along a street and DEPTH deep; a street runs between every second row
    of plots, a cross street takes the place of one plot in `run`. The grid's origin is a plot
    with a house near the scene's middle, so that no scene is without a building.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        self.metres = metres = size * GSD
        self.angle = rng.uniform(0, np.pi)
        self.middle = metres / 2 + rng.uniform(-0.2, 0.2, 2) * metres
        self.bend = rng.uniform(0, 5), rng.uniform(35, 60), rng.uniform(0, 2 * np.pi)
        self.run = int(rng.integers(4, 7))
        self.cross = int(rng.integers(1, self.run))
        self.reach = int(metres / min(PLOT, DEPTH)) + 3
        blocks = 2 * self.reach + 1
        deck = np.array(["homes"] * 14 + ["yard"] * 3 + ["field"] * 3 + ["wood"] * 2)
        self.uses = rng.choice(deck, (blocks, blocks))
        self.uses[self.block(0, 0)] = "homes"

    def block(self, row: np.ndarray | int, plot: np.ndarray | int) -> tuple:
        """Index into `uses` of the block that a plot belongs to."""
        return row // 2 + self.reach, (plot - self.cross) // self.run + self.reach

    def use(self, row: int, plot: int) -> str:
        """What a plot is used for: homes, yard, field, wood or street."""
        if (plot - self.cross) % self.run == 0:
            return "street"
        return str(self.uses[self.block(row, plot)])

    def sway(self, along: np.ndarray | float) -> np.ndarray | float:
        """Metres by which the streets are bent aside."""
        strength, length, phase = self.bend
        return strength * np.sin(along / length + phase)

    def place(self, along: float, across: float) -> tuple[float, float, float]:
        """Find x and y in metres of a point of the grid, and the street's angle there."""
        strength, length, phase = self.bend
        b = across + self.sway(along)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x = self.middle[0] + (along - PLOT / 2) * cos - (b - DEPTH / 2) * sin
        y = self.middle[1] + (along - PLOT / 2) * sin + (b - DEPTH / 2) * cos
        turn = np.arctan(strength / length * np.cos(along / length + phase))
        return float(x), float(y), float(self.angle + turn)

    def grid(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """Metres along and across the streets for every canvas pixel: inverse of `place`."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx = canvas.x - np.float32(self.middle[0])
        dy = canvas.y - np.float32(self.middle[1])
        along = dx * cos + dy * sin + np.float32(PLOT / 2)
        across = dy * cos - dx * sin + np.float32(DEPTH / 2)
        return along, across - self.sway(along).astype(np.float32)

    def plots(self) -> Iterator[tuple[int, int]]:
        """Row and number of every plot that may reach into the scene or throw a shadow there."""
        span = range(-self.reach, self.reach + 1)
        for row in span:
            for plot in span:
                x, y, _ = self.place((plot + 0.5) * PLOT, (row + 0.5) * DEPTH)
                if all(-PLOT - DEPTH < m < self.metres + PLOT + DEPTH for m in (x, y)):
                    yield row, plot


def draw_ground(canvas: Canvas, town: Town, rng: np.random.Generator) -> None:
    """Draw lawns, fields and streets."""
    along, across = town.grid(canvas)
    row, plot = (np.floor(m / s).astype(int) for m, s in ((across, DEPTH), (along, PLOT)))
    block = town.block(row, plot)
    everywhere = (slice(None), slice(None))
    dry = np.clip(0.35 + 0.3 * canvas.clouds + rng.normal(0, 0.25), 0, 1)[..., None]
    lawn = np.array(LAWN) * (1 - dry) + np.array(DRY) * dry
    lawn *= rng.normal(1, 0.07, town.uses.shape + (2,))[(*block, plot % 2)][..., None]
    canvas.paint(everywhere, np.ones(along.shape, bool), lawn, grain=0.07, wear=0.02)
    bare = canvas.clouds + 0.3 * canvas.speckle > rng.uniform(0.9, 1.6)
    canvas.paint(everywhere, bare, vary(np.array(SOIL), rng), grain=0.06)

    _draw_fields(canvas, town.uses[block] == "field", along, across, block, rng)
    aside = np.abs((across + DEPTH) % (2 * DEPTH) - DEPTH)
    start = (town.cross + 0.5) * PLOT
    length = town.run * PLOT
    aside_cross = np.abs((along - start + length / 2) % length - length / 2)
    nearest = np.minimum(aside, aside_cross)
    canvas.paint(everywhere, nearest < STREET + WALK, surface(rng), grain=0.03)
    canvas.paint(everywhere, nearest < STREET, asphalt_colour(rng), grain=0.05, wear=0.06)
    dashes = (along % 6 < 3) & (aside_cross > STREET + 2)
    line = (np.abs(aside) < 0.13) & dashes
    kerb = (np.abs(nearest - STREET) < 0.12) & (aside_cross + aside > STREET + 6)
    canvas.paint(everywhere, line, (0.86, 0.86, 0.84), grain=0.08)
    canvas.paint(everywhere, kerb, (0.66, 0.65, 0.63), grain=0.05)


def asphalt_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour for what is driven on: greys mostly, as roofs have them too."""
    return vary(SURFACES[rng.choice([3, 4, 4, 4, 5])], rng)


def _draw_fields(
    canvas: Canvas,
    inside: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    block: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Draw ploughed and grown fields: rows of two colours in one of two directions."""
    shape = (block[0].max() + 1, block[1].max() + 1)
    soil = SURFACES[rng.choice([0, 1, 2, 6, 7], shape)].astype(np.float32)
    crop = np.array(LAWN) * rng.normal(1, 0.1, (*shape, 1))
    crop = np.where(rng.random((*shape, 1)) < 0.5, crop, soil * 0.85).astype(np.float32)
    period = rng.uniform(1.2, 2.4, shape).astype(np.float32)[block]
    rows = np.where((rng.random(shape) < 0.5)[block], along, across)
    share = (0.5 + 0.5 * np.sin(rows * (2 * np.pi / period) + 0.4 * canvas.clouds))[..., None]
    colour = soil[block] + (crop - soil)[block] * share
    canvas.paint((slice(None), slice(None)), inside, colour, grain=0.07, wear=0.05)


def draw_home(
    canvas: Canvas, town: Town, row: int, plot: int, rng: np.random.Generator
) -> list[Polygon]:
    """Draw a plot with its house, driveway and garden; now and then one without a house."""
    along = (plot + 0.5) * PLOT + rng.uniform(-1, 1)
    if (row, plot) != (0, 0) and rng.random() < 0.09:
        _draw_lookalike(canvas, town, along, (row + 0.5) * DEPTH, rng)
        return []
    plan = house_plan(rng, PLOT - 3)
    front = STREET + WALK + rng.uniform(2, 4.5)
    half = max(part.half_v for part in plan.parts)
    away = front + half
    x, y, angle = town.place(along, _from_street(row, away))
    side = rng.choice([-1, 1])
    end = along + side * (PLOT / 2 - 2.2)
    drive = rng.uniform(front - 1, front + 3)
    at_drive = town.place(end, _from_street(row, STREET + drive / 2))
    draw_flat(canvas, *at_drive, rng.uniform(1.4, 1.9), drive / 2, surface(rng))
    if rng.random() < 0.5:
        _draw_garden(canvas, town, row, along, away + half, rng)
    turn = angle + (np.pi if row % 2 else 0) + rng.normal(0, 0.04)
    shape = draw_building(canvas, plan, x, y, turn, rng)
    if rng.random() < 0.6:
        cx, cy, ca = town.place(end, _from_street(row, STREET + WALK + rng.uniform(2.5, 4)))
        draw_car(canvas, cx, cy, ca + np.pi / 2, rng)
    return [shape]


def _from_street(row: int, away: float) -> float:
    """Metres across the grid of a point `away` from the middle of the street of a row."""
    return row * DEPTH + away if row % 2 == 0 else (row + 1) * DEPTH - away


def _draw_garden(
    canvas: Canvas, town: Town, row: int, along: float, away: float, rng: np.random.Generator
) -> None:
    """Draw a terrace, a pool or a tarpaulin behind the house."""
    spot = town.place(along + rng.uniform(-4, 4), _from_street(row, away + rng.uniform(1, 4)))
    kind = rng.choice(["terrace", "terrace", "pool", "tarpaulin"])
    if kind == "pool":
        draw_pool(canvas, *spot, rng)
    elif kind == "terrace":
        sides = rng.uniform(2, 3.5), rng.uniform(1.5, 2.5)
        draw_flat(canvas, *spot, *sides, surface(rng))
    else:
        colour = TARPAULINS[rng.integers(len(TARPAULINS))]
        draw_flat(canvas, *spot, rng.uniform(1.5, 3), 1.6, colour)


def _draw_lookalike(
    canvas: Canvas, town: Town, along: float, across: float, rng: np.random.Generator
) -> None:
    """Draw a flat thing of a house's size and colour."""
    x, y, angle = town.place(along, across)
    if rng.random() < 0.3:
        draw_court(canvas, x, y, angle, rng)
        return
    sides = rng.uniform(5, 8.5), rng.uniform(4, 6)
    draw_flat(canvas, x, y, angle, *sides, surface(rng))


def draw_yard(
    canvas: Canvas, town: Town, row: int, plot: int, rng: np.random.Generator
) -> list[Polygon]:
    """Draw a plot of a yard: a hall with a forecourt, a car park or something flat."""
    along, across = (plot + 0.5) * PLOT, _from_street(row, (DEPTH + STREET + WALK) / 2 + 1)
    kind = rng.choice(["hall", "parking", "lookalike"], p=[0.6, 0.25, 0.15])
    if kind == "lookalike":
        _draw_lookalike(canvas, town, along, across, rng)
        return []
    if kind == "parking":
        _draw_parking(canvas, town, along, across, rng)
        return []
    plan = hall_plan(rng, PLOT - 1.5)
    front = town.place(along, _from_street(row, STREET + WALK + 2))
    draw_flat(canvas, *front, rng.uniform(3, 8), 2.0, asphalt_colour(rng))
    x, y, angle = town.place(along, across)
    return [draw_building(canvas, plan, x, y, angle + rng.normal(0, 0.02), rng)]


def _draw_parking(
    canvas: Canvas, town: Town, along: float, across: float, rng: np.random.Generator
) -> None:
    """Draw a paved rectangle with marked places and cars."""
    x, y, angle = town.place(along, across)
    draw_flat(canvas, x, y, angle, PLOT / 2, 8.6, asphalt_colour(rng))
    for shift in np.arange(-7.5, 8, 2.7):
        for line in (-5.0, 3.0):
            x, y, angle = town.place(along + shift, across + line)
            view = canvas.view(x, y, 3.0, angle)
            mark = (np.abs(view.u - 1.35) < 0.1) & (np.abs(view.v) < 2.5)
            canvas.paint(view.where, mark, (0.84, 0.84, 0.82))
            if rng.random() < 0.6:
                draw_car(canvas, x, y, angle + np.pi / 2, rng)


def draw_plots(canvas: Canvas, town: Town, rng: np.random.Generator) -> list[Polygon]:
    """Draw every home and yard, and return the outlines of the buildings in metres."""
    draw = {"homes": draw_home, "yard": draw_yard}
    outlines: list[Polygon] = []
    for row, plot in town.plots():
        use = town.use(row, plot)
        if use in draw:
            outlines += draw[use](canvas, town, row, plot, rng)
    return outlines


def draw_greenery(canvas: Canvas, town: Town, rng: np.random.Generator) -> None:
    """Draw trees by the use of the plots, and along one side of the streets."""
    number = {"homes": (0, 3), "yard": (0, 2), "field": (0, 2), "wood": (9, 16), "street": (0, 1)}
    for row, plot in town.plots():
        use = town.use(row, plot)
        for _ in range(rng.integers(*number[use])):
            along = (plot + rng.uniform(0, 1)) * PLOT
            away = rng.uniform(STREET + 4, DEPTH)
            x, y, _ = town.place(along, _from_street(row, away))
            radius = rng.uniform(1.4, 3.2) * (1.2 if use == "wood" else 1.0)
            draw_tree(canvas, x, y, radius, rng)
        if use != "street" and rng.random() < 0.4:
            x, y, angle = town.place((plot + rng.random()) * PLOT, _from_street(row, 1.7))
            draw_car(canvas, x, y, angle, rng)
