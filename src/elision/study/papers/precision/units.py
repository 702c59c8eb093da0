"""The units of the precision study, each run once: trainings, and what stands beside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elision.study.config import file_name
from elision.study.papers.base import Progress, Report
from elision.study.papers.once import once
from elision.study.papers.precision.between import (
    k_tanh_errors,
    k_tanh_lstm,
    softmax_losses,
)
from elision.study.papers.precision.runs import trained
from elision.study.papers.precision.ternary import residual_networks
from elision.workloads import Dataset, Workload

__all__ = ["BETWEEN", "Units"]

#: Parts beside the trainings and the ternary networks, and what they train on digits.
BETWEEN: dict[str, dict[str, Any]] = {
    "k_tanh": {},
    "lstm": {"model": "lstm", "learning_rate": 0.2},
    "softmax": {"model": "cnn"},
}


@dataclass
class Units:
    """Runs the units that are missing in a folder, and counts them.

    Attributes:
        folder: one JSON file a unit.
        workloads: by network.
        recipes: of the trainings.
        seeds: of the trainings.
        progress: called after each unit.
        report: called with a line for each unit.

    Example:
        >>> from pathlib import Path
        >>> from elision.study.papers.base import silent
        >>> Units(Path("runs"), {}, ("dense",), (0, 1), silent, silent).count
        3
    """

    folder: Path
    workloads: Mapping[str, Workload]
    recipes: Sequence[str]
    seeds: Sequence[int]
    progress: Progress
    report: Report
    done: int = 0

    @property
    def count(self) -> int:
        """Units in all: trainings, a ternary part for each network, and the others."""
        trainings = len(self.recipes) * len(self.seeds) + 1
        return len(self.workloads) * trainings + len(BETWEEN)

    def trainings(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Results of :func:`~.runs.trained`: network -> recipe -> one a seed."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for network, workload in self.workloads.items():
            dataset = workload.load_dataset()
            runs = found[network] = {recipe: [] for recipe in self.recipes}
            # Seeds outside, so that an early stop leaves whole comparisons behind.
            for seed in self.seeds:
                for recipe in self.recipes:
                    runs[recipe].append(self._training(workload, dataset, recipe, seed))
        return found

    def _training(
        self, workload: Workload, dataset: Dataset, recipe: str, seed: int
    ) -> dict[str, Any]:
        settings = {
            "workload": workload.to_dict(),
            "data": dataset.source,
            "recipe": recipe,
            "seed": seed,
        }
        first = seed == self.seeds[0]
        name = f"{workload.name}-{file_name(recipe)}-{seed}"
        found = self._unit(
            name,
            settings,
            lambda: trained(workload, dataset, recipe, seed, prices=first),
        )
        final = found["accuracy"][-1]
        right = "diverged" if final is None else f"{100 * final:.1f} %"
        self.report(f"{workload.name}: {recipe}, seed {seed}: {right}")
        return found

    def ternary(self) -> dict[str, dict[str, Any]]:
        """Ternary residual networks of each network."""
        found = {}
        for network, workload in self.workloads.items():
            dataset = workload.load_dataset()
            settings = {"workload": workload.to_dict(), "data": dataset.source}
            found[network] = self._unit(
                f"{network}-ternary",
                settings,
                lambda w=workload, d=dataset: residual_networks(w, d),
            )
            self.report(f"{network}: ternary residual networks")
        return found

    def between(
        self, epochs: int, train_images: int, test_images: int
    ) -> dict[str, Any]:
        """Errors of K-TanH, an LSTM with it, and the losses; see :data:`BETWEEN`."""
        found: dict[str, Any] = {}
        for name, changes in BETWEEN.items():
            workload = Workload.from_dict(
                {
                    "name": name,
                    "dataset": "digits",
                    "model": "cnn",
                    "epochs": epochs,
                    "train_images": train_images,
                    "test_images": test_images,
                }
                | changes
            )
            dataset = workload.load_dataset()
            parts: dict[str, Callable[[], Mapping[str, Any]]] = {
                "k_tanh": k_tanh_errors,
                "lstm": lambda w=workload, d=dataset: k_tanh_lstm(w, d, self.seeds),
                "softmax": lambda w=workload, d=dataset: softmax_losses(
                    w, d, self.seeds
                ),
            }
            settings: dict[str, Any] = {"part": name}
            if name != "k_tanh":
                settings |= {"workload": workload.to_dict(), "seeds": [*self.seeds]}
            found[name] = self._unit(name, settings, parts[name])
            self.report(f"digits: {name.replace('_', '-')}")
        return found

    def _unit(
        self,
        name: str,
        settings: Mapping[str, Any],
        measure: Callable[[], Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Results alone; the file has the settings and the machine, too."""
        found = once(self.folder / f"{name}.json", settings, measure)
        self.done += 1
        self.progress(self.done, self.count)
        return {k: v for k, v in found.items() if k not in ("settings", "environment")}
