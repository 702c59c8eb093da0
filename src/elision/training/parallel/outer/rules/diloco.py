"""DiLoCo: many inner steps, and an outer step of SGD with Nesterov momentum."""

from dataclasses import dataclass

from torch import Tensor

from elision.common.checks import number
from elision.training.parallel.outer.rules.base import Memory, OuterRule

__all__ = ["DiLoCo"]


@dataclass(frozen=True)
class DiLoCo(OuterRule):
    """DiLoCo: SGD with Nesterov momentum on the mean outer gradient.

    ::

        b <- momentum * b + g
        anchor <- anchor - rate * (g + momentum * b)

    which is ``torch.optim.SGD(lr=rate, momentum=momentum, nesterov=True)``. Douillard et
    al., DiLoCo: Distributed Low-Communication Training of Language Models, 2023; the
    inner optimiser is AdamW there, which keeps its state.

    Attributes:
        every: inner steps between two exchanges.
        rate: outer learning rate.
        momentum: outer momentum; 0 is a plain step.

    Example:
        >>> DiLoCo()
        DiLoCo(every=500, fragments=1, rate=0.7, momentum=0.9)
    """

    name = "diloco"
    every: int = 500
    rate: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        number("DiLoCo", "rate", self.rate, "> 0")
        number("DiLoCo", "momentum", self.momentum, "[0, 1)")

    def move(
        self, anchor: Tensor, means: list[Tensor], shared: Memory, part: float = 1.0
    ) -> Tensor:
        """A Nesterov step."""
        del part
        (g,) = means
        if self.momentum:
            before = shared.get("momentum")
            shared["momentum"] = g if before is None else self.momentum * before + g
            g = g + self.momentum * shared["momentum"]
        return anchor - self.rate * g
