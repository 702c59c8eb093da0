"""What the runtime reads of a plan, which itself runs by the runtime."""

from typing import Protocol

from elision.training.pipeline.costs import LayerCost
from elision.training.pipeline.partition import Partition
from elision.training.pipeline.scheduler import Action, Pipeline
from elision.training.pipeline.schedules import Schedule

__all__ = ["Planned"]


class Planned(Protocol):
    """A :class:`~elision.training.pipeline.plan.Plan`, whose attributes these are."""

    @property
    def costs(self) -> tuple[LayerCost, ...]:
        """Of the layers."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The schedule."""
        ...

    @property
    def partition(self) -> Partition:
        """Pieces of the layers in each stage."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """Stages and their processors."""
        ...

    @property
    def microbatches(self) -> int:
        """Of a batch."""
        ...

    @property
    def processors(self) -> int:
        """Number of processors."""
        ...

    @property
    def delays(self) -> tuple[int, ...]:
        """Of each stage's gradient, in updates."""
        ...

    @property
    def actions(self) -> tuple[Action, ...]:
        """All operations in time, by start."""
        ...
