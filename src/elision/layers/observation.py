"""One product as a layer computed it, as recorders and meters see it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from elision.products import LayerProduct

__all__ = ["Observation", "Observer"]


@dataclass(frozen=True)
class Observation:
    """One product as it was computed, for those who watch (recorders and meters).

    Attributes:
        product: the product with the operands it read (tensors, not copied).
        work: per operand name, the fraction of the multiplications that its transform
            left to do (see :meth:`elision.operands.Transform.work`); for a weight
            gradient also ``"result"``, the fraction of its values that is asked for.
        uses: per operand name, a name shared by those products of a call that read the
            same tensor.
        shared: what all examples of the first operand have in common, of its shape with
            one example, where its transform knows it; None otherwise.
        recipe: name of the recipe.
        call: token of the pass through the layer, the same for its three products.
    """

    product: LayerProduct
    work: dict[str, float]
    uses: dict[str, str]
    shared: Tensor | None
    recipe: str
    call: object


Observer = Callable[[Observation], None]
