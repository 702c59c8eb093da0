"""K-TanH, and the activations that are reckoned through it.

::

    t = (E & 3)·8 + (M >> 4)                          piece of x = (sign, E, M)
    k_tanh(x) = x                                     |x| < 0.25, or NaN
              = sign · 1                              |x| > 3.75
              = (sign, E_t, (M >> r_t) + b_t)         between

Kundu et al., "K-TanH: Efficient TanH for Deep Learning", arXiv 1909.07729.

The gradient is ``1 - y²`` of the approximated ``y``, the derivative of tanh in terms of
its value, as for tanh itself: it needs nothing but the output and is off by at most
``2·|y|·error``. The derivative of the map itself would be the slope of a staircase of
pieces: it jumps by factors of two between neighbours, knows nothing of tanh's curvature,
and is no better where the map falls (six places of the published table). Which of the two
the paper takes is not stated in what we have; this is an own choice. Above 3.75 the gradient
is zero, where tanh's is below 0.0023.
"""

import math
from typing import Any

import torch
from torch import Tensor

from elision.common.checks import one_of
from elision.functional.table import PUBLISHED, KTanhTable
from elision.native.shared_object import load, unavailable

__all__ = ["ENGINES", "k_gelu", "k_sigmoid", "k_silu", "k_swish", "k_tanh"]

#: Who computes K-TanH: integers in torch (the oracle), the native kernel, or the kernel
#: where there is one that takes the tensor.
ENGINES = ("auto", "torch", "native")

_NATIVE_TYPES = (torch.float32, torch.bfloat16)


def k_tanh(x: Tensor, *, table: KTanhTable = PUBLISHED, engine: str = "auto") -> Tensor:
    """Tanh by shifts and a table of 32 pieces on the bit pattern of a bfloat16.

    Other types are rounded to bfloat16 first (nearest, ties to even), so that the result
    is that of ``x.bfloat16()``, in x's type. The largest error is 8.92e-3 (at 0.621), from
    float32 inputs 1.03e-2. Odd; NaN stays NaN; not monotone in six places.

    Args:
        x: any shape, real floating point.
        table: the pieces; default the published one.
        engine: ``"torch"``: integers in torch, on any device, the oracle; ``"native"``:
            the C++ kernel, float32 and bfloat16 on the CPU, equal to the last bit;
            ``"auto"``: the kernel where it takes the tensor and can be built.

    Raises:
        TypeError: x is not of real floating point.
        ValueError: unknown engine, or one that does not take the tensor.
        RuntimeError: the kernel cannot be built here (``engine="native"``).

    Example:
        >>> k_tanh(torch.tensor([0.1, 1.0, -2.0, 9.0])).tolist()
        [0.10009765625, 0.75390625, -0.9648437..., 1.0]
    """
    one_of("k_tanh", "engine", engine, ENGINES)
    _check(x, "k_tanh")
    if _is_transformed():
        return _Transformed.apply(x, table, engine)  # pyright: ignore[reportReturnType]
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _computed(x, table, engine)
    return _KTanh.apply(x, table, engine)  # pyright: ignore[reportReturnType]


def k_sigmoid(
    x: Tensor, *, table: KTanhTable = PUBLISHED, engine: str = "auto"
) -> Tensor:
    """``σ(x) = (1 + k_tanh(x / 2)) / 2``; arguments as of :func:`k_tanh`.

    The largest error from float32 inputs is 5.2e-3.

    Example:
        >>> k_sigmoid(torch.tensor([0.0, 2.0])).tolist()
        [0.5, 0.876953125]
    """
    _check(x, "k_sigmoid")
    return 0.5 * k_tanh(0.5 * x, table=table, engine=engine) + 0.5


def k_silu(x: Tensor, *, table: KTanhTable = PUBLISHED, engine: str = "auto") -> Tensor:
    """``x · σ(x)`` (swish) through K-TanH; arguments as of :func:`k_tanh`.

    The error grows with ``|x|``: from float32 inputs 1.5e-2 at -5.

    Example:
        >>> k_silu(torch.tensor([2.0])).tolist()
        [1.75390625]
    """
    return x * k_sigmoid(x, table=table, engine=engine)


#: Swish with β = 1 is SiLU (Ramachandran, Zoph, Le, arXiv 1710.05941).
k_swish = k_silu


