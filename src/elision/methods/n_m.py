"""N:M sparse training from scratch with a straight-through estimator."""

from dataclasses import KW_ONLY, dataclass

from torch import nn

from elision.layers.recipe import Table
from elision.methods.base import Method
from elision.operands import TopNofM
from elision.products import Product
from elision.topology import StraightThroughDecay, install

__all__ = ["NM"]


@dataclass(frozen=True)
class NM(Method):
    """SR-STE: ``n`` of every ``m`` weights compute, all of them learn.

    ::

        Y = X · (W·M)        dX = G · (W·M)ᵀ        dW = G · X + decay·(1 − M)·W

    ``M`` keeps the ``n`` largest of each ``m`` consecutive weights along the input
    channels, chosen anew in every step. ``dW`` is not masked (straight-through); what is
    left out is pulled towards zero, so that the choice settles.

    Reference: Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun and Li, Learning N:M Fine-grained
    Structured Sparse Neural Networks From Scratch, ICLR 2021.

    Attributes:
        n: weights kept of each group.
        m: size of a group; divides the input channels of every layer reached.
        decay: strength of the pull (the default is not checked against the paper).
        dense: layers left dense. The first has too few channels for groups in most
            models.

    Example:
        >>> from elision.products import Product
        >>> print(NM(2, 4).table[Product.FORWARD, "weight"])
        2 of every 4 by magnitude
    """

    n: int = 2
    m: int = 4
    decay: float = 2e-4
    _: KW_ONLY
    dense: tuple[str, ...] = (":first", ":depthwise", ":embedding")

    key = "n-m"
    bibtex = """
        @inproceedings{zhou2021learning,
          title     = {Learning {N:M} Fine-grained Structured Sparse Neural Networks From
                       Scratch},
          author    = {Zhou, Aojun and Ma, Yukun and Zhu, Junnan and Liu, Jianbo and
                       Zhang, Zhijie and Yuan, Kun and Sun, Wenxiu and Li, Hongsheng},
          booktitle = {International Conference on Learning Representations},
          year      = {2021}
        }
    """

    def build(self) -> Table:
        self.rule()
        kept = TopNofM(self.n, self.m)
        return Table(
            {
                Product.FORWARD: {"weight": kept},
                Product.INPUT_GRAD: {"weight": kept},
            }
        )

    def prepare(self, model: nn.Module) -> None:
        install(model, self.rule(), self.key, self)

    def rule(self) -> StraightThroughDecay:
        """The rule that pulls what is left out."""
        return StraightThroughDecay(self.decay)
