"""SET: drop the weakest weights, grow others at random."""

from dataclasses import dataclass
from typing import Literal

from elision.common.checks import one_of
from elision.methods.masked import Masked, moving
from elision.topology import DropFraction, Periodic, PruneAndGrow, Rule

__all__ = ["SET"]


@dataclass(frozen=True)
class SET(Masked):
    """Sparse evolutionary training: prune by magnitude, grow at random.

    Every ``every`` steps, after the gradient step, each layer drops
    ``n = int(fraction·nnz)`` active weights of smallest magnitude and grows ``n`` of
    the inactive ones, drawn uniformly, at zero.

    Reference: Mocanu, Mocanu, Stone, Nguyen, Gibescu and Liotta, Scalable training of
    artificial neural networks with adaptive sparse connectivity inspired by network
    science, Nature Communications 2018.

    Deviations:
        - Published: once an epoch. Here ``every`` counts steps (default: as RigL).
        - Published: ER layer densities. Here ERK, its extension to kernels.
        - ``drop="magnitude"`` drops the smallest of both signs together; ``"signed"``
          drops the same share of the smallest positive and of the largest negative
          weights, as published.

    Attributes:
        every: steps between moves.
        fraction: share of the active weights moved at a time.
        drop: ``"magnitude"`` or ``"signed"``.
        until: last step at which masks move; None for no end.

    Example:
        >>> SET(0.9).fitted(steps=400).every
        10
    """

    every: int = 100
    fraction: float = 0.3
    drop: Literal["magnitude", "signed"] = "magnitude"
    until: int | None = None

    key = "set"
    bibtex = """
        @article{mocanu2018scalable,
          title   = {Scalable training of artificial neural networks with adaptive
                     sparse connectivity inspired by network science},
          author  = {Mocanu, Decebal Constantin and Mocanu, Elena and Stone, Peter and
                     Nguyen, Phuong H. and Gibescu, Madeleine and Liotta, Antonio},
          journal = {Nature Communications},
          volume  = {9},
          year    = {2018}
        }
    """

    def schedule(self, steps: int) -> dict[str, int]:
        return moving(steps, every=100)

    def rule(self) -> Rule:
        one_of("SET", "drop", self.drop, ("magnitude", "signed"))
        return PruneAndGrow(
            self.budget(),
            Periodic(self.every, self.until),
            DropFraction(self.fraction, decay="constant"),
            drop=self.drop,
            grow="random",
            regrow=False,
        )
