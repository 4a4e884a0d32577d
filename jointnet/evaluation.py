"""Metrics of many scenes: counted, pooled over everything and per place, written and printed."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from jointnet.metrics import (
    BUFFER_PX,
    METRICS,
    PATCH,
    RELAXED_METRICS,
    SHARE,
    Counts,
    PatchCounts,
    PatchGrid,
    RelaxedCounts,
    count,
    count_relaxed,
    threshold_mask,
)
from jointnet.prediction import Predict, mean_over_symmetries, predict_image
from jointnet.thresholds import ProbabilityHistogram, threshold_lines
from preprocessing.objects import MATCH_IOU, ObjectCounts, count_objects
from preprocessing.output_files import refuse_existing, write_csv, write_json
from preprocessing.scenes import Scene
from preprocessing.tiling import VOID

if TYPE_CHECKING:
    from jointnet.runs import Run
    from preprocessing.raster_access import RasterInfo

OVERALL = "overall"
THRESHOLDS = (0.5, 0.6)
# Of the targets that are measured with a buffer where the user names none.
RELAXED_BUFFERS = {"roads": BUFFER_PX}

PROTOCOLS = {
    "pooled": "pooled over full scenes, as the Inria contest scores",
    "mean": "mean over scenes",
    "patches": f"pooled over {PATCH} px patches with more than {SHARE:.0%} target (BuildFormer's)",
}
UNITS = {"pooled": "scenes", "mean": "scenes", "patches": "patches"}
OBJECT_METRICS = {
    name: name.replace("_", " ")
    for name in (
        *("precision", "recall", "f1", "ap50", "boundary_iou", "polis_px", "polis_m"),
        *("count_error", "area_error"),
    )
}
"""The metrics of objects, in the order of tables, and what tables call them."""


class LabelledImage(NamedTuple):
    """A scene in memory.

    Attributes:
        image: ``(height, width, bands)`` raw pixels.
        label: ``(height, width)`` uint8 of 0, 1 and 255, or bool without void.
        valid: ``(height, width)`` bool, where there is imagery; None for wherever the label is
            not void. With it, predictions within the relaxed buffer of roads that the label draws
            outside of the imagery still match these.
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

    What was not counted is None.

    Attributes:
        threshold: probability from which a pixel was target; None for finished masks.
        relaxed: what matches within a buffer of ``relaxed_buffer_px``.
        polygons: what became of the label's polygons
            (``preprocessing.polygons.PolygonCounts`` as a dictionary).
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

    def metrics(self) -> dict[str, float | int]:
        """Return the metrics and their counts, the relaxed ones where there is a buffer."""
        strict = {**self.counts.metrics(), **vars(self.counts)}
        if self.relaxed_buffer_px is None:
            return strict
        buffer = {"relaxed_buffer_px": self.relaxed_buffer_px}
        return {**strict, **buffer, **self.relaxed.metrics(), **vars(self.relaxed)}


# Counting


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
        relaxed_buffer_px: pixels within which the relaxed metrics match; None for none of them.
        histogram: gets the probabilities of all scenes.
        objects: count objects too (``preprocessing.objects``), scored by probability.
        watch: called once for each scene.

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
            patches, relaxed = PatchGrid(*truth.shape), RelaxedCounts()
            patches.add(0, truth, found)
            if relaxed_buffer_px is not None:
                relaxed = count_relaxed(truth, found, relaxed_buffer_px, label)
            records.append(
                SceneCounts(
                    name,
                    place,
                    threshold,
                    count(truth, found),
                    relaxed,
                    relaxed_buffer_px,
                    patches=patches.counts(),
                    objects=count_objects(truth, found, probabilities, info) if objects else None,
                )
            )
    return records


