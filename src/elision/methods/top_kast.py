"""Top-KAST: sparse forward, slightly denser backward."""

from dataclasses import dataclass, replace

from elision.common.checks import one_of
from elision.methods.masked import Masked, moving
from elision.topology import BackwardSuperset, Periodic, Rule

__all__ = ["TopKAST"]


@dataclass(frozen=True)
class TopKAST(Masked):
    """Top-KAST: the largest weights compute, a superset of them learns.

    ::

        Y = X · (W·A)        dX = G · (W·A)ᵀ        dW = (G · X)·B + penalty

    ``A`` and ``B`` hold the largest magnitudes of each layer at the forward and the
    backward density. The penalty is ``c·W`` on ``A`` and ``c/D·W`` on ``B`` outside
    ``A``, ``D`` the layer's forward density.

    Reference: Jayakumar, Pascanu, Rae, Osindero and Elsen, Top-KAST: Top-K Always
    Sparse Training, NeurIPS 2020.

    Deviations:
        - The optimiser's own weight decay would act on weights outside ``B`` too; give
          it 0 and use ``penalty``.
        - The input gradient reads ``A``, as the forward product does.

    Attributes:
        backward_sparsity: sparsity of ``B``, at most ``sparsity``.
        every: steps between new choices of both sets.
        penalty: ``c``.

    Example:
        >>> TopKAST(0.9, backward_sparsity=0.5).fitted(steps=400).every
        10
    """

    backward_sparsity: float = 0.8
    every: int = 100
    penalty: float = 1e-4

    key = "top-kast"
    learns_beyond = True
    bibtex = """
        @inproceedings{jayakumar2020top,
          title     = {{Top-KAST}: Top-{K} Always Sparse Training},
          author    = {Jayakumar, Siddhant and Pascanu, Razvan and Rae, Jack and
                       Osindero, Simon and Elsen, Erich},
          booktitle = {Advances in Neural Information Processing Systems},
          year      = {2020}
        }
    """

    def schedule(self, steps: int) -> dict[str, int]:
        return {"every": moving(steps, every=100)["every"]}

    def rule(self) -> Rule:
        one_of("TopKAST", "pattern", self.pattern, ("unstructured",))
        budget = self.budget()
        backward = replace(budget, sparsity=self.backward_sparsity)
        return BackwardSuperset(budget, backward, Periodic(self.every), self.penalty)
