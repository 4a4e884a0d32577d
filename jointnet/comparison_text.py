"""The tables that ``compare.py`` prints: three decimals, no wider than the screen."""

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jointnet.bootstrap import RESAMPLES, SEED
from jointnet.evaluation import COLUMNS, OVERALL

LONGEST_CELL = 18
# Left out of the names of settings, which stay unique without.
PREFIXES = ("recipe.training.", "network.arguments.")
NAMES = {"iou": "IoU", "f1": "F1"}


def table(rows: Sequence[Sequence[Any]], left: int = 1, width: int = sys.maxsize) -> str:
    """Rows of equal length as aligned text, the first of them the heading.

    Args:
        rows: cells; floats get three decimals, None and '' are shown as such.
        left: how many columns, from the first, are words and aligned to the left. They are
            repeated where the others do not fit on one line.
        width: characters of a line, after which columns go on below.
    """
    text = [[_cell(value) for value in row] for row in rows]
    sizes = [max(len(row[column]) for row in text) for column in range(len(text[0]))]
    heads, blocks = list(range(left)), [[]]
    for column in range(left, len(sizes)):
        used = sum(sizes[c] + 2 for c in [*heads, *blocks[-1], column]) - 2
        if blocks[-1] and used > width:
            blocks.append([])
        blocks[-1].append(column)
    return "\n\n".join(
        "\n".join(
            "  ".join(
                row[c].ljust(sizes[c]) if c < left else row[c].rjust(sizes[c])
                for c in [*heads, *block]
            ).rstrip()
            for row in text
        ).lstrip("\n")
        for block in blocks
    )


