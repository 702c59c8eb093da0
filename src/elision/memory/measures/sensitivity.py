"""Sensitivity of the gradients to each saved tensor's error, measured (GACT)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from elision.common.restoring import restored
from elision.memory.codecs import GroupQuant, SparseGroupQuant
from elision.memory.policies.allocation import shared_codec
from elision.memory.policies.base import MIN_BYTES, Placed
from elision.memory.saved.codec import Codec
from elision.memory.saved.roles import SMOOTH_ROLES, Slot
from elision.memory.saver import saver

__all__ = ["measure_sensitivities"]

#: Fewest bits that a ReLU's result can have if its zeros are to have their own code
#: (own choice; GACT takes one bit).
_COARSE = 2
_FINE = 8

#: What one tensor's damage may amount to (GACT).
_CAP = 1e10

_Place = tuple[str, str, int]


class _OneTensor(Placed):
    """One tensor at ``bits``, all others exactly.

    Args:
        place: of that tensor; None: none is packed.
        bits: what it gets.

    Attributes:
        places: of the tensors that could be packed, those in one piece of memory once.
    """

    def __init__(self, place: _Place | None = None, bits: int = _FINE) -> None:
        super().__init__(name="one tensor")
        self._chosen, self._bits = place, bits
        self.places: list[_Place] = []

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """Group quantisation, if it is the tensor's turn."""
        nbytes = tensor.numel() * tensor.element_size()
        if slot.role not in SMOOTH_ROLES or nbytes < MIN_BYTES:
            return super().codecs_for(slot, tensor)
        shared = shared_codec(slot)
        if shared is not None:
            return (shared,)
        if not slot.tokens or slot.tokens[0].tensor is None:
            self.places.append(self.place)
        if self.place != self._chosen:
            return ()
        return SparseGroupQuant(self._bits, most=self._bits), GroupQuant(self._bits)


def measure_sensitivities(
    model: nn.Module,
    loss: Callable[[Any], torch.Tensor],
    batch: Any,
) -> dict[_Place, float]:
    """Variance that rounding each saved tensor adds to the gradient of the parameters.

    As GACT (Liu et al., ICML 2022) does: with the gradients ``g0`` and ``g1`` of two
    draws at few bits and ``g2`` at eight, the damage of a tensor is ::

        max(‖g0 - g1‖², 2·‖g0 - g2‖², 2·‖g1 - g2‖²) / 2

    times ``(2**bits - 1)²`` of the few bits, so that it can be compared with
    formulas. All other tensors are exact. That takes three passes for every tensor;
    gradients, buffers and the random state are put back.

    Args:
        model: the module whose saved tensors are measured.
        loss: batch -> scalar loss, computed with ``model``.
        batch: one batch.

    Returns:
        Place (module, consumer, number) -> damage, for
        :class:`~elision.memory.policies.allocation.AverageBits`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient(policy: _OneTensor, seed: int) -> Sequence[torch.Tensor]:
        torch.manual_seed(0)
        with restored(model):
            with saver(model, policy, seed=seed):
                value = loss(batch)
            return torch.autograd.grad(value, parameters, materialize_grads=True)

    with torch.random.fork_rng():
        survey = _OneTensor()
        gradient(survey, 0)
        damages = {}
        for place in survey.places:
            coarse = _OneTensor(place, _COARSE)
            first, second = gradient(coarse, 1), gradient(coarse, 2)
            fine = gradient(_OneTensor(place, _FINE), 3)
            worst = max(
                _apart(first, second), 2 * _apart(first, fine), 2 * _apart(second, fine)
            )
            damages[place] = min(worst, _CAP) / 2 * (2**_COARSE - 1) ** 2
    return damages


def _apart(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    """Squared distance of two gradients."""
    return sum(float((x - y).square().sum()) for x, y in zip(a, b, strict=True))
