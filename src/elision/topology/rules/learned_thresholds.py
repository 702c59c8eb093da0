"""Thresholds that learn which weights matter (DST)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.operands import LearnedThreshold
from elision.topology.rule import Rule
from elision.topology.run import Run
from elision.topology.weights import SparseWeight

__all__ = ["LearnedThresholds", "step_derivative"]

#: Distance from the target within which the regulariser weakens.
_BAND = 0.05

#: The factor on the regulariser stays within this multiple of its start.
_PRESSURE = 1e6


def step_derivative(q: Tensor) -> Tensor:
    """The long-tailed estimate ``h(Q)`` of the derivative of the unit step.

    ``2 − 4|Q|`` for ``|Q| <= 0.4``, ``0.4`` up to ``|Q| = 1``, and 0 beyond.
    """
    a = q.abs()
    return torch.where(a <= 0.4, 2 - 4 * a, torch.where(a <= 1, 0.4, 0.0))


@dataclass(frozen=True)
class LearnedThresholds(Rule):
    """Train one threshold per output channel by the gradient of its mask.

    With ``g = dL/d(W·M)``, ``M = 1[Q > 0]`` and ``Q = |W| − t``::

        dQ = g · W · h(Q)     dW = g · M + dQ · sign(W)
        dt_i = −sum_j dQ_ij − alpha·exp(−t_i)

    The thresholds join the optimiser's group of their weight, so its learning rate and
    weight decay act on them (as published). The gradient that backward leaves in a
    weight is ``g``; both gradients follow from it before the optimiser's step.

    Attributes:
        alpha: strength of the regulariser ``alpha·sum exp(−t)`` (published: 5e-6).
        target: sparsity to steer to; None, as published, for none. The controller is
            this project's own: ``alpha`` is scaled by ``p·c``, where
            ``c = (target − sparsity)/0.05`` within [-1, 1] turns the regulariser round
            above the target, and each step multiplies ``p`` by
            ``exp(gain·(|target − sparsity| − 0.05))``.
        gain: of that controller.

    Example:
        >>> LearnedThresholds(alpha=5e-6).masks_weights
        False
    """

    alpha: float = 5e-6
    target: float | None = None
    gain: float = 0.1

    transform = LearnedThreshold
    masks_gradients = False
    masks_weights = False

    def __post_init__(self) -> None:
        number("LearnedThresholds", "alpha", self.alpha, ">= 0")
        if self.target is not None:
            number("LearnedThresholds", "target", self.target, "(0, 1)")
        number("LearnedThresholds", "gain", self.gain, ">= 0")

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        del dense
        for weight in weights:
            weight.set_state("threshold", torch.zeros(weight.turned_shape[:1]))

    def initial_state(self) -> dict[str, Tensor]:
        return {"pressure": torch.ones((), dtype=torch.float64)}

    def parameters(
        self, weights: list[SparseWeight]
    ) -> list[tuple[str, SparseWeight, Tensor]]:
        return [(w.name, w, w.state("threshold")) for w in weights]

    def goal(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> float | None:
        return self.target

    def shape_gradients(self, run: Run) -> None:
        alpha = self._strength(run)
        for parameter in run.trained.values():
            parameter.grad = None
        for weight in run.learning:
            t, grad = weight.state("threshold"), weight.weight.grad
            assert grad is not None
            w, g = weight.turned(weight.weight.detach()), weight.turned(grad)
            q = w.abs() - t.to(w.dtype).view(-1, *[1] * (w.dim() - 1))
            slope = step_derivative(q)
            pull = torch.where(slope > 0, g * w * slope, 0)
            weight.keep(grad, weight.turned(q > 0))
            grad.add_(weight.turned(pull * w.sign()))
            finite = torch.where(pull.isfinite(), pull, 0)
            learned = -finite.flatten(1).sum(1).to(t.dtype) - alpha * torch.exp(-t)
            run.trained[weight.name].grad = learned

    def before_step(self, run: Run) -> bool:
        if self.target is not None:
            pressure = run.state("pressure")
            error = abs(self.target - run.sparsity)
            pressure.mul_(math.exp(self.gain * (error - _BAND)))
            pressure.clamp_(1 / _PRESSURE, _PRESSURE)
        return False

    def _strength(self, run: Run) -> float:
        """The regulariser's factor in this step."""
        if self.target is None:
            return self.alpha
        error = (self.target - run.sparsity) / _BAND
        return self.alpha * float(run.state("pressure")) * max(-1.0, min(1.0, error))
