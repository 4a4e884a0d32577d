"""The canvas of the sample scenes: what the ground looks like, how high it is, how it is lit.

Things are drawn as albedo (colour without light) and height. Shading, cast shadows and the
camera come afterwards and read both, so that a roof's bright side, its shadow and the shadow
of the tree that stands beside it always agree about where the sun is.
Lengths are metres, x to the right and y down from the scene's upper left corner.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

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
