"""A layer with masked weights, by kernels whose work is that of the weights that remain.

Sequences lie side by side in the registers' lanes, so that a weight is one value for all of
them: unstructured masks cost no lanes. The weights' gradients are computed at the masks'
places alone; elsewhere they are zero.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elision.nn.kernel import (
    GIVEN,
    Layer,
    call,
    contiguous,
    differentiable,
    layer_of,
    of_state,
)
from elision.nn.loop import State, Weights

__all__ = ["Mask", "sparse_recurrence"]

#: Sequences side by side in a block of lanes, and the floats that a block of all gates may
#: have: half an L2 of 1 MiB.
_LANES, _MOST_FLOATS = (64, 32, 16), 1 << 17

_POINTER = ctypes.c_void_p


class _Lists(ctypes.Structure):
    """``Lists`` in ``kernels/sparse_recurrent.hpp``."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("rows", "columns")),
        *((n, _POINTER) for n in ("row_start", "row_place")),
        *((n, _POINTER) for n in ("column_start", "column_place")),
        *((n, _POINTER) for n in ("row_values", "column_values")),
    ]


class _SparseLayer(ctypes.Structure):
    """``SparseLayer`` in ``kernels/sparse_recurrent.hpp``."""

    _fields_ = [
        ("layer", ctypes.POINTER(Layer)),
        ("input", ctypes.POINTER(_Lists)),
        ("hidden", ctypes.POINTER(_Lists)),
        ("lanes", ctypes.c_int64),
        *(
            (n, _POINTER)
            for n in ("xs", "gates", "states", "cells", "dw_input", "dw_hidden")
        ),
    ]


class Mask:
    """Where a weight of a recurrent layer is not zero, as lists by rows and by columns.

    Args:
        places: boolean, ``(gates * units, columns)``.

    Attributes:
        density: fraction of places that are kept.

    Example:
        >>> Mask(torch.eye(4, dtype=torch.bool)).density
        0.25
    """

    def __init__(self, places: Tensor) -> None:
        self.places = places
        self._version: int | None = None

    @property
    def density(self) -> float:
        """Fraction of places that are kept."""
        self._refresh()
        return self._density

    def _refresh(self) -> None:
        """Lists anew where the mask was written to."""
        if self._version == self.places._version:
            return
        places = self.places.detach().cpu()
        rows, columns = places.shape
        row, column = places.nonzero(as_tuple=True)
        self._row_at = row * columns + column
        order = torch.argsort(column, stable=True)
        self._column_at = self._row_at[order]
        self._row_start = _starts(row, rows)
        self._column_start = _starts(column, columns)
        self._row_place = column.int()
        self._column_row = row[order].int()
        self._density = len(row) / max(1, places.numel())
        self._version = self.places._version

    def scattered(self, values: Tensor, like: Tensor) -> Tensor:
        """Values in the order of the lists by rows, as a dense tensor."""
        dense = torch.zeros_like(like, memory_format=torch.contiguous_format)
        dense.view(-1)[self._row_at] = values
        return dense

    def lists(self, weight: Tensor, shift_from: int, units: int) -> tuple[_Lists, list[Tensor]]:
        """Lists of a weight's values, and the tensors that they point to.

        Rows from ``shift_from`` on lie ``units`` rows further in the gates' memory.
        """
        self._refresh()
        flat = weight.detach().reshape(-1)
        place = self._column_row
        if shift_from < weight.shape[0]:
            place = place + (place >= shift_from) * units
        held = [
            *(self._row_start, self._row_place, self._column_start, place.int()),
            *(flat[self._row_at], flat[self._column_at]),
        ]
        return _Lists(*weight.shape, *(t.data_ptr() for t in held)), held

    @property
    def count(self) -> int:
        """Number of places that are kept."""
        self._refresh()
        return len(self._row_at)


def _starts(sorted_or_not: Tensor, count: int) -> Tensor:
    """Where each of ``count`` lists begins, and the end of the last."""
    sizes = torch.bincount(sorted_or_not, minlength=count)
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).int()


