"""Gradual magnitude pruning: train dense, end sparse."""

from dataclasses import dataclass

from elision.methods.masked import Masked, moving
from elision.topology import CubicSparsity, GradualPruning, Periodic, Rule

__all__ = ["Gradual"]


@dataclass(frozen=True)
class Gradual(Masked):
    """Gradual magnitude pruning along a cubic, layer by layer.

    Up to step ``start`` the model is dense; at step ``end`` it has the sparsity asked
    for; between, every ``every`` steps, layer ``l`` keeps its largest weights at the
    sparsity ``s_l·(1 − (1 − (t − start)/(end − start))^3)``.

    Reference: Zhu and Gupta, To prune, or not to prune: exploring the efficacy of
    pruning for model compression, 2017.

    Deviations:
        - A pruned weight does not return.

    Attributes:
        start: last dense step.
        end: first step at the final sparsity.
        every: steps between prunings.

    Example:
        >>> Gradual(0.9).fitted(steps=400).end
        300
    """

    start: int = 0
    end: int = 10_000
    every: int = 100

    key = "gradual"
    bibtex = """
        @article{zhu2017prune,
          title   = {To prune, or not to prune: exploring the efficacy of pruning for
                     model compression},
          author  = {Zhu, Michael and Gupta, Suyog},
          journal = {arXiv preprint arXiv:1710.01878},
          year    = {2017}
        }
    """

    def schedule(self, steps: int) -> dict[str, int]:
        times = moving(steps, every=100)
        return {"end": self.start + times["until"], "every": times["every"]}

    def rule(self) -> Rule:
        cubic = CubicSparsity(self.start, self.end)
        return GradualPruning(self.budget(), Periodic(self.every), cubic)
