"""study: train under several recipes, record, simulate, compare, report.

The data goes one way::

    workload ──train──> history, work, trace ──simulate──> costs ──compare──> summary
                        (one recipe after another)                     └──> report.html
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from elision import runfolder
from elision.accelerators import ACCELERATORS
from elision.files import write_json, write_text
from elision.methods import METHODS, Method
from elision.products import Product
from elision.simulation import CostRow, ProductRow, count, simulate, total
from elision.specs import build, parse
from elision.trace import Trace
from elision.training import EpochMetrics, RunPlan, TrainResult, train
from elision.workloads import DEFAULT_WORKLOAD, Workload, find_workload

__all__ = ["RecipeOutcome", "StudyConfig", "StudyOutcome", "study"]

SCHEMA = 1

#: What a study compares when nothing else is asked for.
DEFAULT_RECIPES = (
    "dense",
    "swat:sparsity=0.9",
    "w-resprop:reuse=0.9",
    "meprop-unified:keep=0.1",
)
DEFAULT_ACCELERATORS = (
    "dense",
    "scnn",
    "ant",
    "scnn:startup_cycles=5",
    "ant:startup_cycles=5",
)

#: Share of a run's steps that a warm-up takes where its length is not given: the
#: published ReSprop runs warm up for 9 of 90 epochs.
WARMUP_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a study is asked.

    Attributes:
        workload: name of a workload preset.
        recipes: specs, ``name`` or ``name:parameter=value,...``; the first is the
            baseline that the others are compared with.
        accelerators: specs of the machines.
        seed: of initial weights, batches and augmentation.
        epochs: passes over the data; None for the workload's own number.
        data: folder of the data set, for those that need one.
        record: number of epochs whose last steps are recorded, spread over the run.
        samples: images kept of each recorded step.

    Raises:
        ValueError: an unknown workload, recipe, accelerator or parameter, or a number
            out of range.
    """

    workload: str = DEFAULT_WORKLOAD
    recipes: tuple[str, ...] = DEFAULT_RECIPES
    accelerators: tuple[str, ...] = DEFAULT_ACCELERATORS
    seed: int = 0
    epochs: int | None = None
    data: str | None = None
    record: int = 2
    samples: int = 2

    def __post_init__(self) -> None:
        find_workload(self.workload)
        minima = {"seed": 0, "epochs": 1, "record": 1, "samples": 1}
        for name, minimum in minima.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} must be >= {minimum}, got {value}")
        for name in ("recipes", "accelerators"):
            specs = getattr(self, name)
            if not specs:
                raise ValueError(f"{name}: give at least one")
            if len(set(specs)) != len(specs):
                raise ValueError(f"{name}: one is given twice in {', '.join(specs)}")
        for spec in self.recipes:
            build("recipe", spec, METHODS)
        for spec in self.accelerators:
            build("accelerator", spec, ACCELERATORS)

    def resolved_workload(self) -> Workload:
        """The workload, with this study's number of epochs."""
        workload = find_workload(self.workload)
        return (
            workload if self.epochs is None else replace(workload, epochs=self.epochs)
        )

    def recorded_epochs(self) -> tuple[int, ...]:
        """The epochs whose last step is recorded: the last one, and evenly before it."""
        epochs = self.resolved_workload().epochs
        count = min(self.record, epochs)
        return tuple(epochs * (i + 1) // count - 1 for i in range(count))

    def recipe(self, spec: str, steps: int) -> Method:
        """The recipe of a spec, for a run of so many steps.

        A warm-up whose length the spec leaves open takes :data:`WARMUP_SHARE` of them.
        """
        method = build("recipe", spec, METHODS)
        _, given = parse(spec)
        if "warmup_steps" in method.parameters() and "warmup_steps" not in given:
            return replace(method, warmup_steps=round(steps * WARMUP_SHARE))  # pyright: ignore[reportCallIssue]
        return method


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
    """

    spec: str
    method: Method
    history: list[EpochMetrics]
    training_macs_ratio: float
    work: dict[str, float]
    work_by_layer: list[tuple[str, str, float, dict[str, float]]]
    products: list[ProductRow]
    costs: list[CostRow]


@dataclass(frozen=True)
class StudyOutcome:
    """What a study came to: one outcome a recipe, and facts about the run."""

    config: StudyConfig
    outcomes: list[RecipeOutcome]
    environment: dict[str, Any]
    timing: dict[str, Any]
    source: str

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


#: Told of the recipe at work, steps done, steps in all, and a finished epoch if any.
StudyProgress = Callable[[str, int, int, EpochMetrics | None], None]


def study(
    config: StudyConfig, folder: Path, progress: StudyProgress | None = None
) -> StudyOutcome:
    """Run a study, or what is left of one, and write its run folder.

    Args:
        config: what is asked.
        folder: the run folder; one that holds part of the same study is continued.
        progress: told of every step.

    Returns:
        What is in the folder's ``summary.json``, tables and report.

    Raises:
        ValueError: the folder belongs to another study, or its data is not there.
        TrainingDivergedError: a recipe's loss became NaN or infinite.
        OSError: the folder cannot be written.
    """
    runfolder.claim(folder, {k: v for k, v in asdict(config).items() if v is not None})
    workload = config.resolved_workload()
    dataset = workload.load_dataset(config.data)
    per_epoch = -(-len(dataset.train_images) // workload.batch_size)
    steps = workload.epochs * per_epoch
    plan = RunPlan(
        seed=config.seed,
        record_epochs=config.recorded_epochs(),
        record_samples=config.samples,
    )
    accelerators = {
        spec: build("accelerator", spec, ACCELERATORS) for spec in config.accelerators
    }
    outcomes: list[RecipeOutcome] = []
    trace = Trace({"study": asdict(config), "data": dataset.source})
    timing = _Timing(folder / "timing.json")
    for spec in config.recipes:
        method = config.recipe(spec, steps)

        def report(
            done: int, of: int, metrics: EpochMetrics | None, spec: str = spec
        ) -> None:
            if progress is not None:
                progress(spec, done, of, metrics)

        result = train(
            workload,
            method,
            dataset,
            plan,
            folder=folder / "recipes" / file_name(spec),
            progress=report,
        )
        timing.note(spec, result.step_seconds)
        trace.extend(result.trace, prefix=f"{spec}/", recipe=spec)
        outcomes.append(_outcome(spec, method, result, accelerators))
    trace.save(folder / "trace.safetensors")
    env = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    outcome = StudyOutcome(config, outcomes, env, timing.seconds, dataset.source)
    _write(outcome, folder)
    return outcome


def file_name(spec: str) -> str:
    """A spec as a file name: ``swat:sparsity=0.9`` becomes ``swat-sparsity-0.9``."""
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in spec)


def _outcome(
    spec: str, method: Method, result: TrainResult, accelerators: dict[str, Any]
) -> RecipeOutcome:
    products = list(result.trace)
    work = result.meter.by_product()
    rows = [
        (layer, product.value, w.ratio, w.densities)
        for (layer, product), w in result.meter.by_layer.items()
    ]
    return RecipeOutcome(
        spec,
        method,
        result.history,
        result.meter.total().ratio,
        {product.value: w.ratio for product, w in work.items()},
        rows,
        list(count(products)),
        list(simulate(products, accelerators)),
    )


class _Timing:
    """Seconds per step by recipe, kept from the process that measured them.

    They differ from run to run, so they are no part of ``summary.json``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = {}
        if path.is_file():
            self.seconds = json.loads(path.read_text(encoding="utf-8"))

    def note(self, spec: str, seconds: float | None) -> None:
        """Keep a measurement; None (nothing was trained now) keeps the old one."""
        if seconds is not None:
            self.seconds[spec] = seconds
            write_json(self._path, self.seconds)


def _write(outcome: StudyOutcome, folder: Path) -> None:
    """Write everything that follows from the outcome."""
    from elision.report.page import study_page

    lines = [
        json.dumps({"recipe": o.spec, **asdict(metrics)}, sort_keys=True)
        for o in outcome.outcomes
        for metrics in o.history
    ]
    write_text(folder / "metrics.jsonl", "\n".join(lines) + "\n")
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    for name, rows in _tables(outcome).items():
        write_text(tables / f"{name}.csv", to_csv(rows))
    write_text(folder / "report.html", study_page(outcome))
    write_json(folder / "summary.json", outcome.summary())


def _tables(outcome: StudyOutcome) -> dict[str, list[dict[str, Any]]]:
    """Rows of the CSV files, by file name."""
    epochs, work, products, costs = [], [], [], []
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
    return {"epochs": epochs, "work": work, "products": products, "costs": costs}


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
