"""The elided forms of torch's recurrent layers and their cells.

Torch's own forward of the layer runs: it checks the input, fills in what is not given and
undoes packing and batch axes. Where it calls the kernel of the recurrence, the layer
answers in one of four ways:

- nothing is changed and nobody observes: torch's kernel;
- only masks on weights: the kernel for sparse weights (:mod:`elision.nn.sparse`) where it
  pays and the recipe needs no gradient of what is masked, otherwise torch's kernel, on
  what the masks leave;
- of an LSTM or a GRU, transforms of the weights and of what the weight gradient reads (SWAT),
  or a mask on one of the weights that is worth it: the input's product is the part's own, the
  rest a kernel (:mod:`elision.nn.given`), the gradient of the weight on the state one product
  of all steps;
- else: a loop over the time steps, in which each product is one of the layer's parts. The
  product with the input is one for all steps, that with the state one for each step. A
  weight is transformed once in a pass, and its state moves once; a gradient's transform
  sees one step at a time.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from elision.layers.forms import mask_of, masked, sparse_mask
from elision.layers.modules.base import plan_of, states_of
from elision.layers.modules.part import ElidedPart, ElidedWhole
from elision.layers.recomputation import OWN_PRODUCTS
from elision.layers.step import Step, gradient_products
from elision.nn import GRU as FusedGRU
from elision.nn import LSTM as FusedLSTM
from elision.nn.given import Weight, selected_recurrence
from elision.nn.kernel import takes
from elision.nn.modules import gates_of
from elision.nn.over_time import Gates, Plain, State, sequences
from elision.nn.sparse import pays, sparse_recurrence
from elision.operands import KEEP
from elision.products import Product

__all__ = [
    "ElidedFusedGRU",
    "ElidedFusedLSTM",
    "ElidedGRU",
    "ElidedGRUCell",
    "ElidedLSTM",
    "ElidedLSTMCell",
    "ElidedRNN",
    "ElidedRNNCell",
]


class _Recurrent(ElidedWhole):
    """Answers torch's recurrent kernels with the products of the parts."""

    #: Torch's type of layer, whose forward calls these kernels.
    _torchs: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        parts = self.elided_parts
        observed = any(part._elision_observers for part in parts)
        if not observed and not any(plan_of(part).changes for part in parts):
            plain: Any = super().forward
            return plain(*args, **kwargs)
        with _Answers(parts, observed=observed):
            return self._torchs.forward(self, *args, **kwargs)


