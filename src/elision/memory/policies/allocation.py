"""Allocation of an average number of bits by the sensitivity to each tensor's error."""

import heapq
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from elision.common.checks import number
from elision.memory.codecs import GroupQuant, SparseGroupQuant
from elision.memory.codecs.compaction import count_nonzero
from elision.memory.codecs.group import group_ranges
from elision.memory.policies.base import MIN_BYTES, Placed
from elision.memory.policies.guaranteed import WEIGHT_GRADIENT
from elision.memory.policies.rounding import softmax_rules
from elision.memory.saved.codec import Codec
from elision.memory.saved.layout import dense_part, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot
from elision.memory.saved.token import CodecEntry

__all__ = ["AverageBits", "Sensitivity", "allocate_bits", "shared_codec"]

#: Share of non-zero values up to which a tensor gets a mask (own choice: with
#: four bits for each of them, a mask is worth its bit up to three quarters).
_SPARSE = 0.75


class Sensitivity(NamedTuple):
    """Sensitivity of the gradients to one tensor's bits.

    Attributes:
        elements: its size.
        damage: variance that it adds to the gradient at ``b`` bits, times
            ``(2**b - 1)**2``.
        share: share of the elements that get a code; below 1, all of them get a bit
            of a mask.
    """

    elements: int
    damage: float
    share: float = 1.0

    def cost(self, bits: int) -> float:
        """Total bits at ``bits`` per code."""
        return self.elements * (self.share * bits + (self.share < 1))


def allocate_bits(
    tensors: Mapping[Any, Sensitivity], average: float, least: int = 1, most: int = 8
) -> dict[Any, int]:
    """Bits per code that minimise ``Σ damage/(2**b - 1)²`` at an average of bits.

    Greedy, as in ActNN: all start at ``most``; the bit whose loss costs least per
    element is taken away until the average holds.

    Args:
        tensors: name -> sensitivity.
        average: bits per element over all of them, masks included, ``least`` to
            ``most``.
        least: bits that all have.
        most: bits that none may exceed.

    Raises:
        ValueError: the average is out of its range.
    """
    number("allocate_bits", "average", average, f"[{least}, {most}]")
    bits = dict.fromkeys(tensors, most)
    spent = sum(t.cost(most) for t in tensors.values())
    budget = average * sum(t.elements for t in tensors.values())

    def price(name: Any) -> float:
        now, less = ((2.0**b - 1) ** -2 for b in (bits[name], bits[name] - 1))
        tensor = tensors[name]
        return tensor.damage * (less - now) / (tensor.elements * tensor.share)

    heap = [(price(name), index, name) for index, name in enumerate(tensors)]
    heapq.heapify(heap)
    while spent > budget and heap:
        _, index, name = heapq.heappop(heap)
        bits[name] -= 1
        spent -= tensors[name].elements * tensors[name].share
        if bits[name] > least:
            heapq.heappush(heap, (price(name), index, name))
    return bits


def shared_codec(slot: Slot) -> Codec | None:
    """The codec that packed the same memory for another consumer; None if none may."""
    for token in slot.tokens:
        entry = token.entry
        if isinstance(entry, CodecEntry) and slot.role in entry.codec.roles:
            return entry.codec
    return None


