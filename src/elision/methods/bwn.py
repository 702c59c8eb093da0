"""Binary-Weight-Networks: signs times one scale an output channel (XNOR-Net)."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from elision.methods.quantised import Quantised
from elision.operands import Project

__all__ = ["BWN"]


@dataclass(frozen=True)
class BWN(Quantised):
    """Binary weights with the least-squares scale of every output channel.

    With ``s`` the mean magnitude of a channel's ``n`` weights::

        Y = X · s·sign(W)    dX = G · (s·sign(W))ᵀ    dW = (G · X)·(1/n + s·1[|W| <= 1])

    ``X: (N, C, H, W)``, ``W: (K, C/groups, R, S)``, ``G: (N, K, P, Q)``. Activations stay
    float.

    Reference: Rastegari, Ordonez, Redmon and Farhadi, XNOR-Net: ImageNet Classification
    Using Binary Convolutional Neural Networks, ECCV 2016, section 3.1.

    Deviations:
        - The binary activations of XNOR-Net itself are not built.

    Attributes:
        gradient: ``"scaled"`` as above, or ``"straight"``: ``dW = G · X``.
        dense: layers left float (that the paper leaves out the first and the last is not
            checked).

    Example:
        >>> from elision.products import Product
        >>> print(BWN().table[Product.FORWARD, "weight"])
        binary by channel
    """

    gradient: Literal["scaled", "straight"] = "scaled"
    _: KW_ONLY
    dense: tuple[str, ...] = (":first", ":last", ":embedding")

    key = "bwn"
    bibtex = """
        @inproceedings{rastegari2016xnornet,
          title     = {{XNOR-Net}: {ImageNet} Classification Using Binary Convolutional
                       Neural Networks},
          author    = {Rastegari, Mohammad and Ordonez, Vicente and Redmon, Joseph and
                       Farhadi, Ali},
          booktitle = {European Conference on Computer Vision},
          year      = {2016}
        }
    """

    def weights(self) -> Project:
        return Project(1, "channel", gradient=self.gradient)
