"""The tables that ``compare.py`` prints: three decimals, no wider than the screen."""

import itertools
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointnet.evaluation import OVERALL
from jointnet.metrics import METRICS, RESAMPLES, SEED, Counts, paired_difference
from preprocessing.errors import RunError
from preprocessing.scenes import short_names

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
    """All that is printed of ``describe_runs``."""
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
    rows = [heading + [NAMES.get(column, column) for column in METRICS]]
    for run in runs:
        kept = run["kept_epoch"] and f"{run['kept_epoch']} of {run['epochs']}"
        size, steps = (run[key] and f"{run[key]:,}" for key in ("parameters", "steps"))
        head = [run["name"], run["measured"] or "not yet", size, steps, kept]
        overall = [row for row in run["results"] if row["place"] == OVERALL]
        for row in overall or [{}]:
            at = row.get("threshold")
            rows.append([*head, row.get("scenes"), None if at is None else f"{at:g}"])
            rows[-1] += [row.get(column) for column in METRICS]
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
        keys = ("place", "scenes", "pixels", *METRICS)
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


# Dictionaries that are one setting: an augmentation, and how a batch is shared out.
_PAIR = {"strength", "probability"}
_WHOLE = ("source_shares",)
# Said by others: the class, the target, and what came out.
_REDUNDANT = ("network.arguments.name", "recipe.patches.target", "parameters")


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says of itself.

    Attributes:
        name: what tables call it.
        path: the folder.
        settings: its ``config.json``, flat, by dotted name.
        measured: the file that the figures are from, ``evaluation.json`` or, without one,
            ``metrics.json``; None for a run that has not been measured yet.
        summary: figures per threshold and place, as ``evaluation.summarise`` makes them.
        scenes: counts by threshold and scene; empty where only sums are kept.
        kept_epoch: the epoch whose weights are kept, None if unknown.
        epochs: how many were trained, None if unknown.
    """

    name: str
    path: Path
    settings: dict[str, Any]
    measured: str | None
    summary: list[dict]
    scenes: dict[float | None, dict[str, Counts]]
    kept_epoch: int | None
    epochs: int | None

    @property
    def steps(self) -> int | None:
        """Steps up to the epoch that is kept; None where the configuration fixes no number."""
        each = self.settings.get("recipe.training.steps_per_epoch")
        return each * self.kept_epoch if each and self.kept_epoch else None


def read_runs(paths: Sequence[Path]) -> tuple[list[RunRecord], dict[str, str]]:
    """Read the run folders among paths, such as a shell makes of ``results/*``.

    Returns:
        The runs in the order given, each once, and why others were skipped, by name.

    Raises:
        RunError: none of them is a run that can be read.
    """
    paths = list({path.resolve(): path for path in paths}.values())
    runs, skipped = [], {}
    for path, name in zip(paths, short_names(paths), strict=True):
        if not is_run(path):
            skipped[name] = "no run" if path.exists() else "no such file or folder"
            continue
        try:
            runs.append(read_run(path, name))
        except RunError as error:
            skipped[name] = str(error)
    if not runs:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise RunError(
            f"no runs among what was given ({reasons}); name folders as in results/<run>"
        )
    return runs, skipped


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """Read what a run folder says of itself; the network is not built.

    Raises:
        RunError: a file of it is damaged, or not what a training command writes.
    """
    config = _json(folder / "config.json")
    if not isinstance(config.get("network"), dict):
        raise RunError(f"{folder / 'config.json'} names no network")
    metrics, evaluation = (
        _json(folder / file) if (folder / file).is_file() else {}
        for file in ("metrics.json", "evaluation.json")
    )
    measured = "evaluation.json" if evaluation else "metrics.json" if metrics else None
    try:
        scenes: dict[float | None, dict[str, Counts]] = {}
        for scene in evaluation.get("scenes", []):
            scenes.setdefault(scene["threshold"], {})[scene["name"]] = _counts(scene)
        summary = evaluation.get("summary") or metrics.get("scenes", [])
        for row in summary:
            _counts(row), row["place"], row["threshold"], row["scenes"]
        return RunRecord(
            name=name or folder.name,
            path=folder,
            settings=flatten(config),
            measured=measured,
            summary=summary,
            scenes=scenes,
            kept_epoch=(metrics.get("best_epoch") or {}).get("epoch"),
            epochs=metrics.get("epochs"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / measured} is not what a command writes: {error!r}") from None


def flatten(settings: dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name.

    Strength and probability of an augmentation stay together, as do the shares of the sources.
    """
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict) and set(value) != _PAIR and key not in _WHOLE:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differing(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Settings that differ between runs, each with the runs' values.

    A setting that a run does not have counts as none: configurations written before there was such
    a setting do not differ from those that leave it at none.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in _REDUNDANT)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def run_differences(runs: Sequence[RunRecord]) -> tuple[list[dict], list[str]]:
    """Differences of pooled metrics, with intervals, of all pairs measured on the same ground.

    Drawn are scenes, or places where one of the two keeps no counts of single scenes. They are
    the same where names and target pixels of the truth agree; pixels that are void may differ.

    Returns:
        Rows with ``first``, ``second``, ``threshold``, ``metric``, ``unit`` (what is drawn) and
        the ``metrics.Difference`` of the second minus the first; and sentences on pairs
        that cannot be compared.
    """
    rows, others, apart = [], [], 0
    for first, second in itertools.combinations([run for run in runs if run.summary], 2):
        unit = "scenes" if first.scenes and second.scenes else "places"
        counted = [
            run.scenes if unit == "scenes" else _counts_by_place(run) for run in (first, second)
        ]
        same = [at for at in counted[0] if _truths(counted[0], at) == _truths(counted[1], at)]
        if not _names(counted[0]) & _names(counted[1]):
            apart += 1
        elif not same:
            others.append(f"{first.name} and {second.name}: other {unit}, labels or thresholds")
        for at in same:
            names = list(counted[0][at])
            sides = [[counts[at][name] for name in names] for counts in counted]
            head = {"first": first.name, "second": second.name, "threshold": at}
            rows += [
                {**head, "metric": metric, "unit": unit}
                | paired_difference(*sides, metric).described()
                for metric in METRICS
            ]
    if apart:
        others.append(f"{apart} pair(s) of runs that were measured in other places")
    return rows, others


def describe_runs(runs: Sequence[RunRecord], skipped: dict[str, str] | None = None) -> dict:
    """The content of ``comparison.json`` of runs.

    Returns:
        ``runs``, each with its path, class of network, parameters, steps, epochs, the file its
        figures are from and these (``results``); ``differing`` settings, with the value of each
        run by name; ``differences`` and ``not_compared`` (``run_differences``); and ``skipped``.
    """
    differences, others = run_differences(runs)
    names = [run.name for run in runs]
    return {
        "runs": [
            {
                "name": run.name,
                "path": str(run.path),
                "network": run.settings.get("network.class"),
                "parameters": run.settings.get("parameters"),
                "steps": run.steps,
                "kept_epoch": run.kept_epoch,
                "epochs": run.epochs,
                "measured": run.measured,
                "results": run.summary,
            }
            for run in runs
        ],
        "differing": {
            key: dict(zip(names, values, strict=True)) for key, values in differing(runs).items()
        },
        "differences": differences,
        "not_compared": others,
        "skipped": skipped or {},
    }


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} holds no JSON object")
    return content


def _counts(row: dict) -> Counts:
    return Counts(**{name: row[name] for name in vars(Counts())})


def _counts_by_place(run: RunRecord) -> dict[float | None, dict[str, Counts]]:
    """Counts by threshold and place."""
    places: dict[float | None, dict[str, Counts]] = {}
    for row in run.summary:
        if row["place"] != OVERALL:
            places.setdefault(row["threshold"], {})[row["place"]] = _counts(row)
    return places


def _names(counted: dict[float | None, dict[str, Counts]]) -> set[str]:
    return {name for counts in counted.values() for name in counts}


def _truths(
    counted: dict[float | None, dict[str, Counts]], threshold: float | None
) -> dict[str, int] | None:
    """Target pixels of the truth by scene or place; None where there is no such threshold."""
    if threshold not in counted:
        return None
    return {
        name: counts.true_positive + counts.false_negative
        for name, counts in counted[threshold].items()
    }


def is_run(path: Path) -> bool:
    """Whether it is a run folder: one that holds ``config.json``."""
    return (path / "config.json").is_file()
