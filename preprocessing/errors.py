"""The errors of the project: each says in one line what was received and what would work.

Commands print that line and exit with code 2; Python code catches ``JointNetError`` or one of
its kinds. A run that a signal stopped raises ``Interrupted``, which is not one of them.
"""

from collections.abc import Iterable
from signal import Signals


class JointNetError(Exception):
    """Base of every error that a user's input or machine can cause."""


class RasterError(JointNetError):
    """A raster that cannot be read, or not as the model or data set needs it."""


class LabelError(JointNetError):
    """A label whose values, size or place do not fit its image."""


class PolygonError(JointNetError):
    """A polygon file that cannot be read, placed or is empty."""


class DatasetError(JointNetError):
    """A folder that does not have the layout of a data set."""


class StoreError(JointNetError):
    """A patch store that is missing, truncated, stale or made with other settings."""


class RunError(JointNetError):
    """A run folder that is not one, or does not fit what is asked of it."""


class OutputError(JointNetError):
    """An output that exists already or cannot be written."""


class TrainingError(JointNetError):
    """A training run that cannot go on."""


class Interrupted(Exception):
    """A run that a signal stopped and that can go on; commands exit with 128 + the signal's number.

    ``where`` says how far the run has come.
    """

    def __init__(self, signal: int, where: str):
        self.signal = signal
        super().__init__(f"stopped by {Signals(signal).name} {where}; go on with --resume")


def one_line(error: object) -> str:
    """Return the text of an error, or of anything else, as one line."""
    return " ".join(str(error).split())


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type where the text is empty."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def listed(names: Iterable[object], shown: int = 5) -> str:
    """Return names with commas between them, and ", ..." in place of those after the first few."""
    names = [str(name) for name in names]
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
