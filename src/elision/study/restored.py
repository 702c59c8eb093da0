"""Outcome of a study from what its run folder holds; nothing is trained or simulated.

A run that was interrupted, or that is still at work, is restored as far as it went: the
recipes that are finished, at the seeds that all of them have, with the machines and probes
that are known of each.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from elision.accelerators.simulate import CostRow
from elision.common.files import load_facts, taken_apart
from elision.layers.recipe import Recipe
from elision.products import LayerProduct, Trace
from elision.study.config import StudyConfig, recipe_folder
from elision.study.energy import kept_grid
from elision.study.folder import kept_environment
from elision.study.kept_costs import COSTS, kept_costs
from elision.study.outcome import StudyOutcome, read_summary
from elision.study.run import (
    configured,
    kept_findings,
    kept_recipe,
    outcome_of,
    probe_file,
    teacher_named,
)
from elision.study.timing import Timing
from elision.training import checkpoint
from elision.training.checkpoint import EpochMetrics
from elision.training.loop import TrainResult
from elision.training.spent import read_spent

__all__ = ["Restored", "restored"]


@dataclass(frozen=True)
class Restored:
    """What a run folder comes to.

    Attributes:
        outcome: of what is finished; its configuration is that of a study of this alone.
        config: of the whole run.
        missing: what the run does not have yet, a sentence each; empty of a finished one.
    """

    outcome: StudyOutcome
    config: StudyConfig
    missing: tuple[str, ...]


def restored(folder: Path) -> Restored:
    """Read a run folder back.

    Args:
        folder: of a study or a training.

    Returns:
        The outcome of the recipes that are finished, and what is missing.

    Raises:
        ValueError: not the folder of a study, nothing in it is finished, a file is damaged
            or missing (the message names it), or the data or teacher that it names is not
            there.
    """
    config = configured(folder)
    found = _Found.of(folder, config)
    missing = list(found.missing)
    if not found.results:
        raise ValueError(
            f"{folder}: no recipe is finished, so that there is nothing to report; "
            f"{missing[0]}"
        )
    costs, machines = _machines(folder, found, config, missing)
    probes = _probes(folder, found, config, missing)
    first = next(iter(found.results))
    if first != config.recipes[0]:
        missing.append(
            f"{config.recipes[0]}, with which the whole run is compared: what follows is "
            f"compared with {first}"
        )
    shown = replace(
        config,
        recipes=tuple(found.results),
        seeds=found.seeds,
        accelerators=machines,
        probes=probes,
    )
    outcomes, trace = [], Trace({"study": shown.to_dict(), "data": found.source})
    for spec, results in found.results.items():
        place = recipe_folder(folder, spec)
        wanted = partial(
            _kept, rows=[r for r in costs[spec] if r.accelerator in machines]
        )
        # Nothing shows the recipe of a run that came to nothing.
        lost = results[found.seeds[0]].diverged is not None
        method = Recipe(spec) if lost else kept_recipe(place)
        outcome = outcome_of(spec, method, results, wanted)
        for probe in probes if outcome.finished else ():
            outcome.findings[probe] = kept_findings(probe_file(folder, spec, probe))
        outcomes.append(outcome)
        trace.extend(results[found.seeds[0]].trace, prefix=f"{spec}/", recipe=spec)
    if not any(o.finished for o in outcomes):
        raise ValueError(
            f"{folder}: every recipe that is finished diverged, so that there is nothing "
            "to report"
        )
    return Restored(
        StudyOutcome(
            shown,
            outcomes,
            kept_environment(folder),
            Timing(folder).seconds,
            found.source,
            trace,
            kept_grid(folder, None),
            None if config.teacher is None else teacher_named(config.teacher)[0],
        ),
        config,
        tuple(missing),
    )


@dataclass(frozen=True)
class _Found:
    """Trainings of a run folder that are finished.

    Attributes:
        results: by recipe and seed; the networks are left out.
        seeds: that all of these recipes have.
        source: of the data.
        missing: the recipes and seeds that are not finished, a sentence each.
    """

    results: dict[str, dict[int, TrainResult]]
    seeds: tuple[int, ...]
    source: str
    missing: list[str]

    def converged(self, seed: int) -> list[str]:
        """The recipes whose training at a seed did not diverge."""
        return [
            s for s, by_seed in self.results.items() if by_seed[seed].diverged is None
        ]

    @classmethod
    def of(cls, folder: Path, config: StudyConfig) -> "_Found":
        path, missing = folder / "summary.json", []
        summary = read_summary(path) if path.is_file() else {}
        finished: dict[str, dict[int, TrainResult]] = {}
        for spec in config.recipes:
            found = {}
            for seed in config.all_seeds():
                result = _result(folder, config, spec, seed, summary)
                if isinstance(result, str):
                    missing.append(result)
                else:
                    found[seed] = result
            first = found.get(config.seed)
            if first is None:
                continue
            if first.diverged is None and not _is_recorded(folder, spec):
                missing.append(f"{spec} is trained, and not recorded yet")
                continue
            finished[spec] = found
        seeds = tuple(
            seed
            for seed in config.all_seeds()
            if all(seed in found for found in finished.values())
        )
        shown = {
            spec: {seed: found[seed] for seed in seeds}
            for spec, found in finished.items()
        }
        return cls(shown, seeds, _source(folder, config) if shown else "", missing)


def _is_recorded(folder: Path, spec: str) -> bool:
    """Whether a study has gone past a recipe; the file is written after its training."""
    return (recipe_folder(folder, spec) / "recipe.toml").is_file()


def _result(
    folder: Path, config: StudyConfig, spec: str, seed: int, summary: dict[str, Any]
) -> TrainResult | str:
    """A training as its checkpoint has it; of one that is not finished, how far it is."""
    first = seed == config.seed
    place = recipe_folder(folder, spec)
    place = place if first else place / f"seed-{seed}"
    metric, epochs = config.metric.name, config.resolved_workload().epochs
    kept = checkpoint.kept(place, metric)
    of_recipe = summary.get("recipes", {}).get(spec, {})
    history, why = kept.history, None
    if len(history) < epochs:
        why = of_recipe.get("diverged", {}).get(str(seed))
        if why is None:
            name = f"{spec}, seed {seed}," if len(config.all_seeds()) > 1 else spec
            return f"{name} is at epoch {len(history)} of {epochs}"
        history = _history(folder / "metrics.jsonl", spec, seed, metric)
    recorded = first and why is None
    return TrainResult(
        nn.Identity(),
        history,
        kept.meter,
        checkpoint.kept_trace(place, epochs) if recorded else Trace(),
        saved_bytes=kept.saved_bytes,
        diverged=why,
        sent_ratio=of_recipe.get("gradients_dense_over_sent"),
        spent=read_spent(place),
    )


def _history(path: Path, spec: str, seed: int, metric: str) -> list[EpochMetrics]:
    """Metrics of a training that diverged, which its checkpoint has the beginning of."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it has the metrics of {spec}")
    with taken_apart(path, "no metrics of a run"):
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return [
            EpochMetrics(
                row["epoch"],
                _number(row["loss"]),
                _number(row[metric]),
                row["learning_rate"],
            )
            for row in rows
            if row["recipe"] == spec and row.get("seed", seed) == seed
        ]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _source(folder: Path, config: StudyConfig) -> str:
    """Origin of the data: as the run's trace has it, else as the data say."""
    path = folder / "trace.safetensors"
    if path.is_file():
        facts = load_facts(path, "trace")
        with taken_apart(path, "not the trace of a study"):
            return str(facts["about"]["data"])
    return config.resolved_workload().load_dataset(config.data).source


