"""Runs side by side: what differed in their configuration, and what came out."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointnet.bootstrap import METRICS, paired_difference
from jointnet.compared_inputs import is_run, short_names
from jointnet.evaluation import OVERALL
from jointnet.metrics import Counts
from preprocessing.errors import RunError

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
        the ``bootstrap.Difference`` of the second minus the first; and sentences on pairs
        that cannot be compared.
    """
    rows, others, apart = [], [], 0
    for first, second in itertools.combinations([run for run in runs if run.summary], 2):
        unit = "scenes" if first.scenes and second.scenes else "places"
        counted = [run.scenes if unit == "scenes" else _by_place(run) for run in (first, second)]
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


def _by_place(run: RunRecord) -> dict[float | None, dict[str, Counts]]:
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
