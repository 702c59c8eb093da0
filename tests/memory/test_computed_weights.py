"""Weights that are computed in every step stay exact under lossy policies."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from elision.memory import Role, saver


class Computed(nn.Module):
    """A layer, and a product of its result with a weight that is computed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(48, 64)
        self.weight = nn.Parameter(torch.randn(64, 64) / 8)
        self.down = nn.Parameter(torch.randn(64, 4) / 8)
        self.up = nn.Parameter(torch.randn(4, 64) / 2)

    def product(self, x: Tensor, w: Tensor) -> Tensor:
        return x @ w

    def computed(self) -> Tensor:
        return self.weight + self.down @ self.up

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.first(x), self.computed())


class Einsum(Computed):
    def product(self, x: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("bi,oi->bo", x, w)


class Transposed(Computed):
    def product(self, x: Tensor, w: Tensor) -> Tensor:
        return (w @ x.T).T


class Addmm(Computed):
    def product(self, x: Tensor, w: Tensor) -> Tensor:
        return torch.addmm(self.weight[0], x, w.tanh())


class Bmm(Computed):
    def product(self, x: Tensor, w: Tensor) -> Tensor:
        heads = x.view(-1, 4, 16).transpose(0, 1)
        return heads.bmm(w[:, :16].reshape(4, 16, 16)).flatten(1)


class Baddbmm(Bmm):
    def product(self, x: Tensor, w: Tensor) -> Tensor:
        heads = x.view(-1, 4, 16).transpose(0, 1)
        small = w[:, :16].reshape(4, 16, 16)
        return torch.baddbmm(self.up[:, None, :16], heads, small)


class Masked(Computed):
    """A mask that is no buffer, and a number that a sum does not save."""

    def computed(self) -> Tensor:
        mask = (torch.arange(64) % 3 > 0).float()
        return self.weight * mask * 2.0 + 1e-5


class Standardised(Computed):
    def computed(self) -> Tensor:
        centred = self.weight - self.weight.mean(1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-5)


class NormLayer(Computed):
    """Weight standardisation as by a batch norm whose channels are the rows."""

    def computed(self) -> Tensor:
        rows = self.weight[None]
        gain = self.up[0] * 0.125
        return F.batch_norm(rows, None, None, gain, training=True)[0]


class Hypernetwork(Computed):
    def computed(self) -> Tensor:
        return F.gelu(self.down @ self.up) @ torch.tanh(self.weight)


class Spectral(Computed):
    def __init__(self) -> None:
        super().__init__()
        self.inner = parametrizations.spectral_norm(nn.Linear(64, 64))

    def computed(self) -> Tensor:
        weight = self.inner.weight
        assert isinstance(weight, Tensor)
        return weight.T


class WeightNorm(Spectral):
    def __init__(self) -> None:
        super().__init__()
        self.inner = parametrizations.weight_norm(nn.Linear(64, 64))


class Convolved(Computed):
    def product(self, x: Tensor, w: Tensor) -> Tensor:
        images = x.view(-1, 4, 4, 4)
        return F.conv2d(images, w.view(64, 64)[:, :36].reshape(64, 4, 3, 3))


class Elementwise(Computed):
    def product(self, x: Tensor, w: Tensor) -> Tensor:
        return x * w[0] * w.mean(0)


FORMS = [
    *(Computed, Einsum, Transposed, Addmm, Bmm, Baddbmm, Masked, Standardised),
    *(NormLayer, Hypernetwork, Spectral, WeightNorm, Convolved, Elementwise),
]


def gradients(model: nn.Module, x: Tensor, policy: str) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    with saver(model, policy, seed=0):
        loss = model(x).sin().sum()
    loss.backward()
    return {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("policy", ["bits(2)", "fp8", "derived(4)"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_computed_weight_is_not_rounded(form: type[Computed], policy: str) -> None:
    model, x = form(), torch.randn(128, 48)
    model.eval()  # power iterations stand still
    exact, lossy = gradients(model, x, "none"), gradients(model, x, policy)
    # What flows back to the first layer has passed the weight and nothing else.
    assert torch.equal(exact["first.bias"], lossy["first.bias"])
    # The activation that it is multiplied with is rounded all the same.
    assert any(not torch.equal(exact[name], lossy[name]) for name in exact)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_an_activation_is_not_taken_for_a_weight(requires_grad: bool) -> None:
    """Learned offsets, tables and scales on the way of a batch do not make it one."""

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(64, 32)
            self.position = nn.Parameter(torch.randn(1, 64, 32))
            self.scale = nn.Parameter(torch.ones(32))
            self.layer, self.last = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, tokens: Tensor, offset: Tensor) -> Tensor:
            x = (self.table(tokens) + self.position + offset) * self.scale
            return self.last(self.layer(x.tanh()))

    model = Embedded()
    tokens, offset = torch.randint(0, 64, (1, 64)), torch.randn(1, 64, 32)
    with saver(model, "int8") as saved:
        model(tokens, offset.requires_grad_(requires_grad)).sum().backward()
    kept = [r for r in saved.ledger.rows if r.slot.role is Role.WEIGHT]
    assert all(r.slot.name in ("mat2", "other") for r in kept), kept
    packed = {r.slot.consumer for r in saved.ledger.rows if r.codec.startswith("group")}
    assert {"Tanh.result", "Addmm.mat1"} <= packed


def test_only_the_first_factor_without_a_history_is_in_doubt() -> None:
    """``x + position`` in a batch of one may be a weight for all that its graph says."""

    class Doubtful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.position = nn.Parameter(torch.randn(64, 32))
            self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.position
            for layer in self.layers:
                x = layer(x)
            return x

    model = Doubtful()
    with saver(model, "bits(4)") as saved:
        model(torch.randn(64, 32)).sum().backward()
    inputs = [r for r in saved.ledger.rows if r.slot.name == "mat1"]
    assert len(inputs) == 3
    assert all(r.slot.role is Role.LINEAR_INPUT for r in inputs)
