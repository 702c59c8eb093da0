"""OuterRule: what ranks send after their local steps, and the step that follows from it.

The outer gradient of a rank is ``g = anchor - weights``: the weights all ranks began
with, less those it ended with. A rule says what is sent of it, and how the mean moves
the anchor. Everything here is a function of one parameter's tensors.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elision.common.checks import integer

__all__ = ["Memory", "OuterRule"]

#: What a rule remembers of one parameter, by name.
Memory = dict[str, Tensor]


@dataclass(frozen=True)
class OuterRule:
    """Plain averaging of the ranks' weights after every ``every`` steps.

    Members override what differs: :meth:`correct`, :meth:`messages`, :meth:`move`.

    Attributes:
        every: inner steps between two exchanges, ``H``.
        fragments: parts of the parameters, of like size, that are exchanged in turn, each
            after ``every`` steps: the same traffic, spread over the period (Douillard et
            al., Streaming DiLoCo, 2025, without its overlap of exchange and steps).

    Raises:
        ValueError: a parameter is out of range.

    Example:
        >>> from elision.training.parallel.outer.rules.diloco import DiLoCo
        >>> plain = DiLoCo(every=4, rate=1.0, momentum=0.0)
        >>> plain.move(torch.ones(1), [torch.full((1,), 0.25)], {})
        tensor([0.7500])
    """

    name: ClassVar[str]
    #: Whether the ranks' messages may count unequally.
    weighted: ClassVar[bool] = False
    #: Names in a parameter's shared memory that every rank reads before local steps.
    told: ClassVar[tuple[str, ...]] = ()
    every: int = 1
    _: KW_ONLY
    fragments: int = 1

    def __post_init__(self) -> None:
        owner = type(self).__name__
        integer(owner, "every", self.every)
        integer(owner, "fragments", self.fragments, f"[1, {self.every}]")

    def shares_gradients(self, step: int) -> bool:
        """Whether inner step ``step``, counted from 0, is a synchronous one."""
        del step
        return False

    def is_due(self, steps: int) -> bool:
        """Whether ranks exchange after ``steps`` inner steps."""
        return steps % self.every == 0

    def check_inner(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise ValueError if the rule's formula does not hold for an inner optimiser."""

    def correct(self, parameter: Tensor, anchor: Tensor, own: Memory) -> None:
        """Change ``parameter.grad`` in place before an inner step.

        Args:
            parameter: with its local gradient.
            anchor: weights at the last exchange.
            own: what this rank remembers of the parameter.
        """

    def messages(
        self, outer_gradient: Tensor, travelled: float, own: Memory
    ) -> list[Tensor]:
        """What one rank sends of one parameter, all of the parameter's shape.

        Args:
            outer_gradient: anchor less weights.
            travelled: sum of the learning rates of the steps since the last exchange.
            own: what this rank remembers of the parameter, changed in place.
        """
        del travelled, own
        return [outer_gradient]

    def move(
        self, anchor: Tensor, means: list[Tensor], shared: Memory, part: float = 1.0
    ) -> Tensor:
        """The new anchor.

        Args:
            anchor: weights at the last exchange.
            means: mean over ranks of each of the :meth:`messages`.
            shared: what all ranks alike remember of the parameter, changed in place.
            part: share of all ranks that the mean is over, in (0, 1].
        """
        del shared, part
        return anchor - means[0]
