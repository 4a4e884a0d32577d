"""Losses on probabilities that leave void pixels out."""

from losses.binary_focal import BinaryFocalLoss
from losses.dice import DiceLoss
from losses.weighted_sum import WeightedSumLoss

__all__ = ["BinaryFocalLoss", "DiceLoss", "WeightedSumLoss"]
