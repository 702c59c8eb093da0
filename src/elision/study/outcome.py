"""What a study came to, and its tables."""

from dataclasses import asdict, dataclass, field
from typing import Any

from elision.accelerators.design.interleave_or_skip import SkipRow, skip_rows
from elision.accelerators.simulate import CostRow, total
from elision.layers.recipe import Recipe
from elision.products import Product, Trace
from elision.products.describe import ProductRow
from elision.study.config import StudyConfig
from elision.training.checkpoint import EpochMetrics

__all__ = ["RecipeOutcome", "StudyOutcome", "machine_rows", "product_summary", "tables"]

SCHEMA = 1


@dataclass(frozen=True)
class RecipeOutcome:
    """What one recipe came to.

    Attributes:
        spec: as asked.
        method: the recipe.
        history: metrics of every epoch.
        training_macs_ratio: work done over dense work in the metered steps.
        work: per product, done over dense work.
        work_by_layer: ``(layer, product, ratio, {operand: density})`` rows.
        products: counts of the recorded products.
        costs: costs of the recorded products.
        findings: what each probe found, by the probe's spec.
    """

    spec: str
    method: Recipe
    history: list[EpochMetrics]
    training_macs_ratio: float
    work: dict[str, float]
    work_by_layer: list[tuple[str, str, float, dict[str, float]]]
    products: list[ProductRow]
    costs: list[CostRow]
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyOutcome:
    """What a study came to: one outcome a recipe, and facts about the run.

    Attributes:
        config: what was asked.
        outcomes: one a recipe, in the order asked.
        environment: the machine and the versions.
        timing: recipe -> median seconds of a training step, where it was measured.
        source: where the images come from.
        trace: the recorded products of all recipes, layers named ``<recipe>/<layer>``.
    """

    config: StudyConfig
    outcomes: list[RecipeOutcome]
    environment: dict[str, Any]
    timing: dict[str, Any]
    source: str
    trace: Trace

    def summary(self) -> dict[str, Any]:
        """The machine-readable result, ``summary.json``."""
        machines: dict[str, dict[str, Any]] = {}
        for outcome in self.outcomes:
            for machine, sums in total(outcome.costs).items():
                machines.setdefault(machine, {})[outcome.spec] = {
                    key: {
                        "cycles": cost.cycles,
                        "multiplies": cost.multiplies,
                        "valid_multiplies": cost.valid_multiplies,
                        "redundant_multiplies": cost.redundant_multiplies,
                        "energy_pj": cost.energy_pj,
                    }
                    for key, cost in sums.items()
                }
        return {
            "schema": SCHEMA,
            "workload": self.config.workload,
            "seed": self.config.seed,
            "recipes": {o.spec: _recipe_summary(o) for o in self.outcomes},
            "accelerators": machines,
        }


def _recipe_summary(outcome: RecipeOutcome) -> dict[str, Any]:
    return {
        "test_accuracy": outcome.history[-1].test_accuracy,
        "training_macs_ratio": outcome.training_macs_ratio,
        "products": {p.value: product_summary(outcome, p) for p in Product},
    }


def product_summary(outcome: RecipeOutcome, product: Product) -> dict[str, float]:
    """Densities, RCP share and work of one product over all recorded layers."""
    rows = [r for r in outcome.products if r.product == product.value]
    nonzero = sum(r.nonzero for r in rows)
    result: dict[str, float] = {}
    for operand in product.operands:
        values = sum(r.sizes[operand] for r in rows)
        kept = sum(r.densities[operand] * r.sizes[operand] for r in rows)
        result[f"{operand}_density"] = kept / values if values else 0.0
    redundant = sum(r.redundant for r in rows)
    result["rcp_fraction"] = redundant / nonzero if nonzero else 0.0
    result["macs_ratio"] = outcome.work[product.value]
    return result


def machine_rows(outcome: RecipeOutcome) -> list[SkipRow]:
    """What every machine did with the recorded products, a row a machine."""
    costs = {machine: sums["total"] for machine, sums in total(outcome.costs).items()}
    return skip_rows(costs, sum(row.valid for row in outcome.products))


def tables(outcome: StudyOutcome) -> dict[str, list[dict[str, Any]]]:
    """Rows of the CSV files, by file name."""
    epochs, work, products, costs, machines = [], [], [], [], []
    for o in outcome.outcomes:
        tag = {"recipe": o.spec}
        epochs += [tag | asdict(metrics) for metrics in o.history]
        work += [
            tag
            | {"layer": layer, "product": product, "macs_ratio": ratio}
            | {f"{operand}_density": d for operand, d in densities.items()}
            for layer, product, ratio, densities in o.work_by_layer
        ]
        products += [
            tag
            | {"layer": r.layer, "product": r.product, "step": r.step}
            | {"dense_macs": r.dense_macs, "nonzero": r.nonzero, "valid": r.valid}
            | {f"{operand}_density": d for operand, d in r.densities.items()}
            for r in o.products
        ]
        costs += [tag | row.to_row() for row in o.costs]
        machines += [tag | asdict(row) for row in machine_rows(o)]
    return {
        "epochs": epochs,
        "work": work,
        "products": products,
        "costs": costs,
        "machines": machines,
    }
