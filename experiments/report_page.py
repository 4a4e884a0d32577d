"""The page of a report: ``index.html``, beside it its style, its script and the viewer's library.

It opens from disk: no server, no network, no ES modules, which browsers refuse to files. The
library is OpenSeadragon (https://openseadragon.github.io, BSD-3-Clause, its licence beside it).
"""

import json
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from experiments.report_curves import absent, coverage_figure, threshold_figures, training_figures
from experiments.report_facts import Origin
from experiments.report_scenes import ReportScene
from experiments.report_tables import (
    COUNTS,
    FIGURES,
    confusion_table,
    number,
    object_table,
    protocol_table,
    scene_table,
    summary_table,
    threshold_words,
    worst_first,
)
from jointnet.evaluation import OVERALL
from preprocessing.pictures import TILE

ASSETS = Path(__file__).parent / "report_assets"
COPIED = (
    "report.css",
    "theme.js",
    "report.js",
    "openseadragon.min.js",
    "openseadragon.LICENSE.txt",
)
PAGE = "index.html"
SCRIPT = "assets/report.js"
"""What a folder holds that is a report."""
WORST_NAMED = 3
# So that imagery is not committed with the folder that a report happens to lie in.
_IGNORE = "# Reports show imagery, which has a licence of its own.\n*\n"


def write_page(folder: Path, content: dict, scenes: Sequence[ReportScene], origin: Origin) -> None:
    """Write the page of a report beside the layers of its scenes.

    Args:
        folder: of the report.
        content: of ``evaluation_files.describe_evaluation``.
        scenes: in the order of ``content["scenes"]``.
        origin: where the figures come from.

    Raises:
        OSError: a file cannot be written.
    """
    (folder / "assets").mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(ASSETS / name, folder / "assets" / name)
    (folder / ".gitignore").write_text(_IGNORE, encoding="utf-8")
    (folder / PAGE).write_text(render(content, scenes, origin), encoding="utf-8")


