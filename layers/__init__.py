"""Keras layers of JointNet."""

from layers.band_scaling import BandScaling
from layers.bilinear_upsampling import BilinearUpsampling
from layers.dense_atrous_block import DenseAtrousBlock
from layers.group_normalization import GroupNormalization

__all__ = ["BandScaling", "BilinearUpsampling", "DenseAtrousBlock", "GroupNormalization"]
