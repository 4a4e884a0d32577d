"""The networks, and what trains, runs and measures them on arrays."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jointnet.model import JointNet
    from jointnet.resnet import ResNetUNet

__all__ = ["JointNet", "ResNetUNet"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a network when it is first used, as importing Keras takes seconds."""
    if name == "JointNet":
        from jointnet.model import JointNet

        return JointNet
    if name == "ResNetUNet":
        from jointnet.resnet import ResNetUNet

        return ResNetUNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
