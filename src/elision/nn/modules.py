"""``elision.nn.LSTM`` and ``elision.nn.GRU``: torch's modules, by fused kernels.

The kernels compute on the CPU in float32 (AVX-512, AVX2 or plain C++) and in bfloat16 (AMX),
for padded, packed and single sequences, any number of layers, both directions, with or
without biases and first states. An LSTM of padded sequences under autocast to bfloat16 is
one of bfloat16, as torch's is. Projections, other types and devices, other autocast, compiled
code, and tensors that are transformed or recorded by ``torch.func`` go to torch's own
function, said once in the log.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elision.common.checks import one_of
from elision.common.names import lookup
from elision.functional import FUNCTIONS, make
from elision.nn.choice import Shape, is_kernel_faster
from elision.nn.kernel import recurrence, takes
from elision.nn.over_time import Gates, Plain, State, Weights, sequences
from elision.nn.sparse import SPARSE_BELOW, Mask, pays, sparse_recurrence

__all__ = ["ACTIVATIONS", "ENGINES", "GRU", "LSTM", "SPARSE_BELOW", "gates_of"]

_log = logging.getLogger("elision")

#: Who computes: the faster of kernel and torch, measured once a shape; torch's function;
#: the kernel; a loop of torch's operations, the oracle.
ENGINES = ("auto", "torch", "native", "loop")

#: The gates' functions: exact ones, or a tanh of :data:`elision.functional.FUNCTIONS` and
#: the sigmoid of the same family, by a loop of torch's operations.
ACTIVATIONS = ("tanh", *FUNCTIONS["tanh"])

#: Anything with the arguments of ``torch.lstm`` or ``torch.gru``.
Compute = Callable[..., tuple[Tensor, ...]]

_SAID: set[str] = set()


class _Fused(nn.RNNBase):
    """What both modules share; ``_cell`` names the kernel and torch's function."""

    _cell: str

    def __init__(
        self, *args: Any, activation: str = "tanh", engine: str = "auto", **kwargs: Any
    ) -> None:
        one_of(type(self).__name__, "engine", engine, ENGINES)
        one_of(type(self).__name__, "activation", activation, ACTIVATIONS)
        super().__init__(*args, **kwargs)
        self.activation, self.engine = activation, engine
        self._masks: dict[str, Mask] = {}

    def mask_weights(self, masks: Mapping[str, Tensor]) -> None:
        """Compute as if these weights were zero where their mask is False.

        The parameters stay as they are; their gradients are those at the mask's places,
        zero elsewhere. Where the masks of both weights of a layer keep at most
        :data:`SPARSE_BELOW` of them, the kernel for sparse weights computes the layer: its
        work is that of the weights that remain. A recipe that grows weights by their dense
        gradient takes the masks off for the step that it asks in.

        Args:
            masks: parameter name, such as ``weight_hh_l0``, to a boolean tensor of its
                shape. Names that are missing are dense; an empty mapping removes all masks.

        Raises:
            ValueError: an unknown name (lists the known), or a mask that is not boolean or
                not of the weight's shape.
        """
        known = {n: n for n in self._flat_weights_names if n.startswith("weight_")}
        for name, mask in masks.items():
            lookup("recurrent weight", name, known)
            shape = tuple(getattr(self, name).shape)
            if mask.dtype != torch.bool or tuple(mask.shape) != shape:
                raise ValueError(
                    f"{type(self).__name__}.mask_weights({name}): must be a boolean tensor "
                    f"of shape {shape}, got {mask.dtype} of {tuple(mask.shape)}"
                )
        self._masks = {name: Mask(mask) for name, mask in masks.items()}

    def extra_repr(self) -> str:
        """Torch's words, and what is not the default of ours."""
        words = [super().extra_repr()]
        if self.activation != "tanh":
            words.append(f"activation={self.activation}")
        if self.engine != "auto":
            words.append(f"engine={self.engine}")
        return ", ".join(words)

    def forward(self, input: Any, hx: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As of torch's module: output, and last states.

        Raises:
            RuntimeError, ValueError: what torch's module refuses, in its words.
            RuntimeError: the kernel is asked for (``engine="native"``) and does not take
                the call; says why.
        """
        if torch.compiler.is_compiling():
            return super().forward(input, hx)
        self._update_flat_weights()
        if not self._is_regular(input, hx):  # torch's module says what is wrong
            return super().forward(input, hx)
        compute = self._computing(input, hx)
        if compute is None:  # the kernels, which read the masks themselves
            return self._by_own(input, hx)
        if compute is getattr(torch, self._cell) and not self._masks:
            return super().forward(input, hx)
        return self._called(compute, input, hx, self._masked)

    # --- who computes --------------------------------------------------------------------

    def _computing(self, input: Any, hx: Any) -> Compute | None:
        """What computes a call; None: the kernels."""
        own = getattr(torch, self._cell)
        if self.activation != "tanh" or self.engine == "loop":
            return getattr(gates_of(self.activation), self._cell)
        if self.engine == "torch":
            return own
        why = self._why_not(input, hx)
        if why is not None:
            name = type(self).__name__
            if self.engine == "native":
                raise RuntimeError(
                    f"{name}(engine='native'): no kernel for {why}; engine='auto' takes any"
                )
            _say_once(
                f"elision.nn.{name}: torch computes, as there is no kernel for {why}"
            )
            return own
        _, rows = self._steps_and_rows(input)
        dtype = self._dtype(input)
        sparse = all(self._is_sparse(names, rows, dtype) for names in self._all_weights)
        if sparse or self.engine == "native":
            return None
        return None if self._is_kernel_faster(input) else own

    def _why_not(self, input: Any, hx: Any) -> str | None:
        """What the kernel does not take in a call; None: it takes it."""
        if self.proj_size:
            return "projections"
        data = input.data if isinstance(input, PackedSequence) else input
        given: Any = (data, *_parts(hx), *self._flat_weights)
        return takes(*given, casts=self._casts(input))

    def _casts(self, input: Any) -> bool:
        """Whether autocast makes the call one of bfloat16, as of torch's LSTM.

        Torch's GRU and its packed sequences have outputs of float32 there.
        """
        return (
            self._cell == "lstm"
            and not isinstance(input, PackedSequence)
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
        )

    def _dtype(self, input: Any) -> torch.dtype:
        """What a call is computed in."""
        data = input.data if isinstance(input, PackedSequence) else input
        return torch.bfloat16 if self._casts(input) else data.dtype

    def _steps_and_rows(self, input: Any) -> tuple[int, int]:
        """Time steps, and sequences in the largest."""
        if isinstance(input, PackedSequence):
            return len(input.batch_sizes), int(input.batch_sizes[0])
        if input.dim() == 2:
            return input.shape[0], 1
        first, second = input.shape[:2]
        return (second, first) if self.batch_first else (first, second)

    def _is_kernel_faster(self, input: Any) -> bool:
        steps, rows = self._steps_and_rows(input)
        data = input.data if isinstance(input, PackedSequence) else input
        wanted = data.requires_grad or any(p.requires_grad for p in self.parameters())
        back = torch.is_grad_enabled() and wanted
        inner = self.hidden_size * (2 if self.bidirectional else 1)
        inputs = [self.input_size] + [inner] * (self.num_layers - 1)
        shape = Shape(
            *(self._cell, self.input_size, self.hidden_size),
            *(rows, steps, back, self._dtype(input)),
        )
        return is_kernel_faster([shape._replace(inputs=n) for n in inputs])

    def _by_own(self, input: Any, hx: Any) -> Any:
        """One call by the kernels, in the type that autocast asks for."""
        if not self._casts(input):
            return self._called(self._by_kernels, input, hx)
        dtype = self._dtype(input)
        parts = tuple(part.to(dtype) for part in _parts(hx))
        with torch.autocast("cpu", enabled=False):
            return self._called(self._by_kernels, input.to(dtype), parts or None)

    def _by_kernels(self, *args: Any) -> tuple[Tensor, ...]:
        names, dtype = self._all_weights, args[0].dtype

        def own(place: int, flat: list[Any]) -> tuple[list[str], Plain]:
            cast: list[Any] = [t if t is None else t.to(dtype) for t in flat]
            return names[place], Plain(*cast)

        return sequences(self._direction, args, own)

    def _direction(
        self,
        data: Tensor,
        counts: list[int],
        state: State,
        own: tuple[list[str], Plain],
        back: bool,
    ) -> tuple[Tensor, State]:
        """A layer in one direction by a kernel, of its parameters and their names."""
        names, weights = own
        if self._is_sparse(names, counts[0], data.dtype):
            masks = self._masks[names[0]], self._masks[names[1]]
            return sparse_recurrence(
                self._cell, data, counts, state, weights, masks, reverse=back
            )
        if self._masks:
            kept = (self._masked(name).to(data.dtype) for name in names)
            weights = Plain(*kept)
        return recurrence(self._cell, data, counts, state, weights, reverse=back)

    def _is_sparse(self, names: list[str], rows: int, dtype: torch.dtype) -> bool:
        """Whether the kernel for sparse weights computes a layer in one direction."""
        masks = [self._masks.get(name) for name in names[:2]]
        return dtype == torch.float32 and pays(masks, rows)

    # --- one call ------------------------------------------------------------------------

    def _is_regular(self, input: Any, hx: Any) -> bool:
        """Whether shapes and types are right; torch's module refuses the others."""
        packed = isinstance(input, PackedSequence)
        data = input.data if packed else input
        if not isinstance(data, Tensor) or not data.numel():
            return False
        if data.dim() not in ((2,) if packed else (2, 3)):
            return False
        dtype = self._flat_weights[0].dtype  # pyright: ignore[reportOptionalMemberAccess]
        typed = data.dtype == dtype or torch.is_autocast_enabled(data.device.type)
        if data.shape[-1] != self.input_size or not typed:
            return False
        if hx is None:
            return True
        if (self._cell == "lstm") != (isinstance(hx, (tuple, list)) and len(hx) == 2):
            return False
        batched = packed or data.dim() == 3
        rows = (
            input.batch_sizes[0] if packed else data.shape[0 if self.batch_first else 1]
        )
        layers = self.num_layers * (2 if self.bidirectional else 1)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        return all(
            isinstance(part, Tensor)
            and part.shape
            == ((layers, int(rows), width) if batched else (layers, width))
            and (part.dtype == dtype or typed)
            for part, width in zip(_parts(hx), widths, strict=False)
        )

    def _called(
        self,
        compute: Compute,
        input: Any,
        hx: Any,
        weight_of: Callable[[str], Tensor] | None = None,
    ) -> Any:
        """One call with shapes that are right, on these weights or on the parameters."""
        packed = isinstance(input, PackedSequence)
        batched = packed or input.dim() == 3
        x = input.data if packed else input if batched else input.unsqueeze(1)
        first = self.batch_first and batched
        rows = int(input.batch_sizes[0]) if packed else x.shape[0 if first else 1]
        order, back = (
            (input.sorted_indices, input.unsorted_indices) if packed else (None,) * 2
        )
        states = self._first_states(hx, x, rows, batched)
        states = [_permuted(part, order) for part in states]
        own: Any = self._flat_weights
        flat = own if weight_of is None else [*map(weight_of, self._flat_weights_names)]
        given = states if self._cell == "lstm" else states[0]
        options = (flat, self.bias, self.num_layers, self.dropout, self.training)
        if packed:
            sizes = input.batch_sizes
            y, *last = compute(x, sizes, given, *options, self.bidirectional)
            output: Any = PackedSequence(y, sizes, order, back)
        else:
            output, *last = compute(x, given, *options, self.bidirectional, first)
            output = output if batched else output.squeeze(1)
        last = [_permuted(part, back) if batched else part.squeeze(1) for part in last]
        return output, (tuple(last) if self._cell == "lstm" else last[0])

    def _first_states(
        self, hx: Any, x: Tensor, rows: int, batched: bool
    ) -> list[Tensor]:
        """``[h]`` or ``[h, c]``, each ``(layers · directions, rows, width)``."""
        if hx is not None:
            return [part if batched else part.unsqueeze(1) for part in _parts(hx)]
        layers = self.num_layers * (2 if self.bidirectional else 1)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        count = 2 if self._cell == "lstm" else 1
        return [x.new_zeros(layers, rows, width) for width in widths[:count]]

    def _masked(self, name: str) -> Tensor:
        weight, mask = getattr(self, name), self._masks.get(name)
        return weight if mask is None else torch.where(mask.places, weight, 0.0)


def _parts(hx: Any) -> tuple[Any, ...]:
    if hx is None:
        return ()
    return tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)


