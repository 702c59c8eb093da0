"""Programs that read Python state, write in place, alias, draw and branch.

The user's forward runs at every step, whatever the engine: outputs, gradients, buffers
and random state are those of the torch engine.
"""

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import elision
from elision.engines.native import library
from elision.methods import Swat

pytestmark = pytest.mark.skipif(
    library.unavailable() is not None, reason=str(library.unavailable())
)

Body = Callable[[Any, Tensor], Tensor]
PROGRAMS: dict[str, Body] = {}


def program(body: Body) -> Body:
    """Enter a body between two sparse convolutions into the table."""
    PROGRAMS[body.__name__] = body
    return body


class Net(nn.Module):
    """Convolutions around a body, which gets the module and a blocked activation."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.c = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 4)
        self.gain = nn.Parameter(torch.tensor(0.3))
        self.body, self.scale, self.seen = body, 1.0, []
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(self, self.b(torch.relu(self.a(x))))
        self.scale += 1
        return self.fc(self.c(h).mean((2, 3)))


def steps(body: Body, engine: str) -> tuple[list[Tensor], list[Any], Tensor]:
    """Two steps: results, what the program noted, and the random state's next number."""
    model = elision.elide(Net(body), Swat(sparsity=0.6, dense=()), engine=engine)
    found: list[Tensor] = []
    for number in range(2):
        torch.manual_seed(10 + number)
        x = torch.randn(5, 3, 8, 8, requires_grad=True)
        y = model(x)
        y.square().sum().backward()
        assert x.grad is not None
        found += [y.detach(), x.grad]
    if model.kept is not None:
        assert model.kept.grad is not None
        found.append(model.kept.grad)
    found += [p.grad for p in model.parameters() if p.grad is not None]
    return found + [b.float() for b in model.buffers()], model.seen, torch.rand(1)


# --- in place -------------------------------------------------------------------------


@program
def multiply_in_place(net: Any, h: Tensor) -> Tensor:
    h = net.norm(h)
    h.mul_(net.gain)
    return F.relu(h)


@program
def relu_in_place_result_unused(net: Any, h: Tensor) -> Tensor:
    h = net.norm(h)
    F.relu(h, inplace=True)
    return h


@program
def masked_fill_in_place(net: Any, h: Tensor) -> Tensor:
    h.masked_fill_(h > 0.5, 0.0)
    return h


@program
def copy_into(net: Any, h: Tensor) -> Tensor:
    other = h * 1
    other.copy_(h * 2)
    return other


@program
def out_argument(net: Any, h: Tensor) -> Tensor:
    with torch.no_grad():
        other = torch.empty_like(h)
        torch.mul(h, 2.0, out=other)
    return h + other


@program
def residual_in_place(net: Any, h: Tensor) -> Tensor:
    k = net.norm(h)
    k += h
    return F.relu(k, inplace=True)


@program
def zeroed(net: Any, h: Tensor) -> Tensor:
    h = h * 1
    h.zero_()
    return h + 1


# --- views and aliases ----------------------------------------------------------------


@program
def write_to_a_slice(net: Any, h: Tensor) -> Tensor:
    h[:, :4].mul_(2.0)
    return h


@program
def write_to_a_view(net: Any, h: Tensor) -> Tensor:
    h = h.clone()
    h.view(-1).mul_(1.5)
    h[0] = 0.5
    return h


@program
def assign_from_itself(net: Any, h: Tensor) -> Tensor:
    h = h * 1
    h[:, 1:3] = h[:, 3:5] * 2
    return h


@program
def chunks_joined(net: Any, h: Tensor) -> Tensor:
    p, q = h.chunk(2, 1)
    return torch.cat([q, p * 2], 1)


