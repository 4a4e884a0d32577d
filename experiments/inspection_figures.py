"""Pictures of a network's inside: filters, feature maps, Grad-CAM."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import displayable
from jointnet.inspection import GradCam, Observation

_DPI = 110
# Of the heat over the image, where it is hottest.
_OPACITY = 0.75
# Of what is found, seen on black, white and the colours of heat.
_OUTLINE = "#56b4e9"


def draw_filters(kernels: np.ndarray, title: str, path: Path) -> None:
    """Draw the kernels of a layer as small pictures, PNG.

    Weights of the first three bands are red, green and blue, of a single band (or two) grey; grey
    of 50 % is 0, and each kernel is scaled by its own largest weight, which stands above it.

    Args:
        kernels: ``(rows, columns, bands, filters)`` float32.
        title: line above the picture.
        path: the picture to write.
    """
    pictures = kernels[:, :, :3] if kernels.shape[2] >= 3 else kernels[:, :, [0, 0, 0]]
    rows, columns = _grid(kernels.shape[3], 8)
    figure, panels = _panels(rows, columns, 1.05, title)
    for number, axes in enumerate(panels[: kernels.shape[3]]):
        kernel = pictures[..., number]
        largest = float(np.abs(kernel).max()) or 1.0
        axes.imshow(0.5 + kernel / (2 * largest))
        axes.set_title(f"{number}: {largest:.2f}", fontsize=7)
    figure.savefig(path, dpi=_DPI)


def draw_feature_maps(features: np.ndarray, title: str, path: Path, most: int) -> None:
    """Draw the channels of a layer, those with the largest mean magnitude first, as PNG.

    Each is scaled from its own least to its own largest value; number and mean stand above it.

    Args:
        features: ``(height, width, channels)`` float32.
        title: line above the picture.
        path: the picture to write.
        most: channels drawn.
    """
    order = np.argsort(-np.abs(features).mean(axis=(0, 1)), kind="stable")[:most]
    rows, columns = _grid(len(order), 8)
    figure, panels = _panels(rows, columns, 1.5, title)
    for axes, channel in zip(panels, order, strict=False):
        shown = features[..., channel]
        if np.ptp(shown) == 0:
            axes.imshow(shown, cmap="viridis", vmin=shown[0, 0], vmax=shown[0, 0] + 1)
        else:
            axes.imshow(shown, cmap="viridis", interpolation="nearest")
        axes.set_title(f"{channel}: {shown.mean():.2g}", fontsize=7)
    figure.savefig(path, dpi=_DPI)


def draw_grad_cam(
    image: np.ndarray,
    valid: np.ndarray,
    seen: Observation,
    cam: GradCam,
    threshold: float,
    title: str,
    path: Path,
) -> None:
    """Draw an image, its Grad-CAM over it and alone, and the probabilities side by side as PNG.

    Args:
        image: ``(height, width, bands)`` raw pixels.
        valid: ``(height, width)`` bool; void is drawn grey.
        seen: what the network gave.
        cam: of the same image.
        threshold: probability whose outline is drawn.
        title: lines above the picture.
        path: the picture to write.
    """
    picture = displayable(image).astype(np.float32) / 255
    picture[~valid] = 0.5
    figure = Figure(figsize=(16, 4.35), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, 4)
    for axes in panels:
        axes.axis("off")
    panels[0].imshow(picture)
    panels[0].set_title("image", fontsize=10)
    panels[1].imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    heat = np.where(valid, cam.heat, 0)
    panels[1].imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=_OPACITY * heat)
    panels[1].set_title("Grad-CAM over the image", fontsize=10)
    drawn = panels[2].imshow(np.where(valid, cam.heat, np.nan), cmap="inferno", vmin=0, vmax=1)
    size = " x ".join(map(str, cam.coarse.shape))
    panels[2].set_title(f"Grad-CAM, of {size} positions, by its maximum", fontsize=10)
    figure.colorbar(drawn, ax=panels[2], fraction=0.046, pad=0.02)
    shown = np.where(valid, seen.probabilities, np.nan)
    drawn = panels[3].imshow(shown, cmap="gray", vmin=0, vmax=1)
    panels[3].set_title(f"probabilities, outline at {threshold:g}", fontsize=10)
    figure.colorbar(drawn, ax=panels[3], fraction=0.046, pad=0.02)
    found = valid & (seen.probabilities >= threshold)
    if found.any() and not found.all():
        for axes, colour in (
            (panels[1], "#56b4e9"),
            (panels[2], "#56b4e9"),
            (panels[3], "#e69f00"),
        ):
            axes.contour(found, levels=[0.5], colors=colour, linewidths=0.8)
    figure.savefig(path, dpi=_DPI)


def _grid(number: int, columns: int) -> tuple[int, int]:
    """Rows and columns of small pictures."""
    columns = min(number, columns)
    return -(-number // columns), columns


def _panels(rows: int, columns: int, side: float, title: str) -> tuple[Figure, np.ndarray]:
    """A figure of square panels of so many inches, each with room for a line above it."""
    line, head = 0.2, 0.35
    width, height = max(columns * side, 8.4), rows * (side + line) + head
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / height, va="top")
    # Sizes are known: a layout that finds them itself takes half as long again for 64 panels.
    figure.subplots_adjust(
        left=0.05 / width,
        right=1 - 0.05 / width,
        bottom=0.05 / height,
        top=1 - (head + line) / height,
        wspace=0.06,
        hspace=line / side + 0.06,
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    return figure, panels
