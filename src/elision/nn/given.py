"""A layer in one direction whose products read what a caller selects of their operands.

The weights are read as they are given: by lists of their non-zeros where few are left, the
one on the state else by the dense kernel. Somebody else may multiply the input; what is left
then waits from step to step. A weight's gradient is a product of the gates' gradients, over
all tokens at once, which the caller computes with whatever it reads of the other operand.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from elision.native.shared_object import load
from elision.nn.kernel import (
    Given,
    Grads,
    Layer,
    call,
    first_grads,
    layer_of,
    whole_grad,
)
from elision.nn.over_time import Plain, State
from elision.nn.sparse import Lists, SparseLayer, lanes_of, pays

__all__ = ["Weight", "selected_recurrence", "states_before"]

#: Units of a block of the dense kernel, and its four rows of gates in the order of its
#: columns, as gates of torch's; a GRU's last is the state's part of the third.
_UNITS = 16
_ORDER = {"lstm": (0, 1, 2, 3), "gru": (2, 0, 1, 2)}


class Weight(NamedTuple):
    """One weight of a layer in one direction, and what is read in its products.

    Attributes:
        read: as forward product and input gradient read it, ``(gates · units, columns)``.
        reads: what the weight gradient reads of the other operand, of which so many rows at
            a time are one: of the input, ``(tokens, features)``, all; of the states before
            each step, ``(tokens, units)``, those of a step.
        gradient: the weight's gradient, of the gates' gradients and what was read, each of
            all tokens.
    """

    read: Tensor
    reads: Callable[[Tensor, Sequence[int]], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]

    @property
    def density(self) -> float:
        """Fraction of what is read that is not zero."""
        return torch.count_nonzero(self.read).item() / max(1, self.read.numel())


def selected_recurrence(
    cell: str,
    data: Tensor,
    counts: Sequence[int],
    state: State,
    weights: Plain,
    of_input: Weight | None,
    of_state: Weight,
    *,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """One layer in one direction, whose products read what is selected of their operands.

    Args:
        cell: ``"lstm"`` or ``"gru"``.
        data: the input, ``(tokens, features)`` float32 on the CPU; without ``of_input`` its
            product, bias included, ``(tokens, gates · units)``.
        counts: sequences in each step, at least one step, none larger than the one before.
        state: ``(h,)`` or ``(h, c)``, each ``(sequences, units)``.
        weights: the parameters, of which the biases are added as they are.
        of_input: what is read of the weight on the input, most of which is zero.
        of_state: what is read of the weight on the state.
        reverse: from the last step to the first.

    Returns:
        Outputs ``(tokens, units)``, and the last states, shaped as the first.

    Raises:
        MemoryError: the kernel ran out of memory.
        RuntimeError: it cannot be built here.

    Example:
        >>> gru, x, zero = torch.nn.GRU(3, 4), torch.ones(2, 3), torch.zeros(1, 4)
        >>> weights = Plain(*gru.all_weights[0])
        >>> halves = Weight(weights.hidden / 2, lambda h, sizes: h, lambda g, h: g.T @ h)
        >>> part = weights.of_input(x)
        >>> y, _ = selected_recurrence(
        ...     "gru", part, [1, 1], (zero,), weights, None, halves
        ... )
        >>> y.shape
        torch.Size([2, 4])
    """
    sizes = torch.tensor(counts, dtype=torch.int64, device="cpu")
    h, c = (*state, None)[:2]
    own = (None, None) if of_input is None else (weights.input, weights.input_bias)
    found: Any = _Selected.apply(
        *(cell, reverse, sizes, of_input, of_state, data, h, c),
        *(own[0], weights.hidden, own[1], weights.hidden_bias),
    )
    y, *last = found
    return y, tuple(last[: len(state)])


def states_before(
    y: Tensor, h0: Tensor, counts: Sequence[int], *, reverse: bool
) -> Tensor:
    """The states that each step reads, in the order of the tokens.

    Example:
        >>> y, h0 = torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(2, 1)
        >>> states_before(y, h0, [2, 1], reverse=False).flatten().tolist()
        [0.0, 0.0, 1.0]
    """
    if not reverse and counts[-1] == len(h0):  # all sequences are of one length
        return torch.cat([h0, y[: -len(h0)]])
    steps = [*y.split(list(counts))]
    if reverse:
        steps.reverse()
    found = [h0[: len(steps[0])]]
    for now, before in zip(steps[1:], steps, strict=False):
        new = h0[len(before) : len(now)]
        kept = before[: len(now)]
        found.append(torch.cat([kept, new]) if len(new) else kept)
    return torch.cat(found[::-1] if reverse else found)


class _Selected(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: str,
        reverse: bool,
        sizes: Tensor,
        of_input: Weight | None,
        of_state: Weight,
        *tensors: Any,
    ) -> tuple[Tensor | None, ...]:
        given = Given(*tensors)
        read = None if of_input is None else of_input.read
        given = given._replace(w_ih=read, w_hh=of_state.read).plain()
        hidden = _Values(cell, given.w_hh)
        sparse = of_input is not None or pays([hidden], len(given.h0))
        ctx.kernel = (_Sparse if sparse else _Dense)(
            cell, reverse, sizes, given, hidden
        )
        ctx.of_input, ctx.of_state, ctx.used = of_input, of_state, False
        (y, hn, cn), kept = ctx.kernel.forward(given)
        want = Given(*ctx.needs_input_grad[5:])
        reads: list[Tensor | None] = [None, None]
        if want.w_ih and of_input is not None:
            reads[0] = of_input.reads(given.x, [len(given.x)])
        if want.w_hh:
            counts = sizes.tolist()
            before = states_before(y, given.h0, counts, reverse=reverse)
            reads[1] = of_state.reads(before, counts)
        ctx.save_for_backward(y, *reads, *kept, *given)
        return y, hn, cn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, of_x, of_h, *saved = ctx.saved_tensors
        fields = len(Given._fields)
        kept, given = saved[:-fields], Given(*saved[-fields:])
        if ctx.used:  # an earlier pass wrote over the gates
            _, kept = ctx.kernel.forward(given)
        ctx.used = True
        want = Given(*ctx.needs_input_grad[5:])
        found, own, of_state = ctx.kernel.backward(given, y, kept, grads, want)
        if of_x is not None:
            found["w_ih"] = ctx.of_input.gradient(own, of_x)
        if of_h is not None:
            found["w_hh"] = ctx.of_state.gradient(of_state, of_h)
        if want.b_hh:
            found["b_hh"] = of_state.sum(0)
        if want.b_ih:
            shared = want.b_hh and own is of_state
            found["b_ih"] = found["b_hh"] if shared else own.sum(0)
        return None, None, None, None, None, *want.only(found)


class _Values:
    """Lists of a weight's non-zeros, made once for both passes."""

    def __init__(self, cell: str, weight: Tensor) -> None:
        rows, columns = weight.shape
        units = columns
        self._weight = weight
        self._row_start = torch.empty(rows + 1, dtype=torch.int32, device="cpu")
        self._column_start = torch.empty(columns + 1, dtype=torch.int32, device="cpu")
        self.count = load().elision_lists_count(
            *(weight.data_ptr(), rows, columns),
            *(self._row_start.data_ptr(), self._column_start.data_ptr()),
        )
        self.density = self.count / max(1, weight.numel())
        # The gates in memory have the state's part of a GRU's third after the input's.
        self._shift = (2 * units if cell == "gru" else rows), units

    def lists(self) -> tuple[Lists, list[Tensor]]:
        """The lists, and the tensors that they point to."""
        places = [self._row_start.new_empty(self.count) for _ in range(2)]
        values = [self._weight.new_empty(self.count) for _ in range(2)]
        held = [self._row_start, places[0], self._column_start, places[1], *values]
        made = Lists(*self._weight.shape, *(t.data_ptr() for t in held))
        next_place = torch.empty_like(self._column_start)
        load().elision_lists_fill(
            *(self._weight.data_ptr(), *self._shift, ctypes.addressof(made)),
            next_place.data_ptr(),
        )
        return made, held


