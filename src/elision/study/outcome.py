"""Outcome of a study: one record a recipe, the summary, and the tables."""

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from elision.accelerators.design.interleave_or_skip import SkipRow, skip_rows
from elision.accelerators.simulate import CostRow, total
from elision.common.files import without_nan
from elision.common.versioned import SCHEMA
from elision.energy import Grid, grid_named
from elision.layers.recipe import Recipe
from elision.products import Product, Trace
from elision.products.describe import ProductRow
from elision.study.config import StudyConfig
from elision.study.teacher import Teacher
from elision.training.checkpoint import EpochMetrics
from elision.training.spent import EpochEnergy
from elision.workloads import Metric

__all__ = [
    "SCHEMA",
    "USUAL_METRIC",
    "RecipeOutcome",
    "StudyOutcome",
    "counted_seeds",
    "deviation",
    "logged_values",
    "machine_rows",
    "metric_rows",
    "product_summary",
    "read_summary",
    "tables",
]

#: Metric of a summary that names none.
USUAL_METRIC = "test_accuracy"


@dataclass(frozen=True)
class RecipeOutcome:
    """Outcome of one recipe.

    Attributes:
        spec: as given.
        method: the recipe.
        histories: metrics of every epoch, by seed. All else is of the first seed.
        training_macs_ratio: work done over dense work in the metered steps.
        work: per product, done over dense work.
        work_by_layer: ``(layer, product, ratio, {operand: density})`` rows.
        products: counts of the recorded products.
        costs: costs of the recorded products.
        findings: findings of each probe, by the probe's spec.
        saved_bytes: (logical, stored) bytes of saved activations in the largest training
            step of one process; None without a policy.
        sent_ratio: see :class:`elision.training.TrainResult`.
        reasons: why the training of a seed stopped before its end.
        spent: energy of every epoch, by seed, as far as it is known.

    Example:
        >>> from elision.methods import Dense
        >>> histories = {
        ...     seed: [EpochMetrics(0, loss=0.5, score=score, learning_rate=0.1)]
        ...     for seed, score in enumerate((0.5, 0.75))
        ... }
        >>> outcome = RecipeOutcome("dense", Dense(), histories, 1.0, {}, [], [], [])
        >>> outcome.scores, outcome.score
        ([0.5, 0.75], 0.625)
    """

    spec: str
    method: Recipe
    histories: dict[int, list[EpochMetrics]]
    training_macs_ratio: float
    work: dict[str, float]
    work_by_layer: list[tuple[str, str, float, dict[str, float]]]
    products: list[ProductRow]
    costs: list[CostRow]
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    saved_bytes: tuple[int, int] | None = None
    sent_ratio: float | None = None
    reasons: dict[int, str] = field(default_factory=dict)
    spent: dict[int, dict[int, EpochEnergy]] = field(default_factory=dict)

    @property
    def history(self) -> list[EpochMetrics]:
        """Metrics of every epoch at the first seed."""
        return next(iter(self.histories.values()))

    @property
    def scores(self) -> list[float]:
        """The metric after the last epoch, of each seed."""
        return [history[-1].score for history in self.histories.values()]

    @property
    def score(self) -> float:
        """Mean of the scores."""
        return statistics.fmean(self.scores)

    @property
    def score_spread(self) -> float | None:
        """Standard deviation of the scores; None of a single one, or if one is NaN."""
        return deviation(self.scores)

    @property
    def diverged(self) -> dict[int, str]:
        """Seeds whose score is NaN, and why."""
        scores = zip(self.histories, self.scores, strict=True)
        lost = [seed for seed, score in scores if math.isnan(score)]
        return {seed: self.reasons.get(seed, _NO_SCORE) for seed in lost}

    @property
    def finished(self) -> bool:
        """Whether the first seed was trained to a score, so that there is more to show."""
        return next(iter(self.histories)) not in self.diverged

    def spread_over(self, other: "RecipeOutcome") -> float | None:
        """Standard deviation, over seeds, of this score minus that of another recipe."""
        pairs = zip(self.scores, other.scores, strict=True)
        return deviation([own - its for own, its in pairs])


#: Reason of a run whose loss was a number at every step.
_NO_SCORE = "the trained network's scores are NaN"


def deviation(values: list[float]) -> float | None:
    """Standard deviation of a sample; None for a single value, or one not finite."""
    several = len(values) > 1 and all(map(math.isfinite, values))
    return statistics.stdev(values) if several else None


