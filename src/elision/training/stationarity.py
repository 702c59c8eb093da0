"""Has training come to rest? A stationary point, an invariant regime, or still moving.

A loss that no longer falls does not mean that the gradient is zero: on large networks
the loss settles while ``‖∇F‖`` does not, because the distribution of the weights has
become invariant (Zhang, Li, Sra and Jadbabaie, Neural Network Weights Do Not Converge
to Stationary Points, ICML 2022). The estimators and thresholds here are this project's
own choices; each says what it measures.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.restoring import restored
from elision.layers import restore
from elision.topology.install import held_masks

__all__ = [
    "Look",
    "StationarityReport",
    "StationarityWatch",
    "loss_slope",
    "noise_trace",
    "sharpness",
    "squared_gradient_norm",
    "windows_differ",
]

#: Loss of a model on a batch.
Loss = Callable[[nn.Module, Any], Tensor]


def _gradient(model: nn.Module, loss: Loss, batch: Any) -> Tensor:
    """Gradient of the loss on a batch as one vector, as the model's recipe computes it.

    Weights that a mask holds at zero have none: the model cannot move there.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss(model, batch), parameters, allow_unused=True)
    masks = held_masks(model)
    parts = []
    for gradient, parameter in zip(found, parameters, strict=True):
        part = torch.zeros_like(parameter) if gradient is None else gradient
        mask = masks.get(id(parameter))
        parts.append((part if mask is None else part.where(mask, 0)).flatten())
    return torch.cat(parts)


def squared_gradient_norm(a: Tensor, b: Tensor) -> float:
    """Unbiased ``‖∇F‖²``: the inner product of two independent batch gradients.

    The square of one batch's gradient is larger by ``tr Σ / B`` on average.

    Args:
        a: mean gradient of a batch, as one vector.
        b: mean gradient of another batch, of the same length.
    """
    return float(a.double() @ b.double())


def noise_trace(
    small: Tensor, large: Tensor, small_size: int, large_size: int
) -> float:
    """``tr Σ``, the total variance of one example's gradient.

    ``(‖g_small‖² − ‖g_large‖²) / (1/B_small − 1/B_large)`` (McCandlish et al., An
    Empirical Model of Large-Batch Training, 2018, appendix A).

    Args:
        small: mean gradient of the small batch, as one vector.
        large: mean gradient of the large batch, of the same length.
        small_size: examples of the small batch, ``B_small``.
        large_size: examples of the large batch, ``B_large``.

    Raises:
        ValueError: the small batch is not the smaller one.
    """
    if not 0 < small_size < large_size:
        raise ValueError(
            f"need 0 < small < large batch, got {small_size}, {large_size}"
        )
    difference = float(
        small.double() @ small.double() - large.double() @ large.double()
    )
    return difference / (1 / small_size - 1 / large_size)


def sharpness(
    model: nn.Module, loss: Loss, batch: Any, *, iterations: int = 30, seed: int = 0
) -> float:
    """Largest eigenvalue (by magnitude) of the loss's Hessian, by power iteration.

    On a plain copy of the model: a recipe's products have no second derivative. So for
    a sparse model it is the curvature at its weights, inactive directions included.

    Args:
        model: elided or not.
        loss: of a model on a batch.
        batch: the batch.
        iterations: Hessian-vector products.
        seed: of the first direction.
    """
    plain = restore(copy.deepcopy(model))
    parameters = [p for p in plain.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss(plain, batch), parameters, create_graph=True)
    slope = torch.cat([g.flatten() for g in slopes])
    random = torch.Generator().manual_seed(seed)
    v = torch.randn(slope.numel(), generator=random).to(slope)
    eigenvalue = 0.0
    for _ in range(iterations):
        v = v / v.norm()
        parts = torch.autograd.grad(slope @ v, parameters, retain_graph=True)
        product = torch.cat([p.flatten() for p in parts])
        eigenvalue = float(product @ v)
        if not product.any():
            break
        v = product
    return eigenvalue


def loss_slope(values: Sequence[float]) -> tuple[float, float]:
    """Least-squares slope of a series per step, and half its 95 % interval.

    The interval allows for autocorrelation by the effective number of values.
    """
    n = len(values)
    y = torch.tensor(values, dtype=torch.float64)
    x = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    slope = float((x @ y) / (x @ x))
    residual = y - y.mean() - slope * x
    deviation = float(residual.square().sum() / max(1, n - 2)) ** 0.5
    stretched = _correlation_time(residual) ** 0.5
    return slope, 1.96 * stretched * deviation / float(x @ x) ** 0.5


