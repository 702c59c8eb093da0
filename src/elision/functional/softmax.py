"""Softmax with a series in place of the exponential, and with a margin.

    f_n(z) = Σ_{k=0..n} z^k / k!                                 n even
    Taylor      p_i = f_n(z_i) / Σ_j f_n(z_j)
    SM          p_y = e^(z_y - m) / (e^(z_y - m) + Σ_{j≠y} e^(z_j))     y: the target
    SM-Taylor   the same with f_n in place of e^

Banerjee, Vishak, Gupta, Deepak, Jawahar, "Exploring Alternatives to Softmax Function",
arXiv 2011.11538. A margin m ≥ 0 makes the target's share smaller in training, so that the
loss asks for more; without a target (inference) there is no margin.

**Range.** ``f_n`` of even order is positive, so that every result is a distribution, but it
is no exponential:

- It is not shift-invariant: adding a constant to all logits changes the result, so the
  maximum is never subtracted. ``z^n`` would leave float16 at 256 and float32 at 1.8e19 for
  n = 2, at 7,100 for n = 10. Half precision is therefore computed in float32, and
  ``log f_n(z) = n·log s + log Σ_k (z/s)^k/k! · s^(k-n)`` with ``s = max(1, |z|)``, in which
  nothing overflows, whatever the finite logits.
- Below its only minimum (-1 for n = 2, -1.60 for 4, -2.18 for 6) it falls as z grows:
  ``f_2(-2) = f_2(0)``. There the largest probability need not be that of the largest logit.
  A network may well train into that side (a margin of 0.6 and n = 2 suffice): let the
  largest probability answer, not the largest logit. One warning for each order says so, the
  first time that logits lie below the minimum; ``check=False`` does not look. Nothing is
  clamped.
- A logit of minus infinity, or below half of the type's lowest number (what attention masks
  add), stands for a place that takes no part: it is its own score, as in softmax, and its
  probability zero beside any other, although ``f_n`` would be large there.
"""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

from elision.common.checks import integer, number, one_of

__all__ = [
    "BACKWARD",
    "RangeWarning",
    "argument_of_minimum",
    "forget_warnings",
    "log_sm_softmax",
    "log_sm_taylor_softmax",
    "log_taylor_softmax",
    "sm_softmax",
    "sm_taylor_softmax",
    "taylor_softmax",
]

#: Derivative of ``log f_n``: of the finite series, ``f_{n-1} / f_n``, the true one; or that
#: of the infinite series, 1, by which the loss has softmax's gradient ``p - y``.
BACKWARD = ("finite", "infinite")


class RangeWarning(UserWarning):
    """Logits lie where a series in place of the exponential is not monotone.

    Example:
        >>> forget_warnings()
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     _ = taylor_softmax(torch.tensor([0.0, -2.0]))
        >>> caught[0].category.__name__
        'RangeWarning'
    """


def taylor_softmax(
    z: Tensor,
    order: int = 2,
    dim: int = -1,
    *,
    backward: str = "finite",
    check: bool = True,
) -> Tensor:
    """``f_n(z_i) / Σ_j f_n(z_j)`` along a dimension, with the series of order n.

    Args:
        z: logits, any shape; the result has the same shape and type.
        order: n, even; odd orders are negative for small z.
        dim: of the classes.
        backward: ``"finite"``: the gradient; ``"infinite"``: the derivative of ``f_n``
            is taken as ``f_n``, as if the series did not end.
        check: warn once where the series is not monotone; see the module.

    Raises:
        ValueError: an odd or negative order, or an unknown ``backward``.
        TypeError: z is not of real floating point.

    Warns:
        RangeWarning: logits below the minimum of ``f_n``, once for each order.

    Example:
        >>> taylor_softmax(torch.tensor([2.0, 1.0, 0.0, -1.0]))
        tensor([0.5556, 0.2778, 0.1111, 0.0556])
    """
    return _scores(z, order, backward, check, "taylor_softmax").softmax(dim).to(z.dtype)


