"""Objects of many scenes: counts added per place and overall, then divided once."""

from collections.abc import Sequence

from jointnet.evaluation import OVERALL, SceneCounts
from preprocessing.objects import MATCH_IOU, ObjectCounts

COLUMNS = {
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
    lines = [head + "".join(f"  {title:>12}" for title in COLUMNS.values())]
    for row in rows:
        threshold = "-" if row["threshold"] is None else f"{row['threshold']:g}"
        lines.append(
            f"{threshold:>9}  {row['place']:<{names}}  {row['true_objects']:>7,}  "
            f"{row['predicted_objects']:>7,}"
            + "".join(f"  {_cell(row[name], name in _SIGNED):>12}" for name in COLUMNS)
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
