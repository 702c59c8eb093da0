"""SRigL: RigL with a constant number of inputs per neuron."""

from dataclasses import dataclass

from elision.common.checks import one_of
from elision.methods.masked import Masked, moving
from elision.topology import ConstantFanIn, DropFraction, Periodic, Rule

__all__ = ["SRigL"]


@dataclass(frozen=True)
class SRigL(Masked):
    """Structured RigL: constant fan-in, with ablation of neurons that do not matter.

    As RigL, but every active output channel of a layer has the same number ``k`` of
    active inputs, so the layer is stored as a dense matrix of ``k`` values and indices
    a row (see :class:`elision.topology.ConstantFanIn` for the steps of a move).

    Reference: Lasby, Golubeva, Evci, Nica and Ioannou, Dynamic Sparse Training with
    Structured Sparsity, ICLR 2024.

    Deviations:
        - ``k`` is rounded down, but not below 1, so a layer of more than one input a
          neuron holds at most its budget, not exactly.

    Attributes:
        every: steps between moves.
        fraction: share of the active weights moved at the start.
        until: last step at which masks move.
        ablation: share of the fan-in that must be salient for a neuron to stay active
            (the default is not checked against the paper); 0 ablates nothing.
        replaces_step: whether a move takes the place of the gradient step.

    Example:
        >>> SRigL(0.9, ablation=0).key
        'srigl'
    """

    every: int = 100
    fraction: float = 0.3
    until: int = 25_000
    ablation: float = 0.3
    replaces_step: bool = True

    key = "srigl"
    bibtex = """
        @inproceedings{lasby2024dynamic,
          title     = {Dynamic Sparse Training with Structured Sparsity},
          author    = {Lasby, Mike and Golubeva, Anna and Evci, Utku and Nica, Mihai and
                       Ioannou, Yani},
          booktitle = {International Conference on Learning Representations},
          year      = {2024}
        }
    """

    def schedule(self, steps: int) -> dict[str, int]:
        return moving(steps, every=100)

    def rule(self) -> Rule:
        one_of("SRigL", "pattern", self.pattern, ("unstructured",))
        return ConstantFanIn(
            self.budget(),
            Periodic(self.every, self.until),
            DropFraction(self.fraction, horizon=self.until),
            self.ablation,
            self.replaces_step,
        )
