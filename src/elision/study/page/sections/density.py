"""Realised density of both operands of every product."""

import numpy as np

from elision.products import Product
from elision.report.charts import density_map
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["density"]

_SHORT = {"input": "X", "weight": "W", "grad_output": "G"}
_SIGN = {"forward": "Y", "input_grad": "dX", "weight_grad": "dW"}


def density(outcome: StudyOutcome) -> Section | None:
    """A map of layers and operands for every recipe."""
    outcomes = outcome.outcomes
    layers = list(dict.fromkeys(r.layer for o in outcomes for r in o.products))
    if not layers:
        return None
    cells = [(p.value, operand) for p in Product for operand in p.operands]
    columns = [f"{_SIGN[product]}\n{_SHORT[operand]}" for product, operand in cells]
    panels = {o.spec: _densities(o, layers, cells) for o in outcomes}
    note = (
        "Share of non-zeros of the two operands of each product, as a machine would "
        "multiply them: under ReSprop G is the sparse difference from the gradient that "
        "the batch shares. Blank: the layer does not compute that product (the first "
        "layer needs no dX)."
    )
    figure = density_map(layers, columns, panels)
    return Section("Density of every operand", "recorded here", note, (figure,))


def _densities(
    o: RecipeOutcome, layers: list[str], cells: list[tuple[str, str]]
) -> np.ndarray:
    """Mean density over the recorded steps, shape (layers, cells); NaN where none."""
    seen: dict[tuple[str, str, str], list[float]] = {}
    for row in o.products:
        for operand, value in row.densities.items():
            seen.setdefault((row.layer, row.product, operand), []).append(value)
    return np.array(
        [
            [
                np.mean(seen[layer, *cell]) if (layer, *cell) in seen else np.nan
                for cell in cells
            ]
            for layer in layers
        ]
    )
