"""Layer shapes of models: every kind of convolution, and what is not read, named."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from elision.products import (
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    MatmulGeometry,
)
from elision.workloads import layer_shapes

LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(4, 6, 3, 2, 1), (2, 4, 9)),
    (nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2), (2, 4, 9)),
    (nn.Conv1d(4, 6, 4, padding=2, padding_mode="circular"), (2, 4, 9)),
    (nn.Conv3d(2, 4, (3, 2, 1), (1, 2, 1), (1, 0, 2)), (1, 2, 5, 6, 7)),
    (nn.Conv3d(2, 4, 3, padding="same"), (1, 2, 5, 6, 7)),
    (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (2, 4, 5)),
    (nn.ConvTranspose2d(4, 6, 3, 2, (1, 0), groups=2, dilation=2), (1, 4, 5, 6)),
    (nn.ConvTranspose3d(4, 6, (3, 1, 2), 2, output_padding=1), (1, 4, 2, 3, 4)),
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
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
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
    """Products of weights that no module computes, on either side and in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 4))
        self.experts = nn.Parameter(torch.zeros(2, 4, 5))
        self.taps = nn.Parameter(torch.zeros(3, 1, 3, 3))
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(self.fc(x), self.weight)  # 3 x 6
        x = x @ self.weight  # 3 x 4
        x = self.weight @ x.T  # 6 x 3
        x = x[:4].T.expand(2, 3, 4).bmm(self.experts)  # 2 x 3 x 5
        return F.conv2d(x.reshape(1, 1, 6, 5), self.taps, stride=2, padding=1)


def test_products_of_weights_that_functions_compute() -> None:
    assert layer_shapes(nn.Sequential(Functions()), (3, 4)) == [
        ("0.fc", MatmulGeometry(3, 4, 4)),
        ("0", MatmulGeometry(3, 4, 6)),
        ("0", MatmulGeometry(3, 6, 4)),
        ("0", MatmulGeometry(3, 4, 6)),
        ("0.experts", MatmulGeometry(3, 4, 5, batch=2)),
        ("0.taps", Conv2dGeometry(1, 1, 6, 5, 3, 3, 2, 1)),
    ]


class FunctionalConvolutions(nn.Module):
    """Convolutions of parameters over one and three axes, transposed as well."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Parameter(torch.zeros(4, 2, 3))
        self.up = nn.Parameter(torch.zeros(4, 2, 3))
        self.block = nn.Parameter(torch.zeros(5, 1, 2, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv1d(x, self.line, padding=1)
        x = F.conv_transpose1d(x, self.up, stride=2, output_padding=1)
        return F.conv3d(x.reshape(1, 1, 2, 4, -1), self.block)


def test_convolutions_that_functions_compute() -> None:
    transposed = ConvTranspose2dGeometry.of(
        (1, 4, 1, 5), (4, 2, 1, 3), stride=(1, 2), output_padding=(0, 1)
    )
    assert layer_shapes(FunctionalConvolutions(), (1, 2, 5)) == [
        ("line", Conv2dGeometry.of_1d((1, 2, 5), (4, 2, 3), padding=1)),
        ("up", transposed),
        ("block", Conv3dGeometry(1, 1, 2, 4, 3, 5, 2)),
    ]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.LSTM(4, 8, 2, bidirectional=True), (5, 2, 4)),
        (nn.Sequential(nn.GRU(4, 8)), (5, 2, 4)),
        (nn.RNN(4, 8, batch_first=True), (2, 5, 4)),
    ],
)
def test_recurrent_layers(model: nn.Module, shape: tuple[int, ...]) -> None:
    layers = layer_shapes(model, shape)
    weights = [p for p in model.parameters() if p.dim() == 2]
    macs = sum(geometry.dense_macs for _, geometry in layers)
    assert macs == 5 * 2 * sum(p.numel() for p in weights)


def test_attention_has_the_products_of_its_projections() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    assert layer_shapes(model, (2, 5, 16)) == [
        ("self_attn.in_proj_weight", MatmulGeometry(10, 16, 48)),
        ("self_attn.out_proj", MatmulGeometry(10, 16, 16)),
        ("linear1", MatmulGeometry(10, 16, 32)),
        ("linear2", MatmulGeometry(10, 32, 16)),
    ]
    assert torch.backends.mha.get_fastpath_enabled()


class Added(nn.Module):
    """A product whose operator has no reader."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(x, x, self.weight)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Added(), r"weight \(1\)$"),
        (nn.Sequential(Added()), r"0\.weight \(1\)$"),
        (nn.Sequential(Added(), Added()), r"0\.weight \(1\), 1\.weight \(1\)$"),
    ],
)
def test_what_has_no_geometry_is_named(model: nn.Module, said: str) -> None:
    with pytest.warns(UserWarning, match="that are not read: " + said) as caught:
        assert layer_shapes(model, (1, 5, 5)) == []
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
