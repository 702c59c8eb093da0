"""Dynamic fixed point: integers that share the exponent of their tensor."""

from dataclasses import dataclass

from elision.common.checks import one_of
from elision.layers.recipe import Table
from elision.methods.low_precision import LowPrecision
from elision.operands import Cast
from elision.products import Product

__all__ = ["Dfp16"]


@dataclass(frozen=True)
class Dfp16(LowPrecision):
    """DFP-16 operands: 16-bit integers with one exponent per tensor.

    With ``E`` the exponent of ``max|f|`` over the tensor and ``P`` bits::

        e = E − (P − 2)        i = clamp(round(f·2^−e), −2^(P−1), 2^(P−1) − 1)

    ``X``, ``W`` and ``G`` are rounded so in all three products; a product of two has the
    exponent ``e_a + e_b``. Batch norm and everything else between the products stays
    float32, weights are float32 masters, and training has no new hyper-parameter.

    Reference: Das et al., Mixed Precision Training of Convolutional Neural Networks using
    Integer Operations, ICLR 2018.

    Deviations:
        - Products are summed in float32, of exact products of the rounded operands; the
          paper sums chains of them in int32, as ``accumulate="int32"`` does where it is
          computed.
        - Every convolution and linear layer is reached.

    Attributes:
        bits: ``P``: 16 (published), 12 or 8.

    Example:
        >>> print(Dfp16().table[Product.FORWARD, "input"], "|", Dfp16(8).name)
        dfp16 | dfp8
    """

    bits: int = 16

    key = "dfp16"
    bibtex = """
        @inproceedings{das2018mixed,
          title     = {Mixed Precision Training of Convolutional Neural Networks using
                       Integer Operations},
          author    = {Das, Dipankar and Mellempudi, Naveen and Mudigere, Dheevatsa and
                       Kalamkar, Dhiraj and Avancha, Sasikanth and Banerjee, Kunal and
                       others},
          booktitle = {International Conference on Learning Representations},
          year      = {2018}
        }
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", f"dfp{self.bits}")

    def build(self) -> Table:
        one_of("Dfp16", "bits", self.bits, (16, 12, 8))
        return super().build()

    def cast(self, product: Product, operand: str) -> Cast:
        del product, operand
        return Cast(f"dfp{self.bits}")
