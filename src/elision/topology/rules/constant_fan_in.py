"""RigL with the same number of inputs for every active neuron (SRigL)."""

import math
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from elision.common.checks import number
from elision.topology.rule import Budget, Rule
from elision.topology.run import Run
from elision.topology.schedule import DropFraction, Periodic
from elision.topology.selection import best, generator
from elision.topology.weights import SparseWeight

__all__ = ["ConstantFanIn"]


@dataclass(frozen=True)
class ConstantFanIn(Rule):
    """Drop and grow as RigL does, with ``k`` active inputs for every active neuron.

    A neuron is an output channel. Per move, with ``n = int(f(t)·nnz)``:

    1. *Salient* are the ``nnz − n`` largest active weights and the ``n`` largest
       gradients of the others. A neuron with fewer than ``ablation·k`` salient weights
       is ablated: it stays inactive from then on.
    2. The fan-in becomes ``k = floor(nnz_l / active neurons)``, ``nnz_l`` the layer's
       budget.
    3. Every active neuron keeps its largest remaining weights, at most ``k``, and
       grows those of largest gradient until it has ``k``.

    Attributes:
        budget: active weights, layer by layer; ``k`` is rounded down to a whole
            number, but not below 1.
        when: steps in which masks move.
        fraction: the drop fraction.
        ablation: share of the fan-in that must be salient; 0 ablates nothing.
        replaces_step: as for RigL, the move replaces the gradient step.

    Example:
        >>> from elision.topology import Budget, Periodic
        >>> ConstantFanIn(Budget(0.9), Periodic(100)).needs_dense_gradient(step=100)
        True
    """

    budget: Budget
    when: Periodic
    fraction: DropFraction = field(default_factory=DropFraction)
    ablation: float = 0.3
    replaces_step: bool = True

    is_scheduled = True

    def __post_init__(self) -> None:
        number("ConstantFanIn", "ablation", self.ablation, "[0, 1)")

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        wanted = self.budget.densities(weights, dense)
        for weight in weights:
            shape = weight.turned_shape
            neurons, inputs = shape[0], prod(shape[1:])
            fan_in = max(1, int(round(wanted[weight.name] * inputs, 6)))
            random = generator(self.budget.seed, weight.name, 0)
            scores = torch.rand(neurons, inputs, generator=random, device=random.device)
            weight.set_state("mask", weight.turned(_rows(scores, fan_in).view(shape)))

    def moves(self, step: int) -> bool:
        return self.when.at(step)

    def until(self) -> int | None:
        return self.when.until

    def needs_dense_gradient(self, step: int) -> bool:
        return self.moves(step)

    def before_step(self, run: Run) -> bool:
        return self.replaces_step and self._move(run)

    def after_step(self, run: Run) -> None:
        if not self.replaces_step:
            self._move(run)

    def _move(self, run: Run) -> bool:
        if not self.moves(run.step):
            return False
        moved = False
        for weight in run.learning:
            active = weight.mask
            dropped = int(self.fraction.at(run.step) * int(active.sum()))
            if dropped == 0 or active.all():
                continue
            new = self._moved(run, weight, dropped)
            run.move(weight, weight.turned(new.view(weight.turned_shape)))
            moved = True
        return moved

    def _moved(self, run: Run, weight: SparseWeight, dropped: int) -> Tensor:
        """The new mask as a matrix (neurons, inputs)."""
        random = generator(self.budget.seed, weight.name, run.step)
        active, size, gradient = (
            weight.turned(x).flatten(1)
            for x in (weight.mask, weight.magnitude(), run.gradient(weight).abs())
        )
        magnitude = torch.where(active, size, -math.inf)
        nnz = int(active.sum())
        kept = best(magnitude, nnz - dropped, random)
        gradient = torch.where(kept, -math.inf, gradient)
        alive = active.any(1)
        fan_in = nnz // int(alive.sum())
        open_ = torch.where(alive[:, None], gradient, -math.inf)
        wished = best(open_, min(dropped, int((open_ > -math.inf).sum())), random)
        salient = (kept | wished).sum(1)
        fit = alive & (salient >= max(1.0, self.ablation * fan_in))
        alive = fit if bool(fit.any()) else alive
        inputs = active.shape[1]
        fan_in = min(inputs, max(1, nnz // int(alive.sum())))
        # One order for both: the kept by magnitude, above the others by gradient.
        largest = gradient.clamp(min=0).amax() + 1
        order = torch.where(kept, largest + magnitude, gradient)
        return _rows(order, fan_in) & alive[:, None]


def _rows(scores: Tensor, count: int) -> Tensor:
    """The ``count`` highest of each row."""
    index = scores.topk(count, dim=1, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, index, True)
