"""Figures by matplotlib: curves, scenes, augmentation, inside a network, and a report's charts."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from jointnet.inspection import GradCam, Observation
from preprocessing.augmentation import Augmentation, Draws
from preprocessing.image_operations import BACKGROUND, ERROR_COLOURS, error_classes, scale, stretch
from preprocessing.tiling import VOID

# On a contact sheet: the target's outline, and void's hatching with its period in pixels.
OUTLINE, HATCHING, HATCH_PERIOD = (240, 228, 66), (204, 121, 167), 8
# Pixels of a scene that are drawn in each direction; a panel shows about 400.
_SCENE_SIDE = 1200
_DPI = 110
# Opacity of the hottest part of Grad-CAM over its image; outlines on the colours of heat, on grey.
_OPACITY, _ON_HEAT, _ON_GREY = 0.75, "#56b4e9", "#e69f00"
# matplotlib draws in these colours, which then become variables of the style sheet, so that charts
# follow the theme.
_VARIABLES = ("soft", "line", "paper", "iou", "precision", "recall", "truth", "prediction")
_COLOUR = {name: f"#0000{at:02x}" for at, name in enumerate(_VARIABLES, start=1)}
_STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), _COLOUR["soft"]),
    **dict.fromkeys(("xtick.color", "ytick.color"), _COLOUR["soft"]),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.color": _COLOUR["line"],
    "font.size": 9,
    "svg.fonttype": "none",
}
_INCHES = (5.2, 3.5)
_UNIT = (-0.02, 1.02)
_CURVES = ("iou", "precision", "recall")
COVERAGE_STEPS = 10


def draw_curves(history: list[dict], path: Path) -> None:
    """Draw loss and validation metrics over the epochs, records of ``TrainingState``, as PNG."""
    epochs = [record["epoch"] for record in history]
    figure = _figure(10, 3.6)
    losses, scores = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("validation_loss", "validation")):
        losses.plot(epochs, [record[name] for record in history], label=label)
    losses.set(xlabel="epoch", ylabel="loss")
    for name in _CURVES:
        values = [record[f"validation_{name}"] for record in history]
        scores.plot(epochs, values, label=name.replace("iou", "IoU"))
    scores.set(xlabel="epoch", ylabel="validation, pooled", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=_DPI)


def error_map(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return an image in grey, tinted where the prediction is right or wrong about a target.

    The image is ``(height, width, bands)`` of any dtype, both masks are ``(height, width)`` uint8
    of 0, 1 and 255. The result is ``(height, width, 3)`` uint8: green found, orange false alarm,
    blue missed.
    """
    tinted = np.repeat(displayable(image).mean(axis=2, keepdims=True), 3, axis=2)
    classes = error_classes(truth, prediction)
    for value, colour in ERROR_COLOURS.items():
        if value not in (BACKGROUND, VOID):
            where = classes == value
            tinted[where] = 0.35 * tinted[where] + 0.65 * np.array(colour)
    return tinted.astype(np.uint8)


def displayable(image: np.ndarray) -> np.ndarray:
    """Return three bands of uint8 for the screen; other depths are stretched from 2 to 98 %.

    The image is ``(height, width, bands)``; fewer than three bands are shown as grey.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return shown
    return stretch(shown, np.isfinite(shown)).astype(np.uint8)


def display_like(sample: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a ``displayable`` that stretches every image as it would the sample.

    The sample is ``(..., bands)``, such as some pixels of a scene.
    """
    if sample.dtype == np.uint8:
        return displayable
    finite = sample[..., :3][np.isfinite(sample[..., :3])]
    low, high = np.percentile(finite, (2, 98)) if finite.size else (0, 1)
    return lambda image: displayable(scale(image, low, high).astype(np.uint8))