def windows_differ(first: Sequence[float], second: Sequence[float]) -> float:
    """p-value of the Kolmogorov-Smirnov test that two windows are of one distribution.

    The asymptotic formula, with the effective sample sizes of correlated series. Small
    means that the distribution still changes; NaN, that a value is not finite.

    Args:
        first: values of one window, in their order.
        second: values of the other; its length may differ.
    """
    if not all(map(math.isfinite, (*first, *second))):
        return math.nan
    a, b = (torch.tensor(w, dtype=torch.float64) for w in (first, second))
    points = torch.cat([a, b]).sort().values
    below = [
        torch.searchsorted(w.sort().values, points, right=True) / len(w) for w in (a, b)
    ]
    distance = float((below[0] - below[1]).abs().max())
    sizes = [max(1.0, len(w) / _correlation_time(w)) for w in (a, b)]
    scaled = distance * math.sqrt(sizes[0] * sizes[1] / sum(sizes))
    if scaled < 0.3:  # the series below does not converge; p is 1 to five digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 50))
    return min(1.0, max(0.0, 2 * sum(terms)))


def _ratio(net: float, path: float) -> float:
    """Displacement over the path, 0 where nothing moved; NaN where one is not finite."""
    if not math.isfinite(path):
        return math.nan
    return net / path if path > 0 else 0.0


