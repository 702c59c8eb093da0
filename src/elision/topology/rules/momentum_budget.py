"""Layer densities that follow the momentum (SWAT-M)."""

from dataclasses import dataclass

from elision.common.checks import number
from elision.layers import plan_of, states_of
from elision.operands import TopKShare
from elision.topology.rule import Rule
from elision.topology.run import Run
from elision.topology.score import mean_momentum
from elision.topology.selection import apportion
from elision.topology.weights import SparseWeight

__all__ = ["MomentumBudget"]

#: A layer that would keep more than this share of its weights becomes dense.
_FULL = 0.99


@dataclass(frozen=True)
class MomentumBudget(Rule):
    """Share the active weights among layers by their mean momentum, after each step.

    ``share_l`` is the mean ``|momentum|`` over the weights that are active (top-k by
    magnitude), normalised to sum 1; ``nnz_l = share_l·d·sum(N)``. A layer beyond 99 %
    of its weights becomes dense and what it cannot take goes to the others in equal
    parts, as published: by share, it would pass the layers of low momentum by. Counts
    are whole and their sum is exact (published: each is rounded up).

    Attributes:
        sparsity: fraction of zeros over all layers that the rule reaches.

    Example:
        >>> MomentumBudget(sparsity=0.9).masks_gradients
        False
    """

    sparsity: float

    transform = TopKShare
    masks_gradients = False
    masks_weights = False
    reads_momentum = True

    def __post_init__(self) -> None:
        number("MomentumBudget", "sparsity", self.sparsity, "[0, 1)")

    def gradient_density(self, weight: SparseWeight) -> float:
        del weight
        return 1.0

    def after_step(self, run: Run) -> None:
        learning = run.learning
        names = {weight.name for weight in learning}
        total = sum(weight.weight.numel() for weight in run.weights)
        idle = sum(  # layers without a gradient in this step keep their share
            round(float(w.state("density")) * w.weight.numel())
            for w in run.weights
            if w.name not in names
        )
        means = [mean_momentum(run, weight) for weight in learning]
        sizes = [weight.weight.numel() for weight in learning]
        budget = round((1 - self.sparsity) * total) - idle
        budget = min(max(budget, len(sizes)), sum(sizes))
        counts = _counts(budget, means, sizes)
        for weight, count in zip(learning, counts, strict=True):
            share = max(1, count) / weight.weight.numel()
            for layer in weight.layers:
                # The weight's density, and that of the layer's other operands.
                for use in plan_of(layer).uses:
                    if (density := states_of(layer, use).get("density")) is not None:
                        density.fill_(share)


def _counts(budget: int, means: list[float], sizes: list[int]) -> list[int]:
    """Active weights of each layer; one above 99 % is dense."""
    counts = apportion(budget, means, sizes, evenly=True)
    while True:
        dense = [
            count > _FULL * size for count, size in zip(counts, sizes, strict=True)
        ]
        fixed = sum(size for full, size in zip(dense, sizes, strict=True) if full)
        if fixed > budget or all(dense):
            return counts
        # Rounding a layer up to dense takes little, from the others by what they have.
        open_ = [0 if full else part for full, part in zip(dense, counts, strict=True)]
        limits = [0 if full else size for full, size in zip(dense, sizes, strict=True)]
        rest = apportion(budget - fixed, open_, limits)
        pairs = zip(dense, sizes, rest, strict=True)
        settled = [size if full else part for full, size, part in pairs]
        if settled == counts:
            return counts
        counts = settled
