"""DST: a trainable threshold per neuron decides which weights are used."""

from dataclasses import KW_ONLY, dataclass

from torch import nn

from elision.layers.recipe import Table
from elision.methods.base import Method
from elision.operands import LearnedThreshold
from elision.products import Product
from elision.topology import LearnedThresholds, install

__all__ = ["DST"]


@dataclass(frozen=True)
class DST(Method):
    """Dynamic sparse training: masks from thresholds that learn.

    With ``t`` one threshold per output channel, ``Q = |W| − t`` and ``M = 1[Q > 0]``::

        Y = X · (W·M)        dX = G · (W·M)ᵀ        g = dL/d(W·M) = G · X
        dQ = g·W·h(Q)        dW = g·M + dQ·sign(W)  dt_i = −sum_j dQ_ij − alpha·exp(−t_i)

    ``h`` is the long-tailed derivative of the step, ``2 − 4|Q|`` to 0.4, 0.4 to 1 and 0
    beyond. Thresholds start at zero; a layer that would keep 1 % or less is reset to
    zero. All convolutions and linear layers take part, first and last included.

    Reference: Liu, Xu, Shi, Cheung and So, Dynamic Sparse Training: Find Efficient
    Sparse Network From Scratch With Trainable Masked Layers, ICLR 2020.

    Deviations:
        - ``target`` steers ``alpha`` towards a sparsity; the paper has no such aim.

    Attributes:
        alpha: strength of the regulariser (published: 5e-6 for VGG-16).
        target: sparsity to steer to, or None.
        gain: of the controller behind ``target``.
        dense: layers left dense.

    Example:
        >>> from elision.products import Product
        >>> print(DST(target=0.9).table[Product.FORWARD, "weight"])
        above a learned threshold
    """

    alpha: float = 5e-6
    target: float | None = None
    gain: float = 0.1
    _: KW_ONLY
    dense: tuple[str, ...] = (":embedding",)

    key = "dst"
    bibtex = """
        @inproceedings{liu2020dynamic,
          title     = {Dynamic Sparse Training: Find Efficient Sparse Network From
                       Scratch With Trainable Masked Layers},
          author    = {Liu, Junjie and Xu, Zhe and Shi, Runbin and Cheung, Ray C. C. and
                       So, Hayden K. H.},
          booktitle = {International Conference on Learning Representations},
          year      = {2020}
        }
    """

    def build(self) -> Table:
        self.rule()
        kept = LearnedThreshold()
        return Table(
            {
                Product.FORWARD: {"weight": kept},
                Product.INPUT_GRAD: {"weight": kept},
            }
        )

    def prepare(self, model: nn.Module) -> None:
        install(model, self.rule(), self.key, self)

    def rule(self) -> LearnedThresholds:
        """The rule by which thresholds learn."""
        return LearnedThresholds(self.alpha, self.target, self.gain)
