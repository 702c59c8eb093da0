"""Operands of attention, rounded as finely as the logits' size calls for."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from elision.common.checks import integer
from elision.memory.codecs.group import GROUP, GroupQuant, group_ranges
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import dense_part, flat
from elision.memory.saved.roles import Role, Slot

__all__ = ["AttentionQuant"]


class _Meta(NamedTuple):
    """Packing of an operand.

    Attributes:
        codec: by this codec.
        values: in this form.
    """

    codec: GroupQuant
    values: Packed


@dataclass(frozen=True)
class AttentionQuant(Codec):
    """Group quantisation of all operands or of none, as the logits' size allows.

    An error of a query is multiplied by the keys, and the sum goes through an
    exponential. With the widest step ``h`` of the query's groups, of ``b`` bits, a
    logit is off by a standard deviation of at most ::

        h/√12 · max‖k‖ · scale

    and likewise with keys and queries exchanged. Both are given the fewest bits, from
    ``bits`` to ``most``, that keep this below ``√8/(2**bits - 1)``, which is about what
    ``bits`` give where logits have a standard deviation of one; every doubling of the
    logits costs a bit. A value enters linearly and gets ``bits``. Where ``most`` bits are
    too few the whole attention is kept. (This project's own choice.)

    Attention's result and its log-sum-exp belong to the operands as the backward pass
    will see them, and have to be computed again from these: see
    :class:`~elision.memory.codecs.Rerun`.

    Attributes:
        bits: bits per element of values, and fewest of queries and keys, 1 to 8.
        most: most bits of queries and keys; None: one more than ``bits``, where eight do
            for nine. Logits of a standard deviation above about two are then exact.
        group: elements per group.

    Raises:
        ValueError: a parameter out of its range.

    Example:
        >>> import torch
        >>> from torch.nn.functional import scaled_dot_product_attention
        >>> from elision.memory import Role, Slot
        >>> q, k, v = torch.randn(3, 1, 2, 64, 16, requires_grad=True)
        >>> codec = AttentionQuant(4)
        >>> for size in 1, 8:
        ...     node = scaled_dot_product_attention(q, size * k, v).grad_fn
        ...     slot = Slot(node.name(), "key", Role.ATTENTION, node=node)
        ...     print(codec.pack((size * k).detach(), slot) is None)
        False
        True
    """

    bits: int = 4
    most: int | None = None
    group: int = GROUP
    guarantee = Guarantee.UNBIASED
    roles = frozenset({Role.ATTENTION})
    optional_in_graphs = True

    def __post_init__(self) -> None:
        integer("AttentionQuant", "bits", self.bits, "[1, 8]")
        if self.most is not None:
            integer("AttentionQuant", "most", self.most, f"[{self.bits}, 8]")
        GroupQuant(self.bits, self.group)  # checks the group

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"attention 4-bit"``."""
        return f"attention {self.bits}-bit"

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Quantise; None if an element is not finite or the logits are too large."""
        if not floating(tensor):
            return None
        # The key is saved first, and decides.
        bits = self._bits(slot.node) if slot.name == "key" else _bits_of_key(slot.node)
        if bits is None:
            return None
        codec = GroupQuant(self.bits if slot.name == "value" else bits, self.group)
        plain = Slot(slot.function, slot.name, slot.role, seed=slot.seed)
        values = codec.pack(tensor, plain)
        if values is None:
            return None
        return Packed(values.payload, values.layout, _Meta(codec, values))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The grid points."""
        codec, values = packed.meta.codec, packed.meta.values
        return codec.unpack(values.holding(packed.payload))

    def bound(self, packed: Packed) -> float | None:
        """Half of the widest step."""
        return packed.meta.codec.bound(packed.meta.values)

    def _bits(self, node: Any) -> int | None:
        """Bits of queries and keys; None if they would be more than ``most``."""
        query, key = node._saved_query.detach(), node._saved_key.detach()
        scale = node._saved_scale or query.shape[-1] ** -0.5
        reach = max(
            _widest(query, self.group) * _longest(key),
            _widest(key, self.group) * _longest(query),
        )
        if not math.isfinite(reach):
            return None
        levels = reach * abs(scale) * (2**self.bits - 1) / math.sqrt(8 * 12)
        bits = max(self.bits, math.ceil(math.log2(levels + 1)))
        most = self.bits + 1 if self.most is None else self.most
        return min(bits, 8) if bits <= most else None


def _bits_of_key(node: Any) -> int | None:
    """Bits that the same attention's keys were given; None if they were kept."""
    entry = getattr(node._raw_saved_key.data, "entry", None)
    meta = getattr(getattr(entry, "packed", None), "meta", None)
    return meta.codec.bits if isinstance(meta, _Meta) else None


def _longest(vectors: torch.Tensor) -> float:
    """Largest norm of a vector along the last axis."""
    wide = torch.promote_types(vectors.dtype, torch.float32)
    return float(torch.linalg.vector_norm(vectors, dim=-1, dtype=wide).max())


def _widest(tensor: torch.Tensor, group: int) -> float:
    """Range of the widest group."""
    return float(group_ranges(flat(dense_part(tensor)), group).max())
