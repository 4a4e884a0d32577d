"""The page of a report as HTML that opens from disk: a viewer, tables, and charts of figures."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from jointnet.evaluation import OBJECT_METRICS, OVERALL, UNITS
from jointnet.figures import coverage_chart, threshold_charts, training_charts
from jointnet.metrics import METRICS, RELAXED_METRICS

if TYPE_CHECKING:
    from preprocessing.pictures import ScenePictures

ASSETS = Path(__file__).parent / "report_assets"
TEMPLATE = "page.html"
COPIED = sorted(path.name for path in ASSETS.iterdir() if path.name != TEMPLATE)
PAGE, SCRIPT = "index.html", "assets/report.js"
"""The page, and a file whose presence says that a folder is a report."""
WORST_NAMED = 3
# Imagery must not be committed with the folder that a report happens to lie in.
_IGNORE = "# Reports show imagery, which has a licence of its own.\n*\n"
_COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")


@dataclass(frozen=True)
class Origin:
    """What a report says of where its numbers come from.

    Attributes:
        title: of the page.
        kind: line above the title.
        measured: what follows "25 scenes" in the lead.
        threshold: of the pictures; None for finished masks.
        facts: terms, each with what there is to say of it.
        history: rows of the run's ``history.csv``; empty if there is none.
        best_epoch: whose weights were kept; None if unknown.
    """

    title: str
    kind: str
    measured: str
    threshold: float | None
    facts: Sequence[tuple[str, str]]
    history: Sequence[dict[str, float]] = ()
    best_epoch: int | None = None


@dataclass(frozen=True)
class ReportScene:
    """A scene, the folder of its pictures below the report's, and metres per pixel, if known."""

    name: str
    folder: str
    gsd: float | None
    pictures: "ScenePictures"


def write_page(folder: Path, content: dict, scenes: Sequence[ReportScene], origin: Origin) -> None:
    """Write the page of a report beside the pictures of its scenes.

    ``content`` is that of ``evaluation.describe_evaluation``; the scenes are in its order.
    """
    (folder / "assets").mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(ASSETS / name, folder / "assets" / name)
    (folder / ".gitignore").write_text(_IGNORE, encoding="utf-8")
    (folder / PAGE).write_text(render(content, scenes, origin), encoding="utf-8")


def render(content: dict, scenes: Sequence[ReportScene], origin: Origin) -> str:
    """Return the page as HTML; see ``write_page``."""
    rows = [row for row in content["scenes"] if row["threshold"] == origin.threshold]
    pooled = [row for row in content["summary"] if row["threshold"] == origin.threshold]
    (overall,) = (row for row in pooled if row["place"] == OVERALL)
    sections = {
        "places": ("Places", _places(rows, scenes, pooled)),
        "metrics": ("Metrics", _metrics(content, overall)),
        "curves": ("Curves", _curves(content, scenes, origin)),
        "scenes": ("Scenes", scene_table(rows, scenes) + _sheets(rows, scenes)),
        "origin": ("How this was made", _facts(origin)),
    }
    links = ['<li><a href="#viewer">Viewer</a></li>']
    links += [f'<li><a href="#{key}">{title}</a></li>' for key, (title, _) in sections.items()]
    return Template((ASSETS / TEMPLATE).read_text(encoding="utf-8")).substitute(
        title=escape(origin.title),
        kind=escape(origin.kind),
        lead=_lead(rows, overall, origin),
        headline="".join(
            f'<div class="{name}"><dt>{_label(name)}</dt><dd>{number(overall[name])}</dd></div>'
            for name in METRICS
        ),
        nav=f"<ul>{''.join(links)}</ul>",
        sections="".join(
            f'<section id="{key}"><h2>{title}</h2>{body}</section>'
            for key, (title, body) in sections.items()
        ),
        data=_data(rows, scenes),
    )


def _lead(rows: Sequence[dict], overall: dict, origin: Origin) -> str:
    """Return what was measured, and where to look first."""
    scenes = "1 scene" if len(rows) == 1 else f"{len(rows)} scenes"
    at = "" if origin.threshold is None else f" at {_threshold_words(origin.threshold)}"
    words = f"{scenes}{escape(origin.measured)}, {overall['pixels'] / 1e6:,.2f} Mpx with truth; "
    words += f"counts pooled{at}."
    worst = [at for at in worst_first(rows) if _pixels(rows[at])][:WORST_NAMED]
    links = [f"{_link(at, rows[at])} (IoU {number(rows[at]['iou'])})" for at in worst]
    return f"{words} Most wrong pixels: {', '.join(links)}." if links else f"{words} All is void."


