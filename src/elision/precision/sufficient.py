"""The format that suffices for each operand of each product of a recorded training run."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elision.common.checks import number
from elision.precision.arithmetic import bits_of, rounding
from elision.precision.noise import in_float64, product_noise
from elision.products import LayerProduct, Product, Trace

__all__ = ["CANDIDATES", "COLUMNS", "OperandError", "Sufficiency", "sufficient"]

#: Formats that are tried, the first that suffices wins.
CANDIDATES = (
    *("mxfp4", "int4", "fp6-e3m2", "int6", "mxfp8", "fp8-e4m3", "fp8-e5m2", "int8"),
    *("bf16", "fp16", "dfp16", "tf32", "fp32"),
)

#: Relative error of a product that is allowed (own choice: what rounding one operand to FP8
#: E4M3 with a scale comes to is half of it, and E5M2, of gradients, just meets it).
THRESHOLD = 0.06

#: The six operands that the products read, in order.
COLUMNS = tuple(
    (product, operand) for product in Product for operand in product.operands
)


@dataclass(frozen=True)
class OperandError:
    """One operand of one product in one format, the other exact.

    Attributes:
        layer: name of the layer.
        product: value of the :class:`~elision.products.Product`.
        operand: that is rounded.
        format: of it.
        bits: of an element.
        error: relative error of the product against float64, of the worst recorded step;
            infinite where a value is not finite.
    """

    layer: str
    product: str
    operand: str
    format: str
    bits: int
    error: float


@dataclass(frozen=True)
class Sufficiency:
    """What :func:`sufficient` found; prints as a table of layers and operands.

    Attributes:
        errors: of every layer, product, operand and format.
        threshold: relative error allowed.

    Example:
        >>> from elision.products import MatmulGeometry, synthetic_products
        >>> layers = [("fc", MatmulGeometry(8, 64, 16))]
        >>> trace = Trace.of(synthetic_products(layers, 0.5))
        >>> found = sufficient(trace, ("fp8-e4m3", "bf16"), threshold=0.06)
        >>> found.smallest("fc", "forward", "weight")
        'fp8-e4m3'
    """

    errors: tuple[OperandError, ...]
    threshold: float

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the order they were recorded."""
        return list(dict.fromkeys(e.layer for e in self.errors))

    def smallest(self, layer: str, product: str, operand: str) -> str:
        """The first format whose error is allowed; empty: none is, or no such product."""
        place = (layer, product, operand)
        for e in self.errors:
            if (e.layer, e.product, e.operand) == place and e.error <= self.threshold:
                return e.format
        return ""

    def recorded(self, layer: str, product: str, operand: str) -> bool:
        """Whether the trace holds the product."""
        place = (layer, product, operand)
        return any((e.layer, e.product, e.operand) == place for e in self.errors)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each layer: the format of each operand of each product."""
        return [
            {
                "layer": layer,
                **{
                    f"{p.value} {operand}": self._cell(layer, p.value, operand)
                    for p, operand in COLUMNS
                },
            }
            for layer in self.layers
        ]

    def _cell(self, layer: str, product: str, operand: str) -> str:
        if not self.recorded(layer, product, operand):
            return ""
        return self.smallest(layer, product, operand) or "none"

    def to_dict(self) -> dict[str, Any]:
        """Errors, the smallest formats and the threshold as plain values."""
        return {
            "threshold": self.threshold,
            "smallest": self.rows(),
            "errors": [asdict(e) for e in self.errors],
        }

    def __str__(self) -> str:
        rows = self.rows()
        if not rows:
            return "no product was recorded"
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                word.ljust(n) for word, n in zip(line, widths, strict=True)
            ).rstrip()
            for line in lines
        )


def sufficient(
    trace: Trace | Iterable[LayerProduct],
    formats: Sequence[str] = CANDIDATES,
    threshold: float = THRESHOLD,
) -> Sufficiency:
    """Round each operand of each recorded product to each format, the other one exact.

    Errors are those of the product, relative, in Frobenius' norm, against float64; blocks
    run along the dimension that the product sums over. Of several recorded steps the worst
    counts.

    Args:
        trace: recorded products with their operands.
        formats: in the order in which they are preferred; see
            :func:`elision.precision.rounding`.
        threshold: relative error of a product that is allowed.

    Raises:
        ValueError: an unknown format or none, a threshold that is not positive, or a
            product without its operands.
    """
    number("sufficient", "threshold", threshold, "> 0")
    if not formats:
        raise ValueError("sufficient(formats=()): give at least one number format")
    worst: dict[tuple[str, Product, str, str], float] = {}
    for product in trace:
        if product.first is None:
            raise ValueError(f"sufficient: {product!r} holds no operands to round")
        exact = in_float64(product).compute()
        for operand in product.kind.operands:
            for format in formats:
                how = rounding(format, operand, product.kind)
                error = product_noise(product, {operand: how}, exact)
                place = (product.name, product.kind, operand, format)
                if math.isnan(error):  # an operand that is not finite suffices nowhere
                    error = math.inf
                worst[place] = max(worst.get(place, 0.0), error)
    found = tuple(
        OperandError(layer, kind.value, operand, format, bits_of(format), error)
        for (layer, kind, operand, format), error in worst.items()
    )
    return Sufficiency(found, threshold)
