"""FedAdam, FedYogi and FedAdagrad: an adaptive outer step on the mean outer gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.training.parallel.outer.rules.base import Memory
from elision.training.parallel.outer.rules.fedavg import FedAvg

__all__ = ["FedAdam", "FedYogi"]


@dataclass(frozen=True)
class FedAdam(FedAvg):
    """FedAdam: an outer step by first and second moments, without bias correction.

    ::

        m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2
        anchor <- anchor - rate * m / (sqrt(v) + tau)

    with ``m = 0`` and ``v = tau^2`` at the beginning. Reddi et al., Adaptive Federated
    Optimization, ICLR 2021, algorithm 2. Defaults are those that Flower documents for
    FedYogi: rate 0.01, betas 0.9 and 0.99, tau 0.001.

    Attributes:
        every: inner steps of a round; the default is this project's choice.
        rate: outer learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        tau: adaptivity, added to the root of the second moment.

    Example:
        >>> FedAdam(tau=0)
        Traceback (most recent call last):
        ValueError: FedAdam(tau=0): must be a number > 0
    """

    name = "fedadam"
    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        number(owner, "rate", self.rate, "> 0")
        number(owner, "beta1", self.beta1, "[0, 1)")
        number(owner, "beta2", self.beta2, "[0, 1)")
        number(owner, "tau", self.tau, "> 0")

    def move(
        self, anchor: Tensor, means: list[Tensor], shared: Memory, part: float = 1.0
    ) -> Tensor:
        """A step of the moments."""
        del part
        (g,) = means
        m = shared.get("first", torch.zeros_like(g))
        v = shared.get("second", torch.full_like(g, self.tau**2))
        shared["first"] = self.beta1 * m + (1 - self.beta1) * g
        shared["second"] = self.second_moment(v, g.square())
        step = shared["first"] / (shared["second"].sqrt() + self.tau)
        return anchor - self.rate * step

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after a gradient of this square."""
        return self.beta2 * v + (1 - self.beta2) * square


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """FedYogi: FedAdam with ``v <- v - (1 - beta2) g^2 sign(v - g^2)``.

    Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2.

    Example:
        >>> FedYogi(beta2=0.75).second_moment(torch.tensor(1.0), torch.tensor(4.0))
        tensor(2.)
    """

    name = "fedyogi"

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after a gradient of this square."""
        return v - (1 - self.beta2) * square * torch.sign(v - square)


@dataclass(frozen=True)
class FedAdagrad(FedAdam):
    """FedAdagrad: FedAdam with ``v <- v + g^2``.

    Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2.

    Example:
        >>> FedAdagrad().second_moment(torch.tensor(1.0), torch.tensor(4.0))
        tensor(5.)
    """

    name = "fedadagrad"

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after a gradient of this square."""
        return v + square
