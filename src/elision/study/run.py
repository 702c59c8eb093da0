"""study: train under several recipes, record, simulate, compare, report.

The data goes one way::

    workload ──train──> history, work, trace ──simulate──> costs ──compare──> summary
                        (one recipe after another)  └─ probes ──> findings └──> report
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from elision.accelerators import ACCELERATORS, Accelerator
from elision.accelerators.simulate import simulate
from elision.common.files import to_csv, write_json, write_text
from elision.common.names import lookup
from elision.common.specs import build
from elision.layers.recipe import Recipe
from elision.layers.record import record
from elision.methods import is_external
from elision.products import Trace
from elision.products.describe import count
from elision.study import folder as runfolder
from elision.study.config import StudyConfig, file_name
from elision.study.outcome import RecipeOutcome, StudyOutcome, tables
from elision.study.probes import PROBES, Trained
from elision.training.checkpoint import EpochMetrics
from elision.training.loop import Progress, RunPlan, TrainResult, train
from elision.workloads import Dataset, Workload

__all__ = ["StudyProgress", "record_again", "study"]

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
    run = _Run.of(config)  # before the claim: data that is not there claims nothing
    for spec in config.recipes:
        run.method(spec)  # likewise a recipe of a module or file
    runfolder.claim(folder, {k: v for k, v in asdict(config).items() if v is not None})
    accelerators = {
        spec: build("accelerator", spec, ACCELERATORS) for spec in config.accelerators
    }
    outcomes: list[RecipeOutcome] = []
    trace = Trace({"study": asdict(config), "data": run.dataset.source})
    timing = _Timing(folder / "timing.json")
    for spec in config.recipes:
        told = None if progress is None else partial(progress, spec)
        result = run.train(spec, folder, told)
        timing.note(spec, result.step_seconds)
        trace.extend(result.trace, prefix=f"{spec}/", recipe=spec)
        findings = {
            probe: run.ask(probe, spec, result, folder) for probe in config.probes
        }
        method = run.method(spec)
        outcomes.append(_outcome(spec, method, result, accelerators, findings))
    trace.save(folder / "trace.safetensors")
    env = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    outcome = StudyOutcome(
        config, outcomes, env, timing.seconds, run.dataset.source, trace
    )
    _write(outcome, folder)
    return outcome


def record_again(folder: Path, recipe: str | None, samples: int) -> tuple[str, Trace]:
    """Record one more training step of a finished run, with its trained weights.

    Args:
        folder: of a study or a training.
        recipe: spec of one of its recipes; None for the first.
        samples: images of the step that are kept.

    Returns:
        The recipe's spec and the trace.

    Raises:
        ValueError: not a run folder, one that has not finished this recipe, or a recipe
            that the run does not have (lists those it has).
    """
    config = StudyConfig.from_toml(runfolder.configuration(folder))
    spec = config.recipes[0] if recipe is None else recipe
    lookup("recipe of this run", spec, dict.fromkeys(config.recipes))
    if not (folder / "summary.json").is_file():
        raise ValueError(f"{folder}: the run is not finished; the same command goes on")
    if is_external(spec):  # a folder may be somebody else's: import nothing it names
        raise ValueError(
            f"{folder}: recipe {spec!r} is no method that this version has"
        )
    run = _Run.of(config)
    model = run.train(spec, folder).model
    following = run.workload.train_batches(
        run.dataset, seed=config.seed, epoch=run.workload.epochs
    )
    images, labels = next(iter(following))
    facts = {"study": asdict(config), "recipe": spec, "data": run.dataset.source}
    with record(model.train(), samples=samples, about=facts) as trace:
        F.cross_entropy(model(images), labels).backward()
    return spec, trace


@dataclass(frozen=True)
class _Run:
    """What a configuration stands for, looked up once."""

    config: StudyConfig
    workload: Workload
    dataset: Dataset

    @classmethod
    def of(cls, config: StudyConfig) -> "_Run":
        workload = config.resolved_workload()
        return cls(config, workload, workload.load_dataset(config.data))

    def method(self, spec: str) -> Recipe:
        """The recipe of a spec, fitted to the length of the run."""
        per_epoch = self.workload.steps_per_epoch(self.dataset)
        return self.config.recipe(spec, self.workload.epochs * per_epoch)

    def train(
        self, spec: str, folder: Path, progress: Progress | None = None
    ) -> TrainResult:
        """Train a recipe, or what is left of it."""
        plan = RunPlan(
            seed=self.config.seed,
            record_epochs=self.config.recorded_epochs(),
            record_samples=self.config.samples,
        )
        return train(
            self.workload,
            self.method(spec),
            self.dataset,
            plan,
            folder=_recipe_folder(folder, spec),
            progress=progress,
        )

    def ask(
        self, probe: str, spec: str, result: TrainResult, folder: Path
    ) -> dict[str, Any]:
        """What a probe finds; from its file if it was asked before."""
        path = _recipe_folder(folder, spec) / f"probe-{file_name(probe)}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        trained = Trained(
            copy.deepcopy(result.model).train(),
            self.method(spec),
            self.workload,
            self.dataset,
            self.config.seed,
        )
        with torch.random.fork_rng():
            found = build("probe", probe, PROBES).ask(trained)
        write_json(path, found)
        return found


def _recipe_folder(folder: Path, spec: str) -> Path:
    return folder / "recipes" / file_name(spec)


def _outcome(
    spec: str,
    method: Recipe,
    result: TrainResult,
    accelerators: Mapping[str, Accelerator],
    findings: dict[str, dict[str, Any]],
) -> RecipeOutcome:
    products = list(result.trace.multiplied())
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
        findings,
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
    from elision.study.page.page import study_page

    lines = [
        json.dumps({"recipe": o.spec, **asdict(metrics)}, sort_keys=True)
        for o in outcome.outcomes
        for metrics in o.history
    ]
    write_text(folder / "metrics.jsonl", "\n".join(lines) + "\n")
    (folder / "tables").mkdir(exist_ok=True)
    for name, rows in tables(outcome).items():
        write_text(folder / "tables" / f"{name}.csv", to_csv(rows))
    write_text(folder / "report.html", study_page(outcome))
    write_json(folder / "summary.json", outcome.summary())