@program
def channels_shuffled(net: Any, h: Tensor) -> Tensor:
    n, c, height, width = h.shape
    return h.view(n, 2, c // 2, height, width).transpose(1, 2).reshape(h.shape)


@program
def detached_and_written(net: Any, h: Tensor) -> Tensor:
    h.detach().add_(1.0)
    return h * 1.0


@program
def written_through_data(net: Any, h: Tensor) -> Tensor:
    h.data.mul_(2.0)
    return F.relu(net.norm(h))


@program
def data_replaced(net: Any, h: Tensor) -> Tensor:
    h = F.relu(net.norm(h))
    h.data = h.data * 2
    return h


@program
def written_through_numpy(net: Any, h: Tensor) -> Tensor:
    h.detach().numpy()[:] *= 2
    return h


@program
def rank_changed_in_place(net: Any, h: Tensor) -> Tensor:
    h = net.norm(h)
    other = h.detach()
    h.unsqueeze_(1)
    net.seen.append(f"{h.dim()} {other.dim()}")
    h = F.relu(h) * 2
    return h.squeeze_(1) + other


@program
def axes_swapped_in_place(net: Any, h: Tensor) -> Tensor:
    h = net.norm(h)[..., :6] + h[..., :6]
    h.transpose_(1, 3)
    net.seen.append(str(h.shape))
    return (F.relu(h) * torch.arange(16.0)).transpose_(1, 3)


@program
def resized_and_set(net: Any, h: Tensor) -> Tensor:
    with torch.no_grad():
        other, third = h + h, h * 2
        other.resize_(5, 16, 32)
        third.set_(torch.ones(3, 4))  # pyright: ignore[reportArgumentType]
        third.mul_(2)
        net.seen.append(f"{other.shape} {third.shape}")
    return h * other.sum() * third.sum() / 100


@program
def one_by_one(net: Any, h: Tensor) -> Tensor:
    return torch.cat([h[i : i + 1] for i in range(len(h))])


@program
def bias_changed_after_the_norm(net: Any, h: Tensor) -> Tensor:
    h = net.a(h[:, :3])
    k = net.norm(h)
    with torch.no_grad():
        net.a.bias.add_(1.0)
    return F.relu(k) + h


# --- read by something else than torch ------------------------------------------------


@program
def read_by_numpy(net: Any, h: Tensor) -> Tensor:
    net.seen.append(float(np.asarray(h.detach()).sum()))
    return F.relu(h)


@program
def listed_and_copied(net: Any, h: Tensor) -> Tensor:
    net.seen.append(h.tolist()[0][0][0][0])
    net.seen.append(copy.deepcopy(h.detach()).sum().item())
    return h


@program
def saved_to_a_file(net: Any, h: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(h.detach(), file)
    file.seek(0)
    net.seen.append(torch.load(file).sum().item())
    return h


@program
def described(net: Any, h: Tensor) -> Tensor:
    assert "tensor(" in repr(h)
    facts = (h.is_contiguous(), h.stride(), h.dtype, h.device.type, h.numel())
    net.seen.append(str(facts))
    return h


# --- modes ----------------------------------------------------------------------------


@program
def part_without_gradient(net: Any, h: Tensor) -> Tensor:
    with torch.no_grad():
        k = F.relu(net.norm(h))
    return h + k


@program
def part_detached(net: Any, h: Tensor) -> Tensor:
    return h + h.detach() * 2


@program
def gradient_hook(net: Any, h: Tensor) -> Tensor:
    h.register_hook(lambda g: g * 2)
    return F.relu(net.norm(h))


@program
def gradient_retained(net: Any, h: Tensor) -> Tensor:
    h.retain_grad()
    net.kept = h
    return F.relu(net.norm(h))


@program
def recomputed(net: Any, h: Tensor) -> Tensor:
    def part(t: Tensor) -> Tensor:
        return F.relu(net.c(t))

    return checkpoint(part, h, use_reentrant=False)  # pyright: ignore[reportReturnType]


@program
def recomputed_reentrantly(net: Any, h: Tensor) -> Tensor:
    def part(t: Tensor) -> Tensor:
        return F.relu(net.c(t))

    return checkpoint(part, h, use_reentrant=True)  # pyright: ignore[reportReturnType]


@program
def mapped(net: Any, h: Tensor) -> Tensor:
    return torch.vmap(lambda t: t * 2)(h)


@program
def double_precision(net: Any, h: Tensor) -> Tensor:
    return h.double().float()


@program
def channels_last(net: Any, h: Tensor) -> Tensor:
    return F.relu(h.to(memory_format=torch.channels_last))


# --- Python state and chance ----------------------------------------------------------


@program
def annealed(net: Any, h: Tensor) -> Tensor:
    return h * net.scale


@program
def auxiliary_loss(net: Any, h: Tensor) -> Tensor:
    net.aux = h.square().mean()
    assert isinstance(net.aux, Tensor)
    return h + net.aux


@program
def norm_settings_change(net: Any, h: Tensor) -> Tensor:
    net.norm.momentum, net.norm.eps = 0.1 * net.scale, 1e-3 * net.scale
    return net.norm(h)


@program
def norm_evaluated(net: Any, h: Tensor) -> Tensor:
    net.norm.eval()
    result = F.relu(net.norm(h))
    net.norm.train()
    return result


@program
def random_branch(net: Any, h: Tensor) -> Tensor:
    return h * 2 if torch.rand(()) < 0.5 else h + torch.randn_like(h)


@program
def branch_on_data(net: Any, h: Tensor) -> Tensor:
    return h * 2 if h.sum().item() > 0 else h * 3


@program
def drop_path(net: Any, h: Tensor) -> Tensor:
    kept = h.new_empty((h.shape[0], 1, 1, 1)).bernoulli_(0.5)
    kept.div_(0.5)
    return h * kept


@program
def dropout(net: Any, h: Tensor) -> Tensor:
    return F.dropout2d(F.relu(net.norm(h)), 0.5)


# --- what the kernels know, in unusual orders -----------------------------------------


@program
def two_norms_added(net: Any, h: Tensor) -> Tensor:
    return F.relu(net.norm(h) + net.norm(h * 0.5))


@program
def norm_added_to_itself(net: Any, h: Tensor) -> Tensor:
    k = net.norm(h)
    return F.relu(k + k)


@program
def pending_result_read_twice(net: Any, h: Tensor) -> Tensor:
    k = net.norm(h)
    return F.relu(k) + k


@program
def norm_read_by_two_layers(net: Any, h: Tensor) -> Tensor:
    k = F.relu(net.norm(h))
    return k + net.c(k) + net.b(k)


@program
def source_written_after_the_norm(net: Any, h: Tensor) -> Tensor:
    k, other = net.norm(h.clone()), h.clone()
    y = F.relu(k)
    other.zero_()
    return y + other


@program
def pooled(net: Any, h: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(net.norm(h)), 3, 2, 1, ceil_mode=True)


@program
def unpooled(net: Any, h: Tensor) -> Tensor:
    y, places = F.max_pool2d(h, 2, return_indices=True)
    return F.max_unpool2d(y, places, 2)


@program
def activations(net: Any, h: Tensor) -> Tensor:
    h = F.silu(F.hardswish(F.gelu(net.norm(h))))
    return F.leaky_relu(F.elu(torch.tanh(torch.sigmoid(F.relu6(h)) - 0.6)))


@program
def gated(net: Any, h: Tensor) -> Tensor:
    return h * torch.sigmoid(h.mean((2, 3), keepdim=True))


@program
def other_norms(net: Any, h: Tensor) -> Tensor:
    h = F.group_norm(h, 4) + F.instance_norm(h)
    return F.layer_norm(h.permute(0, 2, 3, 1), (16,)).permute(0, 3, 1, 2)


@program
def default_dtype(net: Any, h: Tensor) -> Tensor:
    torch.set_default_dtype(torch.float64)
    try:
        return F.relu(net.c(h.clone())) + net.b(torch.sin(h))
    finally:
        torch.set_default_dtype(torch.float32)


@program
def default_device(net: Any, h: Tensor) -> Tensor:
    with torch.device("meta"):
        return F.relu(net.c(h.clone())) + net.b(torch.sin(h))


@pytest.mark.parametrize("refresh", [1, 3])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear])
def test_a_default_dtype_changes_no_step(kind: Any, refresh: int) -> None:
    found: list[list[Tensor]] = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        model = kind(8, 16, 1) if kind is nn.Conv2d else kind(8, 16)
        x = torch.randn(20, 8, 1, 1) if kind is nn.Conv2d else torch.randn(20, 8)
        torch.set_default_dtype(dtype)
        try:
            recipe = Swat(sparsity=0.6, dense=(), refresh=refresh)
            elision.elide(model, recipe, engine="native")
            y = [model(x) for _ in range(2)][-1]
            y.square().sum().backward()
        finally:
            torch.set_default_dtype(torch.float32)
        found.append([y.detach(), model.weight.grad])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:.*reentrant")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_computes_what_it_does_under_the_torch_engine(name: str) -> None:
    expected, noted, drawn = steps(PROGRAMS[name], "torch")
    found, noted_here, drawn_here = steps(PROGRAMS[name], "native")
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-4
    for ours, theirs in zip(noted_here, noted, strict=True):
        is_number = isinstance(theirs, float)
        assert ours == (pytest.approx(theirs, rel=1e-4) if is_number else theirs)
    assert torch.equal(drawn_here, drawn)