def k_gelu(x: Tensor, *, table: KTanhTable = PUBLISHED, engine: str = "auto") -> Tensor:
    """``x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2`` through K-TanH.

    The tanh form of GELU (Hendrycks, Gimpel, arXiv 1606.08415), itself off by 4.7e-4; the
    largest error from float32 inputs is 6.9e-3. Arguments as of :func:`k_tanh`.

    Example:
        >>> round(k_gelu(torch.tensor(1.0)).item(), 3)
        0.84
    """
    _check(x, "k_gelu")
    inner = math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)
    # Half of x first: x · (1 + tanh) may leave the range where GELU does not.
    return 0.5 * x * (1 + k_tanh(inner, table=table, engine=engine))


def _check(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{name}: x must be of real floating point, got {x.dtype}")


def _is_transformed() -> bool:
    """Whether derivatives of forward mode, or a transform of torch.func, are at work."""
    if torch.compiler.is_compiling():
        return False
    forward_ad = torch.autograd.forward_ad
    transforms = torch._C._are_functorch_transforms_active()
    return transforms or forward_ad._current_level >= 0


def _computed(x: Tensor, table: KTanhTable, engine: str) -> Tensor:
    """K-TanH without a gradient."""
    if _is_native(x, engine):
        return _native(x, table)
    bits = table.lookup(x.bfloat16().view(torch.int16).int() & 0xFFFF)
    return bits.to(torch.int16).view(torch.bfloat16).to(x.dtype)


class _KTanh(torch.autograd.Function):
    """K-TanH with the gradient of tanh in terms of its value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: KTanhTable, engine: str) -> Tensor:
        y = _computed(x, table, engine)
        ctx.save_for_backward(y)
        ctx.engine = engine
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (y,) = grad_outputs, ctx.saved_tensors
        if not torch.is_grad_enabled() and _is_native(y, ctx.engine, grad):
            return _native_gradient(y, grad), None, None
        return _gradient(y, grad), None, None


class _Transformed(_KTanh):
    """The same in the form that torch.func asks for, whose every call costs more."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, table: KTanhTable, engine: str) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _computed(x, table, engine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)
        ctx.engine = inputs[2]

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        return _gradient(y, grad_inputs[0])


def _gradient(y: Tensor, grad: Tensor) -> Tensor:
    """``grad · (1 - y²)``, rounded once from no less than float32."""
    wide = torch.promote_types(y.dtype, torch.float32)
    value = y.to(wide)
    return (grad.to(wide) * (1 - value * value)).to(y.dtype)


# --- the kernel ------------------------------------------------------------------------


def _is_native(x: Tensor, engine: str, *others: Tensor) -> bool:
    """Whether the kernel computes on these tensors.

    Raises:
        ValueError: the kernel is asked for and does not take them.
        RuntimeError: it is asked for and cannot be built.
    """
    if engine == "torch" or torch.compiler.is_compiling():
        return False
    tensors = (x, *others)
    takes = all(
        type(t) in (Tensor, torch.nn.Parameter)
        and t.device.type == "cpu"
        and t.dtype == x.dtype
        and t.dtype in _NATIVE_TYPES
        and not torch._C._functorch.is_functorch_wrapped_tensor(t)  # pyright: ignore[reportAttributeAccessIssue]
        for t in tensors
    )
    if takes and unavailable() is None:
        return True
    if engine == "native" and not others:
        if not takes:
            raise ValueError(
                "k_tanh(engine='native'): takes plain float32 and bfloat16 tensors on the "
                f"CPU, got {x.dtype} on {x.device}; engine='auto' takes any"
            )
        raise RuntimeError(f"k_tanh(engine='native'): {unavailable()}")
    return False


def _native(x: Tensor, table: KTanhTable) -> Tensor:
    x, y = _with_room(x.detach())
    base, shift = table.integers
    load().elision_k_tanh(
        *(t.data_ptr() for t in (base, shift, x, y)),
        *(x.numel(), x.dtype == torch.bfloat16, torch.get_num_threads()),
    )
    return y


def _native_gradient(y: Tensor, grad: Tensor) -> Tensor:
    y, out = _with_room(y.detach())
    if grad.stride() != y.stride():
        grad = torch.empty_like(y).copy_(grad)
    load().elision_k_tanh_backward(
        *(t.data_ptr() for t in (y, grad, out)),
        *(y.numel(), y.dtype == torch.bfloat16, torch.get_num_threads()),
    )
    return out


def _with_room(x: Tensor) -> tuple[Tensor, Tensor]:
    """x, and an empty tensor whose elements lie in memory as x's do, without gaps."""
    room = torch.empty_like(x)  # in x's order if x has no gaps
    if room.stride() == x.stride():
        return x, room
    return room.copy_(x), torch.empty_like(room)
