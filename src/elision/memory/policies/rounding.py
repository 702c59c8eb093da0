"""Rules for rounding: each kind of value to the codec that fits what it is read with."""

from elision.memory.codecs import (
    AttentionQuant,
    GroupQuant,
    Normalised,
    Rerun,
    SparseGroupQuant,
)
from elision.memory.codecs.group import GROUP
from elision.memory.policies.base import Policy, Rule
from elision.memory.saved.codec import Codec
from elision.memory.saved.roles import SMOOTH_ROLES, Role

__all__ = ["evenly", "rounding", "softmax_rules"]

#: A tensor below this share of the largest is too small for its bits to matter (own
#: choice: sixty-four of them take no more than one that is not).
_SMALL = 1 / 64

_PROBABILITIES = frozenset({Role.PROBABILITY, Role.LOG_PROBABILITY})


def rounding(codecs: tuple[Codec, ...], bits: int, name: str) -> Policy:
    """The codecs for all that is smooth, and ``bits`` for what belongs to a softmax."""
    return Policy([*softmax_rules(bits, codecs), Rule(codecs)], name=name)


def evenly(bits: int, name: str) -> Policy:
    """Group quantisation at ``bits``; small tensors get 8 bits, or are kept if ``bits`` is 8.

    The inputs of last layers are small: their weight gradient averages over few rows,
    so its relative error is as large as theirs.
    """
    codecs, finer = _groups(bits), _groups(8) if bits < 8 else ()
    small = Rule(finer, SMOOTH_ROLES, max_share=_SMALL)
    return Policy([small, *softmax_rules(bits, codecs), Rule(codecs)], name=name)


def softmax_rules(bits: int, codecs: tuple[Codec, ...] = ()) -> tuple[Rule, ...]:
    """Rules for probabilities and for attention, whose softmax has to stay consistent.

    Attention's statistics follow its operands, whatever their size. The probabilities of
    a softmax are also an operand of the product that follows it, which reads the same
    packed form.

    Args:
        bits: bits per element.
        codecs: for all other operands of products.
    """
    probabilities, statistics = Normalised(bits, _group(bits)), Rerun(lossy=True)
    product = tuple(c for c in codecs if Role.MULTIPLICAND in c.roles)
    return (
        Rule((probabilities,), _PROBABILITIES),
        Rule((AttentionQuant(bits, group=_group(bits)),)),
        Rule((statistics,), frozenset({Role.ATTENTION_RESULT}), min_bytes=0),
        Rule((probabilities, *product), frozenset({Role.MULTIPLICAND})),
    )


def _groups(bits: int) -> tuple[Codec, ...]:
    """Group quantisation at ``bits``; among many zeros the others get a finer grid."""
    return SparseGroupQuant(bits), GroupQuant(bits, _group(bits))


def _group(bits: int) -> int:
    """Values per group: at 8 bits half the size is worth the half bit that grids take."""
    return GROUP // 2 if bits == 8 else GROUP
