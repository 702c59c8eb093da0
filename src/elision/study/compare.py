"""compare: the recipes of several runs in one table.

Runs of one configuration at other seeds are one row: its metric is the mean over all
their seeds, everything else the mean over the runs.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elision.common.checks import integer, number
from elision.common.toml import from_toml
from elision.common.units import common_unit
from elision.products import Product
from elision.study import folder as runfolder
from elision.study.outcome import (
    USUAL_METRIC,
    counted_seeds,
    deviation,
    read_summary,
)
from elision.workloads import TASKS, Metric

__all__ = ["Compared", "compared", "compared_rows", "people_rows"]

#: Settings that may differ between runs of one configuration, and those that the resolved
#: workload says.
_FREE = ("seed", "seeds", "recipes", "accelerators", "probes")
_RESOLVED = ("workload", "epochs", "data")


@dataclass(frozen=True)
class Compared:
    """A recipe over all runs of one configuration.

    Attributes:
        runs: names of the runs.
        workload: its name.
        recipe: its spec.
        metric: of the task.
        scores: the metric at the end of training, by seed; NaN where a run diverged.
        quantities: training work over dense work, shares of RCPs (both in [0, 1]), and
            cycles and energy in pJ (on chip, and of the DRAM) of each machine; the mean
            over the runs.
        settings: of the runs, but for those that may differ; ``"workload"`` is its
            table, or its name where only a summary is known.
        folders: of the runs.
        twice: names of runs whose every seed and score another one has, too.

    Example:
        >>> metric = Metric("test_accuracy", percent=True)
        >>> dense = Compared(("a",), "w", "dense", metric, [(0, 0.75)], {})
        >>> swat = Compared(("a", "b"), "w", "swat", metric, [(0, 0.5), (1, 0.75)], {})
        >>> swat.mean, swat.difference_text(dense)
        (0.625, '-12.5 points')
    """

    runs: tuple[str, ...]
    workload: str
    recipe: str
    metric: Metric
    scores: Sequence[tuple[int, float]]
    quantities: dict[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    twice: tuple[str, ...] = ()

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
        """The mean less that of another recipe, and its spread where both have one.

        The spread is that of the differences seed by seed where both have the same
        seeds, else that of the difference of two independent runs.
        """
        own, its = dict(self.scores), dict(other.scores)
        if own.keys() == its.keys() and len(own) == len(self.scores):
            spread = deviation([own[seed] - its[seed] for seed in own])
        elif self.spread is None or other.spread is None:
            spread = None
        else:
            spread = math.hypot(self.spread, other.spread)
        return self.metric.difference_text(self.mean, other.mean, spread)

    def to_row(self) -> dict[str, Any]:
        """Plain values, for files."""
        row: dict[str, Any] = {
            "run": ", ".join(self.runs),
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
        share of RCPs of each product (shares in [0, 1]), the cycles and energy in pJ, on
        chip and of the DRAM where it is modelled, of each machine that the run simulated,
        and, with a policy of saved activations, the bytes that plain autograd would keep
        and those that were kept.

    Raises:
        ValueError: no run is given, or a file is not a summary of this version; a line
            for each.
    """
    return [row.to_row() for row in compared_rows(runs)]


def compared_rows(runs: Iterable[Path]) -> list[Compared]:
    """The rows of :func:`compared` as objects; see there."""
    groups: dict[str, list[Compared]] = {}
    refused: list[str] = []
    once = {_summary_path(Path(run)).resolve(): Path(run) for run in runs}
    for run in once.values():
        try:
            for key, row in _rows(run):
                groups.setdefault(key, []).append(row)
        except ValueError as error:
            refused.append(str(error))
    if refused:
        raise ValueError("\n".join(refused))
    if not groups:
        raise ValueError("compare: give at least one run folder")
    return [_pooled(rows) for rows in groups.values()]


def people_rows(rows: Sequence[Compared]) -> list[dict[str, Any]]:
    """The rows as people read them: units, spreads, and the first row's difference.

    Each recipe is compared with the first one of its workload: of the same data, network
    and training settings.
    """
    first: dict[str, Compared] = {}
    energies = (q for r in rows for n, q in r.quantities.items() if n.endswith("_pj"))
    joules = common_unit(energies, "J", scale=1e-12)
    shown = []
    for row in rows:
        base = first.setdefault(row.place, row)
        metric = row.metric
        gap = "baseline" if base is row else row.difference_text(base)
        shown.append(
            {
                "run": ", ".join(row.runs),
                "workload": row.workload,
                "recipe": row.recipe,
                metric.label: metric.text(row.mean, row.spread),
                "against the first": gap,
                "seeds": counted_seeds(len(row.scores)),
            }
            | dict(_for_people(name, q, joules) for name, q in row.quantities.items())
        )
    return shown