def _permuted(part: Tensor, order: Tensor | None) -> Tensor:
    return part if order is None else part.index_select(1, order)


def gates_of(
    activation: str, weights: Callable[[int, list[Tensor]], Weights] = Gates.weights
) -> Gates:
    """The gates with an activation of :data:`ACTIVATIONS`, and products by ``weights``."""
    if activation == "tanh":
        return Gates(weights=weights)
    sigmoid = activation.replace("tanh", "sigmoid")
    return Gates(make("sigmoid", sigmoid).call, make("tanh", activation).call, weights)


def _say_once(words: str) -> None:
    if words not in _SAID:
        _SAID.add(words)
        _log.warning("%s", words)


class LSTM(_Fused, nn.LSTM):
    """``torch.nn.LSTM`` for training, by a kernel that computes the gates behind the product.

    Same arguments, equations, initial values and state-dict keys; see
    ``torch.nn.LSTM``. Gradients agree with torch's to 1e-5 of their norm in float32.

    Args:
        args: of ``torch.nn.LSTM``, in its order.
        activation: the gates' functions, one of :data:`ACTIVATIONS`; all but ``"tanh"`` by
            a loop of torch's operations.
        engine: who computes, one of :data:`ENGINES`. Under ``"auto"`` the choice is by
            time, so results may differ in the last bits between processes.
        kwargs: of ``torch.nn.LSTM``.

    Raises:
        ValueError: an unknown activation or engine, and what torch's module refuses.

    Example:
        >>> lstm = LSTM(3, 4, num_layers=2, bidirectional=True)
        >>> y, (h, c) = lstm(torch.ones(5, 2, 3))  # 5 steps of 2 sequences
        >>> y.shape, h.shape
        (torch.Size([5, 2, 8]), torch.Size([4, 2, 4]))
    """

    _cell = "lstm"


class GRU(_Fused, nn.GRU):
    """``torch.nn.GRU`` for training, by a kernel that computes the gates behind the product.

    Args:
        args: of ``torch.nn.GRU``, in its order.
        activation: the gates' functions, as of :class:`LSTM`.
        engine: who computes, as of :class:`LSTM`.
        kwargs: of ``torch.nn.GRU``.

    Raises:
        ValueError: an unknown activation or engine, and what torch's module refuses.

    Example:
        >>> gru = GRU(3, 4, batch_first=True)
        >>> y, h = gru(torch.ones(2, 5, 3))  # 2 sequences of 5 steps
        >>> y.shape, h.shape
        (torch.Size([2, 5, 4]), torch.Size([1, 2, 4]))
    """

    _cell = "gru"
