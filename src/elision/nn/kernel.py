"""The fused kernels of an LSTM and a GRU as one differentiable function of a direction.

A sequence, padded or packed, is ``data`` of shape ``(tokens, features)``, the time steps one
after the other, and the number of sequences in each step, which never grows. The kernel
computes the input's part of all gates by one product, then step by step the state's part
with the cell behind the tile; what it keeps for the backward pass are the activated gates,
4 values a unit and token, and the cells, which are floats. Going back, the gates are
overwritten by their gradients, from which the products of the weights and the input read; a
second pass over the same graph computes them again. Numbers below 1.2e-38, the smallest
normal float32, count as zero.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elision.native.shared_object import load, unavailable
from elision.nn.over_time import Gates, Plain, State

__all__ = ["has_tiles", "recurrence", "takes"]

#: Units whose gates lie side by side, and values that they take.
_UNITS, _BLOCK = 16, 64

_EXACT = Gates()


class Layer(ctypes.Structure):
    """``Layer`` in ``kernels/layer.hpp``."""

    _fields_ = [
        *(
            (n, ctypes.c_int64)
            for n in ("steps", "inputs", "units", "reverse", "threads", "wants_first")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("sizes", "x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0"),
                *("gates", "cells", "y", "hn", "cn", "dy", "dh", "dc", "dx"),
                *("dw_ih", "dw_hh", "db_ih", "db_hh"),
            )
        ),
    ]


class Given(NamedTuple):
    """What a layer in one direction reads, or something of each.

    Attributes:
        x: data, ``(tokens, features)``.
        h0: first states, ``(sequences, units)``.
        c0: first cells; None of a GRU.
        w_ih: weight on the input.
        w_hh: weight on the state.
        b_ih: bias of the input's part; None without.
        b_hh: bias of the state's part; None without.
    """

    x: Any
    h0: Any
    c0: Any
    w_ih: Any
    w_hh: Any
    b_ih: Any
    b_hh: Any

    @property
    def states(self) -> list[tuple[str, Any]]:
        """First states by name."""
        return list(self._asdict().items())[1:3]

    @property
    def weights(self) -> list[tuple[str, Any]]:
        """Parameters by name."""
        return list(self._asdict().items())[3:]

    def plain(self) -> "Given":
        """The tensors as the kernels read them: without gaps or gradients.

        States and biases are float32.
        """
        found = {
            name: None if t is None else t.detach().contiguous()
            for name, t in self._asdict().items()
        }
        for name in ("h0", "c0", "b_ih", "b_hh"):
            value = found[name]
            found[name] = None if value is None else value.float()
        return Given(**found)

    def only(self, found: dict[str, Tensor | None]) -> list[Tensor | None]:
        """Of what was found, what this says is wanted."""
        return [found.get(n) if w else None for n, w in self._asdict().items()]


#: Gradients of the outputs and of the last states; None is zero.
Grads = tuple[Tensor | None, ...]


#: Beginning of the kernels' names, by the dtype that they compute.
_PREFIXES = {torch.float32: "", torch.bfloat16: "bf16_"}


def takes(*tensors: Tensor | None, casts: bool = False) -> str | None:
    """Why the kernel does not compute on these tensors, in a few words; None: it does.

    Args:
        tensors: all of float32, or all of bfloat16.
        casts: whether the caller casts them to bfloat16, as autocast would.
    """
    if torch.compiler.is_compiling():
        return "compiled code"
    if torch.is_autocast_enabled("cpu") and not casts:
        return "autocast"
    dtypes: set[torch.dtype] = set()
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != "cpu":
            return f"tensors on {tensor.device.type}"
        if tensor.dtype not in _PREFIXES:
            return f"{tensor.dtype}".removeprefix("torch.")
        if type(tensor) not in (Tensor, torch.nn.Parameter) or _is_transformed(tensor):
            return "tensors of another kind than torch's own"
        dtypes.add(torch.bfloat16 if casts else tensor.dtype)
    why = unavailable()
    if why is not None or torch.bfloat16 not in dtypes:
        return why
    if len(dtypes) > 1:
        return "float32 and bfloat16 together"
    return None if has_tiles() else "bfloat16 without AMX"


def has_tiles() -> bool:
    """Whether bfloat16 is computed here: by AMX, which Linux grants on request."""
    return bool(load().elision_multiplies_tiles())


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
    weights: Plain,
    *,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """One layer in one direction by the kernel.

    Args:
        cell: ``"lstm"`` or ``"gru"``.
        data: ``(tokens, features)`` float32 or bfloat16 (:func:`has_tiles`) on the CPU, as
            all others.
        counts: sequences in each step, at least one step, none larger than the one before.
        state: ``(h,)`` or ``(h, c)``, each ``(sequences, units)``.
        weights: without a projection.
        reverse: from the last step to the first.

    Returns:
        Outputs ``(tokens, units)``, and the last states, shaped as the first.

    Raises:
        MemoryError: the kernel ran out of memory.
        RuntimeError: it cannot be built here, or does not compute bfloat16.

    Example:
        >>> lstm, x = torch.nn.LSTM(3, 4), torch.ones(2, 3)
        >>> zero = torch.zeros(1, 4)
        >>> weights = Plain(*lstm.all_weights[0])
        >>> y, (h, c) = recurrence("lstm", x, [1, 1], (zero, zero), weights)
        >>> torch.allclose(y, lstm(x)[0], atol=1e-6)
        True
    """
    if data.dtype == torch.bfloat16 and not has_tiles():
        raise RuntimeError("no kernel of a recurrent layer for bfloat16 without AMX")
    sizes = torch.tensor(counts, dtype=torch.int64, device="cpu")
    h, c = (*state, None)[:2]
    found: Any = _Recurrence.apply(
        *(cell, reverse, sizes, data, h, c, weights.input, weights.hidden),
        *(weights.input_bias, weights.hidden_bias),
    )
    y, *last = found
    return y, tuple(last[: len(state)])


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, reverse: bool, sizes: Tensor, *tensors: Any
    ) -> tuple[Tensor | None, ...]:
        ctx.cell, ctx.reverse, ctx.used = cell, reverse, False
        y, hn, cn, gates, cells = _forward(cell, reverse, sizes, Given(*tensors))
        ctx.save_for_backward(sizes, y, gates, cells, *tensors)
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        sizes, y, gates, cells, *tensors = ctx.saved_tensors
        given, want = Given(*tensors), Given(*ctx.needs_input_grad[3:])
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            found = differentiable(ctx.cell, ctx.reverse, sizes, given, grads, want)
            return None, None, None, *found
        if ctx.used:  # an earlier pass wrote over the gates
            y, _, _, gates, cells = _forward(ctx.cell, ctx.reverse, sizes, given)
        ctx.used = True
        kept = {"y": y, "gates": gates, "cells": cells}
        found = _backward(ctx.cell, ctx.reverse, sizes, given, kept, grads, want)
        return None, None, None, *found


def layer_of(
    reverse: bool, sizes: Tensor, given: Given, **others: Tensor | None
) -> Layer:
    """What the kernels take: shapes, and where the tensors lie, which must stay alive."""
    tensors = given._asdict() | others
    return Layer(
        *(len(sizes), given.x.shape[1], given.h0.shape[1], reverse),
        *(torch.get_num_threads(), True),
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


def _forward(cell: str, reverse: bool, sizes: Tensor, given: Given) -> tuple[Any, ...]:
    """Outputs, last states, gates and cells; of a GRU no cells."""
    given = given.plain()
    dtype = given.x.dtype
    (tokens, _), (sequences, units) = given.x.shape, given.h0.shape
    blocks = -(-units // _UNITS)
    y = given.x.new_empty(tokens, units)
    gates = y.new_empty(blocks, tokens, _BLOCK)
    hn, cn, cells = torch.empty_like(given.h0), None, None
    if given.c0 is not None:
        cn, cells = (
            torch.empty_like(hn),
            hn.new_empty(blocks, tokens + sequences, _UNITS),
        )
    made = {"y": y, "hn": hn, "cn": cn, "gates": gates, "cells": cells}
    call(f"{_PREFIXES[dtype]}{cell}_forward", layer_of(reverse, sizes, given, **made))
    return y, hn.to(dtype), None if cn is None else cn.to(dtype), gates, cells


def _backward(
    cell: str,
    reverse: bool,
    sizes: Tensor,
    given: Given,
    kept: dict[str, Tensor | None],
    grads: Grads,
    want: Given,
) -> list[Tensor | None]:
    """Gradients of what was given, None where not wanted."""
    given = given.plain()
    weights = Given._fields[3:]
    found: dict[str, Tensor | None] = first_grads(given, grads)
    if want.x:
        found["x"] = torch.empty_like(given.x)
    if any(getattr(want, name) for name in weights):
        found |= {n: t if t is None else torch.empty_like(t) for n, t in given.weights}
    made = {f"d{name}": found.get(name) for name in ("x", *weights)}
    made |= {"dy": whole_grad(given, grads), "dh": found["h0"], "dc": found["c0"]}
    layer = layer_of(reverse, sizes, given, **kept, **made)
    layer.wants_first = want.h0 or want.c0
    dtype = given.x.dtype
    call(f"{_PREFIXES[dtype]}{cell}_backward", layer)
    return want.only({n: None if t is None else t.to(dtype) for n, t in found.items()})


def whole_grad(given: Given, grads: Grads) -> Tensor:
    """The gradient of the outputs, as the kernels read it."""
    if grads[0] is None:
        return given.x.new_zeros(len(given.x), given.h0.shape[1])
    return grads[0].contiguous()


def first_grads(given: Given, grads: Grads) -> dict[str, Tensor | None]:
    """Memory for the first states' gradients, with those of the last states in it."""
    found: dict[str, Tensor | None] = {"h0": None, "c0": None}
    for (name, state), grad in zip(given.states, grads[1:], strict=True):
        if state is not None:
            owed = torch.zeros_like(state)
            found[name] = owed if grad is None else owed.copy_(grad)
    return found


def differentiable(
    cell: str, reverse: bool, sizes: Tensor, given: Given, grads: Grads, want: Given
) -> list[Tensor | None]:
    """The gradients as differentiable functions: by the loop of torch's operations."""
    state = tuple(t for _, t in given.states if t is not None)
    weights = Plain(*(t for _, t in given.weights))
    y, final = _EXACT.run(cell)(given.x, sizes.tolist(), state, weights, reverse)
    pairs = [(o, g) for o, g in zip((y, *final), grads, strict=False) if g is not None]
    outputs, directions = zip(*pairs, strict=True)
    names = [name for name, wanted in want._asdict().items() if wanted]
    inputs = [getattr(given, name) for name in names]
    found = torch.autograd.grad(
        outputs, inputs, directions, create_graph=True, allow_unused=True
    )
    return want.only(dict(zip(names, found, strict=True)))
