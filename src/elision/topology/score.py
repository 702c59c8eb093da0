"""Scores of a weight's importance, by name; each has the weight's shape."""

from collections.abc import Callable

import torch
from torch import Tensor

from elision.common.sharding import full
from elision.topology.run import Run
from elision.topology.weights import SparseWeight, momentum

__all__ = ["SCORES", "Score", "mean_momentum", "signed_rank"]

Score = Callable[[Run, SparseWeight, torch.Generator], Tensor]


def _magnitude(run: Run, weight: SparseWeight, random: torch.Generator) -> Tensor:
    del run, random
    return weight.magnitude()


def _signed(run: Run, weight: SparseWeight, random: torch.Generator) -> Tensor:
    del run, random
    return signed_rank(full(weight.weight.detach()), weight.mask)


def _gradient(run: Run, weight: SparseWeight, random: torch.Generator) -> Tensor:
    del random
    return run.gradient(weight).abs()


def _gathered(run: Run, weight: SparseWeight, random: torch.Generator) -> Tensor:
    del run, random
    return weight.state("score").abs()


def _momentum(run: Run, weight: SparseWeight, random: torch.Generator) -> Tensor:
    del random
    return momentum(run.optimizer, weight.weight)


def mean_momentum(run: Run, weight: SparseWeight) -> float:
    """Mean momentum of a weight's active values, those left out that are not finite."""
    active = momentum(run.optimizer, weight.weight)[weight.mask]
    finite = active[active.isfinite()]
    return float(finite.mean()) if finite.numel() else 0.0


def _random(run: Run, weight: SparseWeight, random: torch.Generator) -> Tensor:
    del run
    return torch.rand(weight.shape, generator=random, device=random.device).to(
        weight.mask.device
    )


def signed_rank(weight: Tensor, active: Tensor) -> Tensor:
    """Rank of each active weight among those of its sign, from 0 to 1.

    Dropping the lowest drops the same share of both signs: the smallest positive and
    the largest negative values (SET as published). A zero counts as positive.
    """
    rank = torch.zeros_like(weight)
    for one_sign in (active & (weight >= 0), active & (weight < 0)):
        values = weight[one_sign].abs()
        order = torch.empty_like(values)
        places = torch.arange(1, values.numel() + 1, device=values.device)
        order[values.argsort(stable=True)] = places.to(values) / max(1, values.numel())
        rank[one_sign] = order
    return rank


#: Scores by name. ``"gathered"`` is the moving average of the gradient.
SCORES: dict[str, Score] = {
    "magnitude": _magnitude,
    "signed": _signed,
    "gradient": _gradient,
    "gathered": _gathered,
    "momentum": _momentum,
    "random": _random,
}
