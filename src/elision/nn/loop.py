"""LSTM, GRU and RNN as loops over time, whose gates are functions of one's own.

Torch's recurrent functions compute their gates inside one kernel. These take the same
arguments and give the same results (layers, directions, packed sequences, dropout,
projections) with a loop over the time steps; the product with the input is one for all
steps. Equations as in the documentation of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``.

A sequence, padded or packed, is ``data`` of shape ``(tokens, features)``, the time steps
one after the other, and the number of sequences in each step, which never grows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Gates", "Run", "State", "Weights", "sequences"]

#: State of a layer: (h,), or (h, c) of an LSTM, each (sequences, units).
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Gates:
    """The functions of a recurrent layer's gates, and the layers that they make.

    Attributes:
        sigmoid: of the gates that open and close.
        tanh: of the values.

    Example:
        >>> lstm, x = torch.nn.LSTM(3, 4), torch.ones(5, 2, 3)
        >>> zero = torch.zeros(1, 2, 4)
        >>> same = Gates(torch.sigmoid, torch.tanh).lstm(
        ...     x, [zero, zero], lstm._flat_weights, True, 1, 0.0, True, False, False
        ... )
        >>> torch.allclose(same[0], lstm(x)[0], atol=1e-6)
        True
    """

    sigmoid: Callable[[Tensor], Tensor]
    tanh: Callable[[Tensor], Tensor]

    # --- one step: the input's part of the gates, the state, the weights -----------------

    def lstm_step(self, x: Tensor, state: State, w: "Weights") -> State:
        """``c' = σ(f)·c + σ(i)·tanh(g)``, ``h' = σ(o)·tanh(c')``."""
        h, c = state
        i, f, g, o = (x + F.linear(h, w.hidden, w.hidden_bias)).chunk(4, 1)
        c = self.sigmoid(f) * c + self.sigmoid(i) * self.tanh(g)
        h = self.sigmoid(o) * self.tanh(c)
        return (h if w.projection is None else F.linear(h, w.projection)), c

    def gru_step(self, x: Tensor, state: State, w: "Weights") -> State:
        """``n = tanh(x_n + σ(r)·h_n)``, ``h' = (1 - σ(z))·n + σ(z)·h``."""
        (h,) = state
        x_r, x_z, x_n = x.chunk(3, 1)
        h_r, h_z, h_n = F.linear(h, w.hidden, w.hidden_bias).chunk(3, 1)
        r, z = self.sigmoid(x_r + h_r), self.sigmoid(x_z + h_z)
        n = self.tanh(x_n + r * h_n)
        return (n + z * (h - n),)

    def rnn_step(self, x: Tensor, state: State, w: "Weights") -> State:
        """``h' = tanh(x + h)``."""
        return (self.tanh(x + F.linear(state[0], w.hidden, w.hidden_bias)),)

    def run(self, cell: str) -> "Run":
        """A layer in one direction, of ``"lstm"``, ``"gru"`` or ``"rnn"`` cells."""
        step: Step = getattr(self, f"{cell}_step")

        def run(
            place: int,
            data: Tensor,
            counts: list[int],
            state: State,
            w: "Weights",
            back: bool,
        ) -> tuple[Tensor, State]:
            del place
            return (_backward if back else _forward)(step, data, counts, state, w)

        return run

    # --- torch's functions ---------------------------------------------------------------

    def lstm(self, *args: Any) -> tuple[Tensor, ...]:
        """``torch.lstm``: output, h, c."""
        return sequences(self.run("lstm"), args)

    def gru(self, *args: Any) -> tuple[Tensor, ...]:
        """``torch.gru``: output, h."""
        return sequences(self.run("gru"), args)

    def rnn(self, *args: Any) -> tuple[Tensor, ...]:
        """``torch.rnn_tanh``: output, h."""
        return sequences(self.run("rnn"), args)

    def lstm_cell(self, x: Tensor, hx: Any, *weights: Any) -> tuple[Tensor, ...]:
        """``torch.lstm_cell``: h, c."""
        return _cell(self.lstm_step, x, tuple(hx), weights)

    def gru_cell(self, x: Tensor, hx: Tensor, *weights: Any) -> Tensor:
        """``torch.gru_cell``: h."""
        return _cell(self.gru_step, x, (hx,), weights)[0]

    def rnn_cell(self, x: Tensor, hx: Tensor, *weights: Any) -> Tensor:
        """``torch.rnn_tanh_cell``: h."""
        return _cell(self.rnn_step, x, (hx,), weights)[0]


@dataclass(frozen=True)
class Weights:
    """Parameters of one layer in one direction."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None


#: The input's part of the gates, the state and the weights, to the next state.
Step = Callable[[Tensor, State, Weights], State]

#: A layer in one direction: its place among all (forward and backward in turns), data,
#: counts, first state, weights, whether from the last step; to outputs and last states.
Run = Callable[[int, Tensor, list[int], State, Weights, bool], tuple[Tensor, State]]


def _cell(step: Step, x: Tensor, state: State, weights: tuple[Any, ...]) -> State:
    w = Weights(*weights)
    return step(F.linear(x, w.input, w.input_bias), state, w)


def sequences(run: Run, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """One of torch's recurrent functions, whose directions ``run`` computes.

    Args:
        run: computes a layer in one direction.
        args: of ``torch.lstm``, ``gru`` or ``rnn_tanh``, for a padded sequence (``hx``
            second) or a packed one (third).

    Raises:
        RuntimeError: no time step.
    """
    if isinstance(args[3], bool):  # input, hx, weights, has_biases, ..., batch_first
        x, hx, flat, *options, batch_first = args
        x = x.transpose(0, 1) if batch_first else x
        data, counts = x.flatten(0, 1), [x.shape[1]] * x.shape[0]
        data, finals = _layers(run, data, counts, hx, flat, *options)
        y = data.unflatten(0, (x.shape[0], x.shape[1]))
        return (y.transpose(0, 1) if batch_first else y), *finals
    data, counts, hx, flat, *options = args
    data, finals = _layers(run, data, counts.tolist(), hx, flat, *options)
    return data, *finals


def _layers(
    run: Run,
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
            w = _weights(flat[each * place : each * (place + 1)], has_biases)
            state = tuple(part[place] for part in first)
            output, final = run(place, data, counts, state, w, bool(direction))
            outputs.append(output)
            finals.append(final)
        data = torch.cat(outputs, 1) if bidirectional else outputs[0]
        if dropout and train and layer < num_layers - 1:
            data = F.dropout(data, dropout)
    return data, [torch.stack(parts) for parts in zip(*finals, strict=True)]


def _weights(flat: list[Tensor], has_biases: bool) -> Weights:
    if has_biases:
        return Weights(*flat)
    return Weights(*flat[:2], projection=flat[2] if len(flat) > 2 else None)


def _forward(
    step: Step, data: Tensor, counts: list[int], state: State, w: Weights
) -> tuple[Tensor, State]:
    """From the first step on; sequences that end leave the state."""
    parts = F.linear(data, w.input, w.input_bias).split(counts)
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
    parts = F.linear(data, w.input, w.input_bias).split(counts)
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
