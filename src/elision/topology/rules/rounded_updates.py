"""Weights that are held in a narrow format between the steps."""

from dataclasses import dataclass
from typing import get_args

import torch

from elision.common.checks import integer, one_of
from elision.common.seeds import seed_at, stream_of
from elision.formats import Rounding, Scaled, fast_round, format_named
from elision.operands import Cast
from elision.topology.rule import Rule
from elision.topology.run import Run
from elision.topology.weights import SparseWeight

__all__ = ["RoundedUpdates"]


@dataclass(frozen=True)
class RoundedUpdates(Rule):
    """Round the weights to a format after every step of the optimiser.

    ``W <- round(W)``: no float32 master copy remains. To nearest, an update smaller than
    half a step of the format is lost; stochastically it survives in expectation (Gupta et
    al., Deep Learning with Limited Numerical Precision, ICML 2015). The first weights are
    rounded to nearest. The seed of a step follows from ``seed``, the layer's name and the
    number of steps, so a resumed run draws the same numbers. The optimiser's own state
    stays as it is.

    It acts on the weights that a product reads through a
    :class:`~elision.operands.Cast`; biases and norms are left alone.

    Attributes:
        format: a number format, see :func:`elision.formats.format_named`.
        rounding: ``"stochastic"``, ``"nearest"`` or ``"zero"``.
        seed: of stochastic rounding.

    Example:
        >>> RoundedUpdates("bf16").masks_weights
        False
    """

    format: str
    rounding: Rounding = "stochastic"
    seed: int = 0

    transform = Cast
    masks_gradients = False
    masks_weights = False
    acts = "are rounded after each step"

    def __post_init__(self) -> None:
        format_named(self.format)
        one_of("RoundedUpdates", "rounding", self.rounding, get_args(Rounding))
        integer("RoundedUpdates", "seed", self.seed, ">= 0")

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        del dense
        for weight in weights:
            if hasattr(weight.weight, "full_tensor"):
                raise ValueError(
                    f"layer {weight.name}: its weight is sharded; updates are rounded in "
                    "whole weights, so leave updates at None"
                )
            self._round(weight, "nearest", 0)

    def unattached(self, name: str) -> str:
        return f"the weights of {name} are not rounded between the steps"

    def gradient_density(self, weight: SparseWeight) -> float:
        """All of it."""
        del weight
        return 1.0

    def after_step(self, run: Run) -> None:
        for weight in run.learning:
            seed = seed_at(stream_of(weight.name, self.seed), run.step)
            self._round(weight, self.rounding, seed)

    @torch.no_grad()
    def _round(self, weight: SparseWeight, rounding: Rounding, seed: int) -> None:
        # Blocks run along the inputs of a product's sum, and a channel is an output, as in
        # the forward product.
        format = format_named(self.format)
        by_channel = isinstance(format, Scaled) and format.grouping.over == "channel"
        axis = 0 if by_channel else 1
        values = weight.turned(weight.weight.detach())
        rounded = fast_round(format, values, rounding, seed, axis)
        weight.weight.copy_(weight.turned(rounded))
