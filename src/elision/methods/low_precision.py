"""The part that low-precision training methods share: a table of casts, and updates."""

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass

from torch import nn

from elision.common.checks import integer
from elision.formats import Rounding
from elision.layers.recipe import Table
from elision.methods.base import Method
from elision.operands import Accumulate, Cast, Transform
from elision.products import Product
from elision.topology import UPDATES, RoundedUpdates, install

__all__ = ["LowPrecision"]


@dataclass(frozen=True)
class LowPrecision(Method):
    """Every operand of every product is rounded to a number format.

    With ``q`` the rounding of each cell::

        Y = q(X) · q(W)        dX = q(G) · q(W)ᵀ        dW = q(G) · q(X)

    Operands that equal casts read are rounded once. Weights stay float32 masters, of which
    each product reads a rounded copy, unless ``updates`` names a format. Biases, norms,
    activation functions, results of products and the optimiser's state stay float32, and
    the sum of a product is torch's unless ``accumulate`` names a format. All of it is
    emulated: the values are those of the format, and nothing gets faster; but for sums in
    ``"int32"``, which are computed with the CPU's integers.

    Attributes:
        accumulate: format of the sums of all three products; None: as torch sums.
        chunk: terms summed in that format before their sum is added to a wider one; 0: all.
        updates: format in which the weights are held after every step of the optimiser,
            instead of float32 masters (needs :func:`elision.topology.attach`).
        update_rounding: how they are rounded to it.
        seed: of stochastic rounding.
        dense: layers left in float32; none, unless a member says so.

    Example:
        >>> from elision.methods import Bf16
        >>> print(Bf16(accumulate="fp16", chunk=128).table.accumulate(Product.FORWARD))
        fp16 in chunks of 128
    """

    _: KW_ONLY
    accumulate: str | None = None
    chunk: int = 0
    updates: str | None = None
    update_rounding: Rounding = "stochastic"
    seed: int = 0

    @abstractmethod
    def cast(self, product: Product, operand: str) -> Cast:
        """The cast of a product's operand.

        Raises:
            ValueError: a parameter is out of its range.
        """

    def build(self) -> Table:
        integer(type(self).__name__, "seed", self.seed, ">= 0")
        if self.accumulate is None and self.chunk:
            raise ValueError(
                f"{type(self).__name__}(chunk={self.chunk}): name the format of the sums, "
                "accumulate='fp16'"
            )
        self.rounded_updates()
        rows: dict[Product, dict[str, Transform | Accumulate]] = {
            product: {
                operand: self.cast(product, operand) for operand in product.operands
            }
            for product in Product
        }
        if self.accumulate is not None:
            for row in rows.values():
                row["accumulate"] = Accumulate(self.accumulate, self.chunk)
        return Table(rows)

    def rounded_updates(self) -> RoundedUpdates | None:
        """The rule that rounds the weights after a step; None: they stay float32."""
        if self.updates is None:
            return None
        return RoundedUpdates(self.updates, self.update_rounding, self.seed)

    def prepare(self, model: nn.Module) -> None:
        super().prepare(model)
        rule = self.rounded_updates()
        if rule is not None:
            install(model, rule, self.name, self, UPDATES)
