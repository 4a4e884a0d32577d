"""Pixel metrics of many scenes: pooled over everything, and per place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from jointnet.metrics import (
    PATCH,
    SHARE,
    Counts,
    PatchCounts,
    PatchGrid,
    RelaxedCounts,
    count,
    count_relaxed,
    threshold_mask,
)
from jointnet.prediction import Predict, predict_image
from jointnet.thresholds import ProbabilityHistogram, threshold_lines
from preprocessing.objects import MATCH_IOU, ObjectCounts, count_objects
from preprocessing.output_files import write_csv, write_json
from preprocessing.tiling import VOID

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo


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


OBJECT_COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "ap50": "ap50",
    "boundary_iou": "boundary iou",
    "polis_px": "polis px",
    "polis_m": "polis m",
    "count_error": "count error",
    "area_error": "area error",
}
_SIGNED = ("count_error", "area_error")


def object_rows(records: Sequence[SceneCounts]) -> list[dict]:
    """Rows of a table of objects.

    Args:
        records: of at least one scene, all with objects.

    Returns:
        A row per threshold and place, the places sorted and ``"overall"`` last, with
        ``threshold``, ``place``, ``scenes`` and what ``ObjectCounts.measures`` gives.
    """
    rows = []
    for threshold in sorted({record.threshold for record in records}, key=lambda t: t or 0):
        here = [record for record in records if record.threshold == threshold]
        for place in [*sorted({record.place for record in here}), OVERALL]:
            members = [record.objects for record in here if place in (record.place, OVERALL)]
            added = sum(members, ObjectCounts())
            head = {"threshold": threshold, "place": place, "scenes": len(members)}
            rows.append({**head, **added.measures()})
    return rows


def object_table(rows: Sequence[dict]) -> str:
    """The rows as text for a screen, and what the columns mean."""
    names = max(len(row["place"]) for row in rows)
    head = f"{'threshold':>9}  {'place':<{names}}  {'true':>7}  {'found':>7}"
    lines = [head + "".join(f"  {title:>12}" for title in OBJECT_COLUMNS.values())]
    for row in rows:
        threshold = "-" if row["threshold"] is None else f"{row['threshold']:g}"
        lines.append(
            f"{threshold:>9}  {row['place']:<{names}}  {row['true_objects']:>7,}  "
            f"{row['predicted_objects']:>7,}"
            + "".join(f"  {_cell(row[name], name in _SIGNED):>12}" for name in OBJECT_COLUMNS)
        )
    lines.append(
        f"objects: pieces connected by edges, matched one to one from an IoU of {MATCH_IOU:g}; "
        f"boundaries {rows[0]['boundary_px']} px wide; PoLiS of matched pairs"
    )
    return "\n".join(lines)


def _cell(value: float | None, signed: bool) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


PROTOCOLS = {
    "pooled": "pooled over full scenes, as the Inria contest scores",
    "mean": "mean over scenes",
    "patches": f"pooled over {PATCH} px patches with more than {SHARE:.0%} target (BuildFormer's)",
}
UNITS = {"pooled": "scenes", "mean": "scenes", "patches": "patches"}
PROTOCOL_COLUMNS = ("iou", "f1", "precision", "recall", "accuracy")


def protocol_rows(records: Sequence[SceneCounts]) -> list[dict]:
    """The figures of every protocol, threshold and place.

    Scenes without a valid pixel do not enter the mean. A scene where neither truth nor prediction
    has target enters it with an IoU of 1, one where only one of them has with 0
    (``metrics.Counts.metrics``).

    Args:
        records: of at least one scene; those without patch counts have none kept.

    Returns:
        A row per threshold, protocol and place, the places sorted and ``"overall"`` last, with
        ``threshold``, ``protocol``, ``place``, ``units`` (scenes or patches that entered), and
        IoU, F1, precision, recall and accuracy in 0..1, None where nothing entered.
    """
    rows = []
    for threshold in sorted({record.threshold for record in records}, key=lambda t: t or 0):
        here = [record for record in records if record.threshold == threshold]
        places = [*sorted({record.place for record in here}), OVERALL]
        for protocol in PROTOCOLS:
            for place in places:
                members = [record for record in here if place in (record.place, OVERALL)]
                units, figures = _FIGURES[protocol](members)
                head = {"threshold": threshold, "protocol": protocol, "place": place}
                figures = {name: figures[name] if units else None for name in PROTOCOL_COLUMNS}
                rows.append({**head, "units": units, **figures})
    return rows


def _pooled(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    entered = [record.counts for record in records if record.counts.pixels]
    return len(entered), sum(entered, Counts()).metrics()


def _mean(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    each = [record.counts.metrics() for record in records if record.counts.pixels]
    number = max(len(each), 1)
    return len(each), {name: sum(one[name] for one in each) / number for name in PROTOCOL_COLUMNS}


def _patches(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    added = sum((record.patches for record in records if record.patches), PatchCounts())
    return added.kept, added.counts.metrics()


_FIGURES = {"pooled": _pooled, "mean": _mean, "patches": _patches}


def protocol_table(rows: Sequence[dict]) -> str:
    """The overall rows as text for a screen, every protocol in words."""
    overall = [row for row in rows if row["place"] == OVERALL]
    words = max(map(len, PROTOCOLS.values()))
    columns = ("iou", "accuracy")
    head = f"{'threshold':>9}  {'protocol':<{words}}  {'over':>14}"
    lines = [head + "".join(f"  {column:>8}" for column in columns)]
    for row in overall:
        threshold = "-" if row["threshold"] is None else f"{row['threshold']:g}"
        units = f"{row['units']:,} {UNITS[row['protocol']]}"
        figures = ("-" if row[c] is None else f"{row[c]:.3f}" for c in columns)
        lines.append(
            f"{threshold:>9}  {PROTOCOLS[row['protocol']]:<{words}}  {units:>14}"
            + "".join(f"  {figure:>8}" for figure in figures)
        )
    return "\n".join(lines)


def describe_evaluation(
    records: Sequence[SceneCounts], histogram: ProbabilityHistogram | None = None
) -> dict:
    """The content of ``evaluation.json``.

    Args:
        records: of at least one scene.
        histogram: the probabilities of these scenes; None for finished masks.

    Returns:
        ``summary``, the pooled counts and figures per threshold and place
        (``summarise``); ``protocols``, the same scenes by every protocol
        (``protocol_rows``), and ``protocol_names``, these in words; ``scenes``, each of
        them; ``objects`` (``object_rows``) where objects were counted; and
        ``thresholds`` (``ProbabilityHistogram.report``) where there are probabilities.
    """
    content = {
        "summary": summarise(records),
        "protocol_names": PROTOCOLS,
        "protocols": protocol_rows(records),
    }
    if all(record.objects is not None for record in records):
        content["objects"] = object_rows(records)
    if histogram is not None:
        thresholds = dict.fromkeys(record.threshold for record in records)
        pooled = [
            (at, sum((r.counts for r in records if r.threshold == at), Counts()))
            for at in thresholds
        ]
        content["thresholds"] = histogram.report(pooled)
    content["scenes"] = [_scene(record) for record in records]
    return content


def _scene(record: SceneCounts) -> dict:
    """The entry of one scene at one threshold."""
    described = {"name": record.name, "place": record.place, "threshold": record.threshold}
    described |= record.figures()
    for key in ("polygons", "aligned"):
        if getattr(record, key) is not None:
            described[key] = getattr(record, key)
    if record.patches is not None:
        described["patches"] = {
            "kept": record.patches.kept,
            "of": record.patches.patches,
            **vars(record.patches.counts),
        }
    if record.objects is not None:
        described["objects"] = record.objects.measures()
    return described


def write_evaluation(
    folder: Path, records: Sequence[SceneCounts], histogram: ProbabilityHistogram | None = None
) -> dict:
    """Write ``evaluation.json`` and, of every protocol, ``evaluation.csv``.

    The first rows of the CSV are the summary's (protocol ``pooled``), with the counts; those of
    the other protocols have no counts.

    Returns:
        What the JSON holds, see ``describe_evaluation``.

    Raises:
        OutputError: a file cannot be written.
    """
    content = describe_evaluation(records, histogram)
    rows = [{**row, "protocol": "pooled", "units": row["scenes"]} for row in content["summary"]]
    for row in content["protocols"]:
        if row["protocol"] != "pooled":
            rows.append(dict.fromkeys(rows[0], "") | row)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", content)
    write_csv(folder / "evaluation.csv", rows)
    return content


def evaluation_text(content: dict) -> str:
    """All that a command prints of ``describe_evaluation``; the pooled table comes first."""
    parts = [table(content["summary"]), protocol_table(content["protocols"])]
    if "thresholds" in content:
        parts.append(threshold_lines(content["thresholds"]))
    if "objects" in content:
        parts.append(object_table(content["objects"]))
    return "\n\n".join(parts)
