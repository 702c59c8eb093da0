"""Bits for each operand of each layer under a budget, chosen exactly.

Each operand of each layer takes one of the formats that were measured. Noise of separate
roundings adds up in squares, so the sum of the squared relative errors of the scores is
minimised under a budget of mean bits, of the weights and of the inputs each (how many
examples a batch has says nothing about the worth of a weight's bit), or of a cost of one's
own: a knapsack with one choice of each class (:mod:`elision.common.knapsack`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elision.common.checks import number, one_of
from elision.common.knapsack import knapsack
from elision.layers import Recipe, Table
from elision.operands import KEEP, Transform
from elision.precision.arithmetic import rounding
from elision.precision.sensitivity import Sensitivity, SensitivityRow
from elision.products import Product

__all__ = ["Allocation", "allocate", "uniform_recipe"]

#: Operands that a forward product reads, which a budget is for.
_READ = Product.FORWARD.operands

#: A budget that is met but for rounding is met.
_ROOM = 1 + 1e-9

#: What is minimised.
_BY = ("scores", "loss", "output")


@dataclass(frozen=True)
class Allocation:
    """A format for each operand of each layer.

    Attributes:
        formats: (layer, operand) -> format.
        bits: mean bits of an element, of each operand that a budget is for; ``"cost"``: of
            a joint budget.
        damage: predicted, the sum that was minimised.

    Example:
        >>> chosen = Allocation({("fc", "weight"): "4"}, {"weight": 4.0}, 0.01)
        >>> chosen.recipe().overrides[0][0]
        'fc'
    """

    formats: Mapping[tuple[str, str], str]
    bits: Mapping[str, float]
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
        budget: mean bits of an element, of the weights and of the inputs each.
        by: what is damaged: the ``"scores"`` (squared relative error), the ``"loss"`` (its
            measured increase, none below zero), or the layer's own ``"output"`` (squared).
        weights: (layer, operand) -> what a bit of it costs, such as bytes moved or the energy
            of its multiplications; the budget is then of both operands together.

    Raises:
        ValueError: no such rows, a damage that is not finite, a place without a cost above
            zero, or a budget below the fewest bits that were measured.

    Example:
        >>> rows = [
        ...     SensitivityRow(n, "weight", f, int(f), 10, 0, e, 0, 0, 0, 0)
        ...     for n, errors in {"a": (0.1, 0.01), "b": (0.9, 0.09)}.items()
        ...     for f, e in zip(("4", "8"), errors)
        ... ]
        >>> allocate(Sensitivity(tuple(rows), 1.0), budget=6.0).formats
        {('a', 'weight'): '4', ('b', 'weight'): '8'}
    """
    one_of("allocate", "by", by, _BY)
    number("allocate", "budget", budget, "> 0")
    rows = [row for row in measured.rows if row.operand in _READ]
    if not rows:
        raise ValueError("allocate: nothing was measured of a weight or an input")
    places = list(dict.fromkeys((row.layer, row.operand) for row in rows))
    damage = np.array([_damage(row, by) for row in rows])
    for row, value in zip(rows, damage, strict=True):
        if not np.isfinite(value):
            raise ValueError(
                f"allocate: the damage of {row.format} at the {row.operand} of {row.layer} "
                f"is {value}"
            )
    shares = _shares(rows, places, weights)
    choices = [
        [i for i, r in enumerate(rows) if (r.layer, r.operand) == place]
        for place in places
    ]
    for name, cost in shares.items():
        least = sum(cost[of].min() for of in choices)
        if least > budget * _ROOM:
            raise ValueError(
                f"allocate(budget={budget}): the fewest bits that were measured have a mean "
                f"of {least:.4g} ({name})"
            )
    found = knapsack(
        {name: [cost[of].tolist() for of in choices] for name, cost in shares.items()},
        [damage[of].tolist() for of in choices],
        dict.fromkeys(shares, budget),
    )
    chosen = [of[index] for of, index in zip(choices, found, strict=True)]
    formats = {place: rows[i].format for place, i in zip(places, chosen, strict=True)}
    bits = {name: float(cost[chosen].sum()) for name, cost in shares.items()}
    return Allocation(formats, bits, float(damage[chosen].sum()))


def uniform_recipe(format: str, operands: Sequence[str] = _READ) -> Recipe:
    """One format for the same operand of all layers: what an allocation stands beside.

    Example:
        >>> print(uniform_recipe("8", ("weight",)).table[Product.FORWARD, "weight"])
        8 bits by channel
    """
    cells: dict[str, Transform] = {o: rounding(format, o) for o in operands}
    return Recipe(
        f"{format} everywhere", Table({Product.FORWARD: cells or {"input": KEEP}})
    )


def _shares(
    rows: Sequence[SensitivityRow],
    places: Sequence[tuple[str, str]],
    weights: Mapping[tuple[str, str], float] | None,
) -> dict[str, np.ndarray]:
    """Bits that each row adds to the mean of each budget."""
    if weights is not None:
        for layer, operand in places:
            given = weights.get((layer, operand))
            if given is None:
                raise ValueError(
                    f"allocate: weights has no cost of a bit of the {operand} of {layer}"
                )
            number(f"allocate: {operand} of {layer}", "cost", given, "> 0")
        budgets, cost = {"cost": list(places)}, weights
    else:
        operands = dict.fromkeys(operand for _, operand in places)
        budgets = {o: [place for place in places if place[1] == o] for o in operands}
        cost = {(row.layer, row.operand): float(row.elements) for row in rows}
    found = {}
    for name, of in budgets.items():
        whole = sum(cost[place] for place in of)
        share = {place: cost[place] / whole for place in of}
        parts = [share.get((row.layer, row.operand), 0.0) * row.bits for row in rows]
        found[name] = np.array(parts)
    return found


def _damage(row: SensitivityRow, by: str) -> float:
    if by == "loss":
        return float(np.maximum(row.loss_change, 0.0))  # NaN stays NaN
    return (row.score_noise if by == "scores" else row.noise) ** 2
