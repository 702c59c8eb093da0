"""SWAT: sparse weights forward, sparse weights and activations backward."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from elision.layers.recipe import Table
from elision.methods.base import Method
from elision.operands import TopK, Transform
from elision.products import Product

__all__ = ["Swat"]


@dataclass(frozen=True)
class Swat(Method):
    """SWAT-U: top-k weights in two products, top-k activations in the third.

    With ``top(·)`` the values of largest magnitude::

        Y  = X · top(W)        dX = G · top(W)ᵀ        dW = G · top(X)

    ``X: (N, C, H, W)``, ``W: (K, C/groups, R, S)``, ``G: (N, K, P, Q)``. The gradient
    ``G`` is never sparsified, and ``dW`` is dense and not masked: every weight learns, so
    a weight that was left out can return (straight-through). Kept for the
    backward pass is ``top(X)``, not ``X``. The first layer stays dense, and so do
    depthwise convolutions and embeddings; the last linear layer is sparse.

    Reference: Raihan and Aamodt, Sparse Weight Activation Training, NeurIPS 2020.

    Deviations:
        - Thresholds belong to a layer's buffers, not to files keyed by layer order, so
          runs resume and distribute; the published code supports neither.
        - Linear layers refresh their thresholds as convolutions do; the published code
          refreshes them at every step.

    Attributes:
        sparsity: fraction of each weight tensor left out, in [0, 1).
        activation_sparsity: the same for the activations; None for ``sparsity``.
        refresh: steps between new thresholds (published: 10 or 20 on CIFAR).
        threshold: ``"exact"`` k-th largest, or ``"sampled"`` quantile.
        dense: layers left dense.

    Example:
        >>> from elision.products import Product
        >>> print(Swat(0.9, refresh=10).table[Product.FORWARD, "weight"])
        top 0.1 by magnitude, every 10 steps
    """

    sparsity: float = 0.9
    activation_sparsity: float | None = None
    refresh: int = 1
    threshold: Literal["exact", "sampled"] = "exact"
    _: KW_ONLY
    dense: tuple[str, ...] = (":first", ":depthwise", ":embedding")

    key = "swat"
    bibtex = """
        @inproceedings{raihan2020swat,
          title     = {Sparse Weight Activation Training},
          author    = {Raihan, Md Aamir and Aamodt, Tor M.},
          booktitle = {Advances in Neural Information Processing Systems},
          year      = {2020}
        }
    """

    def build(self) -> Table:
        return self._table(self.sparsity)

    def _table(self, sparsity: float) -> Table:
        """The table of a layer with its own weight sparsity."""
        weights = self._weights(sparsity)
        share = self.activation_sparsity
        activations = self._activations(sparsity if share is None else share)
        return Table(
            {
                Product.FORWARD: {"weight": weights},
                Product.INPUT_GRAD: {"weight": weights},
                Product.WEIGHT_GRAD: {"input": activations},
            }
        )

    def _weights(self, sparsity: float) -> Transform:
        """The transform of a layer's weights."""
        return TopK(sparsity, self.threshold, self.refresh)

    def _activations(self, sparsity: float) -> Transform:
        """The transform of a layer's input, for the weight gradient."""
        return TopK(sparsity, self.threshold, self.refresh)