def draw_scene(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, title: str, path: Path
) -> None:
    """Draw a scene, its truth, its prediction and the errors side by side as PNG.

    The image is ``(height, width, bands)`` raw pixels; truth and prediction are ``(height,
    width)`` uint8 of 0, 1 and 255 (void, drawn grey). Missing folders are made.
    """
    step = -(-max(truth.shape) // _SCENE_SIDE)
    image, truth, prediction = (a[::step, ::step] for a in (image, truth, prediction))
    figure = _figure(16, 4.6)
    figure.suptitle(title)
    shown = {
        "image": displayable(image),
        "truth": _black_and_white(truth),
        "prediction": _black_and_white(prediction),
        "green found, orange false, blue missed": error_map(image, truth, prediction),
    }
    for axes, (name, picture) in zip(figure.subplots(1, 4), shown.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(name, fontsize=10)
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def draw_augmentations(
    image: np.ndarray,
    mask: np.ndarray,
    augmentation: Augmentation,
    path: Path,
    seed: int = 0,
    samples: int = 9,
) -> None:
    """Draw a contact sheet of what an augmentation does to a patch as PNG.

    The first panel is the patch as it is. Then comes each change that is on, alone and at an
    extreme, then samples as training sees them. The target is outlined yellow, void hatched
    purple. The image is ``(height, width, bands)`` raw pixels, not empty; the mask ``(height,
    width)`` uint8 of 0, 1 and 255. Missing folders are made.

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
    figure = _figure(2.4 * columns, 2.65 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    # One stretch for all, so that changes of light show.
    show = display_like(image)
    for axes, (title, (changed, moved)) in zip(panels, shown.items(), strict=False):
        axes.imshow(_labelled(show(changed), moved))
        axes.set_title(title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def _labelled(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a picture with the target outlined and void hatched."""
    target = np.pad(mask == 1, 1)
    inside = target[:-2, 1:-1] & target[2:, 1:-1] & target[1:-1, :-2] & target[1:-1, 2:]
    diagonals = np.add.outer(*map(np.arange, mask.shape)) % HATCH_PERIOD
    labelled = picture.copy()
    labelled[(mask == 1) & ~inside] = OUTLINE
    labelled[(mask == VOID) & (diagonals < HATCH_PERIOD // 4)] = HATCHING
    return labelled


def _black_and_white(mask: np.ndarray) -> np.ndarray:
    """Return a mask as ``(height, width, 3)`` uint8: target white, void grey."""
    values = np.zeros(256, np.uint8)
    values[[1, VOID]] = 255, 128
    return np.repeat(values[mask][..., None], 3, axis=2)


def draw_filters(kernels: np.ndarray, title: str, path: Path) -> None:
    """Draw the kernels of a layer, ``(rows, columns, bands, filters)`` float32, as PNG.

    The weights of the first three bands are red, green and blue, those of a single band (or of
    two) grey. Grey of 50 % is 0. Each kernel is scaled by its own largest weight, which stands
    above it.
    """
    pictures = kernels[:, :, :3] if kernels.shape[2] >= 3 else kernels[:, :, [0, 0, 0]]
    figure, panels = _panels(kernels.shape[3], 1.05, title)
    for number, axes in enumerate(panels[: kernels.shape[3]]):
        kernel = pictures[..., number]
        largest = float(np.abs(kernel).max()) or 1.0
        axes.imshow(0.5 + kernel / (2 * largest))
        axes.set_title(f"{number}: {largest:.2f}", fontsize=7)
    figure.savefig(path, dpi=_DPI)


def draw_feature_maps(activations: np.ndarray, title: str, path: Path, most: int) -> None:
    """Draw the channels of a layer, ``(height, width, channels)`` float32, as PNG.

    Those with the largest mean magnitude come first, ``most`` of them. Each is scaled from its own
    least to its own largest value; number and mean stand above it.
    """
    order = np.argsort(-np.abs(activations).mean(axis=(0, 1)), kind="stable")[:most]
    figure, panels = _panels(len(order), 1.5, title)
    for axes, channel in zip(panels, order, strict=False):
        shown = activations[..., channel]
        # A constant channel has no range of its own; it gets the lowest colour.
        limits = {} if np.ptp(shown) else {"vmin": shown[0, 0], "vmax": shown[0, 0] + 1}
        axes.imshow(shown, cmap="viridis", interpolation="nearest", **limits)
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
    """Draw an image, Grad-CAM over it, Grad-CAM alone and the probabilities, as PNG.

    The image is ``(height, width, bands)`` raw pixels, ``valid`` ``(height, width)`` bool; void is
    drawn grey. Probabilities are outlined at the threshold.
    """
    picture = displayable(image).astype(np.float32) / 255
    picture[~valid] = 0.5
    size = " x ".join(map(str, cam.coarse.shape))
    figure = _figure(16, 4.35)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, 4)
    titles = [
        "image",
        "Grad-CAM over the image",
        f"Grad-CAM of {size} positions, divided by its maximum",
        f"probabilities, outline at {threshold:g}",
    ]
    for axes, words in zip(panels, titles, strict=True):
        axes.axis("off")
        axes.set_title(words, fontsize=10)
    unit = {"vmin": 0, "vmax": 1}
    panels[0].imshow(picture)
    panels[1].imshow(picture.mean(axis=2), cmap="gray", **unit)
    heat = np.where(valid, cam.heat, 0)
    panels[1].imshow(heat, cmap="inferno", alpha=_OPACITY * heat, **unit)
    shown = ((cam.heat, "inferno"), (seen.probabilities, "gray"))
    for axes, (values, cmap) in zip(panels[2:], shown, strict=True):
        drawn = axes.imshow(np.where(valid, values, np.nan), cmap=cmap, **unit)
        figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02)
    found = valid & (seen.probabilities >= threshold)
    if found.any() and not found.all():
        for axes, colour in zip(panels[1:], (_ON_HEAT, _ON_HEAT, _ON_GREY), strict=True):
            axes.contour(found, levels=[0.5], colors=colour, linewidths=0.8)
    figure.savefig(path, dpi=_DPI)


def _figure(width: float, height: float, layout: str | None = "constrained") -> Any:
    """Return an empty figure of so many inches."""
    # Nobody who only trains or predicts needs matplotlib, so it is imported here.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def _panels(number: int, side: float, title: str) -> tuple[Any, np.ndarray]:
    """Return a figure of square panels of ``side`` inches, each with room for a line above it."""
    columns = min(number, 8)
    rows = -(-number // columns)
    line, head = 0.2, 0.35
    width, height = max(columns * side, 8.4), rows * (side + line) + head
    # Sizes are known: a layout that finds them itself takes half as long again for 64 panels.
    figure = _figure(width, height, layout=None)
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / height, va="top")
    x, y = 0.05 / width, 0.05 / height
    figure.subplots_adjust(x, y, 1 - x, 1 - (head + line) / height, 0.06, line / side + 0.06)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    return figure, panels


# Charts of a report, as HTML


def threshold_charts(described: dict, pooled: Sequence[dict] = ()) -> list[str]:
    """Return charts of a report: metrics over the threshold, precision over recall, reliability.

    ``described`` is ``thresholds`` of ``evaluation.describe_evaluation``; ``pooled`` are overall
    rows of its ``summary``, which are marked.
    """
    curve, best, bins = described["curve"], described["best"], described["calibration"]["bins"]
    named = [cost for cost in described["cost"] if cost["threshold"] is not None]
    words = f"best {best['threshold']:.2f}"
    marks = [(best["threshold"], words), *((c["threshold"], f"{c['threshold']:g}") for c in named)]
    rows = [(best, words), *((row, f"{row['threshold']:g}") for row in pooled)]

    def over(axes: Any) -> None:
        for name in _CURVES:
            values = [_measured(point, name) for point in curve]
            axes.plot([point["threshold"] for point in curve], values, **_line(name))
        for at, (threshold, words) in enumerate(marks):
            _mark(axes, threshold, words, at)
        axes.set(xlabel="threshold", ylabel="pooled", xlim=_UNIT, ylim=_UNIT)

    def precision(axes: Any) -> None:
        values = [_measured(point, "precision") for point in curve]
        axes.plot([point["recall"] for point in curve], values, color=_COLOUR["iou"])
        for at, (row, words) in enumerate(rows):
            x, y = row["recall"], row["precision"]
            axes.plot(x, y, "o", mfc=_COLOUR["paper"], mec=_COLOUR["iou"], mew=1.6)
            # Neighbours may be close, so their words stand on either side in turn.
            align = {"ha": "left", "va": "bottom"} if at % 2 else {"ha": "right", "va": "top"}
            axes.text(x, y, f"  {words}  ", **align)
        axes.set(xlabel="recall", ylabel="precision", xlim=_UNIT, ylim=_UNIT)

    def reliability(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], "--", color=_COLOUR["soft"], linewidth=1)
        points = [(one["mean_probability"], one["target_share"]) for one in bins]
        axes.plot(*zip(*points, strict=True), color=_COLOUR["iou"])
        largest = max(one["pixels"] for one in bins)
        for one, (mean, share) in zip(bins, points, strict=True):
            words = f"probability {one['from']:g} to {one['to']:g}: mean {mean:.3f}, target "
            words += f"{share:.3f}, {one['pixels']:,} px"
            look = {"ms": 3 + 12 * (one["pixels"] / largest) ** 0.5, "clip_on": False}
            axes.plot(mean, share, "o", color=_COLOUR["iou"], gid=f"title:{words}", **look)
        axes.set(xlabel="mean probability", ylabel="share of target", xlim=_UNIT, ylim=_UNIT)

    costs = "".join(
        f"; {cost['threshold']:g} costs {cost['iou_lost']:.3f} (IoU {cost['iou']:.3f})"
        for cost in named
    )
    over_words = f"Best on these scenes: {best['threshold']:.3f}, IoU {best['iou']:.3f}{costs}."
    return [
        _chart("Over the threshold", over, over_words),
        _chart(
            "Precision over recall",
            precision,
            "Every 64th of the threshold; circles are the thresholds named.",
        ),
        _chart(
            "Reliability",
            reliability,
            f"Expected calibration error {described['calibration']['ece']:.3f} over 16 bins; "
            "the larger a dot, the more pixels it stands for. Below the diagonal the network is "
            "too sure.",
        ),
    ]


def training_charts(history: Sequence[dict[str, float]], best_epoch: int | None) -> list[str]:
    """Return charts of a report: loss and validation metrics over the epochs.

    The history has the rows of ``history.csv``, at least one; the weights of the best epoch, None
    if unknown, were kept.
    """

    def chart(
        title: str, label: str, looks: dict[str, dict], words: str = "", **limits: Any
    ) -> str:
        def draw(axes: Any) -> None:
            for name, look in looks.items():
                values = [row.get(name, np.nan) for row in history]
                axes.plot([row["epoch"] for row in history], values, marker=".", **look)
            if best_epoch is not None:
                _mark(axes, best_epoch, f"kept: {best_epoch:g}")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="epoch", ylabel=label, **limits)

        return _chart(title, draw, words)

    losses = {"loss": _line("iou", "training"), "validation_loss": _line("precision", "validation")}
    scores = {f"validation_{name}": _line(name) for name in _CURVES}
    words = "Measured on the validation patches after every epoch, at the network's threshold."
    return [
        chart("Training: loss", "loss", losses),
        chart("Training: validation", "pooled over patches", scores, words, ylim=_UNIT),
    ]


