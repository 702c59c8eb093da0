"""A mask that a rule moves between the steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.selecting import select
from elision.operands.base import State, Transform, density
from elision.operands.blocked_form import MaskForm

__all__ = ["Mask"]


@dataclass(frozen=True)
class Mask(Transform):
    """Zero outside the layer's mask: ``W`` where ``M``, whatever it is elsewhere.

    The mask is a boolean buffer of the layer, of the weight's shape, so a state dict
    holds it and a state dict without it does not load. It only changes between steps
    (:mod:`elision.topology`); a layer whose mask was never drawn keeps its operand.

    Attributes:
        averages_gradient: whether the layer also keeps a moving average of every
            weight's gradient, ``score``, by which rules grow.
        learns_beyond: whether weights outside the mask may learn, too; the layer then
            keeps the boolean ``learns``, a superset of the mask (Top-KAST).

    Example:
        >>> state = {"mask": torch.tensor([True, False])}
        >>> Mask().apply(torch.tensor([2.0, 3.0]), state, training=True).tolist()
        [2.0, 0.0]
    """

    averages_gradient: bool = False
    learns_beyond: bool = False

    sparsifies = True
    limits_gradient = True
    writes_state = False
    reads_axes = False  # the mask has the operand's shape

    def initial_state(self) -> State:
        state = {
            "mask": torch.zeros(0, dtype=torch.bool),
            "gradient_density": torch.ones(()),
        }
        if self.averages_gradient:
            state["score"] = torch.zeros(0)
        if self.learns_beyond:
            state["learns"] = torch.zeros(0, dtype=torch.bool)
        return state

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del training
        mask = state["mask"]
        return select(x, mask) if mask.numel() else x

    def __call__(self, x: Tensor, state: list[Tensor], training: bool) -> Tensor:
        """Apply as plain tensor code: no state is written."""
        named = dict(zip(self.state_names, state, strict=True))
        return self.apply(x, named, training)

    def work(self, result: Tensor, state: State) -> float:
        """Density of the mask: an active weight that is zero is work all the same."""
        del result
        return density(state["mask"]) if state["mask"].numel() else 1.0

    def gradient_work(self, state: State) -> float:
        """The fraction of the weight gradient that the rule needs in this step."""
        return state["gradient_density"].item()

    def wanted_gradient(self, state: State) -> Tensor | None:
        """The mask, in steps for which the rule announced that it needs no more."""
        if self._needs_more or state["gradient_density"].item() >= 1:
            return None
        return state["mask"]

    def blocked_form(self) -> MaskForm | None:
        """The mask, unless the gradient of weights outside it is needed."""
        return None if self._needs_more else MaskForm("mask", "gradient_density")

    @property
    def _needs_more(self) -> bool:
        return self.averages_gradient or self.learns_beyond

    def __str__(self) -> str:
        return "masked"
