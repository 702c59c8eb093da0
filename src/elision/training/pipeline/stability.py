"""The largest learning rate that a delayed gradient allows, and what that costs.

Along an eigenvector of the Hessian with eigenvalue ``λ`` gradient descent with momentum
``μ`` on gradients ``d`` updates old is ``w(t+1) = w(t) + μ (w(t) - w(t-1)) - η λ w(t-d)``.
It is stable while every root of

    ``z^(d+1) - (1+μ) z^d + μ z^(d-1) + ηλ = 0``

lies inside the unit circle. Without momentum that is ``ηλ < 2 sin(π / (2(2d+1)))``, a
classic bound: 2, 1, 0.445, 0.209 for d = 0, 1, 3, 7. It falls about as ``π/(2d+1)``, and
momentum lowers it further.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from elision.common.checks import integer, number
from elision.training.pipeline.delays import Delays, delays_of
from elision.training.stationarity import sharpness

__all__ = ["StageAdvice", "advise", "contraction", "stable_rate"]

#: Points per oscillation at which the crossings of the unit circle are looked for. They
#: are roots of a trigonometric polynomial of degree d + 1, at most one per half period.
_POINTS = 32


def stable_rate(curvature: float, delay: int, momentum: float = 0.0) -> float:
    """The learning rate below which delayed gradient descent on a quadratic is stable.

    Args:
        curvature: ``λ > 0``, an eigenvalue of the Hessian; the largest one decides.
        delay: ``d``, updates between the weights of a gradient and its own update.
        momentum: ``μ`` of SGD, as torch's (``v ← μ v + g``, ``w ← w - η v``).

    Raises:
        ValueError: a number out of range.

    Example:
        >>> [round(stable_rate(1.0, d), 3) for d in (0, 1, 3, 7)]
        [2.0, 1.0, 0.445, 0.209]
        >>> round(stable_rate(1.0, 3, momentum=0.9), 4)
        0.0348
    """
    number("stable_rate", "curvature", curvature, "> 0")
    integer("stable_rate", "delay", delay, ">= 0")
    number("stable_rate", "momentum", momentum, "[0, 1)")
    if momentum == 0:
        return 2 * math.sin(math.pi / (2 * (2 * delay + 1))) / curvature
    return _first_crossing(delay, momentum) / curvature


def _first_crossing(delay: int, momentum: float) -> float:
    """The smallest ``ηλ > 0`` with a root on the unit circle.

    With ``z = e^{iθ}`` the equation gives ``ηλ = -z^d (z - (1+μ) + μ/z)``, which must be
    real and positive. Near 0 all roots are inside, so that the smallest one is the bound.
    """

    def imaginary(theta: float) -> float:
        return -_gain(theta, delay, momentum).imag

    grid = np.linspace(0, np.pi, _POINTS * (delay + 2) + 1)[1:]
    signs = [imaginary(theta) for theta in grid]
    found = [_gain(np.pi, delay, momentum).real]  # z = -1 is always a real gain
    for low, high, a, b in zip(grid, grid[1:], signs, signs[1:], strict=False):
        if a * b < 0:
            found.append(_gain(_bisect(imaginary, low, high), delay, momentum).real)
    return min(gain for gain in found if gain > 0)


def _gain(theta: float, delay: int, momentum: float) -> complex:
    z = complex(math.cos(theta), math.sin(theta))
    return -(z**delay) * (z - (1 + momentum) + momentum / z)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    below = function(low) < 0
    for _ in range(60):  # halvings until neighbouring floats
        middle = (low + high) / 2
        if (function(middle) < 0) == below:
            low = middle
        else:
            high = middle
    return low


def contraction(
    curvature: float, rate: float, delay: int, momentum: float = 0.0
) -> float:
    """Factor by which the error along an eigenvector shrinks in an update, in the long run.

    The largest magnitude of a root of the equation above; above 1 the error grows.

    Example:
        >>> contraction(1.0, 0.5, 0), round(contraction(1.0, 1.01, 1), 3)
        (0.5, 1.005)
    """
    # Times z where there is no delay, for a polynomial.
    coefficients = np.zeros(max(delay, 1) + 2)
    coefficients[:3] = 1, -(1 + momentum), momentum
    coefficients[delay + 1] += rate * curvature
    return float(np.abs(np.roots(coefficients)).max())


@dataclass(frozen=True)
class StageAdvice:
    """What a delay allows at one stage.

    Attributes:
        stage: from 0.
        delay: of its gradient, in updates.
        sharpness: largest eigenvalue, by magnitude, of the stage's block of the Hessian.
        rate: largest stable learning rate along its eigenvector, the other stages held;
            infinite where the block is flat.
        slowdown: the same rate without delay over this one: the factor by which a run
            that was bound by stability takes longer in the flat directions.
    """

    stage: int
    delay: int
    sharpness: float
    rate: float
    slowdown: float

    def __str__(self) -> str:
        return (
            f"stage {self.stage}: delay {self.delay}, sharpness {self.sharpness:.3g}, "
            f"learning rate below {self.rate:.3g} "
            f"({self.slowdown:.3g} times less than without delay)"
        )


def advise(
    stages: Sequence[nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    *,
    delays: Delays,
    momentum: float = 0.0,
    iterations: int = 30,
) -> list[StageAdvice]:
    """The largest stable learning rate of every stage at the present weights.

    The sharpness is that of :func:`elision.training.stationarity.sharpness` with the other
    stages held. Where the largest eigenvalue by magnitude is negative, its magnitude bounds
    the positive ones, and the advice errs on the side of a smaller rate. The stages'
    interaction is left out: a run at one rate for all should stay below the smallest, and
    a quadratic whose stages are coupled can be unstable somewhat below it.

    Args:
        stages: modules that pass one tensor on.
        loss: of the last one's output and a target.
        batch: inputs and target, as many as give a curvature worth having.
        delays: a schedule or its name, or the delay of every stage in updates.
        momentum: of SGD.
        iterations: of the power iteration, a Hessian-vector product each.
    """
    found = []
    for index, delay in enumerate(delays_of(delays, len(stages))):
        held = copy.deepcopy(nn.Sequential(*stages))
        for other, module in enumerate(held):
            if other != index:
                module.requires_grad_(False)
        if not any(p.requires_grad for p in held.parameters()):
            curvature = 0.0
        else:
            curvature = abs(sharpness(held, _on(loss), batch, iterations=iterations))
        rate, slowdown = math.inf, 1.0
        if curvature > 0:
            rate = stable_rate(curvature, delay, momentum)
            slowdown = stable_rate(curvature, 0, momentum) / rate
        found.append(StageAdvice(index, delay, curvature, rate, slowdown))
    return found


def _on(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    def of(model: nn.Module, batch: Any) -> Tensor:
        inputs, target = batch
        return loss(model(inputs), target)

    return of
