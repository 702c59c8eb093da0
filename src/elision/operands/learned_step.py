"""Whole multiples of a step that training learns: activations of BCGD, PACT and LSQ."""

import functools
import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from elision.common.checks import integer, number, one_of
from elision.operands.base import State
from elision.operands.quantised_weight import QuantisedWeight

__all__ = ["LearnedStep", "gaussian_step"]

Quantiser = Literal["ceil", "round"]
Gradient = Literal["three-valued", "exact", "pact", "lsq", "fixed"]

_QUANTISERS = ("ceil", "round")
_GRADIENTS = ("three-valued", "exact", "pact", "lsq", "fixed")
_STARTS = ("gaussian", "data", "lsq")

#: Width of the interval in which the search ends, relative to its end.
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class LearnedStep(QuantisedWeight):
    """``a·k`` with a whole number ``k`` in [0, Q] in place of ``x``, the step ``a`` learned.

    ``Q = 2^b − 1``, and ``k = ⌈x/a⌉`` or ``k = round(x/a)``, cut off at both ends; so this
    is a ReLU with steps, and what is negative becomes zero. ``signed`` has ``k`` in
    [−2^(b−1), 2^(b−1) − 1]. The gradient of ``x`` is the result's where ``x`` is within the
    range, zero outside of it (clipped straight-through). That of the step is the sum of
    the result's gradient times

    ==================  =============  ================  ===========
    ``gradient``        below          within            above
    ==================  =============  ================  ===========
    ``"three-valued"``  0              2^(b−1)           Q
    ``"exact"``         0              k                 Q
    ``"pact"``          0              0                 Q
    ``"lsq"``           0 or −2^(b−1)  round(x/a) − x/a  Q
    ``"fixed"``         not trained    not trained       not trained
    ==================  =============  ================  ===========

    times ``rate`` and cut off at ``±limit``; for ``"lsq"`` also times ``1/sqrt(N·Q)``, ``N``
    the values of a weight or of one example of an input. The step is the buffer ``step`` of
    the layer, of shape (1,); an optimiser trains it through
    :func:`elision.topology.attach`, which also keeps it within its bounds.

    Attributes:
        bits: width of a code, in [1, 8].
        quantiser: ``"ceil"`` as BCGD's paper defines it, ``"round"`` as the others do.
        gradient: see above.
        signed: whether codes are negative, too; then ``quantiser`` is ``"round"`` and the
            gradient ``"lsq"`` or ``"fixed"``.
        initial: the first step: a number; ``"gaussian"``, the best for values of a Gaussian
            of unit variance (:func:`gaussian_step`); ``"data"``, that times the root mean
            square of the positive values of the first batch; ``"lsq"``, ``2·mean|x|/sqrt(Q)``
            of the first batch. Before it, a step that data give is zero.
        rate: factor on the step's gradient.
        limit: largest magnitude of the step's gradient in one pass.
        bounds: smallest and largest step.

    Sources: Yin et al., arXiv 1808.05240 (three-valued, ceil; exact, pact, rate, limit and
    bounds are of the authors' code); Choi et al., arXiv 1805.06085 (pact); Esser et al.,
    arXiv 1902.08153 (lsq).

    Example:
        >>> x = torch.tensor([-0.2, 0.3, 0.7, 2.0], requires_grad=True)
        >>> step = torch.tensor([0.5], requires_grad=True)
        >>> y = LearnedStep(2, rate=1).differentiable(x, {"step": step}, True)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.0, 0.5, 1.0, 1.5], [0.0, 1.0, 1.0, 0.0])
    """

    bits: int = 4
    quantiser: Quantiser = "ceil"
    gradient: Gradient = "three-valued"
    _: KW_ONLY
    signed: bool = False
    initial: float | Literal["gaussian", "data", "lsq"] = "gaussian"
    rate: float = 0.01
    limit: float = 1.0
    bounds: tuple[float, float] = (1e-3, 5.0)

    own_gradient = True
    reads_axes = False
    # Data give the first step alone, and a pass computed again finds it there.
    writes_state = False

    def check(self) -> None:
        own = "LearnedStep"
        integer(own, "bits", self.bits, "[1, 8]")
        one_of(own, "quantiser", self.quantiser, _QUANTISERS)
        one_of(own, "gradient", self.gradient, _GRADIENTS)
        number(own, "rate", self.rate, ">= 0")
        number(own, "limit", self.limit, "(0, inf]")
        if isinstance(self.initial, str):
            one_of(own, "initial", self.initial, _STARTS)
        else:
            number(own, "initial", self.initial, "> 0")
        low, high = self.bounds
        if not 0 < low < high:
            raise ValueError(f"{own}(bounds={self.bounds!r}): must be 0 < low < high")
        if self.signed and (
            self.quantiser != "round"
            or self.gradient not in ("lsq", "fixed")
            or self.bits < 2
        ):
            raise ValueError(
                f"{own}(signed=True, bits={self.bits}, quantiser={self.quantiser!r}, "
                f"gradient={self.gradient!r}): signed codes have 2 bits or more, quantiser "
                "'round' and gradient 'lsq' or 'fixed'"
            )

    @property
    def learns(self) -> bool:
        """Whether the step has a gradient."""
        return self.gradient != "fixed"

    @property
    def levels(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if self.signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def initial_state(self) -> State:
        first = self.initial
        if first == "gaussian":
            first = gaussian_step(self.bits, self.quantiser)
        return {"step": torch.full((1,), 0.0 if isinstance(first, str) else first)}

    def first_step(self, x: Tensor) -> Tensor:
        """The step that values give, of shape (1,); 1 where they are all zero.

        Args:
            x: values of any shape.
        """
        x = x.detach().float()
        if self.initial == "lsq":
            found = 2 * x.abs().mean() / math.sqrt(self.levels[1])
        else:
            above = torch.where(x > 0, x, 0)
            count = (x > 0).sum().clamp_min(1)
            found = ((above**2).sum() / count).sqrt()
            found = found * gaussian_step(self.bits, self.quantiser)
        return torch.where(found > 0, found.clamp(*self.bounds), 1.0).view(1)

    def differentiable(self, x: Tensor, state: State, training: bool) -> Tensor:
        step = self._step(x, state["step"], training)
        low, high = self.levels
        rate = self.rate
        if self.gradient == "lsq":
            count = x.numel() if self.signed else x[:1].numel()
            rate /= math.sqrt(max(1, count) * high)
        return _Steps.apply(
            x, step, low, high, self.quantiser, self.gradient, rate, self.limit
        )  # pyright: ignore[reportReturnType]

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        with torch.no_grad():
            return self.differentiable(x, state, training)

    def __call__(self, x: Tensor, state: list[Tensor], training: bool) -> Tensor:
        """Apply as plain tensor code, which autograd may look into."""
        return self.apply(x, {"step": state[0]}, training)

    def _step(self, x: Tensor, step: Tensor, training: bool) -> Tensor:
        """The step, from data where it has none yet."""
        if not (isinstance(self.initial, str) and self.initial != "gaussian"):
            return step
        with torch.no_grad():
            if torch.compiler.is_compiling():
                found = self.first_step(x).to(step.dtype)
                first = torch.where(step == 0, found, step)
            elif bool(step != 0):
                return step
            else:
                first = self.first_step(x).to(step.dtype)
            if training:
                step.copy_(first)
                return step
            return first

    @property
    def number_format(self) -> str:
        """That of the codes ``k``; 0 and 1, like −1 and 1, take a bit and no multiplier."""
        if self.signed:
            return f"int{self.bits}"
        return "binary" if self.bits == 1 else f"uint{self.bits}"

    def __str__(self) -> str:
        signed = "signed " if self.signed else ""
        kept = "learned" if self.learns else "fixed"
        return f"{signed}{self.bits} bits of a {kept} step, {self.quantiser}"


class _Steps(torch.autograd.Function):
    """The result, and the coarse gradients of the operand and of the step."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        low: int,
        high: int,
        quantiser: str,
        gradient: str,
        rate: float,
        limit: float,
    ) -> Tensor:
        size = step.to(x.dtype)
        scaled = x / size
        codes = torch.ceil(scaled) if quantiser == "ceil" else torch.round(scaled)
        codes = codes.clamp_(low, high).add_(0.0)  # no negative zeros
        # What lies on the upper end is within the range for BCGD, above it for the others.
        ends_within = gradient in ("three-valued", "exact")
        above = (scaled > high) if ends_within else (scaled >= high)
        within = (scaled > low) & ~above
        # Small integers: no codec of saved tensors may round them.
        region = within.to(torch.uint8) + 2 * above.to(torch.uint8)
        more = None
        if gradient == "exact":
            more = codes.to(torch.uint8)
        elif gradient == "lsq":
            more = x
        # The step itself may be written before the backward pass, or seem so.
        ctx.save_for_backward(region, step.clone(), more)
        ctx.how = (low, high, gradient, rate, limit)
        return codes * size

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        region, step, more = ctx.saved_tensors
        low, high, gradient, rate, limit = ctx.how
        within = grad * (region == 1)
        of_step = None
        if ctx.needs_input_grad[1] and gradient != "fixed":
            of_step = high * (grad * (region == 2)).sum()
            if gradient == "three-valued":
                of_step = of_step + (high + 1) // 2 * within.sum()
            elif gradient == "exact":
                of_step = of_step + (within * more).sum()
            elif gradient == "lsq":
                scaled = more / step.to(more.dtype)
                of_step = of_step + (within * (torch.round(scaled) - scaled)).sum()
                if low:
                    of_step = of_step + low * (grad * (region == 0)).sum()
            of_step = (of_step * rate).clamp(-limit, limit).to(step.dtype).view(1)
        return within, of_step, None, None, None, None, None, None


@functools.cache
def gaussian_step(bits: int, quantiser: Quantiser = "round") -> float:
    """The step that rounds the positive half of a Gaussian of unit variance best.

    The minimum over ``a`` of ``E[(x − a·k(x))²]`` for ``x > 0``, in closed form but for a
    search by golden section.

    Args:
        bits: width of a code, in [1, 8].
        quantiser: ``"ceil"`` or ``"round"``.

    Raises:
        ValueError: ``bits`` or ``quantiser`` out of range.

    Example:
        >>> round(gaussian_step(1, "round"), 4), round(gaussian_step(1, "ceil"), 4)
        (1.224, 0.7979)
    """
    integer("gaussian_step", "bits", bits, "[1, 8]")
    one_of("gaussian_step", "quantiser", quantiser, _QUANTISERS)
    low, high = 0.0, 6.0 / 2 ** (bits / 2)  # wide of every minimum
    shrink = (math.sqrt(5) - 1) / 2
    while high - low > _TOLERANCE * high:
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if _gaussian_error(left, bits, quantiser) < _gaussian_error(
            right, bits, quantiser
        ):
            high = right
        else:
            low = left
    return (low + high) / 2


def _gaussian_error(step: float, bits: int, quantiser: Quantiser) -> float:
    """``E[(x − a·k(x))²]`` over a Gaussian, of ``x > 0``, but for the part without ``a``."""
    offset = 1.0 if quantiser == "ceil" else 0.5
    codes = range(1, 2**bits)
    ends = [(k - offset) * step for k in codes] + [math.inf]
    density = [math.exp(-e * e / 2) / math.sqrt(2 * math.pi) for e in ends]
    tail = [math.erfc(e / math.sqrt(2)) / 2 for e in ends]
    first = sum(k * (density[k - 1] - density[k]) for k in codes)
    second = sum(k * k * (tail[k - 1] - tail[k]) for k in codes)
    return step * (step * second - 2 * first)
