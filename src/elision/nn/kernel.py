"""The fused kernels of an LSTM and a GRU as one differentiable function of a direction.

A sequence, padded or packed, is ``data`` of shape ``(tokens, features)``, the time steps one
after the other, and the number of sequences in each step, which never grows. The kernel
computes the input's part of all gates by one product, then step by step the state's part
with the cell behind the tile; what it keeps for the backward pass are the activated gates,
4 floats a unit and token, and the cells. Going back, the gates are overwritten by their
gradients, from which the products of the weights and the input read; a second pass over the
same graph computes them again.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elision.native.shared_object import load, unavailable
from elision.nn.loop import Gates, State, Weights

__all__ = ["recurrence", "takes"]

#: Units whose gates lie side by side, and floats that they take.
_UNITS, _BLOCK = 16, 64

_EXACT = Gates(torch.sigmoid, torch.tanh)


class Layer(ctypes.Structure):
    """``Layer`` in ``kernels/layer.hpp``."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("steps", "inputs", "units", "reverse", "threads")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("sizes", "x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0"),
                *("gates", "cells", "y", "hn", "cn", "dy", "dh", "dc", "dx"),
                *("dw_ih", "dw_hh", "db_ih", "db_hh"),
            )
        ),
    ]


def takes(*tensors: Tensor | None) -> str | None:
    """Why the kernel does not compute on these tensors, in a few words; None: it does."""
    if torch.compiler.is_compiling():
        return "compiled code"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != "cpu":
            return f"tensors on {tensor.device.type}"
        if tensor.dtype != torch.float32:
            return f"{tensor.dtype}".removeprefix("torch.")
        if type(tensor) not in (Tensor, torch.nn.Parameter) or _is_transformed(tensor):
            return "tensors of another kind than torch's own"
    return unavailable()


def _is_transformed(tensor: Tensor) -> bool:
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    forward_ad = torch.autograd.forward_ad
    return (
        functorch.is_functorch_wrapped_tensor(tensor) or forward_ad._current_level >= 0
    )


