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
from elision.workloads import Examples, Workload

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

    Example:
        >>> from elision.layers import elide
        >>> from elision.methods import Swat
        >>> small = Workload(name="small", dataset="digits", model="mlp")
        >>> recipe, dataset = Swat(0.5), small.load_dataset()
        >>> model = elide(small.make_model(dataset), recipe)
        >>> trained = Trained(model, recipe, small, dataset, seed=0)
        >>> trained.model.training, trained.dataset.name
        (True, 'digits')
    """

    model: nn.Module
    method: Recipe
    workload: Workload
    dataset: Examples
    seed: int


class Probe(ABC):
    """One measurement; a frozen dataclass whose fields are its parameters.

    Example:
        >>> @dataclass(frozen=True)
        ... class ZeroWeights(Probe):
        ...     def run(self, trained):
        ...         weights = [p for p in trained.model.parameters() if p.ndim > 1]
        ...         return {"zeros": sum(int((w == 0).sum()) for w in weights)}
        >>> from elision.methods import Dense
        >>> small = Workload(name="small", dataset="digits", model="mlp")
        >>> dataset = small.load_dataset()
        >>> trained = Trained(nn.Linear(4, 2), Dense(), small, dataset, seed=0)
        >>> ZeroWeights().run(trained)
        {'zeros': 0}
    """

    @abstractmethod
    def run(self, trained: Trained) -> dict[str, Any]:
        """Measure.

        Args:
            trained: the recipe; the model may be changed freely.

        Returns:
            Findings: plain values, lists and dictionaries, as JSON holds them.
        """

    def headline(self, found: dict[str, Any]) -> str:
        """The findings in a few words, for the table of a terminal.

        Args:
            found: by :meth:`run`.
        """
        return f"{len(found)} findings"
