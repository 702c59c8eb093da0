"""Energy of a training run by epoch, kept beside its checkpoint.

It differs from run to run, as seconds do, so it is in no checkpoint and changes no
result. What every process spent on an epoch is added up: a run that was interrupted costs
what it cost, the epoch that was begun twice included. Only what a process had not written
when it was killed outright is lost.
"""

import functools
import json
import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from elision.common.checks import integer, number
from elision.common.files import write_json
from elision.common.versioned import versioned
from elision.energy import Energy, measured
from elision.energy.amount import PROCESS
from elision.training.ranks import Ranks

__all__ = ["SPENT", "EpochEnergy", "Spent", "read_spent", "spent_under"]

_log = logging.getLogger("elision")

#: File of a run beside its checkpoint.
SPENT = "energy-by-epoch.json"


@dataclass(frozen=True)
class EpochEnergy:
    """Energy of one epoch of training, its test included, over all processes.

    Attributes:
        energy: of all that was done, metering, recording and the test included.
        plain_steps: steps that were neither metered nor recorded.
        step_cpu_seconds: median processor time of these in this process; None without one.

    Raises:
        ValueError: a number is below zero or not one.

    Example:
        >>> spent = EpochEnergy(Energy(1, 5, ("estimated",), "process"), 7, 0.25)
        >>> EpochEnergy.from_dict(spent.to_dict()) == spent
        True
    """

    energy: Energy
    plain_steps: int = 0
    step_cpu_seconds: float | None = None

    def __post_init__(self) -> None:
        integer("EpochEnergy", "plain_steps", self.plain_steps, ">= 0")
        if self.step_cpu_seconds is not None:
            number("EpochEnergy", "step_cpu_seconds", self.step_cpu_seconds, ">= 0")

    def __add__(self, later: "EpochEnergy") -> "EpochEnergy":
        """Both, of one epoch that was begun again; the later process's steps stand."""
        steps = later if later.plain_steps else self
        return replace(steps, energy=self.energy + later.energy)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "energy": self.energy.to_dict(),
            "plain_steps": self.plain_steps,
            "step_cpu_seconds": self.step_cpu_seconds,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EpochEnergy":
        """The epoch that :meth:`to_dict` wrote."""
        plain: dict[str, Any] = values | {"energy": Energy.from_dict(values["energy"])}
        return cls(**plain)


def read_spent(folder: Path) -> dict[int, EpochEnergy]:
    """Energy of every epoch that a run's folder knows of; empty of an older run.

    A damaged file is told in one line of the log, and counts as none.
    """
    path = folder / SPENT
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["epochs"]
        return {int(epoch): EpochEnergy.from_dict(v) for epoch, v in kept.items()}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        _tell(path, str(error))
        return {}


@functools.cache  # once, though a page and a table read it again
def _tell(path: Path, reason: str) -> None:
    _log.warning(
        "%s: is no account of a run's energy (%s); the energy is that of the epochs to "
        "come",
        path,
        reason,
    )


def spent_under(folder: Path) -> Energy | None:
    """Energy of every training run below a folder: of a study, or of a search's trials.

    Args:
        folder: searched through to its depth.

    Returns:
        The sum; None where no run has an account.
    """
    return Energy.total(
        epoch.energy
        for path in sorted(folder.rglob(SPENT))
        for epoch in read_spent(path.parent).values()
    )


class Spent:
    """Account of a run's energy.

    Attributes:
        epochs: energy by epoch, of this process and those before it.

    Example:
        >>> spent = Spent(None, Ranks(), torch.device("cpu"))
        >>> with spent.epoch(0), spent.step(plain=True):
        ...     _ = sum(range(1000))
        >>> spent.epochs[0].plain_steps, spent.epochs[0].energy.scope in ("process", "machine")
        (1, True)
    """

    def __init__(self, folder: Path | None, ranks: Ranks, device: torch.device) -> None:
        self._folder, self._ranks, self._device = folder, ranks, device
        self._steps: list[float] = []
        known = folder is not None and ranks.is_first
        self.epochs: dict[int, EpochEnergy] = read_spent(folder) if known else {}  # pyright: ignore[reportArgumentType]

    @contextmanager
    def epoch(self, number: int) -> Iterator[None]:
        """Account for an epoch, and write the account; also where it ends in an error."""
        self._steps, done = [], False
        with measured(self._device) as reading:
            try:
                yield
                done = True
            finally:
                energy = reading.energy
                if done:
                    ranks = self._ranks.gather((self._ranks.local, energy))
                    energy = together(ranks)
                self._add(number, energy)

    @contextmanager
    def step(self, *, plain: bool) -> Iterator[None]:
        """Time a step; only one that is neither metered nor recorded counts as plain."""
        began = time.process_time()
        yield
        if plain:
            self._steps.append(time.process_time() - began)

    def _add(self, number: int, energy: Energy) -> None:
        median = statistics.median(self._steps) if self._steps else None
        more = EpochEnergy(energy, len(self._steps), median)
        before = self.epochs.get(number)
        self.epochs[number] = more if before is None else before + more
        if self._folder is not None and self._ranks.is_first:
            self._folder.mkdir(parents=True, exist_ok=True)
            kept = {str(n): epoch.to_dict() for n, epoch in self.epochs.items()}
            write_json(self._folder / SPENT, versioned({"epochs": kept}))


def together(by_rank: list[tuple[int, Energy]]) -> Energy:
    """Energy of all ranks of a step they shared.

    A machine's counter sees all of its ranks: it counts once, by the machine's first rank.
    The others add their processor time. The wall clock is that of the slowest.

    Args:
        by_rank: place among the ranks of its machine, and energy, of each rank.

    Example:
        >>> counter = Energy(8, 8, ("RAPL",), "machine", cpu_seconds=2, wall_seconds=3)
        >>> both = together([(0, counter), (1, counter)])
        >>> both.low_joules, both.cpu_seconds, both.wall_seconds
        (8.0, 4, 3)
    """
    found = None
    for local, energy in by_rank:
        counts = local == 0 or energy.scope == PROCESS
        own = energy if counts else replace(energy, low_joules=0.0, high_joules=0.0)
        found = own if found is None else found + own
    assert found is not None, "a run has a rank"
    return replace(found, wall_seconds=max(e.wall_seconds for _, e in by_rank))