class AverageBits(Placed):
    """Group quantisation with an average of bits, allocated by sensitivity.

    A tensor with squared group ranges ``R²`` has a rounding variance of about
    ``v = R²/12/(2**b - 1)²`` per element. In a convolution or linear layer it adds
    ``v·C/groups·R·S·‖g‖²`` to the weight gradient's variance (ActNN), which is taken
    relative to ``‖∇W‖²`` here. For other consumers, whose error goes on to all earlier
    layers, it is ``v/var(x)``: relative as well, so that the two can be compared (this
    project's own choices; ActNN adds up absolute variances).

    The first step uses the average for all; statistics are taken then and in every
    ``every``-th step after it.

    Args:
        average: bits per element, 1 to 8.
        every: steps between two measurements (own choice; GACT measures every 1,000).
        measured: place -> damage as found by
            :func:`~elision.memory.measures.sensitivity.measure_sensitivities`, to be used
            instead of these formulas.

    Raises:
        ValueError: the average is out of its range.

    Example:
        >>> from torch import nn
        >>> from elision.memory import saver
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
        >>> policy = AverageBits(4)
        >>> for _ in range(2):  # measures in the first step, allocates in the second
        ...     with saver(model, policy):
        ...         loss = model(torch.randn(128, 64)).square().mean()
        ...     loss.backward()
        >>> all(1 <= bits <= 8 for bits in policy.bits.values())
        True
    """

    def __init__(
        self,
        average: float,
        *,
        every: int = 100,
        measured: Mapping[tuple[str, str, int], float] | None = None,
    ) -> None:
        number("AverageBits", "average", average, "[1, 8]")
        how = "" if measured is None else ", measured"
        super().__init__(softmax_rules(int(average)), name=f"bits({average:g}{how})")
        self.average, self.every, self.measured = average, every, measured
        self.bits: dict[tuple, int] = {}
        self._spread: dict[tuple, Sensitivity] = {}
        self._gain: dict[tuple, float] = {}
        self._first: dict[tuple, tuple] = {}
        self._packed_for: dict[int, tuple] = {}
        self._steps = 0
        self._measuring = False

    def begin(self) -> None:
        """Start a step: allocate bits by new measurements; decide if this step measures."""
        if self._measuring:
            # With one bit, the zeros of a ReLU would have no code of their own.
            least = min(2, int(self.average))
            self.bits = allocate_bits(self._sensitivities(), self.average, least)
        self._measuring = self._steps % self.every == 0
        self._steps += 1
        self._packed_for = {}
        super().begin()

    def _sensitivities(self) -> dict[tuple, Sensitivity]:
        """Sensitivities of the last measuring step, per storage."""
        damage = dict.fromkeys(self._spread, 0.0)
        for place, first in self._first.items():
            if self.measured is None:
                damage[first] += self._spread[first].damage * self._gain.get(place, 0.0)
            else:
                damage[first] += self.measured.get(place, 0.0)
        return {k: s._replace(damage=damage[k]) for k, s in self._spread.items()}

    def watch(self, slot: Slot) -> None:
        """Number the consumer, and in a measuring step take its gradient's norm."""
        super().watch(slot)
        place = self.place
        if not self._measuring or slot.role not in SMOOTH_ROLES:
            return
        index = WEIGHT_GRADIENT.get(slot.function)
        if index is None:
            self._gain[place] = 1.0
            return

        def look(inward: tuple[Any, ...], outward: tuple[Any, ...]) -> None:
            weight, output = inward[index], outward[0]
            if weight is not None and output is not None:
                inputs = weight[0].numel() if weight.dim() > 2 else len(weight)
                ratio = float(output.norm() / weight.norm().clamp(min=1e-30))
                self._gain[place] = inputs * ratio**2

        slot.node.register_hook(look)

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """Group quantisation with this tensor's share of bits."""
        nbytes = tensor.numel() * tensor.element_size()
        if slot.role not in SMOOTH_ROLES or nbytes < MIN_BYTES:
            return super().codecs_for(slot, tensor)
        storage = tensor.untyped_storage()._cdata
        shared = shared_codec(slot)
        if shared is not None:  # not once more with other bits
            self._first[self.place] = self._packed_for.get(storage, self.place)
            return (shared,)
        self._packed_for[storage] = self._first[self.place] = self.place
        if self._measuring:
            self._spread[self.place] = _spread(slot, flat(dense_part(tensor)))
        bits = self.bits.get(self.place, math.floor(self.average))
        return SparseGroupQuant(bits, most=bits), GroupQuant(bits)


def _spread(slot: Slot, values: torch.Tensor) -> Sensitivity:
    """Size, codes, and rounding variance per element, of a tensor in a slot."""
    values = values.to(torch.float32)
    elements, coded = values.numel(), values
    share = count_nonzero(values) / elements
    if 0 < share <= _SPARSE:
        coded = values[values != 0]
    else:
        share = 1.0
    variance = float(group_ranges(coded).square().mean()) / 12 * share
    if slot.function not in WEIGHT_GRADIENT:
        variance /= max(float(values.var()), 1e-30)
    return Sensitivity(elements, variance, share)
