"""What an evaluation leaves on disk, and the tables of it that a command prints."""

from collections.abc import Sequence
from pathlib import Path

from jointnet.evaluation import SceneCounts, summarise, table
from jointnet.metrics import Counts
from jointnet.object_evaluation import object_rows, object_table
from jointnet.protocols import PROTOCOLS, protocol_rows, protocol_table
from jointnet.thresholds import ProbabilityHistogram, threshold_lines
from preprocessing.output_files import write_csv, write_json


def describe_evaluation(
    records: Sequence[SceneCounts], histogram: ProbabilityHistogram | None = None
) -> dict:
    """The content of ``evaluation.json``.

    Args:
        records: of at least one scene.
        histogram: the probabilities of these scenes; None for finished masks.

    Returns:
        ``summary``, the pooled counts and figures per threshold and place
        (``evaluation.summarise``); ``protocols``, the same scenes by every protocol
        (``protocols.protocol_rows``), and ``protocol_names``, these in words; ``scenes``, each of
        them; ``objects`` (``object_evaluation.object_rows``) where objects were counted; and
        ``thresholds`` (``ProbabilityHistogram.report``) where there are probabilities.
    """
    content = {
        "summary": summarise(records),
        "protocol_names": PROTOCOLS,
        "protocols": protocol_rows(records),
    }
    if all(record.objects is not None for record in records):
        content["objects"] = object_rows(records)
    if histogram is not None:
        thresholds = dict.fromkeys(record.threshold for record in records)
        pooled = [
            (at, sum((r.counts for r in records if r.threshold == at), Counts()))
            for at in thresholds
        ]
        content["thresholds"] = histogram.report(pooled)
    content["scenes"] = [_scene(record) for record in records]
    return content


def _scene(record: SceneCounts) -> dict:
    """The entry of one scene at one threshold."""
    described = {"name": record.name, "place": record.place, "threshold": record.threshold}
    described |= record.figures()
    for key in ("polygons", "aligned"):
        if getattr(record, key) is not None:
            described[key] = getattr(record, key)
    if record.patches is not None:
        described["patches"] = {
            "kept": record.patches.kept,
            "of": record.patches.patches,
            **vars(record.patches.counts),
        }
    if record.objects is not None:
        described["objects"] = record.objects.measures()
    return described


def write_evaluation(
    folder: Path, records: Sequence[SceneCounts], histogram: ProbabilityHistogram | None = None
) -> dict:
    """Write ``evaluation.json`` and, of every protocol, ``evaluation.csv``.

    The first rows of the CSV are the summary's (protocol ``pooled``), with the counts; those of
    the other protocols have no counts.

    Returns:
        What the JSON holds, see ``describe_evaluation``.

    Raises:
        OutputError: a file cannot be written.
    """
    content = describe_evaluation(records, histogram)
    rows = [{**row, "protocol": "pooled", "units": row["scenes"]} for row in content["summary"]]
    for row in content["protocols"]:
        if row["protocol"] != "pooled":
            rows.append(dict.fromkeys(rows[0], "") | row)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", content)
    write_csv(folder / "evaluation.csv", rows)
    return content


def evaluation_text(content: dict) -> str:
    """All that a command prints of ``describe_evaluation``; the pooled table comes first."""
    parts = [table(content["summary"]), protocol_table(content["protocols"])]
    if "thresholds" in content:
        parts.append(threshold_lines(content["thresholds"]))
    if "objects" in content:
        parts.append(object_table(content["objects"]))
    return "\n\n".join(parts)
