"""A long short-term memory that reads an image row by row.

Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 1997, with the
forget gate of Gers, Schmidhuber, Cummins, 2000. The cell is two ``nn.Linear`` layers
and not ``nn.LSTM``, so that its matrix products are layers like any others and every
method and machine sees them: one product per layer and time step.
"""

import torch
from torch import nn

from elision.workloads.models.base import check_positive

__all__ = ["LstmCell", "RowLstm", "lstm"]


class LstmCell(nn.Module):
    """One step: ``i, f, g, o = W·x + U·h + b``; ``c' = σ(f)·c + σ(i)·tanh(g)``.

    Parameters are torch's ``nn.LSTMCell`` under other names: ``input.weight`` is its
    ``weight_ih`` and ``hidden.weight`` its ``weight_hh``, gates in the same order.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 4 * width)
        self.hidden = nn.Linear(width, 4 * width)
        bound = width**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``x: (N, inputs)``, ``h, c: (N, width)`` to the next ``h, c``."""
        i, f, g, o = (self.input(x) + self.hidden(h)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class RowLstm(nn.Module):
    """A stack of LSTM cells over the rows of an image; the last state is classified.

    Args:
        inputs: values of one row, channels x width of the image.
        classes: outputs.
        width: size of the hidden state.
        depth: cells in the stack.
    """

    def __init__(self, *, inputs: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        check_positive(
            "RowLstm", inputs=inputs, classes=classes, width=width, depth=depth
        )
        self.width = width
        self.cells = nn.ModuleList(
            LstmCell(inputs if i == 0 else width, width) for i in range(depth)
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, C, H, W)``."""
        rows = x.permute(2, 0, 1, 3).flatten(2)
        zero = x.new_zeros(len(x), self.width)
        states = [(zero, zero) for _ in self.cells]
        y = zero
        for row in rows:
            y = row
            for i, cell in enumerate(self.cells):
                states[i] = cell(y, *states[i])
                y = states[i][0]
        return self.classifier(y)


def lstm(
    *,
    in_channels: int,
    classes: int,
    image_size: tuple[int, int],
    width: int = 128,
    depth: int = 1,
) -> RowLstm:
    """One LSTM cell of 128 over the rows of the image."""
    inputs = in_channels * image_size[1]
    return RowLstm(inputs=inputs, classes=classes, width=width, depth=depth)
