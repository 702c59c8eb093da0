"""Rounding by the native kernels: the bits of :meth:`Format.round`, many times faster.

:func:`rounded` and :func:`largest_rounded` answer None where there is no kernel for what is
asked: another device, float64, a range beyond float32's, a rule of scales that needs more
than the largest magnitude, no compiler. The caller then takes torch.

The kernels compute in float32, exactly where the formulas do; they release the interpreter
lock and use ``torch.get_num_threads()`` threads, on whose number no result depends. NaN
stays NaN; which of them is of no account. They read a tensor as it lies in memory, in any
order of its dimensions; a random number belongs to the index in torch's order.
"""

import ctypes
import math

import torch
from torch import Tensor, nn

from elision.formats.base import Format, Rounding, seed_word
from elision.formats.native_parameters import Element, element_of, rule_of
from elision.formats.scaled import Scaled
from elision.native import shared_object

__all__ = ["SMALL", "largest_rounded", "rounded"]

#: Values for which the kernels are not built if they are not there yet (an own choice).
SMALL = 4096

_WAYS = {"nearest": 0, "zero": 1, "stochastic": 2}
_NARROW = (torch.bfloat16, torch.float16)


def rounded(
    x: Tensor,
    format: Format,
    rounding: Rounding = "nearest",
    seed: int = 0,
    axis: int = -1,
) -> Tensor | None:
    """Values of the format in place of ``x``, without a gradient; None: no kernel here.

    Args are those of :meth:`Format.round`.

    Raises:
        ValueError: an axis that ``x`` has not.

    Example:
        >>> from elision.formats import FORMATS
        >>> x = torch.full((SMALL,), 0.3)
        >>> found = rounded(x, FORMATS["fp8-e4m3"])
        >>> found is None or found[0].item() == 0.3125
        True
    """
    if rounding not in _WAYS or not _readable(x):
        return None
    if isinstance(format, Scaled):
        return _scaled(x, format, rounding, seed, axis)
    element = element_of(format, rounding)
    return None if element is None else _single(x, element, rounding, seed, -1.0)


def largest_rounded(
    x: Tensor,
    above: float,
    format: Format,
    rounding: Rounding = "nearest",
    seed: int = 0,
) -> Tensor | None:
    """Values of the format where ``|x| > above``, zero elsewhere, in one pass.

    That is top-k and then a cast. NaN stays. None: no kernel here, or a format with shared
    scales, whose maximum is another pass anyway.

    Args:
        x: floating-point values of any shape.
        above: a threshold; below zero, all values are rounded.
        format: the values' format.
        rounding: see :data:`~elision.formats.base.Rounding`.
        seed: of stochastic rounding.

    Example:
        >>> from elision.formats import FORMATS
        >>> x = torch.full((SMALL,), 0.3)
        >>> found = largest_rounded(x, 0.5, FORMATS["bf16"])
        >>> found is None or found.count_nonzero().item() == 0
        True
    """
    if rounding not in _WAYS or isinstance(format, Scaled) or not _readable(x):
        return None
    element = element_of(format, rounding)
    return None if element is None else _single(x, element, rounding, seed, above)


def _readable(x: Tensor) -> bool:
    """Whether the kernels can read a tensor, and are there or worth building for it."""
    if (
        type(x) not in (Tensor, nn.Parameter)
        or not (x.dtype == torch.float32 or x.dtype in _NARROW)
        or not x.is_cpu
        or x.layout != torch.strided
        or torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]
    ):
        return False
    if x.numel() < SMALL and not shared_object.loaded():
        return False
    return shared_object.unavailable() is None


def _single(
    x: Tensor, element: Element, rounding: Rounding, seed: int, above: float
) -> Tensor:
    source, y, _ = _memory(x, rounding)
    shared_object.load().elision_round(
        source.data_ptr(),
        y.data_ptr(),
        source.numel(),
        ctypes.byref(element),
        _WAYS[rounding],
        seed_word(seed),
        above,
        torch.get_num_threads(),
    )
    return _like(y, x)


def _scaled(
    x: Tensor, format: Scaled, rounding: Rounding, seed: int, axis: int
) -> Tensor | None:
    element, rule = element_of(format.element, rounding), rule_of(format)
    if element is None or rule is None:
        return None
    format.grouping.shape(x.shape, axis)  # refuses an axis that x has not
    source, y, order = _memory(x, rounding)
    outer, length, inner, block = 1, 1, source.numel(), 0
    if format.grouping.over != "tensor":
        shape = [x.shape[d] for d in order] or [1]
        place = order.index(axis % x.dim()) if x.dim() else 0
        outer, length, inner = (
            math.prod(shape[:place]),
            shape[place],
            math.prod(shape[place + 1 :]),
        )
        over = format.grouping
        block = over.within(length) if over.over == "block" else 0
    done = shared_object.load().elision_round_scaled(
        source.data_ptr(),
        y.data_ptr(),
        outer,
        length,
        inner,
        block,
        ctypes.byref(element),
        ctypes.byref(rule),
        _WAYS[rounding],
        seed_word(seed),
        torch.get_num_threads(),
    )
    if done < 0:
        raise MemoryError("the native kernels ran out of memory")
    return _like(y, x)


def _memory(x: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor, list[int]]:
    """Dense float32 values of ``x``, room for the result, its dimensions by stride.

    Random numbers follow torch's order, so the values must lie in it.
    """
    source = x.detach()
    order = list(range(x.dim()))
    if not source.is_contiguous():
        by_stride = sorted(order, key=lambda d: (-x.stride(d), d))
        if rounding != "stochastic" and source.permute(by_stride).is_contiguous():
            order = by_stride
        else:
            source = source.contiguous()
    if source.dtype == torch.float32:
        return source, torch.empty_like(source), order
    source = source.float()
    return source, source, order  # the copy is ours to overwrite


def _like(y: Tensor, x: Tensor) -> Tensor:
    """The result in the dtype of ``x``, and as it lies in memory."""
    if y.stride() != x.stride():
        return torch.empty_like(x, requires_grad=False).copy_(y)
    return y.to(x.dtype)
