"""Several runs as one study a workload: what a verdict and a page are made of.

A recipe is compared only within its workload, whose data, network and training settings
are the same. Recipes of several runs are put together as those of one study are; what of
them cannot be compared is left out and named.
"""

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from elision.common.checks import number
from elision.common.versioned import VERSION_KEY
from elision.study.compare import Compared, compared_rows
from elision.study.config import StudyConfig, file_name
from elision.study.costed import CostKind, StepSeconds, cost_kinds
from elision.study.energy import ACCOUNT
from elision.study.timing import TIMING
from elision.study.verdict import Verdict, standings
from elision.workloads import Metric

__all__ = ["Contest", "contests", "environments"]

#: Settings by which the recorded steps of two runs differ, so that sums over them do.
_RECORDED = ("record", "samples")

#: Settings that a run folder leaves out where they are the default.
_DEFAULTS = {field.name: field.default for field in fields(StudyConfig)}

#: What must be the same for the seconds of two runs to be compared.
_SAME_MACHINE = ("processor", "system", "threads", "capability", "torch")

_CYCLES, _ENERGY = "cycles", "energy_on_chip_pj"
_LOGICAL, _STORED = "saved_bytes_logical", "saved_bytes_stored"


@dataclass(frozen=True)
class Contest:
    """Recipes of one workload.

    Attributes:
        title: the workload's name, and where two have one name, how they differ.
        rows: recipe with what sets it apart -> its row, in the order of the runs. The
            first is the one that the others are compared with.
        notes: what is not compared, and why, a sentence each.
        summary: the rows as in a study's ``summary.json``.
        step: seconds of a step, where they can be compared.

    Example:
        >>> row = Compared((), "w", "dense", Metric("loss"), [(0, 0.5)], {})
        >>> contest = Contest("w", {"dense": row}, (), {}, None)
        >>> contest.baseline
        'dense'
    """

    title: str
    rows: Mapping[str, Compared]
    notes: tuple[str, ...]
    summary: Mapping[str, Any]
    step: StepSeconds | None

    @property
    def baseline(self) -> str:
        """The recipe that the others are compared with."""
        return next(iter(self.rows))

    @property
    def metric(self) -> Metric:
        """Of the task."""
        return self.rows[self.baseline].metric

    @cached_property
    def kinds(self) -> list[CostKind]:
        """Every kind of cost that is known."""
        return cost_kinds(self.summary, self.baseline, self.step)

    @cached_property
    def verdict(self) -> Verdict:
        """Who wins at a cost, and how sure that is."""
        found = standings(self.summary, self.metric, self.baseline)
        return Verdict(self.metric, self.baseline, found, self.kinds)


def contests(runs: Iterable[Path]) -> list[Contest]:
    """The workloads of some runs, each with its recipes.

    Args:
        runs: run folders of studies and trainings, or their ``summary.json``.

    Raises:
        ValueError: as for :func:`elision.study.compared`.
    """
    places: dict[str, list[Compared]] = {}
    for row in compared_rows(runs):
        places.setdefault(row.place, []).append(row)
    titles = _titles([rows[0] for rows in places.values()])
    return [
        _contest(title, rows)
        for title, rows in zip(titles, places.values(), strict=True)
    ]


def environments(found: Sequence[Contest]) -> list[dict[str, Any]]:
    """Where the runs ran, a row each, by what they ran, as far as their folders say it."""
    held: dict[Path, dict[str, list[str]]] = {}
    for contest in found:
        for label, row in contest.rows.items():
            for run in row.runs:
                facts = held.setdefault(
                    run.folder,
                    {
                        "workload": [contest.title],
                        "recipes": [],
                        "seeds": [", ".join(map(str, run.seeds))],
                        "folder": [run.name],
                    },
                )
                facts["recipes"].append(label)
    shown = ("started", "elision", "commit", "torch", "processor", "threads")
    return [
        {key: "; ".join(values) for key, values in facts.items()}
        | {
            key: str(env[key])
            for env in [_environment(folder)]
            for key in shown
            if key in env
        }
        for folder, facts in held.items()
    ]


