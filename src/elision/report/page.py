"""A study as one HTML file: no network, no script, figures inline."""

import math
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from elision.products import Product
from elision.report.figures import accuracy_curves, cost_bars, density_map, grouped_bars
from elision.simulation import total

if TYPE_CHECKING:
    from elision.study import RecipeOutcome, StudyOutcome

__all__ = ["rows_as_text", "study_page", "study_table"]

_PRODUCTS = [product.value for product in Product]


def study_table(outcome: "StudyOutcome") -> list[dict[str, str]]:
    """The study in one short table, a row a recipe, values as text."""
    rows = []
    for o in outcome.outcomes:
        row = {
            "recipe": o.spec,
            "test accuracy": f"{100 * o.history[-1].test_accuracy:.1f} %",
            "training MACs": f"{100 * o.training_macs_ratio:.1f} %",
        }
        for product, share in _rcp_shares(o).items():
            row[f"RCP {product}"] = f"{100 * share:.1f} %"
        for label, ratio in _ant_over_scnn(o).items():
            row[label] = f"{ratio['total']:.2f}x"
        rows.append(row)
    return rows


def rows_as_text(rows: list[dict[str, str]]) -> str:
    """Rows as aligned text columns for a terminal."""
    if not rows:
        return ""
    head = list(rows[0])
    lines = [head, *([row.get(name, "") for name in head] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(n) for word, n in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def study_page(outcome: "StudyOutcome") -> str:
    """The whole report as an HTML document."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files("elision.report") / "page.html.j2"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template.read_text(encoding="utf-8"))
    return page.render(**_facts(outcome))


def _facts(outcome: "StudyOutcome") -> dict[str, Any]:
    """Everything the template shows."""
    outcomes = outcome.outcomes
    baseline = outcomes[0]
    workload = outcome.config.resolved_workload()
    curves = {o.spec: [m.test_accuracy for m in o.history] for o in outcomes}
    losses = {o.spec: [m.loss for m in o.history] for o in outcomes}
    specs = [o.spec for o in outcomes]
    return {
        "config": outcome.config,
        "workload": workload,
        "source": outcome.source,
        "environment": outcome.environment,
        "timing": outcome.timing,
        "products": _PRODUCTS,
        "cards": [_card(o, baseline) for o in outcomes],
        "methods": outcomes,
        "accuracy_figure": accuracy_curves(curves, losses),
        "work_figure": grouped_bars(
            specs,
            {p: [o.work[p] for o in outcomes] for p in _PRODUCTS},
            title="Multiply-accumulates done, share of dense",
            percent=True,
        ),
        "rcp_figure": grouped_bars(
            specs,
            {p: [_rcp_shares(o)[p] for o in outcomes] for p in _PRODUCTS},
            title="Redundant Cartesian products, share of all non-zero products",
            percent=True,
        ),
        "density_figure": _density_figure(outcomes),
        "cycles_figure": _cost_figure(outcomes, "cycles", "cycles, simulated"),
        "energy_figure": _cost_figure(outcomes, "energy_pj", "energy in pJ, simulated"),
        "cost_rows": _cost_rows(outcomes),
        "speedups": [
            {"recipe": o.spec, "machines": label, **ratios}
            for o in outcomes
            for label, ratios in _ant_over_scnn(o).items()
        ],
    }


def _card(o: "RecipeOutcome", baseline: "RecipeOutcome") -> dict[str, str]:
    """The few numbers at the top of the page."""
    accuracy = o.history[-1].test_accuracy
    gap = 100 * (accuracy - baseline.history[-1].test_accuracy)
    ratios = list(_ant_over_scnn(o).values())
    return {
        "spec": o.spec,
        "accuracy": f"{100 * accuracy:.1f} %",
        "gap": "baseline" if o is baseline else f"{gap:+.1f} points",
        "left_out": f"{100 * (1 - o.training_macs_ratio):.0f} %",
        "ant": f"{ratios[0]['total']:.2f}x" if ratios else "",
    }


def _rcp_shares(o: "RecipeOutcome") -> dict[str, float]:
    from elision.study import product_summary

    return {p.value: product_summary(o, p)["rcp_fraction"] for p in Product}


def _ant_over_scnn(o: "RecipeOutcome") -> dict[str, dict[str, float]]:
    """Cycles of SCNN over cycles of ANT where a study has both with equal parameters."""
    sums = total(o.costs)
    found = {}
    for name, ant in sums.items():
        scnn = sums.get(name.replace("ant", "scnn", 1))
        if not name.startswith("ant") or scnn is None:
            continue
        _, _, parameters = name.partition(":")
        label = "ANT over SCNN" + (f" ({parameters})" if parameters else "")
        found[label] = {
            key: scnn[key].cycles / ant[key].cycles if ant[key].cycles else math.nan
            for key in (*_PRODUCTS, "total")
            if key in ant
        }
        found[label]["energy"] = scnn["total"].energy_pj / ant["total"].energy_pj
    return found


def _cost_rows(outcomes: list["RecipeOutcome"]) -> list[dict[str, Any]]:
    rows = []
    for o in outcomes:
        sums = total(o.costs)
        first = next(iter(sums.values()))["total"]
        for machine, costs in sums.items():
            cost = costs["total"]
            rows.append(
                {
                    "recipe": o.spec,
                    "machine": machine,
                    "cycles": cost.cycles,
                    "speedup": first.cycles / cost.cycles if cost.cycles else math.nan,
                    "multiplies": cost.multiplies,
                    "redundant": cost.redundant_multiplies,
                    "utilisation": cost.utilisation,
                    "energy_nj": cost.energy_pj / 1000,
                }
            )
    return rows


def _cost_figure(outcomes: list["RecipeOutcome"], field: str, unit: str) -> str:
    sums = [total(o.costs) for o in outcomes]
    machines = list(sums[0])
    parts = {
        product: np.array(
            [
                [
                    getattr(s[m][product], field) if product in s[m] else 0
                    for m in machines
                ]
                for s in sums
            ],
            dtype=float,
        )
        for product in _PRODUCTS
    }
    return cost_bars(machines, [o.spec for o in outcomes], parts, unit)


_SHORT = {"input": "X", "weight": "W", "grad_output": "G"}
_SIGN = {"forward": "Y", "input_grad": "dX", "weight_grad": "dW"}


def _density_figure(outcomes: list["RecipeOutcome"]) -> str:
    layers = list(dict.fromkeys(r.layer for o in outcomes for r in o.products))
    cells = [(p, operand) for p in Product for operand in p.operands]
    columns = [f"{_SIGN[p.value]}: {_SHORT[operand]}" for p, operand in cells]
    panels = {}
    for o in outcomes:
        values = np.full((len(layers), len(cells)), np.nan)
        for (row, layer), (column, (product, operand)) in (
            (a, b) for a in enumerate(layers) for b in enumerate(cells)
        ):
            seen = [
                r.densities[operand]
                for r in o.products
                if r.layer == layer and r.product == product.value
            ]
            if seen:
                values[row, column] = sum(seen) / len(seen)
        panels[o.spec] = values
    return density_map(layers, columns, panels)
