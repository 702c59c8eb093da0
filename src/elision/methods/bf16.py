"""bfloat16: the range of float32 in 16 bits."""

from dataclasses import dataclass

from elision.methods.low_precision import LowPrecision
from elision.operands import Cast
from elision.products import Product

__all__ = ["Bf16"]


@dataclass(frozen=True)
class Bf16(LowPrecision):
    """bfloat16 operands, float32 sums and master weights; no loss scaling.

    Every ``X``, ``W`` and ``G`` is rounded to nearest, to 8 significant bits with
    float32's exponents, so gradients need no scale.

    Reference: Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019.

    Deviations:
        - The paper rounds the tensors that pass between layers, too; here a tensor is
          rounded where a product reads it.
        - Subnormal values are kept, as torch's conversion does.

    Example:
        >>> print(Bf16().table[Product.FORWARD, "weight"])
        bf16
    """

    key = "bf16"
    bibtex = """
        @article{kalamkar2019study,
          title   = {A Study of {BFLOAT16} for Deep Learning Training},
          author  = {Kalamkar, Dhiraj and Mudigere, Dheevatsa and Mellempudi, Naveen and
                     Das, Dipankar and Banerjee, Kunal and Avancha, Sasikanth and others},
          journal = {arXiv preprint arXiv:1905.12322},
          year    = {2019}
        }
    """

    def cast(self, product: Product, operand: str) -> Cast:
        del product, operand
        return Cast("bf16", overflow="ieee")