def coverage_chart(coverage: np.ndarray) -> str:
    """Return a chart of a report: how much of windows the masks cover.

    The coverage is ``(windows, 2)`` of ``preprocessing.pictures.window_shares``, not empty.
    """
    from preprocessing.pictures import COVERAGE_WINDOW

    shares = 100 * coverage_shares(coverage)
    steps = np.arange(COVERAGE_STEPS + 1)

    def bars(axes: Any) -> None:
        for side, name, heights in zip((-0.2, 0.2), ("truth", "prediction"), shares.T, strict=True):
            look = _line(name) | {"edgecolor": _COLOUR["soft"], "linewidth": 0.4}
            drawn = axes.bar(steps + side, heights, 0.4, **look)
            for step, (bar, height) in enumerate(zip(drawn, heights, strict=True)):
                bar.set_gid(f"title:{name}, {10 * step}: {height:.3g}")
        axes.set_xticks(steps, [str(10 * step) for step in steps])
        axes.set(xlabel="target in the window, up to so many %", ylabel="% of windows")
        axes.grid(visible=False, axis="x")

    true, predicted = coverage.mean(axis=0)
    words = (
        f"{len(coverage):,} windows of {COVERAGE_WINDOW} px, those at the far edges smaller; the "
        f"first pair of bars is windows without any. A mean window has {true:.1%} target, "
        f"{predicted:.1%} predicted."
    )
    return _chart("Mask coverage", bars, words)


