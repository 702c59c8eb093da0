"""Gradual magnitude pruning: from dense to sparse along a cubic."""

from dataclasses import dataclass

import torch

from elision.topology.distribution import weight_counts
from elision.topology.rule import Budget, Rule
from elision.topology.run import Run
from elision.topology.schedule import CubicSparsity, Periodic
from elision.topology.selection import best, generator
from elision.topology.weights import SparseWeight

__all__ = ["GradualPruning"]


@dataclass(frozen=True)
class GradualPruning(Rule):
    """Every few steps keep the largest of the active weights, ever fewer of them.

    In layer ``l`` the sparsity at step ``t`` is ``s_l·c(t)``, ``c`` the cubic of
    :class:`elision.topology.CubicSparsity`. A pruned weight does not return. A layer
    that has no gradient when others are pruned catches up in a later step of the period.

    Attributes:
        budget: the final number of active weights, layer by layer.
        when: steps in which weights are pruned.
        progress: the cubic.

    Example:
        >>> from elision.topology import Budget, CubicSparsity, Periodic
        >>> rule = GradualPruning(Budget(0.9), Periodic(10), CubicSparsity(0, 100))
        >>> rule.moves(50), rule.moves(55), rule.until()
        (True, False, 100)
    """

    budget: Budget
    when: Periodic
    progress: CubicSparsity

    is_scheduled = True

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        for weight in weights:
            pattern = weight.divided_by(self.budget.pattern)
            pattern.check(weight.name, weight.shape)
            weight.set_state("mask", torch.ones(weight.shape, dtype=torch.bool))
        # Fails here, not in the middle of a run, if the budget cannot be met.
        self.budget.densities(weights, dense)

    def moves(self, step: int) -> bool:
        last = step == self.progress.end
        return step > self.progress.start and (last or self.when.at(step))

    def until(self) -> int | None:
        return self.progress.end

    def goal(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> float | None:
        final = self.budget.densities(weights, dense)
        sizes = {w.name: w.weight.numel() for w in weights}
        return 1 - sum(final[n] * size for n, size in sizes.items()) / sum(
            sizes.values()
        )

    def needs_dense_gradient(self, step: int) -> bool:
        del step
        return True

    def after_step(self, run: Run) -> None:
        if not self.moves(run.step):
            return
        final = self.budget.densities(run.weights, run.left_dense)
        reached = self.progress.at(run.step)
        counts = weight_counts(
            {w.name: w.shape for w in run.weights},
            {name: 1 - reached * (1 - density) for name, density in final.items()},
            {
                w.name: w.divided_by(self.budget.pattern).units(w.shape)
                for w in run.weights
            },
        )
        for weight in run.learning:
            pattern = weight.divided_by(self.budget.pattern)
            units = pattern.active(weight.mask)
            if int(units.sum()) <= counts[weight.name]:
                continue
            score = torch.where(units, pattern.reduce(weight.magnitude()), -torch.inf)
            random = generator(self.budget.seed, weight.name, run.step)
            kept = best(score, counts[weight.name], random)
            run.move(weight, pattern.expand(kept, weight.shape))
