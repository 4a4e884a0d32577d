"""A residual encoder of one block per stage, for tests in which the depth does not count.

Each stage's first block is the one that strides and widens, so shapes, channels, names and the
strided convolutions are those of ResNet50; what it lacks are repetitions.
"""

import keras
import pytest
from keras.src.applications import resnet

from jointnet.resnet import BACKBONES

NAME = "ResNet14"


def build(**options) -> keras.Model:
    """The encoder, with the arguments of ``keras.applications.ResNet50``."""

    def stages(x):
        for number, filters in enumerate((64, 128, 256, 512), start=2):
            stride = 1 if number == 2 else 2
            x = resnet.stack_residual_blocks_v1(x, filters, 1, stride1=stride, name=f"conv{number}")
        return x

    return resnet.ResNet(stages, preact=False, use_bias=True, name=NAME.lower(), **options)


def add(patch: pytest.MonkeyPatch) -> None:
    """Let ``ResNetUNet`` know the encoder by its name until the patch is undone."""
    patch.setitem(BACKBONES, NAME, (1, 1, 1, 1))
    patch.setattr(keras.applications, NAME, build, raising=False)
