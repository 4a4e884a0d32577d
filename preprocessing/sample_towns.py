"""Draw a made-up town from above: ground, streets, buildings, trees and cars in sunlight.

Things are drawn as albedo (colour without light) and height. Shading, cast shadows and the camera
come afterwards, so all of them agree about where the sun is. Lengths are metres, x to the right
and y down from the scene's upper left corner; angles are radians.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from shapely import affinity, union_all
from shapely.geometry import Polygon, box

GSD = 0.3
# Canvas pixels per image pixel along a side; the image is their mean, so it is antialiased.
DETAIL = 2
# Image pixels drawn beyond every side, so that shadows and crowns reach in from outside.
MARGIN = 16
# Nothing is higher than this, which limits the reach of shadows.
HIGHEST = 16.0
PLOT, DEPTH = 20.0, 25.0
# Half the width of a street, and the pavement beside it.
STREET, WALK = 3.2, 1.7
# Colours of roofs, paving, roads and bare soil alike: colour alone must not tell them apart.
SURFACES = np.array(
    [(0.64, 0.41, 0.32), (0.52, 0.34, 0.28), (0.46, 0.38, 0.32), (0.34, 0.35, 0.37)]
    + [(0.50, 0.50, 0.51), (0.70, 0.68, 0.65), (0.63, 0.56, 0.45), (0.40, 0.41, 0.34)]
)
CAR_PAINTS = np.array(
    [(0.85, 0.85, 0.85), (0.62, 0.63, 0.65), (0.14, 0.14, 0.16), (0.55, 0.12, 0.11)]
    + [(0.18, 0.25, 0.45), (0.72, 0.72, 0.74), (0.30, 0.31, 0.33)]
)
BARE_CROWN, CROWN = np.array((0.36, 0.33, 0.20)), np.array((0.22, 0.31, 0.14))
LAWN, DRY, SOIL = np.array([(0.31, 0.38, 0.21), (0.45, 0.44, 0.29), (0.52, 0.42, 0.32)])
GREYS = [3, 4, 4, 4, 5]
EVERYWHERE = (slice(None), slice(None))


class Spot(NamedTuple):
    """A place on the ground, and the direction of what stands there."""

    x: float
    y: float
    angle: float = 0.0


class Sun(NamedTuple):
    """Where the light comes from: azimuth clockwise from up, and elevation."""

    azimuth: float
    elevation: float

    @property
    def towards(self) -> tuple[float, float]:
        """The unit vector (x, y) on the ground towards the sun."""
        return float(np.sin(self.azimuth)), float(-np.cos(self.azimuth))


class Canvas:
    """Albedo float32 (n, n, 3) in 0..1 and height float32 (n, n) of a scene.

    The canvas is finer than the image, which has ``size`` pixels a side, and has a margin. ``x``
    (1, n) and ``y`` (n, 1) are the centres of its pixels. ``speckle`` (n, n) is fine noise, about
    standard normal, for the grain of surfaces; ``clouds`` (n, n) is noise of several sizes, for
    worn, dry and damp places.
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

    def view(self, spot: Spot, reach: float) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """Return the pixels within ``reach`` of a spot, and where they lie along and across it."""
        x, y, angle = spot
        columns = slice(*np.searchsorted(self.x[0], (x - reach, x + reach)).tolist())
        rows = slice(*np.searchsorted(self.y[:, 0], (y - reach, y + reach)).tolist())
        offset = self.x[:, columns] - np.float32(x) + 1j * (self.y[rows] - np.float32(y))
        offset *= np.exp(np.complex64(-1j * angle))
        return (rows, columns), offset.real, offset.imag

    def paint(
        self,
        where: tuple[slice, slice],
        inside: np.ndarray,
        colour: Sequence[float] | np.ndarray,
        height: np.ndarray | float | None = None,
        grain: float = 0.04,
        wear: float = 0.03,
    ) -> None:
        """Give the pixels ``inside`` (bool, of the shape of ``where``) a colour and a height.

        The colour, one for all or (h, w, 3), gets shares of fine and coarse texture.
        """
        texture = 1 + grain * self.speckle[where] + wear * self.clouds[where]
        painted = np.asarray(colour, np.float32) * texture[..., None]
        np.copyto(self.albedo[where], painted, where=inside[..., None])
        if height is not None:
            np.copyto(self.height[where], np.float32(height), where=inside)


