"""Layer shapes of models: every kind of convolution, and what is not read, named."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from elision.workloads import layer_shapes

LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(4, 6, 3, 2, 1), (2, 4, 9)),
    (nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2), (2, 4, 9)),
    (nn.Conv1d(4, 6, 4, padding=2, padding_mode="circular"), (2, 4, 9)),
    (nn.Conv3d(2, 4, (3, 2, 1), (1, 2, 1), (1, 0, 2)), (1, 2, 5, 6, 7)),
    (nn.Conv3d(2, 4, 3, padding="same"), (1, 2, 5, 6, 7)),
    (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (2, 4, 5)),
    (nn.ConvTranspose2d(4, 6, 3, 2, (1, 0), groups=2, dilation=2), (1, 4, 5, 6)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_every_kind_of_convolution(layer: Any, shape: tuple[int, ...]) -> None:
    ((name, geometry),) = layer_shapes(nn.Sequential(layer), shape)
    out = layer(torch.zeros(shape))
    assert name == "0"
    line = len(shape) == 3
    with_height = (lambda s: (*s[:2], 1, s[2])) if line else tuple
    assert geometry.shape_of("grad_output") == with_height(out.shape)
    assert geometry.shape_of("weight") == with_height(layer.weight.shape)
    transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d))
    each = torch.zeros(shape) if transposed else out
    assert geometry.dense_macs == each.numel() * layer.weight[0].numel()


class OutputSize(nn.Module):
    """A transposed convolution that is told the size of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x, output_size=(12, 11))


def test_an_output_size_given_in_the_call_is_seen() -> None:
    ((_, geometry),) = layer_shapes(OutputSize(), (1, 3, 5, 5))
    assert geometry.shape_of("grad_output") == (1, 4, 12, 11)


class Functions(nn.Module):
    """Products of weights that no module computes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 4))
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.fc(x), self.weight) @ self.weight


@pytest.mark.parametrize(
    ("model", "shape", "said", "layers"),
    [
        (nn.LSTM(4, 8), (5, 2, 4), r"LSTM \(\d+\)", 0),
        (nn.Sequential(nn.GRU(4, 8)), (5, 2, 4), r"GRU \(\d+\)", 0),
        (
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
            (2, 5, 16),
            r"MultiheadAttention \(2\)$",  # the projections in and out
            2,
        ),
        (nn.ConvTranspose3d(3, 4, 3), (1, 3, 5, 5, 5), r"ConvTranspose3d \(1\)$", 0),
        (Functions(), (3, 4), r"Functions \(2\)$", 1),
    ],
)
def test_what_is_not_read_is_named(
    model: nn.Module, shape: tuple[int, ...], said: str, layers: int
) -> None:
    with pytest.warns(UserWarning, match="not read, by module: " + said) as caught:
        assert len(layer_shapes(model, shape)) == layers
    assert len(caught) == 1
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        (nn.Conv1d(3, 4, 3), "N, C, W"),
        (nn.Conv2d(3, 4, 3), "N, C, H, W"),
        (nn.ConvTranspose2d(3, 4, 3), "N, C, H, W"),
        (nn.Conv3d(3, 4, 3), "N, C, D, H, W"),
    ],
)
def test_an_image_alone_is_refused(layer: Any, axes: str) -> None:
    shape = (3, *(5,) * len(layer.kernel_size))
    with pytest.raises(ValueError, match=rf"needs \({axes}\), got \(3, "):
        layer_shapes(layer, shape)