def evaluate_run(
    run: "Run",
    scenes: Iterable[Scene],
    thresholds: Sequence[float] = THRESHOLDS,
    relaxed_buffer: int | None = None,
    augment: bool = False,
    histogram: ProbabilityHistogram | None = None,
    objects: bool = False,
    watch: Watch | None = None,
) -> list[SceneCounts]:
    """Predict scenes with a trained network and count, see ``evaluate_scenes``.

    ``experiments.recipes.scenes_of(run, data)`` finds the scenes of a run. A ``relaxed_buffer`` of
    None is 3 pixels where the target is roads; for other targets there are no relaxed metrics.
    ``augment`` takes the mean over the eight flips and rotations of every window.
    """
    from preprocessing.patches import load_pair
    from preprocessing.raster_access import raster_info

    # Named in training where the files' own order or marks were not to be trusted.
    numbers = run.config["recipe"].get("patches", {}).get("band_numbers")
    if relaxed_buffer is None:
        relaxed_buffer = RELAXED_BUFFERS.get(run.config["target"])

    def load(scene: Scene) -> LabelledImage:
        image, label, valid, _ = load_pair(scene, run.config["bands"], numbers)
        info = raster_info(scene.image)
        return LabelledImage(scene.name, scene.place, image, label, valid, info)

    predict = run.model.predict_on_batch
    return evaluate_scenes(
        mean_over_symmetries(predict) if augment else predict,
        map(load, scenes),
        window=run.config["window"],
        overlap=run.config["overlap"],
        thresholds=thresholds,
        relaxed_buffer_px=relaxed_buffer,
        histogram=histogram,
        objects=objects,
        watch=watch,
    )


# Adding up


def _groups(
    records: Sequence[SceneCounts],
) -> Iterator[tuple[float | None, str, list[SceneCounts]]]:
    """Yield the records of every threshold and place, the places sorted and ``OVERALL`` last."""
    for threshold in sorted({record.threshold for record in records}, key=lambda t: t or 0):
        here = [record for record in records if record.threshold == threshold]
        for place in [*sorted({record.place for record in here}), OVERALL]:
            yield threshold, place, [r for r in here if place in (r.place, OVERALL)]


def summarise(records: Sequence[SceneCounts]) -> list[dict]:
    """Add counts per place and over everything, then divide once.

    There must be at least one record. Records of different relaxed buffers raise ValueError, as
    their counts cannot be added.

    Returns:
        A row per threshold and place, the places sorted and ``"overall"`` last, with
        ``threshold``, ``place``, ``scenes`` (how many), ``pixels`` (valid ones) and the
        ``SceneCounts.metrics`` of the added counts.
    """
    buffers = {record.relaxed_buffer_px for record in records}
    if len(buffers) > 1:
        raise ValueError(f"records must have one relaxed buffer; got {buffers}")
    rows = []
    for threshold, place, members in _groups(records):
        counts = sum((record.counts for record in members), Counts())
        relaxed = sum((record.relaxed for record in members), RelaxedCounts())
        pooled = SceneCounts(place, place, threshold, counts, relaxed, *buffers)
        head = {"threshold": threshold, "place": place, "scenes": len(members)}
        rows.append({**head, "pixels": counts.pixels, **pooled.metrics()})
    return rows


def object_rows(records: Sequence[SceneCounts]) -> list[dict]:
    """Return rows as ``summarise`` does, with the ``ObjectCounts.metrics`` of the added counts.

    All records must have objects, at least one.
    """
    rows = []
    for threshold, place, members in _groups(records):
        added = sum((record.objects for record in members), ObjectCounts())
        head = {"threshold": threshold, "place": place, "scenes": len(members)}
        rows.append({**head, **added.metrics()})
    return rows


def protocol_rows(records: Sequence[SceneCounts]) -> list[dict]:
    """Return the metrics of every protocol, threshold and place.

    Scenes without a valid pixel do not enter the mean. A scene where neither truth nor prediction
    has target enters it with an IoU of 1, one where only one of them has with 0
    (``metrics.ratios``).

    Returns:
        Rows as ``summarise`` orders them, also by ``protocol``, with ``units`` (scenes or patches
        that entered), and ``METRICS`` in 0..1, None where nothing entered.
    """
    groups, rows = list(_groups(records)), []
    for protocol, measure in _MEASURED.items():
        for threshold, place, members in groups:
            units, metrics = measure(members)
            head = {"threshold": threshold, "protocol": protocol, "place": place, "units": units}
            rows.append(head | {name: metrics[name] if units else None for name in METRICS})
    return sorted(rows, key=lambda row: row["threshold"] or 0)


