"""TensorBoard events, where tensorboard is there, and nothing where it is not."""

import sys

import pytest

from jointnet.training import EventLog

RECORDS = [
    {"epoch": 1, "loss": 0.75, "validation_iou": 0.125},
    {"epoch": 2, "loss": 0.5, "validation_iou": 0.25},
]


def read_events(folder) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each scalar, as TensorBoard itself reads them."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    accumulator = event_accumulator.EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_tensorboard_reads_what_was_logged(tmp_path):
    log = EventLog(tmp_path)
    for record in RECORDS:
        log.write(record["epoch"], record)
    assert read_events(tmp_path) == {
        "loss": [(1, 0.75), (2, 0.5)],
        "validation_iou": [(1, 0.125), (2, 0.25)],
    }


def test_an_epoch_is_on_disk_at_once(tmp_path):
    log = EventLog(tmp_path)
    log.write(1, RECORDS[0])
    assert read_events(tmp_path)["loss"] == [(1, 0.75)]


def test_a_resumed_run_adds_to_its_events(tmp_path):
    for record in RECORDS:
        EventLog(tmp_path).write(record["epoch"], record)
    # Of two files of one second and one process the names may order otherwise: 10 before 9.
    assert sorted(read_events(tmp_path)["loss"]) == [(1, 0.75), (2, 0.5)]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    log = EventLog(tmp_path / "events")
    log.write(1, RECORDS[0])
    assert not (tmp_path / "events").exists()
