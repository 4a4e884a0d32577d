"""The networks, and what trains, runs and measures them on arrays."""

import importlib
from typing import Any

__all__ = ["JointNet", "ResNetUNet"]
__version__ = "0.1.0"

_HOMES = {"JointNet": "jointnet.model", "ResNetUNet": "jointnet.resnet"}


def __getattr__(name: str) -> Any:
    """Import a network when it is first used, as importing Keras takes seconds."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
