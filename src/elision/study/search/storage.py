"""Bits of a stored weight under a transform: its zeros in a bitmap, the rest in its format."""

from elision.operands import (
    KEEP,
    Cast,
    LearnedStep,
    Project,
    Ternary,
    Transform,
    links_of,
)
from elision.precision.arithmetic import bits_of

__all__ = ["FULL_BITS", "bits_at", "kept_share"]

#: Bits of a weight that no format narrows.
FULL_BITS = 32


def kept_share(how: Transform) -> float:
    """Share of a weight's values that a transform keeps by its own parameters.

    Example:
        >>> from elision.operands import TopK
        >>> kept_share(TopK(0.75))
        0.25
    """
    share = 1.0
    for _, link in links_of(how):
        share *= 1 - getattr(link, "sparsity", 0.0) if link.sparsifies else 1.0
    return share


def bits_at(density: float, how: Transform) -> float:
    """Bits of a weight, scales of blocks and channels not counted.

    With a share ``d`` of non-zeros in ``b`` bits: ``b``, or ``1 + d·b`` with a bitmap where
    the transform leaves values out and that is less.

    Args:
        density: share of the values that are not zero.
        how: what is done to the weight.

    Raises:
        ValueError: a transform whose bits are not known.

    Example:
        >>> from elision.operands import TopK
        >>> bits_at(1.0, Project(4)), bits_at(0.25, TopK(0.75))
        (4.0, 9.0)
    """
    bits, is_sparse = float(FULL_BITS), False
    for _, link in links_of(how):
        is_sparse |= link.sparsifies
        bits = min(bits, _format_bits(link))
    return min(bits, 1 + density * bits) if is_sparse else bits


def _format_bits(how: Transform) -> float:
    if isinstance(how, Project | LearnedStep):
        return float(how.bits)
    if isinstance(how, Ternary):
        return 2.0 * how.terms if how.budget is None else 2.0 * how.budget
    if isinstance(how, Cast):
        return float(bits_of(how.format))
    if how == KEEP or how.sparsifies:
        return float(FULL_BITS)
    raise ValueError(f"bits of a weight: not known of {type(how).__name__} ({how})")
