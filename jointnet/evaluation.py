"""Pixel metrics of many scenes: pooled over everything, and per place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from jointnet.metrics import Counts, count, threshold_mask
from jointnet.patch_protocol import PatchCounts, PatchGrid
from jointnet.prediction import Predict, predict_image
from jointnet.relaxed import RelaxedCounts, count_relaxed
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.objects import ObjectCounts, count_objects
from preprocessing.tiling import VOID

if TYPE_CHECKING:
    from preprocessing.rasters import RasterInfo

OVERALL = "overall"
COLUMNS = ("iou", "f1", "precision", "recall", "accuracy")
RELAXED_COLUMNS = ("completeness", "correctness", "quality")
THRESHOLDS = (0.5, 0.6)


class LabelledImage(NamedTuple):
    """A scene in memory.

    Attributes:
        name: the scene.
        place: where it was taken.
        image: ``(height, width, bands)`` raw pixels.
        label: ``(height, width)`` uint8 of 0, 1 and 255, or bool without void.
        valid: ``(height, width)`` bool, where there is imagery; None for wherever the label is
            not void. Given apart, roads that the label draws where there is no imagery still
            match predictions within the relaxed buffer of them.
        info: of the raster, for distances in metres; None for pixels alone.
    """

    name: str
    place: str
    image: np.ndarray
    label: np.ndarray
    valid: np.ndarray | None = None
    info: "RasterInfo | None" = None


Watch = Callable[[LabelledImage, np.ndarray], None]
"""Gets a scene, its label void where it has no imagery, and probabilities ``(height, width)``."""


@dataclass(frozen=True)
class SceneCounts:
    """What was counted in one scene.

    Attributes:
        name: the scene.
        place: where it was taken.
        threshold: probability from which a pixel was target; None for finished masks.
        counts: the confusion matrix.
        relaxed: what matches within the buffer.
        relaxed_buffer_px: the buffer in pixels; None where nothing was matched within one.
        polygons: what became of the label's polygons
            (``preprocessing.polygons.PolygonCounts`` as a dictionary); None without polygons.
        patches: the counts of the patches with target; None where they were not cut.
        objects: what was counted of objects; None where they were not looked at.
        aligned: one sentence on how the prediction was brought onto the label's pixels; None
            where it lies on them.
    """

    name: str
    place: str
    threshold: float | None
    counts: Counts
    relaxed: RelaxedCounts = field(default_factory=RelaxedCounts)
    relaxed_buffer_px: int | None = None
    polygons: dict[str, int] | None = None
    patches: PatchCounts | None = None
    objects: ObjectCounts | None = None
    aligned: str | None = None

    def figures(self) -> dict[str, float | int]:
        """Metrics in 0..1 and the counts behind them, the relaxed ones where there are such."""
        strict = {**self.counts.metrics(), **vars(self.counts)}
        if self.relaxed_buffer_px is None:
            return strict
        buffer = {"relaxed_buffer_px": self.relaxed_buffer_px}
        return {**strict, **buffer, **self.relaxed.measures(), **vars(self.relaxed)}


def evaluate_scenes(
    predict: Predict,
    scenes: Iterable[tuple],
    window: int,
    overlap: int,
    thresholds: Sequence[float] = THRESHOLDS,
    relaxed_buffer_px: int | None = None,
    histogram: ProbabilityHistogram | None = None,
    objects: bool = False,
    watch: Watch | None = None,
) -> list[SceneCounts]:
    """Predict scenes as ``infer.py`` does and count at several thresholds.

    Args:
        predict: ``(batch, size, size, bands)`` raw pixels to ``(batch, size, size, 1)``.
        scenes: ``LabelledImage``, or plain tuples of its fields.
        window: side of a prediction window in pixels.
        overlap: pixels that neighbouring windows share.
        thresholds: probabilities from which a pixel is target.
        relaxed_buffer_px: pixels within which the relaxed measures match; None for none of them.
        histogram: gets the probabilities of all scenes.
        objects: count objects too (``preprocessing.objects``), scored by probability.
        watch: called once a scene, with what was counted in it.

    Returns:
        One record per scene and threshold.
    """
    records = []
    for scene in tqdm(scenes, desc="evaluating", unit="scene", leave=False, disable=None):
        name, place, image, label, valid, info = LabelledImage(*scene)
        valid = label != VOID if valid is None else valid
        truth = np.where(valid, label, np.uint8(VOID))
        probabilities = predict_image(predict, image, valid, window, overlap)
        if histogram is not None:
            histogram.add(truth, probabilities)
        if watch is not None:
            watch(LabelledImage(name, place, image, truth, valid, info), probabilities)
        for threshold in thresholds:
            found = threshold_mask(probabilities, threshold)
            grid = PatchGrid(*truth.shape)
            grid.add(0, truth, found)
            counted = SceneCounts(name, place, threshold, count(truth, found))
            counted = replace(counted, patches=grid.counts())
            if objects:
                found_objects = count_objects(truth, found, probabilities, info)
                counted = replace(counted, objects=found_objects)
            if relaxed_buffer_px is not None:
                relaxed = count_relaxed(truth, found, relaxed_buffer_px, label)
                counted = replace(counted, relaxed=relaxed, relaxed_buffer_px=relaxed_buffer_px)
            records.append(counted)
    return records


def summarise(records: Sequence[SceneCounts]) -> list[dict]:
    """Rows of a table: counts added per place and over everything, then divided once.

    Args:
        records: of at least one scene, all with the same relaxed buffer.

    Returns:
        A row per threshold and place, the places sorted and ``"overall"`` last, with
        ``threshold``, ``place``, ``scenes`` (how many), ``pixels`` (valid ones) and the
        ``SceneCounts.figures`` of the added counts.

    Raises:
        ValueError: records of different relaxed buffers, whose counts cannot be added.
    """
    buffers = {record.relaxed_buffer_px for record in records}
    if len(buffers) > 1:
        raise ValueError(f"records must have one relaxed buffer; got {buffers}")
    rows = []
    for threshold in sorted({record.threshold for record in records}, key=lambda t: t or 0):
        here = [record for record in records if record.threshold == threshold]
        for place in [*sorted({record.place for record in here}), OVERALL]:
            members = [record for record in here if place in (record.place, OVERALL)]
            pooled = SceneCounts(
                name=place,
                place=place,
                threshold=threshold,
                counts=sum((record.counts for record in members), Counts()),
                relaxed=sum((record.relaxed for record in members), RelaxedCounts()),
                relaxed_buffer_px=members[0].relaxed_buffer_px,
            )
            rows.append(
                {
                    "threshold": threshold,
                    "place": place,
                    "scenes": len(members),
                    "pixels": pooled.counts.pixels,
                    **pooled.figures(),
                }
            )
    return rows


def table(rows: Sequence[dict]) -> str:
    """The rows as text for a screen, three decimals; the relaxed columns where there are such."""
    buffer = rows[0].get("relaxed_buffer_px")
    columns = COLUMNS if buffer is None else COLUMNS + RELAXED_COLUMNS
    widths = [max(9, len(column)) for column in columns]
    names = max(len(row["place"]) for row in rows)
    head = f"{'threshold':>9}  {'place':<{names}}  {'scenes':>6}  {'pixels':>11}"
    lines = [head + "".join(f"  {c:>{w}}" for c, w in zip(columns, widths, strict=True))]
    for row in rows:
        threshold = "-" if row["threshold"] is None else f"{row['threshold']:g}"
        lines.append(
            f"{threshold:>9}  {row['place']:<{names}}  {row['scenes']:>6}  {row['pixels']:>11,}"
            + "".join(f"  {row[c]:>{w}.3f}" for c, w in zip(columns, widths, strict=True))
        )
    if buffer is not None:
        lines.append(f"completeness, correctness and quality: within {buffer} px")
    return "\n".join(lines)
