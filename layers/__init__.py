"""Keras layers of JointNet."""

from layers.bilinear_upsampling import BilinearUpsampling
from layers.dense_atrous_block import DenseAtrousBlock
from layers.group_normalization import GroupNormalization

__all__ = ["BilinearUpsampling", "DenseAtrousBlock", "GroupNormalization"]
