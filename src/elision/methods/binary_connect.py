"""BinaryConnect: the signs of the weights compute, clipped float weights learn."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from elision.common.checks import one_of
from elision.layers.recipe import Table
from elision.methods.quantised import Quantised
from elision.operands import Project
from elision.topology import Blended

__all__ = ["BinaryConnect"]


@dataclass(frozen=True)
class BinaryConnect(Quantised):
    """Binary weights in two products, the straight-through gradient for the float ones.

    ::

        Y = X · sign(W)      dX = G · sign(W)ᵀ      dW = G · X
        W ← clip(W − eta·dW, −1, 1)

    ``X: (N, C, H, W)``, ``W: (K, C/groups, R, S)``, ``G: (N, K, P, Q)``. Zero counts as
    positive. Activations stay float. The weights are clipped after each step of the
    optimiser to which :func:`elision.topology.attach` attaches.

    Reference: Courbariaux, Bengio and David, BinaryConnect: Training Deep Neural Networks
    with binary weights during propagations, NeurIPS 2015.

    Deviations:
        - The signs are deterministic; the paper's stochastic ones are not built.
        - The paper scales learning rates by the initialisation of each layer; here the
          optimiser's groups say them.

    Attributes:
        clip: bound of the float weights (published: 1); None for none.
        scale: ``"unit"``: −1 and 1; ``"mean"``: times the layer's mean magnitude, which is
            BCGD without blending (``Bcgd(1, 32, rho=0)``) where ``clip`` is None.
        dense: layers left float.

    Example:
        >>> from elision.products import Product
        >>> print(BinaryConnect().table[Product.FORWARD, "weight"])
        binary
    """

    clip: float | None = 1.0
    scale: Literal["unit", "mean"] = "unit"
    _: KW_ONLY
    dense: tuple[str, ...] = (":embedding",)

    key = "binary-connect"
    bibtex = """
        @inproceedings{courbariaux2015binaryconnect,
          title     = {{BinaryConnect}: Training Deep Neural Networks with binary weights
                       during propagations},
          author    = {Courbariaux, Matthieu and Bengio, Yoshua and David, Jean-Pierre},
          booktitle = {Advances in Neural Information Processing Systems},
          year      = {2015}
        }
    """

    def build(self) -> Table:
        one_of("BinaryConnect", "scale", self.scale, ("unit", "mean"))
        return super().build()

    def weights(self) -> Project:
        return Project(1, "layer" if self.scale == "mean" else "none")

    def rule(self) -> Blended:
        """The rule that clips the weights."""
        return Blended(clip=self.clip)
