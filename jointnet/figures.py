"""Pictures of a run: its curves, what augmentation does, a scene beside truth and prediction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jointnet.inspection import GradCam, Observation
from preprocessing.augmentation import Augmentation, Draws
from preprocessing.image_operations import stretch

# Colour-blind safe (Okabe and Ito 2008): agreement, false alarm, miss.
FOUND, FALSELY_FOUND, MISSED = (0, 158, 115), (213, 94, 0), (86, 180, 233)
# On a contact sheet: the target's outline, and void's hatching of so many pixels' period.
OUTLINE, HATCHING, HATCH_PERIOD = (240, 228, 66), (204, 121, 167), 8


def draw_curves(history: list[dict], path: Path) -> None:
    """Draw loss and validation metrics over the epochs as PNG.

    Args:
        history: records per epoch, see ``jointnet.checkpoints.TrainingState``.
        path: the picture to write; replaced where it exists.
    """
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("validation_loss", "validation")):
        losses.plot(epochs, [record[name] for record in history], label=label)
    losses.set(xlabel="epoch", ylabel="loss")
    for name in ("iou", "precision", "recall"):
        values = [record[f"validation_{name}"] for record in history]
        scores.plot(epochs, values, label=name if name != "iou" else "IoU")
    scores.set(xlabel="epoch", ylabel="validation, pooled", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def error_map(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image in grey with hits, false alarms and misses tinted.

    Args:
        image: ``(height, width, bands)`` of any dtype.
        truth: ``(height, width)`` uint8 of 0, 1 and 255.
        prediction: the same.

    Returns:
        ``(height, width, 3)`` uint8: green found, orange falsely found, blue missed.
    """
    tinted = np.repeat(displayable(image).mean(axis=2, keepdims=True), 3, axis=2)
    valid = (truth != 255) & (prediction != 255)
    for where, colour in (
        (valid & (truth == 1) & (prediction == 1), FOUND),
        (valid & (truth == 0) & (prediction == 1), FALSELY_FOUND),
        (valid & (truth == 1) & (prediction == 0), MISSED),
    ):
        tinted[where] = 0.35 * tinted[where] + 0.65 * np.array(colour)
    return tinted.astype(np.uint8)


def displayable(image: np.ndarray) -> np.ndarray:
    """Three bands of 0..255 uint8, for the screen only: other depths stretched from 2 to 98 %.

    Args:
        image: ``(height, width, bands)``; fewer than three bands are shown as grey.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return shown
    return stretch(shown, np.isfinite(shown)).astype(np.uint8)


def draw_scene(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, title: str, path: Path
) -> None:
    """Draw a scene, its truth, its prediction and the errors side by side as PNG.

    Args:
        image: ``(height, width, bands)`` raw pixels.
        truth: ``(height, width)`` uint8 of 0, 1 and 255 (void, drawn grey).
        prediction: the same.
        title: line above the picture.
        path: the picture to write; replaced where it exists.
    """
    # A panel has about 400 pixels: a whole 5000 x 5000 tile would only cost memory.
    step = -(-max(truth.shape) // 1200)
    image, truth, prediction = (a[::step, ::step] for a in (image, truth, prediction))
    figure = Figure(figsize=(16, 4.6), layout="constrained")
    figure.suptitle(title)
    shown = {
        "image": displayable(image),
        "truth": _grey(truth),
        "prediction": _grey(prediction),
        "green found, orange false, blue missed": error_map(image, truth, prediction),
    }
    for axes, (name, picture) in zip(figure.subplots(1, 4), shown.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(name, fontsize=10)
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_augmentations(
    image: np.ndarray,
    mask: np.ndarray,
    augmentation: Augmentation,
    path: Path,
    seed: int = 0,
    samples: int = 9,
) -> None:
    """Draw a contact sheet of what an augmentation does to a patch as PNG.

    First the patch as it is, then each change that is on, alone and as far as it goes (one of its
    two extremes where it has two), then samples as training would see them. The target is
    outlined yellow, void hatched purple.

    Args:
        image: ``(height, width, bands)`` raw pixels, not empty.
        mask: ``(height, width)`` uint8 of 0, 1 and 255.
        augmentation: what is shown.
        path: the picture to write; replaced where it exists.
        seed: of everything random.
        samples: number of samples.

    Raises:
        JointNetError: image and mask do not fit each other or the augmentation.
    """
    generator = np.random.default_rng(seed)
    shown = {"as it is": (image, mask)}
    if augmentation.dihedral:
        shown["dihedral"] = augmentation.apply_drawn(image, mask, Draws(symmetry=4))
    for name, change in augmentation.changes.items():
        drawn = Draws.from_generator(generator)
        extreme = replace(drawn, symmetry=0, shifts={name: 1.0}, chances={})
        often = f", probability {change.probability:g}" if change.probability < 1 else ""
        title = f"{name} {change.strength:g}{often}"
        shown[title] = augmentation.apply_drawn(image, mask, extreme)
    for number in range(1, samples + 1):
        shown[f"sample {number}"] = augmentation.apply(image, mask, generator)
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.65 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, (title, (changed, moved)) in zip(panels, shown.items(), strict=False):
        axes.imshow(_labelled(_displayable_as(image, changed), moved))
        axes.set_title(title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _displayable_as(reference: np.ndarray, image: np.ndarray) -> np.ndarray:
    """``displayable``, stretched as the reference is, so that changes of light stay visible."""
    if image.dtype == np.uint8:
        return displayable(image)
    both = np.concatenate([reference, image])[..., :3]
    valid = np.isfinite(both)
    valid[len(reference) :] = False
    return displayable(stretch(both, valid)[len(reference) :].astype(np.uint8))


def _labelled(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture with the target outlined and void hatched."""
    target = np.pad(mask == 1, 1)
    inside = target[:-2, 1:-1] & target[2:, 1:-1] & target[1:-1, :-2] & target[1:-1, 2:]
    diagonals = np.add.outer(*map(np.arange, mask.shape)) % HATCH_PERIOD
    labelled = picture.copy()
    labelled[(mask == 1) & ~inside] = OUTLINE
    labelled[(mask == 255) & (diagonals < HATCH_PERIOD // 4)] = HATCHING
    return labelled


def _grey(mask: np.ndarray) -> np.ndarray:
    values = np.zeros(256, np.uint8)
    values[[1, 255]] = 255, 128
    return np.repeat(values[mask][..., None], 3, axis=2)


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
