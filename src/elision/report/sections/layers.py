"""Every layer on every machine: cycles as bars, multiplier use as a map."""

import numpy as np

from elision.accelerators import Cost
from elision.products import Product
from elision.report.layer_figures import layer_bars, utilisation_map
from elision.report.sections.base import Section
from elision.study.outcome import RecipeOutcome, StudyOutcome

__all__ = ["layers"]

_NOTE = (
    "Cycles of all three products of each layer, on a logarithmic axis, and the share of "
    "multiplier slots (multipliers times cycles) that issued a product: dW&nbsp;=&nbsp;"
    "weight gradient, dX&nbsp;=&nbsp;input gradient, Y&nbsp;=&nbsp;forward. A slot that "
    "issued a redundant product counts as used: SCNN keeps its multipliers busy in the "
    "weight gradient with work that ANT does not do. Blank: the layer does not compute "
    "that product."
)

_SIGN = {"forward": "Y", "input_grad": "dX", "weight_grad": "dW"}


def layers(outcome: StudyOutcome) -> Section | None:
    """Bars and a map of all recipes, summed over the recorded steps."""
    machines = list(outcome.config.accelerators)
    if not machines:
        return None
    costs = {o.spec: _by_layer(o) for o in outcome.outcomes}
    names = list(
        dict.fromkeys(layer for sums in costs.values() for _, layer, _ in sums)
    )
    cells = [(machine, p.value) for machine in machines for p in Product]
    cycles = {
        spec: np.array(
            [
                [
                    sum(
                        sums[machine, layer, p.value].cycles
                        for p in Product
                        if (machine, layer, p.value) in sums
                    )
                    for layer in names
                ]
                for machine in machines
            ],
            dtype=float,
        )
        for spec, sums in costs.items()
    }
    use = {
        spec: np.array(
            [
                [
                    sums[machine, layer, product].utilisation
                    if (machine, layer, product) in sums
                    else np.nan
                    for machine, product in cells
                ]
                for layer in names
            ]
        )
        for spec, sums in costs.items()
    }
    columns = [f"{machine} {_SIGN[product]}" for machine, product in cells]
    figures = (
        layer_bars(names, machines, cycles, "cycles, simulated"),
        utilisation_map(names, columns, use),
    )
    return Section("Every layer on every machine", "simulated", _NOTE, figures)


def _by_layer(o: RecipeOutcome) -> dict[tuple[str, str, str], Cost]:
    """Cost by machine, layer and product, summed over the recorded steps."""
    sums: dict[tuple[str, str, str], Cost] = {}
    for row in o.costs:
        key = (row.accelerator, row.layer, row.product)
        sums[key] = sums[key] + row.cost if key in sums else row.cost
    return sums
