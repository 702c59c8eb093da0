"""Probe: a measurement on a trained recipe while a study runs.

A study trains a recipe, runs its probes and goes on to the next. Findings are plain JSON,
kept beside the recipe's checkpoint, so that a study that was interrupted does not measure
again; a section of the report draws them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import nn

from elision.layers.recipe import Recipe
from elision.workloads import Dataset, Workload

__all__ = ["Probe", "Trained"]


@dataclass(frozen=True)
class Trained:
    """A recipe at the end of its training.

    Attributes:
        model: the trained model, elided, on the CPU, in training mode; a probe's own
            copy.
        method: its recipe.
        workload: task, data and training settings.
        dataset: the data.
        seed: of the study.
    """

    model: nn.Module
    method: Recipe
    workload: Workload
    dataset: Dataset
    seed: int


class Probe(ABC):
    """One measurement; a frozen dataclass whose fields are its parameters."""

    @abstractmethod
    def run(self, trained: Trained) -> dict[str, Any]:
        """Measure.

        Args:
            trained: the recipe; the model may be changed freely.

        Returns:
            Findings: plain values, lists and dictionaries, as JSON holds them.
        """