def _titles(firsts: Sequence[Compared]) -> list[str]:
    """Names of the workloads, with the settings by which those of one name differ."""
    found = []
    for row in firsts:
        alike = [other for other in firsts if other.workload == row.workload]
        differing = _differing([_table(other) for other in alike])
        said = ", ".join(f"{k}={_table(row).get(k, 'default')}" for k in differing)
        found.append(f"{row.workload} ({said})" if said else row.workload)
    return found


def _table(row: Compared) -> dict[str, Any]:
    """The workload's settings; of a summary alone, that they are not known."""
    table = row.settings.get("workload")
    return table if isinstance(table, dict) else {"settings": "known by its name alone"}


def _differing(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all tables."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return [k for k in keys if any(t.get(k) != tables[0].get(k) for t in tables)]


def _contest(title: str, rows: Sequence[Compared]) -> Contest:
    labelled = dict(zip(_labels(rows), rows, strict=True))
    notes = [
        *dict.fromkeys(said for row in rows for said in row.unfinished),
        *(
            f"{name} has the same seeds and scores of {'; '.join(labels)} as another run, "
            "and counts once."
            for name, labels in _copies(labelled).items()
        ),
        *(
            f"{label} ran more than once, with other results, at seed "
            f"{', '.join(map(str, row.repeated))}: the mean counts."
            for label, row in labelled.items()
            if row.repeated
        ),
    ]
    step = _step_seconds(labelled, notes)
    summary = _as_one_study(labelled, notes)
    return Contest(title, labelled, tuple(notes), summary, step)


def _copies(rows: Mapping[str, Compared]) -> dict[str, list[str]]:
    """Recipes by the run that is a copy of another."""
    found: dict[str, list[str]] = {}
    for label, row in rows.items():
        for name in row.twice:
            found.setdefault(name, []).append(label)
    return found


def _labels(rows: Sequence[Compared]) -> list[str]:
    """Recipes, with the settings by which those of one spec differ."""
    found: list[str] = []
    for row in rows:
        alike = [other for other in rows if other.recipe == row.recipe]
        differing = _differing([other.settings for other in alike])
        said = [f"{k}={row.settings.get(k, _DEFAULTS.get(k))}" for k in differing]
        label = ", ".join([row.recipe, *said])
        found.append(label if label not in found else f"{label}, {row.runs[0].name}")
    return found


def _as_one_study(rows: Mapping[str, Compared], notes: list[str]) -> dict[str, Any]:
    """The rows as one study's summary; sums over other recorded steps are left out."""
    base = next(iter(rows.values()))
    recipes, machines = {}, {}
    for label, row in rows.items():
        recipes[label] = {
            row.metric.name: row.mean,
            f"{row.metric.name}_by_seed": [score for _, score in row.scores],
            "seeds": [seed for seed, _ in row.scores],
            "training_macs_ratio": row.quantities.get("training_macs_ratio"),
        }
        if _LOGICAL in row.quantities:
            recipes[label]["saved_bytes"] = {
                "logical": row.quantities[_LOGICAL],
                "stored": row.quantities[_STORED],
            }
        costs = dict(_machines(row))
        if other := [
            k for k in _RECORDED if row.settings.get(k) != base.settings.get(k)
        ]:
            if costs:
                notes.append(
                    f"Cycles and energy of {label} are left out: its runs recorded other steps "
                    f"({', '.join(f'{k}={row.settings.get(k, _DEFAULTS[k])}' for k in other)})."
                )
            continue
        for machine, total in costs.items():
            machines.setdefault(machine, {})[label] = {"total": total}
    for machine, known in machines.items():
        if without := [label for label in rows if label not in known]:
            notes.append(
                f"Cycles and energy on {machine} are not known of: {'; '.join(without)}."
            )
    baseline = next(iter(rows))
    if machines and not any(baseline in known for known in machines.values()):
        notes.append(
            f"No run simulated {baseline}, so that cycles and energy of the others have "
            "nothing to be compared with."
        )
    without = [label for label in rows if "saved_bytes" not in recipes[label]]
    if 0 < len(without) < len(rows):
        notes.append(
            f"Bytes kept are not known of what ran without --memory: {'; '.join(without)}."
        )
    return {"recipes": recipes, "accelerators": machines}


def _machines(row: Compared) -> Iterator[tuple[str, dict[str, float]]]:
    """Cycles and energy on chip of each machine."""
    for name, cycles in row.quantities.items():
        machine, _, quantity = name.rpartition(" ")
        energy = row.quantities.get(f"{machine} {_ENERGY}")
        if quantity == _CYCLES and energy is not None:
            yield machine, {_CYCLES: cycles, _ENERGY: energy}


@dataclass(frozen=True)
class _Seconds:
    """Seconds of a step of one recipe, and what they can be compared with."""

    clock: str
    machine: str
    seconds: float
    dense: float | None = None


def _step_seconds(rows: Mapping[str, Compared], notes: list[str]) -> StepSeconds | None:
    """Seconds of a step over those of the first recipe, all on one machine.

    Beside the same network's dense step, where the probe ``speed`` looked at every recipe.
    """
    engines = {row.settings.get("engine", "torch") for row in rows.values()}
    probed = {label: _probed(row) for label, row in rows.items()}
    if all(found is not None for found in probed.values()):
        ratios = {s: f.seconds / f.dense for s, f in probed.items() if f and f.dense}
        clocks = dict.fromkeys(f.clock for f in probed.values() if f)
        return StepSeconds(" and ".join(clocks), ratios, masked=False)
    measured = {label: _trained(row) for label, row in rows.items()}
    base = next(iter(measured.values()))
    if base is None or not base.seconds:
        return None
    ratios, elsewhere = {}, []
    for label, found in measured.items():
        if found is None:
            continue
        if (found.clock, found.machine) == (base.clock, base.machine):
            ratios[label] = found.seconds / base.seconds
        else:
            elsewhere.append(label)
    if elsewhere:
        notes.append(
            "Seconds were measured on another machine, or with other threads, than those "
            f"of {next(iter(rows))}: {'; '.join(elsewhere)}."
        )
    return StepSeconds(
        base.clock, ratios, masked="torch" in engines, of=next(iter(rows))
    )


def _trained(row: Compared) -> _Seconds | None:
    """Seconds of a step as a recipe was trained: the mean over the runs of one machine."""
    found: list[_Seconds] = []
    for name, folder, recipe, _ in row.runs:
        if name in row.twice:
            continue
        env = _environment(folder)
        machine = json.dumps([env.get(key) for key in _SAME_MACHINE])
        own = None
        if env.get("threads") == 1 and row.settings.get("device", "cpu") == "cpu":
            by_seed = _values(folder / ACCOUNT, "recipes", recipe)
            own = next(
                (_values_of(v, "step_cpu_seconds") for v in by_seed.values()), None
            )
        if own is not None:
            found.append(_Seconds("processor seconds", machine, own))
        elif (wall := _values_of(_timing(folder), recipe)) is not None:
            found.append(_Seconds("seconds by the wall clock", machine, wall))
    alike = [
        s for s in found if (s.clock, s.machine) == (found[0].clock, found[0].machine)
    ]
    if not alike:
        return None
    mean = statistics.fmean(s.seconds for s in alike)
    return _Seconds(alike[0].clock, alike[0].machine, mean)


def _probed(row: Compared) -> _Seconds | None:
    """What the probe ``speed`` measured of a recipe in the first run that has it."""
    for _, folder, recipe, _ in row.runs:
        place = folder / "recipes" / file_name(recipe)
        for path in sorted(place.glob("probe-speed*.json")):
            found = _values(path)
            seconds = found.get("seconds")
            own, dense = (_values_of(seconds, name) for name in ("engine", "dense"))
            if own is not None and dense:
                clock = {"CPU": "processor seconds"}.get(
                    str(found.get("clock")), "seconds by the wall clock"
                )
                return _Seconds(clock, "", own, dense)
    return None


def _timing(folder: Path) -> dict[str, Any]:
    """Seconds of a step by the wall clock, by recipe; of older runs, the file's own table."""
    found = _values(folder / TIMING)
    return _values(folder / TIMING, "step_seconds") if VERSION_KEY in found else found


def _environment(folder: Path) -> dict[str, Any]:
    return _values(folder / "env.json")


def _values(path: Path, *keys: str) -> dict[str, Any]:
    """A table of a file that a comparison can do without; empty where there is none."""
    found: Any = {}
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _values_of(table: Any, key: str) -> float | None:
    """A number >= 0 of a table, if it is one."""
    value = table.get(key) if isinstance(table, dict) else None
    with suppress(ValueError):
        found = number("run", key, value, ">= 0")
        return found if math.isfinite(found) else None
    return None
