"""A layer's table as *uses*: which transform is applied once, and for which products.

Two cells that hold equal transforms of the same operand are one use, whose transform is
applied once and whose result both products read.
"""

from collections.abc import Callable
from typing import Any

from elision.layers.recipe import Table
from elision.operands import Transform
from elision.products import Product

__all__ = ["LayerPlan"]


class LayerPlan:
    """What one layer does to its operands: the table, as uses with their state names.

    Attributes:
        recipe: name of the recipe.
        table: the layer's table.
        uses: name of each use -> its transform.
    """

    def __init__(self, recipe: str, table: Table) -> None:
        self.recipe = recipe
        self.table = table
        self.uses: dict[str, Transform] = {}
        self._use_of: dict[tuple[Product, str], str] = {}
        named: dict[tuple[str, Transform], str] = {}
        for product, operand, transform in table:
            name = named.setdefault(
                (operand, transform), f"{operand}_for_{product.value}"
            )
            self.uses[name] = transform
            self._use_of[product, operand] = name
        self.in_graph = {product: self._hints(product) for product in Product}

    def _hints(self, product: Product) -> tuple[str | None, str | None] | None:
        """What an engine may make use of that has not seen a value.

        The operand that is set to zero in places, and the use that says where a weight
        gradient is wanted; None: nothing.
        """
        learns = self.use(Product.FORWARD, "weight")
        masked = product is Product.WEIGHT_GRAD and _has_own(
            self.uses[learns], Transform.wanted_gradient
        )
        read = {o: self.transform(product, o) for o in product.operands}
        if any(_has_own(t, Transform.reused) for t in read.values()):
            return None
        sparse = next((o for o, t in read.items() if t.sparsifies), None)
        if sparse is None and not masked:
            return None
        return sparse, learns if masked else None

    def use(self, product: Product, operand: str) -> str:
        """Name of the use that a product reads."""
        return self._use_of[product, operand]

    def transform(self, product: Product, operand: str) -> Transform:
        """What a product's operand goes through."""
        return self.uses[self.use(product, operand)]

    def operand_of(self, use: str) -> str:
        """Name of the operand that a use transforms."""
        return use.partition("_for_")[0]


def _has_own(transform: Transform, method: Callable[..., Any]) -> bool:
    """Whether a transform does something of its own in a method of its base."""
    return getattr(type(transform), method.__name__) is not method
