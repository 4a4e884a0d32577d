"""The networks and what trains, runs and measures them on arrays."""

from jointnet.model import JointNet
from jointnet.resnet import ResNetUNet

__all__ = ["JointNet", "ResNetUNet"]
