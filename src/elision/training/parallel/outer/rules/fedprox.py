"""FedProx: FedAvg whose local loss keeps near the weights of the last exchange."""

from dataclasses import dataclass

from torch import Tensor

from elision.common.checks import number
from elision.training.parallel.outer.rules.base import Memory
from elision.training.parallel.outer.rules.fedavg import FedAvg

__all__ = ["FedProx"]


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedProx: ``(mu / 2) ||w - anchor||^2`` is added to every rank's loss.

    Its gradient ``mu (w - anchor)`` is added to the local gradient, so an inner optimiser
    with momentum or second moments sees it. Li et al., Federated Optimization in
    Heterogeneous Networks, MLSys 2020. The default of ``mu`` is this project's choice.

    Attributes:
        every: inner steps of a round.
        mu: strength; 0 is :class:`FedAvg`.

    Example:
        >>> FedProx(mu=-1)
        Traceback (most recent call last):
        ValueError: FedProx(mu=-1): must be a number >= 0
    """

    name = "fedprox"
    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        number("FedProx", "mu", self.mu, ">= 0")

    def correct(self, parameter: Tensor, anchor: Tensor, own: Memory) -> None:
        """Add the gradient of the proximal term."""
        del own
        if self.mu and parameter.grad is not None:
            parameter.grad.add_(parameter - anchor.to(parameter.dtype), alpha=self.mu)
