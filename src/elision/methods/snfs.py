"""SNFS: grow where the momentum is largest, within and between layers."""

from dataclasses import dataclass
from typing import Literal

from elision.common.checks import one_of
from elision.methods.masked import Masked, moving
from elision.topology import DropFraction, Periodic, PruneAndGrow, Rule

__all__ = ["SNFS"]


@dataclass(frozen=True)
class SNFS(Masked):
    """Sparse networks from scratch: momentum says where weights are missing.

    Every ``every`` steps, after the gradient step, each layer drops a share of its
    active weights by magnitude; all that were dropped, ``R``, are grown again, layer by
    layer in proportion to the mean ``|momentum|`` of its active weights, and within a
    layer where ``|momentum|`` is largest (Adam: ``|m|/(sqrt(v) + eps)``). So momentum
    gathers the gradient of *all* weights: the gradient is dense in every step.

    Reference: Dettmers and Zettlemoyer, Sparse Networks from Scratch: Faster Training
    without Losing Performance, 2019.

    Deviations:
        - Published: once an epoch. Here ``every`` counts steps.
        - Published: shares are rounded up and a smoothed residual corrects the sum
          later. Here shares are whole by largest remainder, so the sum is exact.
        - ``variant="gradient"`` is that of the RigL repository, which is another
          method: a moving average (0.9) of the gradient scores, nothing moves between
          layers.

    Attributes:
        every: steps between moves.
        fraction: share of the active weights moved at the start (published: 0.5).
        final_fraction: and at step ``until`` (published: 0.005), along a cosine.
        until: last step at which masks move.
        variant: ``"momentum"`` or ``"gradient"``.

    Example:
        >>> SNFS(0.9).fitted(steps=400).every
        75
    """

    every: int = 100
    fraction: float = 0.5
    final_fraction: float = 0.005
    until: int = 25_000
    variant: Literal["momentum", "gradient"] = "momentum"

    key = "snfs"
    bibtex = """
        @article{dettmers2019sparse,
          title   = {Sparse Networks from Scratch: Faster Training without Losing
                     Performance},
          author  = {Dettmers, Tim and Zettlemoyer, Luke},
          journal = {arXiv preprint arXiv:1907.04840},
          year    = {2019}
        }
    """

    @property
    def averages_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if the layers keep a moving average of the gradient."""
        return self.variant == "gradient"

    def schedule(self, steps: int) -> dict[str, int]:
        # Momentum must forget a move before it says where the next one goes: published
        # is an epoch between them.
        return moving(steps, every=100, moves=4)

    def rule(self) -> Rule:
        one_of("SNFS", "variant", self.variant, ("momentum", "gradient"))
        by_momentum = self.variant == "momentum"
        return PruneAndGrow(
            self.budget(),
            Periodic(self.every, self.until),
            DropFraction(self.fraction, self.final_fraction, self.until),
            grow="momentum" if by_momentum else "gathered",
            redistribute=by_momentum,
            unmasked=by_momentum,
        )
