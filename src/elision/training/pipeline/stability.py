"""The largest learning rate that a delayed gradient allows, and what that costs.

Along an eigenvector of the Hessian with eigenvalue ``λ`` gradient descent with momentum
``μ`` on gradients ``d`` updates old is ``w(t+1) = w(t) + μ (w(t) - w(t-1)) - η λ w(t-d)``.
It is stable while every root of

    ``z^(d+1) - (1+μ) z^d + μ z^(d-1) + ηλ = 0``

lies inside the unit circle. Without momentum that is ``ηλ < 2 sin(π / (2(2d+1)))``, a
classic bound: 2, 1, 0.445, 0.209 for d = 0, 1, 3, 7. It falls about as ``π/(2d+1)``, and
momentum lowers it further. Nesterov's form, as torch computes it, steps by ``g + μ v``, and
the last term is ``ηλ (1 + μ - μ/z)``.
"""

import copy
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from elision.common.checks import integer, number
from elision.training.pipeline.delays import Delays, delays_of
from elision.training.stationarity import sharpness

__all__ = [
    "StageAdvice",
    "advise",
    "block_sharpness",
    "contraction",
    "stable_rate",
]

#: Points per oscillation at which the crossings of the unit circle are looked for. They
#: are roots of a trigonometric polynomial of degree d + 1, at most one per half period.
_POINTS = 32


def stable_rate(
    curvature: float, delay: int, momentum: float = 0.0, *, nesterov: bool = False
) -> float:
    """The learning rate below which delayed gradient descent on a quadratic is stable.

    Args:
        curvature: ``λ > 0``, an eigenvalue of the Hessian; the largest one decides.
        delay: ``d``, updates between the weights of a gradient and its own update.
        momentum: ``μ`` of SGD, as torch's (``v ← μ v + g``, ``w ← w - η v``).
        nesterov: whether the step is torch's Nesterov form (``w ← w - η (g + μ v)``).

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
    return _first_crossing(delay, momentum, nesterov) / curvature


def _first_crossing(delay: int, momentum: float, nesterov: bool) -> float:
    """The smallest ``ηλ > 0`` with a root on the unit circle.

    With ``z = e^{iθ}`` the equation gives ``ηλ = -z^d (z - (1+μ) + μ/z)``, by Nesterov's
    form over ``1 + μ - μ/z``, which must be real and positive. Near 0 all roots are
    inside, so that the smallest one is the bound.
    """

    def gain(theta: float) -> complex:
        return _gain(theta, delay, momentum, nesterov)

    def imaginary(theta: float) -> float:
        return -gain(theta).imag

    grid = np.linspace(0, np.pi, _POINTS * (delay + 2) + 1)[1:]
    signs = [imaginary(theta) for theta in grid]
    found = [gain(np.pi).real]  # z = -1 is always a real gain
    for low, high, a, b in zip(grid, grid[1:], signs, signs[1:], strict=False):
        if a * b < 0:
            found.append(gain(_bisect(imaginary, low, high)).real)
    return min(one for one in found if one > 0)


def _gain(theta: float, delay: int, momentum: float, nesterov: bool) -> complex:
    z = complex(math.cos(theta), math.sin(theta))
    plain = -(z**delay) * (z - (1 + momentum) + momentum / z)
    return plain / (1 + momentum - momentum / z) if nesterov else plain


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
    curvature: float,
    rate: float,
    delay: int,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
) -> float:
    """Factor by which the error along an eigenvector shrinks in an update, in the long run.

    The largest magnitude of a root of the equation above; above 1 the error grows.

    Example:
        >>> contraction(1.0, 0.5, 0), round(contraction(1.0, 1.01, 1), 3)
        (0.5, 1.005)
    """
    # Times z, for a polynomial where there is no delay; a root at 0 more elsewhere.
    coefficients = np.zeros(delay + 3)
    coefficients[:3] = 1, -(1 + momentum), momentum
    coefficients[delay + 1] += rate * curvature * (1 + momentum * nesterov)
    coefficients[delay + 2] -= rate * curvature * momentum * nesterov
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
    nesterov: bool = False,
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
        nesterov: whether it is Nesterov's form.
        iterations: of the power iteration, a Hessian-vector product each.
    """
    found = []
    for index, delay in enumerate(delays_of(delays, len(stages))):
        curvature = block_sharpness(
            stages, {index}, _on(loss), batch, iterations=iterations
        )
        rate, slowdown = math.inf, 1.0
        if curvature > 0:
            rate = stable_rate(curvature, delay, momentum, nesterov=nesterov)
            free = stable_rate(curvature, 0, momentum, nesterov=nesterov)
            slowdown = free / rate
        found.append(StageAdvice(index, delay, curvature, rate, slowdown))
    return found


def block_sharpness(
    stages: Sequence[nn.Module],
    moving: Collection[int],
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    *,
    iterations: int = 30,
) -> float:
    """Largest eigenvalue, by magnitude, of some stages' block of the loss's Hessian.

    Args:
        stages: modules that pass one tensor on.
        moving: numbers of those whose weights the block is of; the others are held.
        loss: of a model and a batch.
        batch: the batch.
        iterations: of the power iteration, a Hessian-vector product each.

    Returns:
        The magnitude; 0 where there are no parameters to train.
    """
    held = copy.deepcopy(nn.Sequential(*stages))
    for place, module in enumerate(held):
        if place not in moving:
            module.requires_grad_(False)
    if not any(p.requires_grad for p in held.parameters()):
        return 0.0
    return abs(sharpness(held, loss, batch, iterations=iterations))


def _on(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    def of(model: nn.Module, batch: Any) -> Tensor:
        inputs, target = batch
        return loss(model(inputs), target)

    return of