def _places(rows: Sequence[dict], scenes: Sequence[ReportScene], pooled: Sequence[dict]) -> str:
    """Return the errors of every scene as small pictures, by place, most wrong pixels first."""
    blocks = []
    # Places with many scenes come first: those with one then share a line.
    for place in sorted(pooled, key=lambda row: -row["scenes"]):
        members = [at for at in worst_first(rows) if rows[at]["place"] == place["place"]]
        thumbs = "".join(
            f'<li><a class="thumb" href="#scene-{at + 1}"><img loading="lazy" '
            f'src="{scenes[at].folder}/thumb.jpg" alt="Errors of {escape(rows[at]["name"])}">'
            f"<span><em>{escape(rows[at]['name'])}</em>{number(rows[at]['iou'])}</span></a></li>"
            for at in members
        )
        if members:
            blocks.append(
                f'<div class="place"><h3>{escape(place["place"])} '
                f"<span>IoU {number(place['iou'])}</span></h3><ul>{thumbs}</ul></div>"
            )
    keys = (("found", "found"), ("missed", "missed"), ("false", "false alarm"))
    note = "".join(f'<span class="key"><i class="{k}"></i>{words}</span>' for k, words in keys)
    return f'<div class="places">{"".join(blocks)}</div><p class="legend">{note}</p>'


def _metrics(content: dict, overall: dict) -> str:
    objects = content.get("objects")
    parts = {
        "Confusion matrix": confusion_table(overall),
        "Protocols": protocol_table(content["protocols"], content["protocol_names"]),
        "Objects": object_table(objects) if objects else _absent("--also objects counts objects."),
    }
    headed = "".join(f"<h3>{title}</h3>{part}" for title, part in parts.items())
    return summary_table(content["summary"]) + headed


def _curves(content: dict, scenes: Sequence[ReportScene], origin: Origin) -> str:
    charts, missing = [], []
    if "thresholds" in content:
        overall = [row for row in content["summary"] if row["place"] == OVERALL]
        # Finished masks have no threshold that could be marked.
        named = [row for row in overall if row["threshold"] is not None]
        charts += threshold_charts(content["thresholds"], named)
    else:
        missing.append(
            "Curves over the threshold and calibration need probabilities, which finished masks "
            "alone do not have."
        )
    coverage = np.concatenate([scene.pictures.coverage for scene in scenes])
    if len(coverage):
        charts.append(coverage_chart(coverage))
    else:
        missing.append("No window has a valid pixel, so there is no coverage to show.")
    if origin.history:
        charts += training_charts(origin.history, origin.best_epoch)
    else:
        missing.append("No history of a training is known for what was measured.")
    return f'<div class="charts">{"".join([*charts, *map(_absent, missing)])}</div>'


