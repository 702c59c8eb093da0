"""The table product x operand -> transform, with the accumulation of every product."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from elision.common.names import lookup
from elision.operands import KEEP, TORCH, TRANSFORMS, Accumulate, Transform
from elision.operands.plain import from_plain, to_plain
from elision.products import Product

__all__ = ["Table"]

#: Name of a row's third cell.
_ACCUMULATE = "accumulate"


class Table:
    """Immutable table product x operand -> transform; cells not named are kept.

    Args:
        cells: for each product, the transforms of its operands by operand name, and
            its accumulation by the name ``"accumulate"``.

    Raises:
        ValueError: a product does not read an operand of that name, or a cell holds
            something else than a transform (an :class:`~elision.operands.Accumulate`
            in the third).

    Example:
        >>> from elision.operands import TopK
        >>> top = TopK(0.9)
        >>> table = Table({Product.FORWARD: {"weight": top}})
        >>> print(table[Product.FORWARD, "weight"])
        top 0.1 by magnitude
        >>> print(table.accumulate(Product.FORWARD))
        torch's own
    """

    def __init__(
        self,
        cells: Mapping[Product, Mapping[str, Transform | Accumulate]] | None = None,
    ) -> None:
        self._cells: dict[tuple[Product, str], Transform] = {}
        self._accumulate: dict[Product, Accumulate] = {}
        for product, row in (cells or {}).items():
            for operand, transform in row.items():
                if operand == _ACCUMULATE:
                    if not isinstance(transform, Accumulate):
                        raise ValueError(
                            f"{product.value}/accumulate must be an Accumulate, "
                            f"got {transform!r}"
                        )
                    self._accumulate[product] = transform
                    continue
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

    def accumulate(self, product: Product) -> Accumulate:
        """The accumulation of a product and the format of its result."""
        return self._accumulate.get(product, TORCH)

    def to_dict(self) -> dict[str, Any]:
        """The cells that are named, as plain values: ``{product: {operand: cell}}``.

        Raises:
            ValueError: a transform of a class that is not in
                :data:`elision.operands.TRANSFORMS`.
        """
        rows: dict[str, dict[str, Any]] = {}
        for product, operand, transform in self:
            if transform != KEEP:
                row = rows.setdefault(product.value, {})
                row[operand] = to_plain(transform, TRANSFORMS)
        for product in Product:
            if self.accumulate(product) != TORCH:
                row = rows.setdefault(product.value, {})
                row[_ACCUMULATE] = _to_plain(self.accumulate(product))
        return rows

    @classmethod
    def from_dict(cls, rows: Mapping[str, Any]) -> "Table":
        """The table that :meth:`to_dict` wrote.

        Raises:
            ValueError: an unknown product, operand, transform or parameter.
        """
        products = {product.value: product for product in Product}
        cells: dict[Product, dict[str, Transform | Accumulate]] = {}
        for name, row in rows.items():
            product = lookup("product", name, products)
            if not isinstance(row, Mapping):
                raise ValueError(f"{name}: must be a table of operands, got {row!r}")
            cells[product] = {
                operand: _accumulate(cell)
                if operand == _ACCUMULATE
                else from_plain(cell, TRANSFORMS)
                for operand, cell in row.items()
            }
        return cls(cells)

    def __iter__(self) -> Iterator[tuple[Product, str, Transform]]:
        """The six transforms, product by product."""
        for product in Product:
            for operand in product.operands:
                yield product, operand, self[product, operand]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash(self._state())

    def __bool__(self) -> bool:
        """True if any cell changes something."""
        return any(t != KEEP for _, _, t in self) or self._accumulates()

    def _accumulates(self) -> bool:
        return any(self.accumulate(product) != TORCH for product in Product)

    def _state(self) -> tuple[Any, ...]:
        return tuple(self), tuple(self.accumulate(product) for product in Product)

    def __repr__(self) -> str:
        own = f", {self._state()[1]!r}" if self._accumulates() else ""
        return f"Table({list(self)!r}{own})"

    def __str__(self) -> str:
        """The table as three aligned lines; accumulation where it is not torch's own."""
        lines = [["product", "first operand", "second operand"]]
        for product in Product:
            cells = [f"{o}: {self[product, o]}" for o in product.operands]
            lines.append([product.value, *cells])
        if self._accumulates():
            column = ["accumulate", *(str(self.accumulate(p)) for p in Product)]
            lines = [[*line, cell] for line, cell in zip(lines, column, strict=True)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (
            "  ".join(w.ljust(n) for w, n in zip(line, widths, strict=True))
            for line in lines
        )
        return "\n".join(line.rstrip() for line in padded)


def _to_plain(cell: Accumulate) -> dict[str, Any]:
    """The fields of a cell that differ from the default, and its format."""
    fields = dataclasses.asdict(cell).items()
    usual = dataclasses.asdict(TORCH)
    return {n: v for n, v in fields if n == "format" or v != usual[n]}


def _accumulate(cell: Any) -> Accumulate:
    if not isinstance(cell, Mapping):
        raise ValueError(f"accumulate: must be a table of parameters, got {cell!r}")
    known = {f.name: f for f in dataclasses.fields(Accumulate)}
    for parameter in cell:
        lookup("parameter of accumulate", parameter, known)
    return Accumulate(**cell)