def log_taylor_softmax(
    z: Tensor,
    order: int = 2,
    dim: int = -1,
    *,
    backward: str = "finite",
    check: bool = True,
) -> Tensor:
    """Logarithm of :func:`taylor_softmax`, of better accuracy than its ``log()``.

    Example:
        >>> log_taylor_softmax(torch.tensor([2.0, 1.0, 0.0, -1.0]), order=4).exp()
        tensor([0.6316, 0.2444, 0.0902, 0.0338])
    """
    scores = _scores(z, order, backward, check, "log_taylor_softmax")
    return scores.log_softmax(dim).to(z.dtype)


def sm_softmax(
    z: Tensor, target: Tensor | None = None, margin: float = 0.5, dim: int = -1
) -> Tensor:
    """Softmax of logits whose target has lost a margin; plain softmax without a target.

    Args:
        z: logits, any shape.
        target: class indices, of z's shape without ``dim``; None: inference. A negative
            index stands for no target.
        margin: m ≥ 0, in logits (0.5 is an own choice).
        dim: of the classes.

    Raises:
        ValueError: a negative margin.

    Example:
        >>> sm_softmax(torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor(0), margin=0.6)
        tensor([0.4981, 0.3339, 0.1228, 0.0452])
    """
    return _reduced(z, target, margin, dim, "sm_softmax").softmax(dim)


def log_sm_softmax(
    z: Tensor, target: Tensor | None = None, margin: float = 0.5, dim: int = -1
) -> Tensor:
    """Logarithm of :func:`sm_softmax`.

    Example:
        >>> z, target = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor(0)
        >>> log_sm_softmax(z, target, margin=0.6)[0].exp()
        tensor(0.4981)
    """
    return _reduced(z, target, margin, dim, "log_sm_softmax").log_softmax(dim)


def sm_taylor_softmax(
    z: Tensor,
    target: Tensor | None = None,
    margin: float = 0.5,
    order: int = 2,
    dim: int = -1,
    *,
    backward: str = "finite",
    check: bool = True,
) -> Tensor:
    """:func:`taylor_softmax` of logits whose target has lost a margin.

    Arguments are those of :func:`sm_softmax` and :func:`taylor_softmax`.

    Example:
        >>> z, target = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor(0)
        >>> sm_taylor_softmax(z, target, margin=0.6)[0]
        tensor(0.4580)
    """
    z = _reduced(z, target, margin, dim, "sm_taylor_softmax")
    return taylor_softmax(z, order, dim, backward=backward, check=check)


def log_sm_taylor_softmax(
    z: Tensor,
    target: Tensor | None = None,
    margin: float = 0.5,
    order: int = 2,
    dim: int = -1,
    *,
    backward: str = "finite",
    check: bool = True,
) -> Tensor:
    """Logarithm of :func:`sm_taylor_softmax`.

    Example:
        >>> z, target = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor(0)
        >>> log_sm_taylor_softmax(z, target, margin=0.6)[0].exp()
        tensor(0.4580)
    """
    z = _reduced(z, target, margin, dim, "log_sm_taylor_softmax")
    return log_taylor_softmax(z, order, dim, backward=backward, check=check)


def _reduced(
    z: Tensor, target: Tensor | None, margin: float, dim: int, name: str
) -> Tensor:
    """Logits, the target's less the margin."""
    margin = number(name, "margin", margin, ">= 0")
    if not z.is_floating_point():
        raise TypeError(f"{name}: z must be of real floating point, got {z.dtype}")
    if target is None or margin == 0:
        return z
    index = target.unsqueeze(dim)
    loss = torch.where(index < 0, 0.0, -margin).to(z.dtype)
    return z.scatter_add(dim, index.clamp(min=0), loss)


# --- the series ------------------------------------------------------------------------


