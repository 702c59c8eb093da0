"""Compressors of gradients by name; see :mod:`elision.training.parallel.compressors.base`."""

from elision.common.specs import build
from elision.training.parallel.compressors.base import Compressor as Compressor
from elision.training.parallel.compressors.base import Message as Message
from elision.training.parallel.compressors.base import State as State
from elision.training.parallel.compressors.base import emulate as emulate
from elision.training.parallel.compressors.base import wire_bits as wire_bits
from elision.training.parallel.compressors.dgc import DGC
from elision.training.parallel.compressors.feedback import Feedback as Feedback
from elision.training.parallel.compressors.levels import QSGD, TernGrad
from elision.training.parallel.compressors.masked import Masked
from elision.training.parallel.compressors.narrow import BF16, FP16
from elision.training.parallel.compressors.power_sgd import PowerSGD
from elision.training.parallel.compressors.random_k import RandomK
from elision.training.parallel.compressors.scaled import DFP16, FP8, Int8
from elision.training.parallel.compressors.sign import Sign
from elision.training.parallel.compressors.top_k import TopK
from elision.training.parallel.compressors.whole import FP32

__all__ = ["COMPRESSORS", "make_compressor"]

#: Compressors by the names of the command line.
COMPRESSORS: dict[str, type[Compressor]] = {
    "fp32": FP32,
    "bf16": BF16,
    "fp16": FP16,
    "fp8": FP8,
    "int8": Int8,
    "dfp16": DFP16,
    "top-k": TopK,
    "dgc": DGC,
    "random-k": RandomK,
    "qsgd": QSGD,
    "terngrad": TernGrad,
    "sign": Sign,
    "powersgd": PowerSGD,
    "mask": Masked,
}


def make_compressor(spec: str, feedback: bool | None = None) -> Compressor:
    """The compressor of a spec, with error feedback where it needs it.

    Args:
        spec: ``"top-k:share=0.01"``, see :mod:`elision.common.specs`.
        feedback: whether it has a memory; None: where it is biased and has none of its
            own.

    Raises:
        ValueError: an unknown name or parameter, which lists the known, a value out of
            range, or a second memory.

    Example:
        >>> make_compressor("top-k:share=0.01")
        Feedback(inner=TopK(share=0.01, threshold='sampled'))
        >>> make_compressor("qsgd").guarantee
        'unbiased'
    """
    made = build("compressor", spec, COMPRESSORS)
    if feedback and made.remembers:
        raise ValueError(f"compressor {spec!r} remembers by itself: leave feedback out")
    if feedback and made.guarantee == "exact":
        raise ValueError(
            f"compressor {spec!r} leaves nothing to remember: leave feedback out"
        )
    wanted = made.guarantee == "biased" if feedback is None else feedback
    if wanted and not made.remembers:
        return Feedback(made, checksum=made.checksum)
    return made
