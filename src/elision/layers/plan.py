"""A layer's table as *uses*: one transform each, applied once, for one or two products.

Two cells that hold equal transforms of the same operand are one use: both products read
its result.
"""

from elision.layers.recipe import Table
from elision.operands import KEEP, TORCH, Accumulate, Transform
from elision.products import Arithmetic, Product

__all__ = ["ACCUMULATE", "LayerPlan", "buffer_name"]

#: Name under which the accumulators keep their state, beside the uses.
ACCUMULATE = "accumulate"


class LayerPlan:
    """The table of one layer, as uses with their state names.

    Attributes:
        recipe: name of the recipe.
        table: the layer's table.
        uses: name of each use -> its transform.
        buffers: name of each use -> name of each of its states -> name of its buffer.
        changes: whether anything is changed.
        leaves_out: whether a product may leave work out, so that another form of the
            layer than product by product can be the faster one.
        written: the uses whose state a forward pass in training writes.
        ahead: name of an operand -> its use, of those whose transform has a gradient of
            its own and is applied in front of the products.
        accumulates: whether a product sums in another way than torch's.
        is_random: whether sums depend on the training step, whose number is then the
            state ``step`` of :data:`ACCUMULATE`.

    Example:
        >>> from elision.methods import Swat
        >>> plan = LayerPlan("swat", Swat(0.9).table)
        >>> plan.use(Product.INPUT_GRAD, "weight")
        'weight_for_forward'
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
        self.changes = bool(table)
        self.leaves_out = any(
            t.sparsifies or t.reuses or t.limits_gradient for t in self.uses.values()
        )
        self.buffers = {
            use: {state: buffer_name(use, state) for state in transform.state_names}
            for use, transform in self.uses.items()
        }
        self.written = tuple(
            use
            for use, transform in self.uses.items()
            if self.operand_of(use) != "grad_output"
            and transform.state_names
            and transform.writes_state
        )
        self.ahead = self._ahead()
        sums = [table.accumulate(product) for product in Product]
        self.accumulates = any(cell != TORCH for cell in sums)
        self.is_random = any(cell.is_random for cell in sums)
        if self.is_random:
            self.buffers[ACCUMULATE] = {"step": buffer_name(ACCUMULATE, "step")}
            self.written += (ACCUMULATE,)
        self.in_graph = {product: self._hints(product) for product in Product}

    def _ahead(self) -> dict[str, str]:
        """The uses that autograd sees.

        Raises:
            ValueError: one of a gradient, or of an operand that the other product reads
                through another transform.
        """
        found: dict[str, str] = {}
        for product, operand, transform in self.table:
            if not transform.own_gradient:
                continue
            uses = {self.use(p, operand) for p in Product if operand in p.operands}
            if operand == "grad_output":
                raise ValueError(
                    f"{product.value}/{operand}: '{transform}' has a gradient of its own, "
                    "so its operand is an input or a weight"
                )
            if len(uses) > 1:
                other = next(
                    p for p in Product if operand in p.operands and p is not product
                )
                raise ValueError(
                    f"{product.value}/{operand}: '{transform}' has a gradient of its own, "
                    f"so both products read it, and {other.value} reads "
                    f"'{self.transform(other, operand)}'"
                )
            found[operand] = uses.pop()
        return found

    def _hints(self, product: Product) -> tuple[str | None, str | None] | None:
        """Hints for an engine that are known before any value is.

        Name of the operand that holds zeros, and the use that names the wanted part of
        the weight gradient; None: there is nothing to leave out.
        """
        learns = self.use(Product.FORWARD, "weight")
        masked = product is Product.WEIGHT_GRAD and self.uses[learns].limits_gradient
        read = {o: self.transform(product, o) for o in product.operands}
        if any(t.reuses for t in read.values()):
            return None
        sparse = next((o for o, t in read.items() if t.sparsifies), None)
        if sparse is None and not masked:
            return None
        return sparse, learns if masked else None

    def use(self, product: Product, operand: str) -> str:
        """Name of the use that a product reads."""
        return self._use_of[product, operand]

    def transform(self, product: Product, operand: str) -> Transform:
        """The transform of a product's operand."""
        return self.uses[self.use(product, operand)]

    def accumulate(self, product: Product) -> Accumulate:
        """How a product sums."""
        return self.table.accumulate(product)

    def arithmetic(self, product: Product) -> Arithmetic:
        """Number formats of a product: of its operands, its sums and its result."""
        first, second = (
            self.transform(product, o).number_format for o in product.operands
        )
        sums = self.table.accumulate(product)
        return Arithmetic(
            first,
            second,
            "fp32" if sums.format == "torch" else sums.format,
            "fp32" if sums.result == "torch" else sums.result,
        )

    @property
    def changes_weight(self) -> bool:
        """Whether any product reads something else than the weight itself."""
        return any(
            operand == "weight" and transform != KEEP
            for _, operand, transform in self.table
        )

    def operand_of(self, use: str) -> str:
        """Name of the operand that a use transforms."""
        return use.partition("_for_")[0]


def buffer_name(use: str, state: str) -> str:
    """Name of the buffer that holds a state tensor of a use."""
    return f"elision_{use}_{state}"
