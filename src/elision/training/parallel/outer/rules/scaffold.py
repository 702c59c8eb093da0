"""SCAFFOLD: controls that take the ranks' drift out of their local steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.training.parallel.outer.rules.base import Memory, OuterRule

__all__ = ["Scaffold"]

#: Settings under which a step of ``torch.optim.SGD`` is ``w <- w - lr * gradient``.
_PLAIN = {
    "momentum": 0,
    "dampening": 0,
    "weight_decay": 0,
    "nesterov": False,
    "maximize": False,
}


@dataclass(frozen=True)
class Scaffold(OuterRule):
    """SCAFFOLD, with the second form of its controls.

    Local step: ``w <- w - lr (gradient + c - c_i)``. After ``K`` of them::

        c_i' = c_i - c + (anchor - w_i) / (sum of lr)
        c <- c + part * mean_i (c_i' - c_i),  c_i <- c_i'
        anchor <- anchor - rate * mean_i (anchor - w_i)

    where ``part`` is the share of ranks that took part. Karimireddy et al., SCAFFOLD:
    Stochastic Controlled Averaging for Federated Learning, ICML 2020. Controls begin at
    0. The sum of learning rates is the paper's ``K lr`` where the rate is constant. A
    message is twice as long as that of FedAvg, in both directions.

    Attributes:
        every: inner steps of a round, ``K``; the default is this project's choice.
        rate: outer learning rate.

    Raises:
        ValueError: a parameter is out of range, or the inner optimiser is not plain SGD,
            by which the controls are defined.

    Example:
        >>> Scaffold(every=10).rate
        1.0
    """

    name = "scaffold"
    told = ("mean",)
    every: int = 8
    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("Scaffold", "rate", self.rate, "> 0")

    def check_inner(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise ValueError unless the optimiser is plain SGD."""
        name = type(optimizer).__name__
        if type(optimizer) is not torch.optim.SGD:
            raise ValueError(f"scaffold: needs torch.optim.SGD inside, not {name}")
        for group in optimizer.param_groups:
            for setting, plain in _PLAIN.items():
                if group[setting] != plain:
                    raise ValueError(
                        f"scaffold: its controls are those of plain SGD; {setting}="
                        f"{group[setting]} is given, {setting}={plain} is allowed"
                    )

    def correct(self, parameter: Tensor, anchor: Tensor, own: Memory) -> None:
        """Add the mean control and take off the rank's own."""
        del anchor
        if own and parameter.grad is not None:
            drift = _of(own, "mean", parameter) - _of(own, "control", parameter)
            parameter.grad.add_(drift.to(parameter.dtype))

    def messages(
        self, outer_gradient: Tensor, travelled: float, own: Memory
    ) -> list[Tensor]:
        """The outer gradient and the change of the rank's control."""
        before = _of(own, "control", outer_gradient)
        # No learning rate, no step: the control stays.
        change = torch.zeros_like(outer_gradient)
        if travelled:
            change = outer_gradient / travelled - _of(own, "mean", outer_gradient)
        own["control"] = before + change
        return [outer_gradient, change]

    def move(
        self, anchor: Tensor, means: list[Tensor], shared: Memory, part: float = 1.0
    ) -> Tensor:
        """A step of size ``rate``; the mean control follows."""
        shared["mean"] = _of(shared, "mean", anchor) + part * means[1]
        return anchor - self.rate * means[0]


def _of(memory: Memory, name: str, like: Tensor) -> Tensor:
    """What is remembered, at first 0."""
    return memory[name] if name in memory else torch.zeros_like(like)