def _scores(z: Tensor, order: int, backward: str, check: bool, name: str) -> Tensor:
    """``log f_n(z)``, of which softmax is the result, in float32 or more."""
    order = integer(name, "order", order, ">= 2")
    if order % 2:
        raise ValueError(
            f"{name}(order={order}): must be even; a series of odd order is negative for "
            "small logits"
        )
    one_of(name, "backward", backward, BACKWARD)
    if not z.is_floating_point():
        raise TypeError(f"{name}: z must be of real floating point, got {z.dtype}")
    excluded = z <= torch.finfo(z.dtype).min / 2
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    if check:
        _warn_below_minimum(wide, excluded, order, name)
    scores = _log_series(wide.masked_fill(excluded, 0.0), order, backward)
    return torch.where(excluded, wide, scores)


def _log_series(z: Tensor, order: int, rule: str) -> Tensor:
    """``log f_n``, whose gradient is of the finite or of the infinite series."""
    if not torch.compiler.is_compiling() and not _is_transformed():
        return _LogSeries.apply(z, order, rule)  # pyright: ignore[reportReturnType]
    # The value does not depend on the scale, so that none of its derivatives do.
    size = z.detach().abs().clamp(min=1)
    value = order * size.log() + _series(z, size, order).log()
    return value if rule == "finite" else value.detach() + (z - z.detach())


def _is_transformed() -> bool:
    forward_ad = torch.autograd.forward_ad
    transforms = torch._C._are_functorch_transforms_active()
    return transforms or forward_ad._current_level >= 0


class _LogSeries(torch.autograd.Function):
    """``log f_n`` that saves nothing but z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, order: int, rule: str) -> Tensor:
        ctx.save_for_backward(z)
        ctx.order, ctx.rule = order, rule
        size = z.abs().clamp(min=1)
        return order * size.log() + _series(z, size, order).log()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (z,) = grad_outputs, ctx.saved_tensors
        if ctx.rule == "infinite":
            return grad, None, None
        # f_{n-1} / f_n
        size = z.abs().clamp(min=1)
        below = _series(z, size, ctx.order - 1)
        return grad * below / (size * _series(z, size, ctx.order)), None, None


def _series(z: Tensor, size: Tensor, order: int) -> Tensor:
    """``f_n(z) / size^n`` by Horner's rule; size ≥ 1, |z|."""
    u, inverse = z / size, 1 / size
    total, power = torch.ones_like(z), inverse
    for k in range(order, 0, -1):
        total = power + u / k * total
        power = power * inverse
    return total


@functools.cache
def argument_of_minimum(order: int) -> float:
    """Where ``f_n`` of even order n has its only minimum: the root of ``f_{n-1}``.

    Example:
        >>> [round(argument_of_minimum(n), 2) for n in (2, 4, 6)]
        [-1.0, -1.6, -2.18]
    """
    low, high = -float(order), 0.0  # f_{n-1}(-n) < 0 < f_{n-1}(0)
    while high - low > 1e-12:
        middle = (low + high) / 2
        total = 1.0
        for k in range(order - 1, 0, -1):
            total = 1 + middle / k * total
        low, high = (low, middle) if total > 0 else (middle, high)
    return high


_warned: set[int] = set()


def forget_warnings() -> None:
    """Warn again of orders that were warned of."""
    _warned.clear()


def _warn_below_minimum(z: Tensor, excluded: Tensor, order: int, name: str) -> None:
    if order in _warned or torch.compiler.is_compiling() or z.device.type == "meta":
        return
    if torch._C._are_functorch_transforms_active():
        return  # no value can be looked at
    lowest = argument_of_minimum(order)
    if bool(((z < lowest) & ~excluded).any()):
        _warned.add(order)
        warnings.warn(
            f"{name}(order={order}): logits below {lowest:.3g}, where the series falls as "
            "the logit grows, so that the largest probability need not be that of the "
            "largest logit; said once (check=False does not look)",
            RangeWarning,
            stacklevel=4,
        )
