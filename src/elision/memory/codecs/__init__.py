"""One way to keep a saved tensor per file, each with a declared error."""

from elision.memory.codecs.attention import AttentionQuant
from elision.memory.codecs.batch_norm_aligned import BatchNormAligned
from elision.memory.codecs.boolean import TwoValued
from elision.memory.codecs.division import Division
from elision.memory.codecs.error_bounded import ErrorBounded
from elision.memory.codecs.fixed_point import FixedPoint
from elision.memory.codecs.fp8 import Float8
from elision.memory.codecs.group import GroupQuant
from elision.memory.codecs.jpeg import Jpeg, search_table
from elision.memory.codecs.narrow import NarrowInteger
from elision.memory.codecs.normalised import Normalised
from elision.memory.codecs.offload import Offload, OffloadError
from elision.memory.codecs.pool_indices import PoolIndices
from elision.memory.codecs.projected import ProjectedQuant
from elision.memory.codecs.rad import RadProject, RadSample
from elision.memory.codecs.recompute import Recompute
from elision.memory.codecs.rerun import Rerun
from elision.memory.codecs.scientific import Sz3, Zfp
from elision.memory.codecs.shape import ShapeOnly
from elision.memory.codecs.sparse_group import SparseGroupQuant
from elision.memory.codecs.threshold import ThresholdMask
from elision.memory.codecs.zero_value import ZeroValue

__all__ = [
    "AttentionQuant",
    "BatchNormAligned",
    "Division",
    "ErrorBounded",
    "FixedPoint",
    "Float8",
    "GroupQuant",
    "Jpeg",
    "NarrowInteger",
    "Normalised",
    "Offload",
    "OffloadError",
    "PoolIndices",
    "ProjectedQuant",
    "RadProject",
    "RadSample",
    "Recompute",
    "Rerun",
    "ShapeOnly",
    "SparseGroupQuant",
    "Sz3",
    "ThresholdMask",
    "TwoValued",
    "ZeroValue",
    "Zfp",
    "search_table",
]
