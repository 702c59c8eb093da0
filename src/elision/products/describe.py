"""Products as rows: densities, non-zero and redundant products of each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elision.products.arithmetic import FP32, Arithmetic
from elision.products.layer_product import LayerProduct

__all__ = ["ProductRow", "count", "describe"]


@dataclass(frozen=True)
class ProductRow:
    """Sizes, densities and numbers of products of one recorded product.

    Attributes:
        layer: name of the layer in its model.
        product: value of the :class:`~elision.products.Product`.
        step: training step.
        dense_macs: multiply-accumulates when nothing is left out.
        nonzero: pairs of non-zeros of planes that meet.
        valid: those pairs that belong to an output.
        densities: fraction of non-zeros by operand.
        sizes: number of values by operand.
        arithmetic: number formats of operands, sums and result.

    Example:
        >>> from elision.products import MatmulGeometry, synthetic_products
        >>> rows = count(synthetic_products([("fc", MatmulGeometry(2, 4, 2))], 0.5))
        >>> next(rows).densities
        {'input': 0.5, 'weight': 0.5}
    """

    layer: str
    product: str
    step: int
    dense_macs: int
    nonzero: int
    valid: int
    densities: Mapping[str, float]
    sizes: Mapping[str, int]
    arithmetic: Arithmetic = FP32

    @property
    def redundant(self) -> int:
        """Redundant Cartesian products among the non-zero ones."""
        return self.nonzero - self.valid


def count(products: Iterable[LayerProduct]) -> Iterator[ProductRow]:
    """Rows of recorded products, counted one by one.

    Raises:
        ValueError: a product has no operands, or one holds a NaN or an infinity.
    """
    for product in products:
        counts = product.counts
        yield ProductRow(
            product.name,
            product.kind.value,
            product.step,
            product.dense_macs,
            counts.nonzero,
            counts.valid,
            product.densities,
            {name: int(mask.size) for name, mask in _named(product)},
            product.arithmetic,
        )


def _named(product: LayerProduct) -> Iterator[tuple[str, Any]]:
    yield from zip(product.kind.operands, product.masks, strict=True)


def describe(products: Iterable[LayerProduct]) -> list[dict[str, str]]:
    """Recorded products as a table, values as text: densities and RCPs of each.

    Number formats have a column where any product's are not all float32.
    """
    rows = list(count(products))
    narrow = any(row.arithmetic != FP32 for row in rows)
    return [
        {
            "step": str(row.step),
            "layer": row.layer,
            "product": row.product,
            "dense MACs": f"{row.dense_macs:,}",
            "densities": ", ".join(
                f"{operand} {100 * density:.1f} %"
                for operand, density in row.densities.items()
            ),
            "non-zero products": f"{row.nonzero:,}",
            "RCPs": f"{100 * row.redundant / row.nonzero:.1f} %" if row.nonzero else "",
            **({"formats": str(row.arithmetic)} if narrow else {}),
        }
        for row in rows
    ]