def _sheets(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """Return what a print shows in place of the viewer: the pictures of each scene in a row."""
    figures = "".join(
        f'<figure class="sheet"><img src="{scenes[at].folder}/sheet.jpg" '
        f'alt="Pictures of {escape(rows[at]["name"])}"><figcaption>'
        f"<b>{escape(rows[at]['name'])}</b>, IoU {number(rows[at]['iou'])}, precision "
        f"{number(rows[at]['precision'])}, recall {number(rows[at]['recall'])}"
        "</figcaption></figure>"
        for at in worst_first(rows)
    )
    image = "the image, " if scenes[0].pictures.imagery else ""
    words = (
        f"<p>From left to right: {image}truth (yellow), prediction (purple) and errors: green "
        "found, blue missed, orange false alarm, grey no data.</p>"
    )
    return f'<div class="print-only sheets">{words}{figures}</div>'


def _facts(origin: Origin) -> str:
    parts = []
    for term, words in origin.facts:
        code = term.endswith(("command", "commit"))
        said = f"<code>{escape(words)}</code>" if code else escape(words)
        parts.append(f"<dt>{escape(term)}</dt><dd>{said}</dd>")
    return f'<dl class="facts">{"".join(parts)}</dl>'


def _data(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """Return what the script needs of every scene, as JSON that no name can end early."""
    from preprocessing.pictures import TILE

    described = [
        {name: row[name] for name in ("name", "iou", "precision", "recall")}
        | {"missed": row["false_negative"], "false": row["false_positive"]}
        | {"empty": not _pixels(row), "note": row.get("aligned")}
        | {"folder": scene.folder, "gsd": scene.gsd}
        | {key: getattr(scene.pictures, key) for key in ("height", "width", "levels", "imagery")}
        for row, scene in zip(rows, scenes, strict=True)
    ]
    return json.dumps({"tile": TILE, "scenes": described}).replace("<", "\\u003c")


def worst_first(rows: Sequence[dict]) -> list[int]:
    """Return the numbers of the rows, most wrong pixels first: these cost the pooled metrics most.

    IoU would not do: it is 0 wherever a scene without target has one false pixel. Scenes without
    a valid pixel come last.
    """

    def key(at: int) -> tuple:
        row = rows[at]
        return not _pixels(row), -row["false_negative"] - row["false_positive"], row["name"]

    return sorted(range(len(rows)), key=key)


def _pixels(row: dict) -> int:
    return sum(row[name] for name in _COUNTS)


def _link(at: int, row: dict) -> str:
    return f'<a href="#scene-{at + 1}">{escape(row["name"])}</a>'


def _absent(words: str) -> str:
    """Return a sentence in place of what cannot be shown."""
    return f'<p class="absent">{words}</p>'


# Tables

_LABELS = {
    "iou": "IoU",
    "f1": "F1",
    "ap50": "AP50",
    "boundary_iou": "boundary IoU",
    "polis_px": "PoLiS px",
    "polis_m": "PoLiS m",
}
Cell = str | tuple[str, str]
"""Content of a table's cell as HTML; or its attributes and the content."""


def html_table(
    head: Sequence[str], rows: Iterable[str | Sequence[Cell]], caption: str, style: str
) -> str:
    """Return a table.

    Args:
        head: names of the columns.
        rows: cells, the first of which names the row; a string is a heading of the rows after it.
        caption: HTML.
        style: classes; with "sortable" a click on a column's name sorts the rows.
    """
    parts = []
    for row in rows:
        if isinstance(row, str):
            heading = f'<th colspan="{len(head)}" scope="rowgroup">{escape(row)}</th>'
            parts.append(f'</tbody><tbody><tr class="group">{heading}</tr>')
            continue
        name, *cells = (cell if isinstance(cell, tuple) else ("", cell) for cell in row)
        cells = "".join(f"<td {attributes}>{html}</td>" for attributes, html in cells)
        parts.append(f'<tr><th scope="row" {name[0]}>{name[1]}</th>{cells}</tr>')
    button = '<button type="button">{}</button>' if "sortable" in style else "{}"
    columns = "".join(f'<th scope="col">{button.format(escape(name))}</th>' for name in head)
    return (
        f'<div class="wide"><table class="{style}"><caption>{caption}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(parts)}</tbody></table></div>"
    ).replace("<tbody></tbody>", "")


def summary_table(summary: Sequence[dict]) -> str:
    """Return pooled metrics per threshold and place, of ``evaluation.summarise``."""
    buffer = summary[0].get("relaxed_buffer_px")
    names = [*METRICS, *(RELAXED_METRICS if buffer is not None else ())]

    def cells(row: dict) -> list[Cell]:
        counts = [f"{row['scenes']:,}", f"{row['pixels'] / 1e6:,.2f}"]
        return [escape(row["place"]), *counts, *_numbers(row, names)]

    caption = "Counts of all pixels added, then divided once; void pixels count nowhere."
    if buffer is not None:
        caption += f" Completeness, correctness and quality match up to {buffer} px apart."
    head = ["place", "scenes", "Mpx", *map(_label, names)]
    return html_table(head, _by_threshold(summary, cells), caption, "totals")


def protocol_table(rows: Sequence[dict], names: dict[str, str]) -> str:
    """Return the overall metrics by every protocol, of ``evaluation.protocol_rows``."""

    def cells(row: dict) -> list[Cell]:
        over = f"{row['units']:,} {UNITS[row['protocol']]}"
        return [escape(names[row["protocol"]]), over, *(number(row[name]) for name in METRICS)]

    overall = [row for row in rows if row["place"] == OVERALL]
    caption = "The same predictions by the protocols that publications mix; do not compare across."
    head = ["protocol", "over", *map(_label, METRICS)]
    return html_table(head, _by_threshold(overall, cells), caption, "words")


def object_table(rows: Sequence[dict]) -> str:
    """Return metrics of objects per threshold and place, of ``evaluation.object_rows``."""

    def cells(row: dict) -> list[Cell]:
        counts = [f"{row['true_objects']:,}", f"{row['predicted_objects']:,}"]
        values = [number(row[name], name.endswith("_error")) for name in OBJECT_METRICS]
        return [escape(row["place"]), *counts, *values]

    caption = (
        "Objects are pieces connected by edges, matched one to one from an IoU of 0.5; boundaries "
        f"{rows[0]['boundary_px']} px wide; PoLiS of matched pairs."
    )
    head = ["place", "true", "found", *map(_label, OBJECT_METRICS)]
    return html_table(head, _by_threshold(rows, cells), caption, "totals")


def confusion_table(row: dict) -> str:
    """Return the four counts of a row of the summary, with their shares of all and of the truth."""
    lines = []
    for name, counts in (
        ("target", {"true_positive": "found", "false_negative": "missed"}),
        ("background", {"false_positive": "false alarm", "true_negative": "rightly nothing"}),
    ):
        of = sum(row[count] for count in counts)
        cells: list[Cell] = [f"{name}<span>{of:,} px</span>"]
        for count, words in counts.items():
            of_all, of_row = row[count] / max(row["pixels"], 1), row[count] / max(of, 1)
            shares = f"<span>{of_all:.1%} of all, {of_row:.1%} of the row</span>"
            style = f'class="{words.removesuffix(" alarm").removeprefix("rightly ")}"'
            cells.append((style, f"<b>{row[count]:,}</b><span>{words}</span>{shares}"))
        lines.append(cells)
    caption = f"All valid pixels, {_threshold_words(row['threshold'])}; rows are the truth."
    head = ["truth", "predicted target", "predicted background"]
    return html_table(head, lines, caption, "confusion")


def scene_table(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """Return the metrics of each scene at one threshold, most wrong pixels first.

    The rows are those of ``describe_evaluation`` at that threshold, the scenes in their order.
    """
    names = [name for name in METRICS if name != "accuracy"]
    lines = []
    for at in worst_first(rows):
        row, pictures, pixels = rows[at], scenes[at].pictures, max(_pixels(rows[at]), 1)
        lines.append(
            [
                _link(at, row),
                ('class="text"', escape(row["place"])),
                *_numbers(row, names),
                f"{row['false_negative']:,}",
                f"{row['false_positive']:,}",
                f"{(row['true_positive'] + row['false_negative']) / pixels:.1%}",
                f"{(row['true_positive'] + row['false_positive']) / pixels:.1%}",
                f"{pictures.height:,} × {pictures.width:,}",
            ]
        )
    head = ["scene", "place", *map(_label, names), "missed px", "false px"]
    head += ["target share", "predicted share", "rows × columns"]
    caption = "A name opens the scene in the viewer; the name of a column sorts."
    return html_table(head, lines, caption, "scenes sortable")


def number(value: float | None, signed: bool = False) -> str:
    """Return three decimals, or a dash if there is no value."""
    if value is None:
        return "–"
    return f"{value:+.3f}".replace("-", "\u2212") if signed else f"{value:.3f}"


def _by_threshold(
    rows: Sequence[dict], cells: Callable[[dict], list[Cell]]
) -> Iterator[str | list[Cell]]:
    """Yield the rows of a table, those of each threshold under a heading."""
    for threshold in dict.fromkeys(row["threshold"] for row in rows):
        yield _threshold_words(threshold)
        yield from (cells(row) for row in rows if row["threshold"] == threshold)


def _threshold_words(threshold: float | None) -> str:
    return "finished masks" if threshold is None else f"threshold {threshold:g}"


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " "))


def _numbers(row: dict, names: Iterable[str]) -> Iterator[Cell]:
    """Yield the metrics of a row, IoU with a bar of its length."""
    for name in names:
        bar = f'class="share" style="--share:{row[name]:.4f}"' if name == "iou" else ""
        yield bar, number(row[name])
