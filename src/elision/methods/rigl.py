"""RigL: drop the weakest weights, grow where the gradient is largest."""

from dataclasses import dataclass
from typing import Literal

from elision.common.checks import one_of
from elision.methods.masked import Masked, moving
from elision.methods.static import Static
from elision.topology import DropFraction, Periodic, PruneAndGrow, Rule

__all__ = ["RigL"]


@dataclass(frozen=True)
class RigL(Masked):
    """Rigging the Lottery: prune by magnitude, grow by the dense gradient.

    At steps ``t`` with ``t mod every = 0`` and ``t <= until``, per layer, with
    ``f(t) = fraction/2·(1 + cos(pi·t/until))`` and ``n = int(f(t)·nnz)``: the
    ``nnz − n`` active weights of largest ``|W|`` stay, and of all others the ``n`` of
    largest ``|dL/d(W·M)|`` in this batch are grown. A weight just dropped may return,
    and then keeps its value and state; a new one starts at zero. The move replaces the
    gradient step.

    Reference: Evci, Gale, Menick, Castro and Elsen, Rigging the Lottery: Making All
    Tickets Winners, ICML 2020.

    Deviations:
        - Steps count from 1, so the first move is at step ``every``; a fully dense layer
          does not move, and a step in which none does is an ordinary one.
        - Ties of magnitude and gradient are cut at random, exactly; published: noise.

    Attributes:
        every: steps between moves (published: 100).
        fraction: share of the active weights moved at the start (published: 0.3).
        until: last step at which masks move (published for ImageNet: 25 000 of 32 000;
            three quarters of a run).
        replaces_step: whether a move takes the place of the gradient step.
        growth: ``"gradient"`` of the batch, or ``"gathered"``: its moving average over
            steps, which needs the dense gradient of every step.
        momentum_seed: a new weight's momentum starts at this multiple of its gradient
            (published code: ``rigl_acc_scale``, 0 unless set); needs SGD with momentum.

    Example:
        >>> rigl = RigL(0.9).fitted(steps=400)
        >>> rigl.every, rigl.until
        (10, 300)
    """

    every: int = 100
    fraction: float = 0.3
    until: int = 25_000
    replaces_step: bool = True
    growth: Literal["gradient", "gathered"] = "gradient"
    momentum_seed: float = 0.0

    key = "rigl"
    bibtex = Static.bibtex

    @property
    def averages_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if the layers keep a moving average of the gradient."""
        return self.growth == "gathered"

    def schedule(self, steps: int) -> dict[str, int]:
        return moving(steps, every=100)

    def rule(self) -> Rule:
        one_of("RigL", "growth", self.growth, ("gradient", "gathered"))
        return PruneAndGrow(
            self.budget(),
            Periodic(self.every, self.until),
            DropFraction(self.fraction, horizon=self.until),
            grow=self.growth,
            replaces_step=self.replaces_step,
            momentum_seed=self.momentum_seed,
        )
