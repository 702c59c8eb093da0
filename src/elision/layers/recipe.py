"""A recipe: the table product x operand -> transform, for the layers of a model.

The table is the whole statement of an operand-level method. Each of the three products
reads two operands, so it has six cells; a cell that is not named keeps its operand.
"""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

from torch import nn

from elision.operands import KEEP, Transform
from elision.products import Product

__all__ = ["SELECTORS", "Recipe", "Table", "selects"]


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


#: Layer selectors that are not name patterns. ``:first`` and ``:last`` go by the order
#: in which the model registers its convolutions and linear layers.
SELECTORS = (":first", ":last", ":conv", ":linear", ":depthwise")


def selects(pattern: str, name: str, layer: nn.Module, names: list[str]) -> bool:
    """Whether a layer is meant by a pattern.

    Args:
        pattern: one of :data:`SELECTORS`, or a shell-style pattern of layer names.
        name: the layer's name in the model.
        layer: the layer.
        names: all layer names of the model, in order.

    Raises:
        ValueError: the pattern starts with ``:`` and is no selector.
    """
    if not pattern.startswith(":"):
        return fnmatchcase(name, pattern)
    if pattern not in SELECTORS:
        raise ValueError(
            f"unknown layer selector {pattern!r}; known: {', '.join(SELECTORS)}, "
            "or a pattern of layer names such as 'layer1.*'"
        )
    return {
        ":first": name == names[0],
        ":last": name == names[-1],
        ":conv": isinstance(layer, nn.Conv2d),
        ":linear": isinstance(layer, nn.Linear),
        ":depthwise": _is_depthwise(layer),
    }[pattern]


class Table:
    """Immutable table product x operand -> transform; cells not named are kept.

    Args:
        cells: for each product, the transforms of its operands by operand name.

    Raises:
        ValueError: a product does not read an operand of that name, or a cell holds
            something else than a transform.

    Example:
        >>> from elision.operands import TopK
        >>> top = TopK(0.9)
        >>> table = Table({Product.FORWARD: {"weight": top}})
    """

    def __init__(
        self, cells: Mapping[Product, Mapping[str, Transform]] | None = None
    ) -> None:
        self._cells: dict[tuple[Product, str], Transform] = {}
        for product, row in (cells or {}).items():
            for operand, transform in row.items():
                if operand not in product.operands:
                    raise ValueError(
                        f"{product.value} reads {' and '.join(product.operands)}, "
                        f"not {operand!r}"
                    )
                if not isinstance(transform, Transform):
                    raise ValueError(
                        f"{product.value}/{operand} must be a Transform, "
                        f"got {transform!r}"
                    )
                self._cells[product, operand] = transform

    def __getitem__(self, cell: tuple[Product, str]) -> Transform:
        return self._cells.get(cell, KEEP)

    def __iter__(self) -> Iterator[tuple[Product, str, Transform]]:
        """All six cells, product by product."""
        for product in Product:
            for operand in product.operands:
                yield product, operand, self[product, operand]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __bool__(self) -> bool:
        """Whether any cell does something."""
        return any(transform != KEEP for _, _, transform in self)

    def __repr__(self) -> str:
        return f"Table({list(self)!r})"

    def __str__(self) -> str:
        """The table as three aligned lines."""
        lines = [["product", "first operand", "second operand"]]
        for product in Product:
            cells = [f"{o}: {self[product, o]}" for o in product.operands]
            lines.append([product.value, *cells])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (
            "  ".join(w.ljust(n) for w, n in zip(line, widths, strict=True))
            for line in lines
        )
        return "\n".join(line.rstrip() for line in padded)


@dataclass(frozen=True)
class Recipe:
    """What is done to the operands of a model's products, layer by layer.

    Attributes:
        name: short name for tables and files.
        table: what is done in every layer that nothing below excepts.
        overrides: ``(pattern, table)`` pairs; the first that selects a layer replaces
            the table for it. Patterns are those of :func:`selects`.
        dense: patterns of the layers left dense; they win over the overrides.
    """

    name: str
    table: Table = field(default_factory=Table)
    _: KW_ONLY
    overrides: tuple[tuple[str, Table], ...] = ()
    dense: tuple[str, ...] = ()

    #: BibTeX of the publication; methods set it.
    bibtex: ClassVar[str] = ""

    def table_for(self, name: str, layer: nn.Module, names: list[str]) -> Table:
        """The table of one layer; an empty one if the layer is left dense.

        Args:
            name: the layer's name in the model.
            layer: the layer.
            names: all layer names of the model, in order.
        """
        if any(selects(p, name, layer, names) for p in self.dense):
            return Table()
        for pattern, table in self.overrides:
            if selects(pattern, name, layer, names):
                return table
        return self.table

    def resolved(self, layers: Mapping[str, nn.Module]) -> "Recipe":
        """This recipe for one model, where its tables depend on the layers' shapes.

        Args:
            layers: the layers that a recipe can reach, by name, in order.
        """
        del layers
        return self

    def prepare(self, model: nn.Module) -> None:
        """Give the state of a model that was just elided its first values."""

    def citation(self) -> str:
        """BibTeX of what this recipe implements; empty for one of your own."""
        return textwrap.dedent(self.bibtex).strip()

    def __str__(self) -> str:
        """The table, its overrides and the layers left dense."""
        parts = [self.name, str(self.table)]
        for pattern, table in self.overrides:
            parts.append(f"layers {pattern}:\n{table}")
        if self.dense:
            parts.append(f"left dense: {', '.join(self.dense)}")
        return "\n".join(parts)
