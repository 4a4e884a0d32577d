"""How what a report shows was made: data, split, weights, commands and machines, as known."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointnet.runs import WEIGHTS, Run, environment
from preprocessing.output_files import hash_file

NAMES_SHOWN = 40
_HELD_BACK = (
    "these scenes were held back from training; image and label of each have the SHA-256 that the "
    "training wrote down"
)
_NOT_KNOWN = "not known: whoever made the masks can say whether these scenes were trained on"


@dataclass(frozen=True)
class Origin:
    """What a report says of where its figures come from.

    Attributes:
        title: of the page.
        kind: one line above it.
        measured: what follows "25 scenes" in the lead.
        threshold: of the layers that are drawn; None for finished masks.
        facts: terms with what there is to say of each.
        history: rows of the run's ``history.csv``; empty where there is none.
        best_epoch: whose weights were kept; None where unknown.
    """

    title: str
    kind: str
    measured: str
    threshold: float | None
    facts: Sequence[tuple[str, str]]
    history: Sequence[dict[str, float]] = ()
    best_epoch: int | None = None


def run_origin(run: Run, threshold: float, scenes: Sequence[str], augment: bool) -> Origin:
    """The origin of what a trained network says of its validation scenes.

    Args:
        run: the network.
        threshold: of the layers.
        scenes: names of the scenes.
        augment: whether windows were predicted in eight positions.
    """
    config, data = run.config, _json(run.folder / "data.json")
    metrics = _json(run.folder / "metrics.json")
    best = (metrics.get("best_epoch") or {}).get("epoch")
    facts = [
        ("network", _network(config)),
        ("weights", f"SHA-256 {hash_file(run.folder / WEIGHTS)}"),
        ("prediction", _prediction(config, augment)),
        ("scenes", _listed(scenes)),
        ("split", _HELD_BACK),
    ]
    if best is not None:
        words = f"of {metrics['epochs']} epochs, that with the best validation on these same scenes"
        facts.append(("weights kept", f"epoch {best}, {words}: the figures flatter it a little"))
    facts += _training_data(data)
    facts += _environment("training", _json(run.folder / "environment.json"))
    facts += _environment("report", environment())
    return Origin(
        title=run.name,
        kind=f"{config['target']}: a trained network on its validation scenes",
        measured=" held back from training",
        threshold=threshold,
        facts=facts,
        history=read_history(run.folder / "history.csv"),
        best_epoch=best,
    )


def mask_origin(
    predictions: Path, labels: Path, scenes: Sequence[str], notes: Sequence[str]
) -> Origin:
    """The origin of finished masks, of which no more is known than their files.

    Args:
        predictions: folder of the masks.
        labels: of their labels.
        scenes: names of the scenes.
        notes: what became of polygons, and which masks were aligned.
    """
    predictions, labels = predictions.resolve(), labels.resolve()
    facts = [
        ("masks", f"folder {predictions.name}"),
        ("labels", f"{labels.name}"),
        ("scenes", _listed(scenes)),
        ("split", _NOT_KNOWN),
        *(("note", note) for note in notes),
        *_environment("report", environment()),
    ]
    return Origin(
        title=f"{predictions.name} against {labels.name}",
        kind="finished masks against labels",
        measured="",
        threshold=None,
        facts=facts,
    )


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a ``history.csv`` as numbers; none where it cannot be read.

    Cells that hold no number are left out of their row.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(_numbers(row)) for row in csv.DictReader(file)]
    except OSError:
        return []
    return [row for row in rows if "epoch" in row]


def _numbers(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        try:
            yield name, float(text)
        except (TypeError, ValueError):
            continue


def _network(config: dict) -> str:
    words = [config["network"]["class"]]
    if "parameters" in config:
        words.append(f"{config['parameters']:,} parameters")
    words.append(f"{config['bands']} bands of {config['dtype']}")
    if config["gsd"]:
        words.append(f"made for {config['gsd']:g} m a pixel")
    return ", ".join(words)


def _prediction(config: dict, augment: bool) -> str:
    words = f"windows of {config['window']} px that share {config['overlap']} px, blended"
    if augment:
        words += "; mean over the eight flips and quarter turns of each"
    return f"{words}; scenes on their own pixels, not resampled; threshold {config['threshold']:g}"


def _training_data(data: dict) -> Iterator[tuple[str, str]]:
    if "scenes" in data:
        sides = [scene["split"] for scene in data["scenes"]]
        names = [scene["name"] for scene in data["scenes"] if scene["split"] == "train"]
        yield "trained on", f"{sides.count('train')} scenes: {_listed(names)}"
    if "patches" in data:
        patches = data["patches"]
        yield "patches", f"{patches['train']:,} to train, {patches['validation']:,} to validate"
    if "manifest_sha256" in data:
        yield "patch store", f"manifest SHA-256 {data['manifest_sha256']}"


def _environment(what: str, described: dict) -> Iterator[tuple[str, str]]:
    """Command and machine of a training or of this report."""
    if not described:
        yield f"{what}: machine", "not written down"
        return
    if described.get("command"):
        yield f"{what}: command", described["command"]
    packages = described.get("packages") or {}
    versions = [f"{name} {version}" for name, version in packages.items()]
    words = [f"Python {described.get('python', '?')}", *versions]
    yield f"{what}: software", ", ".join(words)
    machine = [described.get("backend"), *(described.get("devices") or [])]
    machine += [described.get("processor"), f"{described.get('cores', '?')} cores"]
    yield f"{what}: machine", ", ".join(str(word) for word in machine if word)
    yield f"{what}: commit", described.get("commit") or "not in a git checkout"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _json(path: Path) -> dict:
    """What a file of a run says; nothing where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
