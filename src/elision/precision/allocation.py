"""Bits for each operand of each layer under a budget, chosen exactly.

Each operand of each layer takes one of the formats that were measured. Noise of separate
roundings adds up in squares, so the sum of the squared relative errors of the scores is
minimised under a budget of mean bits: a knapsack with one choice of each class, solved as
an integer program by HiGHS (``scipy.optimize.milp``) without a gap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elision.common.checks import number, one_of
from elision.layers import Recipe, Table
from elision.operands import KEEP, Transform
from elision.precision.arithmetic import rounding
from elision.precision.sensitivity import Sensitivity, SensitivityRow
from elision.products import Product

__all__ = ["Allocation", "allocate", "uniform_recipe"]

#: Operands that a forward product reads, which a budget is for.
_READ = Product.FORWARD.operands

#: What is minimised.
_BY = ("scores", "loss", "output")


@dataclass(frozen=True)
class Allocation:
    """A format for each operand of each layer.

    Attributes:
        formats: (layer, operand) -> format.
        bits: mean bits of an element, by the weights of the budget.
        damage: predicted, the sum that was minimised.

    Example:
        >>> Allocation({("fc", "weight"): "4"}, 4.0, 0.01).recipe().overrides[0][0]
        'fc'
    """

    formats: Mapping[tuple[str, str], str]
    bits: float
    damage: float

    def recipe(self, name: str = "allocated") -> Recipe:
        """The recipe that :func:`elision.elide` takes: one table for each layer."""
        layers = dict.fromkeys(layer for layer, _ in self.formats)
        tables = {
            layer: {
                operand: rounding(self.formats[layer, operand], operand)
                for operand in _READ
                if (layer, operand) in self.formats
            }
            for layer in layers
        }
        return Recipe(
            name,
            overrides=tuple(
                (layer, Table({Product.FORWARD: cells}))
                for layer, cells in tables.items()
            ),
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each layer: the bits or format of each operand."""
        found: dict[str, dict[str, Any]] = {}
        for (layer, operand), format in self.formats.items():
            found.setdefault(layer, {"layer": layer})[operand] = format
        return list(found.values())


def allocate(
    measured: Sensitivity,
    budget: float,
    *,
    by: str = "scores",
    weights: Mapping[tuple[str, str], float] | None = None,
) -> Allocation:
    """The formats of least damage at a mean of ``budget`` bits.

    Args:
        measured: rows of ``"weight"``, ``"input"`` or both.
        budget: mean bits of an element over all operands that were measured.
        by: what is damaged: the ``"scores"`` (squared relative error), the ``"loss"`` (its
            measured increase, none below zero), or the layer's own ``"output"`` (squared).
        weights: (layer, operand) -> what a bit of it costs: bytes moved, energy of the
            multiplications; default: its number of elements.

    Raises:
        ValueError: no such rows, or a budget below the fewest bits that were measured.

    Example:
        >>> rows = [
        ...     SensitivityRow(n, "weight", f, int(f), 10, 0, e, 0, 0, 0, 0)
        ...     for n, errors in {"a": (0.1, 0.01), "b": (0.9, 0.09)}.items()
        ...     for f, e in zip(("4", "8"), errors)
        ... ]
        >>> allocate(Sensitivity(tuple(rows), 1.0), budget=6.0).formats
        {('a', 'weight'): '4', ('b', 'weight'): '8'}
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    one_of("allocate", "by", by, _BY)
    number("allocate", "budget", budget, "> 0")
    rows = [row for row in measured.rows if row.operand in _READ]
    if not rows:
        raise ValueError("allocate: nothing was measured of a weight or an input")
    places = list(dict.fromkeys((row.layer, row.operand) for row in rows))
    cost = np.array([_cost(row, weights) * row.bits for row in rows])
    whole = sum(
        _cost(next(r for r in rows if (r.layer, r.operand) == place), weights)
        for place in places
    )
    damage = np.array([_damage(row, by) for row in rows])
    member = np.array(
        [[(r.layer, r.operand) == place for r in rows] for place in places]
    )
    least = sum(cost[chosen].min() for chosen in member) / whole
    if least > budget * (1 + 1e-12):
        raise ValueError(
            f"allocate(budget={budget}): the fewest bits that were measured have a mean of "
            f"{least:.4g}"
        )
    scale = damage.max() or 1.0
    found = milp(
        damage / scale,
        integrality=np.ones(len(rows)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(member, 1, 1),
            LinearConstraint(cost / whole, -np.inf, budget * (1 + 1e-12)),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise RuntimeError(f"allocate: HiGHS found no solution ({found.message})")
    chosen = found.x > 0.5
    formats = {
        (row.layer, row.operand): row.format
        for row, is_chosen in zip(rows, chosen, strict=True)
        if is_chosen
    }
    return Allocation(
        formats, float(cost[chosen].sum() / whole), float(damage[chosen].sum())
    )


def uniform_recipe(format: str, operands: Sequence[str] = _READ) -> Recipe:
    """One format for the same operand of all layers: what an allocation stands beside.

    Example:
        >>> print(uniform_recipe("8", ("weight",)).table[Product.FORWARD, "weight"])
        8-bit steps, one a channel
    """
    cells: dict[str, Transform] = {o: rounding(format, o) for o in operands}
    return Recipe(
        f"{format} everywhere", Table({Product.FORWARD: cells or {"input": KEEP}})
    )


def _cost(
    row: SensitivityRow, weights: Mapping[tuple[str, str], float] | None
) -> float:
    return float(row.elements if weights is None else weights[row.layer, row.operand])


def _damage(row: SensitivityRow, by: str) -> float:
    if by == "loss":
        return max(row.loss_change, 0.0)
    return (row.score_noise if by == "scores" else row.noise) ** 2
