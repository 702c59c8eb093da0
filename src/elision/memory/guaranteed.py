"""Policies that keep the weight gradients within a given relative error (AC-GC).

A layer's weight gradient is linear in its saved input, so an input that is off by at
most ``δ`` per element moves it by at most (Cauchy-Schwarz, with P products per weight
row and the gradient ``g`` of the output)::

    ‖δ∇W‖ <= δ · sqrt(P) · ‖g‖,      P = N · (C/groups) · R · S · ⌈H/s⌉ · ⌈W/s⌉

and for a linear layer ``P = rows · inner``, the elements of its input.
Solved for δ this is the rule of AC-GC (Evans and Aamodt, NeurIPS 2021), with output
positions counted as they are: the published ``H·W/s²`` falls short of them where the
stride does not divide the size. The bound has slack, because errors do not conspire.
If they are unbiased and independent, of variance v, then instead ::

    E‖δ∇W‖² = v · C/groups · R · S · ‖g‖²

which is what the expected mode solves for a dithered rounding step ``h = sqrt(12·v)``.

Norms are those of the previous step; a margin allows for their change, and every
backward pass checks the bound against the norms of its own step.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from elision.memory.base import Codec
from elision.memory.codecs import ErrorBounded, Recompute
from elision.memory.policy import MIN_BYTES, Policy
from elision.memory.roles import Role, Slot

__all__ = ["WEIGHT_GRADIENT", "Guaranteed", "Layer"]

#: Function -> index of the weight among its gradients.
WEIGHT_GRADIENT = {"ConvolutionBackward0": 1, "AddmmBackward0": 2, "MmBackward0": 1}


@dataclass
class Layer:
    """What is known of one use of one layer.

    Attributes:
        name: module path.
        weight_norm: ``‖∇W‖`` of the last backward pass.
        output_norm: ``‖g‖`` of the last backward pass.
        factor: how far an error of one per element can move ``∇W``, over ``‖g‖``.
        limit: the error per element that was allowed in this step; 0: exact.
        relative_bound: bound on ``‖δ∇W‖/‖∇W‖`` in the last backward pass, from that
            pass's own norms.
    """

    name: str
    weight_norm: float = 0.0
    output_norm: float = 0.0
    factor: float = 0.0
    limit: float = 0.0
    relative_bound: float = 0.0


@dataclass
class _Pass:
    """Which layers were met in the current step, in order."""

    met: dict[tuple[str, str], int] = field(default_factory=dict)
    current: Layer | None = None


class Guaranteed(Policy):
    """As few bits for layer inputs as a relative gradient error ``e`` allows.

    In the first step nothing lossy is done and the norms are taken. Everything else,
    batch norm inputs included, is kept exactly, so that the gradients that reach a
    layer are exact and the error of its weight gradient is its own input's alone.

    Args:
        error: ``e``, the allowed ``‖δ∇W‖/‖∇W‖`` of every layer.
        expected: bound the expected error under independent dithered rounding
            instead of the worst case.
        margin: share of the budget to use, for norms are a step old (own choice: one
            half; 1 is right if the statistics are of the very same step).
        recompute: do not pack what can be recomputed exactly.

    Raises:
        ValueError: error or margin are not in (0, 1].
    """

    def __init__(
        self,
        error: float,
        *,
        expected: bool = False,
        margin: float = 0.5,
        recompute: bool = True,
    ) -> None:
        for name, value in (("error", error), ("margin", margin)):
            if not 0 < value <= 1:
                raise ValueError(f"Guaranteed({name}={value}): must be in (0, 1]")
        kind = "expected" if expected else "guaranteed"
        super().__init__(name=f"{kind}({error:g})")
        self.error, self.margin = error, margin
        self.expected, self.recompute = expected, recompute
        self.layers: dict[tuple[str, str, int], Layer] = {}
        self.violations = 0
        self._pass = _Pass()

    def begin(self) -> None:
        """A new step: layers are met from the first one again."""
        self._pass = _Pass()

    def watch(self, slot: Slot) -> None:
        """Take the norms when the backward pass comes through this layer."""
        self._pass.current = None
        index = WEIGHT_GRADIENT.get(slot.function)
        if index is None or slot.role not in (Role.LINEAR_INPUT, Role.BATCH):
            return
        place = (slot.module, slot.consumer)
        number = self._pass.met.get(place, 0)
        self._pass.met[place] = number + 1
        layer = self.layers.setdefault((*place, number), Layer(slot.module))
        layer.limit = 0.0
        self._pass.current = layer
        convolution = slot.function == "ConvolutionBackward0"
        groups = slot.node._saved_groups if convolution else 1

        def look(inward: tuple[Any, ...], outward: tuple[Any, ...]) -> None:
            weight, output = inward[index], outward[0]
            if weight is not None and output is not None:
                factor = _factor(weight, output, groups, convolution, self.expected)
                self._note(layer, _norm(weight), _norm(output), factor)

        slot.node.register_hook(look)

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """Recomputation, then as many bits as the budget asks for."""
        layer, nbytes = self._pass.current, tensor.numel() * tensor.element_size()
        if slot.role is not Role.LINEAR_INPUT or layer is None or nbytes < MIN_BYTES:
            return super().codecs_for(slot, tensor)
        codecs: list[Codec] = [Recompute()] if self.recompute else []
        moved = layer.factor * layer.output_norm
        if moved > 0 and layer.weight_norm > 0:
            limit = self.margin * self.error * layer.weight_norm / moved
            if self.expected:  # a uniform error in ±limit has a variance of limit²/3
                codecs.append(ErrorBounded(math.sqrt(3) * limit, "dithered"))
            else:
                codecs.append(ErrorBounded(limit))
        return tuple(codecs)

    def chosen(self, slot: Slot, codec: Codec | None) -> None:
        """Remember the limit, if the tensor was packed at all."""
        if self._pass.current is not None and isinstance(codec, ErrorBounded):
            self._pass.current.limit = codec.limit

    def notes(self) -> list[str]:
        """The bounds that held in the last backward pass."""
        packed = [layer for layer in self.layers.values() if layer.limit]
        if not packed:
            return [
                f"error budget {self.error:g}: nothing was packed, this step is exact"
            ]
        worst = max(packed, key=lambda layer: layer.relative_bound)
        return [
            f"error budget: {len(packed)} layers packed within e = {self.error:g}; "
            f"largest bound by the last backward's own norms "
            f"{worst.relative_bound:.3g} ({worst.name}); exceeded so far: "
            f"{self.violations}"
        ]

    def _note(
        self, layer: Layer, weight_norm: float, output_norm: float, factor: float
    ) -> None:
        moved = layer.factor = factor
        moved *= output_norm * layer.limit / (math.sqrt(3) if self.expected else 1)
        # The norm at hand is that of the approximate gradient.
        least = weight_norm if self.expected else weight_norm - moved
        layer.relative_bound = moved / least if least > 0 else math.inf * (moved > 0)
        if layer.limit and layer.relative_bound > self.error:
            self.violations += 1
        layer.weight_norm, layer.output_norm = weight_norm, output_norm


def _norm(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float32))


def _factor(
    weight: torch.Tensor,
    output: torch.Tensor,
    groups: int,
    convolution: bool,
    expected: bool,
) -> float:
    """``sqrt(P)`` in the worst case, ``sqrt(C/groups·R·S)`` in expectation."""
    if convolution:
        inputs = weight[0].numel()  # C/groups · R · S
        positions = output.shape[0] * output[0, 0].numel()
    else:  # the weight's gradient is (inner, columns), the output's (rows, columns)
        inputs, positions = weight.shape[0], output.shape[0]
    return math.sqrt(inputs if expected else inputs * positions)