def coverage_shares(coverage: np.ndarray) -> np.ndarray:
    """Return the shares of windows ``(11, 2)`` with no target, up to 10 %, up to 20 %, ..."""
    # Rounding must not lift a share of exactly 0.3 above 0.3.
    steps = np.ceil(np.round(coverage * COVERAGE_STEPS, 9)).astype(int)
    steps = np.where(coverage > 0, np.maximum(steps, 1), 0)
    counts = [np.bincount(column, minlength=COVERAGE_STEPS + 1) for column in steps.T]
    return np.stack(counts, axis=1) / len(coverage)


def _chart(title: str, draw: Callable[[Any], None], words: str = "") -> str:
    """Return a figure of HTML: a title, an SVG whose axes ``draw`` fills, and words below it.

    The words after "title:" in an artist's ``gid`` appear where the pointer rests on it.
    """
    from matplotlib import rc_context

    with rc_context(_STYLE | {"svg.hashsalt": title}):
        drawn = _figure(*_INCHES)
        axes = drawn.subplots()
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            drawn.legend(loc="outside lower left", ncols=3)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawn.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    head = f'<svg class="chart" role="img" aria-label="{escape(title)}" '
    head += f'viewBox="0 0 {72 * _INCHES[0]:g} {72 * _INCHES[1]:g}">'
    for pattern, by in (
        ("<svg[^>]*>", head),
        # Style sheets and fonts are those of the page, and identifiers must not stand twice in it.
        (r"<defs>\s*<style.*?</defs>", ""),
        ('font-family: [^;"]*;?', ""),
        ('<g id="title:([^"]*)">', r"<g><title>\1</title>"),
        ('<g id="[^"]*">', "<g>"),
        ("xlink:href", "href"),
    ):
        svg = re.sub(pattern, by, svg, flags=re.DOTALL)
    for name, colour in _COLOUR.items():
        svg = svg.replace(colour, f"var(--{name})")
    caption = f"<figcaption>{escape(words)}</figcaption>" if words else ""
    return f"<figure><h3>{escape(title)}</h3>{svg}{caption}</figure>"


def _line(name: str, words: str = "") -> dict:
    return {"color": _COLOUR[name], "label": words or name.replace("iou", "IoU")}


def _mark(axes: Any, x: float, words: str, line: int = 0) -> None:
    """Draw a vertical line with words beside it, on this line of text counted from below."""
    axes.axvline(x, color=_COLOUR["soft"], linewidth=0.8, linestyle=":")
    left, right = axes.get_xlim()
    align = "right" if x > left + 0.7 * (right - left) else "left"
    axes.text(x, 0.02 + 0.07 * line, f" {words} ", transform=axes.get_xaxis_transform(), ha=align)


def _measured(point: dict, name: str) -> float:
    """Return a metric; NaN for the precision of nothing found, which is a convention."""
    nothing = name == "precision" and point["recall"] == 0 and point["precision"] in (0, 1)
    return np.nan if nothing or point[name] is None else point[name]
