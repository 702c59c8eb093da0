"""Drop the least important active weights, grow as many others (SET, RigL, SNFS)."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from elision.common.checks import number
from elision.common.names import lookup
from elision.topology.rule import Budget, Rule
from elision.topology.run import Run
from elision.topology.schedule import DropFraction, Periodic
from elision.topology.score import SCORES, mean_momentum
from elision.topology.selection import apportion, best, generator
from elision.topology.weights import SparseWeight

__all__ = ["PruneAndGrow"]

#: A layer takes at most this share of its free units when growth moves between layers
#: (SNFS).
_FULL = 0.99

#: A layer less sparse than this is close to dense (SNFS).
_NEARLY_DENSE = 0.2


@dataclass(frozen=True)
class PruneAndGrow(Rule):
    """Every few steps, move a share of the active weights to better places.

    With ``nnz_l`` active units of layer ``l`` and ``f(t)`` the drop fraction,
    ``n_l = int(f(t)·nnz_l)``: the ``nnz_l − n_l`` of highest drop score stay, and of
    the others the highest by growth score are grown. Grown weights start at zero with
    clean optimiser state. The number of active weights never changes: layer by layer,
    or over the model if growth is redistributed.

    Attributes:
        budget: how many weights are active at the start, layer by layer.
        when: steps in which masks move.
        fraction: the drop fraction.
        drop: score by which the lowest are dropped, a key of
            :data:`elision.topology.score.SCORES`.
        grow: score by which the highest are grown.
        regrow: whether a weight dropped in this move may be grown in it; it then keeps
            its value and state.
        replaces_step: the move takes place before the optimiser's step, with this
            step's gradient, and the gradient step is left out (RigL as published).
            Otherwise it follows the step.
        redistribute: growth moves between layers by their mean momentum; units beyond
            a layer's limit are divided among the others in equal parts (SNFS).
        unmasked: gradients of inactive weights reach the optimiser (SNFS).
        memory: decay of the moving average that ``"gathered"`` scores by.
        momentum_seed: grown weights start with this multiple of their gradient as
            momentum (0: none).

    Example:
        >>> from elision.topology import Budget, Periodic
        >>> rule = PruneAndGrow(Budget(0.9), Periodic(100), drop="signed", grow="random")
        >>> rule.moves(100), rule.needs_dense_gradient(100)
        (True, False)
    """

    budget: Budget
    when: Periodic
    fraction: DropFraction = field(default_factory=DropFraction)
    drop: str = "magnitude"
    grow: str = "gradient"
    regrow: bool = True
    replaces_step: bool = False
    redistribute: bool = False
    unmasked: bool = False
    memory: float = 0.9
    momentum_seed: float = 0.0

    is_scheduled = True

    def __post_init__(self) -> None:
        number("PruneAndGrow", "memory", self.memory, "[0, 1)")
        number("PruneAndGrow", "momentum_seed", self.momentum_seed, ">= 0")
        lookup("drop score", self.drop, SCORES)
        lookup("growth score", self.grow, SCORES)

    @property
    def masks_gradients(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if the gradients of inactive weights are zeroed before a step."""
        return not self.unmasked

    @property
    def reads_momentum(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if a score is the optimiser's momentum."""
        return self.redistribute or "momentum" in (self.drop, self.grow)

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        self.budget.draw(weights, dense)
        for weight in weights:
            if self.grow == "gathered":
                weight.set_state("score", torch.zeros(weight.shape))

    def moves(self, step: int) -> bool:
        return self.when.at(step)

    def until(self) -> int | None:
        return self.when.until

    def reads_gradients(self, step: int) -> bool:
        return self.grow == "gathered" or self.moves(step)

    def needs_dense_gradient(self, step: int) -> bool:
        always = self.unmasked or self.grow == "gathered"
        reads = self.grow == "gradient" or self.momentum_seed != 0
        return always or (reads and self.moves(step))

    def before_step(self, run: Run) -> bool:
        if self.grow == "gathered":
            for weight in run.learning:
                average = weight.state("score")
                average.lerp_(weight.gradient(), 1 - self.memory)
        if not self.replaces_step or not self.moves(run.step):
            return False
        return self._move(run)

    def after_step(self, run: Run) -> None:
        if not self.replaces_step and self.moves(run.step):
            self._move(run)

    def _move(self, run: Run) -> bool:
        """Move the masks of all that learns; False if there is nowhere to move."""
        patterns = {w.name: w.divided_by(self.budget.pattern) for w in run.learning}
        active = {w.name: patterns[w.name].active(w.mask) for w in run.learning}
        shares = self._shares(run) if self.redistribute else {}
        dropped = {
            w.name: self._dropped(run.step, active[w.name], shares.get(w.name))
            for w in run.learning
        }
        grown = self._grown(active, dropped, shares)
        if not any(dropped.values()) and not any(grown.values()):
            return False
        for weight in run.learning:
            name = weight.name
            random = generator(self.budget.seed, name, run.step)
            units = active[name]
            stay = int(units.sum()) - dropped[name]
            drop_score = self._score(run, weight, self.drop, random, units)
            kept = best(drop_score, stay, random)
            free = ~kept if self._may_regrow(units, grown[name]) else ~units
            grow_score = self._score(run, weight, self.grow, random, free)
            new = kept | best(grow_score, grown[name], random)
            old = weight.mask.clone()
            run.move(weight, patterns[name].expand(new, weight.shape))
            if self.momentum_seed:
                grown_here = weight.mask & ~old
                slope = torch.where(grown_here, run.gradient(weight), 0)
                weight.seed_momentum(run.optimizer, self.momentum_seed * slope)
        return True

    def _score(
        self,
        run: Run,
        weight: SparseWeight,
        name: str,
        random: torch.Generator,
        allowed: Tensor,
    ) -> Tensor:
        pattern = weight.divided_by(self.budget.pattern)
        score = pattern.reduce(SCORES[name](run, weight, random).float())
        return torch.where(allowed, score, -math.inf)

    def _may_regrow(self, units: Tensor, grown: int) -> bool:
        return self.regrow or grown > int((~units).sum())

    def _dropped(self, step: int, units: Tensor, share: float | None) -> int:
        """Number of units that a layer drops."""
        count, free = int(units.sum()), int((~units).sum())
        fraction = self.fraction.at(step)
        if share is not None and share > 1 and free < _NEARLY_DENSE * units.numel():
            # A nearly dense layer that is still growing is stirred less.
            fraction = min(fraction, free / units.numel())
        wanted = int(fraction * count)
        if self.redistribute:
            return min(wanted, count - 1)
        return wanted if self.regrow and free else min(wanted, free)

    def _shares(self, run: Run) -> dict[str, float]:
        """Mean momentum of each layer's active weights, as a multiple of the mean."""
        means = {w.name: mean_momentum(run, w) for w in run.learning}
        total = sum(means.values())
        return {
            name: mean * len(means) / total if total > 0 else 1.0
            for name, mean in means.items()
        }

    def _grown(
        self,
        active: dict[str, Tensor],
        dropped: dict[str, int],
        shares: dict[str, float],
    ) -> dict[str, int]:
        """Number of units that each layer grows; their sum is the number dropped."""
        if not self.redistribute:
            return dropped
        total = sum(dropped.values())
        free = [int((~units).sum()) + dropped[n] for n, units in active.items()]
        limits = [int(_FULL * count) for count in free]
        limits = limits if sum(limits) >= total else free
        by_name = [shares[name] for name in active]
        parts = apportion(total, by_name, limits, evenly=True)
        return dict(zip(dropped, parts, strict=True))
