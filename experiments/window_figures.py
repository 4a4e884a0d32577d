"""How windows are best laid: accuracy, steadiness and cost over their size and overlap.

The measurement behind ``experiments/benchmark.py windows``; it runs in a process of its own, see
``measurements``.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evaluate import validation_scenes
from jointnet.metrics import Counts, count, threshold_mask
from jointnet.prediction import Predict, predict_image
from jointnet.runs import Run, load_run
from jointnet.symmetries import mean_over_symmetries
from jointnet.window_bands import WindowGrid
from preprocessing.tiling import VOID


def windows(
    model: str, data: str, precision: str, window: int, overlap: int, augment: bool, shift: bool
) -> dict[str, Any]:
    """Predict the validation scenes of a run with windows of one size and overlap.

    Args:
        model: folder of the run.
        data: folder of the data sets that it was trained on.
        precision: dtype policy.
        window: side of a window in pixels.
        overlap: pixels that neighbours share.
        augment: mean over the eight flips and rotations of every window.
        shift: predict a second time on windows that lie half a stride further right and down,
            and compare where the two see the same image.

    Returns:
        Pooled IoU at the run's threshold, windows per scene megapixel, seconds per megapixel and,
        with ``shift``, the share of pixels that change their class and the mean change of the
        probability. Only what lies more than a window from the sides that the second prediction
        does not see is compared, so scenes of less than two windows a side are not.
    """
    run = load_run(Path(model), precision)
    network = run.model.predict_on_batch
    predict = mean_over_symmetries(network) if augment else network
    threshold = run.config["threshold"]
    _warm_up(run, predict, window)
    counts, pixels, number, seconds = Counts(), 0, 0, 0.0
    changed, compared, difference = 0, 0, 0.0
    for image, truth in _scenes(run, Path(data)):
        valid = truth != VOID
        began = time.perf_counter()
        found = predict_image(predict, image, valid, window, overlap)
        seconds += time.perf_counter() - began
        counts += count(truth, threshold_mask(found, threshold))
        pixels += truth.size
        number += len(WindowGrid(*truth.shape, window, overlap).windows())
        if shift and min(truth.shape) >= 2 * window:
            one, other = _both_grids(predict, image, valid, window, overlap, found)
            changed += int(((one >= threshold) != (other >= threshold)).sum())
            compared += one.size
            difference += float(np.abs(one - other).sum())
    row = {
        "iou": counts.metrics()["iou"],
        "windows_per_megapixel": number * 1e6 / pixels,
        "seconds_per_megapixel": seconds * 1e6 / pixels,
    }
    row["changed_by_shift"] = changed / compared if compared else None
    row["mean_change_by_shift"] = difference / compared if compared else None
    return row


def _warm_up(run: Run, predict: Predict, window: int) -> None:
    """Build the graph for one size of windows."""
    image = np.zeros((window, window, run.config["bands"]), run.config["dtype"])
    predict_image(predict, image, None, window, 0)


def _scenes(run: Run, data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and truth of the validation scenes, void in the truth."""
    from preprocessing.patches import load_pair

    numbers = run.config["recipe"].get("patches", {}).get("band_numbers")
    for scene in validation_scenes(run, data):
        image, label, valid, _ = load_pair(scene, run.config["bands"], numbers)
        yield image, np.where(valid, label, np.uint8(VOID))


def _both_grids(
    predict: Predict,
    image: np.ndarray,
    valid: np.ndarray,
    window: int,
    overlap: int,
    found: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the same valid pixels on the grid of ``found`` and on a shifted one."""
    step = (window - overlap) // 2
    moved = predict_image(predict, image[step:, step:], valid[step:, step:], window, overlap)
    # The image that was cut off is mirrored there, which is another image.
    one, other = found[step + window :, step + window :], moved[window:, window:]
    both = np.isfinite(one)
    return one[both], other[both]
