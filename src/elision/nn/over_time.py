"""LSTM, GRU and RNN as loops over time, whose gates and products are one's own.

Torch's recurrent functions compute gates and products inside one kernel. These take the
same arguments and give the same results (layers, directions, packed sequences, dropout,
projections) with a loop over the time steps; the product with the input is one for all
steps. Equations as in the documentation of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``.

A sequence, padded or packed, is ``data`` of shape ``(tokens, features)``, the time steps
one after the other, and the number of sequences in each step, which never grows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Gates", "Plain", "Run", "State", "Weights", "sequences"]

#: State of a layer: (h,), or (h, c) of an LSTM, each (sequences, units).
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Gates:
    """The functions of a recurrent layer's gates, and the layers that they make.

    Attributes:
        sigmoid: of the gates that open and close.
        tanh: of the values.
        weights: makes what computes the products of one layer in one direction (of a
            cell: of place 0) of that place and the parameters that torch hands over.

    Example:
        >>> lstm, x = torch.nn.LSTM(3, 4), torch.ones(5, 2, 3)
        >>> zero = torch.zeros(1, 2, 4)
        >>> same = Gates(torch.sigmoid, torch.tanh).lstm(
        ...     x, [zero, zero], lstm._flat_weights, True, 1, 0.0, True, False, False
        ... )
        >>> torch.allclose(same[0], lstm(x)[0], atol=1e-6)
        True
    """

    sigmoid: Callable[[Tensor], Tensor] = torch.sigmoid
    tanh: Callable[[Tensor], Tensor] = torch.tanh
    weights: Callable[[int, list[Tensor]], "Weights"] = lambda place, flat: Plain(*flat)

    # --- one step: the input's part of the gates, the state, the weights -----------------

    def lstm_step(self, x: Tensor, state: State, w: "Weights") -> State:
        """``c' = σ(f)·c + σ(i)·tanh(g)``, ``h' = σ(o)·tanh(c')``."""
        h, c = state
        i, f, g, o = (x + w.of_hidden(h)).chunk(4, 1)
        c = self.sigmoid(f) * c + self.sigmoid(i) * self.tanh(g)
        h = self.sigmoid(o) * self.tanh(c)
        return w.projected(h), c

    def gru_step(self, x: Tensor, state: State, w: "Weights") -> State:
        """``n = tanh(x_n + σ(r)·h_n)``, ``h' = (1 - σ(z))·n + σ(z)·h``."""
        (h,) = state
        x_r, x_z, x_n = x.chunk(3, 1)
        h_r, h_z, h_n = w.of_hidden(h).chunk(3, 1)
        r, z = self.sigmoid(x_r + h_r), self.sigmoid(x_z + h_z)
        n = self.tanh(x_n + r * h_n)
        return (n + z * (h - n),)

    def rnn_step(self, x: Tensor, state: State, w: "Weights") -> State:
        """``h' = tanh(x + h)``."""
        return (self.tanh(x + w.of_hidden(state[0])),)

    def relu_step(self, x: Tensor, state: State, w: "Weights") -> State:
        """``h' = max(x + h, 0)``."""
        return (torch.relu(x + w.of_hidden(state[0])),)

    # --- torch's functions ---------------------------------------------------------------

    def lstm(self, *args: Any) -> tuple[Tensor, ...]:
        """``torch.lstm``: output, h, c."""
        return sequences(self.run("lstm"), args, self.weights)

    def gru(self, *args: Any) -> tuple[Tensor, ...]:
        """``torch.gru``: output, h."""
        return sequences(self.run("gru"), args, self.weights)

    def rnn(self, *args: Any) -> tuple[Tensor, ...]:
        """``torch.rnn_tanh``: output, h."""
        return sequences(self.run("rnn"), args, self.weights)

    def relu_rnn(self, *args: Any) -> tuple[Tensor, ...]:
        """``torch.rnn_relu``: output, h."""
        return sequences(self.run("relu"), args, self.weights)

    def lstm_cell(self, x: Tensor, hx: Any, *weights: Any) -> tuple[Tensor, ...]:
        """``torch.lstm_cell``: h, c."""
        return self._cell(self.lstm_step, x, tuple(hx), weights)

    def gru_cell(self, x: Tensor, hx: Tensor, *weights: Any) -> Tensor:
        """``torch.gru_cell``: h."""
        return self._cell(self.gru_step, x, (hx,), weights)[0]

    def rnn_cell(self, x: Tensor, hx: Tensor, *weights: Any) -> Tensor:
        """``torch.rnn_tanh_cell``: h."""
        return self._cell(self.rnn_step, x, (hx,), weights)[0]

    def relu_rnn_cell(self, x: Tensor, hx: Tensor, *weights: Any) -> Tensor:
        """``torch.rnn_relu_cell``: h."""
        return self._cell(self.relu_step, x, (hx,), weights)[0]

    def _cell(self, step: "Step", x: Tensor, state: State, flat: Any) -> State:
        w = self.weights(0, flat)
        return step(w.of_input(x), state, w)

    def run(self, cell: str) -> "Run":
        """A layer in one direction, of ``"lstm"``, ``"gru"``, ``"rnn"`` or ``"relu"`` cells."""
        step: Step = getattr(self, f"{cell}_step")

        def run(
            data: Tensor, counts: list[int], state: State, w: Weights, back: bool
        ) -> tuple[Tensor, State]:
            return (_backward if back else _forward)(step, data, counts, state, w)

        return run


class Weights(Protocol):
    """Computes the products of one layer in one direction."""

    def of_input(self, x: Tensor) -> Tensor:
        """``x·W_ihᵀ + b_ih`` of ``(tokens, features)``."""
        ...

    def of_hidden(self, h: Tensor) -> Tensor:
        """``h·W_hhᵀ + b_hh`` of ``(sequences, units)``."""
        ...

    def projected(self, h: Tensor) -> Tensor:
        """``h·W_hrᵀ`` of an LSTM with projections; of others, ``h``."""
        ...


@dataclass(frozen=True)
class Plain:
    """Products by torch, with the parameters as they are."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None

    def of_input(self, x: Tensor) -> Tensor:
        """See :class:`Weights`."""
        return F.linear(x, self.input, self.input_bias)

    def of_hidden(self, h: Tensor) -> Tensor:
        """See :class:`Weights`."""
        return F.linear(h, self.hidden, self.hidden_bias)

    def projected(self, h: Tensor) -> Tensor:
        """See :class:`Weights`."""
        return h if self.projection is None else F.linear(h, self.projection)


#: The input's part of the gates, the state and the weights, to the next state.
Step = Callable[[Tensor, State, Weights], State]

#: A layer in one direction: data, counts, first state, weights, whether from the last step
#: back; to outputs and last states.
Run = Callable[[Tensor, list[int], State, Any, bool], tuple[Tensor, State]]


def sequences(
    run: Run, args: tuple[Any, ...], weights: Callable[[int, list[Tensor]], Any]
) -> tuple[Tensor, ...]:
    """One of torch's recurrent functions, whose layers ``run`` computes.

    Args:
        run: computes a layer in one direction.
        args: of ``torch.lstm``, ``gru`` or ``rnn_tanh``, for a padded sequence (``hx``
            second) or a packed one (third).
        weights: of a place (forward and backward in turns) and its parameters, None for
            a bias that is missing, to what ``run`` reads.

    Raises:
        RuntimeError: no time step.
    """
    if isinstance(args[3], bool):  # input, hx, weights, has_biases, ..., batch_first
        x, hx, flat, *options, batch_first = args
        x = x.transpose(0, 1) if batch_first else x
        data, counts = x.flatten(0, 1), [x.shape[1]] * x.shape[0]
        data, finals = _layers(run, weights, data, counts, hx, flat, *options)
        y = data.unflatten(0, (x.shape[0], x.shape[1]))
        return (y.transpose(0, 1) if batch_first else y), *finals
    data, counts, hx, flat, *options = args
    data, finals = _layers(run, weights, data, counts.tolist(), hx, flat, *options)
    return data, *finals


def _layers(
    run: Run,
    weights: Callable[[int, list[Tensor]], Any],
    data: Tensor,
    counts: list[int],
    hx: Any,
    flat: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The last layer's outputs, and the final states stacked as torch stacks them."""
    if not counts:  # in torch's words
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    first = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    directions = 2 if bidirectional else 1
    each = len(flat) // (num_layers * directions)
    finals: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            own: list[Any] = flat[each * place : each * (place + 1)]
            if not has_biases:
                own = [*own[:2], None, None, *own[2:]]
            state = tuple(part[place] for part in first)
            w = weights(place, own)
            output, final = run(data, counts, state, w, bool(direction))
            outputs.append(output)
            finals.append(final)
        data = torch.cat(outputs, 1) if bidirectional else outputs[0]
        if dropout and train and layer < num_layers - 1:
            data = F.dropout(data, dropout)
    return data, [torch.stack(parts) for parts in zip(*finals, strict=True)]


def _forward(
    step: Step, data: Tensor, counts: list[int], state: State, w: Weights
) -> tuple[Tensor, State]:
    """From the first step on; sequences that end leave the state."""
    parts = w.of_input(data).split(counts)
    outputs: list[Tensor] = []
    ended: list[State] = []
    for x in parts:
        if len(x) < len(state[0]):
            ended.append(tuple(part[len(x) :] for part in state))
            state = tuple(part[: len(x)] for part in state)
        state = step(x, state, w)
        outputs.append(state[0])
    finals = zip(state, *reversed(ended), strict=True)
    return torch.cat(outputs), tuple(torch.cat(parts) for parts in finals)


def _backward(
    step: Step, data: Tensor, counts: list[int], first: State, w: Weights
) -> tuple[Tensor, State]:
    """From the last step back; sequences join where they end."""
    parts = w.of_input(data).split(counts)
    outputs: list[Tensor] = []
    state = tuple(part[: counts[-1]] for part in first)
    for x in reversed(parts):
        begun = len(state[0])
        if len(x) > begun:
            joined = zip(state, first, strict=True)
            state = tuple(torch.cat([old, new[begun : len(x)]]) for old, new in joined)
        state = step(x, state, w)
        outputs.append(state[0])
    return torch.cat(outputs[::-1]), state