#: Gradients by name, and those of the input's and of the state's part of the gates.
Found = tuple[dict[str, Tensor | None], Tensor, Tensor]


class _Kernel:
    """One of the kernels, for one call."""

    def __init__(
        self, cell: str, reverse: bool, sizes: Tensor, given: Given, hidden: _Values
    ) -> None:
        self.cell, self.reverse, self.sizes = cell, reverse, sizes
        del given, hidden

    def _layer(self, given: Given, **others: Tensor | None) -> Layer:
        return layer_of(self.reverse, self.sizes, given, **others)

    @staticmethod
    def _made(given: Given) -> tuple[Tensor, Tensor, Tensor | None]:
        """Memory of the outputs and the last states."""
        y = given.x.new_empty(len(given.x), given.h0.shape[1])
        c = given.c0
        return y, torch.empty_like(given.h0), None if c is None else torch.empty_like(c)

    @staticmethod
    def _owed(
        given: Given, grads: Grads
    ) -> tuple[dict[str, Tensor | None], dict[str, Tensor | None]]:
        """Gradients of the first states, and what the kernel reads to find them."""
        first = first_grads(given, grads)
        dy = whole_grad(given, grads)
        return first, {"dy": dy, "dh": first["h0"], "dc": first["c0"]}


class _Sparse(_Kernel):
    """Of lists; sequences in lanes."""

    def __init__(
        self, cell: str, reverse: bool, sizes: Tensor, given: Given, hidden: _Values
    ) -> None:
        super().__init__(cell, reverse, sizes, given, hidden)
        self._of_state = hidden.lists()
        self._of_input = None
        if given.w_ih is not None:
            self._of_input = _Values("lstm", given.w_ih).lists()

    def forward(self, given: Given) -> tuple[Any, Any]:
        """Outputs, last states, and what the backward pass reads."""
        steps, (sequences, units) = len(self.sizes), given.h0.shape
        self._lanes = lanes_of(4 * units, sequences)
        blocks = -(-sequences // self._lanes)
        y, hn, cn = self._made(given)
        xs = y.new_empty(steps, blocks, given.x.shape[1], self._lanes)
        gates = y.new_empty(steps, blocks, 4 * units, self._lanes)
        states = y.new_empty(steps + 1, blocks, units, self._lanes)
        cells = None if cn is None else torch.empty_like(states)
        layer = self._layer(given, y=y, hn=hn, cn=cn)
        memory = {"gates": gates, "states": states, "cells": cells}
        self._call("forward", layer, xs=xs, **memory)
        return (y, hn, cn), tuple(memory.values())

    def backward(
        self, given: Given, y: Tensor, kept: Any, grads: Grads, want: Given
    ) -> Found:
        """Gradients of all but weights and biases, and of the gates."""
        del y
        units = given.h0.shape[1]
        found, made = self._owed(given, grads)
        owed = given.x.new_empty(len(given.x), 4 * units)
        if want.x and self._of_input is not None:
            found["x"] = made["dx"] = torch.empty_like(given.x)
        memory = dict(zip(("gates", "states", "cells"), kept, strict=True))
        self._call("backward", self._layer(given, **made), **memory, owed=owed)
        own = of_state = owed
        if self.cell == "gru":
            own, third = owed[:, : 3 * units], owed[:, 3 * units :]
            of_state = torch.cat([owed[:, : 2 * units], third], 1)
        if self._of_input is None:
            found["x"] = own
        return found, own, of_state

    def _call(self, name: str, layer: Layer, **memory: Tensor | None) -> None:
        of_input = self._of_input
        made = SparseLayer(
            ctypes.pointer(layer),
            None if of_input is None else ctypes.pointer(of_input[0]),
            ctypes.pointer(self._of_state[0]),
            self._lanes,
            **{n: None if t is None else t.data_ptr() for n, t in memory.items()},
        )
        call(f"sparse_{self.cell}_{name}", made)


class _Dense(_Kernel):
    """Of the whole weight on the state; gates of 16 units side by side."""

    def forward(self, given: Given) -> tuple[Any, Any]:
        """Outputs, last states, and what the backward pass reads."""
        (sequences, units), tokens = given.h0.shape, len(given.x)
        blocks = -(-units // _UNITS)
        y, hn, cn = self._made(given)
        x = given.x.unflatten(1, (-1, units))
        bias = x.new_zeros(x.shape[1:])
        if given.b_hh is not None:
            bias = given.b_hh.view_as(bias)
        gates = y.new_empty(blocks, tokens, 4, _UNITS)
        for column, gate in enumerate(_ORDER[self.cell]):
            if self.cell == "lstm" or column in (1, 2):
                part = x[:, gate] + bias[gate]
            else:  # a GRU's third gate: the input's part, and what the state's begins at
                part = x[:, gate] if column == 0 else bias[gate].expand(tokens, units)
            whole = F.pad(part, (0, blocks * _UNITS - units))
            gates[:, :, column] = whole.unflatten(1, (blocks, _UNITS)).transpose(0, 1)
        cells = None
        if cn is not None:
            cells = y.new_empty(blocks, tokens + sequences, _UNITS)
        layer = self._layer(given, y=y, hn=hn, cn=cn, gates=gates, cells=cells)
        layer.x = None
        call(f"{self.cell}_forward", layer)
        return (y, hn, cn), (gates, cells)

    def backward(
        self, given: Given, y: Tensor, kept: Any, grads: Grads, want: Given
    ) -> Found:
        """Gradients of all but weights and biases, and of the gates."""
        units = given.h0.shape[1]
        gates, cells = kept
        found, made = self._owed(given, grads)
        layer = self._layer(given, y=y, gates=gates, cells=cells, **made)
        layer.x, layer.wants_first = None, want.h0 or want.c0
        call(f"{self.cell}_backward", layer)
        columns = gates.permute(2, 1, 0, 3).flatten(2)[..., :units]

        def side_by_side(*places: int) -> Tensor:
            return torch.cat([columns[place] for place in places], 1)

        if self.cell == "lstm":
            own = of_state = side_by_side(0, 1, 2, 3)
        else:
            own, of_state = side_by_side(1, 2, 0), side_by_side(1, 2, 3)
        found["x"] = own
        return found, own, of_state
