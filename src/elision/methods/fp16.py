"""float16 with a scaled loss."""

from dataclasses import dataclass
from typing import Literal

from elision.common.checks import number
from elision.layers.recipe import Table
from elision.methods.low_precision import LowPrecision
from elision.operands import Cast
from elision.products import Product

__all__ = ["Fp16"]


@dataclass(frozen=True)
class Fp16(LowPrecision):
    """IEEE float16 operands, float32 sums and master weights, and a scaled loss.

    Gradients below ``2^−24`` would be zero in float16, so the loss is multiplied by ``S``
    before the backward pass, every ``G`` with it, and the weights' gradients are divided
    by ``S`` before the step. A ``G`` beyond 65504 becomes infinite, which the scaler
    sees: it skips the step and halves ``S``; after 2000 good steps it doubles it.

    ``elision train`` and ``elision study`` scale by themselves. In a loop of your own::

        scaler = torch.amp.GradScaler("cpu")          # or the device's type
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    Reference: Micikevicius et al., Mixed Precision Training, ICLR 2018.

    Deviations:
        - The paper stores activations and their gradients in float16; here a tensor is
          rounded where a product reads it.

    Attributes:
        loss_scale: ``"dynamic"``, a fixed ``S``, or None for none.

    Example:
        >>> Fp16().loss_scaling, Fp16(1024).loss_scaling, Fp16(None).loss_scaling
        ('dynamic', 1024.0, None)
    """

    loss_scale: float | Literal["dynamic", "none"] | None = "dynamic"

    key = "fp16"
    bibtex = """
        @inproceedings{micikevicius2018mixed,
          title     = {Mixed Precision Training},
          author    = {Micikevicius, Paulius and Narang, Sharan and Alben, Jonah and
                       Diamos, Gregory and Elsen, Erich and Garcia, David and others},
          booktitle = {International Conference on Learning Representations},
          year      = {2018}
        }
    """

    @property
    def loss_scaling(self) -> float | Literal["dynamic"] | None:
        scale = self.loss_scale
        if scale is None or scale == "none":
            return None
        return "dynamic" if isinstance(scale, str) else float(scale)

    def build(self) -> Table:
        if self.loss_scale is None:  # a recipe's file has a word for it
            object.__setattr__(self, "loss_scale", "none")
        if self.loss_scale not in ("dynamic", "none"):
            try:
                number("Fp16", "loss_scale", self.loss_scale, "> 0")
            except ValueError as error:
                raise ValueError(f"{error}, 'dynamic' or none") from None
        return super().build()

    def cast(self, product: Product, operand: str) -> Cast:
        del product, operand
        return Cast("fp16", overflow="ieee")
