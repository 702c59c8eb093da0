"""A long short-term memory that reads an image row by row.

Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 1997, with the
forget gate of Gers, Schmidhuber, Cummins, 2000: torch's ``nn.LSTM``, whose two weights are
layers to :func:`elision.elide`.
"""

import torch
from torch import nn

from elision.workloads.models.base import check_positive

__all__ = ["RowLstm", "lstm"]


class RowLstm(nn.Module):
    """A stack of LSTM layers over the rows of an image; the last state is classified.

    Args:
        inputs: values of one row, channels x width of the image.
        classes: outputs.
        width: size of the hidden state.
        depth: layers in the stack.
    """

    def __init__(self, *, inputs: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        check_positive(
            "RowLstm", inputs=inputs, classes=classes, width=width, depth=depth
        )
        self.lstm = nn.LSTM(inputs, width, depth)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, C, H, W)``."""
        rows = x.permute(2, 0, 1, 3).flatten(2)
        return self.classifier(self.lstm(rows)[0][-1])


def lstm(
    *,
    in_channels: int,
    classes: int,
    image_size: tuple[int, int],
    width: int = 128,
    depth: int = 1,
) -> RowLstm:
    """One LSTM layer of 128 over the rows of the image."""
    inputs = in_channels * image_size[1]
    return RowLstm(inputs=inputs, classes=classes, width=width, depth=depth)
