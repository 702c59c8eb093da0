"""Recipes one after the other: ``Swat(0.9) + Fp8()``."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal, Self

from torch import nn

from elision.layers.recipe import VERSION, Recipe, Table, check_version
from elision.operands import KEEP, TORCH, Accumulate, Chain, Transform
from elision.products import Product

__all__ = ["Composed", "chained"]


def chained(first: Table, second: Table) -> Table:
    """The table whose cells do what the first's do, then what the second's do.

    The sum of a product is the second's, if that says one.

    Example:
        >>> from elision.methods import Bf16, Swat
        >>> both = chained(Swat(0.9).table, Bf16().table)
        >>> print(both[Product.FORWARD, "weight"])
        top 0.1 by magnitude, then bf16
    """
    rows: dict[Product, dict[str, Transform | Accumulate]] = {p: {} for p in Product}
    for product, operand, transform in first:
        links = [
            link
            for each in (transform, second[product, operand])
            if each != KEEP
            for link in (each.links if isinstance(each, Chain) else (each,))
        ]
        if links:
            rows[product][operand] = (
                links[0] if len(links) == 1 else Chain(tuple(links))
            )
    for product in Product:
        sums = (second.accumulate(product), first.accumulate(product))
        own = next((cell for cell in sums if cell != TORCH), None)
        if own is not None:
            rows[product]["accumulate"] = own
    return Table(rows)


@dataclass(frozen=True)
class Composed(Recipe):
    """Several recipes as one: every operand goes through the first, then the second.

    Written ``first + second``, on the command line and in files as
    ``"swat:sparsity=0.9+fp8"``. Layers that one part leaves dense are left dense by this
    part alone. Of parts that move masks or learn beside the weights there may be one,
    likewise of parts that round updates or scale the loss.

    Attributes:
        parts: the recipes, in order.

    Raises:
        ValueError: two parts each bring a rule for the weights, round the updates, or
            scale the loss differently.

    Example:
        >>> from elision.methods import Fp8, Swat
        >>> recipe = Swat(0.9) + Fp8("tensor")
        >>> print(recipe.name, "|", recipe.table[Product.WEIGHT_GRAD, "input"])
        swat+fp8 | top 0.1 by magnitude, then fp8-e4m3 scaled
    """

    name: str = field(default="", init=False)
    table: Table = field(default_factory=Table, init=False, repr=False)
    overrides: tuple[tuple[str, Table], ...] = field(
        default=(), init=False, repr=False, kw_only=True
    )
    dense: tuple[str, ...] = field(default=(), init=False, repr=False, kw_only=True)
    products: tuple[str, ...] = field(default=(), init=False, repr=False, kw_only=True)
    parts: tuple[Recipe, ...] = ()

    def __post_init__(self) -> None:
        flat: list[Recipe] = []
        for part in self.parts:
            flat += part.parts if isinstance(part, Composed) else (part,)
        if len(flat) < 2:
            raise ValueError(
                f"a composed recipe has two parts or more, got {len(flat)}"
            )
        object.__setattr__(self, "parts", tuple(flat))
        object.__setattr__(self, "name", "+".join(part.name for part in flat))
        object.__setattr__(self, "table", reduce(chained, (p.table for p in flat)))
        products = dict.fromkeys(pattern for p in flat for pattern in p.products)
        object.__setattr__(self, "products", tuple(products))
        self._refuse()

    def _refuse(self) -> None:
        """Raise ValueError where two parts would do what one can."""
        twice = {
            "bring a rule for the weights": [
                p.name for p in self.parts if callable(getattr(p, "rule", None))
            ],
            "round the updates": [
                p.name for p in self.parts if getattr(p, "updates", None) is not None
            ],
            "scale the loss": [
                p.name for p in self.parts if p.loss_scaling is not None
            ],
        }
        for what, names in twice.items():
            if len(names) > 1:
                raise ValueError(
                    f"{self.name}: {' and '.join(names)} each {what}; one recipe has one "
                    "part that does"
                )

    def __add__(self, other: object) -> "Composed":
        if not isinstance(other, Recipe):
            return NotImplemented
        return Composed((self, other))

    def __radd__(self, other: object) -> "Composed":
        if not isinstance(other, Recipe):
            return NotImplemented
        return Composed((other, self))

    def table_for(self, name: str, layer: nn.Module, names: list[str]) -> Table:
        return reduce(chained, (p.table_for(name, layer, names) for p in self.parts))

    def table_of_call(self, name: str) -> Table:
        return reduce(chained, (p.table_of_call(name) for p in self.parts))

    @property
    def tables_of_calls(self) -> tuple[Table, ...]:
        """Those of all parts that reach a call."""
        return tuple(t for p in self.parts if p.products for t in p.tables_of_calls)

    @property
    def changes(self) -> bool:
        """Whether any part changes anything."""
        return any(part.changes for part in self.parts)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of all parts."""
        return tuple(pattern for part in self.parts for pattern in part.patterns)

    @property
    def loss_scaling(self) -> float | Literal["dynamic"] | None:
        """That of the part which scales the loss."""
        for part in self.parts:
            if part.loss_scaling is not None:
                return part.loss_scaling
        return None

    def resolved(self, layers: Mapping[str, nn.Module]) -> "Recipe":
        return replace(self, parts=tuple(p.resolved(layers) for p in self.parts))

    def prepare(self, model: nn.Module) -> None:
        for part in self.parts:
            part.prepare(model)

    def fitted(self, steps: int, given: Collection[str] = ()) -> Self:
        return replace(self, parts=tuple(p.fitted(steps, given) for p in self.parts))

    def citation(self) -> str:
        """BibTeX of every part."""
        found = dict.fromkeys(part.citation() for part in self.parts)
        return "\n\n".join(filter(None, found))

    def to_dict(self) -> dict[str, Any]:
        """The parts as plain values."""
        return {"version": VERSION, "parts": [part.to_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        check_version(values)
        if set(values) != {"version", "parts"}:
            raise ValueError(
                f"a composed recipe has a version and parts, got {', '.join(values)}"
            )
        (read,) = _readers
        return cls(tuple(read(part) for part in values["parts"]))

    def __str__(self) -> str:
        """The table, and the layers that each part leaves dense."""
        lines = [self.name, str(self.table)]
        for part in self.parts:
            if part.dense:
                lines.append(f"left dense by {part.name}: {', '.join(part.dense)}")
            lines += [f"{part.name}, layers {p}:\n{t}" for p, t in part.overrides]
        return "\n".join(lines)


#: What reads a part's plain values; the room's own file, which knows all names, gives it.
_readers: list[Callable[[Any], Recipe]] = []


def read_parts_with(reader: Callable[[Any], Recipe]) -> None:
    """Have :meth:`Composed.from_dict` read parts by ``reader``."""
    _readers[:] = [reader]
