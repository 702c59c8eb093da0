"""Microscaling: narrow elements in short blocks that share a scale."""

from dataclasses import dataclass

from elision.common.checks import one_of
from elision.formats import Rounding, Scaled, format_named
from elision.layers.recipe import Table
from elision.methods.low_precision import LowPrecision
from elision.operands import Cast
from elision.products import Product

__all__ = ["Mx", "summed_axis"]


def summed_axis(product: Product, operand: str) -> int:
    """The dimension of an operand along which a product sums.

    The same for a convolution and a linear layer: input channels forward, output
    channels in the input gradient, examples (rows) in the weight gradient.

    Example:
        >>> summed_axis(Product.INPUT_GRAD, "weight")
        0
    """
    return {
        (Product.FORWARD, "input"): 1,
        (Product.FORWARD, "weight"): 1,
        (Product.INPUT_GRAD, "grad_output"): 1,
        (Product.INPUT_GRAD, "weight"): 0,
        (Product.WEIGHT_GRAD, "grad_output"): 0,
        (Product.WEIGHT_GRAD, "input"): 0,
    }[product, operand]


@dataclass(frozen=True)
class Mx(LowPrecision):
    """Operands in a block format, blocks along the dimension that the product sums over.

    The scale of a block leaves the sum only where all its terms share it, so each
    operand is rounded for each product by itself, from the float32 values::

        Y  = q(X; C) · q(W; C)       dX = q(G; K) · q(W; K)ᵀ       dW = q(G; N) · q(X; N)

    ``C`` input channels, ``K`` output channels, ``N`` examples or rows. A last block that
    is shorter has a scale of its own. The taps of a convolution are no part of a block.

    Reference: Rouhani et al., Microscaling Data Formats for Deep Learning, 2023; the Open
    Compute Project's MX specification v1.0. That elements are rounded from the wide values
    for each product: Transformer Engine's ``MXFP8BlockScaling``. Stochastic rounding of
    4-bit gradients: Tseng, Yu and Park, Training LLMs with MXFP4, 2025.

    Deviations:
        - The random Hadamard transform, the two-dimensional weight blocks and the layers
          kept wider that recipes for 4 bits add are not there; ``dense`` names layers.

    Attributes:
        format: a format with blocks, ``mxfp8``, ``mxfp6``, ``mxfp4``, ``mxint8``,
            ``nvfp4`` or any other of :data:`elision.formats.FORMATS`.
        gradients: format of ``G``; None: the same. ``mxfp8-e5m2`` has a wider range.
        gradient_rounding: rounding of ``G``.

    Example:
        >>> print(Mx("mxfp8").table[Product.INPUT_GRAD, "weight"])
        mxfp8 along axis 0
    """

    format: str = "mxfp8"
    gradients: str | None = None
    gradient_rounding: Rounding = "nearest"

    key = "mx"
    bibtex = """
        @article{rouhani2023microscaling,
          title   = {Microscaling Data Formats for Deep Learning},
          author  = {Rouhani, Bita Darvish and Zhao, Ritchie and More, Ankit and Hall,
                     Mathew and Khodamoradi, Alireza and Deng, Summer and others},
          journal = {arXiv preprint arXiv:2310.10537},
          year    = {2023}
        }
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", self.format.partition(":")[0])

    def build(self) -> Table:
        for format in filter(None, (self.format, self.gradients)):
            made = format_named(format)
            over = made.grouping.over if isinstance(made, Scaled) else "no"
            if over != "block":
                raise ValueError(
                    f"Mx({format!r}): the format shares no scale in blocks; give mxfp8, "
                    "mxfp6, mxfp4, mxint8 or nvfp4"
                )
        one_of(
            "Mx",
            "gradient_rounding",
            self.gradient_rounding,
            ("nearest", "zero", "stochastic"),
        )
        return super().build()

    def cast(self, product: Product, operand: str) -> Cast:
        axis = summed_axis(product, operand)
        if operand != "grad_output":
            return Cast(self.format, axis=axis)
        return Cast(
            self.gradients or self.format,
            axis=axis,
            rounding=self.gradient_rounding,
            seed=self.seed,
        )