def _for_people(name: str, value: float, joules: tuple[str, float]) -> tuple[str, Any]:
    """Heading and value of a quantity, energies in one unit."""
    if name in _SHARES:
        return _SHARES[name], f"{100 * value:.1f} %"
    if name.endswith("_pj"):
        unit, scale = joules
        machine, _, what = name.rpartition(" ")
        return f"{machine} {_ENERGIES[what]}, {unit}", value * scale
    return _BYTES.get(name, name), value


#: Headings of energies, and of the bytes of saved activations.
_ENERGIES = {
    "energy_on_chip_pj": "energy on chip",
    "energy_dram_pj": "energy of the DRAM",
}
_BYTES = {
    "saved_bytes_logical": "bytes of plain autograd",
    "saved_bytes_stored": "bytes kept",
}

#: Headings of the quantities that are shares.
_SHARES = {"training_macs_ratio": "training MACs"} | {
    f"rcp_{p.value}": f"RCP {p.value}" for p in Product
}


def _pooled(rows: list[Compared]) -> Compared:
    """Runs of one configuration as one row."""
    first = rows[0]
    # A seed that ran twice with one result is one run, looked at twice.
    scores = dict.fromkeys(pair for row in rows for pair in row.scores)
    names = dict.fromkeys(name for row in rows for name in row.quantities)
    found = {n: [r.quantities[n] for r in rows if n in r.quantities] for n in names}
    return Compared(
        tuple(name for row in rows for name in row.runs),
        first.workload,
        first.recipe,
        first.metric,
        list(scores),
        {
            n: v[0] if len(set(v)) == 1 else statistics.fmean(v)
            for n, v in found.items()
        },
        first.settings,
        tuple(folder for row in rows for folder in row.folders),
        _twice(rows),
    )


def _twice(rows: list[Compared]) -> tuple[str, ...]:
    """Names of the runs that add no seed to those before them."""
    known: set[tuple[int, float]] = set()
    found = []
    for row in rows:
        if known.issuperset(row.scores):
            found += row.runs
        known.update(row.scores)
    return tuple(found)


def _summary_path(run: Path) -> Path:
    return run / "summary.json" if run.is_dir() else run


def _rows(run: Path) -> list[tuple[str, Compared]]:
    """Every recipe of a run, under a key that runs of its configuration share."""
    path = _summary_path(run)
    summary = _summary(run, path)
    try:
        return _rows_of(path, summary)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not the summary of a run ({said})") from error


def _rows_of(path: Path, summary: dict[str, Any]) -> list[tuple[str, Compared]]:
    metric = _metric(summary.get("metric", USUAL_METRIC))
    recipes, settings = _configuration(path.parent, summary)
    return [
        (
            json.dumps([recipe, settings], sort_keys=True),
            Compared(
                (path.parent.name,),
                _word(summary["workload"]),
                _word(recipe),
                metric,
                _scores(found, metric, summary),
                _quantities(recipe, found, summary["accelerators"]),
                settings,
                (path.parent,),
            ),
        )
        for recipe in recipes
        for found in [summary["recipes"][recipe]]
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
    kept = {f"saved_bytes_{k}": v for k, v in found.get("saved_bytes", {}).items()}
    return {name: _value(v) for name, v in (work | shares | costs | kept).items()}


def _summary(run: Path, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{run}: no finished run (there is no {path})")
    return read_summary(path)


def _metric(name: str) -> Metric:
    known = {task.metric.name: task.metric for task in TASKS.values()}
    return known.get(name, Metric(name))


def _configuration(
    folder: Path, summary: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Recipes in the run's order, and what runs of one configuration have in common."""
    try:
        found = runfolder.configuration(folder)
        resolved = from_toml((folder / "workload.toml").read_text(encoding="utf-8"))
        workload = resolved.get("workload", resolved)
    except (ValueError, OSError):  # the summary alone
        facts = {name: summary.get(name) for name in ("workload", "execution")}
        return list(summary["recipes"]), facts
    settings = {k: v for k, v in found.items() if k not in (*_FREE, *_RESOLVED)}
    return found["recipes"], settings | {"workload": workload}


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