def sparse_recurrence(
    cell: str,
    data: Tensor,
    counts: Sequence[int],
    state: State,
    weights: Weights,
    masks: tuple[Mask, Mask],
    *,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """One layer in one direction with masked weights; see ``kernel.recurrence``.

    Args:
        cell: ``"lstm"`` or ``"gru"``.
        data: ``(tokens, features)`` float32 on the CPU.
        counts: sequences in each step, none larger than the one before.
        state: ``(h,)`` or ``(h, c)``, each ``(sequences, units)``.
        weights: without a projection; read at the masks' places.
        masks: of the weights on the input and on the state.
        reverse: from the last step to the first.

    Raises:
        MemoryError: the kernel ran out of memory.
        RuntimeError: it cannot be built here.

    Example:
        >>> gru, x, zero = torch.nn.GRU(3, 4), torch.ones(2, 3), torch.zeros(1, 4)
        >>> masks = [Mask(torch.rand(12, n) < 0.5) for n in (3, 4)]
        >>> weights = Weights(*gru.all_weights[0])
        >>> y, (h,) = sparse_recurrence("gru", x, [1, 1], (zero,), weights, tuple(masks))
        >>> y.shape
        torch.Size([2, 4])
    """
    sizes = torch.tensor(counts, dtype=torch.int64, device="cpu")
    c = state[1] if len(state) > 1 else None
    found = _Sparse.apply(
        *(cell, reverse, masks, sizes, data, state[0], c, weights.input, weights.hidden),
        *(weights.input_bias, weights.hidden_bias),
    )
    y, *last = found  # pyright: ignore[reportGeneralTypeIssues]
    return y, tuple(last[: len(state)])


class _Sparse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: str,
        reverse: bool,
        masks: tuple[Mask, Mask],
        sizes: Tensor,
        *given: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.cell, ctx.reverse, ctx.masks, ctx.used = cell, reverse, masks, False
        ctx.versions = [mask.places._version for mask in masks]
        y, hn, cn, kept = _forward(cell, reverse, masks, sizes, given)
        ctx.save_for_backward(sizes, *kept, *given)
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        sizes, xs, gates, states, cells, *given = ctx.saved_tensors
        wanted = ctx.needs_input_grad[4:]
        if ctx.versions != [mask.places._version for mask in ctx.masks]:
            raise RuntimeError(
                "a mask of a recurrent layer was changed between its forward and its "
                "backward pass"
            )
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            for at, mask in zip((3, 4), ctx.masks, strict=True):
                given[at] = torch.where(mask.places, given[at], 0.0)
            counts = sizes.tolist()
            found = differentiable(ctx.cell, ctx.reverse, counts, given, grads, wanted)
            for at, mask in zip((3, 4), ctx.masks, strict=True):
                if found[at] is not None:
                    found[at] = torch.where(mask.places, found[at], 0.0)  # pyright: ignore[reportCallIssue, reportArgumentType]
            return None, None, None, None, *found
        kept = (xs, gates, states, cells)
        if ctx.used:  # an earlier pass wrote over the gates
            *_, kept = _forward(ctx.cell, ctx.reverse, ctx.masks, sizes, tuple(given))
        ctx.used = True
        return None, None, None, None, *_backward(ctx, sizes, given, kept, grads, wanted)


def _lanes(rows: int, sequences: int) -> int:
    """Lanes of a block: as many as keep the gates' block in the cache and are not empty."""
    for lanes in _LANES:
        if rows * lanes <= _MOST_FLOATS and sequences > lanes // 2:
            return lanes
    return _LANES[-1]


def _sparse_layer(
    cell: str,
    masks: tuple[Mask, Mask],
    layer: Layer,
    tensors: dict[str, Tensor | None],
    **memory: Tensor | None,
) -> tuple[_SparseLayer, list[Any]]:
    """The structure, and what it points to."""
    w_ih, w_hh, h0 = (tensors[n] for n in ("w_ih", "w_hh", "h0"))
    assert w_ih is not None and w_hh is not None and h0 is not None
    units = h0.shape[1]
    shift = 2 * units if cell == "gru" else 4 * units
    of_input, held_input = masks[0].lists(w_ih, len(w_ih), units)
    of_state_, held_state = masks[1].lists(w_hh, shift, units)
    made = _SparseLayer(
        *(ctypes.pointer(layer), ctypes.pointer(of_input), ctypes.pointer(of_state_)),
        _lanes(4 * units, len(h0)),
        **{n: None if t is None else t.data_ptr() for n, t in memory.items()},
    )
    return made, [held_input, held_state]


def _forward(
    cell: str,
    reverse: bool,
    masks: tuple[Mask, Mask],
    sizes: Tensor,
    given: tuple[Tensor | None, ...],
) -> tuple[Any, ...]:
    tensors = contiguous(given)
    x, h0 = tensors["x"], tensors["h0"]
    assert x is not None and h0 is not None
    sequences, units = h0.shape
    lanes = _lanes(4 * units, sequences)
    block = (-(-sequences // lanes), lanes)
    steps = len(sizes)

    def room(steps: int, rows: int) -> Tensor:
        return x.new_empty(steps, block[0], rows, lanes)

    y, hn, cn, cells = x.new_empty(len(x), units), torch.empty_like(h0), None, None
    xs, gates, states = (
        room(steps, x.shape[1]),
        room(steps, 4 * units),
        room(steps + 1, units),
    )
    if tensors["c0"] is not None:
        cn, cells = torch.empty_like(h0), room(steps + 1, units)
    layer = layer_of(reverse, sizes, **tensors, y=y, hn=hn, cn=cn)
    kept = {"xs": xs, "gates": gates, "states": states, "cells": cells}
    made, held = _sparse_layer(cell, masks, layer, tensors, **kept)
    call(f"sparse_{cell}_forward", made)
    del held
    return y, hn, cn, tuple(kept.values())


def _backward(
    ctx: Any,
    sizes: Tensor,
    given: Sequence[Tensor | None],
    kept: tuple[Tensor, ...],
    grads: tuple[Tensor | None, ...],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of what was given, None where not wanted."""
    tensors = contiguous(given)
    want = dict(zip(GIVEN, wanted, strict=True))
    x, h0 = tensors["x"], tensors["h0"]
    assert x is not None and h0 is not None
    found: dict[str, Tensor | None] = dict.fromkeys(GIVEN)
    found |= {n: of_state(tensors[n], g) for n, g in zip(("h0", "c0"), grads[1:], strict=True)}
    if want["x"]:
        found["x"] = torch.empty_like(x)
    if tensors["b_ih"] is not None and (want["b_ih"] or want["b_hh"]):
        found |= {n: torch.empty_like(tensors[n]) for n in ("b_ih", "b_hh")}  # pyright: ignore[reportArgumentType]
    values: list[Tensor | None] = [None, None]
    if want["w_ih"] or want["w_hh"]:
        values = [x.new_empty(mask.count) for mask in ctx.masks]
    dy = x.new_zeros(len(x), h0.shape[1]) if grads[0] is None else grads[0].contiguous()
    layer = layer_of(
        ctx.reverse,
        sizes,
        **tensors,
        **{"dy": dy, "dh": found["h0"], "dc": found["c0"], "dx": found["x"]},
        **{"db_ih": found["b_ih"], "db_hh": found["b_hh"]},
    )
    names = ("xs", "gates", "states", "cells")
    memory = dict(zip(names, kept, strict=True))
    memory |= {"dw_input": values[0], "dw_hidden": values[1]}  # pyright: ignore[reportAssignmentType]
    made, held = _sparse_layer(ctx.cell, ctx.masks, layer, tensors, **memory)
    call(f"sparse_{ctx.cell}_backward", made)
    del held
    for name, mask, part in zip(("w_ih", "w_hh"), ctx.masks, values, strict=True):
        if part is not None and want[name]:
            found[name] = mask.scattered(part, tensors[name])  # pyright: ignore[reportArgumentType]
    return [found[name] if want[name] else None for name in GIVEN]