def _by_run(first: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table with a column per run, of which there may be many, with long names."""
    columns = [_broken(name) for name in names]
    deepest = max(map(len, columns))
    # Names end on the line above the figures.
    heads = [[""] * (deepest - len(lines)) + lines for lines in columns]
    heading = [[""] * (deepest - 1) + [first], *heads]
    screen = max(80, shutil.get_terminal_size((120, 24)).columns)
    return table([*zip(*heading, strict=True), *rows], width=screen)


def _broken(name: str) -> list[str]:
    """A name on lines of LONGEST_CELL characters, broken after ``_``, ``-`` and ``/`` if it can."""
    lines = [""]
    for part in re.findall(rf"[^_/-]{{1,{LONGEST_CELL - 1}}}[_/-]?|[_/-]", name):
        if lines[-1] and len(lines[-1] + part) > LONGEST_CELL:
            lines.append("")
        lines[-1] += part
    return lines


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-" if value is None else str(value)


def setting(value: Any) -> str:
    """A setting in few characters: whole in ``comparison.json``."""
    if isinstance(value, dict) and set(value) == {"strength", "probability"}:
        text = f"{setting(value['strength'])} (p {setting(value['probability'])})"
    elif isinstance(value, dict):
        text = ", ".join(f"{key} {setting(inner)}" for key, inner in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(setting, value))
    elif value is None or isinstance(value, str):
        text = value or "-"
    else:
        text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 3] + "..."


def _shortened(keys: Sequence[str]) -> dict[str, str]:
    """Dotted names without their usual beginnings, where they can be told apart without."""

    def plain(key: str) -> str:
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
        return key.removeprefix(prefix)

    times = Counter(map(plain, keys))
    return {key: plain(key) if times[plain(key)] == 1 else key for key in keys}


def run_text(content: dict) -> str:
    """All that is printed of ``run_comparison.describe_runs``."""
    runs = content["runs"]
    names = [run["name"] for run in runs]
    parts = []
    if content["skipped"]:
        parts.append(_skipped(content["skipped"]))
    if content["differing"]:
        short = _shortened(list(content["differing"]))
        rows = [
            [short[key], *(setting(value) for value in row.values())]
            for key, row in content["differing"].items()
        ]
        parts.append("What differs in the configuration\n" + _by_run("setting", names, rows))
    elif len(runs) > 1:
        parts.append("Their configurations do not differ.")
    parts.append("What came out, pooled over the validation scenes\n" + _outcomes(runs))
    parts += _by_place(runs)
    if content["differences"]:
        parts.append(_differences(content["differences"]))
    if content["not_compared"]:
        parts.append("\n".join(f"Not compared: {line}" for line in content["not_compared"]))
    return "\n\n".join(parts)


def _skipped(skipped: dict[str, str]) -> str:
    plain = [name for name, why in skipped.items() if why == "no run"]
    lines = [f"Skipped, no runs: {', '.join(plain)}"] if plain else []
    lines += [f"Skipped: {name}: {why}" for name, why in skipped.items() if why != "no run"]
    return "\n".join(lines)


def _outcomes(runs: Sequence[dict]) -> str:
    heading = ["run", "measured in", "parameters", "steps", "kept epoch", "scenes", "threshold"]
    rows = [heading + [NAMES.get(column, column) for column in COLUMNS]]
    for run in runs:
        kept = run["kept_epoch"] and f"{run['kept_epoch']} of {run['epochs']}"
        size, steps = (run[key] and f"{run[key]:,}" for key in ("parameters", "steps"))
        head = [run["name"], run["measured"] or "not yet", size, steps, kept]
        overall = [row for row in run["results"] if row["place"] == OVERALL]
        for row in overall or [{}]:
            at = row.get("threshold")
            rows.append([*head, row.get("scenes"), None if at is None else f"{at:g}"])
            rows[-1] += [row.get(column) for column in COLUMNS]
            head = [""] * len(head)
    return table(rows, left=2)


def _by_place(runs: Sequence[dict]) -> list[str]:
    """IoU by place and run: a table per threshold for the runs that have the same places."""
    parts = []
    for at in dict.fromkeys(row["threshold"] for run in runs for row in run["results"]):
        groups: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
        for run in runs:
            found = {row["place"]: row["iou"] for row in run["results"] if row["threshold"] == at}
            groups.setdefault(tuple(found), {})[run["name"]] = found
        for places, by_run in groups.items():
            # One place and the sum of it are the same.
            if len(places) > 2:
                rows = [[place, *(found[place] for found in by_run.values())] for place in places]
                title = "IoU by place" + ("" if at is None else f" at {at:g}")
                parts.append(f"{title}\n" + _by_run("place", list(by_run), rows))
    return parts


def mask_text(content: dict) -> str:
    """All that is printed of ``mask_comparison.describe_comparison``."""
    parts = [_notes(content["scenes"])]
    if content["agreement"]:
        keys = ("place", "scenes", "pixels", "equal", "iou", "kappa")
        rows = [
            [f"{row['first']}, {row['second']}", *_row(row, keys)] for row in content["agreement"]
        ]
        parts.append(
            "Agreement: share of pixels that are equal, IoU of each other, Cohen's kappa\n"
            + table([["masks", *(NAMES.get(key, key) for key in keys)], *rows], left=2)
        )
    if "metrics" in content:
        keys = ("place", "scenes", "pixels", *COLUMNS)
        rows = [[row["mask"], *_row(row, keys)] for row in content["metrics"]]
        parts.append(
            f"Against {content['truth']}\n"
            + table([["mask", *(NAMES.get(key, key) for key in keys)], *rows], left=2)
        )
    if content.get("differences"):
        parts.append(_differences(content["differences"]))
    return "\n\n".join(filter(None, parts))


def _notes(scenes: Sequence[dict]) -> str:
    """A line for each thing that was done; without its details where it was to several scenes."""
    by_deed: dict[str, list[str]] = {}
    for scene in scenes:
        for note in scene.get("notes", []):
            by_deed.setdefault(note.partition(" (")[0], []).append(note)
    return "\n".join(
        notes[0] if len(notes) == 1 else f"{deed} ({len(notes)} of {len(scenes)} scenes)"
        for deed, notes in by_deed.items()
    )


def _row(row: dict, keys: Sequence[str]) -> list[Any]:
    return [f"{row[key]:,}" if isinstance(row[key], int) else row[key] for key in keys]


def _differences(differences: Sequence[dict]) -> str:
    """Differences of IoU, with intervals and what they allow to say; F1 goes up and down with it.

    The other metrics are in JSON and CSV.
    """
    shown = [row for row in differences if row["metric"] == "iou"]
    # Finished masks have no threshold.
    at = any(row.get("threshold") is not None for row in shown)
    rows = [["difference of IoU", *(["at"] if at else []), "verdict", "", "95 % interval", "over"]]
    rows += [
        [
            f"{row['second']} - {row['first']}",
            *([setting(row.get("threshold"))] if at else []),
            row["verdict"],
            f"{row['value']:+.3f}",
            None if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['number']} {row['unit']}",
        ]
        for row in shown
    ]
    return (
        "Differences of pooled figures, with bootstrap intervals "
        f"({RESAMPLES:,} resamples, seed {SEED})\n" + table(rows, left=2 + at)
    )
