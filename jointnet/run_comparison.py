"""Runs side by side: settings that differ, metrics, and differences on the same scenes."""

import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointnet.evaluation import OVERALL, refuse_tables, text_table, write_tables
from jointnet.metrics import METRICS, RESAMPLES, SEED, Counts, paired_difference
from preprocessing.errors import RunError
from preprocessing.scenes import short_names

NAMES = {"iou": "IoU", "f1": "F1"}
LONGEST_CELL = 18
# Left out of the names of settings that stay unique without them.
_PREFIXES = ("recipe.training.", "network.arguments.")
# Dictionaries that are one setting: an augmentation, and how a batch is shared out.
_PAIR = {"strength", "probability"}
_WHOLE = ("source_shares",)
# Said by others: the class, the target, and what came out.
_REDUNDANT = ("network.arguments.name", "recipe.patches.target", "parameters")

CountsByName = dict[float | None, dict[str, Counts]]
"""Counts by threshold and scene or place."""


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says of itself.

    Attributes:
        settings: its ``config.json``, flat, by dotted name.
        measured: the file that the metrics are from, ``evaluation.json`` or, without one,
            ``metrics.json``; None for a run that has not been measured yet.
        summary: metrics per threshold and place, as ``evaluation.summarise`` makes them.
        scenes: counts of each scene; empty where only sums are kept.
        kept_epoch: the epoch whose weights are kept, None if unknown.
        epochs: how many were trained, None if unknown.
    """

    name: str
    path: Path
    settings: dict[str, Any]
    measured: str | None
    summary: list[dict]
    scenes: CountsByName
    kept_epoch: int | None
    epochs: int | None

    @property
    def steps(self) -> int | None:
        """Steps up to the epoch that is kept; None where the configuration fixes no number."""
        each = self.settings.get("recipe.training.steps_per_epoch")
        return each * self.kept_epoch if each and self.kept_epoch else None

    @property
    def places(self) -> CountsByName:
        """Counts of each place."""
        places: CountsByName = {}
        for row in self.summary:
            if row["place"] != OVERALL:
                places.setdefault(row["threshold"], {})[row["place"]] = _counts(row)
        return places


# Reading


def is_run(path: Path) -> bool:
    """Return whether a path is a run folder: one that holds ``config.json``."""
    return (path / "config.json").is_file()


def read_runs(paths: Sequence[Path]) -> tuple[list[RunRecord], dict[str, str]]:
    """Read the run folders among paths, such as a shell makes of ``results/*``.

    Returns the runs in the order given, each once, and why others were skipped, by name. If none
    is a run that can be read, RunError is raised.
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
    """Read what a run folder says of itself; a damaged one raises RunError."""
    config = _json(folder / "config.json")
    if not isinstance(config.get("network"), dict):
        raise RunError(f"{folder / 'config.json'} names no network")
    metrics, evaluation = (
        _json(folder / file) if (folder / file).is_file() else {}
        for file in ("metrics.json", "evaluation.json")
    )
    measured = "evaluation.json" if evaluation else "metrics.json" if metrics else None
    try:
        scenes: CountsByName = {}
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


def flatten(settings: dict, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name.

    Strength and probability of an augmentation stay together, as do the shares of the sources.
    """
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict) and set(value) != _PAIR and key not in _WHOLE:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


# Comparing


def compare_runs(
    paths: Sequence[Path], output: Path | None = None, overwrite: bool = False
) -> dict:
    """List runs side by side, and write ``comparison.json`` and ``comparison.csv`` into a folder.

    ``read_runs`` says which paths there can be. Without ``output`` nothing is written; a file that
    exists or cannot be written raises OutputError. Returns what the JSON holds, see
    ``describe_runs``.
    """
    refuse_tables(output, "comparison", overwrite)
    content = describe_runs(*read_runs(paths))
    heads = ("name", "network", "parameters", "steps", "kept_epoch", "epochs", "measured")
    rows = [
        {"table": "results", **{key: run[key] for key in heads}, **row}
        for run in content["runs"]
        for row in run["results"] or [{}]
    ]
    rows += [{"table": "differences", **row} for row in content["differences"]]
    write_tables(output, "comparison", content, rows)
    return content


def describe_runs(runs: Sequence[RunRecord], skipped: dict[str, str] | None = None) -> dict:
    """Return the content of ``comparison.json`` of runs.

    That is ``runs``, each with its path, class of network, parameters, steps, epochs, the file its
    metrics are from and these (``results``); ``differing`` settings, with the value of each run by
    name; ``differences`` and ``not_compared`` (``run_differences``); and ``skipped``.
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


def differing(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Return the settings that differ between runs, each with the runs' values.

    A setting that a run does not have counts as none: older runs do not differ from those that
    leave a newer setting at none.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in _REDUNDANT)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def run_differences(runs: Sequence[RunRecord]) -> tuple[list[dict], list[str]]:
    """Return differences of pooled metrics of all pairs that were measured on the same ground.

    The bootstrap draws scenes, or places if one of the two keeps no counts of single scenes. They
    are the same where names and target pixels of the truth agree; void pixels may differ.

    Returns:
        Rows as ``difference_rows`` makes them, with ``first``, ``second`` and ``threshold``; and
        sentences on pairs that cannot be compared.
    """
    rows, others, apart = [], [], 0
    for first, second in itertools.combinations([run for run in runs if run.summary], 2):
        unit = "scenes" if first.scenes and second.scenes else "places"
        counted = [getattr(run, unit) for run in (first, second)]
        same = [at for at in counted[0] if _truths(counted[0], at) == _truths(counted[1], at)]
        names = [{name for counts in one.values() for name in counts} for one in counted]
        if names[0].isdisjoint(names[1]):
            apart += 1
        elif not same:
            others.append(f"{first.name} and {second.name}: other {unit}, labels or thresholds")
        for at in same:
            sides = [[counts[at][name] for name in counted[0][at]] for counts in counted]
            head = {"first": first.name, "second": second.name, "threshold": at}
            rows += difference_rows(head, unit, *sides)
    if apart:
        others.append(f"{apart} pair(s) of runs that were measured in other places")
    return rows, others


def _truths(counted: CountsByName, threshold: float | None) -> dict[str, int] | None:
    """Return the target pixels of the truth by name; None where there is no such threshold."""
    if threshold not in counted:
        return None
    return {
        name: counts.true_positive + counts.false_negative
        for name, counts in counted[threshold].items()
    }


def difference_rows(
    head: dict, unit: str, first: Sequence[Counts], second: Sequence[Counts]
) -> list[dict]:
    """Return a row per metric: ``head``, ``metric``, ``unit`` (what is drawn), and difference."""
    return [
        {**head, "metric": metric, "unit": unit}
        | paired_difference(first, second, metric).described()
        for metric in METRICS
    ]


# Printing


def run_text(content: dict) -> str:
    """Return all that is printed of ``describe_runs``."""
    runs = content["runs"]
    parts = [_skipped(content["skipped"])]
    if content["differing"]:
        short = _shortened(list(content["differing"]))
        rows = [
            [short[key], *(setting(value) for value in row.values())]
            for key, row in content["differing"].items()
        ]
        table = _by_run("setting", [run["name"] for run in runs], rows)
        parts.append(f"What differs in the configuration\n{table}")
    elif len(runs) > 1:
        parts.append("Their configurations do not differ.")
    parts.append(f"What came out, pooled over the validation scenes\n{_outcomes(runs)}")
    parts += _by_place(runs)
    parts.append(differences_text(content["differences"]))
    parts.append("\n".join(f"Not compared: {line}" for line in content["not_compared"]))
    return "\n\n".join(filter(None, parts))


def _skipped(skipped: dict[str, str]) -> str:
    plain = [name for name, why in skipped.items() if why == "no run"]
    lines = [f"Skipped, no runs: {', '.join(plain)}"] if plain else []
    lines += [f"Skipped: {name}: {why}" for name, why in skipped.items() if why != "no run"]
    return "\n".join(lines)


def _outcomes(runs: Sequence[dict]) -> str:
    heading = ["run", "measured in", "parameters", "steps", "kept epoch", "scenes", "threshold"]
    rows = [heading + [NAMES.get(name, name) for name in METRICS]]
    for run in runs:
        kept = run["kept_epoch"] and f"{run['kept_epoch']} of {run['epochs']}"
        head = [run["name"], run["measured"] or "not yet", run["parameters"], run["steps"], kept]
        overall = [row for row in run["results"] if row["place"] == OVERALL]
        for row in overall or [{}]:
            at = row.get("threshold")
            rows.append([*head, row.get("scenes"), None if at is None else f"{at:g}"])
            rows[-1] += [row.get(name) for name in METRICS]
            head = [""] * len(head)
    return text_table(rows, left=2)


def _by_place(runs: Sequence[dict]) -> list[str]:
    """Return IoU by place and run: a table per threshold for the runs of the same places."""
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


def _by_run(first: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table with a column per run, of which there may be many, with long names."""
    columns = [_broken(name) for name in names]
    deepest = max(map(len, columns))
    # Names end on the line above the numbers.
    heads = [[""] * (deepest - len(lines)) + lines for lines in ([first], *columns)]
    screen = max(80, shutil.get_terminal_size((120, 24)).columns)
    return text_table([*zip(*heads, strict=True), *rows], width=screen)


def _broken(name: str) -> list[str]:
    """Break a name into lines of LONGEST_CELL characters, if it can after ``_``, ``-``, ``/``."""
    lines = [""]
    for part in re.findall(rf"[^_/-]{{1,{LONGEST_CELL - 1}}}[_/-]?|[_/-]", name):
        if lines[-1] and len(lines[-1] + part) > LONGEST_CELL:
            lines.append("")
        lines[-1] += part
    return lines


def _shortened(keys: Sequence[str]) -> dict[str, str]:
    """Return dotted names without their usual beginnings, where they stay unique without."""

    def plain(key: str) -> str:
        prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
        return key.removeprefix(prefix)

    times = Counter(map(plain, keys))
    return {key: plain(key) if times[plain(key)] == 1 else key for key in keys}


def setting(value: Any) -> str:
    """Return a setting in few characters; ``comparison.json`` has all of it."""
    if isinstance(value, dict) and set(value) == _PAIR:
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


def differences_text(differences: Sequence[dict]) -> str:
    """Return the rows of IoU as a table, with intervals and verdicts; "" if there are none.

    The other metrics are in JSON and CSV; F1 goes up and down with IoU.
    """
    shown = [row for row in differences if row["metric"] == "iou"]
    if not shown:
        return ""
    # Finished masks have no threshold.
    at = any(row.get("threshold") is not None for row in shown)
    rows = [["difference of IoU", *(["at"] if at else []), "verdict", "", "95 % interval", "over"]]
    for row in shown:
        interval = None if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
        rows.append([f"{row['second']} - {row['first']}"])
        rows[-1] += [setting(row.get("threshold"))] if at else []
        rows[-1] += [row["verdict"], f"{row['value']:+.3f}", interval]
        rows[-1] += [f"{row['number']} {row['unit']}"]
    return (
        "Differences of pooled metrics, with bootstrap intervals "
        f"({RESAMPLES:,} resamples, seed {SEED})\n" + text_table(rows, left=2 + at)
    )