def value_noise(rng: np.random.Generator, size: int, cell: int) -> np.ndarray:
    """Return smooth noise, a wave about ``cell`` pixels: float32 (size, size), standard normal."""
    count = size // cell + 3
    coarse = rng.standard_normal((count, count), dtype=np.float32)
    smooth = cv2.resize(coarse, (count * cell, count * cell), interpolation=cv2.INTER_CUBIC)
    return smooth[cell : cell + size, cell : cell + size] * np.float32(1.4)


def inside_box(u: np.ndarray, v: np.ndarray, half_u: float, half_v: float) -> np.ndarray:
    """Return the distance to the nearest side of a box around the origin, positive inside."""
    return np.minimum(half_u - np.abs(u), half_v - np.abs(v))


def surface(rng: np.random.Generator, among: Sequence[int] = range(8)) -> np.ndarray:
    """Return one of these ``SURFACES``, slightly varied."""
    return vary(SURFACES[rng.choice(among)], rng)


def vary(colour: np.ndarray, rng: np.random.Generator, by: float = 0.05) -> np.ndarray:
    """Return the colour a little lighter or darker, with a slightly different hue."""
    return colour * rng.normal(1.0, 1.6 * by) * rng.normal(1.0, by / 2, 3)


def cast_shadows(height: np.ndarray, sun: Sun, pixel: float) -> np.ndarray:
    """Return which pixels (of ``pixel`` metres) lie in shadow: bool, the shape of ``height``.

    They do if the ground somewhere towards the sun is higher than the ray. The highest obstacle
    over 2^k steps is the higher of two of 2^(k - 1) steps, so a few shifted maxima replace a march
    along every ray.
    """
    fall = np.float32(np.tan(sun.elevation) * pixel)
    obstacle, length = height, 1
    while length < HIGHEST / fall:
        dx, dy = (round(part * length) for part in sun.towards)
        run = np.float32(np.hypot(dx, dy)) * fall
        # The ground is level beyond the edge.
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        shifted = cv2.warpAffine(obstacle, shift, obstacle.shape[::-1], flags=flags)
        obstacle = np.maximum(obstacle, shifted - run)
        length *= 2
    return obstacle > height + np.float32(0.15)


def light(canvas: Canvas, sun: Sun) -> np.ndarray:
    """Return the canvas in the light of sun and sky; level sunlit ground keeps its albedo."""
    pixel = GSD / DETAIL
    # Walls, seen from above, are lines; without a limit they would be black or burnt out.
    slope_x, slope_y = (
        np.clip(cv2.Sobel(canvas.height, cv2.CV_32F, *axis, ksize=3) / (8 * pixel), -1.5, 1.5)
        for axis in ((1, 0), (0, 1))
    )
    east, south = sun.towards
    level = np.float32(np.tan(sun.elevation))
    facing = (level - east * slope_x - south * slope_y) / level
    facing /= np.sqrt(1 + slope_x**2 + slope_y**2)
    lit = np.clip(facing, 0, 1.7) * ~cast_shadows(canvas.height, sun, pixel)
    sky = np.array([0.31, 0.35, 0.41], np.float32)
    return canvas.albedo * (sky + (1 - sky) * lit[..., None].astype(np.float32))


