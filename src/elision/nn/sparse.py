"""A layer with masked weights, by kernels whose work is that of the weights that remain.

Sequences lie side by side in the registers' lanes, so that a weight is one value for all of
them: unstructured masks cost no lanes. The weights' gradients are computed at the masks'
places alone; elsewhere they are zero.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from elision.nn.kernel import (
    Given,
    Grads,
    Layer,
    call,
    differentiable,
    first_grads,
    layer_of,
    whole_grad,
)
from elision.nn.over_time import Plain, State

__all__ = [
    "SPARSE_BELOW",
    "Lists",
    "Mask",
    "SparseLayer",
    "lanes_of",
    "pays",
    "sparse_recurrence",
]

#: Sequences side by side in a block of lanes, and the floats that a block of all gates may
#: have: half an L2 of 1 MiB.
_LANES, _MOST_FLOATS = (64, 32, 16), 1 << 17

#: Lanes that are computed at least.
FEWEST_LANES = _LANES[-1]

#: Density of both masks of a layer up to which the kernel for sparse weights computes it:
#: measured at 256 to 1024 units, it is as fast as the dense one at 0.25 to 0.35.
SPARSE_BELOW = 0.25

_POINTER = ctypes.c_void_p


class Lists(ctypes.Structure):
    """``Lists`` in ``kernels/sparse_recurrent.hpp``."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("rows", "columns")),
        *((n, _POINTER) for n in ("row_start", "row_place")),
        *((n, _POINTER) for n in ("column_start", "column_place")),
        *((n, _POINTER) for n in ("row_values", "column_values")),
    ]


