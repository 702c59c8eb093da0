"""Columns of a run folder's CSV files: name, type, unit and meaning, from the row classes."""

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from elision.accelerators import Cost
from elision.accelerators.design.interleave_or_skip import SkipRow
from elision.accelerators.simulate import CostRow
from elision.accelerators.step import GRADIENT_PAIR
from elision.common.names import lookup
from elision.products import OPERANDS, ProductRow
from elision.study.schemas.described import meanings
from elision.training.checkpoint import EpochMetrics

__all__ = ["TABLES", "CsvColumn", "columns_of"]


@dataclass(frozen=True)
class CsvColumn:
    """One column of a CSV file.

    Attributes:
        name: in the head.
        dtype: ``text``, ``integer`` or ``number``.
        unit: of a number; empty for a share, a ratio or a count.
        meaning: in words.
        optional: whether a cell may be empty, or the column absent.

    Example:
        >>> CsvColumn("cycles", "integer", "cycles", "Clock cycles.").optional
        False
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    optional: bool = False


#: Units by the end of a name.
_UNITS = {
    "cycles": "cycles",
    "_pj": "pJ",
    "_macs": "multiply-accumulates",
}

_RECIPE = CsvColumn("recipe", "text", "", "as given to the study.")
_LAYER = CsvColumn("layer", "text", "", "name of the layer in its model.")
_PRODUCT = CsvColumn("product", "text", "", "forward, input_grad or weight_grad.")
_PRODUCT_OR_PAIR = CsvColumn(
    "product",
    "text",
    "",
    f"forward, input_grad, weight_grad, or {GRADIENT_PAIR} where both are interleaved.",
)


def _density(of: str) -> tuple[CsvColumn, ...]:
    """A column an operand; a product has two of them."""
    return tuple(
        CsvColumn(
            f"{o}_density", "number", "", f"share of {o} that is not zero{of}.", True
        )
        for o in OPERANDS
    )


def _fields(
    kind: type, names: Mapping[str, str] | None = None
) -> tuple[CsvColumn, ...]:
    """Columns of a class's attributes and properties.

    Args:
        kind: dataclass.
        names: attributes to take, and the columns' names; None: all that are documented.
    """
    means = meanings(kind)
    hints = get_type_hints(kind)
    return tuple(
        _column(column, _type_of(kind, hints, attribute), means[attribute])
        for attribute, column in (names or {n: n for n in means}).items()
    )


def _type_of(kind: type, hints: Mapping[str, Any], name: str) -> Any:
    """Type of an attribute, or of what a property gives."""
    if name in hints:
        return hints[name]
    return get_type_hints(getattr(kind, name).fget)["return"]


def _column(name: str, hint: Any, meaning: str) -> CsvColumn:
    several = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = {str: "text", int: "integer", float: "number"}
    (plain,) = (kinds[part] for part in several if part in kinds)
    unit = next((u for end, u in _UNITS.items() if name.endswith(end)), "")
    return CsvColumn(name, plain, unit, meaning, type(None) in several)


def columns_of(table: str, metric: str = "test_accuracy") -> tuple[CsvColumn, ...]:
    """Columns of a table.

    Args:
        table: file name without ``.csv``, or ``metrics`` of ``metrics.jsonl``.
        metric: name of the study's metric, which heads a column.

    Raises:
        ValueError: no such table is known.

    Example:
        >>> [column.name for column in columns_of("epochs", "perplexity")][-2:]
        ['perplexity', 'learning_rate']
    """
    return tuple(
        CsvColumn(metric, *rest) if name == "score" else column
        for column in lookup("table of a run", table, TABLES)
        for name, *rest in [tuple(vars(column).values())]
    )


_SEED = CsvColumn("seed", "integer", "", "of the run; where there are several.", True)
_EPOCHS = (_RECIPE, _SEED, *_fields(EpochMetrics))

#: Columns by table, the metric's under ``score``.
TABLES: dict[str, tuple[CsvColumn, ...]] = {
    "metrics": _EPOCHS,
    "epochs": _EPOCHS,
    "work": (
        _RECIPE,
        _LAYER,
        _PRODUCT,
        CsvColumn(
            "macs_ratio", "number", "", "work done over dense work, metered steps."
        ),
        *_density(" in the metered steps"),
    ),
    "products": (
        _RECIPE,
        _LAYER,
        _PRODUCT,
        *_fields(
            ProductRow, {n: n for n in ("step", "dense_macs", "nonzero", "valid")}
        ),
        *_density(" in the recorded step"),
    ),
    "costs": (
        _RECIPE,
        *_fields(CostRow, {"accelerator": "accelerator"}),
        _LAYER,
        _PRODUCT_OR_PAIR,
        *_fields(CostRow, {"step": "step"}),
        *_fields(
            Cost,
            {
                name: name
                for name in (
                    *("cycles", "multiplies", "valid_multiplies"),
                    *("redundant_multiplies", "utilisation", "energy_on_chip_pj"),
                    *("energy_dram_pj", "stall_cycles"),
                )
            },
        ),
    ),
    "machines": (_RECIPE, *_fields(SkipRow)),
}
