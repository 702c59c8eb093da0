"""Ternary Weight Networks: weights in {−s, 0, s} with a threshold from their mean."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from elision.methods.quantised import Quantised
from elision.operands import Project

__all__ = ["TWN"]


@dataclass(frozen=True)
class TWN(Quantised):
    """Ternary weights in two products, the straight-through gradient for the float ones.

    With the threshold ``t = 0.7·mean|W|`` and ``s`` the mean magnitude above it::

        T = s·sign(W)·1[|W| > t]      Y = X · T      dX = G · Tᵀ      dW = G · X

    ``X: (N, C, H, W)``, ``W: (K, C/groups, R, S)``, ``G: (N, K, P, Q)``. Activations stay
    float. Nearly half of the weights are zero, which an engine may leave out.

    Reference: Li, Zhang and Liu, Ternary Weight Networks, arXiv 1605.04711.

    Attributes:
        threshold: ``"twn"`` as above; ``"exact"``, the minimum of ``‖W − T‖``.
        dense: layers left float (whether the paper leaves any is not checked).

    Example:
        >>> from elision.products import Product
        >>> print(TWN().table[Product.FORWARD, "weight"])
        ternary by layer
    """

    threshold: Literal["twn", "exact"] = "twn"
    _: KW_ONLY
    dense: tuple[str, ...] = (":embedding",)

    key = "twn"
    bibtex = """
        @article{li2016ternary,
          title   = {Ternary Weight Networks},
          author  = {Li, Fengfu and Zhang, Bo and Liu, Bin},
          journal = {arXiv preprint arXiv:1605.04711},
          year    = {2016}
        }
    """

    def weights(self) -> Project:
        return Project(2, threshold=self.threshold)
