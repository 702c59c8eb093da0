"""DoReFa-Net: weights, activations and gradients of few bits."""

from dataclasses import KW_ONLY, dataclass

from elision.methods.quantised import FLOAT_BITS, Quantised
from elision.operands import (
    LearnedStep,
    NoisyLevels,
    Project,
    QuantisedWeight,
    TanhLevels,
)

__all__ = ["DoReFa", "dorefa_weights"]


def dorefa_weights(bits: int) -> QuantisedWeight:
    """Weights of DoReFa-Net: signs times the layer's mean magnitude, or levels of tanh.

    Args:
        bits: width of a code, in [1, 8], or 32 for float weights.

    Example:
        >>> print(dorefa_weights(1), "|", dorefa_weights(2))
        binary by layer | 4 levels of tanh
    """
    return Project(bits) if bits in (1, FLOAT_BITS) else TanhLevels(bits)


@dataclass(frozen=True)
class DoReFa(Quantised):
    """Weights squeezed by tanh, activations cut off at 1, gradients behind noise.

    With ``q_b(r) = round((2^b − 1)·r)/(2^b − 1)`` for ``r`` in [0, 1]::

        W' = 2·q(tanh(W)/(2·max|tanh(W)|) + 1/2) − 1; of 1 bit, mean|W|·sign(W)
        X' = q(clip(X, 0, 1))
        G' = 2·m·(q(G/(2m) + 1/2 + noise) − 1/2), m = max|G| of each example
        Y = X' · W'      dX = (G' · W'ᵀ)·1[0 < X < 1]      dW = (G' · X')·dW'/dW

    ``X: (N, C, H, W)``, ``W: (K, C/groups, R, S)``, ``G: (N, K, P, Q)``. Rounding passes
    gradients unchanged. The bias gradient is the sum of the full ``G``.

    Reference: Zhou, Wu, Ni, Zhou, Wen and Zou, DoReFa-Net: Training Low Bitwidth
    Convolutional Neural Networks with Low Bitwidth Gradients, arXiv 1606.06160.

    Deviations:
        - What is quantised is a layer's input, as in :class:`Bcgd`.

    Attributes:
        weight_bits: 1 to 8, or 32 (float).
        activation_bits: 1 to 8, or 32 (float).
        gradient_bits: 1 to 8, or 32 (float).
        dense: layers left float (published: the first and the last).

    Example:
        >>> from elision.products import Product
        >>> print(DoReFa(1, 2, 6).table[Product.WEIGHT_GRAD, "grad_output"])
        64 levels behind noise
    """

    weight_bits: int = 1
    activation_bits: int = 2
    gradient_bits: int = 6
    _: KW_ONLY
    dense: tuple[str, ...] = (":first", ":last", ":embedding")

    key = "dorefa"
    bibtex = """
        @article{zhou2016dorefa,
          title   = {{DoReFa-Net}: Training Low Bitwidth Convolutional Neural Networks with
                     Low Bitwidth Gradients},
          author  = {Zhou, Shuchang and Wu, Yuxin and Ni, Zekun and Zhou, Xinyu and Wen, He
                     and Zou, Yuheng},
          journal = {arXiv preprint arXiv:1606.06160},
          year    = {2016}
        }
    """

    def weights(self) -> QuantisedWeight:
        return dorefa_weights(self.weight_bits)

    def activations(self) -> LearnedStep | None:
        bits = self.activation_bits
        if bits == FLOAT_BITS:
            return None
        return LearnedStep(bits, "round", "fixed", initial=1 / (2**bits - 1))

    def gradients(self) -> NoisyLevels | None:
        bits = self.gradient_bits
        return None if bits == FLOAT_BITS else NoisyLevels(bits)