def _machines(
    folder: Path, found: _Found, config: StudyConfig, missing: list[str]
) -> tuple[dict[str, list[CostRow]], tuple[str, ...]]:
    """Kept costs of every recipe, and the machines that all of them have."""
    costs = {spec: kept_costs(recipe_folder(folder, spec)) for spec in found.results}
    finished = found.converged(config.seed)
    known = {spec: {row.accelerator for row in costs[spec]} for spec in finished}
    machines = tuple(
        machine
        for machine in config.accelerators
        if all(machine in known[spec] for spec in finished)
    )
    for spec in finished:
        without = [m for m in config.accelerators if m not in known[spec]]
        if without:
            missing.append(
                f"costs of {spec} on {', '.join(without)}: there is no {COSTS} that has "
                "them, as in runs of earlier versions; the study's command, started once "
                "more, writes it"
            )
    return costs, machines


def _probes(
    folder: Path, found: _Found, config: StudyConfig, missing: list[str]
) -> tuple[str, ...]:
    """The probes whose findings every finished recipe has."""
    known = []
    finished = found.converged(config.seed)
    for probe in config.probes:
        without = [s for s in finished if not probe_file(folder, s, probe).is_file()]
        if without:
            missing.append(f"the probe {probe} has not looked at {', '.join(without)}")
        else:
            known.append(probe)
    return tuple(known)


def _kept(products: Sequence[LayerProduct], *, rows: list[CostRow]) -> list[CostRow]:
    """The costs of products that were simulated before."""
    del products
    return rows