def _correlation_time(x: Tensor) -> float:
    """Steps between independent values: 1 plus twice the leading positive correlations."""
    x = x - x.mean()
    power = float(x @ x)
    if len(x) < 4 or power == 0:
        return 1.0
    time = 1.0
    for lag in range(1, len(x) // 2):
        correlation = float(x[lag:] @ x[:-lag]) / power
        if correlation <= 0.05:
            break
        time += 2 * correlation
    return min(time, len(x) / 2)


@dataclass(frozen=True)
class Look:
    """What one look at the gradient found.

    Attributes:
        step: steps taken before.
        gradient_squared: unbiased ``‖∇F‖²``; below zero when noise hides it. NaN, as
            what follows from it, where a gradient is not finite.
        relative_gradient: ``‖∇F‖/‖θ‖`` of it, 0 where it is negative.
        noise_trace: ``tr Σ``.
        noise_scale: ``tr Σ / ‖∇F‖²``, the batch size at which noise and gradient are
            equal; infinite where the gradient is hidden.
        sharpness: largest eigenvalue of the Hessian; None if it was not asked for.
        rate_sharpness: learning rate times sharpness; gradient descent on a quadratic
            is unstable above 2.
    """

    step: int
    gradient_squared: float
    relative_gradient: float
    noise_trace: float
    noise_scale: float
    sharpness: float | None
    rate_sharpness: float | None

    def numbers(self) -> tuple[float, ...]:
        """What must be finite for a verdict."""
        found = (self.gradient_squared, self.noise_trace, self.sharpness)
        return tuple(value for value in found if value is not None)


@dataclass(frozen=True)
class StationarityReport:
    """A verdict and what it rests on.

    Attributes:
        verdict: ``"stationary point"``, ``"invariant regime"``, ``"still moving"`` or
            ``"diverged"``.
        reasons: one line each.
        loss_slope: per step, over the window.
        loss_slope_interval: half its 95 % interval.
        p_values: of the two-window test, by observable.
        gradient_squared: mean of the looks in the window, and its standard error.
        step_ratio: mean ``‖Δθ‖/‖θ‖`` of a step.
        displacement_ratio: net displacement over path length since a mark one to two
            windows ago: 1 for a straight line, about ``1/sqrt(steps)`` for a random
            walk, less when the weights stay where they are.
        looks: the looks in the window.
    """

    verdict: str
    reasons: tuple[str, ...]
    loss_slope: float
    loss_slope_interval: float
    p_values: dict[str, float]
    gradient_squared: tuple[float, float]
    step_ratio: float
    displacement_ratio: float
    looks: tuple[Look, ...]

    def __str__(self) -> str:
        """The verdict and its reasons, a line each."""
        return "\n".join([self.verdict, *(f"- {reason}" for reason in self.reasons)])


@dataclass
class StationarityWatch:
    """Watches a run: call it with the loss after each step, and ``look`` now and then.

    ::

        watch = StationarityWatch(model, optimizer, loss)
        for step, batch in enumerate(batches):
            ...
            watch(value.item())
            if step % 50 == 0:
                watch.look(*two_other_batches)
        print(watch.report())

    Attributes:
        model: the model.
        optimizer: its optimiser.
        loss: of a model on a batch.
        window: steps that a report looks at.
        significance: p-value below which two halves of the window differ.
        tolerance: change of the loss over the window, relative to its mean, that still
            counts as none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    window: int = 400
    significance: float = 0.01
    tolerance: float = 0.01
    losses: list[float] = field(default_factory=list, init=False)
    looks: list[Look] = field(default_factory=list, init=False)
    _norms: list[float] = field(default_factory=list, init=False)
    _steps: list[float] = field(default_factory=list, init=False)
    _last: Tensor | None = field(default=None, init=False)
    _marks: list[tuple[int, Tensor]] = field(default_factory=list, init=False)

    @torch.no_grad()
    def __call__(self, loss: float) -> None:
        """Note the loss of the step just taken and how far the weights went."""
        weights = torch.cat([p.detach().flatten() for p in self.model.parameters()])
        if self._last is not None:
            self._steps.append(float((weights - self._last).norm()))
            self._norms.append(float(weights.norm()))
            self.losses.append(loss)
        if not self._marks or len(self.losses) - self._marks[-1][0] >= self.window:
            self._marks = [*self._marks[-1:], (len(self.losses), weights)]
        self._last = weights

    def look(
        self, first: Any, second: Any, size: int, *, curvature: bool = False
    ) -> Look:
        """Look at the gradient, on two independent batches of ``size`` examples each.

        The run is not disturbed: gradients and buffers are left as they were.

        Args:
            first: one batch.
            second: the other.
            size: examples in each.
            curvature: whether to find the sharpness as well (dozens of gradients).
        """
        with restored(self.model):
            a = _gradient(self.model, self.loss, first)
            b = _gradient(self.model, self.loss, second)
        squared = squared_gradient_norm(a, b)
        both = (a + b) / 2
        trace = (
            noise_trace(a, both, size, 2 * size) + noise_trace(b, both, size, 2 * size)
        ) / 2
        weights = torch.cat([p.detach().flatten() for p in self.model.parameters()])
        found = sharpness(self.model, self.loss, first) if curvature else None
        rate = self.optimizer.param_groups[0]["lr"]
        self.looks.append(
            Look(
                len(self.losses),
                squared,
                max(squared, 0.0) ** 0.5 / max(float(weights.norm()), 1e-30),
                trace,
                math.inf if squared <= 0 else trace / squared,
                found,
                None if found is None else rate * found,
            )
        )
        return self.looks[-1]

    def report(self) -> StationarityReport:
        """The verdict over the last ``window`` steps.

        Still moving: the loss slopes significantly and by more than ``tolerance``, or
        the distribution of the loss or of ``‖θ‖`` differs between the window's halves.
        Otherwise an invariant regime if the looks find a gradient beyond two standard
        errors, and a stationary point if they do not. Diverged, whatever else, where a
        loss, a weight or a gradient in the window is NaN or infinite.

        Raises:
            ValueError: fewer steps than the window, or fewer than two looks in it.
        """
        if len(self.losses) < self.window:
            raise ValueError(
                f"the report needs {self.window} steps, {len(self.losses)} were watched"
            )
        first = len(self.losses) - self.window
        looks = tuple(look for look in self.looks if look.step >= first)
        if len(looks) < 2:
            raise ValueError(
                f"the report needs 2 looks since step {first}, has {len(looks)}"
            )
        losses, norms = self.losses[first:], self._norms[first:]
        steps = self._steps[first:]
        slope, interval = loss_slope(losses)
        change = abs(slope) * self.window / max(abs(sum(losses)) / self.window, 1e-30)
        half = self.window // 2
        observables = {"loss": losses, "weight norm": norms}
        p_values = {
            n: windows_differ(v[:half], v[half:]) for n, v in observables.items()
        }
        squares = torch.tensor(
            [look.gradient_squared for look in looks], dtype=torch.float64
        )
        mean = float(squares.mean())
        error = float(squares.std()) / len(looks) ** 0.5
        nonfinite = [
            name
            for name, values in (
                *observables.items(),
                ("step", steps),
                ("gradient", [value for x in looks for value in x.numbers()]),
            )
            if not all(map(math.isfinite, values))
        ]
        if nonfinite:  # a comparison with NaN is False, which would read as no change
            names = " and ".join(nonfinite)
            verdict, reasons = "diverged", (f"the {names} is not finite",)
        else:
            verdict, reasons = self._judge(
                slope, interval, change, p_values, mean, error
            )
        mark, weights = self._marks[0]
        path = sum(self._steps[mark:])
        net = float((self._last - weights).norm())  # pyright: ignore[reportOptionalOperand]
        ratios = [s / max(n, 1e-30) for s, n in zip(steps, norms, strict=True)]
        return StationarityReport(
            verdict,
            reasons,
            slope,
            interval,
            p_values,
            (mean, error),
            sum(ratios) / len(ratios),
            _ratio(net, path),
            looks,
        )

    def _judge(
        self,
        slope: float,
        interval: float,
        change: float,
        p_values: dict[str, float],
        mean: float,
        error: float,
    ) -> tuple[str, tuple[str, ...]]:
        reasons = []
        if abs(slope) > interval and change > self.tolerance:
            reasons.append(
                f"the loss changes by {100 * change:.0f} % over the window "
                f"(slope {slope:.3g} ± {interval:.3g} a step)"
            )
        for name, p in p_values.items():
            if p < self.significance:
                reasons.append(
                    f"the {name} differs between the halves of the window (p = {p:.2g})"
                )
        if reasons:
            return "still moving", tuple(reasons)
        still = "neither the loss nor the weight norm changes over the window"
        size = f"‖∇F‖² = {mean:.3g} ± {error:.3g}"
        if mean > 2 * error:
            return "invariant regime", (still, f"but the gradient is not zero: {size}")
        return "stationary point", (still, f"and no gradient is found: {size}")