class SparseLayer(ctypes.Structure):
    """``SparseLayer`` in ``kernels/sparse_recurrent.hpp``."""

    _fields_ = [
        ("layer", ctypes.POINTER(Layer)),
        ("input", ctypes.POINTER(Lists)),
        ("hidden", ctypes.POINTER(Lists)),
        ("lanes", ctypes.c_int64),
        *(
            (n, _POINTER)
            for n in (
                *("xs", "gates", "states", "cells"),
                *("dw_input", "dw_hidden", "owed"),
            )
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

    def lists(
        self, weight: Tensor, shift_from: int, units: int
    ) -> tuple[Lists, list[Tensor]]:
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
        return Lists(*weight.shape, *(t.data_ptr() for t in held)), held

    @property
    def count(self) -> int:
        """Number of places that are kept."""
        self._refresh()
        return len(self._row_at)


#: Of the weights on the input and on the state.
Masks = tuple[Mask, Mask]


class HasDensity(Protocol):
    """Anything that says which fraction of a weight is kept."""

    @property
    def density(self) -> float:
        """From 0 to 1."""
        ...


def pays(masks: Sequence[HasDensity | None], rows: int) -> bool:
    """Whether the kernel for sparse weights is the faster one for a layer in one direction.

    With fewer sequences than lanes, it computes with lanes that are empty.

    Args:
        masks: of the weights on the input and on the state; None: a dense one.
        rows: sequences in the largest step.

    Example:
        >>> places = torch.eye(16, dtype=torch.bool)
        >>> pays([Mask(places), Mask(places)], rows=32), pays([Mask(places), None], rows=32)
        (True, False)
    """
    waste = max(1.0, FEWEST_LANES / max(1, rows))
    return all(m is not None and waste * m.density <= SPARSE_BELOW for m in masks)


def _starts(places: Tensor, count: int) -> Tensor:
    """Where each of ``count`` lists begins, and the end of the last."""
    sizes = torch.bincount(places, minlength=count)
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).int()


def sparse_recurrence(
    cell: str,
    data: Tensor,
    counts: Sequence[int],
    state: State,
    weights: Plain,
    masks: Masks,
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
        >>> weights = Plain(*gru.all_weights[0])
        >>> y, (h,) = sparse_recurrence("gru", x, [1, 1], (zero,), weights, tuple(masks))
        >>> y.shape
        torch.Size([2, 4])
    """
    sizes = torch.tensor(counts, dtype=torch.int64, device="cpu")
    h, c = (*state, None)[:2]
    found: Any = _Sparse.apply(
        *(
            cell,
            reverse,
            masks,
            sizes,
            data,
            h,
            c,
            weights.input,
            weights.hidden,
        ),
        *(weights.input_bias, weights.hidden_bias),
    )
    y, *last = found
    return y, tuple(last[: len(state)])


class _Sparse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, reverse: bool, masks: Masks, sizes: Tensor, *tensors: Any
    ) -> tuple[Tensor | None, ...]:
        ctx.cell, ctx.reverse, ctx.masks, ctx.used = cell, reverse, masks, False
        ctx.versions = [mask.places._version for mask in masks]
        y, hn, cn, kept = _forward(ctx, sizes, Given(*tensors))
        ctx.save_for_backward(sizes, *kept, *tensors)
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        sizes, xs, gates, states, cells, *tensors = ctx.saved_tensors
        given, want = Given(*tensors), Given(*ctx.needs_input_grad[4:])
        if ctx.versions != [mask.places._version for mask in ctx.masks]:
            raise RuntimeError(
                "a mask of a recurrent layer was changed between its forward and its "
                "backward pass"
            )
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            found = _differentiable(ctx, sizes, given, grads, want)
            return None, None, None, None, *found
        kept = (xs, gates, states, cells)
        if ctx.used:  # an earlier pass wrote over the gates
            *_, kept = _forward(ctx, sizes, given)
        ctx.used = True
        return None, None, None, None, *_backward(ctx, sizes, given, kept, grads, want)


def lanes_of(rows: int, sequences: int) -> int:
    """Lanes of a block: as many as keep the gates' block in the cache and are not empty."""
    for lanes in _LANES:
        if rows * lanes <= _MOST_FLOATS and sequences > lanes // 2:
            return lanes
    return FEWEST_LANES


def _call(
    ctx: Any, name: str, layer: Layer, given: Given, **memory: Tensor | None
) -> None:
    """Call a kernel with the lists of the present values."""
    (sequences, units), rows = given.h0.shape, len(given.w_hh)
    shift = 2 * units if ctx.cell == "gru" else rows
    of_input, held_input = ctx.masks[0].lists(given.w_ih, rows, units)
    of_state, held_state = ctx.masks[1].lists(given.w_hh, shift, units)
    made = SparseLayer(
        *(ctypes.pointer(layer), ctypes.pointer(of_input), ctypes.pointer(of_state)),
        lanes_of(4 * units, sequences),
        **{n: None if t is None else t.data_ptr() for n, t in memory.items()},
    )
    call(f"sparse_{ctx.cell}_{name}", made)
    del held_input, held_state  # alive until here


def _forward(ctx: Any, sizes: Tensor, given: Given) -> tuple[Any, ...]:
    """Outputs, last states, and what the backward pass reads."""
    given = given.plain()
    (tokens, features), (sequences, units) = given.x.shape, given.h0.shape
    steps, lanes = len(sizes), lanes_of(4 * units, sequences)
    blocks = -(-sequences // lanes)
    y = given.x.new_empty(tokens, units)
    hn, cn, cells = torch.empty_like(given.h0), None, None
    xs = y.new_empty(steps, blocks, features, lanes)
    gates = y.new_empty(steps, blocks, 4 * units, lanes)
    states = y.new_empty(steps + 1, blocks, units, lanes)
    if given.c0 is not None:
        cn, cells = torch.empty_like(hn), torch.empty_like(states)
    layer = layer_of(ctx.reverse, sizes, given, y=y, hn=hn, cn=cn)
    kept = {"xs": xs, "gates": gates, "states": states, "cells": cells}
    _call(ctx, "forward", layer, given, **kept)
    return y, hn, cn, tuple(kept.values())


def _backward(
    ctx: Any,
    sizes: Tensor,
    given: Given,
    kept: tuple[Tensor | None, ...],
    grads: Grads,
    want: Given,
) -> list[Tensor | None]:
    """Gradients of what was given, None where not wanted."""
    given = given.plain()
    found = first_grads(given, grads)
    if want.x:
        found["x"] = torch.empty_like(given.x)
    if given.b_ih is not None and (want.b_ih or want.b_hh):
        found |= {
            "b_ih": torch.empty_like(given.b_ih),
            "b_hh": torch.empty_like(given.b_hh),
        }
    values: list[Tensor | None] = [None, None]
    if want.w_ih or want.w_hh:
        values = [given.x.new_empty(mask.count) for mask in ctx.masks]
    made = {"dy": whole_grad(given, grads), "dh": found["h0"], "dc": found["c0"]}
    made |= {f"d{name}": found.get(name) for name in ("x", "b_ih", "b_hh")}
    layer = layer_of(ctx.reverse, sizes, given, **made)
    xs, gates, states, cells = kept
    memory = {"xs": xs, "gates": gates, "states": states, "cells": cells}
    memory |= {"dw_input": values[0], "dw_hidden": values[1]}
    _call(ctx, "backward", layer, given, **memory)
    for name, mask, part in zip(("w_ih", "w_hh"), ctx.masks, values, strict=True):
        if part is not None and getattr(want, name):
            found[name] = mask.scattered(part, getattr(given, name))
    return want.only(found)


def _differentiable(
    ctx: Any, sizes: Tensor, given: Given, grads: Grads, want: Given
) -> list[Tensor | None]:
    """The gradients as differentiable functions."""
    w_ih, w_hh = (
        torch.where(mask.places, weight, 0.0)
        for mask, weight in zip(ctx.masks, (given.w_ih, given.w_hh), strict=True)
    )
    masked = given._replace(w_ih=w_ih, w_hh=w_hh)
    found = differentiable(ctx.cell, ctx.reverse, sizes, masked, grads, want)
    for at, mask in zip((3, 4), ctx.masks, strict=True):
        grad = found[at]
        if grad is not None:
            found[at] = torch.where(mask.places, grad, 0.0)
    return found
