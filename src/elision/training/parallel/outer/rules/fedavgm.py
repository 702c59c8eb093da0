"""FedAvgM: FedAvg with momentum at the outer step."""

from dataclasses import dataclass

from torch import Tensor

from elision.common.checks import number
from elision.training.parallel.outer.rules.base import Memory
from elision.training.parallel.outer.rules.fedavg import FedAvg

__all__ = ["FedAvgM"]


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """FedAvgM: ``v <- momentum * v + g``, ``anchor <- anchor - rate * v``.

    Hsu, Qi, Brown, Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification, 2019.

    Attributes:
        every: inner steps of a round.
        rate: outer learning rate.
        momentum: outer momentum; 0 at rate 1 is :class:`FedAvg`.

    Example:
        >>> FedAvgM(momentum=1)
        Traceback (most recent call last):
        ValueError: FedAvgM(momentum=1): must be a number in [0, 1)
    """

    name = "fedavgm"
    rate: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        number("FedAvgM", "rate", self.rate, "> 0")
        number("FedAvgM", "momentum", self.momentum, "[0, 1)")

    def move(
        self, anchor: Tensor, means: list[Tensor], shared: Memory, part: float = 1.0
    ) -> Tensor:
        """A step with momentum."""
        del part
        before = shared.get("momentum")
        kept = means[0] if before is None else self.momentum * before + means[0]
        shared["momentum"] = kept
        return anchor - self.rate * kept
