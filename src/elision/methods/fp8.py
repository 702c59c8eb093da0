"""8-bit floating point: E4M3 forward, E5M2 for gradients."""

from dataclasses import dataclass
from typing import Literal

from elision.common.checks import one_of
from elision.layers.recipe import Table
from elision.methods.low_precision import LowPrecision
from elision.operands import Cast
from elision.products import Product

__all__ = ["Fp8"]

_SCALES = ("delayed", "tensor", "power-of-two", "none")


@dataclass(frozen=True)
class Fp8(LowPrecision):
    """FP8 operands with a scale per tensor, wide sums, float32 master weights.

    ``X`` and ``W`` are rounded to E4M3 (largest value 448), ``G`` to E5M2 (57344)::

        Y = q4(X) · q4(W)        dX = q5(G) · q4(W)ᵀ        dW = q5(G) · q4(X)

    with ``q(x) = round(x·s)/s``, saturating. Each of the three tensors of a layer is
    rounded once and has a scale of its own. Delayed scaling takes ``s`` from the maxima of
    earlier steps, as hardware that writes FP8 directly must; see
    :class:`elision.operands.Cast`. Scales and histories are state of the layers.

    Reference: Micikevicius et al., FP8 Formats for Deep Learning, 2022; delayed scaling
    as in Transformer Engine's ``DelayedScaling``, whose defaults these are.

    Deviations:
        - Every convolution and linear layer is reached; the paper keeps some layers of
          some networks wider. ``dense=(":first", ":last")`` does.
        - Maxima are those of one process; the published code takes them over all.

    Attributes:
        scaling: ``"delayed"``, ``"tensor"`` (the maximum of the tensor itself, "current"
            scaling), ``"power-of-two"`` or ``"none"``.
        history: steps that delayed scaling looks back.
        amax: ``"max"`` of the history, or its ``"most-recent"`` value.
        margin: powers of two that delayed scaling leaves free.
        gradients: format of ``G``.

    Example:
        >>> print(Fp8("tensor").table[Product.INPUT_GRAD, "grad_output"])
        fp8-e5m2 scaled
    """

    scaling: Literal["delayed", "tensor", "power-of-two", "none"] = "delayed"
    history: int = 1024
    amax: Literal["max", "most-recent"] = "max"
    margin: int = 0
    gradients: Literal["fp8-e5m2", "fp8-e4m3"] = "fp8-e5m2"

    key = "fp8"
    bibtex = """
        @article{micikevicius2022fp8,
          title   = {{FP8} Formats for Deep Learning},
          author  = {Micikevicius, Paulius and Stosic, Dusan and Burgess, Neil and
                     Cornea, Marius and Dubey, Pradeep and Grisenthwaite, Richard and
                     others},
          journal = {arXiv preprint arXiv:2209.05433},
          year    = {2022}
        }
    """

    def build(self) -> Table:
        one_of("Fp8", "scaling", self.scaling, _SCALES)
        one_of("Fp8", "gradients", self.gradients, ("fp8-e5m2", "fp8-e4m3"))
        return super().build()

    def cast(self, product: Product, operand: str) -> Cast:
        del product
        format = self.gradients if operand == "grad_output" else "fp8-e4m3"
        if self.scaling != "delayed":
            return Cast(format, self.scaling)
        return Cast(
            format,
            "delayed",
            history=self.history,
            amax=self.amax,
            margin=self.margin,
        )
