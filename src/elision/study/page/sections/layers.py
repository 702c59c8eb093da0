"""Every layer on every machine: cycles as dots, multiplier use as a map."""

import numpy as np

from elision.accelerators import Cost
from elision.accelerators.step import GRADIENT_PAIR, PRODUCT_NAMES
from elision.report.layer_figures import utilisation_map
from elision.report.recipe_dots import recipe_dots
from elision.report.style import marks_of
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["layers"]

_NOTE = (
    "Cycles of all three products of each layer, on a logarithmic axis, and the share of "
    "multiplier slots (multipliers times cycles) that issued a product: dW&nbsp;=&nbsp;"
    "weight gradient, dX&nbsp;=&nbsp;input gradient, Y&nbsp;=&nbsp;forward. A slot that "
    "issued a redundant product counts as used: SCNN keeps its multipliers busy in the "
    "weight gradient with work that ANT does not do. Blank: the layer does not compute "
    "that product."
)

_SIGN = {
    "forward": "Y",
    "input_grad": "dX",
    "weight_grad": "dW",
    GRADIENT_PAIR: "dX, dW",
}

#: Machine, layer and product (or pair of gradients that run together).
_Key = tuple[str, str, str]


def layers(outcome: StudyOutcome) -> Section | None:
    """Dots and a map of all recipes, summed over the recorded steps."""
    machines = list(outcome.config.accelerators)
    if not machines:
        return None
    costs = {o.spec: _by_layer(o) for o in outcome.outcomes}
    keys = [key for sums in costs.values() for key in sums]
    names = list(dict.fromkeys(layer for _, layer, _ in keys))
    ran = {(machine, product) for machine, _, product in keys}
    cells = [(m, p) for m in machines for p in PRODUCT_NAMES if (m, p) in ran]
    cycles = {spec: _cycles(sums, machines, names) for spec, sums in costs.items()}
    use = {spec: _use(sums, names, cells) for spec, sums in costs.items()}
    columns = [(machine, _SIGN[product]) for machine, product in cells]
    figures = (
        recipe_dots(
            names,
            machines,
            cycles,
            marks_of(outcome.config.recipes),
            unit="cycles, simulated",
            scale="count",
        ),
        utilisation_map(names, columns, use),
    )
    return Section("Every layer on every machine", "simulated", _NOTE, figures)


def _by_layer(o: RecipeOutcome) -> dict[_Key, Cost]:
    """Costs summed over the recorded steps."""
    sums: dict[_Key, Cost] = {}
    for row in o.costs:
        key = (row.accelerator, row.layer, row.product)
        sums[key] = sums[key] + row.cost if key in sums else row.cost
    return sums


def _cycles(
    sums: dict[_Key, Cost], machines: list[str], names: list[str]
) -> np.ndarray:
    """Cycles of all products, shape (machines, layers); NaN where there are none."""
    found = np.zeros((len(machines), len(names)))
    for (machine, layer, _), cost in sums.items():
        found[machines.index(machine), names.index(layer)] += cost.cycles
    return np.where(found > 0, found, np.nan)


def _use(
    sums: dict[_Key, Cost], names: list[str], cells: list[tuple[str, str]]
) -> np.ndarray:
    """Multiplier use, shape (layers, cells); NaN where a product is not computed."""
    found = np.full((len(names), len(cells)), np.nan)
    for (machine, layer, product), cost in sums.items():
        place = names.index(layer), cells.index((machine, product))
        found[place] = cost.utilisation
    return found
