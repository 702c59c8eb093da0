"""compare: the recipes of several runs, a row a configuration.

Runs of one configuration at other seeds are one row: its metric is the mean over all
their seeds, everything else the mean over the runs, of which a copy is none.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from elision.common.checks import integer, number
from elision.common.locking import is_held
from elision.common.toml import from_toml
from elision.products import Product
from elision.study import folder as runfolder
from elision.study.config import told_once
from elision.study.outcome import (
    USUAL_METRIC,
    deviation,
    read_summary,
)
from elision.workloads import TASKS, Metric

__all__ = ["Compared", "Ran", "compared", "compared_rows"]

#: Settings that may differ between runs of one configuration, and those that the resolved
#: workload says.
_FREE = ("seed", "seeds", "recipes", "accelerators", "probes")
_RESOLVED = ("workload", "epochs", "data")


class Ran(NamedTuple):
    """A run's part in a row.

    Attributes:
        name: of its folder, with those above where two have one name.
        folder: of the run.
        recipe: as the run spells it.
        seeds: that it ran.

    Example:
        >>> Ran("a", Path("runs/a"), "swat(0.9)", (0, 1)).seeds
        (0, 1)
    """

    name: str
    folder: Path
    recipe: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Compared:
    """A recipe over all runs of one configuration.

    Attributes:
        runs: that the row is of.
        workload: its name.
        recipe: its spec, as the first run spells it.
        metric: of the task.
        scores: the metric at the end of training, a pair with each seed; NaN where a run
            diverged; of a seed that ran twice with two results, their mean.
        quantities: training work over dense work, shares of RCPs (both in [0, 1]), bytes
            kept for the backward pass, by plain autograd and under the run's policy, and
            cycles and energy in pJ (on chip, and of the DRAM) of each machine; the mean
            over the runs.
        settings: of the runs, but for those that may differ; ``"workload"`` is its
            table, or its name where only a summary is known.
        twice: names of runs whose every seed and score another one has, too.
        repeated: seeds that ran more than once, with other results.
        unfinished: of each run whose summary lacks recipes or seeds, what it lacks.

    Example:
        >>> metric = Metric("test_accuracy", percent=True)
        >>> dense = Compared((), "w", "dense", metric, [(0, 0.75)], {})
        >>> swat = Compared((), "w", "swat", metric, [(0, 0.5), (1, 0.75)], {})
        >>> swat.mean, swat.difference_text(dense)  # of seed 0, which both have
        (0.625, '-25.0 points')
    """

    runs: tuple[Ran, ...]
    workload: str
    recipe: str
    metric: Metric
    scores: Sequence[tuple[int, float]]
    quantities: dict[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    twice: tuple[str, ...] = ()
    repeated: tuple[int, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        """Names of the runs, in a line."""
        return ", ".join(run.name for run in self.runs)

    @property
    def place(self) -> str:
        """What recipes must have in common to be compared: the workload, whole."""
        return json.dumps(self.settings.get("workload", self.workload), sort_keys=True)

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return statistics.fmean(score for _, score in self.scores)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the scores; None of a single one, or if one is NaN."""
        return deviation([score for _, score in self.scores])

    def difference_text(self, other: "Compared") -> str:
        """The mean less that of another recipe, and its spread where it is known.

        Over the seeds that both have, with the standard deviation of the differences seed
        by seed; without a seed in common, the difference of the two means alone.
        """
        own, its = dict(self.scores), dict(other.scores)
        lost = math.isnan(self.mean) or math.isnan(other.mean)
        shared = [] if lost else [seed for seed in own if seed in its]
        if shared:
            spread = deviation([own[seed] - its[seed] for seed in shared])
            means = [statistics.fmean(of[seed] for seed in shared) for of in (own, its)]
            return self.metric.difference_text(means[0], means[1], spread)
        return self.metric.difference_text(self.mean, other.mean)

    def to_row(self) -> dict[str, Any]:
        """Plain values, for files."""
        row: dict[str, Any] = {
            "run": self.names,
            "workload": self.workload,
            "recipe": self.recipe,
            self.metric.name: self.mean,
            f"{self.metric.name}_spread": self.spread,
            "seeds": len(self.scores),
        }
        return row | self.quantities


def compared(runs: Iterable[Path]) -> list[dict[str, Any]]:
    """One row for every recipe of every configuration that was run.

    Args:
        runs: run folders of studies and trainings, or their ``summary.json``.

    Returns:
        Rows of the runs, the recipe, its metric (mean over seeds, and standard
        deviation if there are several), the number of seeds, its training work and the
        share of RCPs of each product (shares in [0, 1]), and the cycles and energy in
        pJ, on chip and of the DRAM where it is modelled, of each machine that the run
        simulated.

    Raises:
        ValueError: no run is given, or a file is not a summary of this version; a line
            for each.
    """
    return [row.to_row() for row in compared_rows(runs)]


