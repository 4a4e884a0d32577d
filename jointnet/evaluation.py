"""Pixel metrics of many scenes: pooled over everything, and per place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jointnet.metrics import Counts, count, threshold_mask
from jointnet.prediction import Predict, predict_image
from jointnet.runs import write_csv, write_json

OVERALL = "overall"
COLUMNS = ("iou", "f1", "precision", "recall", "accuracy")
THRESHOLDS = (0.5, 0.6)


@dataclass(frozen=True)
class SceneCounts:
    """What was counted in one scene.

    Attributes:
        name: the scene.
        place: where it was taken.
        threshold: probability from which a pixel was target; None for finished masks.
        counts: the confusion matrix.
    """

    name: str
    place: str
    threshold: float | None
    counts: Counts


def evaluate_scenes(
    predict: Predict,
    scenes: Iterable[tuple[str, str, np.ndarray, np.ndarray]],
    window: int,
    overlap: int,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[SceneCounts]:
    """Predict scenes as ``infer.py`` does and count at several thresholds.

    Args:
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``.
        scenes: name, place, image ``(height, width, bands)`` and mask ``(height, width)`` of 0,
            1 and 255.
        window: side of a prediction window in pixels.
        overlap: pixels that neighbouring windows share.
        thresholds: probabilities from which a pixel is target.

    Returns:
        One record per scene and threshold.
    """
    records = []
    for name, place, image, mask in tqdm(
        scenes, desc="evaluating", unit="scene", leave=False, disable=None
    ):
        probabilities = predict_image(predict, image, mask != 255, window, overlap)
        records.extend(
            SceneCounts(
                name, place, threshold, count(mask, threshold_mask(probabilities, threshold))
            )
            for threshold in thresholds
        )
    return records


def summarise(records: Sequence[SceneCounts]) -> list[dict]:
    """Rows of a table: counts added per place and over everything, then divided once.

    Args:
        records: of at least one scene.

    Returns:
        A row per threshold and place, the places sorted and ``"overall"`` last, with
        ``threshold``, ``place``, ``scenes`` (how many), ``pixels`` (valid ones), the metrics in
        0..1 and the four counts.
    """
    rows = []
    for threshold in sorted({record.threshold for record in records}, key=lambda t: t or 0):
        here = [record for record in records if record.threshold == threshold]
        for place in [*sorted({record.place for record in here}), OVERALL]:
            members = [record for record in here if place in (record.place, OVERALL)]
            counts = sum((record.counts for record in members), Counts())
            rows.append(
                {
                    "threshold": threshold,
                    "place": place,
                    "scenes": len(members),
                    "pixels": counts.pixels,
                    **counts.metrics(),
                    **vars(counts),
                }
            )
    return rows


def table(rows: Sequence[dict]) -> str:
    """The rows as text for a screen, three decimals."""
    names = max(len(row["place"]) for row in rows)
    head = f"{'threshold':>9}  {'place':<{names}}  {'scenes':>6}  {'pixels':>11}"
    lines = [head + "".join(f"  {column:>9}" for column in COLUMNS)]
    for row in rows:
        threshold = "-" if row["threshold"] is None else f"{row['threshold']:g}"
        lines.append(
            f"{threshold:>9}  {row['place']:<{names}}  {row['scenes']:>6}  {row['pixels']:>11,}"
            + "".join(f"  {row[column]:>9.3f}" for column in COLUMNS)
        )
    return "\n".join(lines)


def write_evaluation(folder: Path, records: Sequence[SceneCounts]) -> list[dict]:
    """Write ``evaluation.json`` and ``evaluation.csv``: the summary, and every scene in JSON.

    Returns:
        The rows of the summary.
    """
    rows = summarise(records)
    scenes = [
        {
            "name": record.name,
            "place": record.place,
            "threshold": record.threshold,
            **record.counts.metrics(),
            **vars(record.counts),
        }
        for record in records
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", {"summary": rows, "scenes": scenes})
    write_csv(folder / "evaluation.csv", rows)
    return rows