def recurrence(
    cell: str,
    data: Tensor,
    counts: Sequence[int],
    state: State,
    weights: Weights,
    *,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """One layer in one direction by the kernel.

    Args:
        cell: ``"lstm"`` or ``"gru"``.
        data: ``(tokens, features)`` float32 on the CPU.
        counts: sequences in each step, at least one step, none larger than the one before.
        state: ``(h,)`` or ``(h, c)``, each ``(sequences, units)``.
        weights: without a projection.
        reverse: from the last step to the first.

    Returns:
        Outputs ``(tokens, units)``, and the last states, shaped as the first.

    Raises:
        MemoryError: the kernel ran out of memory.
        RuntimeError: it cannot be built here.

    Example:
        >>> lstm, x = torch.nn.LSTM(3, 4), torch.ones(2, 3)
        >>> zero = torch.zeros(1, 4)
        >>> weights = Weights(*lstm.all_weights[0])
        >>> y, (h, c) = recurrence("lstm", x, [1, 1], (zero, zero), weights)
        >>> torch.allclose(y, lstm(x)[0], atol=1e-6)
        True
    """
    sizes = torch.tensor(counts, dtype=torch.int64, device="cpu")
    c = state[1] if len(state) > 1 else None
    found = _Recurrence.apply(
        *(cell, reverse, sizes, data, state[0], c, weights.input, weights.hidden),
        *(weights.input_bias, weights.hidden_bias),
    )
    y, *last = found  # pyright: ignore[reportGeneralTypeIssues]
    return y, tuple(last[: len(state)])


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, reverse: bool, sizes: Tensor, *given: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.cell, ctx.reverse, ctx.used = cell, reverse, False
        y, hn, cn, gates, cells = _forward(cell, reverse, sizes, given)
        ctx.save_for_backward(sizes, y, gates, cells, *given)
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        sizes, y, gates, cells, *given = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            counts = sizes.tolist()
            found = differentiable(ctx.cell, ctx.reverse, counts, given, grads, wanted)
            return None, None, None, *found
        if ctx.used:  # an earlier pass wrote over the gates
            y, _, _, gates, cells = _forward(ctx.cell, ctx.reverse, sizes, tuple(given))
        ctx.used = True
        found = _backward(
            ctx.cell, ctx.reverse, sizes, given, (y, gates, cells), grads, wanted
        )
        return None, None, None, *found


def layer_of(reverse: bool, sizes: Tensor, **tensors: Tensor | None) -> Layer:
    """What the kernels take: shapes, and where the tensors lie, which must stay alive."""
    x, h0 = tensors["x"], tensors["h0"]
    assert x is not None and h0 is not None
    return Layer(
        *(len(sizes), x.shape[1], h0.shape[1], reverse, torch.get_num_threads()),
        sizes=sizes.data_ptr(),
        **{n: None if t is None else t.data_ptr() for n, t in tensors.items()},
    )


def call(name: str, layer: ctypes.Structure) -> None:
    """Call one of the kernels.

    Raises:
        MemoryError: it ran out of memory.
    """
    if getattr(load(), f"elision_{name}")(ctypes.byref(layer)) < 0:
        raise MemoryError(f"the kernel {name} ran out of memory")


#: What a layer in one direction reads.
GIVEN = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh")


def contiguous(given: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
    """What was given, by name, as the kernels read it."""
    plain = (None if t is None else t.detach().contiguous() for t in given)
    return dict(zip(GIVEN, plain, strict=True))


def _forward(
    cell: str, reverse: bool, sizes: Tensor, given: tuple[Tensor | None, ...]
) -> tuple[Any, ...]:
    """Outputs, last states, gates and cells; of a GRU no cells."""
    tensors = contiguous(given)
    x, h0 = tensors["x"], tensors["h0"]
    assert x is not None and h0 is not None
    units, blocks = h0.shape[1], -(-h0.shape[1] // _UNITS)
    y = x.new_empty(len(x), units)
    gates = x.new_empty(blocks, len(x), _BLOCK)
    hn, cn, cells = torch.empty_like(h0), None, None
    if tensors["c0"] is not None:
        cn = torch.empty_like(hn)
        cells = x.new_empty(blocks, len(x) + len(h0), _UNITS)
    kept = {"gates": gates, "cells": cells, "y": y, "hn": hn, "cn": cn}
    call(f"{cell}_forward", layer_of(reverse, sizes, **tensors, **kept))
    return y, hn, cn, gates, cells


def _backward(
    cell: str,
    reverse: bool,
    sizes: Tensor,
    given: Sequence[Tensor | None],
    kept: tuple[Tensor, Tensor, Tensor | None],
    grads: tuple[Tensor | None, ...],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of what was given, None where not wanted."""
    tensors = contiguous(given)
    y, gates, cells = kept
    want = dict(zip(GIVEN, wanted, strict=True))

    def room(name: str, *others: str) -> Tensor | None:
        tensor = tensors[name]
        is_wanted = tensor is not None and any(want[n] for n in (name, *others))
        return torch.empty_like(tensor) if is_wanted else None  # pyright: ignore[reportArgumentType]

    weights = GIVEN[3:]
    found = {
        "x": room("x"),
        "h0": of_state(tensors["h0"], grads[1]),
        "c0": of_state(tensors["c0"], grads[2]),
        **{name: room(name, *weights) for name in weights},
    }
    dy = torch.zeros_like(y) if grads[0] is None else grads[0].contiguous()
    layer = layer_of(
        reverse,
        sizes,
        **tensors,
        **{"gates": gates, "cells": cells, "y": y, "dy": dy},
        **{"dh": found["h0"], "dc": found["c0"], "dx": found["x"]},
        **{f"d{name}": found[name] for name in weights},
    )
    call(f"{cell}_backward", layer)
    return [found[name] if want[name] else None for name in GIVEN]


def of_state(state: Tensor | None, grad: Tensor | None) -> Tensor | None:
    """Memory with the gradient of a last state, for that of the first."""
    if state is None:
        return None
    return torch.zeros_like(state) if grad is None else grad.clone().contiguous()


def differentiable(
    cell: str,
    reverse: bool,
    counts: list[int],
    given: Sequence[Tensor | None],
    grads: tuple[Tensor | None, ...],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients as differentiable functions: by the loop of torch's operations."""
    x, h0, c0, *weights = given
    assert x is not None and h0 is not None
    state = (h0,) if c0 is None else (h0, c0)
    run = _EXACT.run(cell)
    y, final = run(0, x, counts, state, Weights(*weights), reverse)  # pyright: ignore[reportArgumentType]
    pairs = [(o, g) for o, g in zip((y, *final), grads, strict=False) if g is not None]
    inputs = [t for t, want in zip(given, wanted, strict=True) if want]
    outputs, directions = zip(*pairs, strict=True)
    found = torch.autograd.grad(
        outputs, inputs, directions, create_graph=True, allow_unused=True
    )
    each = iter(found)
    return [next(each) if want else None for want in wanted]
