"""The tables of a report, of what ``evaluation_files.describe_evaluation`` gives."""

from collections.abc import Iterable, Sequence
from html import escape

from experiments.report_scenes import ReportScene
from jointnet.evaluation import OVERALL
from jointnet.object_evaluation import COLUMNS as OBJECT_COLUMNS
from jointnet.protocols import UNITS

FIGURES = {
    "iou": "IoU",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
}
RELAXED = {name: name for name in ("completeness", "correctness", "quality")}
_OBJECTS = OBJECT_COLUMNS | {
    "f1": "F1",
    "ap50": "AP50",
    "boundary_iou": "boundary IoU",
    "polis_px": "PoLiS px",
    "polis_m": "PoLiS m",
}
_SIGNED = ("count_error", "area_error")


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals, or a dash where there is no figure."""
    if value is None:
        return "–"
    return f"{value:+.3f}".replace("-", "\u2212") if signed else f"{value:.3f}"


def threshold_words(threshold: float | None) -> str:
    """A threshold as a reader knows it."""
    return "finished masks" if threshold is None else f"threshold {threshold:g}"


def table(
    head: Sequence[str], rows: Iterable[str], caption: str, style: str = "", sortable: bool = False
) -> str:
    """A table.

    Args:
        head: names of the columns, the first that of the rows' names.
        rows: ``<tr>`` or ``<tbody>`` elements.
        caption: above the table; HTML.
        style: further classes.
        sortable: whether a click on a column's name sorts the rows.
    """
    cell = '<button type="button">{}</button>' if sortable else "{}"
    cells = "".join(f'<th scope="col">{cell.format(escape(name))}</th>' for name in head)
    kind = f"{style} sortable".strip() if sortable else style
    return (
        f'<div class="wide"><table class="{kind}"><caption>{caption}</caption>'
        f"<thead><tr>{cells}</tr></thead>{''.join(rows)}</table></div>"
    )


def summary_table(summary: Sequence[dict]) -> str:
    """Pooled figures per threshold and place, ``evaluation.summarise``."""
    columns = FIGURES | (RELAXED if summary[0].get("relaxed_buffer_px") is not None else {})
    bodies = []
    for threshold in dict.fromkeys(row["threshold"] for row in summary):
        rows = [
            f'<tr class="{"total" if row["place"] == OVERALL else ""}">'
            f'<th scope="row">{escape(row["place"])}</th>'
            f"<td>{row['scenes']:,}</td><td>{row['pixels'] / 1e6:,.2f}</td>"
            + "".join(_share(row[name]) if name == "iou" else _cell(row[name]) for name in columns)
            + "</tr>"
            for row in summary
            if row["threshold"] == threshold
        ]
        bodies.append(_group(threshold_words(threshold), len(columns) + 3, rows))
    caption = "Counts of all pixels added, then divided once; void pixels count nowhere."
    if columns.keys() & RELAXED.keys():
        buffer = summary[0]["relaxed_buffer_px"]
        caption += f" Completeness, correctness and quality match up to {buffer} px apart."
    return table(["place", "scenes", "Mpx", *columns.values()], bodies, caption)


def protocol_table(rows: Sequence[dict], names: dict[str, str]) -> str:
    """Overall figures by every protocol, ``protocols.protocol_rows``."""
    bodies = []
    for threshold in dict.fromkeys(row["threshold"] for row in rows):
        lines = [
            f'<tr><th scope="row">{escape(names[row["protocol"]])}</th>'
            f"<td>{row['units']:,} {UNITS[row['protocol']]}</td>"
            + "".join(_cell(row[name]) for name in FIGURES)
            + "</tr>"
            for row in rows
            if row["threshold"] == threshold and row["place"] == OVERALL
        ]
        bodies.append(_group(threshold_words(threshold), len(FIGURES) + 2, lines))
    caption = "The same predictions by the protocols that publications mix; do not compare across."
    return table(["protocol", "over", *FIGURES.values()], bodies, caption, "words")


def object_table(rows: Sequence[dict]) -> str:
    """Figures of objects per threshold and place, ``object_evaluation.object_rows``."""
    bodies = []
    for threshold in dict.fromkeys(row["threshold"] for row in rows):
        lines = [
            f'<tr class="{"total" if row["place"] == OVERALL else ""}">'
            f'<th scope="row">{escape(row["place"])}</th>'
            f"<td>{row['true_objects']:,}</td><td>{row['predicted_objects']:,}</td>"
            + "".join(_cell(row[name], name in _SIGNED) for name in _OBJECTS)
            + "</tr>"
            for row in rows
            if row["threshold"] == threshold
        ]
        bodies.append(_group(threshold_words(threshold), len(_OBJECTS) + 3, lines))
    caption = (
        "Objects are pieces connected by edges, matched one to one from an IoU of 0.5; boundaries "
        f"{rows[0]['boundary_px']} px wide; PoLiS of matched pairs."
    )
    return table(["place", "true", "found", *_OBJECTS.values()], bodies, caption)


def confusion_table(row: dict) -> str:
    """The four counts of a row of the summary, with their shares of all and of the truth."""
    pixels = max(row["pixels"], 1)

    def cell(name: str, style: str, words: str, of: int) -> str:
        count = row[name]
        return (
            f'<td class="{style}"><b>{count:,}</b><span>{words}</span>'
            f"<span>{count / pixels:.1%} of all, {count / max(of, 1):.1%} of the row</span></td>"
        )

    true = row["true_positive"] + row["false_negative"]
    false = row["false_positive"] + row["true_negative"]
    rows = [
        f'<tr><th scope="row">target<span>{true:,} px</span></th>'
        + cell("true_positive", "found", "found", true)
        + cell("false_negative", "missed", "missed", true)
        + "</tr>",
        f'<tr><th scope="row">background<span>{false:,} px</span></th>'
        + cell("false_positive", "false", "false alarm", false)
        + cell("true_negative", "nothing", "rightly nothing", false)
        + "</tr>",
    ]
    caption = f"All valid pixels, {threshold_words(row['threshold'])}; rows are the truth."
    head = ["truth", "predicted target", "predicted background"]
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"], caption, "confusion")


def scene_table(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """Figures of each scene at one threshold, those with most wrong pixels first.

    Args:
        rows: of ``scenes`` in ``describe_evaluation``, at that threshold.
        scenes: the same, in this order.
    """
    lines = []
    columns = {name: words for name, words in FIGURES.items() if name != "accuracy"}
    for at in worst_first(rows):
        row, layers = rows[at], scenes[at].layers
        pixels = sum(row[name] for name in COUNTS)
        true, found = row["true_positive"] + row["false_negative"], row["true_positive"]
        found += row["false_positive"]
        lines.append(
            f'<tr><th scope="row"><a href="#scene-{at + 1}">{escape(row["name"])}</a></th>'
            f'<td class="text">{escape(row["place"])}</td>'
            + "".join(_share(row[name]) if name == "iou" else _cell(row[name]) for name in columns)
            + "".join(f"<td>{row[name]:,}</td>" for name in ("false_negative", "false_positive"))
            + f"<td>{true / max(pixels, 1):.1%}</td><td>{found / max(pixels, 1):.1%}</td>"
            f"<td>{layers.height:,} × {layers.width:,}</td></tr>"
        )
    head = [
        "scene",
        "place",
        *columns.values(),
        "missed px",
        "false px",
        "target share",
        "predicted share",
    ]
    caption = "A name opens the scene in the viewer; the name of a column sorts."
    body = [f"<tbody>{''.join(lines)}</tbody>"]
    return table([*head, "rows × columns"], body, caption, "scenes", sortable=True)


COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")


def worst_first(rows: Sequence[dict]) -> list[int]:
    """Numbers of the rows, those first that cost the pooled figures most: by wrong pixels.

    Not by IoU, which is 0 wherever a scene without target has one false pixel. Scenes without a
    valid pixel come last.
    """

    def key(at: int) -> tuple:
        row = rows[at]
        empty = not sum(row[name] for name in COUNTS)
        return empty, -row["false_negative"] - row["false_positive"], row["name"]

    return sorted(range(len(rows)), key=key)


def _group(title: str, columns: int, rows: Sequence[str]) -> str:
    head = f'<tr class="group"><th colspan="{columns}" scope="rowgroup">{escape(title)}</th></tr>'
    return f"<tbody>{head}{''.join(rows)}</tbody>"


def _cell(value: float | None, signed: bool = False) -> str:
    return f"<td>{number(value, signed)}</td>"


def _share(value: float) -> str:
    """A figure in 0..1 with a bar of its length below."""
    return f'<td class="share" style="--share:{value:.4f}">{number(value)}</td>'
