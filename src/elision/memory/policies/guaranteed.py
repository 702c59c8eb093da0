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

Inputs of batch norms are kept exactly by default; :mod:`elision.memory.policies.reach`
bounds the effect of their errors.

Norms are those of the previous step; a margin allows for their change, and every
backward pass checks the bound against the norms of its own step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from elision.common.checks import number
from elision.common.names import lookup
from elision.memory.codecs import ErrorBounded, Recompute
from elision.memory.policies.base import MIN_BYTES, Policy
from elision.memory.policies.reach import Reach, batch_norm_reaches, layer_reach
from elision.memory.saved.codec import Codec
from elision.memory.saved.roles import Role, Slot

__all__ = ["WEIGHT_GRADIENT", "Guaranteed", "Layer"]

#: Function -> index of the weight among its gradients.
WEIGHT_GRADIENT = {"ConvolutionBackward0": 1, "AddmmBackward0": 2, "MmBackward0": 1}

#: Gradients of a layer's arguments and of its output -> its reaches.
_Reaches = Callable[[tuple[Any, ...], torch.Tensor], tuple[Reach, ...]]


@dataclass
class Layer:
    """State of one use of one layer.

    Attributes:
        name: module path.
        reaches: largest change of each bounded gradient by an error, from the last
            backward pass.
        limit: the error per element that was allowed in this step; 0: exact.
        relative_bound: bound on the relative error of these gradients in the last
            backward pass, from that pass's own norms.
    """

    name: str
    reaches: tuple[Reach, ...] = ()
    limit: float = 0.0
    relative_bound: float = 0.0


@dataclass
class _Pass:
    """Layers met in the current step, in order."""

    met: dict[tuple[str, str], int] = field(default_factory=dict)
    current: Layer | None = None


class Guaranteed(Policy):
    """As few bits for layer inputs as a relative gradient error ``e`` allows.

    In the first step nothing lossy is done and the norms are taken. Everything else,
    batch norm inputs included, is kept exactly, so that the gradients that reach a
    layer are exact and the error of its weight gradient is its own input's alone.

    With ``batch_norm`` other than ``"exact"`` the inputs of batch norms in training mode
    (on the CPU) are packed, too. The gradient that leaves a batch norm is then off by up
    to ``e`` of its norm, the layers before it receive that, and the bound is one on each
    layer's *own* gradients, given what arrives at it.

    Args:
        error: ``e``, the allowed ``‖δ∇W‖/‖∇W‖`` of every layer.
        expected: bound the expected error under independent dithered rounding
            instead of the worst case.
        margin: share of the budget to use, for norms are a step old (own choice: one
            half; 1 is right if the statistics are of the very same step).
        recompute: do not pack what can be recomputed exactly.
        batch_norm: ``"exact"`` keeps the inputs of batch norms; ``"input"`` packs them
            and bounds the gradient of the input, as AC-GC does; ``"all"`` bounds that
            of the scale, too, which in the worst case takes many more bits. That of the
            shift does not depend on the input.

    Raises:
        ValueError: error or margin are not in (0, 1], or ``batch_norm`` is unknown.
    """

    def __init__(
        self,
        error: float,
        *,
        expected: bool = False,
        margin: float = 0.5,
        recompute: bool = True,
        batch_norm: str = "exact",
    ) -> None:
        for name, value in (("error", error), ("margin", margin)):
            number("Guaranteed", name, value, "(0, 1]")
        lookup("batch_norm", batch_norm, dict.fromkeys(("exact", "input", "all")))
        kind = "expected" if expected else "guaranteed"
        norms = "" if batch_norm == "exact" else f", batch_norm={batch_norm}"
        super().__init__(name=f"{kind}({error:g}{norms})")
        self.batch_norm = batch_norm
        self.error, self.margin = error, margin
        self.expected, self.recompute = expected, recompute
        self.layers: dict[tuple[str, str, int], Layer] = {}
        self.violations = 0
        self._pass = _Pass()

    def begin(self) -> None:
        """A new step: layers are met from the first one again."""
        super().begin()
        self._pass = _Pass()

    def watch(self, slot: Slot) -> None:
        """Take the norms when the backward pass comes through this layer."""
        self._pass.current = None
        reaches = self._reaches(slot)
        if reaches is None:
            return
        place = (slot.module, slot.consumer)
        number = self._pass.met.get(place, 0)
        self._pass.met[place] = number + 1
        layer = self.layers.setdefault((*place, number), Layer(slot.module))
        layer.limit = 0.0
        self._pass.current = layer

        def look(inward: tuple[Any, ...], outward: tuple[Any, ...]) -> None:
            found = () if outward[0] is None else reaches(inward, outward[0])
            if found:
                self._note(layer, found)

        slot.node.register_hook(look)

    def _reaches(self, slot: Slot) -> _Reaches | None:
        """Function that computes the reaches in the backward pass; None: no such layer."""
        node, expected = slot.node, self.expected
        index = WEIGHT_GRADIENT.get(slot.function)
        if index is not None and slot.role in (Role.LINEAR_INPUT, Role.BATCH):
            convolution = slot.function == "ConvolutionBackward0"
            groups = node._saved_groups if convolution else 1

            def of_layer(inward: tuple[Any, ...], output: torch.Tensor):
                weight = inward[index]
                if weight is None:
                    return ()
                return (layer_reach(weight, output, groups, convolution, expected),)

            return of_layer
        if self.batch_norm == "exact" or not (
            slot.function == "NativeBatchNormBackward0"
            and slot.name == "input"
            and node._saved_training
        ):
            return None
        scale = getattr(node.next_functions[1][0], "variable", None)
        if scale is None:
            return None
        inverse_deviation = node._saved_result2.detach()
        wanted = 1 if self.batch_norm == "input" else 2

        def of_norm(inward: tuple[Any, ...], output: torch.Tensor):
            if inward[0] is None or inward[1] is None:
                return ()
            gradients = inward[0], inward[1]
            return batch_norm_reaches(
                gradients, output, scale, inverse_deviation, expected
            )[:wanted]

        return of_norm

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """Recomputation, then the fewest bits within the error budget."""
        layer, nbytes = self._pass.current, tensor.numel() * tensor.element_size()
        ours = slot.role in (Role.LINEAR_INPUT, Role.NORM_INPUT)
        if not ours or layer is None or nbytes < MIN_BYTES:
            return super().codecs_for(slot, tensor)
        codecs: list[Codec] = []
        if self.recompute and slot.role is Role.LINEAR_INPUT:
            codecs.append(Recompute())
        limits = [r.limit(self.margin * self.error) for r in layer.reaches]
        limit = min(limits, default=0.0)
        if 0 < limit < math.inf:
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

    def _note(self, layer: Layer, reaches: tuple[Reach, ...]) -> None:
        error = layer.limit / (math.sqrt(3) if self.expected else 1)
        layer.relative_bound = 0.0
        for reach in reaches:
            moved = reach.moved(error)
            # The norm at hand is that of the approximate gradient.
            least = reach.norm if self.expected else reach.norm - moved
            bound = moved / least if least > 0 else math.inf * (moved > 0)
            layer.relative_bound = max(layer.relative_bound, bound)
        if layer.limit and layer.relative_bound > self.error:
            self.violations += 1
        layer.reaches = reaches
