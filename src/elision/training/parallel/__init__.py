"""Data parallelism: how weight gradients travel, how often, and what scaling will be."""

from elision.training.parallel.compressors import COMPRESSORS as COMPRESSORS
from elision.training.parallel.compressors import Compressor as Compressor
from elision.training.parallel.compressors import Feedback as Feedback
from elision.training.parallel.compressors import Message as Message
from elision.training.parallel.compressors import State as State
from elision.training.parallel.compressors import emulate as emulate
from elision.training.parallel.compressors import make_compressor as make_compressor
from elision.training.parallel.compressors import wire_bits as wire_bits
from elision.training.parallel.hook import CompressHook as CompressHook
from elision.training.parallel.hook import (
    NonFiniteGradientWarning as NonFiniteGradientWarning,
)
from elision.training.parallel.hook import Traffic as Traffic
from elision.training.parallel.hook import compress_hook as compress_hook
from elision.training.parallel.outer import OuterOptimizer as OuterOptimizer
from elision.training.parallel.scaling import scaling_model as scaling_model
from elision.training.parallel.scaling.side_by_side import Overlap as Overlap
from elision.training.parallel.scaling.side_by_side import (
    measured_overlap as measured_overlap,
)
from elision.training.parallel.wire import CorruptMessageError as CorruptMessageError
