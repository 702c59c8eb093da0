"""A model as a chain: pieces compute what the model does, and share its weights."""

import pytest
import torch
from torch import Tensor, nn

import elision
from elision.training.pipeline.chain import (
    chain,
    channel_dimension,
    halves,
    input_gradient,
    stages_of,
    weight_gradients,
)
from elision.workloads.models.cnn import cnn
from elision.workloads.models.resnet import resnet14
from elision.workloads.models.vgg import vgg16

MAKERS = {"cnn": (cnn, 4), "vgg16": (vgg16, 14), "resnet14": (resnet14, 8)}


@pytest.mark.parametrize("name", MAKERS)
def test_pieces_share_the_model_s_weights(name: str) -> None:
    make, count = MAKERS[name]
    model = make(in_channels=3, classes=4, width=4)
    pieces = chain(model, torch.randn(4, 3, 32, 32))
    assert len(pieces) == count
    names = [n for piece in pieces for n, _ in piece.named_parameters()]
    assert names == [n for n, _ in model.named_parameters()]
    own = {id(p) for p in model.parameters()}
    assert all(id(p) in own for piece in pieces for p in piece.parameters())


def test_the_example_does_not_move_statistics_and_training_mode_reaches_pieces() -> (
    None
):
    model = cnn(in_channels=3, classes=4, width=4)
    pieces = chain(model, torch.randn(4, 3, 8, 8))
    assert model.features[1].num_batches_tracked == 0
    x = torch.randn(4, 3, 8, 8)
    model.eval()
    y = x
    for piece in pieces:
        y = piece(y)
    assert torch.equal(y, model(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 6, 3, bias=False, dilation=2),
        nn.Linear(8, 3),
    ],
)
def test_halves_give_the_layer_s_weight_gradient(layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Tanh())
    x = torch.randn(3, 4, 8, 8)
    [piece] = chain(model, x)
    found = halves(piece)
    assert found is not None
    product, rest = found
    z = product(x)
    y = rest(z)
    assert torch.equal(y, model(x))
    g = torch.randn_like(y)
    [gz] = torch.autograd.grad(y, [z], g, retain_graph=True)
    own = list(product.parameters())
    expected = torch.autograd.grad(y, own, g)
    for one, other in zip(weight_gradients(product, x, gz), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("product", "shape"),
    [
        (nn.Conv2d(5, 4, 3, stride=2, padding=1), (2, 5, 7, 8)),
        (nn.Conv2d(5, 3, 2, dilation=2), (2, 5, 6, 6)),
        (nn.Linear(5, 3), (2, 4, 5)),
    ],
)
@pytest.mark.parametrize("channels", [slice(0, 2), slice(2, 5), slice(4, 5)])
def test_an_input_gradient_of_some_channels_needs_their_weights_alone(
    product: nn.Module, shape: tuple[int, ...], channels: slice
) -> None:
    x = torch.randn(shape, requires_grad=True)
    y = product(x)
    g = torch.randn_like(y)
    [whole] = torch.autograd.grad(y, [x], g)
    dimension, count = channel_dimension(product), channels.stop - channels.start
    expected = whole.narrow(dimension, channels.start, count)
    weight = product.get_parameter("weight").detach()[:, channels]
    found = input_gradient(product, weight, expected.shape, g)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Switching(nn.Module):
    """Depends on values, so that it cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Untraceable(nn.Module):
    """Gives another output each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(2, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) * self.calls


def test_what_cannot_be_cut_is_refused_by_name() -> None:
    x = torch.ones(2, 2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Switching(), nn.Tanh()))
    assert len(chain(model, x)) == 1  # a module without children is called, not traced

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="Outer: the forward pass cannot be traced"):
        chain(Outer(), x)
    with pytest.raises(ValueError, match="Untraceable: its traced pieces give another"):
        chain(Untraceable(), x)
    hooked = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Tanh())
    hooked[0].register_forward_hook(lambda module, args, output: None)
    with pytest.raises(ValueError, match="module '0' has hooks"):
        chain(hooked, x)
    elided = elision.elide(cnn(in_channels=3, classes=4, width=4), "swat:sparsity=0.5")
    with pytest.raises(
        ValueError,
        match=r"module 'Cnn' has hooks, .* the model is elided: cut the plain",
    ):
        chain(elided, torch.randn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="2 layers cannot be stages of"):
        stages_of([nn.Tanh(), nn.Tanh()], [1, 0, 1])
