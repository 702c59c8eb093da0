"""Tensors of every kind: packed rightly, or passed through untouched; and what they count."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from elision.memory import saver

POLICIES = ["none", "exact", "offload", "int8"]


class Subclass(torch.Tensor):
    """A tensor of another class."""


def coo(model: nn.Module, x: Tensor) -> Tensor:
    return torch.sparse.mm(x.relu().to_sparse(), model(x))


def csr(model: nn.Module, x: Tensor) -> Tensor:
    return x.relu().to_sparse_csr() @ model(x)


def sparse_result(model: nn.Module, x: Tensor) -> Tensor:
    return torch.sparse.sum(model(x).to_sparse() * 2).reshape(1)


def jagged(model: nn.Module, x: Tensor) -> Tensor:
    return model(torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged)).values()


def nested(model: nn.Module, x: Tensor) -> Tensor:
    out = model(torch.nested.nested_tensor([x, x[:2]]))
    return torch.nested.to_padded_tensor(out, 0.0)


def batched(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.vmap(model)(x)


def batched_twice(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.vmap(model))(x.view(4, 16, 64))


def dual(model: nn.Module, x: Tensor) -> Tensor:
    value, derivative = torch.func.jvp(model, (x,), (torch.ones_like(x),))
    return value + derivative


def forward_over_reverse(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        out = model(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
        dual = torch.autograd.forward_ad.unpack_dual(out)
        return dual[0] + dual[1]


def subclass(model: nn.Module, x: Tensor) -> Tensor:
    return model(x.as_subclass(Subclass)).as_subclass(torch.Tensor)


def stacked(model: nn.Module, x: Tensor) -> Tensor:
    parameters = {n: torch.stack([p, p * 2]) for n, p in model.named_parameters()}

    def one(p: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, p, (x,))

    return torch.func.vmap(one)(parameters)


def overlapping(model: nn.Module, x: Tensor) -> Tensor:
    windows = model(x).flatten().unfold(0, 64, 8)
    return windows * windows.sigmoid()


def scalars(model: nn.Module, x: Tensor) -> Tensor:
    return model(x) * model(x).sum().sin().exp().tanh()


KINDS: list[Callable[[nn.Module, Tensor], Tensor]] = [
    coo,
    csr,
    sparse_result,
    jagged,
    nested,
    batched,
    batched_twice,
    dual,
    forward_over_reverse,
    subclass,
    stacked,
    overlapping,
    scalars,
]


def gradients(
    work: Callable[[nn.Module, Tensor], Tensor], policy: str | None
) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.ReLU())
    x = torch.randn(64, 64)
    if policy is None:
        loss = work(model, x).square().sum()
    else:
        with saver(model, policy, seed=0):
            loss = work(model, x).square().sum()
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("work", KINDS)
def test_a_tensor_of_any_kind_has_its_gradient(
    work: Callable[[nn.Module, Tensor], Tensor], policy: str
) -> None:
    plain, mine = gradients(work, None), gradients(work, policy)
    for a, b in zip(plain, mine, strict=True):
        if policy == "int8":
            assert (a - b).norm() <= 0.03 * a.norm()
        else:
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore")
def test_lazy_modules_are_made_in_the_block_and_their_weights_are_theirs() -> None:
    for policy in POLICIES:
        torch.manual_seed(0)
        model = nn.Sequential(nn.LazyLinear(64), nn.GELU(), nn.LazyLinear(8))
        x = torch.randn(32, 64)
        with saver(model, policy) as saved:
            loss = model(x).sum()
        loss.backward()
        weights = [p for p in model.parameters() if p.dim() > 1]
        assert all(p.grad is not None for p in weights)
        assert saved.ledger.parameter_bytes >= weights[1].nbytes


@pytest.mark.parametrize("policy", POLICIES)
def test_tensors_without_values_pass_through(policy: str) -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)]
    meta = nn.Sequential(*layers).to("meta")
    with saver(meta, policy) as saved:
        loss = meta(torch.randn(4, 3, 16, 16, device="meta")).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.is_meta for p in meta.parameters())
    assert {row.codec for row in saved.ledger.rows} == {"kept"}
    with FakeTensorMode():
        fake = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
        with saver(fake, policy):
            loss = fake(torch.randn(64, 64)).sum()
        loss.backward()
        assert all(p.grad is not None for p in fake.parameters())


def test_torch_refuses_its_own_transforms_of_reverse_mode_in_one_sentence() -> None:
    model, x = nn.Linear(8, 8), torch.randn(4, 8)
    with saver(model), pytest.raises(RuntimeError, match="saved tensor hooks"):
        torch.func.grad(lambda x: model(x).sum())(x)
    torch.func.grad(lambda x: model(x).sum())(x)


def plain_bytes(roots: list[Tensor], owned: nn.Module) -> int:
    """Bytes of the storages that plain autograd holds for these results."""
    parameters = {p.untyped_storage()._cdata for p in owned.parameters()}
    found, seen, stack = {}, set(), [root.grad_fn for root in roots]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [f for f, _ in node.next_functions]
        for name in dir(node):
            saved = getattr(node, name) if name.startswith("_saved_") else None
            if isinstance(saved, Tensor):
                storage = saved.untyped_storage()
                if storage._cdata not in parameters:
                    found[storage._cdata] = storage
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("policy", ["none", "exact", "bits(4)", "offload"])
@pytest.mark.parametrize("twice", [False, True])
def test_the_ledger_says_what_plain_autograd_would_hold(
    policy: str, twice: bool
) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(512, 1))
    x = torch.randn(512, 256, requires_grad=True)

    def run() -> list[Tensor]:
        y = model(x).sum()
        if not twice:
            return [y]
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        return [g.square().sum() + y]

    plain = plain_bytes(run(), model)
    with saver(model, policy) as saved:
        kept = run()
    assert saved.ledger.logical_bytes == pytest.approx(plain, rel=0.02)
    kept[0].backward()


@pytest.mark.parametrize("policy", ["exact", "bits(4)", "offload", "int8"])
def test_a_second_derivative_reads_the_packed_tensors_once_more(policy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.Softplus(), nn.Linear(256, 1))
    x = torch.randn(256, 64, requires_grad=True)

    def penalty(policy: str | None) -> tuple[list[Tensor], int]:
        model.zero_grad()
        if policy is None:
            (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            stored = 0
        else:
            with saver(model, policy, seed=0) as saved:
                (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            stored = saved.ledger.stored_bytes
        g.square().sum().backward()
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return found, stored

    (plain, _), (mine, stored) = penalty(None), penalty(policy)
    _, everything = penalty("none")
    for a, b in zip(plain, mine, strict=True):
        if policy in ("exact", "offload"):
            assert torch.equal(a, b)
        else:
            assert (a - b).norm() <= 0.1 * a.norm() + 1e-6
    assert stored <= everything


def test_small_tensors_of_an_unrolled_network_are_kept_and_counted() -> None:
    torch.manual_seed(0)
    cell, x = nn.GRUCell(64, 64), torch.randn(32, 64)

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> Tensor:
            h = x
            for _ in range(50):
                h = F.relu(self.cell(x, h)) + x
            return h

    model = Unrolled()
    out = model(x)
    plain = plain_bytes([out], model)
    out.sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    for policy in ("none", "exact", "int8", "bits(2.5)", "sfpr"):
        model.zero_grad()
        with saver(model, policy) as saved:
            out = model(x)
        assert saved.ledger.logical_bytes == pytest.approx(plain, rel=0.05)
        assert "small tensors, quicker to keep than to pack" in saved.report()
        out.sum().backward()
        for p, a in zip(model.parameters(), expected, strict=True):
            assert p.grad is not None
            assert (p.grad - a).norm() <= 0.02 * a.norm()
