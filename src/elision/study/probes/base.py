"""What a probe is: a question asked of a trained recipe while a study runs.

A study trains a recipe, asks its probes and goes on to the next. What a probe found is
plain JSON, kept beside the recipe's checkpoint, so that a study that was interrupted
does not ask again; a section of the report draws it.
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
        model: the trained model, elided, in training mode; a probe's own copy.
        method: its recipe.
        workload: what it was trained on.
        dataset: the images.
        seed: of the study.
    """

    model: nn.Module
    method: Recipe
    workload: Workload
    dataset: Dataset
    seed: int


class Probe(ABC):
    """Asks one question; a frozen dataclass whose fields are its parameters."""

    @abstractmethod
    def ask(self, trained: Trained) -> dict[str, Any]:
        """Find out.

        Args:
            trained: the recipe; the model may be changed freely.

        Returns:
            What was found: plain values, lists and dictionaries, as JSON holds them.
        """
