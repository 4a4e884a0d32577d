"""TensorBoard event files, where tensorboard is importable; no TensorFlow needed."""

from pathlib import Path


class EventLog:
    """Writes one scalar per column of the history and epoch.

    Without the package ``tensorboard`` nothing is written; ``history.csv`` holds the same.

    Args:
        folder: folder of the event files.
    """

    def __init__(self, folder: Path):
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            self._writer = None
            return
        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))

    def write(self, epoch: int, record: dict[str, float]) -> None:
        """Add a record of an epoch, counted from 1."""
        if self._writer is None:
            return
        values = [
            self._summary.Value(tag=name, simple_value=float(value))
            for name, value in record.items()
            if name != "epoch"
        ]
        self._writer.add_event(self._event(step=epoch, summary=self._summary(value=values)))
        self._writer.flush()
