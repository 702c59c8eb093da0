"""Energy of a step by product, from counted operations and bytes and a table."""

from typing import Any

import numpy as np

from elision.common.printable import escaped
from elision.common.specs import parse
from elision.common.units import common_unit
from elision.energy import OperationEnergy, total_operations
from elision.products import Product
from elision.report.charts import cost_bars
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["step_energy"]

_NOTE = (
    "Multiply-accumulates of the three products, and their compulsory traffic (each operand "
    "read once, the result written once), counted in a training step of {batch:g} examples "
    "and priced by the table <b>{table}</b> ({node:g} nm): a model, within a factor of "
    "{factor:.1f} either way, by which the shipped tables disagree. Caches, control and "
    "idle silicon are not in it, so that it is no part of the joules above; the ratio of "
    "two of its figures does not depend on the factor. <b>dense</b>: float32, nothing left "
    "out; <b>recipe</b>: in its formats, a thinned operand as its kept values and a bit for "
    "each place."
)

#: Fields of a finding's row.
_COUNTS = tuple(OperationEnergy.__dataclass_fields__)


def step_energy(outcome: StudyOutcome) -> Section | None:
    """Bars and a table by product, and the layers of every recipe."""
    asked: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for o in outcome.outcomes:
        for spec, found in o.findings.items():
            if parse(spec).name == "energy":
                asked.setdefault(spec, []).append((o.spec, found))
    if not asked:
        return None
    sheets, notes = [], []
    for runs in asked.values():
        first = runs[0][1]
        notes.append(
            _NOTE.format(
                batch=first["batch"],
                table=escaped(first["table"]),
                node=first["node_nm"],
                factor=first["factor"],
            )
        )
        sheets += [
            _figure(runs),
            rows_as_html([r for run in runs for r in _rows(*run)]),
        ]
        sheets += [_layers(*run) for run in runs]
    note = "<br>".join(dict.fromkeys(notes))
    return Section("Energy of a step by product", "counted here", note, tuple(sheets))


def _by_product(found: dict[str, Any]) -> dict[Product, OperationEnergy]:
    return {
        product: total_operations(
            OperationEnergy(*(row[name] for name in _COUNTS))
            for row in found["layers"]
            if row["product"] == product.value
        )
        for product in Product
    }


def _figure(runs: list[tuple[str, dict[str, Any]]]) -> str:
    """A panel a recipe: dense and as the recipe leaves it, stacked by product."""
    sums = [_by_product(found) for _, found in runs]
    totals = [total_operations(s.values()) for s in sums]
    largest = (max(whole.dense_pj, whole.done_pj) for whole in totals)
    joules, scale = common_unit(largest, "J", scale=1e-12)
    values = {
        product.value: scale
        * np.array([[s[product].dense_pj, s[product].done_pj] for s in sums])
        for product in Product
    }
    table = runs[0][1]["table"]
    unit = f"{joules} a step, counted and priced by {table}"
    return cost_bars(["dense", "recipe"], [spec for spec, _ in runs], values, unit)


def _rows(recipe: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    sums = _by_product(found)
    whole = total_operations(sums.values())
    named = {p.value: sums[p] for p in Product} | {"all three": whole}
    return [
        {"recipe": recipe, "product": name} | _texts(energy, found["factor"])
        for name, energy in named.items()
    ]


def _texts(energy: OperationEnergy, factor: float) -> dict[str, str]:
    def millijoules(picojoules: float) -> str:
        low, high = picojoules / factor / 1e9, picojoules * factor / 1e9
        return f"{low:.3g} to {high:.3g}"

    return {
        "MMACs": f"{energy.dense_macs / 1e6:.1f} → {energy.done_macs / 1e6:.1f}",
        "MB moved": f"{energy.dense_bytes / 1e6:.2f} → {energy.done_bytes / 1e6:.2f}",
        "dense, mJ": millijoules(energy.dense_pj),
        "recipe, mJ": millijoules(energy.done_pj),
        "arithmetic": f"{energy.done_arithmetic_pj / energy.dense_arithmetic_pj:.2f}x"
        if energy.dense_arithmetic_pj
        else "",
        "traffic": f"{energy.done_moved_pj / energy.dense_moved_pj:.2f}x"
        if energy.dense_moved_pj
        else "",
        "both": f"{energy.ratio:.2f}x",
    }


def _layers(recipe: str, found: dict[str, Any]) -> str:
    rows = [
        {"layer": row["layer"], "product": row["product"]}
        | _texts(OperationEnergy(*(row[name] for name in _COUNTS)), found["factor"])
        for row in found["layers"]
    ]
    title = escaped(f"{recipe}, {found['table']}: layers")
    return f"<details><summary>{title}</summary>{rows_as_html(rows)}</details>"
