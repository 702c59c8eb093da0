"""The face that a running controller shows to rules and scores.

Rules see a :class:`Run`; :class:`elision.topology.Topology` is the one that implements
it around an optimiser, and a test can give a rule any other.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from elision.topology.weights import SparseWeight

__all__ = ["Run"]


class Run(Protocol):
    """One model in training, as a rule reads it and moves its masks.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(8, 4), elision.methods.RigL(0.5, dense=()))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> topology = elision.topology.attach(model, optimizer)
        >>> def active(run: Run) -> int:
        ...     return sum(weight.nnz for weight in run.weights)
        >>> active(topology)
        16
    """

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser that owns the weights."""
        ...

    @property
    def weights(self) -> list[SparseWeight]:
        """The weights that have a mask."""
        ...

    @property
    def learning(self) -> list[SparseWeight]:
        """Those of them that have a gradient in the step under way."""
        ...

    @property
    def trained(self) -> Mapping[str, Tensor]:
        """Parameters that the optimiser trains beside a weight, by name."""
        ...

    @property
    def left_dense(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the elidable weights without a mask, by layer name."""
        ...

    @property
    def step(self) -> int:
        """The step under way, from 1."""
        ...

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all weights that have a mask."""
        ...

    def state(self, name: str) -> Tensor:
        """Value that the rule keeps for the whole model, a buffer to write in place."""
        ...

    def gradient(self, weight: SparseWeight) -> Tensor:
        """Dense gradient of a whole weight in the step under way."""
        ...

    def move(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask; weights and optimiser state that leave or enter are zeroed."""
        ...

    def keep_optimizer_state(self, weight: SparseWeight, where: Tensor) -> None:
        """Zero what the optimiser keeps of a weight elsewhere."""
        ...

    def record(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask and add to the history; weight and state stay."""
        ...
