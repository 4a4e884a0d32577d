"""JointNet and what trains, runs and measures it on arrays."""

from jointnet.model import JointNet

__all__ = ["JointNet"]