class _Answers(TorchFunctionMode):
    """Computes torch's recurrent kernels for one layer.

    Args:
        parts: the layer's parts, in the order of its parameters.
        observed: whether somebody watches the products.
    """

    def __init__(self, parts: list[ElidedPart], *, observed: bool) -> None:
        super().__init__()
        self._parts = parts
        whole: Any = parts[0].whole
        self._activation = getattr(whole, "activation", "tanh")
        own = self._activation != "tanh" or bool(getattr(whole, "_masks", None))
        # Kernels know neither somebody's observers nor what a layer of ours adds.
        self._by_loop = observed or own
        self._only_masked = not self._by_loop and all(
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
        found = None
        if self._only_masked:
            found = self._by_sparse_kernel(func, args)
            if found is None and not self._leaves_weights_out(args):
                return func(*self._with_masks(args))
        with ExitStack() as held:
            for part in self._parts:
                held.enter_context(part.holding())
            if found is None:
                found = self._by_state_kernel(func, args)
            if found is None and self._only_masked:
                return func(*self._with_masks(args))
            gates = gates_of(self._activation, self._weights)
            return kernel(gates)(*args) if found is None else found

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

    def _cell(self, func: Any, args: tuple[Any, ...]) -> str | None:
        """Name of the cell whose kernels may compute a call; None: they may not."""
        cell = _KERNELS_OF_OWN.get(func)
        engines = (part._elision_engine for part in self._parts)
        if cell is None or not all(engine.leaves_zeros_out for engine in engines):
            return None
        data = args[0]
        given = (data, *_states(args), *(part.weight for part in self._parts))
        if getattr(self._parts[0].whole, "proj_size", 0) or takes(*given) is not None:
            return None
        return cell if data.dtype == torch.float32 else None

    def _by_sparse_kernel(self, func: Any, args: tuple[Any, ...]) -> Any:
        """What the kernel for sparse weights computes; None: it does not pay or fit."""
        cell = self._cell(func, args)
        masks = [sparse_mask(part) for part in self._parts]
        if cell is None or None in masks:
            return None
        pairs = [(masks[i], masks[i + 1]) for i in range(0, len(masks), 2)]
        rows = _states(args)[0].shape[1]
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

    def _leaves_weights_out(self, args: tuple[Any, ...]) -> bool:
        """Whether masks leave so little of some weight that its product is worth a call."""
        masks = [sparse_mask(part) for part in self._parts]
        states = _states(args)
        if getattr(self._parts[0].whole, "proj_size", 0) or states[0].dim() < 3:
            return False
        return any(pays([mask], states[0].shape[1]) for mask in masks)

    def _by_state_kernel(self, func: Any, args: tuple[Any, ...]) -> Any:
        """What the parts of the input and kernels for the rest compute; None: they cannot."""
        if self._by_loop or torch._C._is_tracing():  # pyright: ignore[reportAttributeAccessIssue]
            return None
        cell = self._cell(func, args)
        if cell is None or not all(_is_fused(part) for part in self._parts[1::2]):
            return None

        def run(
            data: Tensor, counts: list[int], state: State, own: Any, back: bool
        ) -> tuple[Tensor, State]:
            (input, hidden), weights = own
            of_input = _weight(input, len(data)) if _is_fused(input) else None
            if of_input is not None and not pays([of_input], counts[0]):
                of_input = None
            if of_input is None:
                data = input(data)
            with OWN_PRODUCTS:
                return selected_recurrence(
                    *(cell, data, counts, state, weights),
                    *(of_input, _weight(hidden, len(data))),
                    reverse=back,
                )

        pairs = list(zip(self._parts[::2], self._parts[1::2], strict=True))
        return sequences(run, args, lambda place, flat: (pairs[place], Plain(*flat)))

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
        return _product(self.input, x)

    def of_hidden(self, h: Tensor) -> Tensor:
        return _product(self.hidden, h)

    def projected(self, h: Tensor) -> Tensor:
        return h if self.projection is None else _product(self.projection, h)


def _product(part: ElidedPart, x: Tensor) -> Tensor:
    """A part's product, with what its layer's own masks leave of the weight."""
    own: Any = part.whole
    mask = own._masks.get(part.key) if isinstance(own, FusedGRU | FusedLSTM) else None
    if mask is None:
        return part(x)
    weight = torch.where(mask.places, part.weight, 0.0)
    return part.run_products(x, weight, part.bias)


def _states(args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The first states among the arguments of a recurrent function."""
    packed = isinstance(args[1], Tensor) and args[1].dtype == torch.int64
    hx = args[2] if packed else args[1]
    return (hx,) if isinstance(hx, Tensor) else tuple(hx)


def _is_fused(part: ElidedPart) -> bool:
    """Whether a product of a recipe may be computed in a kernel of the whole layer.

    It reads one weight in both passes, inputs and gradients as they are, and no state of a
    transform moves; what the weight gradient reads of the input may be anything.
    """
    plan = plan_of(part)
    if not plan.changes:
        return True
    as_they_are = (
        (Product.FORWARD, "input"),
        (Product.INPUT_GRAD, "grad_output"),
        (Product.WEIGHT_GRAD, "grad_output"),
    )
    forward, back = (
        plan.use(kind, "weight") for kind in (Product.FORWARD, Product.INPUT_GRAD)
    )
    return (
        forward == back
        and all(plan.transform(*cell) == KEEP for cell in as_they_are)
        and not (plan.accumulates or plan.ahead or plan.written)
        and all(t.numel() for use in plan.uses for t in states_of(part, use).values())
    )


def _weight(part: ElidedPart, tokens: int) -> Weight:
    """What the kernels read of a part, for a layer of so many tokens."""
    weight = part.weight
    step = Step(
        *(plan_of(part), part._elision_states(), part._elision_engine),
        *(torch.Size((tokens, weight.shape[1])), weight.shape, None),
        training=part._is_in_step,
        name=part._elision_name,
        held=part._elision_held,
    )

    def reads(operand: Tensor, sizes: Sequence[int]) -> Tensor:
        return step.read_runs(Product.WEIGHT_GRAD, "input", operand, sizes)

    def gradient(grad: Tensor, read: Tensor) -> Any:
        with OWN_PRODUCTS:
            return gradient_products(step, (grad, grad), read, None, False)[1]

    with torch.no_grad():
        read = step.read(Product.FORWARD, "weight", weight.detach(), {})
    return Weight(read, reads, gradient)


#: Those of torch's kernels for which there are others.
_KERNELS_OF_OWN = {torch.lstm: "lstm", torch.gru: "gru"}

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

    _torchs = nn.LSTM


class ElidedGRU(_Recurrent, nn.GRU):
    """A ``GRU`` whose products read operands that a recipe transforms."""

    _torchs = nn.GRU


class ElidedRNN(_Recurrent, nn.RNN):
    """An ``RNN`` whose products read operands that a recipe transforms."""

    _torchs = nn.RNN


class ElidedLSTMCell(_Recurrent, nn.LSTMCell):
    """An ``LSTMCell`` whose products read operands that a recipe transforms."""

    _torchs = nn.LSTMCell


class ElidedGRUCell(_Recurrent, nn.GRUCell):
    """A ``GRUCell`` whose products read operands that a recipe transforms."""

    _torchs = nn.GRUCell


class ElidedRNNCell(_Recurrent, nn.RNNCell):
    """An ``RNNCell`` whose products read operands that a recipe transforms."""

    _torchs = nn.RNNCell


class ElidedFusedLSTM(_Recurrent, FusedLSTM):
    """An ``elision.nn.LSTM`` whose products read operands that a recipe transforms.

    Its ``activation`` and its own masks are computed; where a recipe changes something,
    ``engine`` says nothing, as the recipe's engine computes.
    """

    _torchs = nn.LSTM


class ElidedFusedGRU(_Recurrent, FusedGRU):
    """An ``elision.nn.GRU`` whose products read operands that a recipe transforms."""

    _torchs = nn.GRU
