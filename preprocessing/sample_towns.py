"""The town of a sample scene: streets, and what stands on the plots between them.

Homes with gardens, halls with car parks, fields and woods on a bent grid of streets.
"""

from collections.abc import Iterator

import numpy as np
from shapely.geometry import Polygon

from preprocessing import sample_objects as objects
from preprocessing.sample_drawing import GSD, Canvas

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
    canvas.paint(everywhere, bare, objects.vary(np.array(SOIL), rng), grain=0.06)

    _draw_fields(canvas, town.uses[block] == "field", along, across, block, rng)
    aside = np.abs((across + DEPTH) % (2 * DEPTH) - DEPTH)
    start = (town.cross + 0.5) * PLOT
    length = town.run * PLOT
    aside_cross = np.abs((along - start + length / 2) % length - length / 2)
    nearest = np.minimum(aside, aside_cross)
    canvas.paint(everywhere, nearest < STREET + WALK, objects.surface(rng), grain=0.03)
    canvas.paint(everywhere, nearest < STREET, asphalt_colour(rng), grain=0.05, wear=0.06)
    dashes = (along % 6 < 3) & (aside_cross > STREET + 2)
    line = (np.abs(aside) < 0.13) & dashes
    kerb = (np.abs(nearest - STREET) < 0.12) & (aside_cross + aside > STREET + 6)
    canvas.paint(everywhere, line, (0.86, 0.86, 0.84), grain=0.08)
    canvas.paint(everywhere, kerb, (0.66, 0.65, 0.63), grain=0.05)


def asphalt_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour for what is driven on: greys mostly, as roofs have them too."""
    return objects.vary(objects.SURFACES[rng.choice([3, 4, 4, 4, 5])], rng)


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
    soil = objects.SURFACES[rng.choice([0, 1, 2, 6, 7], shape)].astype(np.float32)
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
    plan = objects.house_plan(rng, PLOT - 3)
    front = STREET + WALK + rng.uniform(2, 4.5)
    half = max(part.half_v for part in plan.parts)
    away = front + half
    x, y, angle = town.place(along, _from_street(row, away))
    side = rng.choice([-1, 1])
    end = along + side * (PLOT / 2 - 2.2)
    drive = rng.uniform(front - 1, front + 3)
    at_drive = town.place(end, _from_street(row, STREET + drive / 2))
    objects.draw_flat(canvas, *at_drive, rng.uniform(1.4, 1.9), drive / 2, objects.surface(rng))
    if rng.random() < 0.5:
        _draw_garden(canvas, town, row, along, away + half, rng)
    turn = angle + (np.pi if row % 2 else 0) + rng.normal(0, 0.04)
    shape = objects.draw_building(canvas, plan, x, y, turn, rng)
    if rng.random() < 0.6:
        cx, cy, ca = town.place(end, _from_street(row, STREET + WALK + rng.uniform(2.5, 4)))
        objects.draw_car(canvas, cx, cy, ca + np.pi / 2, rng)
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
        objects.draw_pool(canvas, *spot, rng)
    elif kind == "terrace":
        sides = rng.uniform(2, 3.5), rng.uniform(1.5, 2.5)
        objects.draw_flat(canvas, *spot, *sides, objects.surface(rng))
    else:
        colour = objects.TARPAULINS[rng.integers(len(objects.TARPAULINS))]
        objects.draw_flat(canvas, *spot, rng.uniform(1.5, 3), 1.6, colour)


def _draw_lookalike(
    canvas: Canvas, town: Town, along: float, across: float, rng: np.random.Generator
) -> None:
    """Draw a flat thing of a house's size and colour."""
    x, y, angle = town.place(along, across)
    if rng.random() < 0.3:
        objects.draw_court(canvas, x, y, angle, rng)
        return
    sides = rng.uniform(5, 8.5), rng.uniform(4, 6)
    objects.draw_flat(canvas, x, y, angle, *sides, objects.surface(rng))


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
    plan = objects.hall_plan(rng, PLOT - 1.5)
    front = town.place(along, _from_street(row, STREET + WALK + 2))
    objects.draw_flat(canvas, *front, rng.uniform(3, 8), 2.0, asphalt_colour(rng))
    x, y, angle = town.place(along, across)
    return [objects.draw_building(canvas, plan, x, y, angle + rng.normal(0, 0.02), rng)]


def _draw_parking(
    canvas: Canvas, town: Town, along: float, across: float, rng: np.random.Generator
) -> None:
    """Draw a paved rectangle with marked places and cars."""
    x, y, angle = town.place(along, across)
    objects.draw_flat(canvas, x, y, angle, PLOT / 2, 8.6, asphalt_colour(rng))
    for shift in np.arange(-7.5, 8, 2.7):
        for line in (-5.0, 3.0):
            x, y, angle = town.place(along + shift, across + line)
            view = canvas.view(x, y, 3.0, angle)
            mark = (np.abs(view.u - 1.35) < 0.1) & (np.abs(view.v) < 2.5)
            canvas.paint(view.where, mark, (0.84, 0.84, 0.82))
            if rng.random() < 0.6:
                objects.draw_car(canvas, x, y, angle + np.pi / 2, rng)


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
            objects.draw_tree(canvas, x, y, radius, rng)
        if use != "street" and rng.random() < 0.4:
            x, y, angle = town.place((plot + rng.random()) * PLOT, _from_street(row, 1.7))
            objects.draw_car(canvas, x, y, angle, rng)