@dataclass(frozen=True)
class StudyOutcome:
    """Outcome of a study: one a recipe, and facts about the run.

    Attributes:
        config: of the study.
        outcomes: one a recipe, in the configuration's order.
        environment: the machine and the versions.
        timing: recipe -> median seconds of a training step, where it was measured.
        source: origin of the data.
        trace: the recorded products of all recipes, layers named ``<recipe>/<layer>``.
        grid: PUE and grid intensity by which energy becomes CO2e.
        teacher: network that taught every recipe; None: nobody did.

    Example:
        >>> from elision.methods import Dense
        >>> metrics = EpochMetrics(0, loss=0.5, score=0.75, learning_rate=0.1)
        >>> work = {product.value: 1.0 for product in Product}
        >>> dense = RecipeOutcome("dense", Dense(), {0: [metrics]}, 1.0, work, [], [], [])
        >>> config = StudyConfig(workload="digits-cnn", recipes=("dense",))
        >>> outcome = StudyOutcome(config, [dense], {}, {}, "scikit-learn", Trace())
        >>> outcome.summary()["recipes"]["dense"]["test_accuracy"]
        0.75
    """

    config: StudyConfig
    outcomes: list[RecipeOutcome]
    environment: dict[str, Any]
    timing: dict[str, Any]
    source: str
    trace: Trace
    grid: Grid = field(default_factory=grid_named)
    teacher: Teacher | None = None

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return self.config.metric

    def summary(self) -> dict[str, Any]:
        """The machine-readable result, ``summary.json``; NaN is None there."""
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
                        "energy_on_chip_pj": cost.energy_on_chip_pj,
                        "energy_dram_pj": cost.energy_dram_pj,
                    }
                    for key, cost in sums.items()
                }
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "workload": self.config.workload_name,
            "seed": self.config.seed,
            "recipes": {o.spec: _recipe_summary(o, self.metric) for o in self.outcomes},
            "accelerators": machines,
        }
        # Only what differs from a plain run, whose summary stays as it always was.
        execution: dict[str, Any] = self.config.execution().not_default()
        if self.config.processes > 1:
            execution["processes"] = self.config.processes
        if execution:
            facts["execution"] = execution
        if self.config.distill is not None:
            taught: dict[str, Any] = {"spec": self.config.distill}
            if self.teacher is not None:
                taught["teacher"] = self.teacher.summary()
            facts["distillation"] = taught
        seeds = self.config.all_seeds()
        if len(seeds) > 1:
            facts["seeds"] = len(seeds)
        if isinstance(self.config.seeds, tuple):
            facts["all_seeds"] = list(seeds)
        if self.metric.name != USUAL_METRIC:
            facts["metric"] = self.metric.name
        return without_nan(facts)


def read_summary(path: Path) -> dict[str, Any]:
    """What :meth:`StudyOutcome.summary` wrote to a file.

    Raises:
        ValueError: not JSON, or no summary of this version.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     _ = file.write('{"schema": 9}')
        ...     file.flush()
        ...     read_summary(Path(file.name))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...: a summary of schema 9; this version reads schema 1
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"{path}: a summary of schema {schema!r}; this version reads schema {SCHEMA}"
        )
    return found


def counted_seeds(number: int) -> str:
    """How many seeds a figure is of, in words.

    Example:
        >>> counted_seeds(1), counted_seeds(3)
        ('1 seed', '3 seeds')
    """
    return "1 seed" if number == 1 else f"{number} seeds"


def _recipe_summary(outcome: RecipeOutcome, metric: Metric) -> dict[str, Any]:
    facts: dict[str, Any] = {
        metric.name: outcome.score,
        "training_macs_ratio": outcome.training_macs_ratio,
        "products": {p.value: product_summary(outcome, p) for p in Product},
    }
    if not outcome.finished:  # nothing was recorded
        facts |= {"training_macs_ratio": None, "products": None}
    if outcome.score_spread is not None:
        facts[f"{metric.name}_spread"] = outcome.score_spread
    if len(outcome.scores) > 1:
        facts[f"{metric.name}_by_seed"] = outcome.scores
    if outcome.diverged:
        facts["diverged"] = {str(s): why for s, why in outcome.diverged.items()}
    if outcome.saved_bytes is not None:
        logical, stored = outcome.saved_bytes
        facts["saved_bytes"] = {"logical": logical, "stored": stored}
    if outcome.sent_ratio is not None:
        facts["gradients_dense_over_sent"] = outcome.sent_ratio
    return facts


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
    """Cost of the recorded products, a row a machine."""
    costs = {machine: sums["total"] for machine, sums in total(outcome.costs).items()}
    return skip_rows(costs, sum(row.valid for row in outcome.products))


def logged_values(outcome: RecipeOutcome) -> dict[str, float]:
    """Cycles and energy of the recorded products by machine, as values of loggers."""
    return {
        f"simulated/{machine}/{product}/{name}": value
        for machine, sums in total(outcome.costs).items()
        for product, cost in sums.items()
        for name in ("cycles", "energy_on_chip_pj", "energy_dram_pj")
        if (value := getattr(cost, name)) is not None
    }


def metric_rows(outcome: RecipeOutcome, metric: str) -> list[dict[str, Any]]:
    """Metrics of every epoch, a row each; with the seed where there are several."""
    several = len(outcome.histories) > 1
    return [
        {"recipe": outcome.spec}
        | ({"seed": seed} if several else {})
        | metrics.to_row(metric)
        for seed, history in outcome.histories.items()
        for metrics in history
    ]


def tables(outcome: StudyOutcome) -> dict[str, list[dict[str, Any]]]:
    """Rows of the CSV files, by file name."""
    epochs, work, products, costs, machines = [], [], [], [], []
    for o in outcome.outcomes:
        tag = {"recipe": o.spec}
        epochs += metric_rows(o, outcome.metric.name)
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