def photograph(lit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what a camera makes of the lit canvas, without its margin: uint8 (size, size, 3)."""
    edge = MARGIN * DETAIL
    inner = lit[edge:-edge, edge:-edge]
    size = inner.shape[0] // DETAIL
    image = cv2.resize(inner, (size, size), interpolation=cv2.INTER_AREA)
    cast = rng.normal(1.0, 0.03, 3) * rng.uniform(0.88, 1.08)
    haze, veil = rng.uniform(0.0, 0.12), np.array([0.72, 0.78, 0.85])
    image = (image * cast * (1 - haze) + veil * haze).astype(np.float32)
    image = np.clip(image, 0, None) ** np.float32(rng.uniform(0.9, 1.1))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.65))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image * 255 + noise * np.float32(rng.uniform(2.0, 4.5))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


class Wing(NamedTuple):
    """A rectangle of a building's plan: centre and half sides, in the building's axes."""

    u: float
    v: float
    half_u: float
    half_v: float


def house_plan(rng: np.random.Generator, longest: float) -> tuple[Wing, ...]:
    """Return a rectangle, L or T, at most ``longest`` along u; the front is at lower v."""
    length, depth = rng.uniform(10.5, longest), rng.uniform(7.6, 10.0)
    main = Wing(0, 0, length / 2, depth / 2)
    if rng.random() < 0.45:
        return (main,)
    width, reach = rng.uniform(0.42, 0.55) * length, rng.uniform(3.0, 5.0)
    side = rng.choice([-1, 0, 1])
    wing = Wing(side * (length - width) / 2, reach / 2, width / 2, (depth + reach) / 2)
    return (main, wing)


def hall_plan(rng: np.random.Generator, longest: float) -> tuple[Wing, ...]:
    """Return one large rectangle."""
    return (Wing(0, 0, rng.uniform(0.8, 1.0) * longest / 2, rng.uniform(5.5, 8.8)),)


def outline(plan: tuple[Wing, ...], spot: Spot) -> Polygon:
    """Return the union of the plan's wings, which overlap."""
    shape = union_all(
        [box(w.u - w.half_u, w.v - w.half_v, w.u + w.half_u, w.v + w.half_v) for w in plan]
    )
    shape = affinity.rotate(shape, spot.angle, origin=(0, 0), use_radians=True)
    return affinity.translate(shape, spot.x, spot.y)


def draw_building(
    canvas: Canvas, plan: tuple[Wing, ...], spot: Spot, rng: np.random.Generator
) -> Polygon:
    """Draw a building with its roof, and return its outline."""
    reach = max(np.hypot(abs(w.u) + w.half_u, abs(w.v) + w.half_v) for w in plan)
    where, u, v = canvas.view(spot, float(reach) + 0.5)
    flat = rng.random() < (0.4 if plan[0].half_v > 6 else 0.12)
    inner, rise = _roof(u, v, plan, gable=rng.random() < 0.5)
    colour = np.broadcast_to(surface(rng), (*inner.shape, 3))
    height = rng.uniform(3.2, 5.5)
    if flat:
        parapet = inner < 0.45
        height = height + 0.5 * parapet
        colour = colour * np.where(parapet, rng.uniform(1.2, 1.4), 1.0)[..., None]
    else:
        height = height + rng.uniform(0.5, 0.8) * np.minimum(rise, 4.5)
        courses = np.sin(rise * (2 * np.pi / rng.uniform(0.8, 1.2)))
        ridge = rise > rise.max(initial=0.0) - 0.2
        tone = (1 + 0.09 * courses) * np.where(ridge, rng.choice([0.75, 1.25]), 1.0)
        colour = colour * tone[..., None]
    canvas.paint(where, inner > 0, colour, height, grain=0.035, wear=0.05)
    return outline(plan, spot)


def _roof(
    u: np.ndarray, v: np.ndarray, plan: tuple[Wing, ...], gable: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance inside the outline, and inside the eaves of the highest wing."""
    inner = np.full(u.shape, -np.inf, np.float32)
    rise = np.zeros_like(inner)
    for wing in plan:
        du, dv = u - np.float32(wing.u), v - np.float32(wing.v)
        depth = slope = inside_box(du, dv, wing.half_u, wing.half_v)
        if gable:
            lengthwise = wing.half_u > wing.half_v
            slope = wing.half_v - np.abs(dv) if lengthwise else wing.half_u - np.abs(du)
        rise = np.where((depth > 0) & (slope > rise), slope, rise)
        inner = np.maximum(inner, depth)
    return inner, rise.astype(np.float32)


def draw_tree(canvas: Canvas, spot: Spot, radius: float, rng: np.random.Generator) -> None:
    """Draw a crown of several lobes, unless its trunk would stand in a building."""
    where, u, v = canvas.view(spot, 1.4 * radius)
    trunk = np.hypot(u, v) < 0.8
    if u.size == 0 or np.any(trunk & (canvas.height[where] > 1.5)):
        return
    crown = np.zeros_like(u)
    for _ in range(rng.integers(5, 9)):
        bearing, out = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.1, 0.6)
        lobe = radius * rng.uniform(0.35, 0.65)
        du, dv = u - out * np.cos(bearing), v - out * np.sin(bearing)
        top = np.sqrt(np.clip(lobe**2 - du**2 - dv**2, 0, None)) + 0.4 * (radius - out)
        crown = np.maximum(crown, np.where(top > 0.4 * (radius - out), top, 0))
    height = np.minimum(1.0 + radius * 0.9 + crown + 0.22 * canvas.speckle[where], HIGHEST)
    inside = (crown > 0) & (height > canvas.height[where])
    green = vary(CROWN + rng.uniform(0, 0.45) * (BARE_CROWN - CROWN), rng, 0.08)
    canvas.paint(where, inside, green, height, grain=0.14, wear=0.08)


def draw_car(canvas: Canvas, spot: Spot, rng: np.random.Generator) -> None:
    """Draw a car of about 4.4 m by 1.8 m."""
    where, u, v = canvas.view(spot, 3.0)
    body = inside_box(u, v, rng.uniform(2.0, 2.4), 0.9) > 0
    canvas.paint(where, body, vary(rng.choice(CAR_PAINTS), rng), 1.3, grain=0.01)
    glass = (inside_box(u + 0.2, v, 1.3, 0.75) > 0) & (np.abs(u + 0.2) > 0.75)
    canvas.paint(where, glass, (0.17, 0.19, 0.22), grain=0.01)


def draw_flat(
    canvas: Canvas, spot: Spot, half_u: float, half_v: float, colour: Sequence[float] | np.ndarray
) -> None:
    """Draw a rectangle without height, such as paving; it may have a roof's colour."""
    where, u, v = canvas.view(spot, float(np.hypot(half_u, half_v)))
    inside = inside_box(u, v, half_u, half_v) > 0
    canvas.paint(where, inside, colour, 0.0, grain=0.04, wear=0.06)


class Town:
    """The grid of plots and streets under a scene.

    Plots are PLOT wide and DEPTH deep; a street runs between every second row of plots, and a cross
    street replaces one plot in ``run``. The grid's origin is a plot with a house near the scene's
    middle, so every scene has a building.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        self.metres = metres = size * GSD
        self.angle = rng.uniform(0, np.pi)
        self.middle = complex(*(metres * rng.uniform(0.3, 0.7, 2)))
        self.run = int(rng.integers(4, 7))
        self.cross = int(rng.integers(1, self.run))
        self.reach = int(metres / min(PLOT, DEPTH)) + 3
        blocks = 2 * self.reach + 1
        deck = np.array(["homes"] * 14 + ["yard"] * 3 + ["field"] * 3 + ["wood"] * 2)
        self.uses = rng.choice(deck, (blocks, blocks))
        self.uses[self.block(0, 0)] = "homes"

    def block(self, row: np.ndarray | int, plot: np.ndarray | int) -> tuple:
        """Return the index into ``uses`` of the block that a plot belongs to."""
        return row // 2 + self.reach, (plot - self.cross) // self.run + self.reach

    def use(self, row: int, plot: int) -> str:
        """Return what a plot is used for: homes, yard, field, wood or street."""
        if (plot - self.cross) % self.run == 0:
            return "street"
        return str(self.uses[self.block(row, plot)])

    def place(self, along: float, across: float) -> Spot:
        """Return the spot of a point of the grid, with the street's direction."""
        point = complex(along - PLOT / 2, across - DEPTH / 2) * np.exp(1j * self.angle)
        point += self.middle
        return Spot(float(point.real), float(point.imag), self.angle)

    def in_plot(self, row: int, along: float, away: float, turn: float = 0.0) -> Spot:
        """Return the spot ``away`` from the middle of the street of a row."""
        across = row * DEPTH + away if row % 2 == 0 else (row + 1) * DEPTH - away
        x, y, angle = self.place(along, across)
        return Spot(x, y, angle + turn)

    def grid(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """Return along and across for every canvas pixel: the inverse of ``place``."""
        point = (canvas.x + 1j * canvas.y - self.middle) * np.exp(-1j * self.angle)
        along, across = point.real + PLOT / 2, point.imag + DEPTH / 2
        return along.astype(np.float32), across.astype(np.float32)

    def plots(self) -> Iterator[tuple[int, int]]:
        """Yield row and number of every plot that may reach into the scene or shade it."""
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
    dry = np.clip(0.35 + 0.3 * canvas.clouds + rng.normal(0, 0.25), 0, 1)[..., None]
    lawn = LAWN * (1 - dry) + DRY * dry
    lawn *= rng.normal(1, 0.07, (*town.uses.shape, 2))[(*block, plot % 2)][..., None]
    canvas.paint(EVERYWHERE, np.ones(along.shape, bool), lawn, grain=0.07, wear=0.02)
    bare = canvas.clouds + 0.3 * canvas.speckle > rng.uniform(0.9, 1.6)
    canvas.paint(EVERYWHERE, bare, vary(SOIL, rng), grain=0.06)
    # Fields are rows of soil and crop.
    soil = SURFACES[rng.choice([0, 1, 2, 6, 7], town.uses.shape)].astype(np.float32)[block]
    period = rng.uniform(1.2, 2.4, town.uses.shape).astype(np.float32)[block]
    share = 0.5 + 0.5 * np.sin(along * (2 * np.pi / period) + 0.4 * canvas.clouds)[..., None]
    field = soil + (vary(LAWN, rng) - soil) * share
    canvas.paint(EVERYWHERE, town.uses[block] == "field", field, grain=0.07, wear=0.05)

    aside = np.abs((across + DEPTH) % (2 * DEPTH) - DEPTH)
    start, length = (town.cross + 0.5) * PLOT, town.run * PLOT
    aside_cross = np.abs((along - start + length / 2) % length - length / 2)
    nearest = np.minimum(aside, aside_cross)
    canvas.paint(EVERYWHERE, nearest < STREET + WALK, surface(rng), grain=0.03)
    canvas.paint(EVERYWHERE, nearest < STREET, surface(rng, GREYS), grain=0.05, wear=0.06)
    dashes = (np.abs(aside) < 0.13) & (along % 6 < 3) & (aside_cross > STREET + 2)
    canvas.paint(EVERYWHERE, dashes, (0.86, 0.86, 0.84), grain=0.08)


def draw_plots(canvas: Canvas, town: Town, rng: np.random.Generator) -> list[Polygon]:
    """Draw every home and yard, and return the outlines of the buildings."""
    shapes: list[Polygon] = []
    for row, plot in town.plots():
        along, use = (plot + 0.5) * PLOT, town.use(row, plot)
        if use not in ("homes", "yard"):
            continue
        if (row, plot) != (0, 0) and rng.random() < (0.09 if use == "homes" else 0.35):
            # Something flat of a building's size and colour.
            spot = town.in_plot(row, along, (DEPTH + STREET) / 2)
            draw_flat(canvas, spot, rng.uniform(5, 8.5), rng.uniform(4, 7), surface(rng))
        elif use == "homes":
            shapes.append(_draw_home(canvas, town, row, along + rng.uniform(-1, 1), rng))
        else:
            spot = town.in_plot(row, along, (DEPTH + STREET + WALK) / 2 + 1)
            shapes.append(draw_building(canvas, hall_plan(rng, PLOT - 1.5), spot, rng))
    return shapes


def _draw_home(
    canvas: Canvas, town: Town, row: int, along: float, rng: np.random.Generator
) -> Polygon:
    """Draw a house with its driveway, and often a car."""
    plan = house_plan(rng, PLOT - 3)
    front = STREET + WALK + rng.uniform(2, 4.5)
    half = max(wing.half_v for wing in plan)
    end = along + rng.choice([-1, 1]) * (PLOT / 2 - 2.2)
    drive = rng.uniform(front - 1, front + 3)
    spot = town.in_plot(row, end, STREET + drive / 2)
    draw_flat(canvas, spot, rng.uniform(1.4, 1.9), drive / 2, surface(rng))
    turn = (np.pi if row % 2 else 0) + rng.normal(0, 0.04)
    shape = draw_building(canvas, plan, town.in_plot(row, along, front + half, turn), rng)
    if rng.random() < 0.6:
        away = STREET + WALK + rng.uniform(2.5, 4)
        draw_car(canvas, town.in_plot(row, end, away, np.pi / 2), rng)
    return shape


def draw_greenery(canvas: Canvas, town: Town, rng: np.random.Generator) -> None:
    """Draw trees by the use of the plots, and cars along one side of the streets."""
    number = {"homes": (0, 3), "yard": (0, 2), "field": (0, 2), "wood": (9, 16), "street": (0, 1)}
    for row, plot in town.plots():
        use = town.use(row, plot)
        for _ in range(rng.integers(*number[use])):
            along, away = (plot + rng.random()) * PLOT, rng.uniform(STREET + 4, DEPTH)
            radius = rng.uniform(1.4, 3.2) * (1.2 if use == "wood" else 1.0)
            draw_tree(canvas, town.in_plot(row, along, away), radius, rng)
        if use != "street" and rng.random() < 0.4:
            draw_car(canvas, town.in_plot(row, (plot + rng.random()) * PLOT, 1.7), rng)
