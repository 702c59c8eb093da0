"""One way to keep a saved tensor per file, each with a declared error."""

from elision.memory.codecs.boolean import TwoValued
from elision.memory.codecs.group import GroupQuant
from elision.memory.codecs.narrow import NarrowInteger
from elision.memory.codecs.pool_indices import PoolIndices
from elision.memory.codecs.recompute import Recompute
from elision.memory.codecs.shape import ShapeOnly
from elision.memory.codecs.threshold import ThresholdMask

__all__ = [
    "GroupQuant",
    "NarrowInteger",
    "PoolIndices",
    "Recompute",
    "ShapeOnly",
    "ThresholdMask",
    "TwoValued",
]