def render(content: dict, scenes: Sequence[ReportScene], origin: Origin) -> str:
    """The page as HTML; see ``write_page``."""
    rows = [row for row in content["scenes"] if row["threshold"] == origin.threshold]
    overall = next(
        row
        for row in content["summary"]
        if row["place"] == OVERALL and row["threshold"] == origin.threshold
    )
    sections = {
        "places": ("Places", _places(rows, scenes, content["summary"], origin.threshold)),
        "figures": ("Figures", _figures(content, overall)),
        "curves": ("Curves", _curves(content, scenes, origin)),
        "scenes": ("Scenes", scene_table(rows, scenes) + _sheets(rows, scenes)),
        "origin": ("How this was made", _facts(origin)),
    }
    titles = {"viewer": "Viewer"} | {name: title for name, (title, _) in sections.items()}
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in titles.items())
    template = Template((ASSETS / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(origin.title),
        kind=escape(origin.kind),
        lead=_lead(rows, overall, origin),
        headline=_headline(overall),
        nav=f"<ul>{links}</ul>",
        sections="".join(
            f'<section id="{name}"><h2>{title}</h2>{body}</section>'
            for name, (title, body) in sections.items()
        ),
        footer="Pictures show imagery whose licence is its own: mind it before you pass them on. "
        "The viewer is OpenSeadragon (BSD-3-Clause, licence in <code>assets</code>).",
        data=_data(rows, scenes),
    )


def _lead(rows: Sequence[dict], overall: dict, origin: Origin) -> str:
    """What was measured, and where to look first."""
    scenes = "1 scene" if len(rows) == 1 else f"{len(rows)} scenes"
    words = f"{scenes}{escape(origin.measured)}, {overall['pixels'] / 1e6:,.2f} Mpx with truth; "
    at = "" if origin.threshold is None else f" at {threshold_words(origin.threshold)}"
    words += f"counts pooled{at}."
    named = [at for at in worst_first(rows) if _pixels(rows[at])][:WORST_NAMED]
    links = (
        f'<a href="#scene-{at + 1}">{escape(rows[at]["name"])}</a> (IoU {number(rows[at]["iou"])})'
        for at in named
    )
    return (
        f"{words} Most wrong pixels: {', '.join(links)}." if named else f"{words} Nothing is valid."
    )


def _headline(overall: dict) -> str:
    return "".join(
        f'<div class="{name}"><dt>{words}</dt><dd>{number(overall[name])}</dd></div>'
        for name, words in FIGURES.items()
    )


def _places(
    rows: Sequence[dict],
    scenes: Sequence[ReportScene],
    summary: Sequence[dict],
    threshold: float | None,
) -> str:
    """Small multiples: the errors of every scene, by place, most wrong pixels first."""
    blocks = []
    order = worst_first(rows)
    # Places of many scenes first: those of one then share a line.
    for place in sorted(summary, key=lambda row: -row["scenes"]):
        if place["threshold"] != threshold or place["place"] == OVERALL:
            continue
        members = [at for at in order if rows[at]["place"] == place["place"]]
        thumbs = "".join(
            f'<li><a class="thumb" href="#scene-{at + 1}"><img loading="lazy" '
            f'src="{scenes[at].folder}/thumb.jpg" alt="Errors of {escape(rows[at]["name"])}">'
            f"<span><em>{escape(rows[at]['name'])}</em>{number(rows[at]['iou'])}</span></a></li>"
            for at in members
        )
        blocks.append(
            f'<div class="place"><h3>{escape(place["place"])} <span>IoU {number(place["iou"])}'
            f"</span></h3><ul>{thumbs}</ul></div>"
        )
    note = (
        '<p class="legend"><span class="key"><i class="found"></i>found</span>'
        '<span class="key"><i class="missed"></i>missed</span>'
        '<span class="key"><i class="false"></i>false alarm</span></p>'
    )
    return f'<div class="places">{"".join(blocks)}</div>{note}'


def _figures(content: dict, overall: dict) -> str:
    parts = [
        summary_table(content["summary"]),
        "<h3>Confusion matrix</h3>",
        confusion_table(overall),
        "<h3>Protocols</h3>",
        protocol_table(content["protocols"], content["protocol_names"]),
        "<h3>Objects</h3>",
        object_table(content["objects"])
        if "objects" in content
        else absent("Objects were not counted; --objects does."),
    ]
    return "".join(parts)


def _curves(content: dict, scenes: Sequence[ReportScene], origin: Origin) -> str:
    coverage = np.concatenate([scene.layers.coverage for scene in scenes])
    figures = [
        *threshold_figures(content.get("thresholds"), content["summary"]),
        coverage_figure(coverage),
        *training_figures(origin.history, origin.best_epoch),
    ]
    # Sentences on what is missing stand below what is there.
    figures.sort(key=lambda part: not part.startswith("<figure"))
    return f'<div class="charts">{"".join(figures)}</div>'


def _sheets(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """What a print has in place of the viewer: the layers of every scene side by side."""
    figures = "".join(
        f'<figure class="sheet"><img src="{scenes[at].folder}/sheet.jpg" '
        f'alt="Layers of {escape(rows[at]["name"])}"><figcaption>'
        f"<b>{escape(rows[at]['name'])}</b>, IoU {number(rows[at]['iou'])}, precision "
        f"{number(rows[at]['precision'])}, recall {number(rows[at]['recall'])}"
        "</figcaption></figure>"
        for at in worst_first(rows)
    )
    words = "the image, " if scenes[0].layers.imagery else ""
    words += "truth (yellow), prediction (purple) and errors: green found, blue missed, orange"
    words = f"<p>From left to right: {words} false alarm, grey no data.</p>"
    return f'<div class="print-only sheets">{words}{figures}</div>'


def _facts(origin: Origin) -> str:
    facts = "".join(
        f"<dt>{escape(term)}</dt><dd>{_code(term, words)}</dd>" for term, words in origin.facts
    )
    return f'<dl class="facts">{facts}</dl>'


def _code(term: str, words: str) -> str:
    plain = escape(words)
    return f"<code>{plain}</code>" if term.endswith(("command", "commit")) else plain


def _data(rows: Sequence[dict], scenes: Sequence[ReportScene]) -> str:
    """What the script needs of every scene, as JSON that no name can end early."""
    listed = [
        {
            "name": row["name"],
            "folder": scene.folder,
            "height": scene.layers.height,
            "width": scene.layers.width,
            "levels": scene.layers.levels,
            "imagery": scene.layers.imagery,
            "gsd": scene.gsd,
            "empty": not _pixels(row),
            "iou": row["iou"],
            "precision": row["precision"],
            "recall": row["recall"],
            "missed": row["false_negative"],
            "false": row["false_positive"],
            "note": row.get("aligned"),
        }
        for row, scene in zip(rows, scenes, strict=True)
    ]
    text = json.dumps({"tile": TILE, "scenes": listed}, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _pixels(row: dict) -> int:
    return sum(row[name] for name in COUNTS)
