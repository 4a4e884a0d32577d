"""IoU and accuracy by the three protocols by which Inria is reported, side by side.

``pooled`` is the contest's (Maggiori, Tarabalka, Charpiat and Alliez 2017): the confusion matrices
of all scenes added, then divided once. ``mean`` divides per scene and takes the mean, so that a
scene without buildings weighs as much as a dense one. ``patches`` pools over the patches that a
filter leaves (``jointnet.patch_protocol``). Published figures mix the three.
"""

from collections.abc import Sequence

from jointnet.evaluation import OVERALL, SceneCounts
from jointnet.metrics import Counts
from jointnet.patch_protocol import PATCH, SHARE, PatchCounts

PROTOCOLS = {
    "pooled": "pooled over full scenes, as the Inria contest scores",
    "mean": "mean over scenes",
    "patches": f"pooled over {PATCH} px patches with more than {SHARE:.0%} target (BuildFormer's)",
}
UNITS = {"pooled": "scenes", "mean": "scenes", "patches": "patches"}
COLUMNS = ("iou", "f1", "precision", "recall", "accuracy")


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
                figures = {name: figures[name] if units else None for name in COLUMNS}
                rows.append({**head, "units": units, **figures})
    return rows


def _pooled(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    entered = [record.counts for record in records if record.counts.pixels]
    return len(entered), sum(entered, Counts()).metrics()


def _mean(records: Sequence[SceneCounts]) -> tuple[int, dict[str, float]]:
    each = [record.counts.metrics() for record in records if record.counts.pixels]
    number = max(len(each), 1)
    return len(each), {name: sum(one[name] for one in each) / number for name in COLUMNS}


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