def compared_rows(runs: Iterable[Path]) -> list[Compared]:
    """The rows of :func:`compared` as objects; see there."""
    once = {_summary_path(Path(run)).resolve(): Path(run) for run in runs}
    if not once:
        raise ValueError("compare: give at least one run folder")
    names = _names([place.parent for place in once])
    groups: dict[str, list[Compared]] = {}
    refused: list[str] = []
    spelt = _Spellings()
    for run, name in zip(once.values(), names, strict=True):
        try:
            for key, row in _rows(run, name, spelt):
                groups.setdefault(key, []).append(row)
        except ValueError as error:
            refused.append(str(error))
    if refused:
        raise ValueError("\n".join(refused))
    return [_pooled(rows) for rows in groups.values()]


class _Spellings:
    """The first spelling of specs that say the same: swat(0.9) and swat:sparsity=0.9."""

    def __init__(self) -> None:
        self._firsts: dict[str, list[str]] = {}

    def __call__(self, kind: str, spec: str) -> str:
        """The first that said what a spec says; a name of no known thing is itself."""
        firsts = self._firsts.setdefault(kind, [])
        for first in firsts:
            with suppress(ValueError):
                if first == spec or len(told_once(kind, [first, spec])) == 1:
                    return first
        firsts.append(spec)
        return spec


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of folders, with as many of those above as tell them apart.

    Example:
        >>> _names([Path("/a/run"), Path("/b/run"), Path("/b/other")])
        ['a/run', 'b/run', 'other']
    """
    found = []
    for folder in folders:
        parts, others = folder.parts, [other for other in folders if other != folder]
        deep = next(
            n
            for n in range(1, len(parts) + 1)
            if n == len(parts) or all(o.parts[-n:] != parts[-n:] for o in others)
        )
        found.append("/".join(parts[-deep:]))
    return found


def _pooled(rows: list[Compared]) -> Compared:
    """Runs of one configuration as one row."""
    first, twice = rows[0], _twice(rows)
    by_seed: dict[int, dict[float, None]] = {}
    for row in rows:
        for seed, score in row.scores:
            # A seed that ran twice with one result is one run, looked at twice.
            by_seed.setdefault(seed, {})[score] = None
    # A copy says only what the others do not.
    own = [row for row in rows if row.runs[0].name not in twice]
    ordered = [*own, *(row for row in rows if row not in own)]
    names = dict.fromkeys(name for row in ordered for name in row.quantities)
    quantities = {}
    for name in names:
        values = [r.quantities[name] for r in own if name in r.quantities] or [
            r.quantities[name] for r in rows if name in r.quantities
        ]
        same = len(set(values)) == 1
        quantities[name] = values[0] if same else statistics.fmean(values)
    return replace(
        first,
        runs=tuple(run for row in rows for run in row.runs),
        scores=[(seed, statistics.fmean(found)) for seed, found in by_seed.items()],
        quantities=quantities,
        twice=twice,
        repeated=tuple(seed for seed, found in by_seed.items() if len(found) > 1),
        unfinished=tuple(said for row in rows for said in row.unfinished),
    )


def _twice(rows: list[Compared]) -> tuple[str, ...]:
    """Names of the runs that add no seed to those before them."""
    known: set[tuple[int, float]] = set()
    found = []
    for row in rows:
        if known.issuperset(row.scores):
            found += [run.name for run in row.runs]
        known.update(row.scores)
    return tuple(found)


def _summary_path(run: Path) -> Path:
    return run / "summary.json" if run.is_dir() else run


def _rows(run: Path, name: str, spelt: "_Spellings") -> list[tuple[str, Compared]]:
    """Every recipe of a run, under a key that runs of its configuration share."""
    path = _summary_path(run)
    summary = _summary(run, path)
    try:
        return _rows_of(path, name, summary, spelt)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not the summary of a run ({said})") from error


def _rows_of(
    path: Path, name: str, summary: dict[str, Any], spelt: "_Spellings"
) -> list[tuple[str, Compared]]:
    metric = _metric(summary.get("metric", USUAL_METRIC))
    recipes, settings, asked = _configuration(path.parent, summary)
    known = [recipe for recipe in recipes if recipe in summary["recipes"]]
    if not known:
        raise ValueError("none of its recipes is finished")
    lacking = ", ".join(recipe for recipe in recipes if recipe not in known)
    seeds = summary.get("seeds", 1)
    machines = {
        spelt("accelerator", _word(machine)): costs
        for machine, costs in summary["accelerators"].items()
    }
    unfinished = []
    if lacking:
        unfinished.append(f"{name} has not finished {lacking}, which no row is of.")
    if asked != seeds:
        unfinished.append(f"{name} has finished {seeds} of its {asked} seeds.")
    return [
        (
            json.dumps([one, settings], sort_keys=True),
            Compared(
                (Ran(name, path.parent, recipe, tuple(seed for seed, _ in scores)),),
                _word(summary["workload"]),
                one,
                metric,
                scores,
                _quantities(recipe, found, machines),
                settings,
                unfinished=tuple(unfinished),
            ),
        )
        for recipe in known
        for found in [summary["recipes"][recipe]]
        for scores in [_scores(found, metric, summary)]
        for one in [spelt("recipe", _word(recipe))]
    ]


def _quantities(
    recipe: str, found: dict[str, Any], machines: dict[str, Any]
) -> dict[str, float]:
    """Work, shares of RCPs and costs of a recipe; none of one that diverged."""
    if found["products"] is None:
        return {}
    work = {"training_macs_ratio": found["training_macs_ratio"]}
    shares = {
        f"rcp_{p.value}": found["products"][p.value]["rcp_fraction"] for p in Product
    }
    costs = {
        f"{machine} {quantity}": value
        for machine, of_recipes in machines.items()
        for quantity in ("cycles", "energy_on_chip_pj", "energy_dram_pj")
        # A machine that does not model its DRAM has no energy of it.
        if (value := of_recipes[recipe]["total"].get(quantity)) is not None
    }
    kept = {
        f"saved_bytes_{which}": found["saved_bytes"][which]
        for which in ("logical", "stored")
        if "saved_bytes" in found
    }
    return {name: _value(v) for name, v in (work | shares | kept | costs).items()}


def _summary(run: Path, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{run}: {_without_summary(run)}")
    return read_summary(path)


def _without_summary(run: Path) -> str:
    """What a path is that has no summary, and what to do."""
    if not run.exists():
        return "no such run folder"
    if not run.is_dir():
        return "neither a run folder nor its summary.json"
    if is_held(run):
        return "still trains and has no summary.json yet; compare it when it has ended"
    if (run / "config.toml").is_file():
        return (
            "was interrupted before it had a summary.json; its command goes on with it, "
            f"and elision report {run} --out FILE.html shows what is finished"
        )
    below = sorted(found.parent for found in run.glob("*/summary.json"))
    if below:
        return (
            f"no run folder, but it holds some; give them: {' '.join(map(str, below))}"
        )
    return "no run folder (there is no summary.json in it)"


def _metric(name: str) -> Metric:
    known = {task.metric.name: task.metric for task in TASKS.values()}
    return known.get(name, Metric(name))


def _configuration(
    folder: Path, summary: dict[str, Any]
) -> tuple[list[str], dict[str, Any], int]:
    """Recipes in the run's order, what runs of one configuration share, asked seeds."""
    try:
        found = runfolder.configuration(folder)
        resolved = from_toml((folder / "workload.toml").read_text(encoding="utf-8"))
        workload = resolved.get("workload", resolved)
    except (ValueError, OSError):  # the summary alone
        facts = {name: summary.get(name) for name in ("workload", "execution")}
        return list(summary["recipes"]), facts, summary.get("seeds", 1)
    settings = {k: v for k, v in found.items() if k not in (*_FREE, *_RESOLVED)}
    seeds = found.get("seeds", 1)
    asked = len(seeds) if isinstance(seeds, list) else seeds
    return found["recipes"], settings | {"workload": workload}, asked


def _scores(
    found: dict[str, Any], metric: Metric, summary: dict[str, Any]
) -> list[tuple[int, float]]:
    """Seeds and the metric at each; JSON has None for NaN."""
    scores = found.get(f"{metric.name}_by_seed", [found[metric.name]])
    first = integer("summary", "seed", summary.get("seed", 0), ">= 0")
    seeds = summary.get("all_seeds", range(first, first + len(scores)))
    if not scores or len(scores) != summary.get("seeds", 1):
        raise ValueError(f"it has {len(scores)} scores of a recipe")
    return [
        (
            integer("summary", "seed", seed, ">= 0"),
            math.nan if score is None else _value(score),
        )
        for seed, score in zip(seeds, scores, strict=True)
    ]


def _value(value: Any) -> float:
    """A number of a summary as it is; anything else is refused."""
    number("summary", "value", value, "(-inf, inf)")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a name is {value!r}, no text")
    return value
