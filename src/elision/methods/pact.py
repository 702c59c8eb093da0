"""PACT: activations cut off at a learned value, weights of DoReFa-Net."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from elision.methods.dorefa import dorefa_weights
from elision.methods.quantised import FLOAT_BITS, Quantised
from elision.operands import LearnedStep, QuantisedWeight
from elision.topology import Blended

__all__ = ["PACT"]


@dataclass(frozen=True)
class PACT(Quantised):
    """Activations clipped to ``[0, alpha]`` and rounded to ``2^b`` levels, alpha learned.

    With ``L = 2^b − 1`` and ``W'`` DoReFa-Net's weights::

        X' = round(clip(X, 0, alpha)·L/alpha)·alpha/L
        Y = X' · W'      dX = (G · W'ᵀ)·1[0 < X < alpha]      dW = (G · X')·dW'/dW
        d alpha = sum(dL/dX'·1[X >= alpha])

    ``X: (N, C, H, W)``, ``W: (K, C/groups, R, S)``, ``G: (N, K, P, Q)``. The layer keeps
    the step ``a = alpha/L``, whose gradient is scaled so that plain or momentum descent
    moves alpha as above; the weight decay of the optimiser's group acts on it, which is the
    paper's L2 penalty on alpha with the strength of that of the weights. Call
    :func:`elision.topology.attach`: without it alpha stays.

    Reference: Choi, Wang, Venkataramani, Chuang, Srinivasan and Gopalakrishnan, PACT:
    Parameterized Clipping Activation for Quantized Neural Networks, arXiv 1805.06085.

    Deviations:
        - The first alpha is the best one for a unit Gaussian (an own choice), or given.
        - What is quantised is a layer's input, as in :class:`Bcgd`.

    Attributes:
        weight_bits: 1 to 8, or 32 (float).
        activation_bits: 1 to 8, or 32 (float).
        alpha: the first clipping value: a number; ``"gaussian"``; or ``"data"``, that times
            the root mean square of the positive values of the layer's first batch.
        dense: layers left float (published: the first and the last).

    Example:
        >>> from elision.products import Product
        >>> print(PACT(4, 4).table[Product.FORWARD, "input"])
        4 bits of a learned step, round
    """

    weight_bits: int = 4
    activation_bits: int = 4
    _: KW_ONLY
    alpha: float | Literal["gaussian", "data"] = "gaussian"
    dense: tuple[str, ...] = (":first", ":last", ":embedding")

    key = "pact"
    bibtex = """
        @article{choi2018pact,
          title   = {{PACT}: Parameterized Clipping Activation for Quantized Neural
                     Networks},
          author  = {Choi, Jungwook and Wang, Zhuo and Venkataramani, Swagath and Chuang,
                     Pierce I-Jen and Srinivasan, Vijayalakshmi and Gopalakrishnan,
                     Kailash},
          journal = {arXiv preprint arXiv:1805.06085},
          year    = {2018}
        }
    """

    def weights(self) -> QuantisedWeight:
        return dorefa_weights(self.weight_bits)

    def rule(self) -> Blended:
        """The rule by which steps learn."""
        return Blended()

    def activations(self) -> LearnedStep | None:
        bits = self.activation_bits
        if bits == FLOAT_BITS:
            return None
        levels, first = 2**bits - 1, self.alpha
        return LearnedStep(
            bits,
            "round",
            "pact",
            initial=first if isinstance(first, str) else first / levels,
            rate=1 / levels**2,  # alpha is the step times the levels
            limit=math.inf,
            bounds=(1e-6, math.inf),
        )
