"""One threshold for the whole model, regrown at random across layers (DSR)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.topology.rule import Budget, Rule
from elision.topology.run import Run
from elision.topology.schedule import Periodic
from elision.topology.selection import apportion, best, generator
from elision.topology.weights import SparseWeight

__all__ = ["GlobalThreshold"]

#: Outside of this band around the wanted number of prunings the threshold moves.
_BAND = (0.9, 1.1)


@dataclass(frozen=True)
class GlobalThreshold(Rule):
    """Prune every active ``|w| < H``, then grow as many at random, layer by layer.

    At least one weight of a layer survives. If the number ``K`` pruned exceeds 1.1
    times the one wanted, ``H`` halves; below 0.9 times, it doubles. A layer's share of
    the ``K`` grown is proportional to what survived in it. Positions pruned in this
    move are avoided while others are free.

    Attributes:
        budget: how many weights are active at the start, layer by layer.
        when: steps in which masks move.
        prune: weights wanted pruned in a move: a count, or a share of all active ones.
        threshold: ``H`` before the first move.

    Example:
        >>> from elision.topology import Budget, Periodic
        >>> GlobalThreshold(Budget(0.9), Periodic(100), prune=0.2).moves(step=200)
        True
    """

    budget: Budget
    when: Periodic
    prune: float | int
    threshold: float = 1e-3

    is_scheduled = True

    def __post_init__(self) -> None:
        if not self.prune > 0 or (isinstance(self.prune, float) and self.prune >= 1):
            raise ValueError(
                f"GlobalThreshold(prune={self.prune!r}): must be a count >= 1 or a "
                "share in (0, 1)"
            )
        number("GlobalThreshold", "threshold", self.threshold, "> 0")

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        self.budget.draw(weights, dense)

    def initial_state(self) -> dict[str, Tensor]:
        return {"threshold": torch.tensor(self.threshold, dtype=torch.float64)}

    def moves(self, step: int) -> bool:
        return self.when.at(step)

    def until(self) -> int | None:
        return self.when.until

    def after_step(self, run: Run) -> None:
        if not self.moves(run.step):
            return
        learning = run.learning
        old = {w.name: w.mask.clone() for w in learning}
        active = sum(int(mask.sum()) for mask in old.values())
        kept = {w.name: self._survivors(w, run) for w in learning}
        survivors = [int(kept[w.name].sum()) for w in learning]
        pruned = active - sum(survivors)
        self._adapt(run.state("threshold"), pruned, active)
        free = [
            kept[w.name].numel() - n for w, n in zip(learning, survivors, strict=True)
        ]
        grown = apportion(pruned, survivors, free)
        for weight, count in zip(learning, grown, strict=True):
            random = generator(self.budget.seed, weight.name, run.step)
            run.move(
                weight, _regrown(kept[weight.name], old[weight.name], count, random)
            )

    def _survivors(self, weight: SparseWeight, run: Run) -> Tensor:
        magnitude = weight.magnitude()
        kept = weight.mask & (magnitude >= run.state("threshold").to(magnitude))
        if kept.any():
            return kept
        random = generator(self.budget.seed, weight.name, run.step)
        return best(torch.where(weight.mask, magnitude, -torch.inf), 1, random)

    def _adapt(self, threshold: Tensor, pruned: int, active: int) -> None:
        share = isinstance(self.prune, float)
        wanted = self.prune * active if share else self.prune
        if pruned > _BAND[1] * wanted:
            threshold.div_(2)
        elif pruned < _BAND[0] * wanted:
            threshold.mul_(2)


def _regrown(kept: Tensor, old: Tensor, count: int, random: torch.Generator) -> Tensor:
    """``kept`` and ``count`` random others, those outside ``old`` first."""
    score = torch.rand(kept.shape, generator=random, device=random.device).to(
        kept.device
    )
    score = torch.where(old, score - 1, score)
    return kept | best(torch.where(kept, -torch.inf, score), count, random)
