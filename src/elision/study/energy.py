"""Energy of a study's trainings: the account in its folder, and sums over epochs.

A run's energy is that of its training steps and tests, metering and recording included;
simulating and probing are not in it. It differs from run to run, as seconds do, so it is
no part of ``summary.json``.
"""

import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elision.common.files import write_json
from elision.common.versioned import versioned
from elision.energy import Energy, Grid, grid_named
from elision.study.outcome import RecipeOutcome
from elision.training.spent import EpochEnergy, spent_under

__all__ = [
    "EnergyCurve",
    "account",
    "account_of_search",
    "energy_curve",
    "energy_of",
    "kept_grid",
    "step_seconds",
]

_log = logging.getLogger("elision")

#: File of a run folder.
ACCOUNT = "energy.json"


def kept_grid(folder: Path, given: Grid | None) -> Grid:
    """The grid that was given, else that of the folder's account, else the default.

    A damaged account is told in one line of the log, and has none.
    """
    path = folder / ACCOUNT
    if given is not None or not path.is_file():
        return given or grid_named()
    try:
        return Grid(**json.loads(path.read_text(encoding="utf-8"))["grid"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning(
            "%s: is no account of a study's energy (%s); it is written anew, with the "
            "default grid",
            path,
            error,
        )
        return grid_named()


def energy_of(outcomes: Sequence[RecipeOutcome]) -> Energy | None:
    """Energy of all trainings of these recipes; None where nothing is known."""
    return Energy.total(
        epoch.energy
        for o in outcomes
        for epochs in o.spent.values()
        for epoch in epochs.values()
    )


def account(outcomes: Sequence[RecipeOutcome], grid: Grid) -> dict[str, Any]:
    """The account of a study as its folder keeps it: every run, and the sum.

    Args:
        outcomes: of the study's recipes.
        grid: PUE and intensity.
    """
    recipes: dict[str, dict[str, Any]] = {}
    for o in outcomes:
        for seed, epochs in o.spent.items():
            energy = Energy.total(epoch.energy for epoch in epochs.values())
            if energy is None:
                continue
            recipes.setdefault(o.spec, {})[str(seed)] = {
                **_with_grid(energy, grid),
                "epochs_known": len(epochs),
                "epochs": len(o.histories[seed]),
                "step_cpu_seconds": step_seconds(epochs),
            }
    total = energy_of(outcomes)
    facts = versioned({"grid": grid.to_dict(), "recipes": recipes})
    return facts | ({"total": _with_grid(total, grid)} if total is not None else {})


def account_of_search(folder: Path, grid: Grid | None = None) -> Energy | None:
    """Energy of a search's trials, all processes together; also written to its folder.

    Args:
        folder: the search's run folder, below which its trials were trained.
        grid: PUE and intensity; None: those of the folder's account, else the default.

    """
    energy, grid = spent_under(folder), kept_grid(folder, grid)
    if energy is not None:
        facts = {"grid": grid.to_dict(), "total": _with_grid(energy, grid)}
        write_json(folder / ACCOUNT, versioned(facts))
    return energy


def _with_grid(energy: Energy, grid: Grid) -> dict[str, Any]:
    return {
        "energy": energy.to_dict(),
        "kwh": list(grid.kwh(energy)),
        "co2e_g": list(grid.grams(energy)),
    }


def step_seconds(epochs: dict[int, EpochEnergy]) -> float | None:
    """Processor seconds of a step: median of the epochs' medians; None if unknown."""
    known = [
        e.step_cpu_seconds for e in epochs.values() if e.step_cpu_seconds is not None
    ]
    return statistics.median(known) if known else None


@dataclass(frozen=True)
class EnergyCurve:
    """What a recipe had come to after each epoch, and what had been spent, means of seeds.

    Attributes:
        scores: the task's metric after each epoch.
        cpu_seconds: processor seconds spent until then.
        watt_hours: lowest and highest energy spent until then, of the machine itself.

    Example:
        >>> EnergyCurve([0.5], [2.0], [(0.001, 0.005)]).watt_hours[-1]
        (0.001, 0.005)
    """

    scores: list[float]
    cpu_seconds: list[float]
    watt_hours: list[tuple[float, float]]


def energy_curve(o: RecipeOutcome) -> EnergyCurve | None:
    """Accuracy over energy of one recipe; None if an epoch's energy is not known."""
    runs = []
    for seed, history in o.histories.items():
        spent = o.spent.get(seed, {})
        if not all(epoch in spent for epoch in range(len(history))):
            return None
        so_far, sums = None, []
        for epoch in range(len(history)):
            more = spent[epoch].energy
            so_far = more if so_far is None else so_far + more
            sums.append(so_far)
        runs.append(([m.score for m in history], sums))
    per_epoch = list(zip(*(zip(*run, strict=True) for run in runs), strict=True))
    mean = statistics.fmean
    return EnergyCurve(
        [mean(score for score, _ in seeds) for seeds in per_epoch],
        [mean(energy.cpu_seconds for _, energy in seeds) for seeds in per_epoch],
        [
            (
                mean(energy.watt_hours[0] for _, energy in seeds),
                mean(energy.watt_hours[1] for _, energy in seeds),
            )
            for seeds in per_epoch
        ],
    )