def _pooled(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    entered = [record.counts for record in records if record.counts.pixels]
    return len(entered), sum(entered, Counts()).metrics()


def _mean(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    each = [record.counts.metrics() for record in records if record.counts.pixels]
    number = max(len(each), 1)
    return len(each), {name: sum(one[name] for one in each) / number for name in METRICS}


def _patches(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    added = sum((record.patches for record in records if record.patches), PatchCounts())
    return added.kept, added.counts.metrics()


_MEASURED = {"pooled": _pooled, "mean": _mean, "patches": _patches}


# Writing


def describe_evaluation(
    records: Sequence[SceneCounts], histogram: ProbabilityHistogram | None = None
) -> dict:
    """Return the content of ``evaluation.json``.

    ``histogram`` holds the probabilities of these scenes; None or an empty one where there are
    none.

    Returns:
        ``summary``, the pooled counts and metrics per threshold and place (``summarise``);
        ``protocols``, the same scenes by every protocol (``protocol_rows``), and
        ``protocol_names``, these in words; ``scenes``, each of them; ``objects``
        (``object_rows``) where objects were counted; and ``thresholds``
        (``ProbabilityHistogram.describe``) where there are probabilities.
    """
    content = {
        "summary": summarise(records),
        "protocol_names": PROTOCOLS,
        "protocols": protocol_rows(records),
    }
    if all(record.objects is not None for record in records):
        content["objects"] = object_rows(records)
    if histogram is not None and histogram.pixels:
        overall = [group for group in _groups(records) if group[1] == OVERALL]
        pooled = [(at, sum((r.counts for r in members), Counts())) for at, _, members in overall]
        content["thresholds"] = histogram.describe(pooled)
    content["scenes"] = [_describe_scene(record) for record in records]
    return content


def _describe_scene(record: SceneCounts) -> dict:
    patches, objects = record.patches, record.objects
    described = {
        "name": record.name,
        "place": record.place,
        "threshold": record.threshold,
        **record.metrics(),
        "polygons": record.polygons,
        "aligned": record.aligned,
        "patches": patches
        and {"kept": patches.kept, "of": patches.patches, **vars(patches.counts)},
        "objects": objects and objects.metrics(),
    }
    return {
        key: value for key, value in described.items() if value is not None or key == "threshold"
    }


def write_evaluation(
    folder: Path, records: Sequence[SceneCounts], histogram: ProbabilityHistogram | None = None
) -> dict:
    """Write ``evaluation.json`` and, of every protocol, ``evaluation.csv``.

    The first rows of the CSV are the summary's (protocol ``pooled``), with the counts; those of
    the other protocols have no counts.

    Returns what the JSON holds, see ``describe_evaluation``. A file that cannot be written raises
    OutputError.
    """
    content = describe_evaluation(records, histogram)
    rows = [{**row, "protocol": "pooled", "units": row["scenes"]} for row in content["summary"]]
    rows += [row for row in content["protocols"] if row["protocol"] != "pooled"]
    write_tables(folder, "evaluation", content, rows)
    return content


def refuse_tables(folder: Path | None, stem: str, overwrite: bool) -> None:
    """Refuse, before any work is done, the files of ``write_tables`` that exist already."""
    if folder is not None:
        for suffix in (".json", ".csv"):
            refuse_existing(folder / f"{stem}{suffix}", overwrite)


def write_tables(folder: Path | None, stem: str, content: dict, rows: Sequence[dict]) -> None:
    """Write ``<stem>.json`` and ``<stem>.csv``, which has the columns of all rows.

    Without a folder nothing is written. A file that cannot be written raises OutputError.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{stem}.json", content)
        columns = dict.fromkeys(key for row in rows for key in row)
        write_csv(folder / f"{stem}.csv", [dict.fromkeys(columns, "") | row for row in rows])


# Printing


def text_table(rows: Sequence[Sequence[Any]], left: int = 1, width: int = sys.maxsize) -> str:
    """Return rows of equal length as aligned text, the first of them the heading.

    Args:
        rows: cells; floats get three decimals, integers commas, and None is ``-``.
        left: how many columns, from the first, are words and aligned to the left. They are
            repeated where the others do not fit on one line.
        width: characters of a line, after which columns go on below.
    """
    text = [[_cell(value) for value in row] for row in rows]
    sizes = [max(map(len, column)) for column in zip(*text, strict=True)]
    heads, blocks = list(range(left)), [[]]
    for column in range(left, len(sizes)):
        used = sum(sizes[c] + 2 for c in [*heads, *blocks[-1], column]) - 2
        if blocks[-1] and used > width:
            blocks.append([])
        blocks[-1].append(column)

    def line(row: Sequence[str], columns: Sequence[int]) -> str:
        cells = [row[c].ljust(sizes[c]) if c < left else row[c].rjust(sizes[c]) for c in columns]
        return "  ".join(cells).rstrip()

    return "\n\n".join(
        "\n".join(line(row, [*heads, *block]) for row in text).lstrip("\n") for block in blocks
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _at(threshold: float | None) -> str | None:
    return None if threshold is None else f"{threshold:g}"


def summary_text(rows: Sequence[dict]) -> str:
    """Return the rows of ``summarise`` as a table, with the relaxed metrics if they have them."""
    buffer = rows[0].get("relaxed_buffer_px")
    columns = ["place", "scenes", "pixels", *METRICS]
    columns += RELAXED_METRICS if buffer is not None else ()
    cells = [[_at(row["threshold"]), *(row[name] for name in columns)] for row in rows]
    text = text_table([["threshold", *columns], *cells], left=2)
    if buffer is None:
        return text
    return f"{text}\ncompleteness, correctness and quality: within {buffer} px"


def protocol_text(rows: Sequence[dict]) -> str:
    """Return the overall rows of ``protocol_rows`` as a table, every protocol in words."""
    cells = [
        [
            _at(row["threshold"]),
            PROTOCOLS[row["protocol"]],
            f"{row['units']:,} {UNITS[row['protocol']]}",
            row["iou"],
            row["accuracy"],
        ]
        for row in rows
        if row["place"] == OVERALL
    ]
    return text_table([["threshold", "protocol", "over", "iou", "accuracy"], *cells], left=2)


def object_text(rows: Sequence[dict]) -> str:
    """Return the rows of ``object_rows`` as a table, and what the columns mean."""
    cells = []
    for row in rows:
        cells.append([_at(row["threshold"]), row["place"]])
        cells[-1] += [row["true_objects"], row["predicted_objects"]]
        for name in OBJECT_METRICS:
            signed = name.endswith("_error") and row[name] is not None
            cells[-1].append(f"{row[name]:+.3f}" if signed else row[name])
    heading = ["threshold", "place", "true", "found", *OBJECT_METRICS.values()]
    return (
        f"{text_table([heading, *cells], left=2)}\n"
        f"objects: pieces connected by edges, matched one to one from an IoU of {MATCH_IOU:g}; "
        f"boundaries {rows[0]['boundary_px']} px wide; PoLiS of matched pairs"
    )


def evaluation_text(content: dict) -> str:
    """Return all that a command prints of ``describe_evaluation``, the pooled table first."""
    parts = [summary_text(content["summary"]), protocol_text(content["protocols"])]
    if "thresholds" in content:
        parts.append(threshold_lines(content["thresholds"]))
    if "objects" in content:
        parts.append(object_text(content["objects"]))
    return "\n\n".join(parts)


def evaluation_notes(records: Iterable[SceneCounts]) -> list[str]:
    """Say what became of the polygons of each label, and which predictions were aligned."""
    from preprocessing.polygons import PolygonCounts

    notes = []
    for record in records:
        if record.polygons is not None:
            notes.append(f"{record.name}: {PolygonCounts(**record.polygons)}")
        if record.aligned is not None:
            notes.append(f"{record.name}: {record.aligned}")
    return notes
