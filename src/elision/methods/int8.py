"""8-bit integers in all three products."""

from dataclasses import dataclass
from typing import Literal

from elision.common.checks import integer, one_of
from elision.formats import Rounding
from elision.layers.recipe import Table
from elision.methods.low_precision import LowPrecision
from elision.operands import Cast
from elision.products import Product

__all__ = ["Int8"]


@dataclass(frozen=True)
class Int8(LowPrecision):
    """Symmetric integers; a scale per tensor, or per channel for the weights.

    With ``F = 2^(bits − 1) − 1`` the largest code and ``s = max|x|/F``, an operand reads
    ``s·clamp(round(x/s), −F, F)``. ``X`` and ``G`` have one scale, ``W`` one for each
    channel that the sum does not run over, so that it leaves the sum: output channels
    forward, input channels in the input gradient. ``G`` is rounded stochastically, so that
    its expected value stays; ``X`` and ``W`` to nearest.

    Reference: Banner, Hubara, Hoffer and Soudry, Scalable Methods for 8-bit Training of
    Neural Networks, NeurIPS 2018.

    Deviations:
        - The paper keeps a wider copy of ``G`` for the weight gradient and replaces batch
          norm by range batch norm; here all operands have ``bits``, and norms stay.
        - Scales per channel of the weights, and all layers, are this library's choice.

    Attributes:
        bits: of every operand, 2 to 16.
        weights: ``"channel"`` or ``"tensor"``; ``accumulate="int32"`` needs the latter.
        gradient_rounding: rounding of ``G``.

    Example:
        >>> print(Int8().table[Product.INPUT_GRAD, "grad_output"])
        int8, stochastic
    """

    bits: int = 8
    weights: Literal["channel", "tensor"] = "channel"
    gradient_rounding: Rounding = "stochastic"

    key = "int8"
    bibtex = """
        @inproceedings{banner2018scalable,
          title     = {Scalable Methods for 8-bit Training of Neural Networks},
          author    = {Banner, Ron and Hubara, Itay and Hoffer, Elad and Soudry, Daniel},
          booktitle = {Advances in Neural Information Processing Systems},
          year      = {2018}
        }
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", f"int{self.bits}")

    def build(self) -> Table:
        integer("Int8", "bits", self.bits, "[2, 16]")
        one_of("Int8", "weights", self.weights, ("channel", "tensor"))
        roundings = ("nearest", "zero", "stochastic")
        one_of("Int8", "gradient_rounding", self.gradient_rounding, roundings)
        if self.accumulate == "int32" and self.weights != "tensor":
            raise ValueError(
                f"Int8(accumulate='int32', weights={self.weights!r}): a sum of integers "
                "has one scale for each operand; give weights='tensor'"
            )
        return super().build()

    def cast(self, product: Product, operand: str) -> Cast:
        format = f"int{self.bits}"
        if operand == "grad_output":
            return Cast(format, rounding=self.gradient_rounding, seed=self.seed)
        if operand == "input" or self.weights == "tensor":
            return Cast(format)
        axis = 0 if product is Product.FORWARD else 1
        return Cast(f"{format}:over=channel", axis=axis)
