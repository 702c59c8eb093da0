"""Sharing out an average number of bits by how much each tensor's error matters."""

import heapq
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from elision.memory.base import Codec
from elision.memory.codecs import GroupQuant
from elision.memory.codecs.group import group_ranges
from elision.memory.guaranteed import WEIGHT_GRADIENT
from elision.memory.layout import dense_part, flat
from elision.memory.policy import MIN_BYTES, Policy
from elision.memory.roles import SMOOTH_ROLES, Slot

__all__ = ["AverageBits", "Sensitivity", "allocate_bits"]


class Sensitivity(NamedTuple):
    """What a tensor's bits are worth.

    Attributes:
        elements: its size.
        damage: variance that it adds to the gradient at ``b`` bits, times
            ``(2**b - 1)**2``.
    """

    elements: int
    damage: float


def allocate_bits(
    tensors: Mapping[Any, Sensitivity], average: float, least: int = 1, most: int = 8
) -> dict[Any, int]:
    """Bits per tensor that minimise ``Σ damage/(2**b - 1)²`` at an average of bits.

    Greedy, as in ActNN: all start at ``most``; the bit whose loss costs least per
    element is taken away until the average holds.

    Args:
        tensors: name -> sensitivity.
        average: bits per element over all of them, ``least`` to ``most``.
        least: bits that all have.
        most: bits that none may exceed.

    Raises:
        ValueError: the average is out of its range.
    """
    if not least <= average <= most:
        raise ValueError(
            f"average bits must be between {least} and {most}, got {average}"
        )
    bits = dict.fromkeys(tensors, most)
    spent = most * sum(t.elements for t in tensors.values())
    budget = average * sum(t.elements for t in tensors.values())

    def price(name: Any) -> float:
        now, less = ((2.0**b - 1) ** -2 for b in (bits[name], bits[name] - 1))
        return tensors[name].damage * (less - now) / tensors[name].elements

    heap = [(price(name), index, name) for index, name in enumerate(tensors)]
    heapq.heapify(heap)
    while spent > budget and heap:
        _, index, name = heapq.heappop(heap)
        bits[name] -= 1
        spent -= tensors[name].elements
        if bits[name] > least:
            heapq.heappush(heap, (price(name), index, name))
    return bits


class AverageBits(Policy):
    """Group quantisation with an average of bits, shared out by sensitivity.

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

    Raises:
        ValueError: the average is out of its range.
    """

    def __init__(self, average: float, *, every: int = 100) -> None:
        if not 1 <= average <= 8:
            raise ValueError(f"bits({average:g}): must be between 1 and 8")
        super().__init__(name=f"bits({average:g})")
        self.average, self.every = average, every
        self.bits: dict[tuple, int] = {}
        self._spread: dict[tuple, tuple[int, float]] = {}
        self._gain: dict[tuple, float] = {}
        self._met: dict[tuple[str, str], int] = {}
        self._key: tuple = ()
        self._steps = 0
        self._measuring = False

    def begin(self) -> None:
        """A new step: share out what was measured, and see whether to measure again."""
        if self._measuring:
            tensors = {
                key: Sensitivity(elements, spread * self._gain.get(key, 0.0))
                for key, (elements, spread) in self._spread.items()
            }
            # With one bit, the zeros of a ReLU would have no code of their own.
            self.bits = allocate_bits(tensors, self.average, min(2, int(self.average)))
        self._measuring = self._steps % self.every == 0
        self._steps += 1
        self._met = {}

    def watch(self, slot: Slot) -> None:
        """Number the consumer, and in a measuring step take its gradient's norm."""
        place = (slot.module, slot.consumer)
        self._met[place] = number = self._met.get(place, 0) + 1
        self._key = key = (*place, number)
        if not self._measuring or slot.role not in SMOOTH_ROLES:
            return
        index = WEIGHT_GRADIENT.get(slot.function)
        if index is None:
            self._gain[key] = 1.0
            return

        def look(inward: tuple[Any, ...], outward: tuple[Any, ...]) -> None:
            weight, output = inward[index], outward[0]
            if weight is not None and output is not None:
                inputs = weight[0].numel() if weight.dim() > 2 else len(weight)
                ratio = float(output.norm() / weight.norm().clamp(min=1e-30))
                self._gain[key] = inputs * ratio**2

        slot.node.register_hook(look)

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """Group quantisation with this tensor's share of bits."""
        nbytes = tensor.numel() * tensor.element_size()
        if slot.role not in SMOOTH_ROLES or nbytes < MIN_BYTES:
            return super().codecs_for(slot, tensor)
        if self._measuring:
            values = flat(dense_part(tensor))
            spread = float(group_ranges(values).square().mean()) / 12
            if slot.function not in WEIGHT_GRADIENT:
                spread /= max(float(values.float().var()), 1e-30)
            self._spread[self._key] = (values.numel(), spread)
        bits = self.bits.get(self._key, math.floor(self.average))
        return (GroupQuant(bits),)
