"""The elided forms of torch's recurrent layers and their cells.

Torch's own forward of the layer runs: it checks the input, fills in what is not given and
undoes packing and batch axes. Where it calls the kernel of the recurrence, the layer
answers in one of three ways:

- nothing is changed and nobody observes: torch's kernel;
- only masks on weights: the kernel for sparse weights (:mod:`elision.nn.sparse`) where it
  pays and the recipe needs no gradient of what is masked, otherwise torch's kernel, on
  what the masks leave;
- else: a loop over the time steps, in which each product is one of the layer's parts. The
  product with the input is one for all steps, that with the state one for each step. A
  weight is transformed once in a pass, and its state moves once; a gradient's transform
  sees one step at a time.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from elision.layers.forms import mask_of, masked, sparse_mask
from elision.layers.modules.base import plan_of
from elision.layers.modules.part import ElidedPart, ElidedWhole
from elision.layers.recomputation import OWN_PRODUCTS
from elision.nn.kernel import takes
from elision.nn.over_time import Gates, Plain, State, sequences
from elision.nn.sparse import pays, sparse_recurrence

__all__ = [
    "ElidedGRU",
    "ElidedGRUCell",
    "ElidedLSTM",
    "ElidedLSTMCell",
    "ElidedRNN",
    "ElidedRNNCell",
]


class _Recurrent(ElidedWhole):
    """Answers torch's recurrent kernels with the products of the parts."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        plain: Any = super().forward
        parts = self.elided_parts
        observed = any(part._elision_observers for part in parts)
        if not observed and not any(plan_of(part).changes for part in parts):
            return plain(*args, **kwargs)
        with _Answers(parts, observed=observed):
            return plain(*args, **kwargs)


class _Answers(TorchFunctionMode):
    """Computes torch's recurrent kernels for one layer.

    Args:
        parts: the layer's parts, in the order of its parameters.
        observed: whether somebody watches the products.
    """

    def __init__(self, parts: list[ElidedPart], *, observed: bool) -> None:
        super().__init__()
        self._parts = parts
        self._only_masked = not observed and all(
            not plan_of(part).changes or mask_of(part) is not None
            for part in self._parts
        )

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the function; one of the recurrent kernels by the parts."""
        kernel = _KERNELS.get(func)
        if kernel is None:
            return func(*args, **(kwargs or {}))
        if self._only_masked:
            found = self._by_sparse_kernel(func, args)
            return func(*self._with_masks(args)) if found is None else found
        with ExitStack() as held:
            for part in self._parts:
                held.enter_context(part.holding())
            return kernel(Gates(weights=self._weights))(*args)

    def _weights(self, place: int, flat: list[Tensor]) -> "_Parts":
        del flat  # the parameters, which the parts know
        each = len(self._parts) // self._places
        return _Parts(*self._parts[each * place : each * (place + 1)])

    @property
    def _places(self) -> int:
        """Layers times directions; of a cell, one."""
        whole: Any = self._parts[0].whole
        if isinstance(whole, nn.RNNBase):
            return whole.num_layers * (2 if whole.bidirectional else 1)
        return 1

    def _by_sparse_kernel(self, func: Any, args: tuple[Any, ...]) -> Any:
        """What the kernel for sparse weights computes; None: it does not pay or fit."""
        cell = _SPARSE.get(func)
        engines = (part._elision_engine for part in self._parts)
        if cell is None or not all(engine.leaves_zeros_out for engine in engines):
            return None
        masks = [sparse_mask(part) for part in self._parts]
        if getattr(self._parts[0].whole, "proj_size", 0) or None in masks:
            return None
        data, second, third = args[:3]
        packed = isinstance(second, Tensor) and second.dtype == torch.int64
        hx = third if packed else second
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if takes(data, *states, *(part.weight for part in self._parts)) is not None:
            return None
        pairs = [(masks[i], masks[i + 1]) for i in range(0, len(masks), 2)]
        rows = states[0].shape[1]
        if not all(pays(pair, rows) for pair in pairs):
            return None

        def run(
            data: Tensor, counts: list[int], state: State, own: Any, back: bool
        ) -> tuple[Tensor, State]:
            place, weights = own
            return sparse_recurrence(
                cell, data, counts, state, weights, pairs[place], reverse=back
            )

        with OWN_PRODUCTS:
            return sequences(run, args, lambda place, flat: (place, Plain(*flat)))

    def _with_masks(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The kernel's arguments, with what the masks leave of the weights."""
        left = {id(part.weight): part for part in self._parts}

        def selected(x: Any) -> Any:
            if isinstance(x, Tensor):
                return masked(left[id(x)], x) if id(x) in left else x
            if isinstance(x, list | tuple):
                return [selected(one) for one in x]
            return x

        return tuple(selected(one) for one in args)


@dataclass(frozen=True)
class _Parts:
    """The products of one layer in one direction; see :class:`elision.nn.over_time.Weights`."""

    input: ElidedPart
    hidden: ElidedPart
    projection: ElidedPart | None = None

    def of_input(self, x: Tensor) -> Tensor:
        return self.input(x)

    def of_hidden(self, h: Tensor) -> Tensor:
        return self.hidden(h)

    def projected(self, h: Tensor) -> Tensor:
        return h if self.projection is None else self.projection(h)


#: Those of torch's kernels for which there is one for sparse weights.
_SPARSE = {torch.lstm: "lstm", torch.gru: "gru"}

#: Torch's recurrent kernels, as methods of the gates.
_KERNELS: dict[Any, Callable[[Gates], Callable[..., Any]]] = {
    torch.lstm: lambda gates: gates.lstm,
    torch.gru: lambda gates: gates.gru,
    torch.rnn_tanh: lambda gates: gates.rnn,
    torch.rnn_relu: lambda gates: gates.relu_rnn,
    torch.lstm_cell: lambda gates: gates.lstm_cell,
    torch.gru_cell: lambda gates: gates.gru_cell,
    torch.rnn_tanh_cell: lambda gates: gates.rnn_cell,
    torch.rnn_relu_cell: lambda gates: gates.relu_rnn_cell,
}


class ElidedLSTM(_Recurrent, nn.LSTM):
    """An ``LSTM`` whose products read operands that a recipe transforms.

    Example:
        >>> import elision
        >>> lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        >>> model = elision.elide(lstm, elision.methods.Static(0.5, dense=()))
        >>> y, (h, c) = model(torch.ones(5, 2, 3))
        >>> y.shape, h.shape
        (torch.Size([5, 2, 8]), torch.Size([4, 2, 4]))
    """


class ElidedGRU(_Recurrent, nn.GRU):
    """A ``GRU`` whose products read operands that a recipe transforms."""


class ElidedRNN(_Recurrent, nn.RNN):
    """An ``RNN`` whose products read operands that a recipe transforms."""


class ElidedLSTMCell(_Recurrent, nn.LSTMCell):
    """An ``LSTMCell`` whose products read operands that a recipe transforms."""


class ElidedGRUCell(_Recurrent, nn.GRUCell):
    """A ``GRUCell`` whose products read operands that a recipe transforms."""


class ElidedRNNCell(_Recurrent, nn.RNNCell):
    """An ``RNNCell`` whose products read operands that a recipe transforms."""
