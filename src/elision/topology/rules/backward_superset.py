"""A sparse forward pass, a denser backward one (Top-KAST)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.topology.distribution import weight_counts
from elision.topology.rule import Budget, Rule
from elision.topology.run import Run
from elision.topology.schedule import Periodic
from elision.topology.selection import best, generator
from elision.topology.weights import SparseWeight

__all__ = ["BackwardSuperset"]


@dataclass(frozen=True)
class BackwardSuperset(Rule):
    """Forward the largest weights ``A``; let a superset ``B`` of them learn.

    ``A`` and ``B`` are, layer by layer, the largest magnitudes at the forward and at
    the backward density. Weights of ``B`` outside ``A`` are learnt while the forward
    pass does not see them, and enter ``A`` when they outgrow others. Weights outside
    ``B`` keep their value. The exploration regulariser adds ``penalty·W`` to the
    gradient on ``A`` and ``penalty/D·W`` on ``B`` outside ``A``, ``D`` the forward
    density.

    Attributes:
        budget: density of ``A``, layer by layer.
        backward: budget of ``B``, nowhere sparser than ``budget``.
        when: steps after which both sets are chosen again.
        penalty: coefficient of the regulariser.

    Example:
        >>> from elision.topology import Budget, Periodic
        >>> rule = BackwardSuperset(Budget(0.8), Budget(0.5), Periodic(100))
        >>> rule.moves(100), rule.moves(101)
        (True, False)
    """

    budget: Budget
    backward: Budget
    when: Periodic
    penalty: float = 1e-4

    is_scheduled = True
    masks_gradients = False
    masks_weights = False

    def __post_init__(self) -> None:
        number("BackwardSuperset", "penalty", self.penalty, ">= 0")
        if self.backward.sparsity > self.budget.sparsity:
            raise ValueError(
                f"the backward sparsity {self.backward.sparsity:g} must not exceed the "
                f"forward one, {self.budget.sparsity:g}"
            )

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        for weight, forward, backward in self._sets(weights, weights, dense, step=0):
            weight.set_state("mask", forward)
            weight.set_state("learns", backward)

    def moves(self, step: int) -> bool:
        return self.when.at(step)

    def gradient_density(self, weight: SparseWeight) -> float:
        return float(weight.state("learns").float().mean())

    def until(self) -> int | None:
        return self.when.until

    def shape_gradients(self, run: Run) -> None:
        for weight in run.learning:
            learns = weight.state("learns")
            strength = torch.where(weight.mask, 1.0, 1.0 / weight.density)
            pull = weight.weight.detach() * (self.penalty * strength).to(weight.weight)
            grad = weight.weight.grad
            assert grad is not None
            grad.add_(pull)
            weight.keep(grad, learns)

    def after_step(self, run: Run) -> None:
        if not self.moves(run.step):
            return
        for weight, forward, backward in self._sets(
            run.learning, run.weights, run.left_dense, run.step
        ):
            # A weight that stops learning must not be moved by its momentum.
            run.keep_optimizer_state(weight, backward)
            weight.set_state("learns", backward)
            run.record(weight, forward)

    def _sets(
        self,
        chosen: list[SparseWeight],
        weights: list[SparseWeight],
        dense: dict[str, tuple[int, ...]],
        step: int,
    ) -> list[tuple[SparseWeight, Tensor, Tensor]]:
        """Each chosen weight with its forward and backward mask, of a budget for all."""
        shapes = {w.name: w.shape for w in weights}
        forward = weight_counts(shapes, self.budget.densities(weights, dense))
        backward = weight_counts(shapes, self.backward.densities(weights, dense))
        sets = []
        for weight in chosen:
            name, magnitude = weight.name, weight.magnitude()
            random = generator(self.budget.seed, name, step)
            inner = best(magnitude, forward[name], random)
            outer = torch.where(inner, torch.inf, magnitude)
            count = max(forward[name], backward[name])
            sets.append((weight, inner, best(outer, count, random)))
        return sets
