"""A mask that some rule moves between the steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.operands.base import State, Transform, density

__all__ = ["Mask"]


@dataclass(frozen=True)
class Mask(Transform):
    """Zero where the layer's mask is: ``W · M``.

    The mask is a boolean buffer of the layer, of the weight's shape, so a state dict
    holds it and one without it does not load. It only changes between steps
    (:mod:`elision.topology`); a layer whose mask was never drawn keeps its operand.

    Attributes:
        scored: whether the layer also keeps a score of every weight, for rules that
            gather one over many steps.
    """

    scored: bool = False

    sparsifies = True

    def initial_state(self) -> State:
        state = {
            "mask": torch.zeros(0, dtype=torch.bool),
            "gradient_density": torch.ones(()),
        }
        return {**state, "score": torch.zeros(0)} if self.scored else state

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del training
        mask = state["mask"]
        return x * mask if mask.numel() else x

    def __call__(self, x: Tensor, state: list[Tensor], training: bool) -> Tensor:
        """Apply as plain tensor code: no state is written."""
        named = dict(zip(self.state_names, state, strict=True))
        return self.apply(x, named, training)

    def work(self, result: Tensor, state: State) -> float:
        """Density of the mask: a zero that it holds active is work all the same."""
        del result
        return density(state["mask"]) if state["mask"].numel() else 1.0

    def gradient_work(self, state: State) -> float:
        """The share of weights whose gradient the rule asks for in this step."""
        return state["gradient_density"].item()

    def wanted_gradient(self, state: State) -> Tensor | None:
        """The mask, in steps for which its rule announced that it asks for no more.

        Where a score is kept, the rule may ask for more than the mask.
        """
        if self.scored or state["gradient_density"].item() >= 1:
            return None
        return state["mask"]

    def __str__(self) -> str:
        return "masked"
